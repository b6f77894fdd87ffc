"""Many generated structures through a job store: sizes of documents, and times.

    python benchmarks/store.py --n 10000 --num-steps 2 [--store monty|mongo] [--port 27017]

The steps of the solver are few, because what the structures are like does not matter here; their
number of atoms is that of the training data. `mongo` needs a server on localhost; the script drops
the database `adit_benchmark` afterwards.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import bson
from jobflow import JobStore
from maggma.stores import GridFSStore, MontyStore
from maggma.stores.mongolike import MongoStore
from monty.json import MontyDecoder

from adit_atomate import ADiTGenerateMaker


def make_store(kind: str, folder: str, port: int) -> JobStore:
    if kind == "monty":
        return JobStore(
            MontyStore("outputs", database_path=folder),
            additional_stores={"data": MontyStore("blobs", database_path=folder)},
        )
    return JobStore(
        MongoStore("adit_benchmark", "outputs", host="127.0.0.1", port=port),
        additional_stores={
            "data": GridFSStore("adit_benchmark", "blobs", host="127.0.0.1", port=port)
        },
    )


def blob_sizes(store: JobStore) -> list[int]:
    """Bytes of each blob, as BSON."""
    return [
        len(bson.encode({"data": blob["data"]}))
        for blob in store.additional_stores["data"].query(properties=["blob_uuid", "data"])
    ]


def measure(store: JobStore, n: int, num_steps: int) -> dict[str, Any]:
    """Generate in one job, and read all of it back."""
    store.connect()
    maker = ADiTGenerateMaker(
        domain="crystal", num_steps=num_steps, solver="euler", check_validity=False
    )
    job = maker.make(n=n)
    started = time.perf_counter()
    job.run(store)
    total = time.perf_counter() - started
    document = store.query_one({"uuid": job.uuid})
    document.pop("_id", None)
    timings = document["output"]["timings"]
    started = time.perf_counter()
    output = MontyDecoder().process_decoded(store.get_output(job.uuid, load=True))
    read = time.perf_counter() - started
    return {
        "structures": len(output.structures),
        "atoms": sum(map(len, output.structures)),
        "main document, MB": len(bson.encode(document)) / 1e6,
        "blobs, MB": [round(size / 1e6, 1) for size in blob_sizes(store)],
        "generate, s": timings["load"] + timings["sample"] + timings["check"],
        "serialise and write, s": total - sum(timings.values()),
        "read and decode, s": read,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--num-steps", type=int, default=2)
    parser.add_argument("--store", choices=("monty", "mongo"), default="monty")
    parser.add_argument("--port", type=int, default=27017)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(args.store, folder, args.port)
        try:
            for name, value in measure(store, args.n, args.num_steps).items():
                shown = f"{value:.3f}" if isinstance(value, float) else value
                print(f"{name:<24} {shown}")
        finally:
            if args.store == "mongo":
                store.docs_store._collection.database.client.drop_database("adit_benchmark")


if __name__ == "__main__":
    main()
