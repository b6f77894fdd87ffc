"""Loss against size and compute for small models, and what the paper's sizes cost.

Run from the repository root, for instance

    python benchmarks/scaling.py --data DIR --folder runs/scaling

where DIR holds ``crystals_train.csv.gz`` and ``crystals_val.csv.gz``; QM9 comes from qm9pack. Each
size of stage 2 gets the same model FLOPs, on the latents of the bundled stage 1. A run that was
stopped goes on when the command is given again.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adit_model.config import DenoiserConfig, named_size
from adit_model.data import load_source
from adit_model.network.denoiser import Denoiser
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.flops import training_flops
from adit_model.training.run import run_stage

MINI = named_size("mini")
WIDTHS = {"0.3 M": (64, 3), "1 M": (96, 5), "3 M": (160, 6), "10 M": (288, 7)}  # dim, blocks
HEADS = {64: 4, 96: 4, 160: 5, 288: 6}
ATOMS = 15.0  # of a system in the mix of crystals and molecules
PAPER_SAMPLES = 127_000  # QM9 train and MP-20 train together
UTILISATION = 0.4  # of a GPU's peak: assumed
GPUS = {"A100 (312 TFLOP/s bfloat16)": 312e12, "H100 (989 TFLOP/s bfloat16)": 989e12}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.one_step:
        print(json.dumps(one_step(options.one_step)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "```",
        "python benchmarks/scaling.py "
        + shlex.join(sys.argv[1:] if arguments is None else arguments),
        "```",
        "",
    ]
    lines += study(options)
    lines += ["", *paper_sizes()]
    text = "\n".join(lines)
    print(text)
    (options.folder / "scaling.md").write_text(text + "\n", encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--folder", type=Path, help="of the runs")
    parser.add_argument("--gflops", type=float, default=3000.0, help="model GFLOPs of each size")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3], help="learning rates")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture of the losses")
    parser.add_argument("--one-step", metavar="SIZE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.one_step and (options.data is None or options.folder is None):
        parser.error("--data and --folder are needed")
    return options


def denoiser_config(size: str) -> DenoiserConfig:
    dim, blocks = WIDTHS[size]
    return replace(MINI.denoiser, dim=dim, num_layers=blocks, num_heads=HEADS[dim])


def study(options: argparse.Namespace) -> list[str]:
    """Train each size for equal compute and compare the validation losses."""
    data = options.folder / "train.npz"
    if not data.is_file():
        parts = [
            load_source("qm9:train", progress=False).subset(np.arange(0, 100_000, 10)),
            load_source(str(options.data / "crystals_train.csv.gz"), progress=False).subset(
                np.arange(0, 16_950, 2)
            ),
        ]
        from adit_model.data.prepare import concatenate

        concatenate(parts).save(data)
    rows: list[dict[str, Any]] = []
    for size in WIDTHS:
        for rate in options.rates:
            rows.append(train(size, rate, data, options))
            print(rows[-1], file=sys.stderr, flush=True)
    best = [min((r for r in rows if r["size"] == s), key=lambda r: r["loss"]) for s in WIDTHS]
    lines = [
        "| size | parameters | steps | model GFLOPs | seconds | learning rate | loss, molecules | "
        "loss, crystals | sum |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in best:
        lines.append(
            f"| {row['size']} | {row['parameters']:,} | {row['steps']:,} | {row['gflops']:,.0f} | "
            f"{row['seconds']:.0f} | {row['rate']:g} | {row['molecule']:.3f} | "
            f"{row['crystal']:.3f} | {row['loss']:.3f} |"
        )
    if options.plot:
        draw(best, options)
    return lines


def train(size: str, rate: float, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train one size until its model FLOPs are used up."""
    config = denoiser_config(size)
    network = Denoiser(config, MINI.autoencoder.latent_dim, MINI.autoencoder.coordinate_scale)
    parameters = sum(p.numel() for p in network.parameters())
    batch = 64
    step_flops = training_flops(network, int(batch * ATOMS), batch)
    steps = max(20, int(options.gflops * 1e9 / step_flops))
    output = options.folder / f"{size.replace(' ', '')}-{rate:g}-{options.gflops:g}"
    run = RunConfig(
        train=(str(data),),
        validation=("qm9:val", str(options.data / "crystals_val.csv.gz")),
        output=str(output),
        model=replace(MINI, denoiser=config),
        training=TrainingConfig(
            steps=steps,
            batch_size=batch,
            crystal_fraction=0.4,
            optimizer="muon",
            learning_rate=rate,
            warmup_steps=min(50, steps // 5),
            decay_start=0.3,
            validate_every=steps,
            validation_size=500,
            log_every=max(1, steps // 20),
            checkpoint_minutes=1.0,
            accelerator="cpu",
        ),
        autoencoder="default",
    )
    started = time.perf_counter()
    result = run_stage("denoiser", run, resume=True, progress=False)
    if not result.finished:
        raise SystemExit(f"stopped by {result.stopped_by}: run it again")
    losses = last_validation(output)
    return {
        "size": size,
        "parameters": parameters,
        "steps": steps,
        "gflops": steps * step_flops / 1e9,
        "seconds": time.perf_counter() - started,
        "rate": rate,
        **losses,
        "loss": sum(losses.values()),
    }


def last_validation(output: Path) -> dict[str, float]:
    """Last validation losses of the averaged weights."""
    with open(output / "logs" / "csv" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for domain in ("molecule", "crystal"):
        names = [n for n in rows[0] if n.startswith(f"val/{domain}") and "coordinates" not in n]
        found[domain] = [float(row[n]) for row in rows for n in names if row[n]][-1]
    return found


def draw(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    left.plot([r["parameters"] for r in rows], [r["loss"] for r in rows], "o-")
    left.set(xscale="log", xlabel="parameters", ylabel="validation loss")
    for row in rows:
        path = options.folder / (
            f"{row['size'].replace(' ', '')}-{row['rate']:g}-{options.gflops:g}"
        )
        with open(path / "logs" / "csv" / "metrics.csv", newline="") as file:
            points = [(int(r["step"]), float(r["loss"])) for r in csv.DictReader(file) if r["loss"]]
        share = row["gflops"] * 1e9 / row["steps"]
        right.plot([(s + 1) * share for s, _ in points], [v for _, v in points], label=row["size"])
    right.set(xscale="log", yscale="log", xlabel="model FLOPs", ylabel="training loss")
    right.xaxis.set_minor_formatter(NullFormatter())
    right.yaxis.set_minor_formatter(ScalarFormatter())
    right.legend()
    figure.tight_layout()
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.plot, dpi=120)


def paper_sizes() -> list[str]:
    """Memory and time of one step of each named size, each in a process of its own."""
    lines = [
        f"| size | parameters of stage 2 | peak memory | step of 16 systems | TFLOPs of an epoch | "
        f"{' | '.join(f'hours of 1,000 epochs, {name}' for name in GPUS)} |",
        "|---|---:|---:|---:|---:|" + "---:|" * len(GPUS),
    ]
    for size in ("mini", "small", "base", "large"):
        command = [sys.executable, __file__, "--one-step", size]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines.append(f"| {size} | | does not fit (status {done.returncode}) | | | | |")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        epoch = PAPER_SAMPLES * row["flops_of_a_system"] / 1e12
        hours = [1000 * epoch * 1e12 / (UTILISATION * peak) / 3600 for peak in GPUS.values()]
        lines.append(
            f"| {size} | {row['parameters'] / 1e6:.1f} M | {row['peak_gib']:.1f} GiB | "
            f"{row['seconds']:.2f} s | {epoch:,.0f} | {' | '.join(f'{h:.1f}' for h in hours)} |"
        )
    return lines


def one_step(size: str) -> dict[str, float]:
    """One step of AdamW with 16 systems of 15 atoms, after one to warm up."""
    from adit_model.network.groups import DomainGroups
    from adit_model.training.loss import flow_matching_loss

    config = named_size(size)
    torch.manual_seed(0)
    model = Denoiser(
        config.denoiser,
        config.autoencoder.latent_dim,
        config.autoencoder.coordinate_scale,
        config.autoencoder.exact,
    )
    systems = 16
    sizes = torch.full((systems,), int(ATOMS))
    crystals = torch.arange(systems) < systems // 2
    groups = DomainGroups.of_atoms(sizes, crystals, cells=model.cells)
    latents = torch.randn(groups.packing.num_atoms, config.autoencoder.latent_dim)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    seconds = 0.0
    for step in range(2):
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(step)
        loss, _ = flow_matching_loss(model, latents, groups, generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1e-4) if value.is_floating_point() else None
        seconds = time.perf_counter() - started
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "peak_gib": peak_gib(),
        "seconds": seconds,
        "flops_of_a_system": training_flops(model, int(sizes.sum()), systems) / systems,
    }


def peak_gib() -> float:
    """Peak memory of this process; Linux's ru_maxrss would count the parent's as well."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
