import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pool_functions
import psutil
import pytest
from pool_functions import act

from adit_model.quality.pool import Outcome, run_isolated

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_the_order_of_the_items(workers):
    outcomes = run_isolated(act, [("square", i) for i in range(40)], workers=workers)
    assert [outcome.value for outcome in outcomes] == [i**2 for i in range(40)]
    assert all(outcome.reason is None for outcome in outcomes)


@pytest.mark.parametrize("workers", [1, 2])
def test_items_that_hang_crash_or_raise_lose_only_their_own_result(workers):
    items = [
        ("square", 1),
        ("sleep", 60),
        ("square", 2),
        ("signal", 11),
        ("square", 3),
        ("exit", 7),
        ("raise", "two\nlines"),
        ("lambda", 0),
        ("print", 4),
        ("square", 5),
    ]
    start = time.monotonic()
    outcomes = run_isolated(act, items, time_limit=1.0, workers=workers)
    assert time.monotonic() - start < 58
    assert [outcome.value for outcome in outcomes] == [1, None, 4, None, 9, None, None, None, 4, 25]
    reasons = {i: outcome.reason for i, outcome in enumerate(outcomes) if outcome.reason}
    assert set(reasons) == {1, 3, 5, 6, 7}
    assert reasons[1] == "no result within 1 s"
    assert "signal 11" in reasons[3]
    assert "exit code 7" in reasons[5]
    assert reasons[6] == "ArithmeticError: two lines"
    assert "pickle" in reasons[7]
    assert [outcome.timed_out for outcome in outcomes] == [i == 1 for i in range(len(items))]


def test_a_call_that_never_leaves_c_code_is_stopped():
    outcomes = run_isolated(act, [("spin", 60), ("square", 3)], time_limit=0.5)
    assert outcomes[0].timed_out
    assert outcomes[1] == Outcome(value=9)


def test_each_item_can_have_its_own_limit():
    outcomes = run_isolated(act, [("sleep", 0.5), ("sleep", 0.5)], time_limit=[0.1, 30.0])
    assert [outcome.timed_out for outcome in outcomes] == [True, False]


def test_one_process_serves_all_items_and_is_gone_afterwards():
    outcomes = run_isolated(pool_functions.pid, range(5))
    (pid,) = {outcome.value for outcome in outcomes}
    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_prepare_runs_once_before_the_first_item():
    outcomes = run_isolated(pool_functions.prepared, range(3), prepare=pool_functions.count_calls)
    assert [outcome.value for outcome in outcomes] == [2, 3, 4]


def test_partial_functions_are_sent_with_their_arguments():
    assert run_isolated(partial(pow, 2), [3])[0].value == 8


def test_no_items_start_no_process():
    assert run_isolated(pool_functions.pid, [], prepare=pool_functions.import_missing) == []


def test_a_worker_that_cannot_start_is_an_error_with_its_cause():
    with pytest.raises(RuntimeError, match=r"could not be started.*no_such_module_anywhere"):
        run_isolated(act, [("square", 1)], prepare=pool_functions.import_missing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be a positive integer, got 0"),
        ({"time_limit": 0}, "time_limit must be a positive number of seconds, got 0"),
        ({"time_limit": float("nan")}, "got nan"),
        ({"time_limit": [1.0, 2.0]}, "2 time limits for 1 items"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run_isolated(act, [("square", 1)], **options)


def test_functions_no_other_process_can_import_are_refused():
    with pytest.raises(ValueError, match="top level of a module"):
        run_isolated(lambda item: item, [1])


SCRIPT = """
import numpy as np
from adit_model.quality.records import check_systems
from adit_model.quality.pool import run_isolated
from adit_model.systems import AtomicSystem

def own(item):
    return item

h2 = AtomicSystem(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.74]]))
print([check.smiles for check in check_systems([h2, h2], workers=2)])
try:
    run_isolated(own, [1])
except ValueError as error:
    print(error)
"""


def test_a_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "['[H][H]', '[H][H]']"
    assert "own is defined in the script that is being run" in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize("command", [("sleep", 60), ("spin", 60)])
def test_a_worker_ends_when_its_parent_is_killed(tmp_path, command):
    if command[0] == "spin" and sys.platform != "linux":
        pytest.skip("nothing reaches a process in C code there")
    told = tmp_path / "pid"
    lines = "from adit_model.quality.pool import run_isolated; from pool_functions import hold"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"{lines}; run_isolated(hold, [{(str(told), command)!r}])"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, HERE)))},
    )
    deadline = time.monotonic() + 60
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    worker = psutil.Process(int(told.read_text()))
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        worker.wait(timeout=10)  # raises if it goes on
    finally:
        if worker.is_running():
            worker.kill()
