"""``adit train``: one stage of the model, as a configuration file says."""

from __future__ import annotations

import argparse
from pathlib import Path

from adit_model.files import output_folder

INTERRUPTED = 130


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit train``; :func:`train_command` is its body."""
    parser.usage = "%(prog)s STAGE --config FILE [--resume] [--quiet] [section.key=value ...]"
    parser.epilog = "Values given as section.key=value go before those of the file."
    parser.add_argument("stage", metavar="STAGE", choices=("autoencoder", "denoiser"))
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the saved state")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def require_training() -> None:
    """Import what training needs.

    Raises
    ------
    ImportError
        If it is not installed; the text says how to install it.
    """
    try:
        import adit_model.training.run  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("lightning", "tensorboard", "torchmetrics"):
            raise ImportError(
                f"training needs {error.name}: pip install 'adit-atomate[train]'"
            ) from error
        raise


def train_command(args: argparse.Namespace) -> int:
    """Train a stage and print where its weights are.

    Returns
    -------
    int
        Exit status: 0, 130 if Ctrl-C stopped the run.

    Raises
    ------
    ValueError, OSError, ImportError
        If the run could not start, or the packages of training are not installed.
    """
    require_training()
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from adit_model.training.config import load_run_config
    from adit_model.training.run import run_stage

    config = load_run_config(args.stage, args.config, args.overrides)
    with output_folder(Path(config.output)):
        result = run_stage(args.stage, config, args.resume, not args.quiet, interactive=True)
    if getattr(rank_zero_only, "rank", 0):
        return 0  # one process of many reports
    state = "finished" if result.finished else f"stopped by {result.stopped_by}"
    print(f"{state} after {result.step} steps")
    print(f"weights: {result.checkpoint}")
    if not result.finished:
        print(f"go on from {result.state} with --resume")
    return INTERRUPTED if result.stopped_by == "SIGINT" else 0
