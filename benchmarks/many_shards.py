"""A discovery of many shards through FireWorks: documents, sizes and times against n.

    secantusd-py --port 27117 --storage-path FOLDER &
    python benchmarks/many_shards.py --port 27117

Any server of MongoDB's protocol on localhost will do; the script drops the databases
`adit_many_*` that it makes. Generation takes few steps and relaxation a single one of a
Lennard-Jones potential: what is measured is everything around them. The last column is the
exponent of n between the first and the last row: 1 where the quantity grows as n does.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import bson
from atomate2.ase.jobs import LennardJonesRelaxMaker
from fireworks import LaunchPad
from fireworks.core.rocket_launcher import rapidfire
from jobflow import JobStore
from jobflow.managers.fireworks import flow_to_workflow
from maggma.stores import GridFSStore, MongoStore
from monty.json import MontyDecoder
from pymongo import MongoClient
from scaling import peak_gib

from adit_atomate import (
    ADiTDiscoveryDoc,
    ADiTDiscoveryMaker,
    ADiTGenerateMaker,
    ADiTGenerateShardsMaker,
    ADiTRelaxStageMaker,
)


def measure(n: int, shard: int, port: int) -> dict[str, float]:
    """Send one discovery through the queue, and look at what it left."""
    name = f"adit_many_{n}"
    server: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    client = MongoClient(**server)
    client.drop_database(name)
    launchpad = LaunchPad(name=name, strm_lvl="ERROR", **server)
    launchpad.reset("", require_password=False)
    store = JobStore(
        MongoStore(name, "outputs", **server),
        additional_stores={"data": GridFSStore(name, "blobs", **server)},
    )
    relax = LennardJonesRelaxMaker(steps=1, relax_cell=False, ionic_step_data=("energy",))
    generate = ADiTGenerateMaker(domain="crystal", num_steps=2, seed=0, check_validity=False)
    flow = ADiTDiscoveryMaker(
        generate_maker=ADiTGenerateShardsMaker(generate, samples_per_job=shard),
        relax_maker=ADiTRelaxStageMaker(relax_maker=relax, time_limit=None, memory_limit=None),
        rank_maker=None,
        compare_relaxed=False,
    ).make(n=n)
    started = time.perf_counter()
    launchpad.add_wf(flow_to_workflow(flow, store=store))
    rapidfire(launchpad, nlaunches=0, strm_lvl="ERROR")
    seconds = time.perf_counter() - started
    store.connect()
    output = store.get_output(flow.output.uuid, load=True)
    document: ADiTDiscoveryDoc = MontyDecoder().process_decoded(output)
    assert sum(document.fates.values()) == document.n == n
    database = client[name]
    queue = {kind: sizes(database[kind]) for kind in ("fireworks", "workflows", "launches")}
    outputs = sizes(database.outputs)
    blobs = [file["length"] / 1e6 for file in database["blobs.files"].find({}, ["length"])]
    client.drop_database(name)
    inside = {t.stage: t.seconds for t in document.timings}
    return {
        "n": n,
        "relaxed": document.funnel["relaxed"],
        "jobs": len(queue["fireworks"]),
        "queue, MB": sum(map(sum, queue.values())),
        "largest document of the queue, MB": max(map(max, queue.values())),
        "store, documents": len(outputs),
        "store, main documents, MB": sum(outputs),
        "largest main document, MB": max(outputs),
        "store, pieces in data, MB": sum(blobs),
        "largest piece, MB": max(blobs),
        **{f"{stage}, s": taken for stage, taken in inside.items()},
        "all, s": seconds,
        "peak memory of the worker, GiB": peak_gib(),
    }


def sizes(collection: Any) -> list[float]:
    """Megabytes of each document."""
    return [len(bson.encode(document)) / 1e6 for document in collection.find()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[60, 240, 960])
    parser.add_argument("--shard", type=int, default=30, help="samples in each generation job")
    parser.add_argument("--port", type=int, default=27017)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for n in args.n:
            rows.append(measure(n, args.shard, args.port))
            print(rows[-1], flush=True)
        os.chdir(Path(folder).parent)
    print("| | " + " | ".join(f"{row['n']:,}" for row in rows) + " | exponent |")
    print("|---|" + "---:|" * (len(rows) + 1))
    growth = math.log(rows[-1]["n"] / rows[0]["n"]) if len(rows) > 1 else math.nan
    for name in rows[0]:
        values = [row.get(name, math.nan) for row in rows]
        exponent = math.log(values[-1] / values[0]) / growth if values[0] > 0 else math.nan
        print(f"| {name} | " + " | ".join(f"{v:,.3g}" for v in values) + f" | {exponent:.2f} |")


if __name__ == "__main__":
    main()
