"""``adit complete``: atoms added to a host, whose own atoms stay where they are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from adit_model.cli.candidates import Results, add_candidate_arguments, limits, run_command
from adit_model.cli.generate import add_sampling_arguments, sampling_options

if TYPE_CHECKING:
    from adit_model.model import ADiT


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

    def work(model: ADiT) -> Results:
        found = complete(model, asked, **limits(args))
        run = {"host": str(args.host), "fix": args.fix, **asked.as_dict(), "dropped": found.dropped}
        return Results(found.candidates, found.rows(), run, found.summary())

    return run_command(args, work)
