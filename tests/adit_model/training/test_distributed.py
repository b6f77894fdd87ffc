"""Two processes on the CPU (gloo) against one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from adit_model.data.dataset import AtomicDataset
from adit_model.model import ADiT
from adit_model.systems import AtomicSystem
from adit_model.training.callbacks import STATE_NAME

pytestmark = pytest.mark.slow
SCRIPT = """
import sys

import torch

from adit_model.cli.main import main
from adit_model.training.callbacks import StateSaver
from adit_model.training.sharding import whole

save = StateSaver.save


def save_of_each_rank(self, trainer, module):
    save(self, trainer, module)
    states = {"weights": module.state_dict(), "average": module.average}
    content = {kind: {k: whole(v) for k, v in state.items()} for kind, state in states.items()}
    torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


StateSaver.save = save_of_each_rank
sys.exit(main())
"""


def start(folder: Path, stage: str, config: Path, *options: str) -> subprocess.Popen:
    script = folder / "train.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, script, "train", stage, "--config", config, "--quiet", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    try:
        output, errors = process.communicate(timeout=150)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert output.count("weights: ") == 1  # one process reports
    return output


def load_ranks(folder: Path) -> list[dict[str, dict[str, torch.Tensor]]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_equal_ranks(folder: Path) -> None:
    one, other = load_ranks(folder)
    for kind in ("weights", "average"):
        assert one[kind].keys() == other[kind].keys()
        for name, value in one[kind].items():
            assert torch.equal(value, other[kind][name]), name


@pytest.mark.parametrize("sharded", [False, True], ids=["copies", "sharded"])
def test_two_processes_take_the_steps_of_one(
    sharded, run, make_config, write_config, log, tmp_path
):
    """Systems of one size without noise: the mean over two halves is the mean over all."""
    systems = [
        *(molecule(name) for name in ("NH3", "H2CO", "C2H2", "H2O2")),
        *(bulk("ZnO", "wurtzite", a=a, c=1.6 * a) for a in (3.1, 3.3, 3.5, 3.7)),
    ]
    data = AtomicDataset.from_systems([AtomicSystem.from_atoms(a) for a in systems], "fours")
    assert set(data.sizes) == {4}
    data.save(tmp_path / "fours.npz")
    model = make_config(tmp_path).model
    quiet = {"mask_fraction": 0.0, "noise_fraction": 0.0, "latent_noise": 0.0}
    options = {
        "train": (str(tmp_path / "fours.npz"),),
        "model": replace(
            model, autoencoder=replace(model.autoencoder, log_variance_start=-20.0, **quiet)
        ),
        "batch_size": 4,
        "steps": 10,
        "gradient_clip": 0.3,
    }
    one = run("autoencoder", tmp_path / "one", **options)
    config = write_config("autoencoder", tmp_path / "two", devices=2, sharded=sharded, **options)
    assert "finished after 10 steps" in finish(start(tmp_path, "autoencoder", config))
    assert_equal_ranks(tmp_path / "two")
    losses = [[row["loss"] for row in log(tmp_path / name, "loss")] for name in ("one", "two")]
    assert len(losses[0]) == 10
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)
    validations = [log(tmp_path / name, "val/elements") for name in ("one", "two")]
    for a, b in zip(*validations, strict=True):
        assert b == pytest.approx(a, rel=2e-3, abs=1e-5)
    torch.manual_seed(0)
    initial = ADiT(options["model"], with_denoiser=False).autoencoder
    single = ADiT.load(one.checkpoint).autoencoder
    double = ADiT.load(tmp_path / "two" / "autoencoder.safetensors")
    # Not the coordinate heads and the log-variance: their gradient is zero but for rounding here,
    # and Adam makes full steps of it.
    for part in (
        "encoder.blocks",
        "decoder.blocks",
        "decoder.element_head",
        "decoder.lattice_head",
    ):
        weights = [
            torch.cat([p.flatten() for p in network.get_submodule(part).parameters()])
            for network in (initial, single, double.autoencoder)
        ]
        moved, difference = weights[1] - weights[0], weights[2] - weights[1]
        assert difference.norm() < 0.01 * moved.norm()
    assert double.metadata["training"]["samples"] == 40


def test_cached_latents_unequal_ranks_and_a_signal(run, write_config, log, saved, tmp_path):
    """Three systems a step: one process has no crystal, whose weights get no gradient there."""
    options = {"batch_size": 3, "crystal_fraction": 0.34, "validate_every": 25}
    config = write_config(
        "denoiser", tmp_path / "two", devices=2, steps=100_000, checkpoint_minutes=0.01, **options
    )
    process = start(tmp_path, "denoiser", config)
    end = time.monotonic() + 300
    while not (tmp_path / "two" / STATE_NAME).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    while saved(tmp_path / "two")["global_step"] < 25:
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # to the first process alone
    output = finish(process)
    step = saved(tmp_path / "two")["global_step"]
    assert f"stopped by SIGTERM after {step} steps" in output
    assert_equal_ranks(tmp_path / "two")
    assert len(list((tmp_path / "two").glob("latents-*.npy"))) == 1
    assert not list((tmp_path / "two").glob("*.partial"))
    # Other noise, so close but not equal: the validation has the same noise.
    run("denoiser", tmp_path / "one", steps=25, **options)
    first = [log(tmp_path / name, "val/crystal")[0] for name in ("one", "two")]
    assert first[0]["step"] == first[1]["step"] == 24
    for name in ("val/crystal", "val/molecule"):
        assert first[1][name] == pytest.approx(first[0][name], rel=0.15)
    # One process goes on where two stopped.
    resumed = run("denoiser", tmp_path / "two", resume=True, steps=step + 2, **options)
    assert (resumed.step, resumed.finished) == (step + 2, True)
    assert [row["step"] for row in log(tmp_path / "two", "loss")] == list(range(step + 2))


def test_sharded_run_goes_on_exactly_also_with_copies_or_alone(
    run, write_config, log, saved, tmp_path
):
    options = {"batch_size": 6, "devices": 2, "sharded": True, "precision": "bf16"}

    def train(name: str, steps: int, *more: str, **changed) -> None:
        config = write_config("denoiser", tmp_path / name, steps=steps, **(options | changed))
        output = finish(start(tmp_path, "denoiser", config, *more))
        assert f"finished after {steps} steps" in output

    train("whole", 10)
    train("parts", 6)
    train("parts", 10, "--resume")
    states = [saved(tmp_path / name) for name in ("whole", "parts")]
    for kind in ("state_dict", "average"):
        assert states[0][kind].keys() == states[1][kind].keys()
        for name, value in states[0][kind].items():
            assert type(value) is torch.Tensor
            torch.testing.assert_close(states[1][kind][name], value, rtol=0, atol=0, msg=name)
    losses = [log(tmp_path / name, "loss") for name in ("whole", "parts")]
    assert losses[0] == losses[1]
    moved = ADiT.load(tmp_path / "whole" / "denoiser.safetensors").denoiser.state_dict()
    assert all(torch.equal(moved[k], v) for k, v in states[0]["average"].items())
    # The state is whole: copies, and one process, go on from it.
    train("parts", 12, "--resume", sharded=False)
    resumed = run("denoiser", tmp_path / "parts", resume=True, steps=14, batch_size=6)
    assert resumed.finished
    assert [row["step"] for row in log(tmp_path / "parts", "loss")] == list(range(14))


def test_sharded_runs_that_cannot_be_are_refused_before_any_work(run, tmp_path):
    cases = [
        ({"devices": 1}, "sharded needs several processes"),
        ({"devices": 2, "batch_size": 3, "crystal_fraction": 0.34}, "both domains in each process"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            run("denoiser", tmp_path / "out", sharded=True, **options)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    with pytest.raises(ValueError, match="needs the optimizer adamw"):
        run("denoiser", tmp_path / "out", sharded=True, devices=2, optimizer="muon")
