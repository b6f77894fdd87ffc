"""`adit info`: what a checkpoint says of itself."""

from __future__ import annotations

import json

import pytest
import yaml

from adit_model import ADiT
from adit_model.cli.info import count_parameters
from adit_model.cli.main import main


def lines(text: str) -> dict[str, str]:
    return {line[:13].strip(" :"): line[13:] for line in text.splitlines()[:12]}


def test_twelve_lines_tell_the_truth(tiny_checkpoint, capsys):
    assert main(["info", str(tiny_checkpoint)]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 12
    shown, model = lines(text), ADiT.load(tiny_checkpoint)
    assert shown["file"].startswith(f"{tiny_checkpoint.name}, ")
    assert shown["file"].endswith(f" MB, hash {model.checkpoint_hash[:12]}")
    assert shown["licence"].startswith("MIT; ")
    assert shown["properties"] == "none"
    # 3 of 2, 5 of 4 and 1 of 8 atoms; 2 of 3 and 2 of 5
    assert shown["crystals"] == "9 of 2 to 8 atoms, 3.78 on average, none of 3, 5, 6, 7"
    assert shown["molecules"] == "4 of 3 to 5 atoms, 4.00 on average, none of 4"
    assert shown["quality"] == "not measured"
    exact = "domain, number of atoms, elements, formula, cell, fixed atoms"
    assert shown["can be told"] == exact  # whatever the weights have learned


def test_full_is_yaml_of_all_metadata(tiny_checkpoint, capsys):
    assert main(["info", str(tiny_checkpoint), "--full"]) == 0
    text = capsys.readouterr().out
    shown = yaml.safe_load(text.partition("\n\n")[2])
    assert shown == ADiT.load(tiny_checkpoint).metadata


def test_bundled_weights_say_what_they_know(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 125
    shown = lines(text)
    assert shown["molecules"].endswith("none of 28")
    assert "molecules H C N O F" in shown["elements"]
    assert shown["properties"].startswith("alpha, band_gap")
    assert main(["info", "--full"]) == 0
    assert "band_gap: 0 to 8.7" in capsys.readouterr().out
    assert main(["info", "mini"]) == 0
    assert "crystals valid" in lines(capsys.readouterr().out)["quality"]


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
        "training": {"stage": "denoiser", "core_hours": 1.5, "data": {"name": "mine"}},
        "metrics": {"generated": {"crystals": {"count": 8, "valid": 7}}},
    }
    ADiT.load(tiny_checkpoint).save(tmp_path / "told.safetensors", said)
    assert main(["info", str(tmp_path / "told.safetensors")]) == 0
    shown = lines(capsys.readouterr().out)
    assert shown["trained on"] == "mine"
    assert shown["training"] == "denoiser, 1.5 core hours"
    assert shown["quality"] == "7 of 8 crystals valid"


def test_stage_1_and_half_precision(tiny_checkpoint, tmp_path, capsys):
    model = ADiT.load(tiny_checkpoint)
    path = tmp_path / "first.safetensors"
    ADiT(model.config, with_denoiser=False).save(path, half=True)
    assert main(["info", str(path)]) == 0
    shown = lines(capsys.readouterr().out)
    assert shown["size"].startswith("autoencoder ") and "denoiser" not in shown["size"]
    assert shown["crystals"] == "none"


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
