"""``adit evaluate``: a row for each structure, a summary, a report with pictures."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adit_model.data.phases import KNOWN, without_none
from adit_model.data.sources import HELP
from adit_model.files import output_folder
from adit_model.systems import DOMAINS


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit evaluate``; :func:`evaluate_command` is its body."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Measure structures one by one and write rows.csv (a row for each), summary.json,\n"
        "report.md and pictures. A run that was stopped goes on when the same command is given\n"
        "again."
    )
    parser.epilog = (
        "SAMPLES is a folder of `adit generate`, or a source as for DATA. Sources:\n" + HELP
    )
    add = parser.add_argument
    add("samples", metavar="SAMPLES", help="what to evaluate; see below")
    add(
        "--reference",
        nargs="+",
        default=[KNOWN],
        metavar="DATA",
        help="known structures: novel is what is not there; distributions are compared to it. By "
        "default known, the crystals and molecules of the package, for novelty alone; none: no "
        "novelty",
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
    add(
        "--also",
        nargs="+",
        default=[],
        metavar="MEASURE",
        help="take what is left out by default: xtb (strain of molecules: GFN2-xTB relaxation), "
        "coverage (of the data by crystals: precision and recall)",
    )
    add(
        "--energies",
        nargs="+",
        default=[],
        metavar="NAME",
        help="relax crystals by force fields and find their energy above hull: chgnet, sevennet "
        "(half a minute for each crystal)",
    )
    add(
        "--hull",
        nargs="+",
        default=[KNOWN],
        metavar="CSV",
        help="known phases: known (default), those of the package; files with "
        "formation_energy_per_atom and e_above_hull; mp, the Materials Project (key in "
        "MP_API_KEY); none: only formation energies",
    )
    add("--charge", type=int, metavar="Q", help="charge of the molecules that tell none")
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
    from adit_model.quality.cells import CellStore
    from adit_model.quality.energies import choose_energies, require_installed
    from adit_model.quality.entries import load_references, load_samples, with_charge
    from adit_model.quality.measures import choose_measures
    from adit_model.quality.rows import Options
    from adit_model.quality.run import KEPT, REPORT, SUMMARY, TABLE, evaluate

    for name in ("limit", "compare_number", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}")
    args.reference, args.hull = without_none(args.reference), without_none(args.hull)
    if args.hull not in ([], [KNOWN]) and not args.energies:
        raise ValueError("--hull is of use with --energies only")
    energies = choose_energies(args.energies, args.hull)
    require_installed(energies)
    measures = choose_measures(args.skip, args.also) + energies
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"{args.out} is a file, not a folder")
    if not args.no_plot:
        import matplotlib  # noqa: F401 - refuses a MPLBACKEND that is none, before any work
    options = Options(CellStore(args.out / KEPT), args.workers, not args.quiet, measures)
    with output_folder(args.out, alone=True):
        entries = load_samples(args.samples, args.limit, not args.quiet)
        if args.charge is not None:
            entries = with_charge(entries, args.charge)
        reference, compared = load_references(args.reference, args.compare_to, not args.quiet)
        done = evaluate(
            entries,
            args.out,
            options,
            _about(args),
            reference=reference,
            compared=compared,
            compare_number=args.compare_number,
            hull=args.hull,
            plot=not args.no_plot,
        )
    _print(done.summary)
    print(f"written to {args.out}: {REPORT}, {SUMMARY}, {TABLE}")
    return 0


def _about(args: argparse.Namespace) -> dict[str, Any]:
    about: dict[str, Any] = {
        "command": _command(args),
        "samples": Path(args.samples).name or args.samples,
        "reference": [Path(name).name or name for name in args.reference],
    }
    if args.compare_to:
        about["compared_to"] = ", ".join(Path(name).name for name in args.compare_to)
    return about


def _print(summary: Mapping[str, Any]) -> None:
    from adit_model.quality.energies import RATES as ENERGY_RATES
    from adit_model.quality.report import null_lines
    from adit_model.quality.summary import RATES
    from adit_model.quality.tables import share

    for domain in DOMAINS:
        if part := summary.get(f"{domain}s"):
            print(f"{part['count']} {domain}s, {part['decoded']} decoded")
            for rate in RATES[domain]:
                if part["rates"][rate.name] and not rate.name.startswith("pb_"):
                    print(f"  {rate.label}: {share(part['rates'][rate.name])}")
            for name, rate in part["holds"].items():
                print(f"  holds what was asked, {name}: {share(rate)}")
            for found in part.get("energies", {}).values():
                for key, label, *_ in ENERGY_RATES:
                    if found["rates"][key]:
                        print(f"  {found['model']}, {label}: {share(found['rates'][key])}")
                for line in null_lines(found.get("null"))[:1]:
                    print(f"  {found['model']}, {line.replace('**', '')}")


def _command(args: argparse.Namespace) -> str:
    """Command line that repeats the run, without the folders above each file."""
    parts = ["adit evaluate", shlex.quote(Path(args.samples).name or args.samples)]
    for flag in ("reference", "compare_to", "skip", "also", "energies", "hull"):
        if getattr(args, flag) and getattr(args, flag) != [KNOWN]:
            names = [shlex.quote(Path(name).name or name) for name in getattr(args, flag)]
            parts.append(f"--{flag.replace('_', '-')} {' '.join(names)}")
    if args.charge is not None:
        parts.append(f"--charge {args.charge}")
    if args.limit:
        parts.append(f"--limit {args.limit}")
    if args.compare_number != 2000:
        parts.append(f"--compare-number {args.compare_number}")
    return " ".join([*parts, f"--out {shlex.quote(args.out.name)}"])
