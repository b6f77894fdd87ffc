"""`adit finetune`: says what it will do, ends with weights, and with what to type next."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from ase.build import bulk

from adit_model.cli.main import main
from adit_model.conditions.known import Known
from adit_model.config import MINI, ModelConfig
from adit_model.model import ADiT
from adit_model.training.config import load_run_config
from adit_model.training.finetune import default_steps

MODEL = ModelConfig(
    replace(MINI.autoencoder, dim=16, num_heads=2, num_encoder_layers=1, num_decoder_layers=1),
    replace(MINI.denoiser, dim=16, num_heads=2, num_layers=2, properties=()),
    replace(MINI.sampling, num_steps=2),
)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch) -> Path:
    """A tiny model that knows crystals of two atoms."""
    monkeypatch.setenv("ADIT_CACHE_DIR", str(tmp_path / "cache"))
    torch.manual_seed(0)
    known = Known.of_checkpoint(MODEL.as_dict(), {"sizes": {"crystal": {"2": 3}}})
    model = ADiT(MODEL, known)
    with torch.no_grad():  # its gates are zero when it is made
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save(tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def cifs(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for i, name in enumerate(("NaCl", "KBr", "LiF", "NaCl")):
        bulk(name, "rocksalt", a=5.0 + 0.3 * (i % 3)).write(folder / f"{i}.cif")
    (folder / "broken.cif").write_text("data_broken")
    return folder


def tune(cifs: Path, weights: Path, out: Path, *more: str) -> int:
    options = ("--out", str(out), "--checkpoint", str(weights), "--quiet", "--batch-size", "4")
    return main(["finetune", str(cifs), *options, *more])


def test_finetune_says_what_it_does_and_what_to_type_next(cifs, weights, tmp_path, capsys):
    out = tmp_path / "run"
    assert tune(cifs, weights, out, "--steps", "24", "--keep-old", "0.5") == 0
    text = capsys.readouterr().out
    assert f"starts from:  {weights} ({ADiT.load(weights).checkpoint_hash[:12]})" in text
    assert "structures:   5 read, 3 distinct, 1 equal to others, 1 not usable" in text
    assert "not forgotten: 3 crystals and 0 molecules" in text
    assert "24 steps of 4 structures" in text and "seconds for 19 more steps" in text
    assert "expect copies" in text
    model = ADiT.load(out / "denoiser.safetensors")
    assert model.metadata["training"]["steps"] == 24
    assert model.metadata["training"]["init_from_hash"] == ADiT.load(weights).checkpoint_hash
    (command,) = (line for line in text.splitlines() if line.startswith("  adit generate"))
    words = shlex.split(command)[1:]
    assert main([*words[:-1], "--quiet"]) == 0  # as printed, but for the picture
    assert main(["generate", "-n", "2", "--checkpoint", str(out / "denoiser.safetensors"),
                 "--out", str(tmp_path / "default"), "--quiet"]) == 0  # fmt: skip
    assert tune(cifs, weights, out) == 2  # no second run in the folder
    assert "give --resume" in capsys.readouterr().err


def test_only_conditions_leaves_the_rest_as_it_was(cifs, weights, tmp_path):
    out = tmp_path / "run"
    assert tune(cifs, weights, out, "--steps", "3", "--keep-old", "0", "--only-conditions") == 0
    model, before = ADiT.load(out / "denoiser.safetensors"), ADiT.load(weights)
    assert model.config.denoiser.free_share == before.config.denoiser.free_share > 0
    old = before.denoiser.state_dict()
    changed = {k for k, v in model.denoiser.state_dict().items() if not torch.equal(v, old[k])}
    assert changed and all(name.startswith("told.") for name in changed)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ("--properties", "hardness", "density=GPa"),
            "no system of .* has a number named 'hardness'",
        ),
        (("--properties", "hardness=GPa", "hardness"), "'hardness' is given twice"),
        (("--properties", "hardness"), "no system of .* has a number named 'hardness'"),
        (("--keep-old", "1"), "must lie in"),
        (("--resume",), "no run to resume"),
        (("--steps", "0"), "steps must be positive"),
    ],
)
def test_mistakes_are_told_before_any_training(cifs, weights, tmp_path, capsys, options, problem):
    import re

    assert tune(cifs, weights, tmp_path / "run", *options) == 2
    assert re.search(problem, capsys.readouterr().err)
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_steps_grow_with_the_number_of_structures():
    counts = [default_steps(n) for n in (1, 50, 500, 5000)]
    assert counts == sorted(counts) and counts[:2] == [100, 150] and counts[3] < 5000


def test_init_from_implies_the_model(weights, tmp_path):
    path = tmp_path / "run.yaml"
    denoiser = {"output": str(tmp_path / "x"), "init_from": str(weights), "autoencoder": "a"}
    path.write_text(yaml.safe_dump({"data": {"train": ["qm9:train"]}, "denoiser": denoiser}))
    assert load_run_config("denoiser", path).model == MODEL
    deeper = load_run_config("denoiser", path, ["model.denoiser.num_layers=4"]).model
    assert deeper.denoiser == replace(MODEL.denoiser, num_layers=4)
    other = load_run_config("denoiser", path, ["model.size=mini"]).model
    assert other == MINI
