"""Threads that share the batches of a request on a CPU, each with one kernel thread.

Threads inside kernels wait for each other many thousand times a batch, so that one other busy
process holds all of them up, and how many there are changes how sums are rounded. Threads of one
kernel thread each meet only where a batch ends, and their results do not depend on their number.
PyTorch holds no lock inside its kernels, so that they do not need processes, which would have to
start, load the weights and import PyTorch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
OnStep = Callable[[int, Tensor], None]

_lock = threading.Lock()
_inside = 0  # calls of one_kernel_thread that have not ended
_before = 1  # kernel threads before the first of them


class _Stopped(Exception):
    """Ends the batch of a thread whose results nobody waits for."""


def worker_count(workers: int | None = None) -> int:
    """Threads that sample on a CPU: as asked for, or one for each core that may be used.

    That is the number of kernel threads of PyTorch (``OMP_NUM_THREADS``,
    ``torch.set_num_threads``), at most the cores that the affinity of the process and the limits
    of its container leave it.
    """
    if workers is not None:
        return workers
    from joblib import cpu_count

    return max(1, min(torch.get_num_threads(), cpu_count()))


@contextmanager
def one_kernel_thread() -> Iterator[None]:
    """Use one kernel thread in this thread, which shall end with the block.

    PyTorch has a number for each thread, which stays, and one for the process, which the last to
    leave restores.
    """
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_num_threads(_before)


def in_threads(
    work: Callable[[OnStep], Iterator[Result]], number: int, on_step: OnStep
) -> Iterator[Result]:
    """Yield what ``number`` iterators yield, each consumed in a thread of its own.

    Parameters
    ----------
    work : callable
        Makes an iterator. It is given a function to call after each step, which ends the iterator
        with an exception where nobody waits for its results any more.
    number : int
        Threads.
    on_step : callable
        Called in the calling thread with what that function is given.

    Raises
    ------
    BaseException
        What an iterator raised first.
    """
    # what to call after a step, a result, an error, or the end of a thread
    events: SimpleQueue[Callable[[], None] | tuple[Result] | BaseException | None] = SimpleQueue()
    stopping = threading.Event()

    def report(step: int, x: Tensor) -> None:
        if stopping.is_set():
            raise _Stopped
        events.put(lambda: on_step(step, x))

    def consume() -> None:
        try:
            with one_kernel_thread():
                for result in work(report):
                    events.put((result,))
                    if stopping.is_set():
                        return
        except _Stopped:
            pass
        except BaseException as error:  # raised again where the results are waited for
            events.put(error)
        finally:
            events.put(None)

    threads = [
        threading.Thread(target=consume, name=f"adit-sampling-{i}", daemon=True)
        for i in range(number)
    ]

    try:
        for thread in threads:
            thread.start()
        running = number
        while running:
            event = events.get()
            if event is None:
                running -= 1
            elif isinstance(event, BaseException):
                raise event
            elif isinstance(event, tuple):
                yield event[0]
            else:
                event()
    finally:
        stopping.set()
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
