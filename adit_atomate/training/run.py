"""Running a stage of training inside a job: in its process, or in several."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model.checkpoint import read_metadata, resolve_checkpoint
from adit_model.training.config import RunConfig
from adit_model.training.process import RESULT_NAME, read_result, write_run

if TYPE_CHECKING:
    from adit_model.training.run import TrainingResult

logger = logging.getLogger(__name__)

IDENTITY_NAME = "identity.json"
LOG_NAME = "training.log"
# What may differ between the jobs of a run without changing its steps.
FREE = (
    "max_time",
    "stop_after",
    "checkpoint_minutes",
    "devices",
    "num_nodes",
    "sharded",
    "accelerator",
)


def check_identity(folder: Path, stage: str, config: RunConfig) -> None:
    """Make sure that a folder holds this run or none, and mark it.

    Raises
    ------
    ValueError
        If it holds a run of other data, weights or settings.
    """
    wanted = json.loads(json.dumps(_identity(stage, config)))
    path = folder / IDENTITY_NAME
    if path.is_file():
        found = json.loads(path.read_text())
        if found != wanted:
            names = [key for key in wanted if wanted[key] != found.get(key)]
            raise ValueError(
                f"{folder} holds a run with other {', '.join(names)}: choose another output"
            )
    elif (folder / "last.ckpt").exists():
        raise ValueError(f"{folder} holds a run that no job started: choose another output")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(wanted))


def _identity(stage: str, config: RunConfig) -> dict[str, Any]:
    content = config.as_dict()
    training = {key: value for key, value in content["training"].items() if key not in FREE}
    return {
        "stage": stage,
        "training data": [_source_key(source) for source in config.train],
        "model": content["model"],
        "training": training,
        "autoencoder": _hash(config.autoencoder),
        "init_from": _hash(config.init_from),
    }


def _source_key(source: str) -> str:
    path = Path(source)
    if not path.is_file():
        return source
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(checkpoint: str | None) -> str | None:
    if checkpoint is None:
        return None
    return str(read_metadata(resolve_checkpoint(checkpoint))["hash"])


def saved_steps(folder: Path) -> int:
    """Count the steps behind the state in a folder, 0 without one."""
    from adit_model.training.callbacks import STATE_NAME
    from adit_model.training.loggers import saved_step

    state = folder / STATE_NAME
    return saved_step(state) if state.exists() else 0


def run_training(
    stage: str, config: RunConfig, launcher: str | None = None, deadline: float | None = None
) -> TrainingResult:
    """Train a stage from its saved state, if there is one, until it is done or told to stop.

    Parameters
    ----------
    stage : str
        ``"autoencoder"`` or ``"denoiser"``.
    config : RunConfig
        Of the run.
    launcher : str, optional
        Command that starts the processes.
    deadline : float, optional
        When to stop, on the clock of ``time.monotonic``.

    Raises
    ------
    RuntimeError
        If the processes end without a result; the text has the end of their output.
    """
    settings = config.training
    if deadline is not None:
        left = format_seconds(deadline - time.monotonic())
        config = replace(config, training=replace(settings, max_time=left))
    if launcher is None and settings.devices * settings.num_nodes == 1:
        from adit_model.training.run import run_stage

        return run_stage(stage, config, resume=True, progress=False)
    folder = Path(config.output)
    write_run(folder, config)
    command = [
        *shlex.split(launcher or ""),
        sys.executable,
        "-m",
        "adit_model.training.process",
        stage,
        str(folder),
    ]
    logger.info("starting %s", shlex.join(command))
    with open(LOG_NAME, "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        with _forwarded_signals(process):
            status = process.wait()
    if not (folder / RESULT_NAME).is_file():
        last = "\n".join(Path(LOG_NAME).read_text(errors="replace").splitlines()[-20:])
        raise RuntimeError(f"training ended with status {status}: {shlex.join(command)}\n{last}")
    return read_result(folder)


def format_seconds(seconds: float) -> str:
    """Write a time as :func:`adit_model.training.config.parse_time` reads it, rounded down."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@contextlib.contextmanager
def _forwarded_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass SIGTERM and SIGUSR1 on to a process, which then saves its state and ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, frame: Any) -> None:
        process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
