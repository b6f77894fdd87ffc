"""``adit discover``: new crystals, relaxed and ranked by their energy above the hull."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from adit_model.cli.candidates import Results, limits, run_command
from adit_model.cli.generate import add_condition_arguments, add_sampling_arguments, build_request
from adit_model.files import write_atomic

if TYPE_CHECKING:
    from adit_model.model import ADiT

UNFINISHED, SETTINGS = ".unfinished", "search.json"  # what a run keeps until it ends


def add_discover_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit discover``; :func:`discover_command` is its body."""
    parser.description = (
        "Generate crystals, drop what is implausible, double or known, relax, symmetrise, and "
        "rank by energy above the hull of known phases: CIF files, a table, a picture. No store "
        "and no class is needed; what is finished is kept, and --resume goes on."
    )
    add = parser.add_argument
    add("-n", type=int, default=50, metavar="N", help="crystals to generate (default %(default)s)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--keep", type=int, default=10, metavar="K", help="the best to write (default %(default)s)")
    add("--relax", metavar="ENGINE", help="chgnet, sevennet or none (default: what is installed)")
    add(
        "--hull",
        nargs="+",
        default=["known"],
        metavar="SOURCE",
        help="known phases: those of the package (known), CSV files, mp (needs MP_API_KEY), none",
    )
    add("--keep-known", action="store_true", help="rank crystals that are known, too")
    add("--resume", action="store_true", help="go on with the unfinished run in DIR")
    add_condition_arguments(parser)
    add_sampling_arguments(parser)


def discover_command(args: argparse.Namespace) -> int:
    """Discover, write, and print the best.

    Parameters
    ----------
    args : argparse.Namespace
        As made by a parser that :func:`add_discover_arguments` was called on.

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    ValueError, OSError, ModuleNotFoundError, DownloadError
        If the crystals cannot be made, the force field is not installed, the hull cannot be
        built, or the folder cannot be written, holds files already or nothing to resume.
    """
    from adit_model.checkpoint import read_known, read_metadata, resolve_checkpoint
    from adit_model.data.phases import without_none
    from adit_model.prediction.discover import discover, search
    from adit_model.quality.cells import CellStore
    from adit_model.sampling.request import check_positive

    check_positive("-n", args.n)
    check_positive("--keep", args.keep)
    args.domain, args.random_rotation = "crystal", False
    path = resolve_checkpoint(args.checkpoint)
    asked = search(
        build_request(args),
        *read_known(path),
        engine=args.relax,
        hull=without_none(args.hull),
        keep_known=args.keep_known,
    )
    settings = {"checkpoint_hash": read_metadata(path)["hash"], **asked.as_dict()}
    folder = args.out / UNFINISHED
    _check_unfinished(args, folder, settings)

    def work(model: ADiT) -> Results:
        if not args.resume:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        write_atomic(folder / SETTINGS, json.dumps(settings))
        say = (lambda text: None) if args.quiet else (lambda text: print(text, file=sys.stderr))
        found = discover(model, asked, CellStore(folder), say=say, **limits(args))
        best = [find.candidate for find in found.ranked[: args.keep]]
        run = {**asked.as_dict(), "keep": args.keep, "undecoded": found.undecoded}
        return Results(best, found.rows(), run, found.summary(), picture=True)

    try:
        status = run_command(args, work, resume=args.resume)
    except BaseException:
        if folder.is_dir() and len(list(folder.iterdir())) > 1:
            print("what is finished is kept: the same with --resume goes on", file=sys.stderr)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return status


def _check_unfinished(args: argparse.Namespace, folder: Path, settings: dict) -> None:
    """Compare the settings to those of an unfinished run.

    Raises
    ------
    ValueError
        If there is one and ``--resume`` or ``--overwrite`` is missing, or none to resume, or it
        has other settings.
    """
    file = folder / SETTINGS
    if not args.resume:
        if file.is_file() and not args.overwrite:
            raise ValueError(
                f"{args.out} has an unfinished run: give --resume to go on, or --overwrite"
            )
        return
    if not file.is_file():
        raise ValueError(f"{args.out} has no unfinished run: leave --resume away")
    before = json.loads(file.read_text())
    for name, value in json.loads(json.dumps(settings)).items():
        if before.get(name) != value:
            raise ValueError(
                f"the unfinished run in {args.out} has another {name}: {before.get(name)}, "
                f"not {value}; give what was given then, or choose another folder"
            )
