"""A run as a process of its own: ``python -m adit_model.training.process STAGE FOLDER``.

Launchers (``srun``, ``torchrun``) start several of it, Lightning itself the others of one machine.
The run is described by ``run.json`` in the folder, and ended by ``result.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from adit_model.files import write_atomic
from adit_model.training.config import STAGES, RunConfig

if TYPE_CHECKING:
    from adit_model.training.run import TrainingResult

RUN_NAME, RESULT_NAME = "run.json", "result.json"


def write_run(folder: Path, config: RunConfig) -> None:
    """Describe a run for :func:`main`, and remove the result of an earlier one."""
    (folder / RESULT_NAME).unlink(missing_ok=True)
    write_atomic(folder / RUN_NAME, json.dumps(config.as_dict()))


def read_result(folder: Path) -> TrainingResult:
    """Read how the run ended.

    Raises
    ------
    FileNotFoundError
        If it did not end by itself.
    """
    from adit_model.training.run import TrainingResult

    content = json.loads((folder / RESULT_NAME).read_text())
    for key in ("checkpoint", "state"):
        content[key] = Path(content[key])
    return TrainingResult(**content)


def main(argv: Sequence[str] | None = None) -> int:
    """Train the stage that is named, as its folder says, from its saved state if there is one.

    Returns
    -------
    int
        Exit status, 0; a failure raises.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 2 or arguments[0] not in STAGES:
        raise SystemExit(f"usage: python -m {__spec__.name} {{{'|'.join(STAGES)}}} FOLDER")
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from adit_model.training.run import run_stage

    stage, folder = arguments[0], Path(arguments[1])
    config = RunConfig.from_dict(json.loads((folder / RUN_NAME).read_text()))
    result = run_stage(stage, config, resume=True, progress=False)
    if getattr(rank_zero_only, "rank", 0) == 0:
        write_atomic(folder / RESULT_NAME, json.dumps(asdict(result), default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
