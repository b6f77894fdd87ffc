"""``adit complete``: atoms added to a host, whose own atoms stay where they are."""

from __future__ import annotations

import argparse
from pathlib import Path

from adit_model import __version__
from adit_model.cli.candidates import (
    WRITTEN,
    add_candidate_arguments,
    print_rows,
    write_candidates,
)
from adit_model.cli.generate import add_sampling_arguments, check_folder, sampling_options
from adit_model.files import output_folder


def add_complete_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit complete``; :func:`complete_command` is its body."""
    parser.description = (
        "Add atoms to a crystal or molecule whose own atoms and cell are fixed: hydrogens that a "
        "CIF lacks, lithium in a framework, an atom for a vacancy, the rest of a molecule."
    )
    add = parser.add_argument
    add("host", type=Path, metavar="FILE", help="CIF, POSCAR, XYZ or SDF file of one structure")
    add("--add", required=True, metavar="Li2|2", help="atoms to add; a number: elements are free")
    add(
        "--fix",
        metavar="Fe-P-O|0,1,5",
        help="elements or indices of the host's atoms that are fixed, the others are made anew "
        "(default: all are fixed)",
    )
    add_candidate_arguments(parser, 10, "none")
    add_sampling_arguments(parser)


def complete_command(args: argparse.Namespace) -> int:
    """Complete, write, and print the best.

    Parameters
    ----------
    args : argparse.Namespace
        As made by a parser that :func:`add_complete_arguments` was called on.

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    ValueError, OSError, ModuleNotFoundError
        If the host cannot be read or completed, the engine is not installed, or the folder cannot
        be written or holds files already.
    """
    from adit_model.checkpoint import read_known, resolve_checkpoint
    from adit_model.data.structures import read_one
    from adit_model.prediction.complete import complete, task
    from adit_model.sampling.request import check_positive

    check_positive("--batch-atoms", args.batch_atoms)
    check_positive("--workers", args.workers)
    asked = task(
        *read_known(resolve_checkpoint(args.checkpoint)),
        read_one(args.host),
        args.add,
        args.candidates,
        fixed=args.fix,
        engine=args.relax,
        seed=args.seed,
        **sampling_options(args),
    )
    check_folder(args.out, args.overwrite, WRITTEN)
    with output_folder(args.out, alone=True):
        check_folder(args.out, args.overwrite, WRITTEN)
        from adit_model.model import ADiT

        model = ADiT.load(args.checkpoint, device=args.device)
        found = complete(
            model,
            asked,
            workers=args.workers,
            batch_atoms=args.batch_atoms,
            progress=not args.quiet,
        )
        run = {
            "adit_atomate": __version__,
            "checkpoint": args.checkpoint,
            "checkpoint_hash": model.checkpoint_hash,
            "host": str(args.host),
            "fix": args.fix,
            **asked.as_dict(),
            "dropped": found.dropped,
        }
        rows, summary = found.rows(), found.summary()
        write_candidates(args.out, found.candidates, rows, run, summary)
    print_rows(rows)
    print(summary)
    print(f"written to {args.out}")
    return 0
