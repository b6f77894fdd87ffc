"""Sampling: n structures, each a function of (weights, settings, seed, index) alone."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from adit_model.conditions.atoms import ElementChoice, ElementOrders
from adit_model.conditions.condition import Condition
from adit_model.conditions.crystal import cell_matrix
from adit_model.conditions.known import Known
from adit_model.conditions.partial import fixed_part
from adit_model.conditions.properties import Properties
from adit_model.config import ModelConfig, SamplingConfig
from adit_model.network.conditioning import Told
from adit_model.network.coupling import assign_noise
from adit_model.network.decoding import raw_to_system
from adit_model.network.denoiser import Denoiser
from adit_model.network.estimator import Estimator
from adit_model.network.exact import AnyAutoencoder, ExactAutoencoder
from adit_model.network.groups import DomainGroups
from adit_model.progress import tqdm
from adit_model.sampling.flow import integrate, time_grid
from adit_model.sampling.projections import (
    ElementProjection,
    FoundSymmetry,
    Impose,
    SymmetryProjection,
    composed,
    fixed_atoms,
)
from adit_model.sampling.request import Draw, Request, check_positive, draw_samples
from adit_model.sampling.sample import Sample, SamplingInterrupted
from adit_model.sampling.symmetry import is_free
from adit_model.sampling.telling import tell
from adit_model.sampling.workers import OnStep, in_threads, worker_count
from adit_model.systems import CRYSTAL, MOLECULE, AtomicSystem

CPU_BATCH_ATOMS = 512  # fits caches, and divides a request among workers
GPU_BYTES_PER_ATOM_CHANNEL = 600  # of activations, one forward pass; halved on out-of-memory
LOG_SECONDS = 15.0
SIZE_STEP = 16  # rows of a system in attention are padded to a multiple of this
MIN_SYSTEMS = 16  # CPU libraries compute smaller batches by other kernels, which round differently


Result = TypeVar("Result")


class Weights(Protocol):
    """What sampling needs of a model: :class:`adit_model.model.ADiT` has it."""

    @property
    def config(self) -> ModelConfig:
        """Configuration."""
        ...

    @property
    def known(self) -> Known:
        """What it can be told."""
        ...

    @property
    def element_orders(self) -> ElementOrders:
        """Orders of the elements of training molecules."""
        ...

    @property
    def autoencoder(self) -> AnyAutoencoder:
        """Stage 1."""
        ...

    @property
    def denoiser(self) -> Denoiser | None:
        """Stage 2, if there is one."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights."""
        ...

    def prepare(self, structure: Any) -> AtomicSystem:
        """Return the canonical form of a structure."""
        ...

    def encode_prepared(self, systems: Sequence[AtomicSystem]) -> list[np.ndarray]:
        """Return the mean latents of each system in canonical form."""
        ...

    @property
    def estimator(self) -> Estimator | None:
        """What estimates properties, if there is anything."""
        ...

    def estimate(self, structures: Sequence[Any]) -> list[dict[str, float]]:
        """Estimate properties of finished structures."""
        ...

    def decode(
        self,
        latents: torch.Tensor,
        sizes: torch.Tensor,
        periodic: torch.Tensor,
        choices: Sequence[ElementChoice | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Decode packed latents."""
        ...


def sample(
    model: Weights,
    request: Request,
    *,
    batch_atoms: int | None = None,
    workers: int | None = None,
    progress: bool = True,
    on_batch: Callable[[list[Sample]], None] | None = None,
) -> list[Sample]:
    """Make the samples of a request.

    Sample i depends on the weights, the condition and settings of the request, its seed and i, not
    on n or on what it is batched with: bit for bit on a CPU, up to rounding on a GPU.

    Parameters
    ----------
    model : Weights
        With both stages.
    request : Request
        What to make.
    batch_atoms : int
        Atoms integrated at a time by a worker; None chooses by device and memory. Halved on
        out-of-memory.
    workers : int
        Threads that share the batches on a CPU, each with one kernel thread; None takes the cores
        that may be used, see :func:`adit_model.sampling.workers.worker_count`. It changes memory
        and speed, not the samples.
    progress : bool
        Show a progress bar.
    on_batch : callable, optional
        Called with the samples of each batch as it is finished.

    Returns
    -------
    list of Sample
        In the order of the indices. A sample whose cell is unphysical has ``system`` None and a
        ``reason``; none is replaced.

    Raises
    ------
    ValueError, TypeError
        If the checkpoint does not know what is asked for; before any work.
    SamplingInterrupted
        A ``KeyboardInterrupt`` that carries what was finished by then.
    """
    samples: list[Sample] = []
    try:
        with closing(
            _stream(model, request, batch_atoms, workers, progress, samples)
        ) as stream:  # which ends the workers: the list is complete after it
            for batch in stream:
                if on_batch is not None:
                    on_batch(batch)
    except KeyboardInterrupt as error:
        done = sorted(samples, key=lambda s: s.index)
        raise SamplingInterrupted(done, request.n) from error
    return sorted(samples, key=lambda s: s.index)


def iter_samples(
    model: Weights,
    request: Request,
    *,
    batch_atoms: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[list[Sample]]:
    """Make the samples of a request and yield each batch as it is finished.

    Batches are of one domain; with one worker small structures come first. Parameters, samples
    and errors are those of :func:`sample`; the request is checked at once.
    """
    return _stream(model, request, batch_atoms, workers, progress)


def _stream(
    model: Weights,
    request: Request,
    batch_atoms: int | None,
    workers: int | None,
    progress: bool,
    keep: list[Sample] | None = None,
) -> Generator[list[Sample], None, None]:
    check_positive("batch_atoms", batch_atoms)
    check_positive("workers", workers)
    draws, settings = prepare(model, request)
    return stream_samples(
        model,
        draws,
        settings,
        batch_atoms,
        workers,
        rotate=request.random_rotation,
        progress=progress,
        keep=keep,
    )


def prepare(model: Weights, request: Request) -> tuple[list[Draw], SamplingConfig]:
    """Check a request and draw its samples.

    Raises
    ------
    ValueError
        As :func:`sample`.
    """
    require_denoiser(model)
    known = model.known
    settings = request.check(known, model.config)
    draws = draw_samples(request, known, model.element_orders, model.config, settings)
    latents: dict[Condition, np.ndarray] = {}
    for condition in request.asked:
        if condition.atoms is not None:
            part = fixed_part(condition)
            latents[condition] = normalised_latents(model, part)[: len(part)]
    return [
        replace(draw, fixed_latents=latents[draw.condition]) if draw.fixed is not None else draw
        for draw in draws
    ], settings


def normalised_latents(model: Weights, system: AtomicSystem) -> np.ndarray:
    """Latents of a system in canonical form in the units of the denoiser, shape (N, L).

    Raises
    ------
    ValueError
        If the checkpoint has no denoiser, or an element is outside the vocabulary.
    """
    denoiser = require_denoiser(model)
    (latents,) = model.encode_prepared([system])
    packed = torch.from_numpy(latents).to(model.device, model.dtype)
    kinds = row_kinds(model, [len(system)], system.is_periodic)
    return denoiser.normalise(packed, kinds).float().cpu().numpy()


def row_kinds(model: Weights, sizes: list[int], is_crystal: bool) -> torch.Tensor:
    """Kinds of the rows of latents of systems of one domain and so many atoms."""
    counts = torch.tensor(sizes, device=model.device)
    periodic = torch.full(counts.shape, is_crystal, device=model.device)
    return DomainGroups.of_atoms(counts, periodic, cells=model.config.autoencoder.exact).kinds


def require_denoiser(model: Weights) -> Denoiser:
    """Return the denoiser.

    Raises
    ------
    ValueError
        If the checkpoint has none.
    """
    if model.denoiser is None:
        raise ValueError("this checkpoint holds stage 1 only: it can encode, not sample")
    return model.denoiser


def stream_samples(
    model: Weights,
    draws: list[Draw],
    settings: SamplingConfig,
    batch_atoms: int | None = None,
    workers: int | None = None,
    *,
    rotate: bool = False,
    progress: bool = True,
    start_time: float = 0.0,
    keep: list[Sample] | None = None,
) -> Generator[list[Sample], None, None]:
    """Make samples, a batch at a time, under a progress bar.

    Parameters
    ----------
    model : Weights
        With both stages.
    draws : list of Draw
        What to make.
    settings : SamplingConfig
        How.
    batch_atoms, workers : int
        See :func:`sample`.
    rotate : bool
        Turn each structure at random.
    progress : bool
        Show a progress bar.
    start_time : float
        Time in [0, 1) to start at; past 0 the draws need an ``origin``.
    keep : list of Sample
        Each sample is appended to it as soon as it is made, also where an interrupt comes before
        its batch is yielded.
    """
    bar = tqdm(
        total=len(draws),
        desc="sampling",
        unit="structure",
        disable=not progress,
        miniters=0,
        mininterval=_bar_seconds(),
    )
    grids = [_times(settings, draw.domain, start_time) for draw in draws[:1]]
    steps = len(grids[0]) - 1 if grids else 0  # the same in both domains, or they are of one

    def show_step(step: int, _: torch.Tensor) -> None:
        bar.set_postfix_str(f"step {step}/{steps}", refresh=False)
        bar.update(0)

    def finish(draw: Draw, raw: dict[str, Any]) -> Sample:
        sample = finish_sample(model, draw, raw, rotate)
        if keep is not None:
            keep.append(sample)
        return sample

    with bar:
        for part in run_batches(
            model, draws, settings, show_step, finish, batch_atoms, workers, start_time
        ):
            bar.update(len(part))
            yield part


def _focus(settings: SamplingConfig, domain: str) -> float:
    return settings.step_focus if domain == MOLECULE else 0.0


def _times(settings: SamplingConfig, domain: str, start_time: float) -> list[float]:
    """Return when the steps of a domain are; see :func:`~adit_model.sampling.flow.time_grid`."""
    return time_grid(settings.num_steps, start_time, _focus(settings, domain))


def _bar_seconds() -> float:
    """Seconds between two updates of a progress bar: a log file keeps every one."""
    live = "ipykernel" in sys.modules or sys.stderr.isatty()
    return 0.5 if live else LOG_SECONDS


def batch_limit(model: Weights) -> int:
    """Atoms of a batch: the same whatever the workers on a CPU, by free memory on a GPU."""
    if model.device.type != "cuda":
        return CPU_BATCH_ATOMS
    free, _ = torch.cuda.mem_get_info(model.device)
    width = model.config.denoiser.dim
    return max(CPU_BATCH_ATOMS, int(0.5 * free / (GPU_BYTES_PER_ATOM_CHANNEL * width)))


def run_batches(
    model: Weights,
    draws: list[Draw],
    settings: SamplingConfig,
    on_step: OnStep,
    finish: Callable[[Draw, dict[str, Any]], Result],
    batch_atoms: int | None = None,
    workers: int | None = None,
    start_time: float = 0.0,
) -> Iterator[list[Result]]:
    """Integrate draws in batches of one domain and padded size, halving on out-of-memory.

    Parameters
    ----------
    model, draws, settings, batch_atoms, workers, start_time
        See :func:`stream_samples`.
    on_step : callable
        Called with the number of finished steps and x_t after each step of a batch.
    finish : callable
        Makes a result of a draw and what was decoded, where the batch is made.
    """
    on_cpu = model.device.type == "cpu"
    number = worker_count(workers) if on_cpu else 1
    limit = batch_limit(model) if batch_atoms is None else batch_atoms
    waiting = deque(_cut(draws, limit))
    number = min(number, len(waiting))
    if number > 1:  # the largest first, so that all end at about the same time
        waiting = deque(sorted(waiting, key=_size, reverse=True))

    def work(report: OnStep) -> Iterator[list[Result]]:
        nonlocal limit
        while True:
            try:
                part = waiting.popleft()
            except IndexError:
                return
            if len(part) > 1 and _size(part) > limit:
                waiting.extendleft(reversed(_cut(part, limit)))
                continue
            decoded = None
            try:
                decoded = _integrate_batch(model, part, settings, report, start_time)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error) or len(part) == 1:
                    raise
            if decoded is not None:
                yield [finish(draw, raw) for draw, raw in zip(part, decoded, strict=True)]
                continue
            # here the exception, which holds the tensors, is gone
            limit = min(limit, max(1, _size(part) // 2))
            waiting.appendleft(part)
            if model.device.type == "cuda":
                torch.cuda.empty_cache()

    return in_threads(work, number, on_step) if on_cpu else work(on_step)


def _cut(draws: Sequence[Draw], limit: int) -> list[list[Draw]]:
    """Divide draws into batches of one kind and at most ``limit`` atoms, or one draw."""
    parts: list[list[Draw]] = []
    for draw in sorted(draws, key=lambda d: (d.domain, d.num_atoms, d.index)):
        last = parts[-1] if parts else []
        if not last or _kind(draw) != _kind(last[0]) or _size(last) + draw.num_atoms > limit:
            parts.append([])
        parts[-1].append(draw)
    return parts


def _size(part: Sequence[Draw]) -> int:
    return sum(draw.num_atoms for draw in part)


@torch.no_grad()
def _integrate_batch(
    model: Weights,
    part: list[Draw],
    settings: SamplingConfig,
    on_step: OnStep,
    start_time: float,
) -> list[dict[str, Any]]:
    assert model.denoiser is not None
    device = model.device
    counts = [r.num_atoms for r in part]
    cell = len(part[0].noise) - counts[0]  # 1 where it has a row
    filler = _filler(counts, cell) if device.type == "cpu" else []
    blank_rows = sum(filler) + cell * len(filler)
    blank = np.zeros((blank_rows, model.denoiser.latent_dim), dtype=np.float32)
    sizes = torch.tensor(counts + filler, device=device)
    periodic = torch.full(sizes.shape, part[0].domain == CRYSTAL, device=device)
    groups = DomainGroups.of_atoms(sizes, periodic, cells=bool(cell))
    focus = _focus(settings, part[0].domain)
    times = _times(settings, part[0].domain, start_time)
    starts = [_start(r, start_time) for r in part]
    x = torch.from_numpy(np.concatenate([*starts, blank])).to(device, model.dtype)
    fresh = None
    renews = settings.solver == "multistep" and max(settings.noise(part[0].domain)) > 0
    if renews or settings.solver == "ancestral":
        drawn = [r.fresh_noise(len(times) - 1, settings) for r in part]
        drawn.append(np.zeros((len(times) - 2, *blank.shape), dtype=np.float32))
        fresh = torch.from_numpy(np.concatenate(drawn, axis=1)).to(device, model.dtype)
    told = tell(model.denoiser, model.known, part, groups)
    choices = [r.choice for r in part]

    def decide(x_1: torch.Tensor) -> Told:
        """Choose the elements that are asked for, tell them, and keep them at decoding."""
        latents = model.denoiser.denormalise(x_1, groups.kinds)  # type: ignore[union-attr]
        elements, start = told.elements.clone(), 0
        for i, raw in enumerate(model.decode(latents, sizes, periodic, choices)[: len(part)]):
            numbers = raw["numbers"]
            if part[i].decides:
                choices[i] = ElementChoice(numbers)
                stop = start + len(numbers)
                elements[start:stop] = torch.from_numpy(numbers).to(elements)
            start += len(part[i].noise)
        return replace(told, elements=elements)

    decides = model.config.denoiser.conditions and any(r.decides for r in part)
    imposed: list[Impose] = []
    exact = model.autoencoder if isinstance(model.autoencoder, ExactAutoencoder) else None
    if exact is not None and any(c is not None and c.even is not None for c in choices):
        elements = model.known.elements[MOLECULE]
        imposed.append(ElementProjection(exact, elements, model.denoiser, choices, groups))
    if any(draw.fixed_latents is not None for draw in part):
        imposed.append(fixed_atoms(part, x))
    settled = None
    if any(draw.template is not None for draw in part):  # they have no fixed atoms
        symmetry = SymmetryProjection(model.denoiser, [r.template for r in part], groups)
        settled = symmetry.systems
        if model.config.denoiser.optimal_noise:
            x = assign_noise(x, symmetry.anchored(x), groups, told, ~settled)
        x = symmetry.shared_noise(x)
        if fresh is not None and len(fresh):
            fresh = torch.stack([symmetry.shared_noise(noise) for noise in fresh])
        imposed.append(symmetry)
    if settings.symmetry == "found" and exact is not None and part[0].domain == CRYSTAL:

        def systems(x_1: torch.Tensor) -> list[AtomicSystem | None]:
            latents = model.denoiser.denormalise(x_1, groups.kinds)  # type: ignore[union-attr]
            return [raw_to_system(r)[0] for r in model.decode(latents, sizes, periodic, choices)]

        wanted = [is_free(r.condition) and r.condition.space_group is None for r in part]
        imposed.append(FoundSymmetry(model.denoiser, systems, wanted, groups))
    x_1 = integrate(
        model.denoiser,
        x,
        groups,
        settings.num_steps,
        settings.solver,
        settings.guidance,
        on_step,
        fresh,
        start_time,
        told,
        composed(imposed) if imposed else None,
        decide if decides else None,
        settled,
        focus,
    )
    latents = model.denoiser.denormalise(x_1, groups.kinds)
    return model.decode(latents, sizes, periodic, choices)[: len(part)]


def _as_fixed(draw: Draw, raw: dict[str, Any]) -> dict[str, Any]:
    """Put the cell and the fixed sites into what was decoded, the fixed ones first."""
    condition = draw.condition
    if condition.cell is not None:
        raw = {**raw, "cell": cell_matrix(condition.cell)}
    if draw.fixed is not None:
        sites = np.array([site[1:] for site in condition.atoms])
        name = "frac_coords"
        if draw.domain == MOLECULE:  # made in the frame where their mean is the origin
            name = "positions"
            raw = {**raw, name: raw[name] + sites.mean(axis=0)}
        coordinates = raw[name].copy()
        coordinates[draw.fixed] = sites
        order = np.r_[draw.fixed, np.setdiff1d(np.arange(draw.num_atoms), draw.fixed)]
        raw = {**raw, name: coordinates[order], "numbers": raw["numbers"][order]}
    return raw


def _start(draw: Draw, time: float) -> np.ndarray:
    """Where a sample starts: the interpolant between its noise and its origin."""
    if draw.origin is None:
        return draw.noise
    return ((1 - time) * draw.noise + time * draw.origin).astype(np.float32)


def _padded(rows: int) -> int:
    return -(-rows // SIZE_STEP) * SIZE_STEP


def _kind(draw: Draw) -> tuple[str, int]:
    """Which samples may share a batch: its padded size then follows from each of them alone."""
    return draw.domain, _padded(len(draw.noise))


def _filler(counts: list[int], cell: int) -> list[int]:
    """Sizes of systems added so that all batches of a kind round alike; counts ascend.

    Kernels for matrices of another shape sum in another order, and the last elements of an array,
    as many as are left after multiples of 32, have other functions than the rest. An ODE
    amplifies that.
    """
    padded = _padded(counts[-1] + cell) - cell
    largest = [padded] if max(counts) < padded else []
    number = len(counts) + len(largest)
    return largest + [1] * (max(MIN_SYSTEMS, number + number % 2) - number)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def turned(system: AtomicSystem, rotation: np.ndarray) -> AtomicSystem:
    """Turn a system by a rotation matrix (3, 3)."""
    cell = None if system.cell is None else system.cell @ rotation.T
    return AtomicSystem(system.numbers, system.positions @ rotation.T, cell, system.info)


def finish_sample(model: Weights, draw: Draw, raw: dict[str, Any], rotate: bool) -> Sample:
    """Build the sample a decoded dictionary describes."""
    condition = draw.condition
    raw = _as_fixed(draw, raw)
    system, reason = raw_to_system(raw)
    holds = condition.holds(system)
    estimates: dict[str, float] = {}
    if condition.properties and model.estimator is not None:
        with suppress(ValueError):  # its cell cannot be reduced
            # by itself: what it is batched with does not change it
            found = {} if system is None else model.estimate([system])[0]
            estimates = {name: found[name] for name in draw.targets if name in found}
        holds |= Properties().held(condition.properties, estimates, model.known)
    if system is not None:
        if rotate:
            system = turned(system, draw.rotation)
        info: dict[str, Any] = {
            "index": draw.index,
            "seed": draw.seed,
            "domain": draw.domain,
            "source": "ADiT",
        }
        if condition:
            info.update(condition=str(condition), holds=all(holds.values()))
        info.update({f"target_{name}": value for name, value in draw.targets.items()})
        info.update({f"estimated_{name}": value for name, value in estimates.items()})
        system = AtomicSystem(system.numbers, system.positions, system.cell, info)
    return Sample(
        draw.index,
        draw.seed,
        draw.domain,
        draw.num_atoms,
        system,
        reason,
        dict(raw),
        condition,
        holds,
        draw.targets,
        estimates,
    )
