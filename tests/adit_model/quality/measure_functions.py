"""Measures that worker processes of the tests import by name."""

import os
import signal
import time
from pathlib import Path


def size(system):
    """Count atoms, and leave a mark in the file that the environment names."""
    if path := os.environ.get("MEASURED"):
        with open(path, "a") as file:
            file.write(f"{len(system)}\n")
    return {"size": len(system), "twice": 2 * len(system), "reason": None}


def trouble(system):
    """Raise, hang or die, as the number of atoms says."""
    if len(system) == 2:
        raise ArithmeticError("two atoms")
    if len(system) == 6:
        time.sleep(60)
    if len(system) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"fine": True}


def slow_once(system):
    """Raise, or hang the first time that a structure of six atoms comes."""
    path = os.environ["MEASURED"]
    before = Path(path).read_text().split() if os.path.exists(path) else []
    if len(system) == 3:  # water, which warms the worker up
        return {"fine": True}
    with open(path, "a") as file:
        file.write(f"{len(system)}\n")
    if len(system) == 2:
        raise ArithmeticError("two atoms")
    if len(system) == 6 and "6" not in before:
        time.sleep(60)
    return {"fine": True}
