"""Validity, uniqueness and novelty of samples, and reconstruction of held-out data: one table.

Run from the repository root, for instance

    python benchmarks/quality.py --molecules 1000 --crystals 1000 --seed 0 --data DIR

where DIR holds ``crystals_train.csv.gz`` and ``crystals_test.csv.gz``; QM9 comes from qm9pack.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.data.crystal_csv import load_crystal_csv
from adit_model.data.qm9 import load_qm9, load_qm9_smiles
from adit_model.quality.molecules import canonical_smiles_set
from adit_model.quality.training_tables import (
    evaluate_reconstruction,
    evaluate_samples,
    format_reconstruction,
    format_table,
)

if TYPE_CHECKING:
    from adit_model.data.dataset import AtomicDataset
    from adit_model.model import ADiT
    from adit_model.systems import AtomicSystem

PACKAGES = ("adit-atomate", "torch", "rdkit", "smact", "pymatgen-core")

DEFINITIONS = """\
Molecules: valid and connected = RDKit finds bonds from the coordinates at total charge 0
(`DetermineBonds`), the result passes its sanitisation and is one fragment. Unique and novel by
canonical SMILES without stereochemistry; novel = not in QM9 train (100,000 molecules).

Crystals: structurally valid = all distances, periodic images included, above 0.5 angstrom and
volume above 0.1 cubic angstrom per atom; compositionally valid = SMACT (neutral, Pauling test,
alloys and elements pass, the oxidation states of CDVAE and ADiT: `smact14`; at most seven
elements). Unique and novel by pymatgen's StructureMatcher (ltol 0.3, stol 0.5, angle_tol 10);
novel = not in crystals_train (16,950 Materials Project crystals).
"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    started = time.perf_counter()
    crystals = None
    if options.crystals or options.reconstruct:
        crystals = {name: crystal_file(options.data, name) for name in ("train", "test")}
    references: dict[str, Any] = {"workers": options.workers, "progress": sys.stderr.isatty()}
    if crystals and options.crystals:
        references["reference_crystals"] = crystals["train"]
    if options.molecules:
        references["reference_smiles"] = canonical_smiles_set(load_qm9_smiles("train"))

    reports: dict[str, Any] = {}
    reconstruction: dict[str, Any] | None = None
    notes = [f"Seed {options.seed}."]
    tables = []
    model = None
    if options.checkpoint != "none":
        from adit_model.model import ADiT

        model = ADiT.load(options.checkpoint, device=options.device)
        notes.append(f"Checkpoint {options.checkpoint}, hash {model.checkpoint_hash}.")
        if options.crystals or options.molecules:
            samples, note = draw_samples(model, options)
            notes.append(note)
            reports["generated"] = evaluate_samples(samples, **references)
    if options.ceiling:
        reports["real, held out"] = evaluate_samples(held_out(options, crystals), **references)
    if reports:
        tables.append(format_table(reports))
    if model is not None and options.reconstruct:
        count = options.reconstruct
        originals = draw(load_qm9("test"), count, options.seed)
        if crystals:
            originals += draw(crystals["test"], count, options.seed)
        reconstruction = evaluate_reconstruction(
            originals,
            model.reconstruct(originals),
            workers=options.workers,
            progress=sys.stderr.isatty(),
        )
        tables.append(format_reconstruction(reconstruction))
    notes.append(f"The whole run took {time.perf_counter() - started:.0f} s.")
    notes.append(", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".")
    text = "\n".join(
        ["# Quality", "", "```", command(options), "```", "", " ".join(notes), ""]
        + [table for table in tables for table in (table, "")]
        + [DEFINITIONS]
    )
    print(text)
    if options.json:
        results = {"command": command(options), **reports, "reconstruction": reconstruction}
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=count, default=1000, metavar="N")
    parser.add_argument("--crystals", type=count, default=1000, metavar="N")
    parser.add_argument(
        "--reconstruct",
        type=count,
        default=1000,
        metavar="N",
        help="held-out systems of each domain to encode and decode",
    )
    parser.add_argument("--seed", type=count, default=0)
    parser.add_argument(
        "--checkpoint", default="default", help="name or file; none: no model, with --ceiling"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--num-steps", type=int, help="default: the checkpoint's")
    parser.add_argument("--solver", help="default: the checkpoint's")
    parser.add_argument("--guidance-scale", type=float, help="default: the checkpoint's")
    parser.add_argument("--noise-scale", type=float, help="default: the checkpoint's")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("ADIT_DATA_DIR"),
        metavar="DIR",
        help="folder of crystals_train.csv.gz and crystals_test.csv.gz (default: $ADIT_DATA_DIR)",
    )
    parser.add_argument("--ceiling", action="store_true", help="score real held-out data too")
    parser.add_argument("--workers", type=count, default=1, help="processes that check")
    parser.add_argument("--out", type=Path, metavar="FILE", help="Markdown file to write")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same counts as JSON")
    options = parser.parse_args(arguments)
    if options.checkpoint == "none":
        options.reconstruct = 0
        if not options.ceiling:
            parser.error("--checkpoint none leaves nothing to do without --ceiling")
    if not (options.molecules or options.crystals or options.reconstruct):
        parser.error("--molecules, --crystals and --reconstruct are all 0: nothing to do")
    if (options.crystals or options.reconstruct) and options.data is None:
        parser.error("crystals need --data DIR (or the environment variable ADIT_DATA_DIR)")
    return options


def count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {number}")
    return number


def command(options: argparse.Namespace) -> str:
    """Command line that repeats the run, with DIR for the local data folder."""
    parts = ["python", "benchmarks/quality.py"]
    for name, value in vars(options).items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            parts.append(flag)
        elif value is not None and value is not False:
            parts += [flag, "DIR" if name == "data" else shlex.quote(str(value))]
    return " ".join(parts)


def crystal_file(folder: Path, name: str) -> AtomicDataset:
    return load_crystal_csv(Path(folder) / f"crystals_{name}.csv.gz", progress=sys.stderr.isatty())


def draw_samples(model: ADiT, options: argparse.Namespace) -> tuple[list[Any], str]:
    from adit_model.sampling.request import Request

    given = {
        "num_steps": options.num_steps,
        "solver": options.solver,
        "guidance_scale": options.guidance_scale,
        "noise_scale": options.noise_scale,
    }
    settings = Request(1, sampling=given).settings(model.config.sampling)
    samples: list[Any] = []
    started = time.perf_counter()
    for domain, number in (("molecule", options.molecules), ("crystal", options.crystals)):
        if number:
            samples += model.sample(
                number, domain=domain, seed=options.seed, progress=sys.stderr.isatty(), **given
            )
    seconds = time.perf_counter() - started
    return samples, (
        f"{settings.num_steps} {settings.solver} steps, guidance scale "
        f"{settings.guidance_scale:g}, noise scale {settings.noise_scale:g}; "
        f"{len(samples)} samples in {seconds:.0f} s on {model.device.type}."
    )


def held_out(
    options: argparse.Namespace, crystals: dict[str, AtomicDataset] | None
) -> list[AtomicSystem]:
    systems: list[AtomicSystem] = []
    if options.molecules:
        systems += draw(load_qm9("test"), options.molecules, options.seed)
    if crystals and options.crystals:
        systems += draw(crystals["test"], options.crystals, options.seed)
    return systems


def draw(dataset: AtomicDataset, number: int, seed: int) -> list[AtomicSystem]:
    """Choose systems at random without repetition, all of them if there are not more."""
    order = np.random.RandomState(seed).permutation(len(dataset))[:number]
    return list(dataset.subset(np.sort(order)))


if __name__ == "__main__":
    main()
