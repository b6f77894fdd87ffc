"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
if shutil.which("nvidia-smi") is None:  # Triton's own functions ask for it at the first import
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("busy", deadline=None)  # a busy machine is no failure
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    """Take Ctrl-C even where the shell ignores it, as it does for `nohup python -m pytest &`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the training data; tests that ask for it are skipped where it is absent."""
    given = os.environ.get("ADIT_DATA_DIR")
    path = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no training data in {path}: set ADIT_DATA_DIR")
    return path


@pytest.fixture
def clean_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def job_store():
    """Job store in memory, with the additional store ``data``."""
    from jobflow import JobStore
    from maggma.stores import MemoryStore

    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    store.connect()
    return store


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of an untrained model with random weights: quick, and often unphysical."""
    import torch

    from adit_model.conditions.known import Known
    from adit_model.config import AutoencoderConfig, DenoiserConfig, ModelConfig, SamplingConfig
    from adit_model.model import ADiT

    width = {"dim": 16, "num_heads": 2}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    config = ModelConfig(
        AutoencoderConfig(**width, **layers, identity_start=True, canonical=True),
        DenoiserConfig(**width, num_layers=1),
        SamplingConfig(num_steps=3, guidance_scale=1.0),
    )
    sizes = {"crystal": {"2": 3, "4": 5, "8": 1}, "molecule": {"3": 2, "5": 2}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ADiT(config, Known.of_checkpoint(config.as_dict(), {"sizes": sizes}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    model.save(path)
    return path
