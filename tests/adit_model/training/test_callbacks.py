"""Averages and saved states."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from adit_model.data.dataset import AtomicDataset
from adit_model.model import ADiT
from adit_model.systems import AtomicSystem
from adit_model.training.callbacks import SIGNALS, STATE_NAME, StateSaver, WeightAverager


@pytest.fixture
def far_away(dataset, tmp_path, monkeypatch) -> Path:
    """Data with one molecule whose coordinates overflow when squared."""
    monkeypatch.setattr("adit_model.systems.MAX_COORDINATE", 1e31)
    broken = AtomicSystem(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1e30]]), None)
    path = tmp_path / "far.npz"
    AtomicDataset.from_systems([*dataset, broken], "far").save(path)
    return path


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_state(
    run, far_away, saved, tmp_path
):
    folder = tmp_path / "run"
    options = {"checkpoint_minutes": 1e-6, "crystal_fraction": 0.4, "batch_size": 5, "steps": 30}
    options["validation"] = ()
    with pytest.raises(
        FloatingPointError, match=rf"the (loss|weights) .*: resume from {folder / STATE_NAME} with"
    ) as error:
        run("autoencoder", folder, train=(str(far_away),), seed=1, **options)
    state = saved(folder)
    assert f"step {state['global_step']} " in str(error.value)  # the one after the saved ones
    for values in (state["state_dict"], state["average"]):
        assert all(bool(torch.isfinite(v).all()) for v in values.values())
    assert ADiT.load(folder / "autoencoder.safetensors")
    assert not list(folder.glob("*.partial"))
    with pytest.raises(FloatingPointError):  # it meets the same batch again
        run("autoencoder", folder, True, train=(str(far_away),), seed=1, **options)
    assert saved(folder)["global_step"] == state["global_step"]


def test_without_a_state_the_advice_is_to_start_again(run, far_away, tmp_path):
    options = {"log_every": 3, "crystal_fraction": 0.4, "steps": 30, "validation": ()}
    with pytest.raises(FloatingPointError, match="start again with a lower learning_rate"):
        run("autoencoder", tmp_path / "run", train=(str(far_away),), **options)
    assert not (tmp_path / "run" / STATE_NAME).exists()


def test_state_is_saved_on_time(tmp_path, run, monkeypatch):
    saves = []
    save = StateSaver.save

    def noted(self, trainer, module):
        saves.append(trainer.global_step)
        save(self, trainer, module)

    monkeypatch.setattr(StateSaver, "save", noted)
    run("autoencoder", tmp_path / "always", steps=4, checkpoint_minutes=1e-6)
    assert saves == [1, 2, 3, 4]
    saves.clear()
    run("autoencoder", tmp_path / "rarely", steps=4, checkpoint_minutes=60)
    assert saves == [4]


def test_time_limit_saves_and_stops(run, saved, tmp_path):
    result = run("autoencoder", tmp_path, steps=100_000, max_time="00:01", validate_every=1000)
    assert (result.stopped_by, result.finished) == ("max_time", False)
    assert 1 < result.step < 100_000
    assert saved(tmp_path)["global_step"] == result.step
    assert ADiT.load(result.checkpoint).metadata["training"]["steps"] == result.step


def test_second_interrupt_does_not_wait_for_the_step(tmp_path):
    saver = StateSaver(tmp_path, 60, None, lambda module: None, interactive=True)
    saver.install()
    try:
        signal.raise_signal(signal.SIGINT)
        assert saver.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        saver.restore()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_of_a_run_in_python_is_not_caught(tmp_path):
    saver = StateSaver(tmp_path, 60, None, lambda module: None)
    saver.install()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        saver.restore()


def test_a_swallowed_interrupt_of_a_run_in_python_ends_it_after_the_step(
    run, tmp_path, monkeypatch
):
    def swallow(self, trainer, *args):
        steps.append(trainer.global_step)
        if trainer.global_step == 2:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    steps = []
    monkeypatch.setattr(WeightAverager, "on_train_batch_end", swallow)
    with pytest.raises(KeyboardInterrupt):
        run("autoencoder", tmp_path, steps=9)
    assert steps == [1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_shell_ignores_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    saver = StateSaver(tmp_path, 60, None, lambda module: None, interactive=True)
    try:
        saver.install()
        signal.raise_signal(signal.SIGINT)
        assert saver.received is None
        saver.restore()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        saver.restore()
        signal.signal(signal.SIGINT, before)


def test_signal_handlers_are_put_back(run, tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    run("autoencoder", tmp_path / "good", steps=1)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(ValueError, match="holds a run already"):
        run("autoencoder", tmp_path / "good", steps=1)
    assert [signal.getsignal(number) for number in SIGNALS] == before
