"""Generation into stores that speak MongoDB's protocol, with GridFS for the large parts.

The server is nx-27017 (PyPI), in a process and, because of its pymongo, an environment of its own:
ADIT_NX27017 names its executable where it is not on PATH.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from jobflow import JobStore, run_locally
from maggma.stores import GridFSStore, MongoStore
from monty.json import MontyDecoder

from adit_atomate import ADiTGenerateMaker
from adit_atomate.stores import JobStoreError

HPC = Path(__file__).resolve().parents[2] / "examples" / "hpc"
SERVER = os.environ.get("ADIT_NX27017") or shutil.which("nx-27017")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.integration,
    pytest.mark.skipif(SERVER is None, reason="no nx-27017: put it on PATH or set ADIT_NX27017"),
]


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Port of a running server."""
    folder = tmp_path_factory.mktemp("mongo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    command = [SERVER, "--data-dir", folder, "--host", "127.0.0.1", "-p", str(number)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield number
    finally:
        process.terminate()
        process.wait(30)


def make_store(port: int, **additional) -> JobStore:
    main = MongoStore("adit", "outputs", host="127.0.0.1", port=port)
    return JobStore(main, additional_stores=additional)


def test_generation_is_kept_in_mongodb_and_gridfs(tiny_checkpoint, port, job_store):
    maker = ADiTGenerateMaker(checkpoint=str(tiny_checkpoint), check_validity=False)
    blobs = GridFSStore("adit", "blobs", host="127.0.0.1", port=port)
    store = make_store(port, data=blobs)
    job = maker.make(n=8)
    document = run_locally(job, store=store, ensure_success=True)[job.uuid][1].output
    again = make_store(port, data=GridFSStore("adit", "blobs", host="127.0.0.1", port=port))
    again.connect()
    raw = again.query_one({"output.request.n": 8})
    assert raw["output"]["structures"]["store"] == "data"
    output = MontyDecoder().process_decoded(again.get_output(job.uuid, load=True))
    assert output.structures == document.structures
    # as on the default store
    same = maker.make(n=8)
    memory = run_locally(same, store=job_store, ensure_success=True)[same.uuid][1].output
    assert memory.structures == output.structures
    assert memory.samples == output.samples


def test_a_store_that_is_missing_is_told_before_any_work(tiny_checkpoint, port):
    store = make_store(port)
    store.connect()
    job = ADiTGenerateMaker(checkpoint=str(tiny_checkpoint)).make(n=2)
    with pytest.raises(JobStoreError, match="no additional store 'data'"):
        job.run(store)
    assert store.count({"uuid": job.uuid}) == 0


@pytest.mark.parametrize("part", ["--jobstore", "--queue"])
def test_stores_of_the_jobflow_remote_project(part, port, tmp_path):
    """`jf project check` on the project of examples/hpc, with its stores on the running server."""
    pytest.importorskip("jobflow_remote", reason="jobflow-remote is not installed")
    project = yaml.safe_load((HPC / "jobflow_remote" / "adit.yaml").read_text())
    stores = project["jobstore"]
    for settings in (
        project["queue"]["store"],
        stores["docs_store"],
        stores["additional_stores"]["data"],
    ):
        settings.update(host="127.0.0.1", port=port)
        del settings["username"], settings["password"]
    (tmp_path / "adit.yaml").write_text(yaml.safe_dump(project))
    out = subprocess.run(
        [Path(sys.executable).with_name("jf"), "project", "check", part, "--errors"],
        env={**os.environ, "JFREMOTE_PROJECTS_FOLDER": str(tmp_path), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "The project configuration is correct" in out.stdout, out.stdout + out.stderr
    assert "\u2713" in out.stdout
