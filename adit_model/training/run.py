"""Run one stage of training from a config to a checkpoint."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader

from adit_model.checkpoint import read_metadata, resolve_checkpoint
from adit_model.conditions.condition import read_property_names
from adit_model.data.dataset import AtomicDataset
from adit_model.data.duplicates import warn_few
from adit_model.model import ADiT
from adit_model.network import fused
from adit_model.network.pairs import PairEncoder
from adit_model.training.batches import (
    FixedBatches,
    LatentSource,
    StepBatches,
    StepSampler,
    SystemSource,
)
from adit_model.training.callbacks import STATE_NAME, StateSaver, WeightAverager
from adit_model.training.config import RunConfig, TrainingConfig, load_run_config, parse_time
from adit_model.training.estimator import fit_estimator
from adit_model.training.loggers import (
    StepProgressBar,
    build_loggers,
    quiet_lightning,
    saved_step,
)
from adit_model.training.modules import StageModule
from adit_model.training.poses import dataset_fingerprint
from adit_model.training.stages import (
    dataset_known,
    first_stage_of,
    load_data,
    second_stage_of,
)


@dataclass
class TrainingResult:
    """How a run ended.

    Parameters
    ----------
    checkpoint : Path
        The weights written.
    state : Path
        The state a resumed run goes on from.
    step : int
        Optimiser steps done.
    finished : bool
        Whether all steps were done.
    stopped_by : str or None
        ``"SIGTERM"``, ``"SIGUSR1"``, ``"SIGINT"``, ``"max_time"``, ``"stop_after"`` or None.
    metrics : dict
        Last logged values.
    """

    checkpoint: Path
    state: Path
    step: int
    finished: bool
    stopped_by: str | None
    metrics: dict[str, float]


def train(
    stage: str,
    config_path: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train a stage as a config file says; see :func:`load_run_config`.

    Parameters
    ----------
    stage : str
        ``"autoencoder"`` or ``"denoiser"``.
    config_path : str or Path
        YAML file.
    overrides : sequence of str
        ``section.key=value``.
    resume : bool
        Go on from ``last.ckpt`` in the output folder if there is one.
    progress : bool
        Show progress bars.
    """
    return run_stage(stage, load_run_config(stage, config_path, overrides), resume, progress)


def run_stage(
    stage: str,
    config: RunConfig,
    resume: bool = False,
    progress: bool = True,
    interactive: bool = False,
) -> TrainingResult:
    """Train a stage.

    Parameters
    ----------
    stage : str
        ``"autoencoder"`` or ``"denoiser"``.
    config : RunConfig
        What to train, on what.
    resume : bool
        Go on from ``last.ckpt`` in the output folder if there is one.
    progress : bool
        Show progress bars.
    interactive : bool
        Ctrl-C saves the state and stops the run, instead of raising ``KeyboardInterrupt``.

    Raises
    ------
    ValueError
        If the run could not start: no data, a used output folder without ``resume``, a missing
        stage-1 checkpoint, weights or elements that do not fit the model.
    KeyboardInterrupt
        After Ctrl-C, or after a second one where it is interactive.
    """
    folder = Path(config.output)
    _check_run(stage, config, folder, resume)
    folder.mkdir(parents=True, exist_ok=True)
    progress = progress and getattr(rank_zero_only, "rank", 0) == 0
    torch.manual_seed(config.training.seed)

    first_stage = None
    if config.autoencoder is not None:
        first_stage = ADiT.load(config.autoencoder, device="cpu")
    start = None if config.init_from is None else ADiT.load(config.init_from, device="cpu")
    if config.training.cuda_graphs and first_stage and not first_stage.config.autoencoder.canonical:
        raise ValueError("cuda_graphs needs an autoencoder of canonical poses")
    knows = (config.model if first_stage is None else first_stage.config).autoencoder
    training_data = load_data(config.train, knows, progress)
    warn_few(training_data)
    validation_data = [load_data((spec,), knows, progress) for spec in config.validation]
    world = config.training.devices * config.training.num_nodes
    sampler = step_sampler(config.training, training_data.periodic, 0, world)  # checks what fits
    if config.training.sharded and not (sampler.mixed or len(sampler.parts) == 1):
        raise ValueError(
            "sharded needs both domains in each process at every step: raise batch_size, or "
            "crystal_fraction to a value between 0 and 1"
        )
    if first_stage is None:
        model, module = first_stage_of(config, start, training_data)
        model.known, model.element_orders = dataset_known(training_data)
        train_source: SystemSource | LatentSource = SystemSource(training_data)
        validation_sources: list[Any] = [SystemSource(data) for data in validation_data]
    else:
        model, module, train_source, validation_sources = second_stage_of(
            config, first_stage, start, training_data, validation_data, folder, progress
        )
    _describe(model, stage, config, training_data, start)
    with quiet_lightning(), _only_run(folder):
        _check_run(stage, config, folder, resume)  # another one may have come first
        return _fit(
            stage,
            config,
            model,
            module,
            train_source,
            validation_sources,
            resume,
            progress,
            interactive,
        )


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder while a run writes to it; the system frees that of a killed one.

    The first process of a run takes it for all.
    """
    lock = FileLock(folder / "run.lock", blocking=False)
    try:
        if getattr(rank_zero_only, "rank", 0) == 0:
            with suppress(NotImplementedError):  # a file system without locks
                lock.acquire()
        yield
    except Timeout as error:
        raise ValueError(
            f"another training writes to {folder}: wait for its end, or choose another output"
        ) from error
    finally:
        lock.release()


def _check_run(stage: str, config: RunConfig, folder: Path, resume: bool) -> None:
    read_property_names(config.model.denoiser.properties)
    state, weights = folder / STATE_NAME, folder / f"{stage}.safetensors"
    if state.exists() and not resume:
        raise ValueError(f"{folder} holds a run already: resume it, or choose another output")
    if weights.exists() and not state.exists():
        raise ValueError(
            f"{weights} is there, but no {STATE_NAME} to resume: choose another output"
        )
    if stage == "denoiser" and config.autoencoder is None:
        raise ValueError("stage 2 needs denoiser.autoencoder, the checkpoint of stage 1")
    if stage == "autoencoder" and config.autoencoder is not None:
        raise ValueError(
            "autoencoder.autoencoder makes no sense: stage 1 starts from other weights by init_from"
        )
    if config.training.freeze_encoder and (stage != "autoencoder" or config.init_from is None):
        raise ValueError("freeze_encoder is for stage 1 with init_from, a trained encoder")
    if config.training.only_conditions and (stage != "denoiser" or config.init_from is None):
        raise ValueError("only_conditions is for stage 2 with init_from, a trained denoiser")
    if config.training.cuda_graphs:
        _check_graphs(stage, config.training)
    if config.training.attention == "fused":
        _check_kernels(config.training)
    if config.training.sharded and config.training.devices * config.training.num_nodes < 2:
        raise ValueError("sharded needs several processes: set devices or num_nodes")
    for name in (config.autoencoder, config.init_from):
        if name is not None:
            resolve_checkpoint(name)


def _check_graphs(stage: str, settings: TrainingConfig) -> None:
    if stage != "denoiser":
        raise ValueError("cuda_graphs is for stage 2")
    if settings.devices * settings.num_nodes > 1:
        raise ValueError("cuda_graphs is for one GPU")
    if settings.accelerator == "cpu" or not torch.cuda.is_available():
        raise ValueError("cuda_graphs needs a CUDA GPU: leave it out")


def _check_kernels(settings: TrainingConfig) -> None:
    if find_spec("triton") is None:
        raise ValueError("attention fused needs Triton: pip install triton, or attention=plain")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    if not (on_gpu or interpreted):
        raise ValueError("attention fused needs a CUDA GPU: leave it plain")


def step_sampler(
    settings: TrainingConfig, periodic: np.ndarray, rank: int, world: int
) -> StepSampler:
    """Which systems a process sees."""
    share = settings.crystal_fraction
    return StepSampler(periodic, settings.batch_size, share, settings.seed, rank, world)


def _describe(
    model: ADiT, stage: str, config: RunConfig, data: AtomicDataset, start: ADiT | None
) -> None:
    model.metadata["training"] = {
        "stage": stage,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "run": json.loads(json.dumps(asdict(config))),
        "data": {
            "name": data.name,
            "fingerprint": dataset_fingerprint(data),
            "crystals": int(data.periodic.sum()),
            "molecules": int((~data.periodic).sum()),
            "skipped": len(data.skipped),
        },
        "init_from_hash": None if start is None else start.checkpoint_hash,
        "init_from": None if start is None else start.metadata.get("training"),
    }


def _fit(
    stage: str,
    config: RunConfig,
    model: ADiT,
    module: StageModule,
    train_source: SystemSource | LatentSource,
    validation_sources: list[Any],
    resume: bool,
    progress: bool,
    interactive: bool,
) -> TrainingResult:
    settings = config.training
    folder = Path(config.output)
    checkpoint = folder / f"{stage}.safetensors"
    frozen = model.autoencoder if stage == "denoiser" else None

    def export(stage_module: lightning.LightningModule) -> None:
        assert isinstance(stage_module, StageModule)
        weights = stage_module.whole_average()
        if stage_module.global_rank:
            return
        copy = ADiT(
            model.config, model.known, model.element_orders, model.metadata, stage == "denoiser"
        )
        if frozen is not None:
            assert copy.denoiser is not None
            copy.autoencoder.load_state_dict(frozen.state_dict())
            copy.denoiser.load_state_dict(weights)
        else:
            copy.autoencoder.load_state_dict(weights)
        copy.metadata["training"] = {
            **model.metadata["training"],
            "steps": stage_module.global_step,
            "samples": stage_module.samples_seen,
            "core_hours": round(stage_module.core_seconds / 3600, 3),
            "device": _device_name(stage_module.device),
        }
        copy.save(checkpoint)

    max_seconds = None if settings.max_time is None else parse_time(settings.max_time)
    saver = StateSaver(
        folder, settings.checkpoint_minutes, max_seconds, export, settings.stop_after, interactive
    )
    callbacks: list[Any] = [WeightAverager(), saver, LearningRateMonitor("step")]
    if progress:
        callbacks.append(StepProgressBar(refresh_rate=max(1, settings.log_every // 5)))
    data = StageData(config, train_source, validation_sources)
    state = folder / STATE_NAME
    resume = resume and state.exists()
    start = saved_step(state) if resume else 0
    trainer = lightning.Trainer(
        default_root_dir=folder,
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=_strategy(module, data),
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        max_steps=settings.steps,
        max_epochs=-1,
        gradient_clip_val=settings.gradient_clip,
        val_check_interval=settings.validate_every,
        limit_val_batches=1.0 if validation_sources else 0,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        logger=build_loggers(folder, start, settings.log_every),
        callbacks=callbacks,
        use_distributed_sampler=False,
    )
    saver.install()
    try:
        with ExitStack() as stack:
            if settings.compile:
                stack.enter_context(fused.compiled())
            if settings.attention == "fused":
                stack.enter_context(fused.kernels())
            trainer.fit(
                module, datamodule=data, ckpt_path=str(state) if resume else None, weights_only=True
            )
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # what Lightning makes of it
            raise KeyboardInterrupt from None
        raise
    finally:
        saver.restore()
    if trainer.is_global_zero and _exported_step(checkpoint) != trainer.global_step:
        export(module)  # the run was killed between its last state and its weights
    finished = trainer.global_step >= settings.steps
    at_end = finished or (settings.schedule == "clock" and saver.stopped_by == "max_time")
    if trainer.is_global_zero and at_end and isinstance(train_source, LatentSource):
        _add_estimator(checkpoint, train_source, validation_sources, settings, progress)
    return TrainingResult(
        checkpoint=checkpoint,
        state=state,
        step=trainer.global_step,
        finished=finished,
        stopped_by=saver.stopped_by,
        metrics={k: float(v) for k, v in trainer.logged_metrics.items()},
    )


def _add_estimator(
    checkpoint: Path,
    training: LatentSource,
    validation: list[Any],
    settings: TrainingConfig,
    progress: bool,
) -> None:
    """Let finished weights estimate the properties that they can be asked for."""
    if not settings.estimator_systems or not training.properties.shape[1]:
        return
    model = ADiT.load(checkpoint, device="cpu" if settings.accelerator == "cpu" else "auto")
    if model.estimator is None:  # else it is a run that was finished already
        fit_estimator(model, training, validation, settings.estimator_systems, progress)
        if model.estimator is not None:
            model.save(checkpoint)


def _exported_step(checkpoint: Path) -> int | None:
    try:
        return int(read_metadata(checkpoint)["training"]["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _strategy(module: StageModule, data: StageData) -> str | ModelParallelStrategy:
    settings = data.config.training
    world = settings.devices * settings.num_nodes
    if world == 1:
        return "auto"
    if settings.sharded:
        return ModelParallelStrategy(world, 1, save_distributed_checkpoint=False)
    # Weights of pairs of atoms belong to one domain: without it in a batch they have no gradient.
    geometry = any(isinstance(part, PairEncoder) for part in module.network.modules())
    if geometry and not data.sampler(0, world).mixed:
        return "ddp_find_unused_parameters_true"
    return "ddp"


class StageData(lightning.LightningDataModule):
    """Batches from the step the trainer stands at."""

    def __init__(
        self,
        config: RunConfig,
        source: SystemSource | LatentSource,
        validation: list[SystemSource | LatentSource],
    ) -> None:
        super().__init__()
        self.config, self.source, self.validation = config, source, validation

    def sampler(self, rank: int, world: int) -> StepSampler:
        """Which systems a process sees."""
        sampler = step_sampler(self.config.training, self.source.periodic, rank, world)
        if self.config.training.cuda_graphs and isinstance(self.source, LatentSource):
            sampler = replace(sampler, sizes=self.source.sizes)
        if self.config.training.equal_sizes:
            sampler = replace(sampler, alike=self.source.sizes)
        return sampler

    def train_dataloader(self) -> Any:
        """Endless batches of this process."""
        trainer = self.trainer
        assert trainer is not None
        sampler = self.sampler(trainer.global_rank, trainer.world_size)
        return DataLoader(StepBatches(self.source, sampler, trainer.global_step), batch_size=None)

    def val_dataloader(self) -> Any:
        """One loader of fixed batches for each validation set."""
        settings = self.config.training
        return [
            DataLoader(
                FixedBatches(source, settings.validation_size, settings.batch_size), batch_size=None
            )
            for source in self.validation
        ]
