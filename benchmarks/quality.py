"""The quality table of some weights: what they generate, beside real structures; reconstruction.

Run from the repository root

    python benchmarks/quality.py --data DIR --out docs/quality.md

where DIR holds ``crystals_*.csv.gz``; QM9 comes from qm9pack. The real structures are held out
(crystals_test, QM9 test) and go the same route: what they score is what can be reached.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from adit_model.config import SamplingConfig
from adit_model.data.qm9 import load_qm9_smiles
from adit_model.data.sources import load_source
from adit_model.files import package_versions
from adit_model.model import ADiT
from adit_model.quality.cells import CellStore
from adit_model.quality.energies import energy_measure
from adit_model.quality.entries import (
    Reference,
    draw,
    load_reference,
    make_entries,
    sample_entries,
)
from adit_model.quality.measures import MEASURES
from adit_model.quality.reconstruction import evaluate_reconstruction
from adit_model.quality.report import COUNTING, DEFINITIONS, energy_lines
from adit_model.quality.rows import Options
from adit_model.quality.run import PACKAGES, score
from adit_model.quality.table import TABLE_MEASURES, quality_lines
from adit_model.systems import CRYSTAL, MOLECULE, AtomicSystem

SAMPLING = {
    field.name: str if field.type == "Weights" else type(field.default)
    for field in fields(SamplingConfig)
}
HULL = ("train", "val", "test", "large")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    started = time.perf_counter()
    numbers = {CRYSTAL: options.crystals, MOLECULE: options.molecules}
    files = {name: str(options.data / f"crystals_{name}.csv.gz") for name in HULL}
    held_out = {CRYSTAL: files["test"], MOLECULE: "qm9:test"}
    known = load_reference(
        [source for source, n in ((files["train"], options.crystals),
                                  ("qm9:train", options.molecules)) if n],
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    model = ADiT.load(options.checkpoint, device=options.device)
    asked = {name: getattr(options, name) for name in SAMPLING}
    given = {name: value for name, value in asked.items() if value is not None}
    samples: list[Any] = []
    for domain, number in numbers.items():
        fits = {k: v for k, v in given.items() if k != "symmetry" or domain == CRYSTAL}
        if number:
            samples += model.sample(
                number, domain=domain, seed=options.seed, progress=sys.stderr.isatty(), **fits
            )
    sampled = time.perf_counter()
    settings = Options(
        CellStore(options.keep),
        options.workers,
        sys.stderr.isatty(),
        MEASURES if options.all else TABLE_MEASURES,
    )
    real = [
        system
        for domain, number in numbers.items()
        if number
        for system in draw(load_source(held_out[domain], progress=False), number, options.seed)
    ]
    parts = {
        "generated": score(sample_entries(samples), settings, reference=known).summary,
        "real, held out": score(make_entries(real), settings, reference=known).summary,
    }
    energies = relaxed(samples, options, known, list(files.values()), settings)
    reconstruction = reconstruct(model, held_out, numbers, options)
    seconds = (sampled - started, time.perf_counter() - sampled)
    text = "\n".join(
        [
            *head(options, replace(model.config.sampling, **given), model, seconds),
            *quality_lines(parts, reconstruction),
            *novelty(options.molecules, model),
            *energy_lines(energies),
            *(line for domain, n in numbers.items() if n
              for line in (f"## {domain.capitalize()}s: definitions", "", DEFINITIONS[domain])),
        ]
    )  # fmt: skip
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    if options.json:
        found = {
            "command": command(options),
            "generated": counts(parts["generated"]),
            "real": counts(parts["real, held out"]),
            "energies": energies,
            "reconstruction": reconstruction,
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", default="default", help="name or file (default %(default)s)")
    add("--crystals", type=count, default=1000, metavar="N", help="default %(default)s")
    add("--molecules", type=count, default=1000, metavar="N", help="default %(default)s")
    add("--reconstruct", type=count, default=1000, metavar="N",
        help="held-out systems of each domain to encode (default %(default)s)")  # fmt: skip
    add("--relax", type=count, default=0, metavar="N", help="crystals that CHGNet relaxes")
    add("--seed", type=count, default=0)
    for name, kind in SAMPLING.items():
        how: Any = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        add(f"--{name.replace('_', '-')}", help="default: the checkpoint's", **how)
    add("--device", default="auto")
    add("--data", type=Path, default=os.environ.get("ADIT_DATA_DIR"), metavar="DIR",
        help="folder of crystals_*.csv.gz (default: $ADIT_DATA_DIR)")  # fmt: skip
    add("--all", action="store_true", help="all measures: a second more for each molecule")
    add("--workers", type=int, default=1, help="processes that check")
    add("--keep", type=Path, metavar="DIR", help="finished parts, to go on from after a stop")
    add("--out", type=Path, metavar="FILE", help="Markdown file to write")
    add("--json", type=Path, metavar="FILE", help="the same numbers as JSON")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("crystals need --data DIR (or the environment variable ADIT_DATA_DIR)")
    if not (options.crystals or options.molecules):
        parser.error("--crystals and --molecules are both 0: nothing to do")
    return options


def count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {number}")
    return number


def counts(summary: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Take the counts of all rates, small enough to go into a checkpoint."""
    return {
        name: {
            "count": part["count"],
            "decoded": part["decoded"],
            **{key: rate["passed"] for key, rate in part["rates"].items() if rate},
        }
        for name, part in summary.items()
    }


def relaxed(
    samples: list[Any],
    options: argparse.Namespace,
    known: Reference,
    hull: list[str],
    settings: Options,
) -> dict[str, Any]:
    """Relax the first crystals, and put them above the hull of all files."""
    if not options.relax:
        return {}
    first = [sample for sample in samples if sample.domain == CRYSTAL][: options.relax]
    relaxing = Options(
        settings.store, settings.workers, settings.progress, (energy_measure("chgnet"),)
    )
    found = score(sample_entries(first), relaxing, reference=known, hull=hull)
    return found.summary["crystals"]["energies"]


def reconstruct(
    model: ADiT, held_out: dict[str, str], numbers: dict[str, int], options: argparse.Namespace
) -> dict[str, Any]:
    originals: list[AtomicSystem] = []
    for domain, source in held_out.items():
        if numbers[domain] and options.reconstruct:
            originals += draw(
                load_source(source, progress=False), options.reconstruct, options.seed
            )
    if not originals:
        return {}
    return evaluate_reconstruction(
        originals, model.reconstruct(originals), workers=options.workers,
        progress=sys.stderr.isatty(),
    )  # fmt: skip


def novelty(molecules: int, model: ADiT) -> list[str]:
    """Say what novelty a perfect copy of QM9 would have, and what the molecules were told."""
    if not molecules:
        return []
    total, known = (len(load_qm9_smiles(split)) for split in ("all", "train"))
    told = (
        "These weights are told the elements of each molecule, drawn from the training molecules: "
        "its formula is known, and *novel* is how the atoms are bonded. "
        if model.config.denoiser.element_condition
        else ""
    )
    return [
        f"**Null model** of the molecules' novelty: {told}QM9 enumerates small molecules, and "
        f"{known:,} of its {total:,} are the reference. Drawing from all of it would be "
        f"{100 * (1 - known / total):.0f} % novel.",
        "",
    ]


def head(
    options: argparse.Namespace,
    sampling: SamplingConfig,
    model: ADiT,
    seconds: tuple[float, float],
) -> list[str]:
    packages = ", ".join(f"{name} {v}" for name, v in package_versions("torch", *PACKAGES).items())
    return [
        "# Quality", "", "```", command(options), "```", "",
        f"Checkpoint {options.checkpoint}, hash `{model.checkpoint_hash[:12]}`, seed "
        f"{options.seed}: {sampling.num_steps} {sampling.solver} steps, guidance scale "
        f"{sampling.guidance_scale}, noise scale {sampling.noise_scale}, step focus "
        f"{sampling.step_focus:g}, symmetry {sampling.symmetry}, even electrons "
        f"{'yes' if sampling.even_electrons else 'no'}. Sampling "
        f"{seconds[0]:.0f} s on {model.device.type}, the rest {seconds[1]:.0f} s. {packages}.", "",
        "*Novel*: not in crystals_train (Materials Project) and QM9 train. *Real, held out*: "
        "crystals_test and QM9 test by the same route.", "",
        COUNTING,
    ]  # fmt: skip


def command(options: argparse.Namespace) -> str:
    """Command line that repeats the run, with DIR for the local data folder."""
    parts = ["python", "benchmarks/quality.py"]
    for name, value in vars(options).items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            parts.append(flag)
        elif value not in (None, False) and name != "keep":
            parts += [flag, "DIR" if name == "data" else shlex.quote(str(value))]
    return " ".join(parts)


if __name__ == "__main__":
    main()
