from __future__ import annotations

import re
import shutil
import threading

import pytest
from filelock import FileLock
from jobflow import JobStore
from maggma.stores import JSONStore, MemoryStore, MongoStore, MontyStore
from monty.json import MontyDecoder

from adit_atomate import disk_store
from adit_atomate.stores import JobStoreError, check_job_store


def connected(**additional) -> JobStore:
    store = JobStore(MemoryStore(), additional_stores=additional)
    store.connect()
    return store


def test_a_good_store_is_left_as_it_was(job_store):
    check_job_store(job_store)
    assert job_store.count() == 0
    assert job_store.additional_stores["data"].count() == 0


def test_the_default_store_of_jobflow():
    from jobflow.settings import JobflowSettings

    store = JobflowSettings(CONFIG_FILE="none").JOB_STORE
    store.connect()
    check_job_store(store)


def test_no_additional_store():
    with pytest.raises(JobStoreError, match=r"no additional store 'data' \(it has none\): add"):
        check_job_store(connected())


def test_another_additional_store():
    with pytest.raises(JobStoreError, match=r"no additional store 'data' \(it has 'blobs'\)"):
        check_job_store(connected(blobs=MemoryStore()))


def test_read_only_file(tmp_path):
    (tmp_path / "data.json").write_text("[]")
    store = connected(data=JSONStore(str(tmp_path / "data.json")))
    with pytest.raises(JobStoreError, match=r"additional store 'data'.* is set to read_only"):
        check_job_store(store)


@pytest.mark.parametrize("lost", ["documents", "data"])
def test_file_that_cannot_be_written(tmp_path, lost):
    stores = {}
    for name in ("documents", "data"):
        (tmp_path / name).mkdir()
        stores[name] = JSONStore(str(tmp_path / name / "store.json"), read_only=False)
    store = JobStore(stores["documents"], additional_stores={"data": stores["data"]})
    store.connect()
    check_job_store(store)
    shutil.rmtree(tmp_path / lost)
    with pytest.raises(JobStoreError, match=r"cannot be written: .*No such file"):
        check_job_store(store)


def test_store_without_connection():
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    with pytest.raises(JobStoreError, match="cannot be written"):
        check_job_store(store)


class WithoutRemoval(MemoryStore):
    def remove_docs(self, criteria):
        raise PermissionError("not authorized")


def test_what_cannot_be_removed_is_named(caplog):
    check_job_store(connected(data=WithoutRemoval()))
    assert re.search(r"'data' keeps the test document adit-write-test-\S+: not auth", caplog.text)


def test_files_of_jobflow_remote_get_no_test_document():
    """Its workers write one file that must hold one document and cannot lose any."""
    kept = type("MinimalStore", (WithoutRemoval,), {"__module__": "jobflow_remote.remote.data"})
    store = connected(data=kept())
    check_job_store(store)
    assert store.additional_stores["data"].count() == 0


def test_new_sqlite_store(tmp_path):
    pytest.importorskip("montydb")
    store = connected(data=MontyStore("blobs", database_path=str(tmp_path)))
    check_job_store(store)
    check_job_store(store)
    assert store.additional_stores["data"].count() == 0


def test_a_sqlite_store_whose_making_was_cut_off(tmp_path):
    pytest.importorskip("montydb")
    store = connected(data=MontyStore("blobs", database_path=str(tmp_path)))
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "blobs.collection").touch()  # a file without a table, as a kill leaves it
    check_job_store(store)
    (tmp_path / "db" / "blobs.collection").write_text("damaged" * 1000)
    with pytest.raises(JobStoreError, match=r"blobs\.collection .*move it away"):
        check_job_store(store)


def test_processes_that_make_a_store_wait_for_each_other(tmp_path):
    pytest.importorskip("montydb")
    folder = tmp_path / "new"
    store = disk_store(folder)
    folder.mkdir()
    with FileLock(folder / "connect.lock"):  # of another process that connects
        thread = threading.Thread(target=store.connect, daemon=True)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and not (folder / ".monty.storage").exists()
    thread.join(60)
    assert not thread.is_alive()
    again = MontyDecoder().process_decoded(store.as_dict())
    again.connect()
    document = {"uuid": "a", "index": 1, "output": {"x": [1]}}
    again.update(document, key=["uuid", "index"], save={"data": ["x"]})
    assert store.query_one({"uuid": "a"}, load=True)["output"] == {"x": [1]}
    check_job_store(store)


def test_size_limit_of_mongodb():
    store = connected(data=MongoStore("database", "collection"))
    with pytest.raises(JobStoreError, match="about 40 MB are to be stored: use a GridFSStore"):
        check_job_store(store, num_bytes=40_000_000)


def test_other_stores_have_no_size_limit(job_store):
    check_job_store(job_store, num_bytes=40_000_000)
