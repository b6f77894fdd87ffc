"""The discovery flow as a whole: where its time goes, what becomes of the samples.

    python benchmarks/discovery.py run FOLDER --n 50 --reference CSV --hull CSV [CSV ...]
    python benchmarks/discovery.py read FOLDER
    python benchmarks/discovery.py chunks FOLDER --n 50
    python benchmarks/discovery.py killed FOLDER --n 50

``run`` generates crystals with the bundled weights, relaxes them with CHGNet, and keeps everything
in SQLite files in FOLDER; ``read`` queries them in a new process. ``chunks`` relaxes the valid
crystals of that run in jobs of 20, then again in jobs of one. ``killed`` tells what a run that was
killed has left.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore, MontyStore
from monty.json import MontyDecoder

from adit_atomate import ADiTDiscoveryDoc, ADiTDiscoveryMaker, ADiTGenerateMaker
from adit_atomate.discovery.rank import ADiTHullMaker
from adit_atomate.discovery.relax import ADiTRelaxStageMaker
from adit_atomate.discovery.stages import ADiTNoveltyMaker


def open_store(folder: Path) -> JobStore:
    path = str(folder.resolve())
    store = JobStore(
        MontyStore("outputs", database_path=path),
        additional_stores={"data": MontyStore("data", database_path=path)},
    )
    store.connect()
    return store


def run(args: argparse.Namespace) -> None:
    maker = ADiTDiscoveryMaker(
        generate_maker=ADiTGenerateMaker(domain="crystal", seed=args.seed),
        novelty_maker=ADiTNoveltyMaker(reference=args.reference),
        rank_maker=ADiTHullMaker(hull=args.hull),
    )
    started = time.perf_counter()
    run_locally(
        maker.make(n=args.n),
        store=open_store(args.folder),
        root_dir=args.folder,
        ensure_success=True,
    )
    print(f"{time.perf_counter() - started:.0f} s in all")


def read(args: argparse.Namespace) -> None:
    store = open_store(args.folder)
    started = time.perf_counter()
    stored = store.query_one({"name": "ADiT candidates"}, load=True)
    if stored is None:
        raise SystemExit(f"{args.folder} holds no finished discovery")
    document: ADiTDiscoveryDoc = MontyDecoder().process_decoded(stored["output"])
    print(f"read in {time.perf_counter() - started:.2f} s")
    print(document.summary())
    for sample in document.samples:
        print(f"{sample.index:>3} {sample.formula:<16} {sample.fate:<20} {sample.reason or ''}")
    print("rank  index  formula           eV/atom above hull  steps  RMSD (A)  space group")
    for c in document.candidates:
        above = "-" if c.energy_above_hull is None else f"{c.energy_above_hull:.3f}"
        print(
            f"{c.rank:>4} {c.index:>6}  {c.formula_pretty:<17} {above:>18} "
            f"{c.relaxation.num_steps:>6} {c.relaxation.rmsd:>9.2f}  {c.symmetry.symbol}"
        )


def chunks(args: argparse.Namespace) -> None:
    store = open_store(args.folder)
    stored = store.query_one({"name": "ADiT generate"}, load=True)
    document = MontyDecoder().process_decoded(stored["output"])
    samples = [s for s in document.samples if s.valid][: args.n]
    for size in (20, 1):
        memory = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
        maker = ADiTRelaxStageMaker(chunk_size=size)
        flow = maker.make(document.structures, samples)
        started = time.perf_counter()
        run_locally(flow, store=memory, root_dir=args.folder, log=False)
        seconds = time.perf_counter() - started
        output = memory.get_output(flow.output.uuid, load=True)
        steps = sum(s["relaxation"]["num_steps"] or 0 for s in output["samples"])
        inside = output["details"]["relaxation_seconds"]
        print(
            f"{len(samples)} crystals, jobs of {size}: {seconds:.0f} s, {steps} steps, "
            f"{inside:.0f} s of them in relaxations"
        )


def killed(args: argparse.Namespace) -> None:
    store = open_store(args.folder)
    for stored in store.query({}, properties=["name", "completed_at"], sort={"completed_at": 1}):
        print(stored["completed_at"], stored["name"])


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["run", "read", "chunks", "killed"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", nargs="+", default="known")
    parser.add_argument("--hull", nargs="+", default="known")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    {"run": run, "read": read, "chunks": chunks, "killed": killed}[args.part](args)


if __name__ == "__main__":
    main()
