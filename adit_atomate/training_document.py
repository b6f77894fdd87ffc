"""What a run leaves in its folder, as a task document."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_atomate.training_schemas import (
    ADiTCurve,
    ADiTThroughput,
    ADiTTrainDoc,
    ADiTTrainedCheckpoint,
    ADiTTrainingData,
)
from adit_model.checkpoint import read_metadata, resolve_checkpoint

if TYPE_CHECKING:
    from adit_model.training.config import RunConfig
    from adit_model.training.run import TrainingResult

NOT_CURVES = ("step", "epoch", "samples_per_s", "model_gflops")


def training_document(
    stage: str,
    config: RunConfig,
    result: TrainingResult,
    *,
    job_index: int,
    first_step: int,
    job_seconds: float,
    points: int,
) -> ADiTTrainDoc:
    """Describe a run after one of its jobs.

    Parameters
    ----------
    stage : str
        Which was trained.
    config : RunConfig
        Of the run.
    result : TrainingResult
        How the job ended.
    job_index, first_step : int
        Which job of the chain it was, and the steps done before it.
    job_seconds : float
        How long it took.
    points : int
        Most points of a curve.
    """
    metadata = read_metadata(result.checkpoint)
    training = metadata["training"]
    table = read_log(Path(config.output))
    curves = {
        name: thin(column, points) for name, column in table.items() if name not in NOT_CURVES
    }
    return ADiTTrainDoc(
        stage=stage,
        config=config.as_dict(),
        data=ADiTTrainingData(
            sources=list(config.train),
            **{
                key: training["data"][key]
                for key in ADiTTrainingData.model_fields
                if key != "sources"
            },
        ),
        step=result.step,
        steps=config.training.steps,
        samples=training["samples"],
        finished=result.finished,
        stopped_by=None if result.finished else result.stopped_by,
        job_index=job_index,
        first_step=first_step,
        curves=curves,
        throughput=ADiTThroughput(
            samples_per_second=_median(table.get("samples_per_s")),
            model_gflops=_median(table.get("model_gflops")),
            core_hours=training["core_hours"],
            job_seconds=job_seconds,
            processes=config.training.devices * config.training.num_nodes,
        ),
        metrics={name: curve.values[-1] for name, curve in curves.items()},
        checkpoint=describe_checkpoint(result.checkpoint),
        init_from=None if config.init_from is None else describe_checkpoint(config.init_from),
        autoencoder=None if config.autoencoder is None else describe_checkpoint(config.autoencoder),
        folder=config.output,
        versions=versions(),
    )


def describe_checkpoint(name_or_path: str | Path, name: str | None = None) -> ADiTTrainedCheckpoint:
    """Path and hash of a checkpoint."""
    path = resolve_checkpoint(name_or_path)
    return ADiTTrainedCheckpoint(
        path=str(path.resolve()), hash=read_metadata(path)["hash"], name=name
    )


def read_log(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Columns of a run's log: for each the steps and values where it has one."""
    path = folder / "logs" / "csv" / "metrics.csv"
    table: dict[str, list[tuple[int, float]]] = {}
    if not path.is_file():
        return table
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    table.setdefault(name, []).append((int(row["step"]), float(value)))
    return table


def thin(column: list[tuple[int, float]], points: int) -> ADiTCurve:
    """Keep at most ``points`` values, evenly spaced, the first and the last among them."""
    if len(column) > points:
        last = len(column) - 1
        chosen = sorted({round(i * last / (points - 1)) for i in range(points)})
        column = [column[i] for i in chosen]
    return ADiTCurve(steps=[step for step, _ in column], values=[value for _, value in column])


def versions() -> dict[str, str]:
    """Versions of Python and the packages that training depends on."""
    import platform
    from importlib.metadata import version

    packages = ("adit-atomate", "torch", "lightning", "numpy", "pymatgen")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _median(column: list[tuple[int, float]] | None) -> float | None:
    return statistics.median(value for _, value in column) if column else None


def plain(value: Any) -> Any:
    """Turn a document that jobflow resolved to a dictionary or left a model into a dictionary."""
    return value.model_dump() if hasattr(value, "model_dump") else value
