"""Runs of both stages: from a config to a checkpoint, stopped and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from adit_model.checkpoint import read_metadata
from adit_model.conditions.known import PropertyRange
from adit_model.config import named_size
from adit_model.data.dataset import AtomicDataset
from adit_model.model import ADiT
from adit_model.systems import AtomicSystem
from adit_model.training.batches import StepSampler
from adit_model.training.callbacks import STATE_NAME, StateSaver
from adit_model.training.config import load_run_config
from adit_model.training.flops import training_flops
from adit_model.training.run import run_stage, train
from adit_model.training.stages import dataset_known

STAGES = ("autoencoder", "denoiser")
AT_ONCE = "00:00"  # max_time: stop after one step


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stage", STAGES)
def test_resumed_run_equals_an_uninterrupted_one(
    stage, optimizer, run, saved, log, assert_same_state, tmp_path
):
    options = {"steps": 5, "optimizer": optimizer, "decay_start": 0.5, "validate_every": 2}
    whole = run(stage, tmp_path / "whole", **options)
    for step in range(1, 4):  # stopped after each step, also after one that validates
        part = run(stage, tmp_path / "parts", resume=step > 1, max_time=AT_ONCE, **options)
        assert (part.step, part.finished, part.stopped_by) == (step, False, "max_time")
    part = run(stage, tmp_path / "parts", resume=True, **options)
    assert (whole.finished, part.finished, part.stopped_by) == (True, True, None)
    assert part.metrics.keys() == whole.metrics.keys()
    assert_same_state(saved(tmp_path / "parts"), saved(tmp_path / "whole"))
    for column in ("loss", "val/elements" if stage == "autoencoder" else "val/crystal"):
        assert log(tmp_path / "parts", column) == log(tmp_path / "whole", column)
    assert [row["step"] for row in log(tmp_path / "whole", "loss")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("every", [1, 2])
def test_a_run_killed_after_each_of_its_states_has_the_log_of_an_undisturbed_one(
    every, run, saved, log, assert_same_state, tmp_path, monkeypatch
):
    options = {"steps": 5, "validate_every": 2, "log_every": every, "checkpoint_minutes": 1e-9}
    run("autoencoder", tmp_path / "whole", **options)
    save = StateSaver.save

    class Killed(BaseException):
        pass

    def save_and_die(*args) -> None:
        save(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(StateSaver, "save", save_and_die)
        for _ in range(5):
            with pytest.raises(Killed):
                run("autoencoder", tmp_path / "parts", resume=True, **options)
    run("autoencoder", tmp_path / "parts", resume=True, **options)
    assert_same_state(saved(tmp_path / "parts"), saved(tmp_path / "whole"))
    for column in ("loss", "val/elements", "step"):
        assert log(tmp_path / "parts", column) == log(tmp_path / "whole", column)
    assert len(log(tmp_path / "whole", "val/elements")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("autoencoder", signal.SIGTERM),
        ("denoiser", signal.SIGUSR1),
        ("denoiser", signal.SIGINT),
        ("autoencoder", signal.SIGKILL),
    ],
)
def test_signal_stops_a_run_that_then_goes_on_exactly(
    stage, number, run, write_config, saved, log, assert_same_state, tmp_path
):
    killed = number == signal.SIGKILL
    options = {
        "steps": 100_000,
        "validate_every": 7,
        "checkpoint_minutes": 0.01 if killed else 0.002,
        "gradient_clip": 0.5,
    }
    # Under SLURM Lightning would requeue the job on SIGUSR1 by itself.
    job = dict.fromkeys(("PROCID", "LOCALID", "NODEID"), "0") | {
        "NTASKS": "1",
        "JOB_ID": "7",
        "JOB_NAME": "train",
        "NODELIST": "localhost",
    }
    slurm = {f"SLURM_{name}": value for name, value in job.items()}
    state = tmp_path / "parts" / STATE_NAME
    config = write_config(stage, tmp_path / "parts", **options)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "adit_model.cli",
            "train",
            stage,
            "--config",
            config,
            "--quiet",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (slurm if number == signal.SIGUSR1 else {}),
    )
    try:
        wait_until(state.exists, process)
        time.sleep(0.3)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    done = saved(tmp_path / "parts")["global_step"]
    if killed:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == (130 if number == signal.SIGINT else 0)
        assert errors == "small: 15 structures, 15 distinct\n"  # of the training data
        assert f"stopped by {number.name} after {done} steps" in output
        assert (tmp_path / "parts" / f"{stage}.safetensors").is_file()
    options["steps"] = done + 5
    part = run(stage, tmp_path / "parts", resume=True, **options)
    whole = run(stage, tmp_path / "whole", **options)
    assert part.finished
    assert part.step == whole.step == done + 5
    assert_same_state(saved(tmp_path / "parts"), saved(tmp_path / "whole"))
    assert log(tmp_path / "parts", "loss") == log(tmp_path / "whole", "loss")


def wait_until(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_resuming_a_finished_run_changes_nothing_but_lost_weights(run, tmp_path):
    first = run("autoencoder", tmp_path, steps=2)
    state, weights = first.state.read_bytes(), first.checkpoint.read_bytes()
    again = run("autoencoder", tmp_path, resume=True, steps=2)
    assert (again.step, again.finished, again.stopped_by) == (2, True, None)
    assert (first.state.read_bytes(), first.checkpoint.read_bytes()) == (state, weights)
    saved = ADiT.load(first.checkpoint).state_dict()
    first.checkpoint.unlink()
    run("autoencoder", tmp_path, resume=True, steps=2)
    for name, value in ADiT.load(first.checkpoint).state_dict().items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0)


def test_weights_follow_a_state_that_was_saved_last(run, tmp_path, monkeypatch):
    """Killed between its last state and its last weights, a run gives the last weights later."""
    whole = run("autoencoder", tmp_path / "whole", steps=3)
    run("autoencoder", tmp_path / "killed", steps=1)
    early = (tmp_path / "killed" / "autoencoder.safetensors").read_bytes()
    late = run("autoencoder", tmp_path / "killed", resume=True, steps=3)
    late.checkpoint.write_bytes(early)
    again = run("autoencoder", tmp_path / "killed", resume=True, steps=3)
    assert again.finished
    assert read_metadata(again.checkpoint)["training"]["steps"] == 3
    assert read_metadata(again.checkpoint)["hash"] == read_metadata(whole.checkpoint)["hash"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_used_output_is_not_overwritten(stage, run, tmp_path):
    first = run(stage, tmp_path, steps=1)
    before = first.checkpoint.read_bytes(), first.state.read_bytes()
    with pytest.raises(ValueError, match="holds a run already: resume it, or choose another"):
        run(stage, tmp_path, steps=2)
    assert (first.checkpoint.read_bytes(), first.state.read_bytes()) == before
    first.state.unlink()
    for resume in (False, True):
        with pytest.raises(ValueError, match=f"no {STATE_NAME} to resume: choose another output"):
            run(stage, tmp_path, resume=resume, steps=2)
    assert first.checkpoint.read_bytes() == before[0]


def test_the_state_of_another_run_is_refused(run, make_config, tmp_path):
    run("autoencoder", tmp_path, steps=1)
    (tmp_path / "autoencoder.safetensors").unlink()
    with pytest.raises(ValueError, match="the saved state is of AutoencoderModule, this run is of"):
        run("denoiser", tmp_path, resume=True)
    model = make_config(tmp_path).model
    wider = replace(model, autoencoder=replace(model.autoencoder, dim=32))
    with pytest.raises(ValueError, match=r"does not fit .*: decoder\.\S+ has shape .*16.* there"):
        run("autoencoder", tmp_path, resume=True, model=wider)
    (tmp_path / STATE_NAME).write_bytes((tmp_path / STATE_NAME).read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{STATE_NAME} is no saved state of a run"):
        run("autoencoder", tmp_path, resume=True)


def test_a_damaged_state_is_refused(run, tmp_path):
    run("autoencoder", tmp_path, steps=2)
    state = tmp_path / STATE_NAME
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(ValueError, match=f"{STATE_NAME} is damaged, its checksums do not fit"):
        run("autoencoder", tmp_path, resume=True, steps=4)
    assert state.read_bytes() == content


def test_two_runs_do_not_write_to_one_folder(run, saved, tmp_path):
    with FileLock(tmp_path / "run.lock"):
        for resume in (False, True):
            with pytest.raises(ValueError, match=f"another training writes to {tmp_path}: wait"):
                run("autoencoder", tmp_path, resume, steps=1)
    assert not (tmp_path / STATE_NAME).exists()
    run("autoencoder", tmp_path, steps=1)
    run("autoencoder", tmp_path, True, steps=2)
    assert saved(tmp_path)["global_step"] == 2


def test_learning_rate_and_steps_of_a_resumed_run_follow_the_config(run, saved, log, tmp_path):
    options = {"warmup_steps": 0, "decay_start": 0.5}
    run("autoencoder", tmp_path, steps=4, max_time=AT_ONCE, **options)
    run("autoencoder", tmp_path, True, steps=8, learning_rate=1e-4, weight_decay=0.1, **options)
    rates = [row["lr-AdamW"] for row in log(tmp_path, "lr-AdamW")]
    expected = [2e-3, *[1e-4] * 4, 0.75e-4, 0.5e-4, 0.25e-4]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert saved(tmp_path)["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.1


@pytest.mark.parametrize("stage", STAGES)
def test_checkpoint_holds_the_average_and_tells_its_origin(
    stage, run, saved, make_config, dataset, first_stage, tmp_path
):
    result = run(stage, tmp_path, steps=6, optimizer="muon")
    model, state = ADiT.load(result.checkpoint), saved(tmp_path)
    network = getattr(model, stage)
    differs = False
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state["average"][name], rtol=0, atol=0)
        differs |= not torch.equal(value, state["state_dict"][f"network.{name}"])
    assert differs
    known, orders = dataset_known(dataset)
    assert model.known == known
    assert model.element_orders.histogram == orders.histogram
    training = model.metadata["training"]
    assert (training["stage"], training["steps"], training["samples"]) == (stage, 6, 36)
    assert training["data"]["crystals"] + training["data"]["molecules"] == len(dataset)
    assert training["run"]["training"] == asdict(make_config(tmp_path).training) | {
        "steps": 6,
        "optimizer": "muon",
    }
    if stage == "denoiser":
        start = ADiT.load(first_stage)
        assert model.metadata["stage_1"]["hash"] == start.checkpoint_hash
        for name, value in model.autoencoder.state_dict().items():
            torch.testing.assert_close(value, start.autoencoder.state_dict()[name])
        assert len(model.sample(2, seed=0, num_steps=2, progress=False)) == 2


def test_properties_that_no_system_has_are_not_learned(dataset):
    """The named sizes list all properties of ours: own data may have none of them."""
    mini = named_size("mini").denoiser
    found = dataset_known(dataset, mini)[0].properties
    assert list(found) == ["volume_per_atom"]  # computed
    earlier = {
        "gap": PropertyRange("eV", 1.0, 5.0, 3.0, 2.0, ("molecule",)),
        "volume_per_atom": PropertyRange("angstrom^3", 1.0, 2.0, 1.5, 0.5),
    }
    tuned = dataset_known(dataset, mini, earlier)[0].properties
    volume = replace(earlier["volume_per_atom"], max=found["volume_per_atom"].max)
    assert dict(tuned) == {"volume_per_atom": volume, "gap": earlier["gap"]}
    with pytest.raises(ValueError, match="no system of small has a number named 'hardness'"):
        dataset_known(dataset, replace(mini, properties=("hardness",)))


@pytest.mark.parametrize("stage", STAGES)
def test_logs_tell_losses_and_speed(stage, run, log, dataset, tmp_path):
    run(stage, tmp_path, steps=8, log_every=2)
    rows = log(tmp_path, "samples_per_s", speed=True)
    assert [row["step"] for row in rows] == [1, 3, 5, 7]
    terms = {
        "autoencoder": {"elements", "fractional", "cartesian", "lengths", "angles", "kl"},
        "denoiser": {"crystal", "molecule", "crystal_coordinates", "molecule_coordinates"},
    }[stage]
    for row in rows:
        assert {f"train/{term}" for term in terms} | {"loss"} <= set(row)
        assert row["samples_per_s"] > 0
        assert row["model_gflops"] > 0
    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"val/{term}" for term in terms} <= tags
    for name in ("loss", "samples_per_s", "model_gflops"):
        scalars = events.Scalars(name)
        assert [event.step for event in scalars] == [1, 3, 5, 7]
        np.testing.assert_allclose([e.value for e in scalars], [r[name] for r in rows], rtol=1e-6)


def test_model_flops_are_those_of_the_batches(run, log, tmp_path, make_config, dataset):
    """FLOP rate over sample rate is the mean cost of a sample."""
    run("autoencoder", tmp_path, steps=4, log_every=4)
    (row,) = log(tmp_path, "samples_per_s", speed=True)
    settings = make_config(tmp_path).training
    sampler = StepSampler(dataset.periodic, settings.batch_size, settings.crystal_fraction, 0)
    atoms = sum(int(dataset.sizes[sampler.indices(step)].sum()) for step in range(4))
    network = ADiT(make_config(tmp_path).model, with_denoiser=False).autoencoder
    expected = training_flops(network, atoms, 4 * settings.batch_size) / 1e9
    measured = row["model_gflops"] / row["samples_per_s"] * 4 * settings.batch_size
    assert measured == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_init_from_starts_from_given_weights(stage, run, saved, tmp_path):
    trained = run(stage, tmp_path / "first", steps=5)
    options = {"init_from": str(trained.checkpoint), "steps": 1, "learning_rate": 1e-30}
    result = run(stage, tmp_path / "second", **options)
    start, end = ADiT.load(trained.checkpoint), ADiT.load(result.checkpoint)
    for name, value in getattr(end, stage).state_dict().items():
        torch.testing.assert_close(value, getattr(start, stage).state_dict()[name])
    training = end.metadata["training"]
    assert training["init_from_hash"] == start.checkpoint_hash
    assert training["init_from"]["steps"] == 5


def test_init_from_fewer_blocks_starts_from_the_same_predictions(run, make_config, log, tmp_path):
    trained = run("denoiser", tmp_path / "first", steps=4)
    model = make_config(tmp_path).model
    deeper = replace(model, denoiser=replace(model.denoiser, num_layers=4, time_focus=0.5))
    options = {"init_from": str(trained.checkpoint), "learning_rate": 1e-30}
    for name, config in (("same", model), ("deeper", deeper)):
        run("denoiser", tmp_path / name, model=config, **options)
    losses = [
        [{k: v for k, v in row.items() if k.startswith("val/")} for row in log(folder, column)]
        for folder in (tmp_path / "same", tmp_path / "deeper")
        for column in ("val/crystal",)
    ]
    assert losses[0]
    for one, other in zip(*losses, strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    shallow = replace(model, denoiser=replace(model.denoiser, num_layers=1))
    odd = replace(model, denoiser=replace(model.denoiser, num_layers=4, dim=32))
    for config in (shallow, odd):
        with pytest.raises(ValueError, match="do not fit this run"):
            run("denoiser", tmp_path / "third", model=config, **options)


def test_bfloat16_trains(run, log, tmp_path):
    exact = run("denoiser", tmp_path / "32", steps=3)
    rough = run("denoiser", tmp_path / "bf16", steps=3, precision="bf16")
    one, other = (log(folder, "loss") for folder in (tmp_path / "32", tmp_path / "bf16"))
    assert [r["loss"] for r in other] == pytest.approx([r["loss"] for r in one], rel=0.05)
    assert one != other
    weights = ADiT.load(rough.checkpoint).denoiser.state_dict()
    assert all(w.dtype == torch.float32 for w in weights.values())
    assert exact.finished
    assert rough.finished


def test_second_stage_reads_its_latents_again(run, saved, tmp_path):
    run("denoiser", tmp_path, steps=2)
    (file,) = tmp_path.glob("latents-*.npy")
    before = file.stat().st_mtime_ns
    mean = saved(tmp_path)["average"]["latent_mean"]
    assert mean.abs().max() > 0
    run("denoiser", tmp_path, resume=True, steps=4)
    assert file.stat().st_mtime_ns == before
    assert list(tmp_path.glob("latents-*.npy")) == [file]
    torch.testing.assert_close(saved(tmp_path)["average"]["latent_mean"], mean)


def test_mistakes_are_found_before_any_work(
    run, make_config, dataset, first_stage, paper_first_stage, tmp_path
):
    folder = tmp_path / "out"
    gold = AtomicSystem(np.array([118]), np.zeros((1, 3)), None, {"id": "heavy"})
    AtomicDataset.from_systems([dataset[0], gold, dataset[1]], "odd").save(tmp_path / "odd.npz")
    (tmp_path / "empty.csv").write_text("material_id,cif\n")
    (tmp_path / "none").mkdir()
    model = make_config(folder).model
    wider = replace(model, autoencoder=replace(model.autoencoder, dim=32))
    cases = [
        ("denoiser", {"autoencoder": None}, "stage 2 needs denoiser.autoencoder"),
        ("denoiser", {"autoencoder": "absent.safetensors"}, "no checkpoint 'absent.safetensors'"),
        ("autoencoder", {"autoencoder": str(first_stage)}, "stage 1 starts from other weights by"),
        ("autoencoder", {"init_from": "nothing"}, "no checkpoint 'nothing'"),
        ("autoencoder", {"freeze_encoder": True}, "freeze_encoder is for stage 1 with init_from"),
        ("denoiser", {"freeze_encoder": True}, "freeze_encoder is for stage 1 with init_from"),
        ("denoiser", {"only_conditions": True}, "only_conditions is for stage 2 with init_from"),
        ("autoencoder", {"train": (str(tmp_path / "absent.npz"),)}, "no data file .*absent.npz"),
        ("autoencoder", {"train": (str(tmp_path / "empty.csv"),)}, "empty"),
        ("autoencoder", {"train": (str(tmp_path / "none"),)}, "none"),
        ("autoencoder", {"train": ("nonsense",)}, "unknown data source 'nonsense'"),
        ("autoencoder", {"train": (str(tmp_path / "odd.npz"),)}, "system heavy of odd .* 118"),
        ("denoiser", {"validation": (str(tmp_path / "odd.npz"),)}, "system heavy of odd .* 118"),
        ("autoencoder", {"batch_size": 2, "crystal_fraction": 0.1}, "no place for both domains"),
        ("autoencoder", {"batch_size": 2, "devices": 3}, "batch_size 2 is less than 3 processes"),
        ("autoencoder", {"init_from": str(first_stage), "model": wider}, "do not fit this run"),
        ("denoiser", {"init_from": str(first_stage)}, "has no denoiser to start from"),
        ("denoiser", {"autoencoder": str(paper_first_stage)}, "geometry needs .*identity_start"),
    ]
    for stage, options, message in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run(stage, folder, **options)
        assert not folder.exists() or not list(folder.iterdir()), message


def test_progress_bar_shows_the_loss(make_config, capfd, tmp_path):
    run_stage("autoencoder", make_config(tmp_path, steps=10), progress=True)
    shown = capfd.readouterr()
    assert "train_loss=" in shown.out + shown.err
    assert "sps=" in shown.out + shown.err
    assert "v_num" not in shown.out + shown.err


def test_config_file_is_trained(write_config, first_stage, tmp_path):
    path = write_config("denoiser", tmp_path / "run", steps=50)
    result = train("denoiser", path, ["denoiser.steps=3"], progress=False)
    assert (result.step, result.finished) == (3, True)


@pytest.mark.parametrize("name", ["mini", "paper-small", "paper-base"])
def test_recipes_start(name, data_file, tmp_path):
    """Both stages of each recipe take two steps, on other data and with smaller networks."""
    recipe = Path(__file__).parents[3] / "examples" / "training" / f"{name}.yaml"
    config = load_run_config("denoiser", recipe).model
    assert config.denoiser.dim == {"mini": 192, "paper-small": 384, "paper-base": 768}[name]
    options = [
        f"data.train={data_file}",
        f"data.validation={data_file}",
        "model.autoencoder={dim: 16, num_heads: 2, num_encoder_layers: 1, num_decoder_layers: 1}",
        "model.denoiser={dim: 16, num_heads: 2, num_layers: 2, properties: []}",
        f"denoiser.autoencoder={tmp_path}/autoencoder/autoencoder.safetensors",
    ]
    for stage in ("autoencoder", "denoiser"):
        small = [f"{stage}.steps=2", f"{stage}.batch_size=6", f"{stage}.precision='32'"]
        output = f"{stage}.output={tmp_path}/{stage}"
        result = train(stage, recipe, [*options, *small, output], progress=False)
        assert (result.step, result.finished) == (2, True)
    model = ADiT.load(result.checkpoint)
    assert len(model.sample(2, num_steps=2, solver="euler", progress=False)) == 2
