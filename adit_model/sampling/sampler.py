"""Sampling: n structures, each a function of (weights, settings, seed, index) alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adit_model.batch import Packing
from adit_model.config import SamplingConfig
from adit_model.network.groups import DomainGroups
from adit_model.progress import tqdm
from adit_model.sampling.flow import integrate, time_grid
from adit_model.sampling.request import BOTH, Request, check_request, count_of, make_request
from adit_model.sampling.sample import Sample, SamplingInterrupted
from adit_model.systems import CRYSTAL, AtomicSystem

if TYPE_CHECKING:
    from adit_model.model import ADiT

CPU_BATCH_ATOMS = 1024
GPU_BYTES_PER_ATOM_CHANNEL = 600  # of activations, one forward pass; halved on out-of-memory
LOG_SECONDS = 15.0
SIZE_STEP = 16  # attention is padded to a multiple of this
MIN_SYSTEMS = 16  # CPU libraries compute smaller batches by other kernels, which round differently


def sample(
    model: ADiT,
    n: int,
    *,
    domain: str = BOTH,
    seed: int = 0,
    num_steps: int | None = None,
    solver: str | None = None,
    guidance_scale: float | None = None,
    noise_scale: float | None = None,
    num_atoms: int | tuple[int, int] | Sequence[int] | None = None,
    batch_atoms: int | None = None,
    random_rotation: bool = False,
    progress: bool = True,
    first_index: int = 0,
) -> list[Sample]:
    """Generate n structures.

    Sample i depends on the weights, the settings, ``seed`` and i, not on n or on what it is
    batched with: bit for bit on a CPU, up to rounding on a GPU.

    Parameters
    ----------
    model : ADiT
        With both stages.
    n : int
        How many.
    domain : str
        ``"crystal"``, ``"molecule"``, or ``"both"``: crystals at even, molecules at odd indices.
    seed : int
        Of all random numbers.
    num_steps, solver, guidance_scale, noise_scale
        See :class:`adit_model.config.SamplingConfig`; None takes the checkpoint's.
    num_atoms : int, tuple or list
        One atom count for all, a range ``(low, high)`` to draw from, a list with one count for
        each sample, or None: drawn from the training data's histogram (in a range: restricted to
        it).
    batch_atoms : int
        Atoms integrated at a time; None chooses by device and memory. Halved on out-of-memory.
    random_rotation : bool
        Turn each structure at random; otherwise it comes in its canonical pose.
    progress : bool
        Show a progress bar.
    first_index : int
        Index of the first sample. Samples 0 to 99 are those of two requests for 50, one of which
        starts at 50; a list of atom counts is that of the request.

    Returns
    -------
    list of Sample
        In the order of the indices. A sample whose cell is unphysical has ``system`` None and a
        ``reason``; none is replaced.

    Raises
    ------
    ValueError, TypeError
        If the request is out of range; before any work.
    """
    stream = iter_samples(
        model,
        n,
        domain=domain,
        seed=seed,
        num_steps=num_steps,
        solver=solver,
        guidance_scale=guidance_scale,
        noise_scale=noise_scale,
        num_atoms=num_atoms,
        batch_atoms=batch_atoms,
        random_rotation=random_rotation,
        progress=progress,
        first_index=first_index,
    )
    samples: list[Sample] = []
    try:
        for part in stream:
            samples += part
    except KeyboardInterrupt as error:
        raise SamplingInterrupted(sorted(samples, key=lambda s: s.index), n) from error
    return sorted(samples, key=lambda s: s.index)


def iter_samples(
    model: ADiT,
    n: int,
    *,
    domain: str = BOTH,
    seed: int = 0,
    num_steps: int | None = None,
    solver: str | None = None,
    guidance_scale: float | None = None,
    noise_scale: float | None = None,
    num_atoms: int | tuple[int, int] | Sequence[int] | None = None,
    batch_atoms: int | None = None,
    random_rotation: bool = False,
    progress: bool = True,
    first_index: int = 0,
) -> Iterator[list[Sample]]:
    """Generate n structures and yield each batch as it is finished: by domain and atom count.

    Parameters, samples and errors are those of :func:`sample`; the request is checked at once.
    """
    if model.denoiser is None:
        raise ValueError("this checkpoint holds stage 1 only: it can encode, not sample")
    sizes = model.known.as_dict()["sizes"]
    check_request(n, domain, seed, num_atoms, batch_atoms, sizes, first_index)
    seed, first_index = int(seed), int(first_index)
    settings = sampling_settings(
        model.config.sampling, num_steps, solver, guidance_scale, noise_scale
    )
    requests = [
        make_request(model, first_index + i, domain, seed, count_of(num_atoms, i)) for i in range(n)
    ]
    limit = batch_atoms or default_batch_atoms(model)
    return stream_samples(
        model, requests, settings, limit, random_rotation=random_rotation, progress=progress
    )


def stream_samples(
    model: ADiT,
    requests: list[Request],
    settings: SamplingConfig,
    limit: int,
    *,
    random_rotation: bool = False,
    progress: bool = True,
    start_time: float = 0.0,
) -> Iterator[list[Sample]]:
    """Make the samples of checked requests, a batch at a time, under a progress bar.

    Parameters
    ----------
    model : ADiT
        With both stages.
    requests : list of Request
        What to make.
    settings : SamplingConfig
        How.
    limit : int
        Atoms of a batch.
    random_rotation, progress
        As for :func:`sample`.
    start_time : float
        Time in [0, 1) to start at; past 0 the requests need an ``origin``.
    """
    bar = tqdm(
        total=len(requests),
        desc="sampling",
        unit="structure",
        disable=not progress,
        miniters=0,
        mininterval=_bar_seconds(),
    )
    steps = len(time_grid(settings.num_steps, start_time)) - 1

    def show_step(step: int, _: torch.Tensor) -> None:
        bar.set_postfix_str(f"step {step}/{steps}", refresh=False)
        bar.update(0)

    with bar:
        for part, decoded in run_batches(model, requests, settings, limit, show_step, start_time):
            bar.update(len(part))
            yield [
                finish_sample(request, raw, request.seed, random_rotation)
                for request, raw in zip(part, decoded, strict=True)
            ]


def _bar_seconds() -> float:
    """Seconds between two updates of a progress bar: a log file keeps every one."""
    live = "ipykernel" in sys.modules or sys.stderr.isatty()
    return 0.5 if live else LOG_SECONDS


def sampling_settings(
    base: SamplingConfig,
    num_steps: int | None = None,
    solver: str | None = None,
    guidance_scale: float | None = None,
    noise_scale: float | None = None,
) -> SamplingConfig:
    """Checkpoint defaults with what the user sets, checked."""
    given = {
        "num_steps": num_steps,
        "solver": solver,
        "guidance_scale": guidance_scale,
        "noise_scale": noise_scale,
    }
    return replace(base, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]


def default_batch_atoms(model: ADiT) -> int:
    """Atoms of a batch: cache-sized on a CPU, from the free memory on a GPU."""
    if model.device.type != "cuda":
        return CPU_BATCH_ATOMS
    free, _ = torch.cuda.mem_get_info(model.device)
    width = model.config.denoiser.dim
    return max(CPU_BATCH_ATOMS, int(0.5 * free / (GPU_BYTES_PER_ATOM_CHANNEL * width)))


def run_batches(
    model: ADiT,
    requests: list[Request],
    settings: SamplingConfig,
    limit: int,
    on_step: Callable[[int, torch.Tensor], None],
    start_time: float = 0.0,
) -> Iterator[tuple[list[Request], list[dict[str, Any]]]]:
    """Integrate requests in batches of one domain and padded size, halving on out-of-memory."""
    waiting = sorted(requests, key=lambda r: (r.domain, r.num_atoms, r.index))
    while waiting:
        part: list[Request] = []
        atoms = 0
        for request in waiting:
            over = atoms + request.num_atoms > limit
            if part and (over or _kind(request) != _kind(part[0])):
                break
            part.append(request)
            atoms += request.num_atoms
        decoded = None
        try:
            decoded = _integrate_batch(model, part, settings, on_step, start_time)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error) or len(part) == 1:
                raise
        if decoded is None:  # here the exception, which holds the tensors, is gone
            limit = max(1, atoms // 2)
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        waiting = waiting[len(part) :]
        yield part, decoded


@torch.no_grad()
def _integrate_batch(
    model: ADiT,
    part: list[Request],
    settings: SamplingConfig,
    on_step: Callable[[int, torch.Tensor], None],
    start_time: float,
) -> list[dict[str, Any]]:
    assert model.denoiser is not None
    device = model.device
    counts = [r.num_atoms for r in part]
    filler = _filler(counts) if device.type == "cpu" else []
    blank = np.zeros((sum(filler), model.denoiser.latent_dim), dtype=np.float32)
    sizes = torch.tensor(counts + filler, device=device)
    periodic = torch.full(sizes.shape, part[0].domain == CRYSTAL, device=device)
    groups = DomainGroups(Packing(sizes), periodic)
    times = time_grid(settings.num_steps, start_time)
    starts = [_start(r, start_time) for r in part]
    x = torch.from_numpy(np.concatenate([*starts, blank])).to(device, model.dtype)
    fresh = None
    if settings.solver == "ancestral":
        drawn = [r.fresh_noise(len(times) - 1, settings) for r in part]
        drawn.append(np.zeros((len(times) - 2, *blank.shape), dtype=np.float32))
        fresh = torch.from_numpy(np.concatenate(drawn, axis=1)).to(device, model.dtype)
    elements = None
    if any(r.elements is not None for r in part):
        told = [
            np.zeros(n, int) if r.elements is None else r.elements
            for r, n in zip(part, counts, strict=True)
        ]
        rows = np.concatenate([*told, np.zeros(len(blank), int)])
        elements = torch.from_numpy(rows).to(device)
    x_1 = integrate(
        model.denoiser,
        x,
        groups,
        settings.num_steps,
        settings.solver,
        settings.guidance_scale,
        on_step,
        fresh,
        start_time,
        elements,
    )
    latents = model.denoiser.denormalise(x_1, periodic[groups.packing.index])
    return model.decode(latents, sizes, periodic)[: len(part)]


def _start(request: Request, time: float) -> np.ndarray:
    """Where a request starts: the interpolant between its noise and its origin."""
    if request.origin is None:
        return request.noise
    return ((1 - time) * request.noise + time * request.origin).astype(np.float32)


def _padded(num_atoms: int) -> int:
    return -(-num_atoms // SIZE_STEP) * SIZE_STEP


def _kind(request: Request) -> tuple[str, int]:
    """Which requests may share a batch: its padded size then follows from each of them alone."""
    return request.domain, _padded(request.num_atoms)


def _filler(counts: list[int]) -> list[int]:
    """Sizes of systems added so that all batches of a kind round alike; counts ascend.

    Kernels for matrices of another shape sum in another order, and an ODE amplifies that.
    """
    padded = _padded(counts[-1])
    largest = [padded] if max(counts) < padded else []
    return largest + [1] * (MIN_SYSTEMS - len(counts) - len(largest))


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def finish_sample(request: Request, raw: dict[str, Any], seed: int, rotate: bool) -> Sample:
    """Build the sample a decoded dictionary describes."""
    from adit_model.model import raw_to_system

    system, reason = raw_to_system(raw)
    if system is not None:
        positions, cell = system.positions, system.cell
        if rotate:
            positions = positions @ request.rotation.T
            cell = None if cell is None else cell @ request.rotation.T
        info = {"index": request.index, "seed": seed, "domain": request.domain, "source": "ADiT"}
        system = AtomicSystem(system.numbers, positions, cell, info)
    return Sample(request.index, seed, request.domain, request.num_atoms, system, reason, dict(raw))
