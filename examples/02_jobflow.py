"""Generate structures as a job, and read them back from the job store.

    python examples/02_jobflow.py [FOLDER]

With a FOLDER the results are kept there in SQLite files (pip install 'adit-atomate[store]'),
otherwise in memory. A project has its stores in jobflow.yaml and calls run_locally without any.
"""

import sys

from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore

from adit_atomate import ADiTGenerateMaker, disk_store


def make_store(folder: str | None) -> JobStore:
    """Documents in one store, structures in the additional store ``data``."""
    if folder is None:
        return JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    return disk_store(folder)


def main() -> None:
    store = make_store(sys.argv[1] if len(sys.argv) > 1 else None)

    # The checkpoint is the setting ADIT_CHECKPOINT, by default the bundled weights.
    maker = ADiTGenerateMaker(domain="both", seed=1)
    job = maker.make(n=8)
    run_locally(Flow([job], name="8 structures"), store=store, ensure_success=True)

    # A query finds the document without its structures: they are in the store "data".
    with store:
        document = store.query_one({"uuid": job.uuid})
        print("request:", document["output"]["request"])
        print("counts:", document["output"]["counts"])
        output = store.get_output(job.uuid, load=True)
    print(f"{len(output['structures'])} structures")
    for record in output["samples"]:
        print(record["index"], record["formula"], record["reason"] or "plausible")


if __name__ == "__main__":
    main()
