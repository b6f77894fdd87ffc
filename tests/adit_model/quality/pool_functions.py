"""Functions that worker processes of the tests import by name."""

import os
import re
import signal
import time
from pathlib import Path


def act(command):
    """Do what the command says: return, raise, hang, print or die."""
    kind, value = command
    if kind == "square":
        return value**2
    if kind == "raise":
        raise ArithmeticError(value)
    if kind == "sleep":
        time.sleep(value)
    if kind == "spin":  # one call into C that never comes back to the interpreter
        re.match(r"(a+)+$", "a" * value + "b")
    if kind == "signal":
        os.kill(os.getpid(), value)
        signal.pause()
    if kind == "exit":
        os._exit(value)
    if kind == "print":
        print(value)
        os.write(1, b"not a pickle\n")
    if kind == "lambda":
        return lambda: value
    return value


def hold(item):
    """Write the number of this process into a file, then do what the command says."""
    path, command = item
    Path(path).write_text(str(os.getpid()))
    return act(command)


def pid(_):
    return os.getpid()


def count_calls(state=[]):  # noqa: B006 - the state of one worker process
    state.append(None)
    return len(state)


def prepared(_):
    return count_calls()


def import_missing():
    import no_such_module_anywhere  # noqa: F401
