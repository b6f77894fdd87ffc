"""The discovery flow as a whole: where its time goes, what becomes of the samples.

    python benchmarks/discovery.py run FOLDER --n 50 --reference CSV --hull CSV [CSV ...]
    python benchmarks/discovery.py read FOLDER
    python benchmarks/discovery.py symmetry FOLDER
    python benchmarks/discovery.py optimizers FOLDER
    python benchmarks/discovery.py killed FOLDER --n 50

``run`` generates crystals with the bundled weights, relaxes them with CHGNet, and keeps everything
in SQLite files in FOLDER; ``read`` queries them in a new process. ``symmetry`` relaxes the
crystals that the run symmetrised once more, with and without. ``optimizers`` relaxes its first 30
plausible crystals by several optimisers. ``killed`` tells what a run that was killed has left.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore, MontyStore
from monty.json import MontyDecoder

from adit_atomate import ADiTDiscoveryDoc, ADiTDiscoveryMaker, ADiTGenerateMaker
from adit_atomate.discovery.rank import ADiTHullMaker
from adit_atomate.discovery.relax import ADiTRelaxStageMaker
from adit_atomate.discovery.stages import ADiTNoveltyMaker
from adit_model.quality.force_fields import calculator
from adit_model.quality.optimizer import CrystalBFGS
from adit_model.quality.plausible import plausible
from adit_model.quality.relax import FMAX, STEPS
from adit_model.quality.symmetry import MOVED, SYMMETRY, symmetrise
from adit_model.systems import AtomicSystem


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
    started, before = time.perf_counter(), cpu_seconds()
    run_locally(
        maker.make(n=args.n),
        store=open_store(args.folder),
        root_dir=args.folder,
        ensure_success=True,
    )
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s in all, {cpu_seconds() - before:.0f} s of CPU")


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


def symmetry(args: argparse.Namespace) -> None:
    """Relax those that the run symmetrised, once so and once as they were generated."""
    store = open_store(args.folder)
    made, ended = (
        MontyDecoder().process_decoded(store.query_one({"name": name}, load=True)["output"])
        for name in ("ADiT generate", "ADiT relax collect")
    )
    samples = [s for s in ended.samples if s.relaxation]
    chosen = [s for s in samples if s.symmetrised]
    moves = sorted(s.symmetrised_move for s in chosen)
    print(
        f"{len(chosen)} of {len(samples)} symmetrised, their atoms moved by at most "
        f"{moves[len(moves) // 2]:.3f} A (median), {moves[-1]:.3f} A (largest)"
    )
    structures = [made.structures[s.structure_index] for s in chosen]
    for name, tolerance in (("symmetrised", SYMMETRY), ("as generated", None)):
        memory = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
        flow = ADiTRelaxStageMaker(symmetrise=tolerance).make(structures)
        started = cpu_seconds()
        run_locally(flow, store=memory, root_dir=args.folder, log=False)
        output = MontyDecoder().process_decoded(memory.get_output(flow.output.uuid, load=True))
        found = [s.relaxation for s in output.samples]
        moved = [r.rmsd for r in found if r.rmsd is not None]
        print(
            f"{name:<13} {sum(r.num_steps or 0 for r in found):>5} steps, "
            f"{cpu_seconds() - started:.0f} s of CPU, RMSD {np.mean(moved):.2f} A, "
            f"{sum(s.fate == 'pending' for s in output.samples)} relaxed"
        )


def optimizers(args: argparse.Namespace) -> None:
    """Relax the first 30 plausible crystals of the run by CHGNet with several optimisers."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS, FIRE

    made = MontyDecoder().process_decoded(
        open_store(args.folder).query_one({"name": "ADiT generate"}, load=True)["output"]
    )
    systems = [AtomicSystem.from_structure(s) for s in made.structures if s is not None]
    systems = [system for system in systems if plausible(system).plausible][:30]
    first: list[float] = []
    for optimizer in (FIRE, BFGS, CrystalBFGS):
        started, steps, converged, energies = cpu_seconds(), 0, 0, []
        for system in systems:
            found = symmetrise(system, SYMMETRY, MOVED)
            atoms = (found.system if found else system).to_atoms()
            atoms.calc = calculator("chgnet")
            relaxing = optimizer(FrechetCellFilter(atoms), logfile=None)
            converged += relaxing.run(fmax=FMAX, steps=STEPS)
            steps += relaxing.nsteps
            energies.append(atoms.get_potential_energy() / len(atoms))
        first = first or energies
        changes = np.array(energies) - first
        print(
            f"{optimizer.__name__:<12} {steps:>5} steps, {cpu_seconds() - started:.0f} s of CPU, "
            f"{converged} of {len(systems)} converged; against FIRE {sum(changes < -0.005)} lower "
            f"and {sum(changes > 0.005)} higher by more than 5 meV/atom"
        )


def cpu_seconds() -> float:
    """Seconds of CPU that this process and those that it started have taken."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


def killed(args: argparse.Namespace) -> None:
    store = open_store(args.folder)
    for stored in store.query({}, properties=["name", "completed_at"], sort={"completed_at": 1}):
        print(stored["completed_at"], stored["name"])


PARTS = {
    "run": run,
    "read": read,
    "symmetry": symmetry,
    "optimizers": optimizers,
    "killed": killed,
}


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", nargs="+", default="known")
    parser.add_argument("--hull", nargs="+", default="known")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    PARTS[args.part](args)


if __name__ == "__main__":
    main()
