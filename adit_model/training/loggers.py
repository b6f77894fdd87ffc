"""Logs that a resumed run goes on writing, and a quiet Lightning."""

from __future__ import annotations

import contextlib
import csv
import logging
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from adit_model.files import atomic_path

LOG_FOLDER = "logs"
CLOSING_SECONDS = 5.0
KNOWN_WARNINGS = (  # of Lightning itself, about choices made on purpose or its own use of torch
    ".*does not have many workers.*",
    ".*isinstance.treespec, LeafSpec.*",
)


def build_loggers(
    folder: Path, start: int, log_every: int = 1
) -> list[CSVLogger | TensorBoardLogger]:
    """CSV and TensorBoard logs in ``folder/logs``, which go on at a step.

    Parameters
    ----------
    folder : Path
        Of the run.
    start : int
        First step that will be logged; later lines of an earlier run are replaced.
    log_every : int
        Steps between two lines of the training.
    """
    csv_logger = ResumedCSVLogger(folder, start)
    board = StepTensorBoardLogger(folder, LOG_FOLDER, "tensorboard", purge_step=start or None)
    csv_logger.log_every = board.log_every = log_every
    return [csv_logger, board]


def saved_step(state: Path) -> int:
    """Optimiser steps that a saved state has behind it, after a test of its checksums.

    Raises
    ------
    ValueError
        If the file is damaged or something else.
    """
    try:
        with zipfile.ZipFile(state) as archive:
            damaged = archive.testzip()
        if damaged is None:
            saved = torch.load(state, map_location="cpu", weights_only=True, mmap=True)
            return int(saved["global_step"])
    except Exception as error:  # zipfile and torch raise any type on a damaged file
        raise ValueError(f"{state} is no saved state of a run: {error}") from error
    raise ValueError(
        f"{state} is damaged, its checksums do not fit: put a copy in its place, or move it and "
        "the weights beside it away to start again"
    )


class _LogSteps:
    """Leave out lines that Lightning repeats, at a step that is saved or where a run is stopped."""

    log_every = 1
    last = -1  # step of the last line of the training

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write a line, unless it is one of the training between two log steps."""
        if "loss" in metrics and step is not None:
            if step == self.last or (step + 1) % self.log_every:
                return
            self.last = step
        super().log_metrics(metrics, step)  # type: ignore[misc]


class StepTensorBoardLogger(_LogSteps, TensorBoardLogger):
    """TensorBoard's log, with lines at log steps alone."""

    def finalize(self, status: str) -> None:
        """Close the file; after an exception for some seconds at most.

        One that was raised inside TensorBoard's queue, as that of Ctrl-C may be, can cost the
        writing thread its wake-up (it sleeps for 120 s) or leave a lock taken; closing waits.
        """
        if status != "failed":
            return super().finalize(status)
        closing = threading.Thread(target=super().finalize, args=(status,), daemon=True)
        closing.start()
        closing.join(CLOSING_SECONDS)


class ResumedCSVLogger(_LogSteps, CSVLogger):
    """Lightning's CSV log, which otherwise deletes the lines of the run it resumes.

    Parameters
    ----------
    folder : Path
        Of the run.
    start : int
        Lines of this step and later are dropped: they will be written again.
    """

    def __init__(self, folder: Path, start: int) -> None:
        super().__init__(folder, LOG_FOLDER, "csv")
        self.start = start

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """Writer of the file."""
        if self._experiment is None:
            self._experiment = _ResumedWriter(self.log_dir, self.start)
        return cast(ExperimentWriter, self._experiment)


class _ResumedWriter(ExperimentWriter):
    def __init__(self, log_dir: str, start: int) -> None:
        path = Path(log_dir) / self.NAME_METRICS_FILE
        rows, names = _rows_before(path, start)
        super().__init__(log_dir)
        if rows:
            self.metrics_keys = names
            _write_rows(path, names, rows)
        else:
            path.unlink(missing_ok=True)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Write the file whole or not at all, where Lightning empties it first."""
        path = Path(self.metrics_file_path)
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        _write_rows(path, fieldnames, rows)

    def _check_log_dir_exists(self) -> None:
        """Leave out Lightning's deletion of the former file and its warning of it."""


def _write_rows(path: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    with atomic_path(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)


def _rows_before(path: Path, start: int) -> tuple[list[dict[str, Any]], list[str]]:
    if not path.is_file():
        return [], []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        # A killed process can leave its last line incomplete.
        rows = [row for row in reader if (row.get("step") or "").isdigit()]
        names = list(reader.fieldnames or [])
    return [row for row in rows if int(row["step"]) < start], names


class StepProgressBar(TQDMProgressBar):
    """Progress bar without Lightning's version number of the logs."""

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands behind the bar."""
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hide Lightning's notes, advertisements and known warnings; other warnings pass."""
    names = ("lightning.pytorch", "lightning.fabric")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
