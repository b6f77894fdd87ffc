"""Memory and time of stage 2 in two CPU processes: copies of the network, or a part of it in each.

    OMP_NUM_THREADS=1 python benchmarks/sharding.py --size base

Each variant trains a network of random weights for a few steps on random crystals of 15 atoms; the
stage-1 network is there, too, since it encodes random poses.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adit_model.config import named_size
from adit_model.data.dataset import AtomicDataset
from adit_model.model import ADiT
from adit_model.systems import AtomicSystem

SCRIPT = """
import gc
import sys

from adit_model.cli.main import main
from adit_model.training.modules import StageModule

memory = {}


def held(key):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(x for x in lines if x.startswith(key)).split()[1]) / 2**20


def batch_end(self, *args):
    gc.collect()
    memory[len(memory)] = held("VmRSS")


StageModule.on_train_batch_end = batch_end
status = main()
print("", "GiB", max(list(memory.values())[:-1]), "", flush=True)  # the last step saves
sys.exit(status)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="base")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args(arguments)
    config = named_size(options.size)
    print("| two processes | memory of a process after a step, GiB | step, median |")
    print("|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ADiT(config, with_denoiser=False).save(folder / "stage1.safetensors")
        random = np.random.default_rng(0)
        AtomicDataset.from_systems(
            [
                AtomicSystem(random.integers(1, 80, 15), random.random((15, 3)) * 6, np.eye(3) * 6)
                for _ in range(64)
            ]
        ).save(folder / "data.npz")
        (folder / "train.py").write_text(SCRIPT)
        for sharded in (False, True):
            run = {
                "data": {"train": [str(folder / "data.npz")]},
                "model": config.as_dict(),
                "denoiser": {
                    "output": str(folder / f"{sharded}"),
                    "autoencoder": str(folder / "stage1.safetensors"),
                    "steps": options.steps,
                    "batch_size": options.batch_size,
                    "log_every": 1,
                    "accelerator": "cpu",
                    "devices": 2,
                    "sharded": sharded,
                },
            }
            path = folder / "run.yaml"
            path.write_text(json.dumps(run))  # JSON is YAML
            command = [sys.executable, folder / "train.py", "train", "denoiser", "--config", path]
            done = subprocess.run([*command, "--quiet"], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr)
            memory = [float(x) for x in re.findall(r"GiB ([0-9.]+)", done.stdout)]
            with open(folder / f"{sharded}" / "logs" / "csv" / "metrics.csv", newline="") as file:
                speeds = [float(row["samples_per_s"] or 0) for row in csv.DictReader(file)]
            seconds = [options.batch_size / speed for speed in speeds if speed][1:]
            print(
                f"| {'sharded' if sharded else 'copies'} | "
                f"{', '.join(f'{x:.1f}' for x in sorted(memory))} | "
                f"{statistics.median(seconds):.1f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
