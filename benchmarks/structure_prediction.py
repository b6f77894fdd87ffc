"""Predict the structures of held-out compositions, beside templates of the training data.

Run from the repository root, for instance

    python benchmarks/structure_prediction.py --data DIR --number 100 --checkpoint mini-2

where DIR holds ``crystals_train.csv.gz`` and ``crystals_test.csv.gz``. The protocol is that of
DiffCSP (Jiao et al., NeurIPS 2023) with every entry in the denominator: the composition of the full
cell is given, pymatgen's ``StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)`` compares, the RMSE
is over those that match. With k = 20 any of 20 predictions may match, the nearest counts.

The network predicts freely, and with the symmetry of known crystals of the training split that can
hold the composition. Templates are crystals of the training split with the elements exchanged;
those of the nearest elements come first, each structure type once.
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

from adit_model.conditions.atoms import formula_text
from adit_model.data.crystal_csv import load_crystal_csv
from adit_model.data.dataset import AtomicDataset
from adit_model.model import ADiT
from adit_model.prediction.templates import templates
from adit_model.quality.crystals import amounts, space_group
from adit_model.quality.entries import draw
from adit_model.quality.matching import distance
from adit_model.quality.tables import table
from adit_model.systems import AtomicSystem

CHUNK = 10  # compositions sampled between two visits to the disk
WAYS = ("free", "known", "templates")


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


def sampled(
    model: ADiT, part: Sequence[AtomicSystem], first: int, symmetry: str, options: Any
) -> list[list[AtomicSystem | None]]:
    """Generate k predictions of each composition."""
    k = options.k
    conditions = [
        f"crystal, formula={formula_text(amounts(system))}, units=1"
        for system in part
        for _ in range(k)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no known crystal can hold a composition
        samples = model.sample(
            len(conditions),
            conditions,
            seed=options.seed,
            first_index=first * k,
            progress=False,
            symmetry=symmetry,
        )
    systems = [sample.system for sample in samples]
    return [systems[i : i + k] for i in range(0, len(systems), k)]


def substituted(
    train: AtomicDataset, part: Sequence[AtomicSystem], k: int
) -> list[list[AtomicSystem | None]]:
    """Put the elements of each composition into k known crystals."""
    return [[t.system for t in islice(templates(train, s.numbers), k)] for s in part]


def mixed(found: dict[str, list[Any]], k: int) -> list[Any]:
    """Take every second prediction from one way and the others from another."""
    pairs = zip(found["free"], found["known"], strict=True)
    return [[x for two in zip(a, b, strict=True) for x in two][:k] for a, b in pairs]


def report(found: dict[str, list[Any]], k: int) -> str:
    """Write the table of the compositions so far."""
    ways = {name: rows for name, rows in found.items() if rows}
    if {"free", "known"} <= set(ways):
        ways["half free, half known"] = mixed(found, k)
    lines = []
    for name, rows in ways.items():
        for number in sorted({1, k}):
            r = rates(rows, number)
            shares = [f"{100 * r[key]:.1f}" for key in ("match", "space_group", "both")]
            lines.append((name, str(number), shares[0], f"{r['rmse']:.3f}", *shares[1:]))
    head = ("", "k", "match %", "RMSE", "space group %", "both %")
    return "\n".join(table(head, lines))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--number", type=int, default=100, help="compositions of crystals_test")
    parser.add_argument("--k", type=int, default=20, help="predictions of each")
    parser.add_argument("--checkpoint", default="mini-2")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of every prediction")
    options = parser.parse_args(arguments)
    truths = draw(load_crystal_csv(options.data / "crystals_test.csv.gz"), options.number, 0)
    order = np.random.default_rng(0).permutation(len(truths))  # so that a part is of all kinds
    truths = [truths[i] for i in order]
    train = load_crystal_csv(options.data / "crystals_train.csv.gz")
    model = ADiT.load(options.checkpoint)
    found: dict[str, list[Any]] = {name: [] for name in options.ways}
    seconds = dict.fromkeys(options.ways, 0.0)
    for start in range(0, len(truths), CHUNK):
        part = truths[start : start + CHUNK]
        for name in options.ways:
            started = time.perf_counter()
            if name == "templates":
                predictions = substituted(train, part, options.k)
            else:
                predictions = sampled(model, part, start, name, options)
            seconds[name] += time.perf_counter() - started
            found[name] += [judge(*pair) for pair in zip(part, predictions, strict=True)]
        print(f"{start + len(part)} of {len(truths)} compositions", flush=True)
        print(report(found, options.k), flush=True)
        if options.out:
            ids = [truth.info["id"] for truth in truths[: start + len(part)]]
            options.out.write_text(json.dumps({"ids": ids, **found}))
    print(", ".join(f"{name}: {time:.0f} s to predict" for name, time in seconds.items()))


if __name__ == "__main__":
    main()
