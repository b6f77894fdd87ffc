"""A discovery through FireWorks and jobflow-remote, on a server of MongoDB's protocol.

Submitted, run by a GPU and a CPU worker, cut off by SIGKILL, finished and read, each in a process
of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from queue_jobs import ASK, CHUNK, SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.integration]

HERE = Path(__file__).resolve().parent
HPC = HERE.parents[1] / "examples" / "hpc"
BIN = Path(sys.executable).parent
JOB_NAME = r"[A-Za-z0-9 _/.-]+"
DELAYS = ("delay_checkout", "delay_check_run_status", "delay_advance_status")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Queue:
    """A folder with settings as a user writes them, and the commands a user gives."""

    def __init__(self, folder: Path, port: int) -> None:
        from pymongo import MongoClient

        self.folder = folder
        self.database = folder.name
        self.server = {"host": "127.0.0.1", "port": port}
        self.client = MongoClient(**self.server)[self.database]
        settings = yaml.safe_load((HPC / "fireworks" / "jobflow.yaml").read_text())
        stores = settings["JOB_STORE"]
        self.localise(stores["docs_store"], stores["additional_stores"]["data"])
        (folder / "jobflow.yaml").write_text(yaml.safe_dump(settings))
        path = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            **os.environ,
            "JOBFLOW_CONFIG_FILE": str(folder / "jobflow.yaml"),
            "JFREMOTE_PROJECTS_FOLDER": str(folder),
            "PYTHONPATH": os.pathsep.join(path),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def localise(self, *stores: dict) -> None:
        """Let the stores of an example's settings be on the server."""
        for store in stores:
            store.update(self.server, database=self.database)
            for login in ("username", "password", "auth_source"):
                store.pop(login, None)

    def worker(self, kind: str) -> dict:
        """A worker of jobflow-remote on this machine."""
        folder = self.folder / kind
        folder.mkdir()
        local = {"type": "local", "scheduler_type": "shell", "max_jobs": 1}
        return {**local, "work_dir": str(folder)}

    def run(self, *command: object) -> str:
        result = subprocess.run(
            [*map(str, command)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def call(self, function: str, argument: object) -> str:
        """Last line of what a function of queue_jobs.py prints, in a new process."""
        code = f"import queue_jobs; queue_jobs.{function}({str(argument)!r})"
        return self.run(sys.executable, "-c", code).splitlines()[-1]

    @contextmanager
    def running(self, *command: object):
        """A process that runs meanwhile."""
        with (self.folder / "output.txt").open("a") as log:
            process = subprocess.Popen(
                [*map(str, command)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

    def wait(self, happened, process: subprocess.Popen | None = None) -> None:
        """Wait until something has happened, while a process runs."""
        end = time.monotonic() + 900
        while not happened():
            ended = process is not None and process.poll() is not None
            late = time.monotonic() > end
            assert not (ended or late), (self.folder / "output.txt").read_text()[-5000:]
            time.sleep(0.3)

    def completed(self) -> dict:
        """When each job that the store knows was completed."""
        found = self.client.outputs.find({}, ["uuid", "index", "completed_at"])
        return {(d["uuid"], d["index"]): d["completed_at"] for d in found}


@pytest.fixture
def queue(tmp_path, mongo_port) -> Queue:
    folder = tmp_path / f"queue_{time.time_ns()}"
    folder.mkdir()
    (folder / "kill").touch()
    return Queue(folder, mongo_port)


def check_result(queue: Queue, uuid: str, killed: dict) -> None:
    """Everything is accounted for, and nothing that had finished was done again."""
    result = json.loads(queue.call("read", uuid))
    assert result["n"] == sum(result["fates"].values()) == SAMPLES
    relaxed = (queue.folder / "relaxed.txt").read_text().splitlines()
    assert CHUNK < len(relaxed) == len(set(relaxed)) <= SAMPLES
    assert 0 < len(result["candidates"]) == result["fates"]["kept"] <= len(relaxed)
    completed = queue.completed()
    assert killed and killed.items() < completed.items()


def test_fireworks(queue):
    pytest.importorskip("fireworks", reason="FireWorks is not installed")

    launchpad = queue.folder / "my_launchpad.yaml"
    settings = {**queue.server, "name": queue.database, "strm_lvl": "WARNING"}
    launchpad.write_text(yaml.safe_dump({**settings, "username": None, "password": None}))
    uuid = queue.call("submit_to_fireworks", queue.folder)

    def worker(kind: str):
        fworker = HPC / "fireworks" / f"my_fworker_{kind}.yaml"
        launch = [BIN / "rlaunch", "-l", launchpad, "-w", fworker, "-s", "rapidfire"]
        return queue.running(*launch, "--nlaunches", "infinite", "--sleep", 1)

    def states() -> set:
        return set(queue.client.fireworks.distinct("state"))

    with worker("gpu"):
        with worker("cpu") as process:
            queue.wait(lambda: process.poll() is not None)
            assert process.returncode == -signal.SIGKILL
        assert "RUNNING" in states()
        killed = queue.completed()
        queue.run(BIN / "lpad", "-l", launchpad, "detect_lostruns", "--time", 0, "--rerun")
        with worker("cpu"):
            queue.wait(lambda: states() == {"COMPLETED"})

    check_result(queue, uuid, killed)
    launches = list(queue.client.launches.find({}, ["fw_id", "fworker.name"]))
    names = {d["fw_id"]: d["name"] for d in queue.client.fireworks.find({}, ["fw_id", "name"])}
    assert len(launches) == len(names) + 1  # the one that was killed
    for launch in launches:
        name = names[launch["fw_id"]]
        assert re.fullmatch(JOB_NAME, name)
        expected = "slurm-gpu" if "generate" in name else "slurm-cpu"
        assert launch["fworker"]["name"] == expected, name


def test_jobflow_remote(queue):
    """The runner's own loop; what the killed job lost is done again by the flow itself."""
    pytest.importorskip("jobflow_remote", reason="jobflow-remote is not installed")
    project = yaml.safe_load((HPC / "jobflow_remote" / "adit.yaml").read_text())
    project["workers"] = {kind: queue.worker(kind) for kind in project["workers"]}
    (queue.folder / "ask.py").write_text(ASK)  # loading all packages for each job takes long
    port = free_port()
    ask = f"{sys.executable} -S {queue.folder}/ask.py {port} {{}}"
    project["workers"]["cpu"]["execution_cmd"] = ask
    stores = project["jobstore"]
    docs, data = stores["docs_store"], stores["additional_stores"]["data"]
    queue.localise(project["queue"]["store"], docs, data)
    project["runner"] = dict.fromkeys(DELAYS, 0.5)
    for kind in ("base", "tmp", "log", "daemon"):
        project[f"{kind}_dir"] = str(queue.folder / kind)
    (queue.folder / "adit.yaml").write_text(yaml.safe_dump(project))
    # `ps`, by which the shell's queue is checked, lists the processes of a terminal.
    terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    check = queue.run(sys.executable, "-c", terminal, BIN / "jf", "project", "check", "-e")
    assert "The project configuration is correct" in check, check
    uuid = queue.call("submit_to_jobflow_remote", queue.folder)

    def states() -> Counter:
        return Counter(job["state"] for job in queue.client.queue.find({}, ["state"]))

    serve = f"import queue_jobs; queue_jobs.serve_jobs({port})"
    with (
        queue.running(sys.executable, "-c", serve),
        queue.running(BIN / "jf", "runner", "run") as runner,
    ):
        queue.wait(lambda: states()["FAILED"], runner)
        killed = queue.completed()
        queue.wait(lambda: not set(states()) - {"COMPLETED", "FAILED"}, runner)
    assert states()["FAILED"] == 1

    check_result(queue, uuid, killed)
    for job in queue.client.queue.find({}, ["job.name", "worker"]):
        name = job["job"]["name"]
        assert re.fullmatch(JOB_NAME, name)
        assert job["worker"] == ("gpu" if "generate" in name else "cpu"), name
