"""Take lithium or hydrogen out of held-out crystals and put it back.

Run from the repository root, for instance

    python benchmarks/completion.py --data DIR --number 163 --k 10 --ways sites voids

where DIR holds ``crystals_test.csv.gz``. A host is a crystal without its lithium or hydrogen, in
its own cell. It is recovered if a completion is the same crystal by pymatgen's matcher, with its
own tolerances (ltol 0.2, stol 0.3, 5 degrees) and with tight ones (0.05, 0.1, volumes not scaled).
Completions are of the network, of sites by geometry, and of both in turn, as ``adit complete`` has
them. The baseline, voids, puts each atom where random points are farthest from all others. With
``--relax`` all are relaxed as ``adit complete`` does, and the lowest energy is looked at, too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.geometry import find_mic

from adit_model.data.crystal_csv import load_crystal_csv
from adit_model.model import ADiT
from adit_model.prediction.candidates import Candidate, relaxed, too_close
from adit_model.prediction.complete import Task, task
from adit_model.prediction.sites import sites
from adit_model.quality.matching import distance
from adit_model.quality.tables import table
from adit_model.systems import AtomicSystem

WAYS = ("network", "voids", "sites")
TOLERANCES = ("pymatgen", "tight")
LOWER = 0.001  # eV/atom: an energy at most so far above that of the crystal is as low


def voids(host: AtomicSystem, number: int, count: int, seed: Sequence[int]) -> AtomicSystem:
    """Put atoms one by one where the one of 100 random points is that has the most room."""
    generator = np.random.default_rng(seed)
    numbers, positions = host.numbers, host.positions
    for _ in range(count):
        points = generator.random((100, 3)) @ host.cell
        ways = (points[:, None] - positions[None]).reshape(-1, 3)
        apart = find_mic(ways, host.cell)[1].reshape(100, -1)
        best = points[(apart - covalent_radii[numbers]).min(axis=1).argmax()]
        numbers = np.append(numbers, number)
        positions = np.concatenate([positions, best[None]])
    return AtomicSystem(numbers, positions, host.cell)


def hosts(
    path: Path, number: int, largest: int, elements: Sequence[str]
) -> list[tuple[AtomicSystem, str]]:
    """Draw crystals with lithium or hydrogen, and something else."""
    found = []
    for system in load_crystal_csv(path, progress=False):
        here = set(system.numbers.tolist())
        for symbol in elements:
            if atomic_numbers[symbol] in here and len(here) > 1 and len(system) <= largest:
                found.append((system, symbol))
                break
    order = np.random.default_rng(0).permutation(len(found))[:number]
    return [found[i] for i in order]


def judged(
    truth: AtomicSystem, asked: Task, systems: Sequence[AtomicSystem | None], options: Any
) -> list[dict[str, Any]]:
    """Whether each completion is the crystal, before and after a relaxation, and its energy."""
    rows: list[dict[str, Any]] = [{} for _ in systems]
    candidates = []
    for i, system in enumerate(systems):
        if system is None:
            continue
        candidates.append(Candidate(system, index=i, fault=too_close(system)))
        for name in TOLERANCES:
            rows[i][name] = distance(system, truth, name) is not None
        rows[i]["fault"] = candidates[-1].fault
    if options.relax:
        fixed = len(asked.host)
        first = [np.arange(len(c.system)) >= fixed for c in candidates]
        for c in relaxed(candidates, options.relax, first=first, workers=options.workers):
            if c.fault is None:
                rows[c.index or 0]["energy"] = c.energy
                for name in TOLERANCES:
                    same = distance(c.system, truth, name) is not None
                    rows[c.index or 0][f"{name}, relaxed"] = same
    return rows


def shares(found: Sequence[dict[str, Any]], which: str, k: int) -> list[str]:
    """Shares of hosts in per cent that one of the first k completions recovers."""
    cells = []
    for name in (*TOLERANCES, *(f"{name}, relaxed" for name in TOLERANCES)):
        rows = [entry[which][:k] for entry in found if which in entry]
        cells.append(100 * np.mean([any(row.get(name) for row in part) for part in rows]))
    lowest = []
    for entry in found:
        done = [row for row in entry[which][:k] if "energy" in row]
        best = min(done, key=lambda row: row["energy"], default={})
        truth = entry.get("energy")
        lower = truth is not None and best.get("energy", np.inf) <= truth + LOWER
        lowest.append((best.get("pymatgen, relaxed", False), lower))
    cells += [100 * np.mean([same for same, _ in lowest])]
    cells += [100 * np.mean([same or lower for same, lower in lowest])]
    return [f"{cell:.0f}" for cell in cells]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--number", type=int, default=50, help="hosts")
    parser.add_argument("--k", type=int, default=10, help="completions of each")
    parser.add_argument("--elements", nargs="+", default=["Li", "H"], help="taken out: Li, H")
    parser.add_argument("--largest", type=int, default=20, help="most atoms of a crystal")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="what completes")
    parser.add_argument("--checkpoint", default="mini-2", help="of the network")
    parser.add_argument("--relax", metavar="ENGINE", help="chgnet or sevennet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of every completion")
    options = parser.parse_args(arguments)
    model = ADiT.load(options.checkpoint)
    path = options.data / "crystals_test.csv.gz"
    drawn = hosts(path, options.number, options.largest, options.elements)
    found: list[dict[str, Any]] = []
    started = time.perf_counter()
    for place, (truth, symbol) in enumerate(drawn):
        kept = truth.numbers != atomic_numbers[symbol]
        host = AtomicSystem(truth.numbers[kept], truth.positions[kept], truth.cell)
        count = int((~kept).sum())
        asked = task(
            model.known,
            model.config,
            host,
            {symbol: count},
            options.k,
            seed=options.seed,
            first_index=place * options.k,
        )
        made: dict[str, list[AtomicSystem | None]] = {}
        if "sites" in options.ways:
            made["sites"] = list(sites(host, {symbol: count}, options.k, options.seed))
        if "voids" in options.ways:
            number, tries = atomic_numbers[symbol], range(options.k)
            made["voids"] = [voids(host, number, count, [place, k]) for k in tries]
        if "network" in options.ways:
            samples = model.sample(asked.request, progress=False)
            made["network"] = [asked.restore(sample, k) for k, sample in enumerate(samples)]
        entry: dict[str, Any] = {"id": truth.info["id"], "formula": truth.formula, "add": symbol}
        if options.relax:
            whole = Candidate(truth)
            own = replace(whole, system=AtomicSystem(truth.numbers, truth.positions, truth.cell))
            first = [~kept]
            (done,) = relaxed([own], options.relax, first=first, workers=options.workers)
            entry["energy"] = done.energy
        entry |= {which: judged(truth, asked, systems, options) for which, systems in made.items()}
        if "network" in entry and "sites" in entry:
            pairs = itertools.zip_longest(entry["sites"], entry["network"])
            entry["both"] = [row for pair in pairs for row in pair if row is not None]
        found.append(entry)
        print(f"{place + 1} of {len(drawn)}: {symbol} in {truth.formula}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(found))
    lines = [
        (which, str(k), *shares(found, which, k))
        for which in (*WAYS, "both")
        if which in found[0]
        for k in sorted({1, min(5, options.k), options.k})
    ]
    head = ("", "k", *TOLERANCES, *(f"{name}, relaxed" for name in TOLERANCES))
    head = (*head, "lowest: same", "lowest: same or lower")
    print("\n".join(table(head, lines)))
    print(f"{len(found)} hosts, {(time.perf_counter() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
