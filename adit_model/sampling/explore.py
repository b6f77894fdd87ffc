"""Around known structures: variations, paths through latent space, and how noise becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from adit_model.conditions.atoms import ElementChoice
from adit_model.conditions.condition import Condition
from adit_model.network.decoding import raw_to_system
from adit_model.sampling.flow import time_grid
from adit_model.sampling.request import Draw, Request, check_positive
from adit_model.sampling.sample import Sample
from adit_model.sampling.sampler import (
    Weights,
    finish_sample,
    normalised_latents,
    prepare,
    require_denoiser,
    row_kinds,
    run_batches,
    stream_samples,
    turned,
)
from adit_model.systems import CRYSTAL, AtomicSystem


@dataclass(frozen=True)
class PathPoint:
    """One structure on a path.

    Parameters
    ----------
    at : float
        Where on the path, from 0 (noise, or the first structure) to 1.
    system : AtomicSystem or None
        The structure; None if the decoded cell is unphysical.
    reason : str or None
        Why there is no system.
    """

    at: float
    system: AtomicSystem | None
    reason: str | None = None


def variations(
    model: Weights,
    system: Any,
    n: int | Request,
    *,
    strength: float = 0.3,
    batch_atoms: int | None = None,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> list[Sample]:
    """Noise a structure part of the way and generate from there.

    Its latents x_1 become (1 - t) x_0 + t x_1 with t = 1 - strength, and the sampler goes on from
    time t with the share ``strength`` of its steps. Strength 1 is sampling at the same atom count.

    Parameters
    ----------
    model : Weights
        With both stages.
    system : AtomicSystem, pymatgen Structure or Molecule, or ase.Atoms
        Where to start, in any order of atoms, orientation and cell.
    n : int or Request
        How many variations, or a request for them: whose condition is the domain and number
        of atoms of the system.
    strength : float
        In (0, 1]: how much of the way back to noise.
    batch_atoms, workers, progress
        See :func:`adit_model.sampling.sampler.sample`.
    **options
        ``seed``, ``first_index``, ``random_rotation``, ``num_steps``, ...: see
        :meth:`adit_model.sampling.request.Request.of`.

    Returns
    -------
    list of Sample
        In the order of the indices. They are variations of the canonical form
        (:meth:`adit_model.model.ADiT.prepare`) and come in its order of atoms and pose: a new
        structure has no atoms that are the input's, so nothing is given back in its description.

    Raises
    ------
    ValueError, TypeError
        If the request is out of range, or the model does not know the system's domain, atom count
        or elements; before any sampling.
    """
    check_strength(strength)
    check_positive("batch_atoms", batch_atoms)
    check_positive("workers", workers)
    system = model.prepare(system)
    asked = Condition(domain=system.domain, num_atoms=len(system))
    request = Request.of(n, None if isinstance(n, Request) else asked, **options)
    if request.condition != asked:
        raise ValueError(f"variations of {system} are '{asked}', not '{request.condition}'")
    symmetry = dict(request.sampling).get("symmetry", "free")
    if symmetry == "known":
        raise ValueError("variations start from a structure, not from the symmetry of known ones")
    draws, settings = prepare(
        model, replace(request, sampling=dict(request.sampling) | {"symmetry": symmetry})
    )
    origin = normalised_latents(model, system)
    config = model.config.denoiser
    if (config.element_condition or config.conditions) and not system.is_periodic:
        told = {"told": system.numbers, "choice": ElementChoice(system.numbers)}
    else:
        told = {}
    stream = stream_samples(
        model,
        [replace(draw, origin=origin, **told) for draw in draws],
        settings,
        batch_atoms,
        workers,
        rotate=request.random_rotation,
        progress=progress,
        start_time=1.0 - strength,
    )
    return sorted((s for part in stream for s in part), key=lambda s: s.index)


def check_strength(strength: float) -> None:
    """Raise ValueError unless ``strength`` lies in (0, 1]."""
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie in (0, 1], got {strength!r}")


def trajectory(model: Weights, request: Request) -> list[PathPoint]:
    """Decode what the sampler holds after each step on the way from noise to one sample.

    The last point is what :func:`adit_model.sampling.sampler.sample` makes of the request, bit
    for bit on a CPU.

    Parameters
    ----------
    model : Weights
        With both stages.
    request : Request
        For one sample.

    Returns
    -------
    list of PathPoint
        ``num_steps + 1`` points, the first decoded from pure noise.

    Raises
    ------
    ValueError
        If the request is for several samples or cannot be met; before any work.
    """
    if request.n != 1:
        raise ValueError(f"a trajectory is of one sample, the request is for {request.n}")
    denoiser = require_denoiser(model)
    (draw,), settings = prepare(model, request)
    states = [draw.noise]

    def keep(step: int, x: torch.Tensor) -> None:
        states.append(x[: len(draw.noise)].cpu().numpy())

    def decoded(draw: Draw, raw: dict[str, Any]) -> dict[str, Any]:
        return raw

    ((last,),) = list(run_batches(model, [draw], settings, keep, decoded))
    is_crystal = draw.domain == CRYSTAL
    packed = torch.from_numpy(np.concatenate(states[:-1])).to(model.device, model.dtype)
    focus = 0.0 if is_crystal else settings.step_focus
    times = list(time_grid(settings.num_steps, focus=focus)[:-1])
    kinds = row_kinds(model, [draw.num_atoms] * len(times), is_crystal)
    latents = denoiser.denormalise(packed, kinds).float().cpu().numpy()
    points = decode_path(
        model, np.split(latents, len(times)), is_crystal, times, [draw.choice] * len(times)
    )
    if request.random_rotation:
        points = [
            replace(p, system=None if p.system is None else turned(p.system, draw.rotation))
            for p in points
        ]
    final = finish_sample(model, draw, last, request.random_rotation)
    return [*points, PathPoint(1.0, final.system, final.fault)]


def interpolate(
    model: Weights, first: Any, second: Any, k: int = 8, match: bool = True
) -> list[PathPoint]:
    """Decode k points on the straight line between the latents of two structures.

    Parameters
    ----------
    model : Weights
        One stage is enough.
    first, second : AtomicSystem, pymatgen Structure or Molecule, or ase.Atoms
        Ends of the path, of one domain and with equally many atoms (crystals: in the primitive
        cell); both are on the path, as the autoencoder reconstructs them, in canonical form.
    k : int
        Points, at least 2.
    match : bool
        Reorder the atoms of ``second`` so that the latents of matched atoms are close; otherwise
        atom i of one becomes atom i of the other, in canonical order.

    Returns
    -------
    list of PathPoint
        From ``first`` to ``second``.

    Raises
    ------
    ValueError
        If the ends do not fit together, k is too small, or the model does not know an element.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 2:
        raise ValueError(f"k must be an integer of at least 2, got {k!r}")
    first, second = model.prepare(first), model.prepare(second)
    if first.domain != second.domain:
        raise ValueError(f"there is no path from a {first.domain} to a {second.domain}")
    if len(first) != len(second):
        raise ValueError(
            "a path needs equally many atoms at both ends, "
            f"got {len(first)} ({first.formula}) and {len(second)} ({second.formula})"
        )
    start, end = model.encode_prepared([first, second])
    if match:
        # the index of an atom enters its latents, so reorder the system and encode again
        order = _match(start[: len(first)], end[: len(first)])
        moved = AtomicSystem(second.numbers[order], second.positions[order], second.cell)
        (end,) = model.encode_prepared([moved])
    fractions = [float(f) for f in np.linspace(0, 1, k)]
    latents = [(1 - f) * start + f * end for f in fractions]
    return decode_path(model, latents, first.is_periodic, fractions)


def _match(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Order of the rows of ``end`` (N, L) that brings them closest to those of ``start``."""
    from scipy.optimize import linear_sum_assignment

    spread = np.concatenate([start, end]).std(axis=0) + 1e-6
    cost = np.square((start[:, None] - end[None]) / spread).sum(axis=-1)
    return linear_sum_assignment(cost)[1]


def decode_path(
    model: Weights,
    latents: list[np.ndarray],
    is_crystal: bool,
    fractions: list[float],
    choices: Sequence[ElementChoice | None] | None = None,
) -> list[PathPoint]:
    """Decode latents of one domain, each of shape (N, L) on the scale of the autoencoder."""
    packed = torch.from_numpy(np.concatenate(latents).astype(np.float32))
    cell = int(is_crystal and model.config.autoencoder.exact)  # the last row
    sizes = torch.tensor([len(x) - cell for x in latents], device=model.device)
    periodic = torch.full(sizes.shape, is_crystal, device=model.device)
    decoded = model.decode(packed.to(model.device, model.dtype), sizes, periodic, choices)
    return [PathPoint(at, *raw_to_system(raw)) for at, raw in zip(fractions, decoded, strict=True)]
