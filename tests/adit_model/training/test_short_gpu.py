"""The script for a short time on a GPU, rehearsed on a CPU without any package of chemistry."""

from __future__ import annotations

import csv
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from adit_model.model import ADiT

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "examples" / "training" / "short_gpu.py"
ABSENT = ["ase", "atomate2", "e3nn", "emmet", "filelock", "jobflow", "joblib", "lightning"]
ABSENT += ["maggma", "matplotlib", "monty", "pandas", "pydantic", "pymatgen", "rdkit", "requests"]
ABSENT += ["scipy", "smact", "spglib", "yaml"]
BARE = (
    "import runpy, sys\n"
    f"for name in {ABSENT}: sys.modules[name] = None\n"
    f"sys.argv[0] = {str(SCRIPT)!r}\n"
    f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the script where only PyTorch, NumPy and safetensors can be imported."""
    return subprocess.Popen(
        [sys.executable, "-c", BARE, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def about(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_ends_with_the_clock(write_config, tmp_path):
    script = runpy.run_path(str(SCRIPT))["main"]
    config = write_config("denoiser", tmp_path / "unused", decay_start=0.1, warmup_steps=0)
    script(["pack", "--config", str(config), "--out", str(tmp_path / "pack")])
    (tmp_path / "pack" / "template.safetensors").rename(tmp_path / "template.safetensors")
    out, weights = tmp_path / "run", tmp_path / "run" / "weights.safetensors"

    options = ["run", tmp_path / "pack", "--out", out, "--save-seconds", 0.5]
    first = start(*options, "--minutes", 60)
    deadline = time.monotonic() + 240
    while not (out / "state.pt").is_file():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=120)[0]
    assert first.returncode == 0, said
    assert "from the start" in said
    before = about(weights)
    assert 0 < float(before["share"]) < 0.2 and int(before["step"]) > 0

    second = start(*options, "--minutes", 15 / 60)
    said = second.communicate(timeout=240)[0]
    assert second.returncode == 0, said
    assert f"from the state after step {before['step']}" in said
    after = about(weights)
    assert float(after["share"]) == 1.0 and int(after["step"]) > int(before["step"])
    state = torch.load(out / "state.pt", weights_only=True)
    rates = {group["lr"] for group in state["optimizer"]["param_groups"]}
    assert max(rates) < 1.8e-3  # of 2e-3: it has decayed
    lines = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [int(line["step"]) for line in lines] == sorted(int(line["step"]) for line in lines)

    (out / "state.pt").unlink()
    third = start(*options, "--minutes", 0.05)
    assert f"from the weights of step {after['step']}" in third.communicate(timeout=240)[0]

    (tmp_path / "template.safetensors").rename(tmp_path / "pack" / "template.safetensors")
    model = tmp_path / "model.safetensors"
    script(["finish", str(tmp_path / "pack"), str(weights), "--out", str(model)])
    trained = ADiT.load(model, device="cpu")
    assert trained.metadata["training"]["steps"] >= int(after["step"])
    assert trained.sample(2, num_steps=2, progress=False)
