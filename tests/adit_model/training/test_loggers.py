"""Logs that go on where a run was stopped."""

from __future__ import annotations

import csv
import logging
import threading
import warnings
from pathlib import Path

import pytest
import torch

from adit_model.training import loggers
from adit_model.training.loggers import build_loggers, quiet_lightning, saved_step


def read(folder):
    with open(folder / "logs" / "csv" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def write(folder, start, steps, name="loss"):
    logger, tensorboard = build_loggers(folder, start)
    for step in steps:
        logger.log_metrics({name: step / 2}, step=step)
    logger.save()
    tensorboard.finalize("success")


def test_lines_before_the_resumed_step_stay(tmp_path):
    write(tmp_path, 0, range(6))
    write(tmp_path, 4, range(4, 8))
    assert [(int(r["step"]), float(r["loss"])) for r in read(tmp_path)] == [
        (step, step / 2) for step in range(8)
    ]


def test_a_new_run_starts_a_new_log(tmp_path):
    write(tmp_path, 0, range(6))
    write(tmp_path, 0, range(2))
    assert [int(r["step"]) for r in read(tmp_path)] == [0, 1]


def test_new_columns_join_old_ones(tmp_path):
    write(tmp_path, 0, [0])
    write(tmp_path, 1, [1], name="val/loss")
    rows = read(tmp_path)
    assert [(r["loss"], r["val/loss"]) for r in rows] == [("0.0", ""), ("", "0.5")]


def test_no_line_is_lost_while_the_log_is_written_anew(tmp_path, monkeypatch):
    write(tmp_path, 0, range(3))
    before = read(tmp_path)

    def kill(*args):
        raise KeyboardInterrupt

    logger, _ = build_loggers(tmp_path, 3)
    logger.log_metrics({"loss": 1.5}, step=3)
    logger.save()
    logger.log_metrics({"val/loss": 1.0}, step=3)  # a new column
    monkeypatch.setattr(Path, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        logger.save()
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 4, [])
        build_loggers(tmp_path, 3)[0].experiment  # noqa: B018 - its making writes the file
    assert read(tmp_path)[:3] == before and len(read(tmp_path)) == 4


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, 0, range(3))
    path = tmp_path / "logs" / "csv" / "metrics.csv"
    path.write_text(path.read_text().rstrip() + "\n1.5")
    write(tmp_path, 5, [5])
    assert [int(r["step"]) for r in read(tmp_path)] == [0, 1, 2, 5]


def test_step_of_a_saved_state(tmp_path):
    torch.save({"global_step": 17}, tmp_path / "good")
    assert saved_step(tmp_path / "good") == 17
    torch.save({"weights": 1}, tmp_path / "other")
    (tmp_path / "text").write_text("not a state")
    (tmp_path / "empty").write_bytes(b"")
    damaged = bytearray((tmp_path / "good").read_bytes())
    place = damaged.index(b"global_step")
    damaged[place] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged is damaged, its checksums do not fit: put a"):
        saved_step(tmp_path / "damaged")
    for name in ("other", "text", "empty"):
        with pytest.raises(ValueError, match=f"{name} is no saved state of a run"):
            saved_step(tmp_path / name)


def test_every_damage_to_the_table_of_a_state_is_a_plain_error(tmp_path):
    torch.save({"global_step": 17}, tmp_path / "good")
    content = (tmp_path / "good").read_bytes()
    for place in range(len(content) - 400, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x80
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            assert saved_step(tmp_path / "damaged") == 17  # where it says nothing of the content
        except ValueError as error:
            assert "damaged" in str(error)


def test_lightning_is_quiet_only_meanwhile():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level, len(warnings.filters)
    with pytest.raises(RuntimeError), quiet_lightning():
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
        raise RuntimeError
    assert (logger.level, len(warnings.filters)) == before


def test_only_known_warnings_are_hidden():
    with pytest.warns(UserWarning, match="something else"), quiet_lightning():
        warnings.warn("The 'train_dataloader' does not have many workers, or so", stacklevel=1)
        warnings.warn("something else", stacklevel=1)


def test_closing_after_an_interrupt_inside_tensorboard_does_not_wait_for_ever(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(loggers, "CLOSING_SECONDS", 0.1)
    logger = loggers.StepTensorBoardLogger(tmp_path, "logs")
    logger.log_metrics({"loss": 1.0}, 0)
    lock = logger.experiment.file_writer.event_writer._async_writer._lock
    lock.acquire()  # as KeyboardInterrupt leaves it
    closing = threading.Thread(target=logger.finalize, args=("failed",), daemon=True)
    closing.start()
    closing.join(10)
    ended = not closing.is_alive()
    lock.release()
    assert ended
