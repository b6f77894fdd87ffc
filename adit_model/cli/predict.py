"""``adit predict``: the structures of a formula, relaxed and ranked, beside the known ones."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from adit_model.cli.candidates import Results, add_candidate_arguments, limits, run_command
from adit_model.cli.generate import add_sampling_arguments, sampling_options

if TYPE_CHECKING:
    from adit_model.model import ADiT


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit predict``; :func:`predict_command` is its body."""
    from adit_model.prediction.candidates import BESIDE
    from adit_model.quality.symmetry import MOVED, SYMMETRY

    parser.description = (
        "Predict structures of a formula: generate candidates, drop the implausible ones, relax, "
        "join equal ones, rank them by energy, and symmetrise. Half of the candidates of a crystal "
        "are structure types of known crystals with near elements, and the known crystals of the "
        "composition stand beside; for a molecule's formula they are constitutional isomers."
    )
    add = parser.add_argument
    add("formula", metavar="FORMULA", help="LiMn3O4, 'TiO2, units=2', C6H6O, or any condition")
    add_candidate_arguments(parser, 20, "")
    add("--domain", choices=("crystal", "molecule"), help="where the formula allows both")
    add("--units", metavar="2|1-4", help="formula units in the cell (default: all that fit)")
    add("--space-group", metavar="225|Fm-3m", help="number or short symbol")
    add(
        "--known", type=int, default=BESIDE, metavar="N", help="known crystals beside (%(default)s)"
    )
    add("--types", type=int, metavar="N", help="candidates that are structure types (half)")
    add(
        "--symmetry-tolerance",
        type=float,
        default=SYMMETRY,
        metavar="A",
        help="angstrom within which atoms are equivalent, 0 leaves all as it is (%(default)s)",
    )
    add(
        "--most-moved",
        type=float,
        default=MOVED,
        metavar="A",
        help="angstrom that symmetrising may move an atom by (%(default)s)",
    )
    add_sampling_arguments(parser)


def predict_command(args: argparse.Namespace) -> int:
    """Predict, write, and print the best.

    Parameters
    ----------
    args : argparse.Namespace
        As made by a parser that :func:`add_predict_arguments` was called on.

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    ValueError, OSError, ModuleNotFoundError
        If the formula cannot be made, the engine is not installed, or the folder cannot be written
        or holds files already.
    """
    from adit_model.checkpoint import read_known, resolve_checkpoint
    from adit_model.conditions.condition import as_condition
    from adit_model.prediction.predict import formula_condition, predict, question
    from adit_model.sampling.request import check_positive

    check_positive("--batch-atoms", args.batch_atoms)
    check_positive("--workers", args.workers)
    condition = as_condition(
        formula_condition(args.formula),
        domain=args.domain,
        formula_units=args.units,
        space_group=args.space_group,
    )
    asked = question(
        *read_known(resolve_checkpoint(args.checkpoint)),
        condition,
        args.candidates,
        engine=args.relax,
        seed=args.seed,
        beside=args.known,
        tolerance=args.symmetry_tolerance,
        most=args.most_moved,
        types=args.types,
        **sampling_options(args),
    )

    def work(model: ADiT) -> Results:
        found = predict(model, asked, **limits(args))
        run = {**asked.as_dict(), "dropped": found.dropped, "found": found.found}
        return Results(found.candidates, found.rows(), run, found.summary(), found.beside)

    return run_command(args, work)
