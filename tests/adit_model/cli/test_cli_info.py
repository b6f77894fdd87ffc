"""`adit info`: what a checkpoint says of itself."""

from __future__ import annotations

import json

import pytest
import yaml

from adit_model import ADiT
from adit_model.cli.info import count_parameters
from adit_model.cli.main import main


def test_text_is_yaml_and_true(tiny_checkpoint, capsys):
    assert main(["info", str(tiny_checkpoint)]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    model = ADiT.load(tiny_checkpoint)
    assert shown["file"] == str(tiny_checkpoint)
    assert shown["hash"] == model.checkpoint_hash
    assert shown["licence"] == "MIT"
    assert shown["config"] == model.config.as_dict()
    assert shown["size_mb"] == pytest.approx(tiny_checkpoint.stat().st_size / 1e6, abs=0.01)
    # 3 of 2, 5 of 4 and 1 of 8 atoms; 2 of 3 and 2 of 5
    assert shown["statistics"]["sizes"] == {
        "crystal": "9 systems of 2 to 8 atoms, 3.78 on average",
        "molecule": "4 systems of 3 to 5 atoms, 4.00 on average",
    }


def test_parameters_are_those_of_the_model(tiny_checkpoint):
    model = ADiT.load(tiny_checkpoint)
    for name, count in count_parameters(tiny_checkpoint).items():
        part = getattr(model, name)
        assert count == sum(value.numel() for value in part.state_dict().values())


def test_json_is_the_metadata(tiny_checkpoint, capsys):
    assert main(["info", str(tiny_checkpoint), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ADiT.load(tiny_checkpoint).metadata


def test_training_and_metrics_are_shown(tiny_checkpoint, tmp_path, capsys):
    said = {
        "training": {"command": "adit train denoiser --config my.yaml", "data": {"name": "mine"}},
        "metrics": {"molecule_validity": 0.5},
    }
    ADiT.load(tiny_checkpoint).save(tmp_path / "told.safetensors", said)
    assert main(["info", str(tmp_path / "told.safetensors")]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert {key: shown[key] for key in said} == said


def test_stage_1_and_half_precision(tiny_checkpoint, tmp_path, capsys):
    model = ADiT.load(tiny_checkpoint)
    first = ADiT(model.config, {"sizes": {"crystal": {}}}, with_denoiser=False)
    path = tmp_path / "first.safetensors"
    first.save(path, half=True)
    assert main(["info", str(path)]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert list(shown["parameters"]) == ["autoencoder"]
    assert shown["statistics"]["sizes"] == {"crystal": "none"}


@pytest.mark.parametrize("case", ["absent", "folder", "text", "cut off", "newer", "other"])
def test_what_is_no_checkpoint(case, tiny_checkpoint, clean_dir, capsys):
    from adit_model import checkpoint

    path = clean_dir / "weights"
    if case == "folder":
        path.mkdir()
    elif case == "text":
        path.write_text("no checkpoint")
    elif case == "cut off":
        path.write_bytes(tiny_checkpoint.read_bytes()[:-100])
    elif case == "newer":
        data = tiny_checkpoint.read_bytes()
        old = f'\\"format_version\\": {checkpoint.FORMAT_VERSION}'.encode()
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, old[:-1] + b"9"))
    elif case == "other":
        import torch
        from safetensors.torch import save_file

        save_file({"weight": torch.ones(3)}, path)
    expected = {
        "absent": "neither a file nor one of the names default, mini",
        "folder": "no checkpoint",
        "text": "no safetensors file",
        "cut off": "is cut off",
        "newer": "checkpoint format 9",
        "other": "not a checkpoint of ADiT",
    }
    assert main(["info", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("adit info: error: ")
    assert expected[case] in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
