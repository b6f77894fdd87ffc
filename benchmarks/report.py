"""The committed report: samples of the bundled weights, and real structures by the same route.

Run from the repository root

    python benchmarks/report.py --data DIR

where DIR holds ``crystals_train.csv.gz`` and ``crystals_test.csv.gz``; QM9 comes from qm9pack.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adit_model.cli.main import main as adit
from adit_model.data.dataset import AtomicDataset
from adit_model.data.sources import load_source
from adit_model.quality.report import share, table
from adit_model.quality.run import KEPT, SUMMARY, TABLE
from adit_model.quality.sources import draw
from adit_model.quality.summary import RATES
from adit_model.systems import DOMAINS

COLORS = 64  # of the pictures, to keep the repository small


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--number", type=int, default=1000, help="of each domain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/report"), metavar="FOLDER")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="go on from what is there")
    parser.add_argument("evaluate", nargs="*", help="after --: more for `adit evaluate`")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        run(options, options.keep or Path(scratch))


def run(options: argparse.Namespace, work: Path) -> None:
    started = time.perf_counter()
    files = {name: str(options.data / f"crystals_{name}.csv.gz") for name in ("train", "test")}
    samples, real = work / "samples", work / "real.npz"
    if not (samples / "run.json").is_file():
        call("generate", "-n", 2 * options.number, "--checkpoint", options.checkpoint, "--seed",
             options.seed, "--no-check", "--out", samples, "--quiet")  # fmt: skip
    sampled = time.perf_counter()
    AtomicDataset.from_systems(
        [
            system
            for source in (files["test"], "qm9:test")
            for system in draw(load_source(source, progress=False), options.number, options.seed)
        ]
    ).save(real)
    common = ["--reference", files["train"], "qm9:train", "--compare-to", files["test"], "qm9:test",
              "--workers", options.workers, *options.evaluate]  # fmt: skip
    call("evaluate", samples, "--out", work / "generated", *common)
    evaluated = time.perf_counter()
    (work / "ceiling").mkdir(exist_ok=True)
    if not (work / "ceiling" / KEPT).exists():  # the data compared to are measured once
        (work / "ceiling" / KEPT).symlink_to((work / "generated" / KEPT).resolve())
    # PoseBusters takes a second for each of nearly all real molecules
    call("evaluate", real, "--out", work / "ceiling", "--skip", "posebusters", *common)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("generated", "ceiling"):
        keep(work / name, options.out / name)
    seconds = {
        "sampling": sampled - started,
        "evaluation": evaluated - sampled,
        "ceiling": time.perf_counter() - evaluated,
    }
    (options.out / "README.md").write_text(overview(options, seconds), encoding="utf-8")


def call(*arguments: object) -> None:
    if status := adit([str(argument) for argument in arguments]):
        raise SystemExit(status)


def keep(source: Path, target: Path) -> None:
    """Copy a report, its table compressed and its pictures with fewer colours."""
    from PIL import Image

    target.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.name == KEPT:
            continue
        if path.name == TABLE:
            (target / f"{TABLE}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        elif path.suffix == ".png":
            Image.open(path).convert("RGB").quantize(COLORS).save(target / path.name, optimize=True)
        else:
            shutil.copy(path, target)


def overview(options: argparse.Namespace, seconds: dict[str, float]) -> str:
    found: dict[str, dict[str, Any]] = {
        name: json.loads((options.out / name / SUMMARY).read_text(encoding="utf-8"))
        for name in ("generated", "ceiling")
    }
    more = f" -- {' '.join(options.evaluate)}" if options.evaluate else ""
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    lines = [
        "# Report", "", "```",
        f"python benchmarks/report.py --data DIR --number {options.number} --seed {options.seed} "
        f"--checkpoint {options.checkpoint} --workers {options.workers}{more}", "```", "",
        f"{options.number} crystals and {options.number} molecules generated, and as many real "
        "ones (crystals_test, QM9 test), which are what can be reached. Reports with definitions: "
        "[generated](generated/report.md), [real](ceiling/report.md); every structure is a row of "
        f"`rows.csv.gz` in the same folders. {times}, {options.workers} process(es).", "",
    ]  # fmt: skip
    for domain in DOMAINS:
        parts = [found[name][f"{domain}s"] for name in ("generated", "ceiling")]
        body = [
            (rate.label, *(share(part["rates"][rate.name]) for part in parts))
            for rate in RATES[domain]
        ]
        if domain != "crystal":
            body.append(("atoms stable (EDM)", *(share(part["stable_atoms"]) for part in parts)))
        lines += [f"## {domain.capitalize()}s", "", *table(("", "generated", "real"), body)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
