"""Jobs that train a stage: chained, killed, run again, in several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from jobflow import Flow, run_locally
from monty.json import MontyDecoder, MontyEncoder

pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")

from training_cases import SCHEDULE, last_output, options

from adit_atomate import ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker
from adit_model.checkpoint import CheckpointError
from adit_model.data.structures import load_structures
from adit_model.model import ADiT

MAKERS = {"autoencoder": ADiTTrainAutoencoderMaker, "denoiser": ADiTTrainDenoiserMaker}
CASES = Path(__file__).with_name("training_cases.py")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("ADIT_TRAINING_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("ADIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def data_file(tmp_path_factory) -> str:
    structures = [
        *(molecule(name) for name in ("H2O", "CH4", "NH3", "CH3CH2OH", "C6H6", "CO2")),
        *(bulk(name) for name in ("Si", "Cu", "Ti")),
        bulk("NaCl", "rocksalt", a=5.64),
    ]
    path = tmp_path_factory.mktemp("data") / "small.npz"
    load_structures(structures, name="small", progress=False).save(path)
    return str(path)


@pytest.fixture(scope="session")
def first_stage(tmp_path_factory) -> str:
    import torch

    from adit_model.config import ModelConfig

    path = tmp_path_factory.mktemp("stage") / "autoencoder.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ADiT(ModelConfig.from_dict(options()["model"]), with_denoiser=False).save(path)
    return str(path)


@pytest.fixture
def make(data_file, first_stage):
    def go(stage, training=None, **fields):
        maker = MAKERS[stage](**options(**(training or {})), **fields)
        arguments = {"autoencoder": first_stage} if stage == "denoiser" else {}
        return maker.make(train=[data_file], validation=[data_file], **arguments)

    return go


@pytest.fixture
def run(make, job_store):
    def go(stage, training=None, **fields):
        job = make(stage, training, **fields)
        responses = run_locally(job, store=job_store, ensure_success=True)[job.uuid]
        return [responses[index].output for index in sorted(responses)]

    return go


@pytest.mark.parametrize("stage", MAKERS)
def test_a_chain_of_jobs_equals_one_job(stage, run, job_store):
    (whole,) = run(stage)
    parts = run(stage, steps_per_job=2)
    assert [part.step for part in parts] == [2, 4, 6]
    assert [part.first_step for part in parts] == [0, 2, 4]
    assert [part.job_index for part in parts] == [1, 2, 3]
    assert [part.stopped_by for part in parts] == ["stop_after", "stop_after", None]
    assert [part.finished for part in parts] == [False, False, True]
    assert parts[-1].checkpoint.hash == whole.checkpoint.hash  # of all weights
    assert parts[0].checkpoint.hash != whole.checkpoint.hash
    assert parts[-1].folder == parts[0].folder != whole.folder
    assert parts[-1].curves.keys() == whole.curves.keys()
    for name, curve in whole.curves.items():
        assert parts[-1].curves[name].steps == curve.steps
        np.testing.assert_allclose(parts[-1].curves[name].values, curve.values, rtol=1e-6)
    assert whole.curves["loss"].steps == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_few_seconds_for_each_job_give_the_same_end(run):
    (probe,) = run("denoiser", {"steps": 60})
    steps = max(60, int(3.6 * probe.throughput.samples_per_second / SCHEDULE["batch_size"]))
    schedule = {"steps": steps, "validate_every": 10_000, "log_every": 10}
    parts = run("denoiser", schedule, max_time="00:02")
    (whole,) = run("denoiser", schedule)
    assert len(parts) >= 3
    assert {part.stopped_by for part in parts[:-1]} == {"max_time"}
    assert all(part.throughput.job_seconds < 5 for part in parts)
    assert parts[-1].checkpoint.hash == whole.checkpoint.hash
    np.testing.assert_allclose(
        parts[-1].curves["loss"].values, whole.curves["loss"].values, rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("signals", [(signal.SIGKILL, signal.SIGTERM), (signal.SIGUSR1,)])
def test_a_stopped_job_goes_on_in_another_folder(signals, make, tmp_path):
    """SIGUSR1 makes the process chain a job; the others end it, and the job is run again."""
    schedule = {"steps": 200, "checkpoint_minutes": 0.002, "log_every": 50, "validate_every": 500}
    job = make("autoencoder", schedule)
    (tmp_path / "job.json").write_text(json.dumps(job, cls=MontyEncoder))
    state = tmp_path / "runs" / f"autoencoder-{job.uuid}" / "last.ckpt"

    def start(name):
        (tmp_path / name).mkdir()
        return subprocess.Popen(
            [sys.executable, CASES, tmp_path / "job.json"],
            cwd=tmp_path / name,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_a_new_state(process):
        known = state.stat().st_mtime_ns if state.exists() else None
        end = time.monotonic() + 120
        while not state.exists() or state.stat().st_mtime_ns == known:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)

    process = start("0")
    try:
        for i, number in enumerate(signals, 1):
            wait_for_a_new_state(process)
            process.send_signal(number)
            output, errors = process.communicate(timeout=120)
            if number == signal.SIGUSR1:
                break
            status = -number if number == signal.SIGKILL else 128 + number
            assert process.returncode == status, errors
            assert output.count("Starting job") == 1  # and no other
            process = start(str(i))
        else:
            output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    document = json.loads(output.splitlines()[-1])
    assert document["finished"]
    assert 0 < document["first_step"] < 200
    assert document["job_index"] == (2 if signal.SIGUSR1 in signals else 1)
    again = make("autoencoder", schedule)  # another uuid, so another folder
    whole = last_output(run_locally(again, ensure_success=True), again)
    assert whole.first_step == 0
    assert document["checkpoint"]["hash"] == whole.checkpoint.hash
    losses = document["curves"]["loss"]["values"]
    np.testing.assert_allclose(losses, whole.curves["loss"].values, rtol=1e-6)


@pytest.mark.slow
def test_two_processes_of_one_job(run):
    """Two processes with half a batch each: the first loss is that of one with all of it."""
    systems = {"crystal_fraction": 0.5, "batch_size": 4, "steps": 8}
    (one,) = run("denoiser", systems)
    parts = run("denoiser", {**systems, "devices": 2}, steps_per_job=5)
    assert [part.step for part in parts] == [5, 8]
    assert parts[-1].throughput.processes == 2
    assert parts[-1].throughput.samples_per_second > 0
    assert parts[-1].samples == one.samples == 32
    assert parts[-1].curves["loss"].steps == one.curves["loss"].steps
    validation = [part.curves["val/crystal"].values for part in (one, parts[-1])]
    np.testing.assert_allclose(validation[1], validation[0], rtol=0.15)  # other noise in training


def test_document(run, data_file, first_stage, job_store):
    (document,) = run("denoiser", {"steps": 30}, curve_points=5)
    assert document.stage == "denoiser"
    assert document.config["training"]["steps"] == 30
    assert document.config["model"]["denoiser"]["dim"] == 16
    assert document.data.sources == [data_file]
    assert (document.data.crystals, document.data.molecules) == (4, 6)
    assert len(document.data.fingerprint) == 64
    assert document.samples == 180
    assert document.curves["loss"].steps == [0, 7, 14, 22, 29]
    assert document.metrics["loss"] == document.curves["loss"].values[-1]
    assert {"train/crystal", "val/molecule", "lr-AdamW"} <= set(document.curves)
    assert document.throughput.samples_per_second > 0
    assert document.autoencoder.hash == ADiT.load(first_stage).checkpoint_hash
    model = ADiT.load(document.checkpoint.path)
    assert document.checkpoint.hash == model.checkpoint_hash
    stored = job_store.query_one({"name": "ADiT train denoiser"})["output"]
    assert stored["checkpoint"]["path"] == document.checkpoint.path
    assert type(document)(**stored).curves == document.curves


def test_stages_are_linked_by_a_reference(data_file, job_store):
    first = ADiTTrainAutoencoderMaker(**options(steps=2), steps_per_job=1).make([data_file])
    second = ADiTTrainDenoiserMaker(**options(steps=2)).make(
        [data_file], first.output.checkpoint.path
    )
    responses = run_locally(Flow([first, second]), store=job_store, ensure_success=True)
    stage_1, stage_2 = last_output(responses, first), last_output(responses, second)
    assert stage_1.step == 2
    assert stage_2.autoencoder.hash == stage_1.checkpoint.hash


def test_a_folder_of_another_run_is_refused(make, run, tmp_path, job_store):
    output = str(tmp_path / "mine")
    (first,) = run("autoencoder", output=output)
    assert first.folder == output
    (again,) = run("autoencoder", {"checkpoint_minutes": 3.0}, output=output)  # the same run
    assert again.checkpoint.hash == first.checkpoint.hash
    assert again.first_step == 6
    job = make("autoencoder", {"learning_rate": 1e-4}, output=output)
    with pytest.raises(ValueError, match="holds a run with other training: choose another output"):
        run_locally(job, store=job_store, raise_immediately=True)
    job = make("denoiser", output=output)
    with pytest.raises(ValueError, match="holds a run with other stage, autoencoder"):
        run_locally(job, store=job_store, raise_immediately=True)
    assert ADiT.load(first.checkpoint.path).checkpoint_hash == first.checkpoint.hash


def test_weights_to_start_from_bring_their_architecture(data_file, first_stage, job_store):
    maker = ADiTTrainAutoencoderMaker(training={**SCHEDULE, "steps": 1, "learning_rate": 1e-30})
    job = maker.make([data_file], init_from=first_stage)  # model says mini
    document = last_output(run_locally(job, store=job_store, ensure_success=True), job)
    assert document.init_from.hash == ADiT.load(first_stage).checkpoint_hash
    start, end = ADiT.load(first_stage), ADiT.load(document.checkpoint.path)
    assert end.config.autoencoder == start.config.autoencoder
    for name, value in end.state_dict().items():
        np.testing.assert_allclose(value, start.state_dict()[name], atol=1e-20)


def test_jobs_survive_json(make, job_store):
    job = make("autoencoder", max_time="11:30:00", launcher="srun")
    again = json.loads(json.dumps(job, cls=MontyEncoder), cls=MontyDecoder)
    assert again.maker == job.maker
    assert tuple(again.function_args) == job.function_args


@pytest.mark.parametrize(
    ("stage", "fields", "message"),
    [
        ("autoencoder", {"output": "runs"}, "output must be an absolute path.*got 'runs'"),
        ("autoencoder", {"max_time": "soon"}, "must look like HH:MM:SS, got 'soon'"),
        ("autoencoder", {"steps_per_job": 0}, "stop_after must be positive, got 0"),
        ("autoencoder", {"curve_points": 1}, "curve_points must be at least 2, got 1"),
        ("autoencoder", {"training": {"setps": 3}}, "unknown option training.setps"),
        ("denoiser", {"training": {"max_time": "1:00"}}, "set by the Maker's field max_time"),
        ("autoencoder", {"training": {"num_nodes": 2}}, "2 nodes need a launcher"),
        ("autoencoder", {"training": {"freeze_encoder": True}}, "freeze_encoder needs init_from"),
        ("denoiser", {"training": {"freeze_encoder": True}}, "freeze_encoder is an option of"),
        ("denoiser", {"model": {"size": "huge"}}, "size must be one of"),
    ],
)
def test_mistakes_are_found_when_the_job_is_made(stage, fields, message, data_file, first_stage):
    arguments = {"autoencoder": first_stage} if stage == "denoiser" else {}
    with pytest.raises(ValueError, match=message):
        MAKERS[stage](**fields).make([data_file], **arguments)


def test_missing_checkpoints_and_data(data_file):
    with pytest.raises(CheckpointError, match="no checkpoint 'absent'"):
        ADiTTrainDenoiserMaker().make([data_file], "absent")
    with pytest.raises(ValueError, match="train names no source"):
        ADiTTrainAutoencoderMaker().make([])
    with pytest.raises(TypeError, match="train must be a list of sources"):
        ADiTTrainAutoencoderMaker().make(data_file)


def test_processes_that_fail_tell_why(make, job_store):
    job = make("autoencoder", launcher=f"{sys.executable} -c 'raise SystemExit(\"no node\")'")
    with pytest.raises(RuntimeError, match=r"ended with status 1.*\n.*no node"):
        run_locally(job, store=job_store, raise_immediately=True)


@pytest.mark.slow
def test_a_launcher_starts_the_processes(run):
    (one,) = run("autoencoder", {"steps": 3})
    launcher = "torchrun --no-python --standalone --nproc-per-node 1"
    env = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{env}"
    try:
        (other,) = run("autoencoder", {"steps": 3}, launcher=launcher)
    finally:
        os.environ["PATH"] = env
    losses = [document.curves["loss"].values for document in (one, other)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
