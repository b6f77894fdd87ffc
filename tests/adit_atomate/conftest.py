"""What holds for every test of the plugin."""

from __future__ import annotations

import re

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
