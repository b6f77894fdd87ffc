"""Documents of the jobs that prepare data and train."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from adit_model.checkpoint import read_metadata, resolve_checkpoint
from adit_model.files import package_versions

if TYPE_CHECKING:
    from adit_model.training.config import RunConfig
    from adit_model.training.run import TrainingResult


class ADiTPartRecord(BaseModel):
    """One part of the prepared data."""

    path: str = Field(description="Array file (.npz) of the part, an absolute path.")
    fingerprint: str = Field(description="SHA-256 of its arrays.")
    crystals: int = Field(description="Crystals in it.")
    molecules: int = Field(description="Molecules in it.")
    atoms: int = Field(description="Atoms in all of them together.")
    elements: dict[str, int] = Field(description="Systems that hold each element.")


class ADiTReplayRecord(BaseModel):
    """Earlier data that are mixed into a fine-tuning run."""

    sources: list[str] = Field(description="Where they come from.")
    fraction: float = Field(description="Share of each training batch that was asked for.")
    crystals: int = Field(description="Earlier crystals in the training data.")
    molecules: int = Field(description="Earlier molecules in the training data.")


class ADiTDataDoc(BaseModel):
    """Result of :class:`~adit_atomate.training.data.ADiTDataMaker`."""

    train: ADiTPartRecord = Field(description="What is trained on.")
    validation: ADiTPartRecord | None = Field(
        None, description="Compositions held out for choosing; None if there are none."
    )
    test: ADiTPartRecord | None = Field(
        None, description="Compositions held out for reporting; None if there are none."
    )
    train_paths: list[str] = Field(description="Array files of the training data.")
    validation_paths: list[str] = Field(
        description="Array files of the validation data, empty or one."
    )
    crystal_fraction: float | None = Field(
        None, description="Share of crystals in a batch; None leaves it to the training job."
    )
    replay: ADiTReplayRecord | None = Field(
        None, description="Earlier data that were mixed in; None if there are none."
    )
    read: int = Field(description="Entries of the sources, readable or not.")
    dropped: dict[str, int] = Field(
        description="How many entries were left out for each kind of reason."
    )
    report: str = Field(description="What was kept, and what was dropped and why, as text.")
    folder: str = Field(
        description="Folder of the array files, of report.txt, of dropped.csv with a row for each "
        "entry that was left out, and of properties.csv where properties were asked for."
    )
    sources: list[str] = Field(description="What was read, in order.")
    settings: dict[str, Any] = Field(description="Filters and split.")
    versions: dict[str, str] = Field(description="Versions of the packages.")


class ADiTCurve(BaseModel):
    """Values of one quantity over the steps, thinned."""

    steps: list[int] = Field(description="Optimiser steps, from 0.")
    values: list[float] = Field(description="Value at each of them.")


class ADiTTrainingData(BaseModel):
    """What a run was trained on."""

    sources: list[str] = Field(description="Names or files.")
    fingerprint: str = Field(description="SHA-256 of the arrays.")
    crystals: int = Field(description="Crystals.")
    molecules: int = Field(description="Molecules.")
    skipped: int = Field(description="Entries of the sources that could not be read.")


class ADiTThroughput(BaseModel):
    """How fast a run was."""

    samples_per_second: float | None = Field(
        None, description="Median over the log lines; None before the first."
    )
    model_gflops: float | None = Field(
        None, description="Model FLOPs a second (linear layers, 6 N a sample) in 10^9, median."
    )
    core_hours: float = Field(description="Threads x wall-clock hours of all training steps.")
    job_seconds: float = Field(description="Wall-clock time of this job alone, in seconds.")
    processes: int = Field(description="Processes that trained together.")


class ADiTTrainedCheckpoint(BaseModel):
    """A checkpoint file that a job wrote."""

    path: str = Field(description="Absolute path of the .safetensors file.")
    hash: str = Field(description="SHA-256 of configuration and weights.")
    name: str | None = Field(
        None, description="Name it is registered under; None if it is not registered."
    )


class ADiTTrainDoc(BaseModel):
    """Result of the jobs that train one stage."""

    stage: str = Field(description="'autoencoder' or 'denoiser'.")
    config: dict[str, Any] = Field(description="Data, model, schedule and hardware of the run.")
    data: ADiTTrainingData = Field(description="What it was trained on.")
    step: int = Field(description="Optimiser steps done, by all jobs of the run together.")
    steps: int = Field(description="Optimiser steps asked for.")
    samples: int = Field(description="Systems seen, repetitions counted.")
    finished: bool = Field(description="Whether all steps are done.")
    stopped_by: str | None = Field(
        None,
        description="What stopped this job before that: 'max_time', 'stop_after' (steps per job), "
        "'SIGTERM', 'SIGUSR1'; None if nothing did.",
    )
    job_index: int = Field(description="Which job of the chain this is, from 1.")
    first_step: int = Field(description="Optimiser steps that were done before this job.")
    curves: dict[str, ADiTCurve] = Field(
        description="Losses, their terms, validation losses and learning rate over the steps."
    )
    throughput: ADiTThroughput = Field(description="Speed and cost.")
    metrics: dict[str, float] = Field(description="Last value of each curve.")
    checkpoint: ADiTTrainedCheckpoint = Field(description="The averaged weights so far.")
    init_from: ADiTTrainedCheckpoint | None = Field(
        None, description="Weights the stage started from; None for random ones."
    )
    autoencoder: ADiTTrainedCheckpoint | None = Field(
        None, description="Checkpoint of stage 1 that stage 2 was trained on."
    )
    folder: str = Field(description="Folder of state, logs and checkpoint.")
    versions: dict[str, str] = Field(description="Versions of the packages.")


class ADiTReconstruction(BaseModel):
    """How well stage 1 gives structures back that it was not trained on."""

    systems: int = Field(description="Structures that were encoded and decoded.")
    metrics: dict[str, Any] = Field(
        description="For each domain: accuracy of elements, share of matched crystals, RMSD of "
        "molecules in angstrom."
    )


class ADiTTrainReport(BaseModel):
    """What a trained model can do, and where it is kept."""

    checkpoint: ADiTTrainedCheckpoint = Field(description="The trained model.")
    stages: dict[str, ADiTTrainDoc] = Field(
        description="Documents of the stages that were trained."
    )
    data: ADiTDataDoc | None = Field(None, description="Document of the data.")
    samples: dict[str, Any] = Field(
        description="Counts for each domain among generated structures: valid, unique and so on."
    )
    reconstruction: ADiTReconstruction | None = Field(
        None, description="Stage 1 on the validation data; None without any."
    )
    table: str = Field(description="The same as text.")
    settings: dict[str, Any] = Field(description="How many samples of which seed.")
    versions: dict[str, str] = Field(description="Versions of the packages.")


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
        data=ADiTTrainingData(**{**training["data"], "sources": list(config.train)}),
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
        versions=package_versions(),
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


def _median(column: list[tuple[int, float]] | None) -> float | None:
    return statistics.median(value for _, value in column) if column else None
