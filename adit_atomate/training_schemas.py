"""Documents of the jobs that prepare data and train."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


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
    """Result of :class:`~adit_atomate.training_data.ADiTDataMaker`."""

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
