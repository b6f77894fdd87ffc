"""Collect the candidates of discovery flows in one store, without repeats, and export the best.

    python examples/08_candidates.py FOLDER

FOLDER holds the job store in SQLite files (pip install 'adit-atomate[store]'), and gets the store
of candidates and the files. If no discovery flow has run there yet, a small one runs first, with
the Lennard-Jones potential of ASE, which shows the way and is no chemistry.
"""

import logging
import sys
from pathlib import Path

from atomate2.ase.jobs import LennardJonesRelaxMaker
from jobflow import run_locally
from maggma.stores import MontyStore

from adit_atomate import disk_store
from adit_atomate.discovery.candidates import CandidateBuilder, export_candidates
from adit_atomate.discovery.flow import ADiTDiscoveryMaker


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    jobs = disk_store(folder / "store")
    jobs.connect()
    if jobs.count({"output.candidates": {"$exists": True}}) == 0:
        relax = LennardJonesRelaxMaker(steps=3, relax_cell=False)
        # Without a rank_maker there are no scores; ADiTHullMaker, the default, needs real energies.
        flow = ADiTDiscoveryMaker(screen_maker=None, relax_maker=relax, rank_maker=None).make(n=8)
        run_locally(flow, store=jobs, create_folders=True, root_dir=folder, ensure_success=True)

    # Run it whenever you like: only jobs that are new since the last time are read.
    candidates = MontyStore("candidates", database_path=str(folder / "store"))
    CandidateBuilder(jobs, candidates).run(log_level=logging.WARNING)

    candidates.connect()
    print(f"{candidates.count()} distinct candidates")
    for document in candidates.query(properties=["formula_pretty", "score", "num_members"]):
        print(document["formula_pretty"], document["score"], document["num_members"])
    export_candidates(candidates, folder / "best", k=3)
    export_candidates(candidates, folder / "candidates.extxyz", format="extxyz")


if __name__ == "__main__":
    main()
