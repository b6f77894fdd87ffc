"""Where the jobs of a run keep what outlives them."""

from __future__ import annotations

from pathlib import Path
from typing import overload

from jobflow import CURRENT_JOB, OutputReference

from adit_atomate.settings import ADiTSettings
from adit_model.checkpoint import BUNDLED, resolve_checkpoint


def check_output(output: str | None) -> None:
    """Refuse a relative output folder: jobs run in folders of their own.

    Raises
    ------
    ValueError
        If ``output`` is no absolute path.
    """
    if output is not None and not Path(output).expanduser().is_absolute():
        raise ValueError(
            f"output must be an absolute path, since jobs change folder, got {output!r}"
        )


def run_folder(output: str | None, label: str) -> Path:
    """Return the folder of a job: the one that was asked for, or one named after the job's uuid.

    A job that is run again, in whatever folder, and the jobs that continue it have one uuid and so
    one folder, under the setting ``ADIT_TRAINING_DIR``.
    """
    if output is not None:
        return Path(output).expanduser()
    job = CURRENT_JOB.job
    if job is None:
        raise RuntimeError("output is not set, and there is no job to name the folder after")
    return Path(ADiTSettings().TRAINING_DIR).expanduser().resolve() / f"{label}-{job.uuid}"


@overload
def absolute_checkpoint(name: None) -> None: ...
@overload
def absolute_checkpoint(name: str) -> str: ...
@overload
def absolute_checkpoint(name: OutputReference) -> OutputReference: ...
@overload
def absolute_checkpoint(
    name: str | OutputReference | None,
) -> str | OutputReference | None: ...
def absolute_checkpoint(name: str | OutputReference | None) -> str | OutputReference | None:
    """Give a checkpoint its absolute path; bundled names and references stay as they are.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    """
    if name is None or isinstance(name, OutputReference):
        return name
    path = resolve_checkpoint(name)
    return name if name in BUNDLED else str(path.resolve())
