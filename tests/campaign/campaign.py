"""Damage files, kill runs and race them, and count what came of it.

``python tests/campaign/campaign.py`` prints its seed and counts; ``--seed`` repeats it, and
``--seed S --only KIND:NUMBER`` one trial alone. The exit status is 1 after a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
os.environ.setdefault("OMP_NUM_THREADS", "1")
TIME_LIMIT = 10.0  # seconds of a processor for one trial; ten times as many asleep
MEMORY_LIMIT = 2 << 30  # bytes that one trial may add to the largest before
DEFAULTS = {
    **{"files": 300, "checkpoints": 60, "states": 20, "configurations": 200, "arguments": 60},
    **{"generate": 4, "overwrite": 4, "train": 4, "evaluate": 3, "discovery": 3, "races": 4},
}


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, help="seconds of a trial")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin nothing after that")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one trial, with its traceback")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    for name, number in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=number, metavar="N")
    args = parser.parse_args()
    if args.worker:
        return _work()
    seed = random.SystemRandom().randrange(10**9) if args.seed is None else args.seed
    print(f"campaign with seed {seed}", flush=True)
    from kills import KILLS, run_kills
    from trials import KINDS

    if args.only:
        kind, _, number = args.only.partition(":")
        return _alone(kind, f"{seed}:{kind}:{number}")
    end = time.monotonic() + 60 * args.minutes
    faults: list[str] = []
    for kind in KINDS:
        _report(kind, *_fuzz(kind, seed, getattr(args, kind), args.time_limit, end), faults)
    for kind in KILLS:
        _report(kind, *run_kills(kind, seed, getattr(args, kind), end), faults)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


def _report(kind: str, counts: Counter[str], found: list[str], faults: list[str]) -> None:
    if counts:
        print(
            f"{kind}: {sum(counts.values())}: " + ", ".join(f"{v} {k}" for k, v in counts.items())
        )
    for fault in found:
        print(f"  FAULT {fault}")
    sys.stdout.flush()
    faults += found


def _fuzz(
    kind: str, seed: int, number: int, limit: float, end: float
) -> tuple[Counter[str], list[str]]:
    """Run trials in a process that is started anew when it hangs or dies."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    worker = None
    for i in range(number):
        if time.monotonic() > end:
            break
        if worker is None:
            worker = _start(kind)
        name = f"{seed}:{kind}:{i}"
        answer = _ask(worker, [kind, name], limit)
        if answer is None:
            answer = "hang" if worker.poll() is None else f"died with {worker.returncode}"
            worker.kill()
            worker.wait()
            worker = None
        known = answer in ("refused", "accepted", "unchanged")
        counts[answer if known else "fault"] += 1
        if not known:
            faults.append(f"{kind}:{i} {answer}")
    if worker is not None:
        worker.kill()
        worker.wait()
    return counts, faults


def _start(kind: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__)), "--worker"]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    for number in range(3):  # the first ones import
        if _ask(worker, [kind, f"first {number}"], 300) is None:
            raise RuntimeError("the process of the trials does not start")
    return worker


def _ask(worker: subprocess.Popen[bytes], what: list[str], limit: float) -> str | None:
    assert worker.stdin is not None and worker.stdout is not None
    try:
        worker.stdin.write(json.dumps(what).encode() + b"\n")
        worker.stdin.flush()
    except BrokenPipeError:
        worker.wait()
        return None
    process = psutil.Process(worker.pid)
    start, asleep = sum(process.cpu_times()[:2]), 0.0
    while asleep < 10 * limit and sum(process.cpu_times()[:2]) - start < limit:
        # a busy machine, which keeps it waiting for a processor, is no reason
        asleep += 0.5 * (process.status() == psutil.STATUS_SLEEPING)
        if select.select([worker.stdout], [], [], 0.5)[0]:
            line = worker.stdout.readline()
            if not line:
                worker.wait()
                return None
            return str(json.loads(line))
    return None


def _work() -> int:
    import resource

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from trials import Trials, trial

    def peak() -> int:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with tempfile.TemporaryDirectory(prefix="adit-campaign-") as folder:
        trials = Trials(Path(folder))
        for line in sys.stdin:
            kind, seed = json.loads(line)
            before = peak()
            try:
                answer = trial(trials, kind, seed)
            except BaseException as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(place.filename).name}:{place.lineno}"
                answer = f"{type(error).__name__} at {where}: {str(error)[:200]}"
            if peak() - before > MEMORY_LIMIT:
                answer = f"took {(peak() - before) >> 20} MB"
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    return 0


def _alone(kind: str, seed: str) -> int:
    from kills import KILLS, Setting
    from trials import Trials, trial

    with tempfile.TemporaryDirectory(prefix="adit-campaign-") as folder:
        if kind in KILLS:
            print(getattr(Setting(Path(folder)), kind)(random.Random(seed)))
        else:
            print(trial(Trials(Path(folder)), kind, seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
