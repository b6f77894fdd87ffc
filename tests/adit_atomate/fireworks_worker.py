"""A FireWorks worker in its own process, run by test_fireworks.py.

The launch pad is mongomock's, which writes its file when a process ends. Here it is written after
each change of a job's state as well, as a server would, so that a killed worker leaves what a real
one leaves.

    python fireworks_worker.py LAUNCHPAD FWORKER [COMPLETED_JOBS_BEFORE_SIGKILL]
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import bson.json_util
import yaml
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import rapidfire

SERVER = Path(os.environ["MONGOMOCK_SERVERSTORE_FILE"])


class WrittenLaunchPad(LaunchPad):
    """A launch pad whose file is always up to date; kills its process if asked to."""

    kill_after: int | None = None
    completed = 0

    def write(self) -> None:
        text = bson.json_util.dumps(self.connection._store.to_dict())
        partial = SERVER.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(SERVER)

    def checkout_fw(self, *args, **kwargs):
        result = super().checkout_fw(*args, **kwargs)
        self.write()
        if self.completed == self.kill_after:
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return result

    def complete_launch(self, *args, **kwargs):
        if self.completed == self.kill_after:
            time.sleep(60)  # the signal comes before this ends
        result = super().complete_launch(*args, **kwargs)
        self.completed += 1
        self.write()
        return result


if __name__ == "__main__":
    launchpad = WrittenLaunchPad(**yaml.safe_load(Path(sys.argv[1]).read_text()))
    if len(sys.argv) > 3:
        launchpad.kill_after = int(sys.argv[3])
    rapidfire(launchpad, FWorker.from_file(sys.argv[2]), strm_lvl="WARNING")
