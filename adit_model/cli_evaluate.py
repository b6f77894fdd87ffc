"""``adit evaluate``: a row for each structure, a summary, a report with pictures."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model.data.sources import HELP
from adit_model.folders import output_folder
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE

if TYPE_CHECKING:
    from adit_model.evaluation.rows import Options, Row
    from adit_model.evaluation.sources import Reference

TABLE, SUMMARY, REPORT, KEPT = "rows.csv", "summary.json", "report.md", "cells"
PACKAGES = (
    "adit-atomate",
    "pymatgen-core",
    "spglib",
    "smact",
    "rdkit",
    "openbabel-wheel",
    "posebusters",
)


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit evaluate``; :func:`evaluate_command` is its body."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        f"Measure structures one by one and write {TABLE} (a row for each), {SUMMARY}, {REPORT}\n"
        "and pictures. A run that was stopped goes on when the same command is given again."
    )
    parser.epilog = (
        "SAMPLES is a folder of `adit generate`, or a source as for DATA. Sources:\n" + HELP
    )
    add = parser.add_argument
    add("samples", metavar="SAMPLES", help="what to evaluate; see below")
    add(
        "--reference",
        nargs="+",
        default=[],
        metavar="DATA",
        help="known structures: novel is what is not there; distributions are compared to it",
    )
    add(
        "--compare-to",
        nargs="+",
        default=[],
        metavar="DATA",
        help="held-out data to compare distributions to, in place of the reference",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--limit", type=int, metavar="N", help="only the first N samples")
    add(
        "--compare-number",
        type=int,
        default=2000,
        metavar="N",
        help="structures drawn from the data for distributions (default %(default)s)",
    )
    add(
        "--skip",
        nargs="+",
        default=[],
        metavar="MEASURE",
        help="leave out, for instance posebusters, which takes a second for each molecule",
    )
    add("--workers", type=int, default=1, metavar="N", help="processes (default %(default)s)")
    add("--no-plot", action="store_true", help="no pictures")
    add("--quiet", action="store_true", help="no progress bars")


def evaluate_command(args: argparse.Namespace) -> int:
    """Measure, summarise, write, and print the main rates.

    Parameters
    ----------
    args : argparse.Namespace
        As made by a parser that :func:`add_evaluate_arguments` was called on.

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    ValueError, OSError, DownloadError
        If an argument is out of range, a source cannot be read, or the folder cannot be written.
    """
    from adit_model.evaluation.cells import CellStore
    from adit_model.evaluation.measures import MEASURES
    from adit_model.evaluation.rows import Options
    from adit_model.evaluation.sources import load_reference, load_samples

    for name in ("limit", "compare_number", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}")
    known = [measure.name for measure in MEASURES]
    for name in args.skip:
        if name not in known:
            raise ValueError(f"--skip knows {', '.join(known)}, not {name!r}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"{args.out} is a file, not a folder")
    measures = tuple(measure for measure in MEASURES if measure.name not in args.skip)
    options = Options(CellStore(args.out / KEPT), args.workers, not args.quiet, measures)
    with output_folder(args.out):
        entries = load_samples(args.samples, args.limit, not args.quiet)
        reference = load_reference(args.reference, not args.quiet) if args.reference else None
        compared = load_reference(args.compare_to, not args.quiet) if args.compare_to else reference
        _evaluate(args, entries, reference, compared, options)
    return 0


def _evaluate(
    args: argparse.Namespace,
    entries: Sequence[Any],
    reference: Reference | None,
    compared: Reference | None,
    options: Options,
) -> None:
    from adit_model.evaluation.report import share, write_report
    from adit_model.evaluation.rows import asked_columns, make_rows, write_rows
    from adit_model.evaluation.summary import RATES, summarise

    rows = make_rows(entries, reference, options)
    write_rows(args.out / TABLE, rows, options.measures)
    drawn = _measure_reference(rows, compared, args.compare_number, options)
    asked = {domain: asked_columns(domain, reference, options.measures) for domain in DOMAINS}
    summary: dict[str, Any] = {
        "command": _command(args),
        "samples": Path(args.samples).name or args.samples,
        "reference": [Path(name).name or name for name in args.reference],
        "packages": {name: _version(name) for name in PACKAGES},
    }
    if args.compare_to:
        summary["compared_to"] = ", ".join(Path(name).name for name in args.compare_to)
    summary |= summarise(rows, asked, drawn)
    (args.out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    pictures: list[str] = []
    if not args.no_plot:
        from adit_model.evaluation.pictures import draw_pictures

        systems = [entry.system for entry in entries]
        pictures = draw_pictures(args.out, summary, rows, systems, drawn)
    (args.out / REPORT).write_text(write_report(summary, pictures), encoding="utf-8")
    for domain in DOMAINS:
        if part := summary.get(f"{domain}s"):
            print(f"{part['count']} {domain}s, {part['decoded']} decoded")
            for rate in RATES[domain]:
                if part["rates"][rate.name] and not rate.name.startswith("pb_"):
                    print(f"  {rate.label}: {share(part['rates'][rate.name])}")
    print(f"written to {args.out}: {REPORT}, {SUMMARY}, {TABLE}")


def _measure_reference(
    rows: Sequence[Row], compared: Reference | None, number: int, options: Options
) -> dict[str, list[dict[str, Any]]]:
    """Measure structures drawn from the data, of the domains that the samples have."""
    from adit_model.evaluation.cells import measure_systems
    from adit_model.evaluation.sources import draw

    drawn: dict[str, list[dict[str, Any]]] = {}
    if compared is None:
        return drawn
    for domain, dataset in ((CRYSTAL, compared.crystals), (MOLECULE, compared.molecules)):
        if dataset is None or not any(row["domain"] == domain for row in rows):
            continue
        systems = draw(dataset, number)
        found = measure_systems(
            systems,
            [measure for measure in options.of(domain) if measure.describes],
            options.store,
            workers=options.workers,
            progress=options.title(f"reference {domain}s"),
        )
        drawn[domain] = [
            {**cells, "num_atoms": len(system)}
            for cells, system in zip(found, systems, strict=True)
        ]
    return drawn


def _command(args: argparse.Namespace) -> str:
    """Command line that repeats the run, without the folders above each file."""
    parts = ["adit evaluate", shlex.quote(Path(args.samples).name or args.samples)]
    for flag in ("reference", "compare_to", "skip"):
        if getattr(args, flag):
            names = [shlex.quote(Path(name).name or name) for name in getattr(args, flag)]
            parts.append(f"--{flag.replace('_', '-')} {' '.join(names)}")
    if args.limit:
        parts.append(f"--limit {args.limit}")
    if args.compare_number != 2000:
        parts.append(f"--compare-number {args.compare_number}")
    return " ".join([*parts, f"--out {shlex.quote(args.out.name)}"])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
