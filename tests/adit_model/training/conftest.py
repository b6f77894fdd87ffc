"""A small joint data set, a tiny model, and runs of both stages."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk, molecule
from ase.spacegroup import crystal

from adit_model.config import AutoencoderConfig, DenoiserConfig, ModelConfig
from adit_model.data.dataset import AtomicDataset
from adit_model.systems import AtomicSystem
from adit_model.training.callbacks import STATE_NAME
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.poses import canonical_dataset
from adit_model.training.run import TrainingResult, run_stage

MOLECULES = ("H2O", "CH4", "NH3", "CH3CH2OH", "C6H6", "CO2", "HCN", "CH3OH", "CH3SH")
CRYSTALS = {
    "Si": {},
    "Cu": {},
    "Ti": {},
    "NaCl": {"crystalstructure": "rocksalt", "a": 5.64},
    "GaAs": {"crystalstructure": "zincblende", "a": 5.65},
}
RUTILE = {"spacegroup": 136, "cellpar": [4.59, 4.59, 2.96, 90, 90, 90]}  # six atoms, primitive
TINY = ModelConfig(
    AutoencoderConfig(
        dim=16,
        num_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        identity_start=True,
        canonical=True,
        geometry=True,
        log_variance_start=-5.0,
        latent_noise=0.1,
    ),
    DenoiserConfig(dim=16, num_heads=2, num_layers=2, geometry=True, size_condition=True),
)
PAPER = ModelConfig(  # random poses, no geometry
    AutoencoderConfig(dim=16, num_heads=2, num_encoder_layers=1, num_decoder_layers=1),
    DenoiserConfig(dim=16, num_heads=2, num_layers=1),
)
SCHEDULE = TrainingConfig(
    steps=8,
    batch_size=6,
    crystal_fraction=0.5,
    learning_rate=2e-3,
    warmup_steps=3,
    log_every=1,
    validate_every=4,
    accelerator="cpu",
)

Run = Callable[..., TrainingResult]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Keep parsed data out of the user's cache."""
    monkeypatch.setenv("ADIT_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def dataset() -> AtomicDataset:
    systems = [
        AtomicSystem.from_atoms(atoms)
        for atoms in (
            *(molecule(name) for name in MOLECULES),
            *(bulk(name, **options) for name, options in CRYSTALS.items()),
            crystal(["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], **RUTILE),
        )
    ]
    return canonical_dataset(AtomicDataset.from_systems(systems, "small"))


@pytest.fixture(scope="session")
def data_file(dataset: AtomicDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.npz"
    dataset.save(path)
    return path


@pytest.fixture
def make_config(data_file: Path) -> Callable[..., RunConfig]:
    """Return a config of a run; ``training`` options and those of RunConfig are both taken."""

    def make(output: Path, **options: Any) -> RunConfig:
        known = {"train", "validation", "model", "autoencoder", "init_from"}
        own = {name: options.pop(name) for name in known & set(options)}
        base = RunConfig((str(data_file),), str(output), (str(data_file),), TINY)
        return replace(base, training=replace(SCHEDULE, **options), **own)

    return make


@pytest.fixture
def run(make_config, first_stage: Path) -> Run:
    """Train a stage of the tiny model."""

    def go(stage: str, output: Path, resume: bool = False, **options: Any) -> TrainingResult:
        if stage == "denoiser":
            options.setdefault("autoencoder", str(first_stage))
        return run_stage(stage, make_config(output, **options), resume, progress=False)

    return go


@pytest.fixture(scope="session")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of an untrained stage 1 with canonical poses."""
    return save_first_stage(TINY, tmp_path_factory.mktemp("canonical"))


@pytest.fixture(scope="session")
def paper_first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of an untrained stage 1 for random poses."""
    return save_first_stage(PAPER, tmp_path_factory.mktemp("random"))


def save_first_stage(config: ModelConfig, folder: Path) -> Path:
    from adit_model.model import ADiT

    with torch.random.fork_rng():
        torch.manual_seed(1)
        ADiT(config, with_denoiser=False).save(folder / "autoencoder.safetensors")
    return folder / "autoencoder.safetensors"


@pytest.fixture
def write_config(make_config, first_stage: Path) -> Callable[..., Path]:
    """Write the config of a run for the command line."""

    def write(stage: str, output: Path, **options: Any) -> Path:
        config = make_config(output, **options)
        section = {**asdict(config.training), "output": config.output}
        if stage == "denoiser":
            section["autoencoder"] = str(first_stage)
        content = {
            "data": {"train": list(config.train), "validation": list(config.validation)},
            "model": config.model.as_dict(),
            stage: section,
        }
        path = output.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def saved() -> Callable[[Path], dict[str, Any]]:
    """Read the state of a run."""
    return lambda folder: torch.load(folder / STATE_NAME, weights_only=True)


@pytest.fixture
def log() -> Callable[..., list[dict[str, float]]]:
    """Read the log of a run: the rows that hold a column, without what tells the speed."""

    def read(folder: Path, column: str, speed: bool = False) -> list[dict[str, float]]:
        with open(folder / "logs" / "csv" / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        drop = () if speed else ("samples_per_s", "model_gflops", "epoch")
        return [
            {k: float(v) for k, v in row.items() if v and k not in drop}
            for row in rows
            if row.get(column)
        ]

    return read


@pytest.fixture
def assert_same_state() -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Two states are equal bit by bit: weights, average, optimiser, schedule, counters."""

    def compare(one: dict[str, Any], other: dict[str, Any]) -> None:
        assert one["global_step"] == other["global_step"]
        assert one["counters"]["samples_seen"] == other["counters"]["samples_seen"]
        for name in ("state_dict", "average", "optimizer_states", "lr_schedulers"):
            _assert_equal(one[name], other[name], name)

    return compare


def _assert_equal(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            _assert_equal(a, b, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=where)
    else:
        assert one == other, where
