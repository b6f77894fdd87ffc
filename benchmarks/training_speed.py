"""Training speed of stage 2 on a CPU: the plain path, and what makes it faster, in the same run.

Run from the repository root, for instance

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py --checkpoint mini-2 --steps 8

Latents are random, sizes those of the weights' training data. The variants take turns, step by
step, so that what else the machine does meets all of them alike. Times are means of the CPU time of
the process, whose ratio is given, and medians of the clock. Batches of equal sizes differ from one
another, so whole turns of eight are taken.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from adit_model.model import ADiT
from adit_model.network import fused
from adit_model.training.batches import DEALT_STEPS, LatentSource, StepSampler, step_generator
from adit_model.training.config import TrainingConfig
from adit_model.training.modules import DenoiserModule


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--precision", default="bf16", choices=("32", "bf16"))
    parser.add_argument("--steps", type=int, default=8, help="timed, of each variant")
    parser.add_argument("--compile", action="store_true", help="compiled variants too: minutes")
    options = parser.parse_args(arguments)

    model = ADiT.load(options.checkpoint, device="cpu")
    source = random_latents(model)
    variants = {"plain": (False, False), "equal sizes": (False, True)}
    if options.compile:
        variants |= {"compiled": (True, False), "compiled, equal sizes": (True, True)}
    config = TrainingConfig(
        batch_size=options.batch_size,
        optimizer="muon",
        learning_rate=1e-4,
        precision=options.precision,
    )
    module = DenoiserModule(copy.deepcopy(model.denoiser).train(), config)
    optimizer: Any = module.configure_optimizers()[0][0]
    functions = {}
    for is_compiled in (False, True):
        with fused.compiled() if is_compiled else nullcontext():
            functions[is_compiled] = dict(fused._functions)
    samplers = {
        equal: StepSampler(
            source.periodic, config.batch_size, 0.4, 0, alike=source.sizes if equal else None
        )
        for equal in (False, True)
    }
    # Batches of equal sizes differ from one another: all of a turn are in the average.
    turns = -(-options.steps // DEALT_STEPS)
    clock: dict[str, list[float]] = {name: [] for name in variants}
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    losses: dict[str, list[float]] = {name: [] for name in variants}
    for i in range(-2, turns * DEALT_STEPS):
        for name, (is_compiled, equal) in variants.items():
            fused._functions.update(functions[is_compiled])
            started, used = time.perf_counter(), time.process_time()
            batch = source.batch(samplers[equal].indices(max(i, 0)))
            bfloat16 = config.precision == "bf16"
            with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
                loss, _ = module.compute_loss(batch, step_generator(0, max(i, 0)))
            loss.backward()
            module.on_after_backward()
            torch.nn.utils.clip_grad_norm_(module.network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            module.update_average()
            if i >= 0:  # two steps to warm up and to compile
                clock[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - used)
                losses[name].append(float(loss.detach()))
    fused._functions.update(functions[False])

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batches of "
          f"{config.batch_size}, {config.precision}")  # fmt: skip
    print("| variant | CPU seconds a step | of the clock | samples a CPU second | ratio | loss |")
    print("|---|---:|---:|---:|---:|---:|")
    first = statistics.fmean(cpu["plain"])
    for name in variants:
        mean = statistics.fmean(cpu[name])
        print(
            f"| {name} | {mean:.2f} | {statistics.median(clock[name]):.2f} | "
            f"{config.batch_size / mean:.0f} | {first / mean:.2f} | "
            f"{statistics.fmean(losses[name]):.3f} |"
        )


def random_latents(model: ADiT, number: int = 4000) -> LatentSource:
    """Noise for latents, of systems as large as the weights' training data."""
    random = np.random.default_rng(0)
    sizes = []
    for domain in model.domains:
        known = model.known.sizes[domain]
        share = np.array(list(known.values()), float)
        sizes.append(random.choice(list(known), number, p=share / share.sum()))
    periodic = np.repeat([domain == "crystal" for domain in model.domains], number)
    counts = np.concatenate(sizes).astype(np.int64)
    data = SimpleNamespace(
        periodic=periodic,
        sizes=counts,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        numbers=random.integers(1, 90, counts.sum()),
        space_groups=random.integers(1, 230, len(counts)) * periodic,
    )
    exact = model.config.autoencoder.exact
    rows = int((counts + exact * periodic).sum())
    latents = random.standard_normal((rows, model.config.autoencoder.latent_dim), np.float32)
    labels = random.standard_normal((len(counts), len(model.config.denoiser.properties)))
    return LatentSource(latents, data, exact, labels)


if __name__ == "__main__":
    main()
