"""Run a function over many items in child processes that may hang or crash without harm.

Chemistry libraries can loop for minutes or end the process on a bad geometry. Each worker is a
separate ``python`` that imports only the function and speaks pickles over pipes, so a calling
script needs no ``if __name__ == "__main__"`` guard and a hung worker can be killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

WATCH = 0.05  # seconds between two looks at the memory of a worker
ORPHAN = 0.5  # seconds between two looks of a worker at whether its parent lives
PR_SET_PDEATHSIG = 1  # Linux, prctl(2)
START_LIMIT = 300.0  # seconds a worker may take to start and to import what it needs
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FAILED = "failed: "  # how a cell that holds a reason in place of a value begins
LATE = "no result within"  # how the reason of a call that ran out of time begins
READY, DONE, RAISED, LOST = "ready", "done", "raised", "lost"  # kinds of replies
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from adit_model.quality.pool import serve; serve()"
)


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Parameters
    ----------
    value : object
        What the function returned; None if it did not return.
    reason : str or None
        Why it did not return: the exception, the time limit or the worker's end.
    timed_out : bool
        Whether the time limit was the reason.
    """

    value: Any = None
    reason: str | None = None
    timed_out: bool = False


def run_isolated(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    time_limit: float | Sequence[float] = 10.0,
    memory_limit: float | None = None,
    workers: int = 1,
    threads: int | None = 1,
    prepare: Callable[[], object] | None = None,
    progress: str | None = None,
) -> list[Outcome]:
    """Apply ``function`` to each item in worker processes.

    Parameters
    ----------
    function : callable
        Takes one item. It, the items and the results must pickle; a function must be importable
        by name (not a lambda, not defined in a script run as ``__main__``).
    items : iterable
        Arguments, one call each.
    time_limit : float or sequence of float
        Seconds a call may take, one number for all or one for each item. Then its worker is killed
        and another goes on with the next item.
    memory_limit : float, optional
        Gigabytes of main memory that a worker may take; above it it is killed as above.
    workers : int
        Number of processes.
    threads : int or None
        Threads of each; None leaves it to the environment.
    prepare : callable, optional
        Called once in each new worker, outside the time limit: for slow imports.
    progress : str, optional
        Title of a progress bar; none without it.

    Returns
    -------
    list of Outcome
        One for each item, in order.

    Raises
    ------
    ValueError
        If a limit or ``workers`` is not positive, or the function cannot be imported by
        another process.
    RuntimeError
        If a worker cannot be started.
    """
    if workers < 1:
        raise ValueError(f"workers must be a positive integer, got {workers}")
    if memory_limit is not None and not memory_limit > 0:
        raise ValueError(f"memory_limit must be a positive number of GB, got {memory_limit}")
    setup = _pickle_setup(function, prepare)
    items = list(items)
    limits = _limits(time_limit, len(items))
    outcomes = [Outcome() for _ in items]
    if not items:
        return outcomes
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in range(len(items)):
        pending.put(i)

    from tqdm import tqdm

    pool = [_Worker(setup, memory_limit, threads) for _ in range(min(workers, len(items)))]
    with tqdm(total=len(items), desc=progress, disable=progress is None) as bar:

        def drain(worker: _Worker) -> None:
            while not worker.closed:
                try:
                    i = pending.get_nowait()
                except queue.Empty:
                    return
                outcomes[i] = worker.call(items[i], limits[i])
                bar.update()

        try:
            if len(pool) == 1:
                drain(pool[0])
            else:
                with ThreadPoolExecutor(len(pool)) as executor:
                    futures = [executor.submit(drain, worker) for worker in pool]
                    try:
                        for future in futures:
                            future.result()
                    except BaseException:
                        for worker in pool:  # else the threads would work off all items first
                            worker.close()
                        raise
        finally:
            for worker in pool:
                worker.close()
    return outcomes


def _limits(time_limit: float | Sequence[float], count: int) -> Sequence[float]:
    given = time_limit if isinstance(time_limit, Sequence) else [time_limit]
    wrong = [limit for limit in given if not limit > 0]
    if wrong:
        raise ValueError(f"time_limit must be a positive number of seconds, got {wrong[0]}")
    if not isinstance(time_limit, Sequence):
        return [time_limit] * count
    if len(time_limit) != count:
        raise ValueError(f"got {len(time_limit)} time limits for {count} items")
    return time_limit


def _pickle_setup(function: Callable[[Any], Any], prepare: Callable[[], object] | None) -> bytes:
    for part in (function, prepare):
        target = getattr(part, "func", part)  # of a functools.partial
        if getattr(target, "__module__", None) == "__main__":
            name = getattr(target, "__qualname__", repr(target))
            raise ValueError(
                f"{name} is defined in the script that is being run, which a worker process "
                "cannot import: move it into a module"
            )
    try:
        return pickle.dumps((function, prepare))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{function!r} cannot be sent to a worker process ({error}): "
            "use a function defined at the top level of a module"
        ) from error


class _Worker:
    """One child process, started when first needed and again after it died."""

    def __init__(self, setup: bytes, memory_limit: float | None, threads: int | None) -> None:
        self.setup = setup
        self.memory_limit = memory_limit
        self.threads = {} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))
        self.closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._lock = threading.Lock()

    def call(self, item: Any, limit: float) -> Outcome:
        try:
            message = pickle.dumps(item)
        except Exception as error:
            return Outcome(reason=f"the item cannot be sent to a worker process: {error}")
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        answer, stopped = self._exchange(process, message, limit)
        if answer is None:
            reason = stopped or self._last_words()
            self._stop()
            return Outcome(reason=reason, timed_out=reason.startswith(LATE))
        kind, content = answer
        if stopped or kind == LOST:  # the answer came while the limit struck, or is garbled
            self._stop()
        return Outcome(value=content) if kind == DONE else Outcome(reason=content)

    def _start(self) -> subprocess.Popen[bytes]:
        self._stop()
        with self._lock:
            if self.closed:
                raise RuntimeError("the worker was closed")
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
            self._process = process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps([str(path) for path in sys.path])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **self.threads},
            )
        answer, stopped = self._exchange(process, self.setup, START_LIMIT)
        if answer is None or answer[0] != READY:
            reason = answer[1] if answer is not None else stopped or self._last_words()
            self._stop()
            raise RuntimeError(f"a worker process could not be started: {reason}")
        return process

    def _exchange(
        self, process: subprocess.Popen[bytes], message: bytes, limit: float
    ) -> tuple[tuple[str, Any] | None, str | None]:
        """Return the answer, None if the process ended, and which limit it was killed at."""
        assert process.stdin is not None and process.stdout is not None
        stopped: list[str] = []
        done = threading.Event()
        watch = threading.Thread(
            target=_watch, args=(process, limit, self.memory_limit, done, stopped), daemon=True
        )
        watch.start()
        answer: tuple[str, Any] | None
        try:
            process.stdin.write(message)
            process.stdin.flush()
            answer = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            answer = None
        except Exception as error:  # the answer names what this process cannot import
            answer = (LOST, describe(error))
        finally:
            done.set()
            watch.join()  # it cannot strike while the next item is at work
        return answer, stopped[0] if stopped else None

    def _last_words(self) -> str:
        """How the process ended, and the last line it wrote to standard error."""
        with self._lock:
            if self._process is None or self._errors is None:
                return "the worker process was stopped"
            code = self._process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the worker process ended with {how}" + (f": {lines[-1]}" if lines else "")

    def _stop(self) -> None:
        with self._lock:
            process, errors = self._process, self._errors
            self._process = self._errors = None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        continue
        if errors is not None:
            errors.close()

    def close(self) -> None:
        """Kill the process; the worker cannot be used again."""
        self.closed = True
        self._stop()


def _watch(
    process: subprocess.Popen[bytes],
    limit: float,
    memory_limit: float | None,
    done: threading.Event,
    stopped: list[str],
) -> None:
    """Kill a process that goes beyond a limit, and say which; return when ``done``."""
    import psutil

    deadline = time.monotonic() + limit
    while not done.wait(
        max(0.0, min(deadline - time.monotonic(), WATCH if memory_limit else limit))
    ):
        used = 0.0
        if memory_limit is not None:
            with contextlib.suppress(psutil.Error):
                used = psutil.Process(process.pid).memory_info().rss / 1e9
        if memory_limit is not None and used > memory_limit:
            stopped.append(f"more than {memory_limit:g} GB of memory")
        elif time.monotonic() >= deadline:
            stopped.append(f"{LATE} {limit:g} s")
        if stopped:
            process.kill()
            return


def serve() -> None:
    """Read a function, then items, from standard input; write a reply to each to standard output.

    Every message is one pickle. What the function itself prints goes to standard error, so that
    it cannot garble the replies. The process ends when its parent does, whatever it is at.
    """
    _end_with_parent()
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def reply(kind: str, content: object = None) -> None:
        try:
            message = pickle.dumps((kind, content))
        except Exception as error:  # an answer that does not pickle is that item's failure
            message = pickle.dumps((RAISED, describe(error)))
        replies.write(message)
        replies.flush()

    try:
        function, prepare = pickle.load(requests)
        if prepare is not None:
            prepare()
    except Exception as error:
        reply(RAISED, describe(error))
        return
    gc.freeze()  # what was imported stays: do not look through all of it again and again
    reply(READY)
    while True:
        try:
            item = pickle.load(requests)
        except EOFError:
            sys.stderr.flush()
            os._exit(0)
        except Exception as error:
            reply(RAISED, describe(error))
            continue
        try:
            result = function(item)
        except Exception as error:
            reply(RAISED, describe(error))
        else:
            reply(DONE, result)


def _end_with_parent() -> None:
    """End this process when its parent is killed; on Linux even in C code that never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def describe(error: BaseException) -> str:
    """One line about an exception."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
