"""Lightning modules of both stages."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from dataclasses import replace
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from adit_model.batch import AtomicBatch
from adit_model.network.denoiser import Denoiser
from adit_model.network.exact import AnyAutoencoder, ExactAutoencoder
from adit_model.network.groups import DomainGroups
from adit_model.training.batches import LatentBatch, step_generator
from adit_model.training.config import TrainingConfig
from adit_model.training.flops import training_flops
from adit_model.training.graphs import GraphedDenoiser
from adit_model.training.loss import flow_matching_loss
from adit_model.training.optimizers import build_optimizer
from adit_model.training.poses import augment
from adit_model.training.sharding import local, shard, sharded_like, whole
from adit_model.training.telling import normalise_and_tell

logger = logging.getLogger(__name__)


class StageModule(lightning.LightningModule):
    """What both stages share: optimiser, schedule, averaged weights, throughput.

    Parameters
    ----------
    network : torch.nn.Module
        What is trained.
    config : TrainingConfig
        Schedule and optimiser.
    """

    def __init__(self, network: nn.Module, config: TrainingConfig) -> None:
        super().__init__()
        self.network = network
        self.training_config = config
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.samples_seen = 0
        self.core_seconds = 0.0
        self._began = time.monotonic()
        self._window: tuple[float, int, float] = (time.perf_counter(), 0, 0.0)
        self._flops = (0.0, 0.0)  # of an atom, of a system
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._sharded = False
        self._shared: torch.Generator | None = None
        self._dropped: Tensor | int = 0  # steps whose gradients were not finite, on a GPU

    def configure_model(self) -> None:
        """Divide the weights among the processes, if they shall be."""
        if self.training_config.sharded and not self._sharded:
            assert self.device_mesh is not None
            shard(self.network, self.device_mesh["data_parallel"])
            self._sharded = True

    def whole_average(self) -> dict[str, Tensor]:
        """Averaged weights on the CPU; all processes must ask for them."""
        return {k: whole(v).detach().cpu() for k, v in self.average.items()}

    @abstractmethod
    def compute_loss(
        self, batch: Any, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch and its terms."""

    def training_step(self, batch: tuple[int, Any], batch_idx: int) -> Tensor:
        """Loss of the batch of one step; its noise depends on the step alone."""
        step, data = batch
        seed = self.training_config.seed
        world, size = self.trainer.world_size, self.training_config.batch_size
        # What all processes must decide alike, so that they call the network as often.
        self._shared = None if world == 1 else step_generator(seed, step, world)
        loss, terms = self.compute_loss(data, step_generator(seed, step, self.global_rank))
        self.samples_seen += size
        started, samples, flops = self._window
        samples += size
        per_atom, per_system = self._flops
        flops += world * (per_atom * data.num_atoms + per_system * len(data))
        self._window = (started, samples, flops)
        for name, value in {"loss": loss, **{f"train/{k}": v for k, v in terms.items()}}.items():
            total, number = self._sums.get(name, (torch.zeros_like(value), 0))
            self._sums[name] = (total + value.detach(), number + 1)
        if (step + 1) % self.training_config.log_every == 0:
            if self._dropped:
                logger.warning("gradients of %d steps were not finite: dropped", self._dropped)
                self._dropped = 0
            now = time.perf_counter()
            elapsed = max(now - started, 1e-9)
            self.core_seconds += elapsed * torch.get_num_threads() * world
            means = {name: total / number for name, (total, number) in self._sums.items()}
            self.log("loss", means.pop("loss"), sync_dist=True)
            # Not averaged over processes: not all of them need to hold a domain.
            self.log_dict(
                {
                    **means,
                    "samples_per_s": samples / elapsed,
                    "model_gflops": flops / elapsed / 1e9,
                },
                prog_bar=False,
            )
            self.log("sps", samples / elapsed, prog_bar=True, logger=False)
            self._window, self._sums = (now, 0, 0.0), {}
        self.log("train_loss", loss.detach(), prog_bar=True, logger=False)
        return loss

    def validation_step(
        self, batch: tuple[int, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Loss of a fixed batch with fixed noise under the averaged weights."""
        number, data = batch
        _, terms = self.compute_loss(data, step_generator(0, number))
        self.log_dict(
            {f"val/{k}": v for k, v in terms.items()}, batch_size=len(data), sync_dist=True
        )

    def on_train_start(self) -> None:
        """Start the clock."""
        self._flops = (training_flops(self.network, 1, 0), training_flops(self.network, 0, 1))
        self._window = (time.perf_counter(), 0, 0.0)
        device = self.device
        live = self.network.state_dict()
        self.average = {k: sharded_like(v, live[k]) for k, v in self.average.items()}
        self._sums = {k: (v.to(device), n) for k, (v, n) in self._sums.items()}

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights."""
        config = self.training_config
        horizon = 1.0 + config.ema_horizon * self.global_step
        decay = min(config.ema_decay, 1.0 - 1.0 / horizon)
        state = self.network.state_dict()
        names = [name for name, value in state.items() if value.is_floating_point()]
        averages = [local(self.average[name]) for name in names]
        torch._foreach_lerp_(averages, [local(state[name]) for name in names], 1.0 - decay)
        for name in state.keys() - set(names):
            self.average[name].copy_(state[name])

    def on_validation_start(self) -> None:
        """Put the averaged weights in place."""
        self._live = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(
            {k: sharded_like(v, self._live[k]) for k, v in self.average.items()}
        )
        self._paused = time.perf_counter()

    def on_validation_end(self) -> None:
        """Put the live weights back; the clock of the throughput leaves validation out."""
        self.network.load_state_dict(self._live)
        del self._live
        started, samples, flops = self._window
        self._window = (started + time.perf_counter() - self._paused, samples, flops)

    def on_after_backward(self) -> None:
        """Drop gradients that are not finite: one overflow must not end a run.

        A loss that stays NaN still does, see :class:`adit_model.training.callbacks.StateSaver`.
        """
        gradients = [local(p.grad) for p in self.network.parameters() if p.grad is not None]
        finite = torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum())
        if self._sharded:  # all processes must agree
            finite = finite.float()
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
            finite = finite > 0
        if finite.is_cuda:  # it is not waited for
            for gradient in gradients:
                gradient.copy_(torch.where(finite, gradient, 0.0))
            self._dropped = self._dropped + (~finite).long()
        elif not finite:
            logger.warning("gradients of step %d are not finite: dropped", self.global_step)
            torch._foreach_zero_(gradients)

    def configure_optimizers(self) -> Any:
        """Optimiser with warm-up, plateau and linear decay."""
        config = self.training_config
        optimizer = build_optimizer(
            config.optimizer, self.network, config.learning_rate, config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate_factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _rate_factor(self, step: int) -> float:
        return self.training_config.learning_rate_factor(step, time.monotonic() - self._began)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the averaged weights, the counters and the sums of the next log line."""
        checkpoint["stage"] = type(self).__name__
        checkpoint["average"] = (
            self.whole_average() if self._sharded else self.average
        )  # of all processes
        checkpoint["sums"] = self._sums
        checkpoint["counters"] = {
            "samples_seen": self.samples_seen,
            "core_seconds": self.core_seconds,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what :meth:`on_save_checkpoint` added; learning rates follow the config.

        Raises
        ------
        ValueError
            If the state is of the other stage or of a network of other shape.
        """
        if checkpoint.get("stage", type(self).__name__) != type(self).__name__:
            raise ValueError(
                f"the saved state is of {checkpoint['stage']}, this run is of "
                f"{type(self).__name__}: choose another output folder"
            )
        saved = {name: value.shape for name, value in checkpoint["average"].items()}
        wanted = {name: value.shape for name, value in self.average.items()}
        if saved != wanted:
            name = min(n for n in saved | wanted if saved.get(n) != wanted.get(n))
            raise ValueError(
                f"the saved state does not fit this run's model: {name} has shape "
                f"{_shape(saved.get(name))} there, {_shape(wanted.get(name))} here"
            )
        config = self.training_config
        for optimizer, schedule in zip(
            checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True
        ):
            rate = config.learning_rate * self._rate_factor(schedule["last_epoch"])
            schedule["base_lrs"] = [config.learning_rate] * len(schedule["base_lrs"])
            for group in optimizer["param_groups"]:
                group |= {"initial_lr": config.learning_rate, "lr": rate}
                group["weight_decay"] = config.weight_decay
        self.average = checkpoint["average"]
        self._sums = checkpoint.get("sums", {})
        self.samples_seen = checkpoint["counters"]["samples_seen"]
        self.core_seconds = checkpoint["counters"]["core_seconds"]


def _shape(size: torch.Size | None) -> str:
    return "no" if size is None else str(tuple(size))


class AutoencoderModule(StageModule):
    """Stage 1."""

    network: AnyAutoencoder

    def __init__(self, network: AnyAutoencoder, config: TrainingConfig) -> None:
        super().__init__(network, config)
        encoder = network.code if isinstance(network, ExactAutoencoder) else network.encoder
        encoder.requires_grad_(not config.freeze_encoder)

    def compute_loss(
        self, batch: AtomicBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the autoencoder, on random poses if the model is not canonical."""
        if not self.network.config.canonical:
            batch = augment(batch, generator)
        return self.network.loss(batch, generator, self.training_config.freeze_encoder)


class DenoiserModule(StageModule):
    """Stage 2.

    Parameters
    ----------
    network : Denoiser
        What is trained.
    config : TrainingConfig
        Schedule and optimiser.
    autoencoder : Autoencoder
        Trained stage 1, to encode random poses on the way; with cached latents it is not needed.
    """

    network: Denoiser

    def __init__(
        self,
        network: Denoiser,
        config: TrainingConfig,
        autoencoder: AnyAutoencoder | None = None,
    ) -> None:
        super().__init__(network, config)
        if config.only_conditions:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith("told."))
            network.config = replace(network.config, free_share=0.0)  # what is free teaches nothing
        self._graphed: GraphedDenoiser | None = None
        self.autoencoder = (
            None if autoencoder is None else autoencoder.train().requires_grad_(False)
        )

    def compute_loss(
        self, batch: LatentBatch | AtomicBatch, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Flow-matching loss on normalised latents, cached or of random poses."""
        labels = None
        if isinstance(batch, AtomicBatch):
            assert self.autoencoder is not None
            with torch.no_grad():
                latents, _ = self.autoencoder.encode(augment(batch, generator))
            numbers, groups = batch.numbers, DomainGroups(batch.packing, batch.periodic)
        else:
            latents, numbers, groups = batch.latents, batch.numbers, batch.groups
            labels = batch.space_groups, batch.properties
        x_1, told = normalise_and_tell(
            self.network, latents.float(), groups, numbers, labels, generator
        )
        if self.training_config.cuda_graphs and self._graphed is None:
            bfloat16 = self.training_config.precision == "bf16"
            self._graphed = GraphedDenoiser(self.network, bfloat16)
        predict = self._graphed if self.network.training else None
        twice = None  # left to chance
        if self._shared is not None and self.network.training:
            draw = torch.rand((), generator=self._shared)
            twice = bool(draw < self.network.config.self_condition)
        return flow_matching_loss(self.network, x_1, groups, generator, told, twice, predict)
