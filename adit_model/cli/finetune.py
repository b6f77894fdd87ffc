"""``adit finetune``: weights that go on learning, from structures of the user's own."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model.files import output_folder

if TYPE_CHECKING:
    from adit_model.training.config import RunConfig
    from adit_model.training.run import TrainingResult

PROBE = 5  # steps after which it is said how long the rest takes


def add_finetune_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit finetune``; :func:`finetune_command` is its body."""
    parser.description = (
        "Go on training from weights on structures of your own, with a schedule that fits their "
        "number and some of the earlier data in each batch."
    )
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="a folder, file or data set, as of adit data")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add("--checkpoint", default="default", metavar="NAME|FILE", help="weights to start from")
    add("--steps", type=int, help="training steps (default: by the number of structures)")
    add("--learning-rate", type=float, metavar="RATE", help="default 5e-4")
    add("--batch-size", type=int, metavar="N", help="structures a step (default 48)")
    add(
        "--keep-old",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="of each batch for what the weights know, 0 forgets it (default %(default)s)",
    )
    add(
        "--properties",
        nargs="+",
        default=[],
        metavar="NAME[=UNIT]",
        help="numbers beside the structures that can be asked for afterwards",
    )
    add(
        "--only-conditions",
        action="store_true",
        help="train only how conditions are taken in: a property is learned fast, and what is "
        "made with nothing told stays as it is",
    )
    add("--max-time", metavar="HH:MM:SS", help="stop then, to be resumed")
    add("--seed", type=int, help="of batches and noise (default 0)")
    add("--resume", action="store_true", help="go on with the run in DIR")
    add("--quiet", action="store_true", help="no progress bars")


def finetune_command(args: argparse.Namespace) -> int:
    """Plan, say what is planned, train, and say what to type next.

    Parameters
    ----------
    args : argparse.Namespace
        As made by a parser that :func:`add_finetune_arguments` was called on.

    Returns
    -------
    int
        Exit status: 0, 130 if Ctrl-C stopped the run.

    Raises
    ------
    ValueError, OSError, ImportError
        If the structures cannot be read or learned, the folder holds a run and ``--resume`` is
        missing, or the packages of training are not installed.
    """
    from adit_model.cli.train import require_training
    from adit_model.conditions.condition import read_property_names

    require_training()
    from adit_model.training.callbacks import STATE_NAME
    from adit_model.training.finetune import plan_fine_tuning

    began = (args.out / STATE_NAME).exists()
    if began and not args.resume:
        raise ValueError(f"{args.out} holds a run: give --resume, or choose another folder")
    if args.resume and not began:
        raise ValueError(f"{args.out} holds no run to resume: leave --resume away")
    asked = [_property(text) for text in args.properties]
    read_property_names([name for name, _ in asked])  # refuses one that is given twice
    names = dict(asked)
    given = {
        name: getattr(args, name)
        for name in ("steps", "learning_rate", "batch_size", "max_time", "seed")
        if getattr(args, name) is not None
    }
    with output_folder(args.out):
        plan = plan_fine_tuning(
            args.sources,
            args.out,
            args.checkpoint,
            keep=args.keep_old,
            properties=names,
            only_conditions=args.only_conditions,
            progress=not args.quiet,
            **given,
        )
        print(plan.describe(), flush=True)
        result = _train(plan.config, began, not args.quiet)
    if not result.finished:
        print(f"stopped by {result.stopped_by} after {result.step} steps; go on with --resume")
        return 130 if result.stopped_by == "SIGINT" else 0
    crystals = bool(plan.prepared.parts["train"].periodic.any())
    weights = shlex.quote(str(result.checkpoint))
    folder = shlex.quote(str(args.out / "samples"))
    options = [f"--property {name}=VALUE" for name in names]
    command = f"--domain {'crystal' if crystals else 'molecule'} --checkpoint {weights}"
    print(f"finished after {result.step} steps, weights: {result.checkpoint}\ntype next:")
    print("  " + " ".join(["adit generate -n 32", command, *options, "--out", folder, "--plot"]))
    print(f"  adit evaluate {folder} --out {shlex.quote(str(args.out / 'evaluation'))}")
    return 0


def _property(text: str) -> tuple[str, str]:
    name, _, unit = text.partition("=")
    return name, unit


def _train(config: RunConfig, resume: bool, progress: bool) -> TrainingResult:
    """Run a few steps, say how long the rest takes, and run it."""
    from adit_model.training.run import run_stage

    options: dict[str, Any] = {"progress": progress, "interactive": True}
    if not resume and config.training.steps > 4 * PROBE:
        probe = replace(config, training=replace(config.training, stop_after=PROBE))
        result = run_stage("denoiser", probe, False, progress=False, interactive=True)
        if result.stopped_by != "stop_after":
            return result
        rest = config.training.steps - result.step
        seconds = rest * config.training.batch_size / result.metrics["samples_per_s"]
        print(f"time:         about {_duration(seconds)} for {rest} more steps", flush=True)
        resume = True
    return run_stage("denoiser", config, resume, **options)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes >= 2 else f"{seconds:.0f} seconds"
