"""The discovery that test_queues.py sends through queues; their workers import it from here."""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomate2.ase.jobs import LennardJonesRelaxMaker
from jobflow import Flow
from monty.json import MontyDecoder

from adit_atomate import ADiTDiscoveryMaker, ADiTGenerateMaker, ADiTRelaxStageMaker
from adit_atomate.powerups import assign_workers

SAMPLES, CHUNK = 4, 2


@dataclass
class WatchedMaker(LennardJonesRelaxMaker):
    """A relaxation that writes down each structure it has done, and dies once if told so."""

    folder: str = ""

    def run_ase(self, mol_or_struct, prev_dir=None):
        done, kill = Path(self.folder, "relaxed.txt"), Path(self.folder, "kill")
        if kill.exists() and done.exists() and len(done.read_text().splitlines()) == CHUNK:
            kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        result = super().run_ase(mol_or_struct, prev_dir)
        with done.open("a") as file:
            file.write(f"{mol_or_struct.formula} {mol_or_struct.volume!r}\n")
        return result


def make_flow(folder: str, **stages: Any) -> Flow:
    relax = WatchedMaker("LJ relax", steps=2, relax_cell=False, folder=folder)
    maker = ADiTDiscoveryMaker(
        generate_maker=ADiTGenerateMaker(domain="crystal", num_atoms=(2, 4), num_steps=4, seed=1),
        novelty_maker=None,
        relax_maker=ADiTRelaxStageMaker(
            relax_maker=relax, chunk_size=CHUNK, time_limit=None, memory_limit=None
        ),
        rank_maker=None,
        **stages,
    )
    return assign_workers(maker.make(n=SAMPLES), gpu="gpu", cpu="cpu")


def submit_to_fireworks(folder: str) -> None:
    from fireworks import LaunchPad
    from jobflow.managers.fireworks import flow_to_workflow

    launchpad = LaunchPad.from_file(f"{folder}/my_launchpad.yaml")
    launchpad.reset("", require_password=False)
    flow = make_flow(folder)
    launchpad.add_wf(flow_to_workflow(flow))
    print(flow.output.uuid)


def submit_to_jobflow_remote(folder: str) -> None:
    from jobflow_remote import submit_flow
    from jobflow_remote.jobs.jobcontroller import JobController

    JobController.from_project_name().reset()
    fewer = {"screen_maker": None, "uniqueness_maker": None, "compare_relaxed": False}
    flow = make_flow(folder, **fewer)
    submit_flow(flow)
    print(flow.output.uuid)


def serve_jobs(port: str) -> None:
    """Run jobs of jobflow-remote in forks of a process that has loaded all packages once."""
    with socket.create_server(("127.0.0.1", int(port))) as server:
        from jobflow_remote.jobs.run import run_remote_job

        import adit_atomate.discovery.flow  # noqa: F401

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                run_remote_job(connection.recv(4096).decode())
                os._exit(0)
            connection.close()


ASK = (  # has a job run by serve_jobs, and waits until its process has ended
    "import socket, sys\n"
    "with socket.create_connection(('127.0.0.1', int(sys.argv[1])), 600) as s:\n"
    "    s.sendall(sys.argv[2].encode()); s.recv(1)\n"
)


def read(uuid: str) -> None:
    """Print what a process that knows nothing but the job store's settings finds."""
    from jobflow import SETTINGS

    store = SETTINGS.JOB_STORE
    store.connect()
    output = MontyDecoder().process_decoded(store.get_output(uuid, load=True))
    kept = [c.structure.formula for c in output.candidates]
    print(json.dumps({"n": output.n, "fates": output.fates, "candidates": kept}))
