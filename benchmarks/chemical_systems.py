"""Shares of samples that keep to the elements, and to the formula, that were asked for.

Run from the repository root

    python benchmarks/chemical_systems.py --data DIR --checkpoint mini-2 --out FILE.md

where DIR holds ``crystals_train.csv.gz`` and ``crystals_test.csv.gz``. Half of the ternary systems
occur in the training data, half in the test data alone; formulas are those of the test data. For
each system: the share of samples within its elements, with exactly these, and valid besides.
Baseline: how often free samples of the same weights fall into one of the systems by chance, and
how many of them are valid. Ceiling: real crystals of the same systems through the same checks.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

import adit_model.sampling.flow as flow
from adit_model.conditions.condition import Condition
from adit_model.data.sources import load_source
from adit_model.formulas import chemical_formula
from adit_model.model import ADiT
from adit_model.quality.conditions import held, more_verdicts
from adit_model.quality.records import Verdict, check_systems
from adit_model.quality.tables import interval, percent, table, tally
from adit_model.systems import AtomicSystem

MOST_ATOMS = 20
Rates = dict[str, dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.decide_at is not None:
        flow.DECIDE_AT = options.decide_at
    chooser = random.Random(options.seed)
    train, test = (ternaries(options.data / f"crystals_{n}.csv.gz") for n in ("train", "test"))
    half = options.systems // 2
    systems = {
        "seen": chooser.sample(sorted(train), half),
        "unseen": chooser.sample(sorted(set(test) - set(train)), options.systems - half),
    }
    formulas = chooser.sample(
        sorted({formula_of(crystal) for found in test.values() for crystal in found}),
        options.formulas,
    )
    model = ADiT.load(options.checkpoint, device=options.device)
    settings = {"seed": options.seed, "progress": sys.stderr.isatty()}
    started = time.perf_counter()
    rows: dict[str, Rates] = {}
    every = [name for names in systems.values() for name in names]
    for kind, names in systems.items():
        asked = [Condition(domain="crystal", elements=s) for s in names for _ in range(options.n)]
        samples = model.sample(len(asked), asked, guidance_scale=options.guidance_scale, **settings)
        rows[f"asked, {kind}"] = judge(asked, [s.system for s in samples])
        known = train if kind == "seen" else test
        real = [(Condition(elements=name), one) for name in names for one in known[name]]
        rows[f"real crystals, {kind}"] = judge(*zip(*real, strict=True))
    free = model.sample(len(every) * options.n, "crystal", **settings)
    systems_of_free = [system_of(s.system) for s in free]
    by_chance = tally(sum(name in every for name in systems_of_free), len(free))
    valid = tally(sum(v.smact_valid is True for v in checked([s.system for s in free])), len(free))
    exact: dict[str, Any] = {}
    if formulas:
        asked = [Condition(formula=f, formula_units=1) for f in formulas]
        samples = model.sample(len(asked), asked, **settings)
        exact = tally(sum(s.holds["formula"] for s in samples), len(samples))
        ok = [v.smact_valid is True for v in checked([s.system for s in samples])]
        exact = {"exact": exact, "exact and valid": tally(sum(ok), len(ok))}
    found = {
        "checkpoint": options.checkpoint,
        "hash": model.checkpoint_hash,
        "decide_at": flow.DECIDE_AT,
        "n": options.n,
        "systems": systems,
        "rates": rows,
        "free samples in one of the systems": by_chance,
        "free samples, valid": valid,
        "formulas": exact,
        "seconds": round(time.perf_counter() - started),
    }
    text = "\n".join(lines(found))
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR")
    add("--checkpoint", default="default")
    add("--systems", type=int, default=20, help="ternary systems, half of them unseen")
    add("-n", type=int, default=64, help="samples of each system (default %(default)s)")
    add("--formulas", type=int, default=200, help="formulas of the test data; 0 leaves them out")
    add("--guidance-scale", default=None, help="as of adit generate")
    add("--decide-at", type=float, help="time in [0, 1] at which the elements are decided")
    add("--seed", type=int, default=0)
    add("--device", default="auto")
    add("--out", type=Path, metavar="FILE.md")
    return parser.parse_args(arguments)


def ternaries(path: Path) -> dict[str, list[AtomicSystem]]:
    """Crystals of at most 20 atoms by chemical system, of the systems of three elements."""
    found: dict[str, list[AtomicSystem]] = defaultdict(list)
    for system in load_source(str(path), max_atoms=MOST_ATOMS, progress=False):
        name = system_of(system)
        if name.count("-") == 2:
            found[name].append(system)
    return found


def system_of(system: AtomicSystem | None) -> str:
    if system is None:
        return ""
    return "-".join(sorted({chemical_symbols[z] for z in system.numbers}))


def formula_of(system: AtomicSystem) -> str:
    symbols = [chemical_symbols[z] for z in system.numbers]
    return chemical_formula({s: symbols.count(s) for s in symbols})


def checked(systems: Sequence[AtomicSystem | None]) -> list[Any]:
    return check_systems([s for s in systems if s is not None])


def judge(conditions: Sequence[Condition], systems: Sequence[AtomicSystem | None]) -> Rates:
    """Shares within, exactly, exactly and valid, and plausible besides."""
    there = [(c, s) for c, s in zip(conditions, systems, strict=True) if s is not None]
    verdicts = iter(checked([s for _, s in there]))
    more = more_verdicts(conditions, systems)
    rows: list[dict[str, Any]] = []
    smact = 0
    for condition, system, extra in zip(conditions, systems, more, strict=True):
        holds = {"elements": condition.holds(system)["elements"]}
        verdict = Verdict() if system is None else next(verdicts)
        rows.append({"holds": holds, "plausible": verdict.plausible is True, **extra})
        smact += holds["elements"] and verdict.smact_valid is True
    return {**held(rows), "all and valid": tally(smact, len(rows))}


def lines(found: dict[str, Any]) -> list[str]:
    names = ("elements within", "elements", "all and valid", "all and plausible")
    body = [
        (row, *(f"{percent(rates[name])} ({interval(rates[name])})" for name in names))
        for row, rates in found["rates"].items()
    ]
    text = table(
        ("chemical systems, %", "within", "exactly", "exactly, valid", "exactly, plausible"), body
    )
    for name in ("free samples in one of the systems", "free samples, valid"):
        text.append(f"{name}: {percent(found[name])} % ({interval(found[name])})")
    for name, rate in found["formulas"].items():
        text.append(f"formulas, {name}: {percent(rate)} % ({interval(rate)})")
    text.append(
        f"{found['checkpoint']} ({found['hash'][:12]}), {found['n']} samples of each system, "
        f"elements decided at {found['decide_at']}, {found['seconds']} s"
    )
    return text


if __name__ == "__main__":
    main()
