"""Generation into stores that speak MongoDB's protocol, with GridFS for the large parts."""

from __future__ import annotations

import pytest
from jobflow import JobStore, run_locally
from maggma.stores import GridFSStore, MongoStore
from monty.json import MontyDecoder

from adit_atomate import ADiTGenerateMaker
from adit_atomate.stores import JobStoreError

pytestmark = pytest.mark.integration


def make_store(port: int, **additional) -> JobStore:
    main = MongoStore("adit", "outputs", host="127.0.0.1", port=port)
    return JobStore(main, additional_stores=additional)


def test_generation_is_kept_in_mongodb_and_gridfs(tiny_checkpoint, mongo_port, job_store):
    maker = ADiTGenerateMaker(checkpoint=str(tiny_checkpoint), check_validity=False)
    blobs = GridFSStore("adit", "blobs", host="127.0.0.1", port=mongo_port)
    store = make_store(mongo_port, data=blobs)
    job = maker.make(n=8)
    document = run_locally(job, store=store, ensure_success=True)[job.uuid][1].output
    again = make_store(
        mongo_port, data=GridFSStore("adit", "blobs", host="127.0.0.1", port=mongo_port)
    )
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


def test_a_store_that_is_missing_is_told_before_any_work(tiny_checkpoint, mongo_port):
    store = make_store(mongo_port)
    store.connect()
    job = ADiTGenerateMaker(checkpoint=str(tiny_checkpoint)).make(n=2)
    with pytest.raises(JobStoreError, match="no additional store 'data'"):
        job.run(store)
    assert store.count({"uuid": job.uuid}) == 0
