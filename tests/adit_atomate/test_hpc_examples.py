"""The configuration files and the submission to jobflow-remote in examples/hpc."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HPC = Path(__file__).resolve().parents[2] / "examples" / "hpc"


@pytest.mark.slow
@pytest.mark.integration
def test_submission_to_jobflow_remote_is_built(tiny_checkpoint):
    pytest.importorskip("jobflow_remote", reason="jobflow-remote is not installed")
    pytest.importorskip("chgnet", reason="the flow relaxes with CHGNet")
    script = HPC / "jobflow_remote" / "submit.py"
    out = subprocess.run(
        [sys.executable, script, "-n", "9", "--samples-per-job", "5", "--build-only"],
        env={**os.environ, "ADIT_CHECKPOINT": str(tiny_checkpoint)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert out.returncode == 0, out.stderr
    workers = dict(line.split(": ") for line in out.stdout.splitlines() if line.startswith("ADiT"))
    assert workers["ADiT generate 1/2"] == workers["ADiT generate 2/2"] == "gpu"
    others = {name: worker for name, worker in workers.items() if "generate" not in name}
    assert {"ADiT screen", "ADiT uniqueness", "ADiT candidates"} <= set(others)
    assert set(others.values()) == {"light"}  # relaxations are jobs of their own, made on the way


def test_project_of_jobflow_remote():
    """What `jf project check` reads, and the script that SLURM gets."""
    pytest.importorskip("jobflow_remote", reason="jobflow-remote is not installed")
    from jobflow_remote.config.base import Project
    from maggma.stores import GridFSStore, MongoStore
    from qtoolkit.core.data_objects import QResources

    project = Project(**yaml.safe_load((HPC / "jobflow_remote" / "adit.yaml").read_text()))
    assert set(project.workers) == {"gpu", "cpu", "light"}
    store = project.get_jobstore()
    assert isinstance(store.docs_store, MongoStore)
    assert isinstance(store.additional_stores["data"], GridFSStore)
    queue = project.get_queue_store()
    assert queue.collection_name != store.docs_store.collection_name
    scripts = {}
    for name, worker in project.workers.items():
        io = worker.get_scheduler_io()
        scripts[name] = io.get_submission_script("run", QResources(**worker.resources))
    assert "--partition=gpu" in scripts["gpu"]
    assert "--gres=gpu:1" in scripts["gpu"]
    for name in ("cpu", "light"):
        assert "--partition=cpu" in scripts[name]
        assert "gres" not in scripts[name]
    for script in scripts.values():
        assert "--account=my_account" in script
        assert "--cpus-per-task=" in script


@pytest.mark.parametrize("folder", ["jobflow_remote", "training"])
def test_scripts_of_the_jobs_have_account_and_cores(folder):
    """Resources that a job brings replace those of its worker, so they must be complete."""
    pytest.importorskip("jobflow_remote", reason="jobflow-remote is not installed")
    from jobflow_remote.config.base import Project
    from qtoolkit.core.data_objects import QResources

    project = Project(**yaml.safe_load((HPC / "jobflow_remote" / "adit.yaml").read_text()))
    make_flow = runpy.run_path(str(HPC / folder / "submit.py"))["make_flow"]
    flow = make_flow(9, 5) if folder == "jobflow_remote" else make_flow(["known"])
    seen = set()
    for job, _ in flow.iterflow():
        config = job.config.manager_config
        name = config.get("worker", "cpu")  # the default of training/submit.py
        worker = project.workers[name]
        resources = config.get("resources") or worker.resources
        if isinstance(resources, dict):
            resources = QResources(**resources)
        script = worker.get_scheduler_io().get_submission_script("run", resources)
        assert "--account=my_account" in script, job.name
        assert "--cpus-per-task=" in script, job.name
        seen.add(name)
    assert {"gpu"} < seen


def test_files_of_fireworks(tmp_path):
    pytest.importorskip("fireworks", reason="FireWorks is not installed")
    from fireworks import FWorker
    from fireworks.user_objects.queue_adapters.common_adapter import CommonAdapter

    folder = HPC / "fireworks"
    for kind in ("gpu", "cpu", "light"):
        worker = FWorker.from_file(str(folder / f"my_fworker_{kind}.yaml"))
        assert worker.category == kind
        adapter = CommonAdapter.from_file(str(folder / f"my_qadapter_{kind}.yaml"))
        script = adapter.get_script_str(str(tmp_path))
        partition = "gpu" if kind == "gpu" else "cpu"
        assert f"#SBATCH --partition={partition}" in script
        assert "#SBATCH --account=my_account" in script
        assert "#SBATCH --cpus-per-task=" in script
        assert ("#SBATCH --gres=gpu:1" in script) == (kind == "gpu")
        assert f"-w my_fworker_{kind}.yaml" in script
        assert "$" not in "".join(line for line in script.splitlines() if "SBATCH" in line)


@pytest.mark.integration
def test_submission_to_fireworks(tmp_path, tiny_checkpoint, mongo_port, monkeypatch, capsys):
    fireworks = pytest.importorskip("fireworks", reason="FireWorks is not installed")
    settings = {"host": "127.0.0.1", "port": mongo_port, "name": "submission"}
    launchpad = fireworks.LaunchPad(**settings)
    launchpad.reset("", require_password=False)
    file = tmp_path / "my_launchpad.yaml"
    file.write_text(yaml.safe_dump(settings))
    script = HPC / "fireworks" / "submit.py"
    arguments = ["-n", "9", "--samples-per-job", "5", "--launchpad", str(file)]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.setenv("ADIT_CHECKPOINT", str(tiny_checkpoint))
    runpy.run_path(str(script), run_name="__main__")
    assert "ADiT discovery: 12 Fireworks" in capsys.readouterr().out
    kept = [launchpad.get_fw_by_id(i) for i in launchpad.get_fw_ids()]
    categories = {firework.name: firework.spec["_category"] for firework in kept}
    assert categories.pop("ADiT generate 1/2") == categories.pop("ADiT generate 2/2") == "gpu"
    assert set(categories.values()) == {"light"}


def test_job_store_for_fireworks():
    from jobflow.settings import JobflowSettings
    from maggma.stores import GridFSStore

    settings = JobflowSettings(CONFIG_FILE=str(HPC / "fireworks" / "jobflow.yaml"))
    assert isinstance(settings.JOB_STORE.additional_stores["data"], GridFSStore)
