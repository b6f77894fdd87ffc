"""Threads share the batches of a request; how many there are changes nothing but the time."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from test_sampling import assert_same, tiny_model

from adit_model.sampling import sampler
from adit_model.sampling.sample import SamplingInterrupted
from adit_model.sampling.workers import worker_count


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def kernel_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [2, 5])
def test_samples_do_not_depend_on_workers(model, kernel_threads, workers):
    options = {"seed": 3, "num_steps": 4, "progress": False}
    alone = model.sample(24, workers=1, **options)
    threads = set()
    plain = model.denoiser.forward

    def forward(*args):
        threads.add((threading.get_ident(), torch.get_num_threads()))
        return plain(*args)

    model.denoiser.forward = forward
    try:
        together = model.sample(24, workers=workers, batch_atoms=40, **options)
    finally:
        del model.denoiser.forward
    assert_same(together, alone)
    assert 1 < len(threads) <= workers
    assert {number for _, number in threads} == {1}
    assert torch.get_num_threads() == 3


def test_default_is_the_cores_that_may_be_used(kernel_threads):
    assert worker_count(7) == 7
    allowed = os.sched_getaffinity(0)
    assert worker_count() == min(3, len(allowed))
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert worker_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    torch.set_num_threads(1)
    assert worker_count() == 1


def test_an_interrupt_keeps_what_other_workers_finished(model, monkeypatch):
    """One worker finishes its batches, then the other, in the middle of its own, is interrupted."""
    plain = sampler._integrate_batch
    finished = threading.Semaphore(0)
    options = {"domain": "molecule", "num_atoms": 4, "num_steps": 2, "progress": False}

    def integrate(model, part, settings, on_step, start_time):
        if part[0].index > 0:
            decoded = plain(model, part, settings, on_step, start_time)
            finished.release()
            return decoded
        for _ in range(2):
            assert finished.acquire(timeout=60)
        _thread.interrupt_main()
        while True:  # until it is told that nobody waits for it
            on_step(1, None)

    monkeypatch.setattr(sampler, "_integrate_batch", integrate)
    with pytest.raises(SamplingInterrupted) as caught:
        model.sample(3, workers=2, batch_atoms=4, **options)
    monkeypatch.undo()
    assert_same(caught.value.samples, model.sample(3, **options)[1:])
    assert not [t for t in threading.enumerate() if t.name.startswith("adit-sampling")]


def test_an_error_of_a_worker_is_raised(model, monkeypatch):
    def broken(*args):
        raise RuntimeError("the network has a hole")

    monkeypatch.setattr(sampler, "_integrate_batch", broken)
    with pytest.raises(RuntimeError, match="the network has a hole"):
        model.sample(4, workers=2, progress=False)


def test_bad_numbers_of_workers_are_refused(model):
    with pytest.raises(ValueError, match="workers must be positive, got 0"):
        model.sample(2, workers=0)
    with pytest.raises(TypeError, match=r"workers must be an integer, got 1\.5"):
        model.sample(2, workers=1.5)


def test_a_forked_process_samples_where_kernel_threads_were_used(tiny_checkpoint):
    code = f"""
import os, signal, torch
from adit_model import ADiT
torch.set_num_threads(2)
model = ADiT.load({str(tiny_checkpoint)!r}, device="cpu")
torch.randn(600, 600) @ torch.randn(600, 600)  # starts the kernel threads
child = os.fork()
if child == 0:
    signal.alarm(100)  # ends a process that waits for threads it does not have
    torch.randn(600, 600) @ torch.randn(600, 600)
    samples = model.sample(4, seed=1, progress=False)
    model.encode([s.system for s in samples if s.system is not None])
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
