"""The metrics can fail: real structures against the same ones shaken and with other elements.

Run from the repository root, for instance

    python benchmarks/perturbed.py --number 500 --posebusters 100 --data DIR --out docs/perturbed.md

where DIR holds ``crystals_train.csv.gz`` and ``crystals_test.csv.gz``; QM9 comes from qm9pack.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.files import package_versions
from adit_model.quality.cells import CellStore, measure_systems
from adit_model.quality.entries import Reference, draw, load_reference, make_entries
from adit_model.quality.measures import MEASURES, choose_measures
from adit_model.quality.rows import Options
from adit_model.quality.run import PACKAGES, evaluate
from adit_model.quality.summary import RATES, rates
from adit_model.quality.tables import table
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE, AtomicSystem

NOISE = 0.3  # angstrom, standard deviation of each coordinate
CRUSHED = 0.2  # of all lengths
SETS = {
    CRYSTAL: ("real", "noise", "swap", "crushed", "copies"),
    MOLECULE: ("real", "noise", "swap", "copies"),
}
WORSE = 0.02  # a share lower by less than this has not moved
# why a perturbation leaves a metric where it is: what the table says in place of a verdict
BLIND = {
    ("compositional", "noise"): "reads the elements only",
    ("compositional", "crushed"): "reads the elements only",
    ("neutral", "noise"): "reads the elements only",
    ("neutral", "crushed"): "reads the elements only",
    ("structural", "noise"): "passes all above 0.5 angstrom; the strict set asks for more",
    ("structural", "swap"): "reads the positions only",
    ("valid", "noise"): "as its two parts",
    ("vun", "noise"): "as its parts",
    ("sane_lattice", "noise"): "reads the cell only",
    ("sane_lattice", "swap"): "reads the cell only",
    ("dense", "noise"): "reads cell and elements only",
    ("dense", "swap"): "wide bounds, within which most elements fit another's cell",
    ("Wasserstein num_elements", "noise"): "reads the elements only",
    ("Wasserstein num_elements", "swap"): "one element for each",
    ("Wasserstein num_elements", "crushed"): "reads the elements only",
    ("Wasserstein num_atoms", "noise"): "no atom is added or lost",
    ("Wasserstein num_atoms", "swap"): "no atom is added or lost",
    ("Wasserstein num_atoms", "crushed"): "no atom is added or lost",
    ("Wasserstein density", "noise"): "reads cell and elements only",
    ("Wasserstein volume_per_atom", "noise"): "reads the cell only",
    ("Wasserstein volume_per_atom", "swap"): "reads the cell only",
    ("total variation space_group", "swap"): "a swap keeps the symmetry where elements stay apart",
    ("total variation space_group", "crushed"): "symmetry has no scale",
    ("total variation crystal_system", "swap"): "as above",
    ("total variation crystal_system", "crushed"): "as above",
    ("open_babel_valid", "noise"): "Open Babel finds bonds in anything; the next line asks more",
    ("relaxed", "noise"): "almost anything relaxes; the energy drop tells",
    ("pb_loaded", "noise"): "whatever has bonds can be loaded",
    ("pb_loaded", "swap"): "whatever has bonds can be loaded",
    ("pb_sanitization", "noise"): "without it there is no verdict",
    ("pb_sanitization", "swap"): "without it there is no verdict",
    ("pb_inchi", "noise"): "reads the bonds only",
    ("pb_bond_angles", "swap"): "of heavy atoms only, which mostly stay where such were",
    ("pb_aromatic_rings_flat", "noise"): "passes where no such ring is found",
    ("pb_aromatic_rings_flat", "swap"): "passes where no such ring is found",
    ("pb_other_rings_not_flat", "noise"): "noise makes nothing flat",
} | {
    (name, kind): "see below"
    for name in ("unique", "novel")
    for kind in ("noise", "swap", "crushed")
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=500, help="structures of each domain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--also", nargs="+", default=[], help="as of adit evaluate")
    parser.add_argument("--skip", nargs="+", default=[], help="as of adit evaluate")
    parser.add_argument(
        "--posebusters",
        type=int,
        default=0,
        metavar="N",
        help="molecules of each set that PoseBusters sees, about a second for each",
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder to go on from")
    parser.add_argument("--out", type=Path, metavar="FILE", help="Markdown file to write")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        text = run(options, folder)
    minutes = (time.perf_counter() - started) / 60
    text = text.replace("MINUTES", f"{minutes:.0f} minutes with {options.workers} process(es)")
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def run(options: argparse.Namespace, folder: Path) -> str:
    files = {name: str(options.data / f"crystals_{name}.csv.gz") for name in ("train", "test")}
    known = load_reference([files["train"], "qm9:train"], progress=True)
    held_out = load_reference([files["test"], "qm9:test"], progress=True)
    measures = choose_measures(["posebusters", *options.skip], options.also)
    found = {}
    for name in SETS[CRYSTAL]:
        (folder / name).mkdir(parents=True, exist_ok=True)
        entries = make_entries(
            perturbed
            for domain in DOMAINS
            if name in SETS[domain]
            for perturbed in perturb(name, domain, held_out, known, options.number, options.seed)
        )
        settings = Options(CellStore(folder / "cells"), options.workers, True, measures)
        about = {"samples": name, "reference": []}
        found[name] = evaluate(
            entries, folder / name, settings, about, reference=known, compared=held_out, plot=False
        ).summary
        if name in SETS[MOLECULE] and options.posebusters:
            molecules = [e.system for e in entries if e.system and e.domain == MOLECULE]
            found[name]["molecules"]["rates"] |= bust(molecules[: options.posebusters], settings)
    return write(options, found)


def bust(molecules: list[AtomicSystem], options: Options) -> dict[str, Any]:
    """Take the rates of PoseBusters' checks."""
    (measure,) = (measure for measure in MEASURES if measure.name == "posebusters")
    cells = measure_systems(
        molecules,
        [measure],
        options.store,
        workers=options.workers,
        progress=options.title("PoseBusters"),
    )
    checks = {rate.name for rate in RATES[MOLECULE] if rate.columns[0].startswith("pb_")}
    found = rates(MOLECULE, cells, measure.columns)
    return {name: rate for name, rate in found.items() if name in checks}


def perturb(
    name: str, domain: str, held_out: Reference, known: Reference, number: int, seed: int
) -> list[AtomicSystem]:
    """Take real structures of a domain, as they are or made worse."""
    source = known if name == "copies" else held_out
    dataset = source.crystals if domain == CRYSTAL else source.molecules
    assert dataset is not None
    systems = draw(dataset, number, seed + 1)
    rng = np.random.default_rng(seed)
    if name == "noise":
        return [
            AtomicSystem(s.numbers, s.positions + rng.normal(0, NOISE, s.positions.shape), s.cell)
            for s in systems
        ]
    if name == "swap":
        pool = np.unique(dataset.numbers)
        return [swap(system, pool, rng) for system in systems]
    if name == "crushed":
        return [
            AtomicSystem(s.numbers, CRUSHED * s.positions, CRUSHED * s.cell)
            for s in systems
            if s.cell is not None
        ]
    if name == "copies":
        return [systems[i % (number // 4)] for i in range(number)]
    return systems


def swap(system: AtomicSystem, pool: np.ndarray, rng: np.random.Generator) -> AtomicSystem:
    """Give atoms other elements: crystals a new one for each, molecules exchange half of theirs."""
    if system.cell is not None:
        elements, which = np.unique(system.numbers, return_inverse=True)
        return AtomicSystem(
            rng.choice(pool, len(elements), replace=False)[which], system.positions, system.cell
        )
    numbers = system.numbers.copy()
    chosen = rng.permutation(len(numbers))[: max(2, len(numbers) // 2)]
    numbers[chosen] = numbers[rng.permutation(chosen)]
    return AtomicSystem(numbers, system.positions)


def write(options: argparse.Namespace, found: dict[str, dict[str, Any]]) -> str:
    parts = ["python benchmarks/perturbed.py --number", str(options.number), "--data DIR"]
    if options.posebusters:
        parts.append(f"--posebusters {options.posebusters}")
    for flag in ("also", "skip"):
        if names := getattr(options, flag):
            parts.append(f"--{flag} {shlex.join(names)}")
    if options.out:
        parts.append(f"--out {options.out}")
    versions = ", ".join(f"{k} {v}" for k, v in package_versions(*PACKAGES).items())
    lines = [
        "# The metrics can fail", "", "```", " ".join(parts), "```", "",
        f"{options.number} real crystals (crystals_test) and {options.number} real molecules (QM9 "
        f"test) through the evaluation: as they are; with Gaussian noise of {NOISE} angstrom on "
        "each coordinate; with species swapped (crystals: each element by another one drawn from "
        "the data, molecules: half of the atoms exchange their elements); crystals with all "
        f"lengths crushed to {CRUSHED} of what they are; and copies: a quarter as many structures "
        f"of the training data, each four times. Seed {options.seed}, MINUTES. {versions}.", "",
        "Shares are of all samples in per cent (unique and novel: of the valid; PoseBusters: of "
        "those with a verdict) and should fall; distances (compared to 2,000 structures of the "
        "same test sets, or all there are) should rise. A cell in brackets did not get worse; the "
        "last column says why it could not.", "",
    ]  # fmt: skip
    if options.posebusters:
        lines += [
            f"PoseBusters sees the first {options.posebusters} molecules of each set. It has no "
            "verdict where RDKit finds no bonds at charge 0, or where it takes more than a minute, "
            "as for cages of which it finds no conformers; so its checks are of the least damaged.",
            "",
        ]
    unmoved = []
    for domain in DOMAINS:
        body = rows(domain, found)
        damaged = [name for name in SETS[domain] if name != "real"]
        unmoved += [
            label
            for label, real, *cells, _ in body
            if all(c.startswith("(") or (k == "copies" and c == real)
                   for k, c in zip(damaged, cells, strict=True))
        ]  # fmt: skip
        lines += [f"## {domain.capitalize()}s", ""]
        lines += table(("", *SETS[domain], "what does not move"), body)
    if unmoved:
        lines += [f"No damage here moves: {'; '.join(unmoved)}.", ""]
    lines += [
        "*Unique* and *novel* are shares of what is valid, and damage does not lower them: a "
        "broken copy of a known structure is no longer known. They measure repetition, not "
        "quality, which the copies show, and mean something only beside validity; hence *valid, "
        "unique and novel*. The real structures are held out, so nearly all of them are novel.",
    ]
    return "\n".join([*lines, ""])


def rows(domain: str, found: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    parts = {name: found[name][f"{domain}s"] for name in SETS[domain]}
    result = []
    for rate in RATES[domain]:
        shares = {name: part["rates"][rate.name] for name, part in parts.items()}
        if not any(shares.values()):
            continue  # not asked for
        if rate.name == "pb_loaded":
            verdicts = {n: part["rates"]["pb_all"]["of"] / seen(part) for n, part in parts.items()}
            result.append(line("PoseBusters: a verdict", "verdict", verdicts, 100, falls=True))
        values = {name: found and found["share"] for name, found in shares.items()}
        falls = rate.name != "triclinic"
        result.append(line(rate.label, rate.name, values, 100, falls=falls))
    if domain == MOLECULE:
        shares = {name: part["stable_atoms"]["share"] for name, part in parts.items()}
        result.append(line("atoms stable (EDM)", "stable_atoms", shares, 100, falls=True))
        if "strain" in parts["real"]:
            relaxed = {
                name: part["strain"]["all"]["relaxed"] / part["strain"]["all"]["of"]
                for name, part in parts.items()
            }
            result.append(line("relaxed by GFN2-xTB", "relaxed", relaxed, 100, falls=True))
            for column in ("xtb_energy_drop", "xtb_rmsd", "xtb_rmsd_heavy"):
                medians = {n: part["strain"]["all"][column]["median"] for n, part in parts.items()}
                result.append(line(f"{column}, median", column, medians, 1, falls=False))
    distances = {name: part["distances"] for name, part in parts.items()}
    for kind in ("wasserstein", "total_variation", "coverage", "bond_lengths", "angles"):
        for column in distances["real"].get(kind, {}):
            values = {name: found[kind][column] for name, found in distances.items()}
            if kind == "coverage":
                result.append(line(f"coverage, {column}", column, values, 100, falls=True))
                continue
            if kind in ("bond_lengths", "angles") and column != "mean":
                continue
            title = {"wasserstein": "Wasserstein"}.get(kind, kind.replace("_", " "))
            result.append(line(f"{title} {column}", f"{title} {column}", values, 1, falls=False))
    return result


def seen(part: dict[str, Any]) -> int:
    """Molecules that PoseBusters was given."""
    return int(part["rates"]["pb_passed"]["of"])


def line(
    label: str, name: str, values: dict[str, float | None], scale: float, *, falls: bool
) -> tuple[str, ...]:
    """One line: a value in brackets is not worse than that of the real structures."""
    cells, reasons = [], []
    real = values["real"]
    for kind, value in values.items():
        if value is None or real is None:
            cells.append("-")
            continue
        text = f"{scale * value:.1f}" if falls else f"{value:.3g}"
        worse = value < real - WORSE if falls else value > 1.5 * real
        if kind in ("real", "copies") or worse:
            cells.append(text)
            continue
        cells.append(f"({text})")
        if (name, kind) in BLIND:
            reasons.append(f"{kind}: {BLIND[name, kind]}")
    return (label, *cells, "; ".join(reasons))


if __name__ == "__main__":
    main()
