"""Predict the structures of held-out compositions, beside templates of the training data.

Run from the repository root, for instance

    python benchmarks/structure_prediction.py --data DIR --number 100 --checkpoint mini-2

where DIR holds ``crystals_train.csv.gz`` and ``crystals_test.csv.gz``. The protocol is that of
DiffCSP (Jiao et al., NeurIPS 2023) with every entry in the denominator: the composition of the full
cell is given, pymatgen's ``StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)`` compares, the RMSE
is over those that match. With k = 20 any of 20 predictions may match, the nearest counts.

The network predicts half freely, half with the symmetry of known crystals. Structure types are
crystals with the elements exchanged, the likeliest first. Together they are what ``adit predict``
relaxes: half of the k are structure types, the first among them, and half samples. Known crystals
are those of the training split alone.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.data.crystal_csv import load_crystal_csv
from adit_model.data.dataset import AtomicDataset
from adit_model.formulas import chemical_formula
from adit_model.model import ADiT
from adit_model.prediction.predict import question
from adit_model.prediction.templates import templates
from adit_model.quality.crystals import amounts, space_group
from adit_model.quality.entries import draw
from adit_model.quality.matching import distance
from adit_model.quality.tables import interval, table
from adit_model.systems import AtomicSystem

CHUNK = 10  # compositions between two visits to the disk
WAYS = ("structure types", "network", "together")


def judge(
    truth: AtomicSystem, predictions: Sequence[AtomicSystem | None]
) -> list[dict[str, Any] | None]:
    """Compare predictions with the truth: the distance if they match, and the space group."""
    wanted = space_group(truth)
    found: list[dict[str, Any] | None] = []
    for system in predictions:
        if system is None:
            found.append(None)
            continue
        try:
            group = space_group(system)
        except ValueError:
            group = 0
        found.append({"rms": distance(system, truth), "group": group == wanted})
    return found


def rates(found: Sequence[list[dict[str, Any] | None]], k: int) -> dict[str, float]:
    """Shares of all entries, and the RMSE over those that match."""
    first = [[one for one in row[:k] if one is not None] for row in found]
    rms = [min((o["rms"] for o in row if o["rms"] is not None), default=None) for row in first]
    matched = [value for value in rms if value is not None]
    both = [any(o["group"] and o["rms"] is not None for o in row) for row in first]
    return {
        "match": len(matched) / len(found),
        "rmse": float(np.mean(matched)) if matched else float("nan"),
        "space_group": sum(any(o["group"] for o in row) for row in first) / len(found),
        "both": sum(both) / len(found),
    }


def predictions(
    model: ADiT | None, train: AtomicDataset, truth: AtomicSystem, seed: int, k: int
) -> dict[str, list[AtomicSystem | None]]:
    """Predict a composition k times in each way; the last takes half of either of the others."""
    types = [t.system for t in islice(templates(train, truth.numbers), k)]
    if model is None:
        return {WAYS[0]: types}
    condition = f"crystal, formula={chemical_formula(amounts(truth))}, units=1"
    options: Any = {"engine": "none", "beside": 0, "phases": train, "seed": seed}
    asked = question(model.known, model.config, condition, k, types=0, **options)
    parts = [model.sample(request, progress=False) for request in asked.requests]
    samples = [x.system for pair in zip(*reversed(parts), strict=True) for x in pair]
    half = question(model.known, model.config, condition, k, **options).types
    both = [*types[:half], *samples[: k - half]]
    return dict(zip(WAYS, (types, samples, both), strict=True))


def report(found: dict[str, list[Any]], k: int) -> str:
    """Write the table of the compositions so far, with 95 % intervals of the matches."""
    lines = []
    for name, rows in found.items():
        for number in sorted({1, k}):
            r = rates(rows, number)
            passed = round(r["match"] * len(rows))
            match = f"{100 * r['match']:.1f} ({interval({'passed': passed, 'of': len(rows)})})"
            shares = [f"{100 * r[key]:.1f}" for key in ("space_group", "both")]
            lines.append((name, str(number), match, f"{r['rmse']:.3f}", *shares))
    head = ("", "k", "match %", "RMSE", "space group %", "both %")
    return "\n".join(table(head, lines))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--number", type=int, default=100, help="compositions of crystals_test")
    parser.add_argument("--k", type=int, default=20, help="predictions of each")
    parser.add_argument("--checkpoint", default="mini-2", help="none: structure types alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of every prediction")
    options = parser.parse_args(arguments)
    truths = draw(load_crystal_csv(options.data / "crystals_test.csv.gz"), options.number, 0)
    order = np.random.default_rng(0).permutation(len(truths))  # so that a part is of all kinds
    truths = [truths[i] for i in order]
    train = load_crystal_csv(options.data / "crystals_train.csv.gz")
    model = None if options.checkpoint == "none" else ADiT.load(options.checkpoint)
    found: dict[str, list[Any]] = {name: [] for name in WAYS[: 1 if model is None else 3]}
    started = time.perf_counter()
    for place, truth in enumerate(truths, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no known crystal can hold a composition
            made = predictions(model, train, truth, options.seed + place, options.k)
        seen: dict[int, Any] = {}  # what stands in two of the ways is judged once
        for name, systems in made.items():
            for system in systems:
                if id(system) not in seen:
                    seen[id(system)] = judge(truth, [system])[0]
            found[name].append([seen[id(system)] for system in systems])
        if place % CHUNK and place < len(truths):
            continue
        minutes = (time.perf_counter() - started) / 60
        print(f"\n{place} of {len(truths)} compositions, {minutes:.0f} minutes", flush=True)
        print(report(found, options.k), flush=True)
        if options.out:
            ids = [truth.info["id"] for truth in truths[:place]]
            options.out.write_text(json.dumps({"ids": ids, **found}))


if __name__ == "__main__":
    main()
