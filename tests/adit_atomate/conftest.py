"""What holds for every test of the plugin."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobflow import Job

NAMES: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def _record_job_names():
    """Note the name of each job that is run, those that other jobs made included."""
    run = Job.run

    def recorded(self, *args, **kwargs):
        NAMES.append(self.name)
        return run(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "run", recorded)
        yield


@pytest.fixture(autouse=True)
def job_names():
    """Names of the jobs that ran for a test: queues write them into shell scripts."""
    yield NAMES
    wrong = [name for name in NAMES if not re.fullmatch(r"[A-Za-z0-9 _/.-]+", name)]
    NAMES.clear()
    assert not wrong


@pytest.fixture(scope="session")
def mongo_port(tmp_path_factory):
    """Port of a server of MongoDB's protocol (SecantusDB) that runs in a process of its own."""
    server = Path(sys.executable).with_name("secantusd-py")
    if not server.is_file():
        pytest.skip("needs secantusdb, a server of MongoDB's protocol")
    folder = tmp_path_factory.mktemp("mongo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "--host", "127.0.0.1", "--port", str(port), "--storage-path", folder / "db"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*map(str, command), "--cache-size", "64M"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)
