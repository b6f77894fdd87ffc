"""A discovery flow through FireWorks: submitted, run and read in processes of their own.

The queue is mongomock's with a file (one process at a time), the job store is SQLite.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fireworks", reason="FireWorks is not installed")
pytest.importorskip("mongomock_persistence", reason="needs fireworks[mongomock], a queue in a file")
pytest.importorskip("montydb", reason="needs maggma[montydb], a job store in a file")

pytestmark = [pytest.mark.slow, pytest.mark.integration]

HPC = Path(__file__).resolve().parents[2] / "examples" / "hpc" / "fireworks"
WORKER = Path(__file__).parent / "fireworks_worker.py"
LAUNCHPAD = """
host: localhost
port: 27017
name: fireworks
username: null
password: null
strm_lvl: WARNING
"""

RESET = """
import sys
from fireworks import LaunchPad

LaunchPad.from_file(sys.argv[1]).reset("", require_password=False)
"""

READ = """
import json, sys
from fireworks import LaunchPad
from jobflow import SETTINGS
from monty.json import MontyDecoder

launchpad = LaunchPad.from_file(sys.argv[1])
states = []
for fw_id in launchpad.get_fw_ids():
    firework = launchpad.get_fw_by_id(fw_id)
    job = firework.tasks[0]["job"]
    uuid, index = job.uuid, job.index
    launches = len(firework.archived_launches) + len(firework.launches)
    worker = firework.launches[-1].fworker.name if firework.launches else None
    states.append([firework.name, uuid, index, firework.state, worker, launches])
store = SETTINGS.JOB_STORE
store.connect()
done = {f"{d['uuid']} {d['index']}": d["completed_at"] for d in store.query({})}
result = {"states": states, "done": done}
if len(sys.argv) > 2:
    output = MontyDecoder().process_decoded(store.get_output(sys.argv[2], load=True))
    result["n"], result["fates"] = output.n, output.fates
    result["candidates"] = [c.candidate_id for c in output.candidates]
    result["formulas"] = [c.structure.composition.reduced_formula for c in output.candidates]
print(json.dumps(result))
"""


class Queue:
    """A folder with a queue and a job store, and commands as a user gives them."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder = folder
        self.launchpad = folder / "my_launchpad.yaml"
        self.launchpad.write_text(LAUNCHPAD)
        server = folder / "server.json"
        server.write_text("{}")
        stores = {
            "docs_store": {"type": "MontyStore", "collection_name": "outputs"},
            "data": {"type": "MontyStore", "collection_name": "blobs"},
        }
        for store in stores.values():
            store["database_path"] = str(folder / "store")
        config = {"docs_store": stores["docs_store"], "additional_stores": {"data": stores["data"]}}
        (folder / "jobflow.yaml").write_text(json.dumps({"JOB_STORE": config}))
        self.environment = {
            **os.environ,
            "MONGOMOCK_SERVERSTORE_FILE": str(server),
            "JOBFLOW_CONFIG_FILE": str(folder / "jobflow.yaml"),
            "ADIT_CHECKPOINT": str(checkpoint),
            "OMP_NUM_THREADS": "1",
        }
        self.run("-c", RESET, self.launchpad)

    def run(self, *command: object, returncode: int = 0) -> str:
        result = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == returncode, result.stderr
        return result.stdout

    def submit(self, n: int) -> str:
        """Submit the example's flow; return the uuid of the job with its result."""
        out = self.run(
            *(HPC / "submit.py", "-n", n, "--samples-per-job", 4, "--lennard-jones"),
            *("--launchpad", self.launchpad),
        )
        return out.split()[-1]

    def work(self, kind: str, *arguments: object, returncode: int = 0) -> None:
        fworker = HPC / f"my_fworker_{kind}.yaml"
        self.run(WORKER, self.launchpad, fworker, *arguments, returncode=returncode)

    def lpad(self, *arguments: object) -> str:
        return self.run("-m", "fireworks.scripts.lpad_run", "-l", self.launchpad, *arguments)

    def read(self, *uuid: str) -> dict:
        return json.loads(self.run("-c", READ, self.launchpad, *uuid).splitlines()[-1])


@pytest.fixture
def queue(tmp_path, tiny_checkpoint) -> Queue:
    return Queue(tmp_path, tiny_checkpoint)


def test_submit_kill_rerun_and_read_in_separate_processes(queue):
    uuid = queue.submit(n=10)
    queue.work("gpu")
    queue.work("cpu", 3, returncode=-signal.SIGKILL)
    killed = queue.read()
    by_state = Counter(state for *_, state, _, _ in killed["states"])
    assert by_state["COMPLETED"] == 3 + 3  # ten samples in three jobs, and three on the CPU
    assert by_state["RUNNING"] == 1

    queue.lpad("detect_lostruns", "--time", 0, "--rerun")
    queue.work("cpu")

    finished = queue.read(uuid)
    assert {state for *_, state, _, _ in finished["states"]} == {"COMPLETED"}
    for name, *_, worker, _ in finished["states"]:
        assert worker == ("slurm-gpu" if "generate" in name else "slurm-cpu"), name
    # What had finished before the signal was not computed again.
    recorded = {
        f"{job} {index}": completed
        for (_, job, index, state, _, _) in killed["states"]
        if state == "COMPLETED"
        for completed in [killed["done"][f"{job} {index}"]]
    }
    assert len(recorded) == 6
    assert recorded.items() <= finished["done"].items()
    assert sum(launches for *_, launches in finished["states"]) == len(finished["states"]) + 1
    assert finished["n"] == sum(finished["fates"].values()) == 10
    assert (
        len(finished["candidates"]) == len(set(finished["candidates"])) == len(finished["formulas"])
    )
