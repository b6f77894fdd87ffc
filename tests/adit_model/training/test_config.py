"""What a config file may say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adit_model.training.config import STAGES, TrainingConfig, load_run_config, parse_time

MINI = Path(__file__).resolve().parents[3] / "examples" / "training" / "mini.yaml"
CONTENT = {
    "data": {"train": ["a.npz", "qm9:train"], "validation": "b.npz"},
    "model": {"size": "small", "denoiser": {"time_skew": 1}},
    "autoencoder": {"output": "out", "steps": 7, "learning_rate": "1e-4", "max_time": "1:30"},
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    return path


def test_file_and_overrides_make_a_config(path):
    config = load_run_config(
        "autoencoder", path, ["autoencoder.steps=9", "model.autoencoder.dim=64", "data.train=c.db"]
    )
    assert (config.train, config.validation, config.output) == (("c.db",), ("b.npz",), "out")
    assert (config.training.steps, config.training.learning_rate) == (9, 1e-4)
    assert config.model.autoencoder.dim == 64
    assert (config.model.denoiser.num_layers, config.model.denoiser.time_skew) == (12, 1.0)
    assert config.training.max_time == "1:30"
    assert TrainingConfig(**config.as_dict()["training"]) == config.training


def test_overrides_fill_an_empty_section(path):
    path.write_text(yaml.safe_dump({**CONTENT, "model": None}))
    assert load_run_config("autoencoder", path, ["model.size=mini"]).model.autoencoder.canonical


@pytest.mark.parametrize("stage", STAGES)
def test_the_example_is_valid(stage):
    config = load_run_config(stage, MINI)
    assert config.train
    assert (config.autoencoder is None) == (stage == "autoencoder")


def test_bfloat16_is_accepted(path):
    config = load_run_config("autoencoder", path, ["autoencoder.precision=bf16"])
    assert config.training.precision == "bf16"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=1", "unknown section 'optimizer'"),
        ("data.test=x", r"unknown option data\.test, known: train, validation"),
        ("data.train=[]", r"data\.train in .* names no source"),
        ("data.train=5", r"data\.train in .* must be a list of sources, got 5"),
        ("data=5", "section 'data' in .* must hold options, got 5"),
        ("autoencoder.epochs=3", r"unknown option autoencoder\.epochs"),
        ("autoencoder.steps=many", "steps must be an integer, got 'many'"),
        ("autoencoder.steps=2.5", "steps must be an integer, got 2.5"),
        ("autoencoder.steps=0", "steps must be positive, got 0"),
        ("autoencoder.learning_rate=fast", "learning_rate must be a number, got 'fast'"),
        ("autoencoder.learning_rate=-1", "learning_rate must be positive, got -1"),
        ("autoencoder.learning_rate=.nan", "learning_rate must be positive, got nan"),
        ("autoencoder.gradient_clip=-1", "gradient_clip must not be negative, got -1"),
        ("autoencoder.crystal_fraction=1.5", r"crystal_fraction must lie in 0\.\.1, got 1\.5"),
        ("autoencoder.freeze_encoder=maybe", "freeze_encoder must be true or false, got 'maybe'"),
        ("autoencoder.optimizer=sgd", "optimizer must be adamw or muon, got 'sgd'"),
        ("autoencoder.precision=16", "precision must be text, got 16"),
        ("autoencoder.precision=fp8", "precision must be '32' or 'bf16', got 'fp8'"),
        ("autoencoder.accelerator=abacus", "accelerator must be .* got 'abacus'"),
        ("autoencoder.max_time=soon", "a time must look like HH:MM:SS, got 'soon'"),
        ("autoencoder.output=5", r"autoencoder\.output must be a path, got 5"),
        ("autoencoder.output=null", r"autoencoder\.output, the folder of the run, is missing"),
        ("model.size=huge", "size must be one of .*mini.*, got 'huge'"),
        ("model.decoder.dim=3", "unknown model section 'decoder'"),
        ("model.autoencoder.width=3", "unknown option autoencoder.width"),
        ("model.autoencoder=3", "must hold options, got 3"),
        ("model.autoencoder.dim=30", "dim 30 must be a multiple of num_heads 8"),
        ("autoencoder.steps", "must look like section.key=value, got 'autoencoder.steps'"),
        ("autoencoder.steps.x=1", "'steps' in .* is a value, not a section"),
        ("data.train=[a", "the value of override 'data.train=.a' is no valid YAML"),
    ],
)
def test_mistakes_are_named(path, override, message):
    with pytest.raises(ValueError, match=message):
        load_run_config("autoencoder", path, [override])


def test_unusable_files_are_named(path, tmp_path):
    with pytest.raises(ValueError, match="stage must be one of autoencoder, denoiser, got 'both'"):
        load_run_config("both", path)
    with pytest.raises(ValueError, match="has no section 'denoiser'"):
        load_run_config("denoiser", path)
    with pytest.raises(FileNotFoundError, match="no config file"):
        load_run_config("denoiser", tmp_path / "absent.yaml")
    path.write_text("data: [unclosed")
    with pytest.raises(ValueError, match="is no valid YAML"):
        load_run_config("autoencoder", path)
    path.write_text("- just\n- a list")
    with pytest.raises(ValueError, match="must hold sections, got list"):
        load_run_config("autoencoder", path)


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:00", 0), ("1:30", 90), ("10:00:05", 36005), ("100:00", 6000)]
)
def test_times(path, text, seconds):
    assert parse_time(text) == seconds
    path.write_text(path.read_text().replace("max_time: '1:30'", f"max_time: {text}"))
    config = load_run_config("autoencoder", path)  # YAML reads some of them as numbers to base 60
    assert parse_time(config.training.max_time) == seconds


@pytest.mark.parametrize("text", ["5", "1:2:3:4", "-1:00", "a:b", "", "1:"])
def test_other_times_are_refused(text):
    with pytest.raises(ValueError, match="a time must look like HH:MM:SS"):
        parse_time(text)


def test_learning_rate_warms_up_stays_and_decays_to_zero():
    config = TrainingConfig(steps=100, warmup_steps=10, decay_start=0.6)
    factors = [config.learning_rate_factor(step) for step in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10:61] == [1.0] * 51
    assert factors[60:] == pytest.approx([(100 - i) / 40 for i in range(60, 101)])
    assert TrainingConfig(steps=100, warmup_steps=0).learning_rate_factor(99) == 1.0
