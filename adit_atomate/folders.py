"""Where the jobs of a run keep what outlives them."""

from __future__ import annotations

from pathlib import Path

from jobflow import CURRENT_JOB

from adit_atomate.settings import ADiTSettings


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
