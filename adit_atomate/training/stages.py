"""Makers that train a stage, in as many jobs as their time limits need."""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jobflow import CURRENT_JOB, Job, Maker, OutputReference, Response, job, run_locally

from adit_atomate.paths import absolute_checkpoint, check_output, run_folder
from adit_atomate.settings import check_fields
from adit_atomate.training.documents import ADiTTrainDoc
from adit_model.conditions.condition import read_property_names
from adit_model.config import ModelConfig, from_mapping
from adit_model.data.sources import absolute_source
from adit_model.training.config import RunConfig, TrainingConfig, parse_time

if TYPE_CHECKING:
    from adit_model.training.run import TrainingResult

logger = logging.getLogger(__name__)

OWN_OPTIONS = {"max_time": "max_time", "stop_after": "steps_per_job"}  # of the Makers

Sources = Sequence[str] | OutputReference


@dataclass
class _StageMaker(Maker):
    name: str = "ADiT train"
    model: dict[str, Any] = field(default_factory=lambda: {"size": "mini"})
    training: dict[str, Any] = field(default_factory=dict)
    output: str | None = None
    max_time: str | None = None
    steps_per_job: int | None = None
    launcher: str | None = None
    curve_points: int = 200
    properties: Sequence[str] | dict[str, str] = field(default_factory=list)

    stage: ClassVar[str]

    def _make(
        self,
        train: Sources,
        validation: Sources,
        init_from: str | OutputReference | None,
        autoencoder: str | OutputReference | None,
        crystal_fraction: float | OutputReference | None,
    ) -> Job:
        self._check()
        for name, value in (("train", train), ("validation", validation)):
            if isinstance(value, str):
                raise TypeError(f"{name} must be a list of sources, got {value!r}")
        if not isinstance(train, OutputReference) and not train:
            raise ValueError("train names no source")
        return self._train(
            {
                "train": absolute_sources(train),
                "validation": absolute_sources(validation),
                "init_from": absolute_checkpoint(init_from),
                "autoencoder": absolute_checkpoint(autoencoder),
                "crystal_fraction": crystal_fraction,
            }
        )

    def _check(self) -> TrainingConfig:
        """Check the fields, and return the schedule."""
        check_fields(self, training=dict, model=dict)
        check_output(self.output)
        for name, instead in OWN_OPTIONS.items():
            if name in self.training:
                raise ValueError(f"training[{name!r}] is set by the Maker's field {instead}")
        ModelConfig.from_dict(self.model)
        read_property_names(self.properties)
        if self.max_time is not None:
            parse_time(self.max_time)
        if self.curve_points < 2:
            raise ValueError(f"curve_points must be at least 2, got {self.curve_points}")
        settings = from_mapping(TrainingConfig, {**self.training, **self._limits()}, "training")
        if settings.num_nodes > 1 and self.launcher is None:
            raise ValueError(
                f"{settings.num_nodes} nodes need a launcher, such as launcher='srun': it starts "
                "one process for each device on all of them"
            )
        return settings

    def _limits(self) -> dict[str, Any]:
        return {} if self.steps_per_job is None else {"stop_after": self.steps_per_job}

    @job(output_schema=ADiTTrainDoc)
    def _train(self, inputs: dict[str, Any]) -> ADiTTrainDoc | Response:
        started = time.monotonic()
        from adit_atomate.training.documents import training_document
        from adit_atomate.training.run import check_identity, run_training, saved_steps

        folder = run_folder(self.output, self.stage)
        config = self._config(folder, **inputs)
        check_identity(folder, self.stage, config)
        first_step = saved_steps(folder)
        if first_step:
            logger.info("going on from step %d in %s", first_step, folder)
        seconds = None if self.max_time is None else parse_time(self.max_time)
        result: TrainingResult = run_training(
            self.stage, config, self.launcher, None if seconds is None else started + seconds
        )
        document = training_document(
            self.stage,
            config,
            result,
            job_index=1 if CURRENT_JOB.job is None else CURRENT_JOB.job.index,
            first_step=first_step,
            job_seconds=time.monotonic() - started,
            points=self.curve_points,
        )
        if result.finished:
            return document
        logger.info("stopped by %s after step %d", result.stopped_by, result.step)
        if result.stopped_by == "SIGTERM" and in_run_locally():
            raise SystemExit(128 + signal.SIGTERM)  # which no manager takes for a failed job
        return Response(output=document, replace=self._train(inputs))

    def _config(
        self,
        folder: Path,
        train: Sequence[str],
        validation: Sequence[str],
        init_from: str | None,
        autoencoder: str | None,
        crystal_fraction: float | None,
    ) -> RunConfig:
        from adit_model.checkpoint import read_metadata, resolve_checkpoint

        options = {**self.training, **self._limits()}
        if crystal_fraction is not None:
            options["crystal_fraction"] = crystal_fraction
        model = ModelConfig.from_dict(self.model)
        if init_from is not None:  # weights fit their own architecture alone
            metadata = read_metadata(resolve_checkpoint(init_from))
            model = ModelConfig.from_dict(metadata["config"])
        names = dict.fromkeys([*model.denoiser.properties, *read_property_names(self.properties)])
        model = replace(model, denoiser=replace(model.denoiser, properties=tuple(names)))
        units = dict(self.properties) if isinstance(self.properties, Mapping) else {}
        return RunConfig(
            tuple(train),
            str(folder),
            tuple(validation),
            model,
            from_mapping(TrainingConfig, options, "training"),
            autoencoder,
            init_from,
            units,
        )


@dataclass
class ADiTTrainAutoencoderMaker(_StageMaker):
    """Train stage 1, the autoencoder, in one job or a chain of them.

    Parameters
    ----------
    name : str
        Name of the jobs.
    model : dict
        Hyper-parameters as :meth:`adit_model.config.ModelConfig.from_dict` takes them, such as
        ``{"size": "mini"}``. A run that starts from other weights takes theirs.
    training : dict
        Fields of :class:`adit_model.training.config.TrainingConfig`; ``steps`` is the budget of all
        jobs of the chain together.
    output : str or None
        Absolute path of the folder of state, logs and checkpoint. None takes one named after the
        job's uuid under the setting ``ADIT_TRAINING_DIR``, so that the same job run again, in
        whatever folder, goes on from its last state.
    max_time : str or None
        Wall-clock limit ``"HH:MM:SS"`` of each job, set a few minutes below that of the queue.
    steps_per_job : int or None
        Steps after which a job leaves the rest to the next.
    launcher : str or None
        What starts the processes of a run on several nodes or under SLURM, such as ``"srun"`` or
        ``"torchrun --no-python --nproc-per-node 4"``. Without, several ``devices`` of one machine
        are started by Lightning.
    curve_points : int
        Most points of each loss curve in the document.
    properties : list of str or dict
        For stage 2: labels of the data that can be asked for, beside those of the model;
        ``{"bulk_modulus": "GPa"}`` gives units.

    Notes
    -----
    A job that reaches its limit, or gets SIGTERM or SIGUSR1, saves its state and is replaced by a
    job that goes on; ``job.output`` is then the document of the last. The chain takes exactly the
    steps of one long run. Under ``run_locally`` the next job would start in the process that
    SIGTERM is to end: there it saves the state and ends the process, as it would any other. The
    same job, run again, goes on from it.

    Examples
    --------
    >>> from adit_atomate import ADiTTrainAutoencoderMaker
    >>> maker = ADiTTrainAutoencoderMaker(training={"steps": 5000}, max_time="11:30:00")
    >>> maker.make(["qm9:train"], ["qm9:val"]).name
    'ADiT train autoencoder'
    """

    name: str = "ADiT train autoencoder"

    stage: ClassVar[str] = "autoencoder"

    def make(
        self,
        train: Sources,
        validation: Sources = (),
        init_from: str | OutputReference | None = None,
        crystal_fraction: float | OutputReference | None = None,
    ) -> Job:
        """Make a job that trains stage 1.

        Parameters
        ----------
        train, validation : sequence of str
            Sources as :func:`adit_model.data.load_source` takes them, or ``train_paths`` and
            ``validation_paths`` of a data job's output.
        init_from : str, optional
            Checkpoint to start from, such as ``"default"``.
        crystal_fraction : float, optional
            Share of crystals in a batch, instead of that in ``training``.

        Returns
        -------
        Job
            Its output is an :class:`~adit_atomate.training.documents.ADiTTrainDoc`.

        Raises
        ------
        ValueError, TypeError
            If a field of the Maker is out of range, or there is no such checkpoint.
        """
        check_fields(self, training=dict)
        if self.training.get("freeze_encoder") and init_from is None:
            raise ValueError("freeze_encoder needs init_from, a checkpoint with a trained encoder")
        return self._make(train, validation, init_from, None, crystal_fraction)


@dataclass
class ADiTTrainDenoiserMaker(_StageMaker):
    """Train stage 2, the diffusion transformer, on the latents of a trained stage 1.

    Its parameters are those of :class:`ADiTTrainAutoencoderMaker`; the autoencoder's part of
    ``model`` is taken from the checkpoint of stage 1. The checkpoint it writes holds both stages
    and is what :class:`~adit_atomate.generate.ADiTGenerateMaker` samples from.
    """

    name: str = "ADiT train denoiser"

    stage: ClassVar[str] = "denoiser"

    def make(
        self,
        train: Sources,
        autoencoder: str | OutputReference,
        validation: Sources = (),
        init_from: str | OutputReference | None = None,
        crystal_fraction: float | OutputReference | None = None,
    ) -> Job:
        """Make a job that trains stage 2.

        Parameters
        ----------
        train, validation, crystal_fraction
            See :meth:`ADiTTrainAutoencoderMaker.make`.
        autoencoder : str
            Checkpoint with the trained stage 1: ``job.output.checkpoint.path`` of the job that
            trained it, or ``"default"``.
        init_from : str, optional
            Checkpoint to start the denoiser from.

        Returns
        -------
        Job
            Its output is an :class:`~adit_atomate.training.documents.ADiTTrainDoc`.

        Raises
        ------
        ValueError, TypeError
            If a field of the Maker is out of range, or there is no such checkpoint.
        """
        check_fields(self, training=dict)
        if self.training.get("freeze_encoder"):
            raise ValueError("freeze_encoder is an option of stage 1")
        return self._make(train, validation, init_from, autoencoder, crystal_fraction)


def in_run_locally() -> bool:
    """Whether jobflow's local manager is running this job, and would run the next one here."""
    return any(
        frame.f_globals.get("__name__") == run_locally.__module__
        for frame, _ in traceback.walk_stack(None)
    )


def absolute_sources(sources: Sources) -> list[str | OutputReference] | OutputReference:
    """Give the files among the sources their absolute paths: jobs change folder.

    Raises
    ------
    ValueError
        If there is no such file, folder or data set.
    """
    if isinstance(sources, OutputReference):
        return sources
    return [s if isinstance(s, OutputReference) else absolute_source(s) for s in sources]
