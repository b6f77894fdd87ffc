"""Train a denoiser in a short time on a GPU that has PyTorch, NumPy and safetensors alone.

Where the package is installed whole, pack the latents and labels of the data, and the weights to
start from, as array files:

    python examples/training/short_gpu.py pack --config examples/training/mini.yaml --out pack \
        denoiser.autoencoder=mini-2 denoiser.init_from=mini-2

On the GPU, with this repository beside it (``PYTHONPATH=.``; nothing needs to be installed):

    python examples/training/short_gpu.py run pack --out run --minutes 11 --batch-size 2048

The schedule is planned by the clock: it ends with the minutes, at a learning rate of zero. Weights
and state are written each minute, whole or not at all. The same command goes on from the state in
``--out``, or from the weights where there is no state: what is left of the schedule is then done in
the minutes given. SIGTERM and Ctrl-C save before they end it. Back again, make a checkpoint of it:

    python examples/training/short_gpu.py finish pack run/weights.safetensors --out ours.safetensors
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adit_model.config import DenoiserConfig, from_mapping
from adit_model.files import atomic_path
from adit_model.network import fused
from adit_model.network.denoiser import Denoiser
from adit_model.training.batches import LatentBatch, LatentSource, StepSampler, step_generator
from adit_model.training.config import TrainingConfig
from adit_model.training.graphs import GraphedDenoiser
from adit_model.training.loss import flow_matching_loss
from adit_model.training.optimizers import build_optimizer
from adit_model.training.telling import normalise_and_tell

STARTED = time.monotonic()
ARRAYS, START, TEMPLATE = "latents.npz", "start.safetensors", "template.safetensors"
WEIGHTS, STATE, LOG = "weights.safetensors", "state.pt", "log.csv"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    add = commands.add_parser("pack", help="write the array files").add_argument
    add("--config", type=Path, required=True, help="as of adit train denoiser")
    add("--out", type=Path, required=True)
    add("overrides", nargs="*", metavar="section.key=value")
    commands.choices["pack"].set_defaults(call=pack)
    add = commands.add_parser("run", help="train, or go on").add_argument
    add("pack", type=Path)
    add("--out", type=Path, required=True)
    add("--minutes", type=float, required=True, help="from now to the end, the last save included")
    add("--batch-size", type=int, help="default: of the configuration, as what follows")
    add("--learning-rate", type=float)
    add("--precision", choices=("32", "bf16"))
    add("--attention", choices=("plain", "fused"))
    add("--graphs", action=argparse.BooleanOptionalAction, help="CUDA graphs (default on a GPU)")
    add("--compile", action=argparse.BooleanOptionalAction)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--save-seconds", type=float, default=60.0)
    commands.choices["run"].set_defaults(call=run)
    add = commands.add_parser("finish", help="make a checkpoint").add_argument
    add("pack", type=Path)
    add("weights", type=Path)
    add("--out", type=Path, required=True)
    commands.choices["finish"].set_defaults(call=finish)
    args = parser.parse_args(arguments)
    args.call(args)


def pack(args: argparse.Namespace) -> None:
    """Write what a run needs to a folder; this reads structures, and needs the whole package."""
    from adit_model.model import ADiT
    from adit_model.training.config import load_run_config
    from adit_model.training.stages import load_data, second_stage_of

    config = load_run_config("denoiser", args.config, args.overrides)
    if config.autoencoder is None:
        raise SystemExit("denoiser.autoencoder must name the checkpoint of stage 1")
    torch.manual_seed(config.training.seed)
    first_stage = ADiT.load(config.autoencoder, device="cpu")
    start = None if config.init_from is None else ADiT.load(config.init_from, device="cpu")
    data = load_data(config.train, first_stage.config.autoencoder, True)
    settings = replace(config.training, cuda_graphs=False)
    config = replace(config, training=settings)
    model, module, source, _ = second_stage_of(config, first_stage, start, data, [], args.out, True)
    if not isinstance(source, LatentSource):
        raise SystemExit("latents can be packed of autoencoders of canonical poses only")
    np.savez(
        args.out / ARRAYS,
        latents=source.latents,
        numbers=data.numbers.astype(np.int16),
        sizes=data.sizes.astype(np.int32),
        offsets=data.offsets,
        periodic=data.periodic,
        space_groups=data.space_groups.astype(np.int16),
        properties=source.properties,
    )
    network = module.network
    about = {
        "config": asdict(network.config),
        "latent_dim": network.latent_dim,
        "coordinate_scale": network.coordinate_scale,
        "cells": network.cells,
        "training": asdict(settings),
    }
    save_file(network.state_dict(), args.out / START, {"about": json.dumps(about)})
    model.metadata["training"] = {"stage": "denoiser", "run": config.as_dict()}
    model.save(args.out / TEMPLATE)
    print(f"{len(data)} systems in {args.out}; {TEMPLATE} can stay here")


def load_pack(folder: Path) -> tuple[LatentSource, Denoiser, TrainingConfig]:
    """Read what :func:`pack` wrote."""
    arrays = np.load(folder / ARRAYS)
    data = SimpleNamespace(**{name: arrays[name] for name in arrays.files})
    with safe_open(folder / START, "pt") as file:
        about = json.loads(file.metadata()["about"])
    config = from_mapping(DenoiserConfig, about["config"], "denoiser")
    cells = about["cells"]
    network = Denoiser(config, about["latent_dim"], about["coordinate_scale"], cells)
    network.load_state_dict(load_file(folder / START))
    settings = from_mapping(TrainingConfig, about["training"], "training")
    return LatentSource(data.latents, data, cells, data.properties), network, settings


class Run:
    """A run: what changes from step to step, and how it is saved.

    Parameters
    ----------
    network : Denoiser
        With the weights to start from, on its device.
    settings : TrainingConfig
        Optimiser, batches, share of the run after which the rate decays.
    folder : Path
        Of weights and state.
    """

    def __init__(self, network: Denoiser, settings: TrainingConfig, folder: Path) -> None:
        self.network, self.settings, self.folder = network, settings, folder
        self.optimizer: Any = build_optimizer(
            settings.optimizer, network, settings.learning_rate, settings.weight_decay
        )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step, self.samples, self.share = 0, 0, 0.0  # of the schedule that is done
        self.warm = 0  # steps since the optimiser started
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def save(self) -> None:
        """Write weights, then state."""
        about = {name: str(getattr(self, name)) for name in ("step", "samples", "share")}
        weights = {k: v.cpu().contiguous() for k, v in self.average.items()}
        with atomic_path(self.folder / WEIGHTS, durable=True) as partial:
            save_file(weights, partial, about)
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "warm": self.warm,
            **{name: getattr(self, name) for name in ("step", "samples", "share")},
        }
        with atomic_path(self.folder / STATE, durable=True) as partial:
            torch.save(state, partial)

    def load(self) -> str:
        """Go on from the state, else from the weights, else start; say which."""
        device = next(self.network.parameters()).device
        if (self.folder / STATE).is_file():
            state = torch.load(self.folder / STATE, map_location=device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average = state["average"]
            self.optimizer.load_state_dict(state["optimizer"])
            for name in ("step", "samples", "share", "warm"):
                setattr(self, name, state[name])
            return f"the state after step {self.step}"
        if (self.folder / WEIGHTS).is_file():
            with safe_open(self.folder / WEIGHTS, "pt") as file:
                about = file.metadata()
            self.network.load_state_dict(load_file(self.folder / WEIGHTS))
            self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
            self.step, self.samples = int(about["step"]), int(about["samples"])
            self.share = float(about["share"])
            return f"the weights of step {self.step}"
        return "the start"

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights."""
        horizon = 1.0 + self.settings.ema_horizon * self.step
        decay = min(self.settings.ema_decay, 1.0 - 1.0 / horizon)
        live = self.network.state_dict()
        torch._foreach_lerp_([self.average[k] for k in live], list(live.values()), 1.0 - decay)


def run(args: argparse.Namespace) -> None:
    """Train until the minutes are over."""
    source, network, settings = load_pack(args.pack)
    given = ("batch_size", "learning_rate", "precision", "attention", "compile")
    options = {name: getattr(args, name) for name in given if getattr(args, name) is not None}
    settings = replace(settings, schedule="steps", max_time=None, **options)
    device = torch.device(args.device)
    graphs = device.type == "cuda" if args.graphs is None else args.graphs
    if graphs:
        source.widths = source.largest()
    torch.set_float32_matmul_precision("high")
    args.out.mkdir(parents=True, exist_ok=True)
    state = Run(network.to(device).train(), settings, args.out)
    print(f"from {state.load()}, on {device}", flush=True)
    sampler = StepSampler(
        source.periodic,
        settings.batch_size,
        settings.crystal_fraction,
        settings.seed,
        sizes=source.sizes if graphs else None,
        alike=source.sizes if settings.equal_sizes and not graphs else None,
    )
    predict = GraphedDenoiser(network, settings.precision == "bf16") if graphs else None
    with ExitStack() as stack:
        if settings.compile:
            stack.enter_context(fused.compiled())
        if settings.attention == "fused":
            stack.enter_context(fused.kernels())
        loop(args, state, source, sampler, predict, device)


def loop(
    args: argparse.Namespace,
    state: Run,
    source: LatentSource,
    sampler: StepSampler,
    predict: GraphedDenoiser | None,
    device: torch.device,
) -> None:
    """Take steps, and save each minute, at the end and on a signal."""
    settings = state.settings
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    end = STARTED + 60 * args.minutes
    begun, done_before = time.monotonic(), state.share
    saved, steps_before, save_took, step_took = begun, state.step, 0.0, 0.0
    total = torch.zeros((), device=device)  # of the losses since the last save

    def prepare(step: int) -> LatentBatch:
        return source.batch(sampler.indices(step))

    with ThreadPoolExecutor(1) as ahead:
        batch = ahead.submit(prepare, state.step)
        while True:
            now = time.monotonic()
            finished = step_took > 0 and now + step_took + save_took >= end  # one step at least
            if finished or received or now - saved >= args.save_seconds:
                if finished and not received:
                    state.share = 1.0
                count, seconds = state.step - steps_before, now - saved
                line = {
                    "step": state.step,
                    "share": round(state.share, 4),
                    "loss": round(float(total) / max(1, count), 4),
                    "samples_per_s": round(count * settings.batch_size / max(seconds, 1e-9), 1),
                }
                state.save()
                new = not (state.folder / LOG).exists()
                with open(state.folder / LOG, "a") as log:
                    log.write(",".join(line) + "\n" if new else "")
                    log.write(",".join(map(str, line.values())) + "\n")
                print(line, flush=True)
                if finished or received:
                    batch.cancel()
                    return
                total.zero_()
                saved, steps_before = time.monotonic(), state.step
                save_took = max(save_took, saved - now)
            here = batch.result().to(device)
            batch = ahead.submit(prepare, state.step + 1)
            passed = (time.monotonic() - begun) / max(end - begun, 1e-9)
            state.share = done_before + (1 - done_before) * min(1.0, passed)
            factor = settings.factor_at(state.warm, state.share)
            for group, rate in zip(state.optimizer.param_groups, state.rates, strict=True):
                group["lr"] = rate * factor
            total += take_step(state, here, predict, device)
            step_took = 0.9 * step_took + 0.1 * (time.monotonic() - now)


def take_step(
    state: Run, batch: LatentBatch, predict: GraphedDenoiser | None, device: torch.device
) -> torch.Tensor:
    """One step of the optimiser; return the loss, which is not waited for on a GPU."""
    settings, network = state.settings, state.network
    generator = step_generator(settings.seed, state.step)
    bfloat16 = settings.precision == "bf16"
    with torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext():
        x_1, told = normalise_and_tell(
            network,
            batch.latents,
            batch.groups,
            batch.numbers,
            (batch.space_groups, batch.properties),
            generator,
        )
        loss, _ = flow_matching_loss(network, x_1, batch.groups, generator, told, predict=predict)
    loss.backward()
    clip = settings.gradient_clip or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
    finite = torch.isfinite(norm)
    for parameter in network.parameters():
        if parameter.grad is not None:  # one overflow must not end a run
            parameter.grad.copy_(torch.where(finite, parameter.grad, 0.0))
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.step, state.warm = state.step + 1, state.warm + 1
    state.samples += settings.batch_size
    state.update_average()
    return torch.where(finite, loss.detach(), 0.0)


def finish(args: argparse.Namespace) -> None:
    """Put trained weights into the checkpoint that ``pack`` prepared."""
    from adit_model.model import ADiT

    model = ADiT.load(args.pack / TEMPLATE, device="cpu")
    with safe_open(args.weights, "pt") as file:
        about = file.metadata()
    model.denoiser.load_state_dict(load_file(args.weights))
    model.metadata["training"].update(steps=int(about["step"]), samples=int(about["samples"]))
    print(f"{args.out}: {model.save(args.out)[:12]}, {about['step']} steps")


if __name__ == "__main__":
    main()
