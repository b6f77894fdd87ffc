"""Training speed of stage 2 on a GPU: kernels launched one by one, and replayed as CUDA graphs.

Run from the repository root, for instance

    python benchmarks/gpu.py --data qm9:train DIR/crystals_train.csv.gz --batch-sizes 1024 2048

Both variants take the same steps from the same weights; their losses must agree.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from adit_model.config import MINI
from adit_model.data import load_source
from adit_model.data.prepare import concatenate
from adit_model.model import ADiT, resolve_device
from adit_model.network.denoiser import Denoiser
from adit_model.training.batches import LatentSource, StepSampler, step_generator
from adit_model.training.config import TrainingConfig
from adit_model.training.growth import grow
from adit_model.training.latents import encode_dataset
from adit_model.training.modules import DenoiserModule
from adit_model.training.poses import cached_canonical_dataset


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--steps", type=int, default=20, help="timed, after ten to warm up")
    parser.add_argument("--layers", type=int, default=MINI.denoiser.num_layers)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)

    model = ADiT.load("default", device=options.device)
    data = concatenate([load_source(spec, progress=False) for spec in options.data])
    source = encode_dataset(model.autoencoder, cached_canonical_dataset(data), progress=False)
    source.widths = source.largest()
    assert model.denoiser is not None
    denoiser = Denoiser(replace(model.denoiser.config, num_layers=options.layers))
    grow(model.denoiser, denoiser)

    device = resolve_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {options.layers} blocks, bfloat16")
    print("| batch | launches | step, median | samples/s | losses of the first three steps |")
    print("|---:|---|---:|---:|---|")
    for batch_size in options.batch_sizes:
        for graphs in (False, True) if device.type == "cuda" else (False,):
            seconds, losses = steps(denoiser, source, batch_size, graphs, options.steps, device)
            print(
                f"| {batch_size} | {'CUDA graphs' if graphs else 'one by one'} | "
                f"{1e3 * seconds:.1f} ms | {batch_size / seconds:,.0f} | "
                f"{', '.join(f'{x:.4f}' for x in losses[:3])} |",
                flush=True,
            )


def steps(
    denoiser: Denoiser,
    source: LatentSource,
    batch_size: int,
    graphs: bool,
    number: int,
    device: torch.device,
) -> tuple[float, list[float]]:
    """Median seconds of a step: batch, loss, gradients, clipping, Muon; and the losses."""
    config = TrainingConfig(
        batch_size=batch_size,
        optimizer="muon",
        learning_rate=2e-3,
        precision="bf16",
        cuda_graphs=graphs,
    )
    module = DenoiserModule(copy.deepcopy(denoiser).to(device).train(), config)
    optimizer: Any = module.configure_optimizers()[0][0]
    sampler = StepSampler(source.periodic, batch_size, 0.4, 0, sizes=source.sizes)
    times, losses = [], []
    for step in range(10 + number):
        started = time.perf_counter()
        batch = source.batch(sampler.indices(step)).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss, _ = module.compute_loss(batch, step_generator(0, step))
        loss.backward()
        module.on_after_backward()
        torch.nn.utils.clip_grad_norm_(module.network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))  # waits for the GPU
        times.append(time.perf_counter() - started)
    return statistics.median(times[10:]), losses


if __name__ == "__main__":
    main()
