"""Training throughput of packed batches against the same network on padded batches: one table.

Run from the repository root, for instance

    OMP_NUM_THREADS=1 python benchmarks/packing.py --data DIR

where DIR holds ``crystals_train.csv.gz``; QM9 comes from qm9pack. Batches are those of
``examples/training/mini.yaml``. Both variants do the same step (loss, gradients, clipping,
optimiser) with the same weights on the same batches, one after the other, in alternating order.
Set OMP_NUM_THREADS=1: CPU time counts all threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from padded import padded_autoencoder_loss, padded_flow_matching_loss
from torch import Tensor, nn

from adit_model.batch import AtomicBatch, Packing
from adit_model.data.crystal_csv import load_crystal_csv
from adit_model.data.dataset import AtomicDataset
from adit_model.data.qm9 import load_qm9
from adit_model.model import ADiT
from adit_model.network.autoencoder import Autoencoder
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups
from adit_model.training.batches import StepSampler, SystemSource
from adit_model.training.config import TrainingConfig, load_run_config
from adit_model.training.latents import encode_dataset, latent_statistics
from adit_model.training.loss import flow_matching_loss
from adit_model.training.optimizers import build_optimizer
from adit_model.training.poses import canonical_dataset

CONFIG = Path(__file__).resolve().parents[1] / "examples" / "training" / "mini.yaml"
TOLERANCE = 1e-4  # relative, of losses and gradients

Loss = Callable[[torch.Generator], Tensor]


@dataclass
class Batch:
    """One step's systems, and the latents a denoiser would see."""

    systems: AtomicBatch
    latents: Tensor


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    crystals = load_crystal_csv(options.data / "crystals_train.csv.gz", progress=False)
    molecules = load_qm9("train", progress=False)
    torch.manual_seed(options.seed)
    rows = []
    for stage in ("autoencoder", "denoiser"):
        config = load_run_config(stage, CONFIG)
        model = ADiT(config.model)
        stir(model)
        batches = draw_batches(model, config.training, crystals, molecules, options.steps)
        network = getattr(model, stage)
        assert isinstance(network, nn.Module)
        difference = compare(network, batches[: options.checks])
        times = measure(network, batches, config.training, options.repeats)
        size = config.training.batch_size
        packed, padded = (size * options.steps / seconds for seconds in times)
        sizes = [b.systems.sizes for b in batches]
        filled = sum(int(s.sum()) for s in sizes) / sum(len(s) * int(s.max()) for s in sizes)
        parameters = sum(p.numel() for p in network.parameters())
        rows.append(
            f"| {stage} ({parameters / 1e6:.2f} M) | {size}, "
            f"{100 * config.training.crystal_fraction:.0f} % crystals | {100 * filled:.0f} % "
            f"| {packed:.0f} | {padded:.0f} | {packed / padded:.2f} | {difference:.0e} |"
        )
    print(
        "| network | systems in a batch | real atoms among padded rows | packed, samples/s "
        "| padded, samples/s | ratio | largest difference |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(rows))
    print(
        f"\n{options.steps} training steps of each variant on the CPU, {torch.get_num_threads()} "
        f"thread(s), torch {version('torch')}. Each step is the median of {options.repeats} "
        "timings that alternate between the variants, in CPU time, so that other work on the "
        "machine counts little. Packed and padded losses and gradients of the same weights, noise "
        f"and systems agree within {TOLERANCE:g} (relative; the largest of {options.checks} "
        "batches above)."
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="batches")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each batch and variant")
    parser.add_argument("--checks", type=int, default=4, help="batches whose losses are compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("ADIT_DATA_DIR"),
        metavar="DIR",
        help="folder of crystals_train.csv.gz (default: $ADIT_DATA_DIR)",
    )
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("give --data DIR, or set the environment variable ADIT_DATA_DIR")
    if min(options.steps, options.repeats) < 1 or not 1 <= options.checks <= options.steps:
        parser.error("--steps and --repeats must be positive, --checks between 1 and --steps")
    options.data = Path(options.data)
    return options


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """Move all weights: layers that start from zero would hide differences."""
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))


def draw_batches(
    model: ADiT,
    config: TrainingConfig,
    crystals: AtomicDataset,
    molecules: AtomicDataset,
    steps: int,
) -> list[Batch]:
    """Batches that training would draw; also sets the denoiser's statistics."""
    periodic = np.repeat([True, False], [len(crystals), len(molecules)])
    sampler = StepSampler(periodic, config.batch_size, config.crystal_fraction, config.seed)
    chosen = [sampler.indices(step) for step in range(steps)]
    systems = [
        crystals[i] if i < len(crystals) else molecules[i - len(crystals)]
        for i in np.concatenate(chosen).tolist()
    ]
    dataset = canonical_dataset(AtomicDataset.from_systems(systems))
    latents = encode_dataset(model.autoencoder, dataset, progress=False)
    assert model.denoiser is not None
    mean, std = latent_statistics(latents, share_coordinates=True)
    model.denoiser.latent_mean.copy_(torch.from_numpy(mean))
    model.denoiser.latent_std.copy_(torch.from_numpy(std))
    places = np.split(np.arange(len(systems)), steps)
    return [Batch(SystemSource(dataset).batch(p), latents.batch(p).latents) for p in places]


def losses(network: nn.Module, batch: Batch) -> tuple[Loss, Loss]:
    """Packed and padded loss of a batch, each with all the indexing it needs."""
    systems = batch.systems
    if isinstance(network, Autoencoder):

        def packed(generator: torch.Generator) -> Tensor:
            return network.loss(systems.to("cpu"), generator)[0]  # to: builds the packing anew

        def padded(generator: torch.Generator) -> Tensor:
            return padded_autoencoder_loss(network, systems.to("cpu"), generator)

        return packed, padded
    assert isinstance(network, Denoiser)
    latents, periodic, sizes = batch.latents, systems.periodic, systems.sizes

    def packed_flow(generator: torch.Generator) -> Tensor:
        groups = DomainGroups(Packing(sizes), periodic)
        x_1 = network.normalise(latents, periodic[groups.packing.index])
        return flow_matching_loss(network, x_1, groups, generator)[0]

    def padded_flow(generator: torch.Generator) -> Tensor:
        return padded_flow_matching_loss(network, latents, periodic, sizes, generator)

    return packed_flow, padded_flow


def compare(network: nn.Module, batches: Sequence[Batch]) -> float:
    """Largest relative difference of losses and gradients between the variants.

    Raises
    ------
    RuntimeError
        If it exceeds the tolerance: then the variants are not the same network.
    """
    worst = 0.0
    for step, batch in enumerate(batches):
        found = []
        for loss in losses(network, batch):
            network.zero_grad(set_to_none=True)
            value = loss(torch.Generator().manual_seed(step))
            value.backward()
            gradient = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
            found.append((value.detach(), torch.cat(gradient)))
        (a, da), (b, db) = found
        worst = max(worst, float((a - b).abs() / a.abs()), float((da - db).norm() / da.norm()))
    if not worst <= TOLERANCE:
        raise RuntimeError(f"packed and padded losses differ by {worst:.1e} (relative)")
    return worst


def measure(
    network: nn.Module, batches: Sequence[Batch], config: TrainingConfig, repeats: int
) -> tuple[float, float]:
    """CPU seconds of all steps packed and padded, each step the median of its repeats."""
    optimizer = build_optimizer(config.optimizer, network, 1e-5, config.weight_decay)
    totals = [0.0, 0.0]
    for step, batch in enumerate(batches):
        pair = losses(network, batch)
        times: tuple[list[float], list[float]] = ([], [])
        for repeat in range(repeats + (step == 0)):
            for variant in (0, 1) if (step + repeat) % 2 else (1, 0):
                generator = torch.Generator().manual_seed(step)
                started = time.process_time()
                optimizer.zero_grad(set_to_none=True)
                pair[variant](generator).backward()
                nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
                optimizer.step()
                times[variant].append(time.process_time() - started)
        for variant in (0, 1):  # the very first repeat warms up
            totals[variant] += statistics.median(times[variant][step == 0 :])
    return totals[0], totals[1]


if __name__ == "__main__":
    main()
