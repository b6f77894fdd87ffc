"""Flow matching on latents: interpolant, loss, guidance and solvers (paper, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from adit_model.network.conditioning import FIELDS, GUIDED, Told
from adit_model.network.coupling import assign_noise
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups

FOCUS_MEAN, FOCUS_WIDTH = 0.55, 0.15  # where steps crowd, see :func:`time_grid`
DECIDE_AT = 0.2  # time at which elements are decided, see :func:`integrate`


def time_grid(num_steps: int, start: float = 0.0, focus: float = 0.0) -> list[float]:
    """Divide the time from ``start`` to 1 into steps, ``num_steps`` of them from 0.

    Without ``focus`` they are equally spaced. With it that share of the steps crowds around the
    time at which atoms settle on their neighbours: it is spread as a normal distribution of mean
    ``FOCUS_MEAN`` and deviation ``FOCUS_WIDTH``. A later start takes its share of the steps,
    rounded, and at least one.
    """
    axis = np.linspace(0.0, 1.0, 2001)
    crowd = ndtr((axis - FOCUS_MEAN) / FOCUS_WIDTH)
    crowd = (crowd - crowd[0]) / (crowd[-1] - crowd[0])
    reached = (1 - focus) * axis + focus * crowd  # share of the steps done at each time
    done = start if focus == 0 else float(np.interp(start, axis, reached))
    steps = max(1, round(num_steps * (1 - done)))
    if focus == 0:
        return [start + (1 - start) * (i / steps) for i in range(steps)] + [1.0]
    inner = np.interp(np.linspace(done, 1.0, steps + 1)[1:-1], reached, axis)
    return [start, *inner.tolist(), 1.0]


def renew_noise(x: Tensor, x_1: Tensor, now: float, then: float, noise: Tensor) -> Tensor:
    """Replace part of the noise left in x after a step, as ancestral sampling does.

    With sigma = (1 - t) / t, the noise relative to the signal, a step from sigma to sigma' keeps
    the share (sigma' / sigma)^2 of the variance of its noise and draws the rest anew (Song et al.
    2021, arXiv 2010.02502, equation 16 with eta = 1, for the linear interpolant).

    Parameters
    ----------
    x : torch.Tensor
        Where the deterministic step arrived at time ``then``, shape (A, L).
    x_1 : torch.Tensor
        Prediction of the step, shape (A, L).
    now, then : float
        Start and end of the step, 0 <= now < then < 1.
    noise : torch.Tensor
        Gaussian, shape (A, L).
    """
    ratio = (1 - then) * now / (then * (1 - now))  # sigma' / sigma, 0 at the start
    rest = x - then * x_1  # what the step left of the noise
    return then * x_1 + ratio * rest + (1 - ratio**2) ** 0.5 * (1 - then) * noise


def extrapolated(x_1: Tensor, before: Tensor | None, times: tuple[float, float, float]) -> Tensor:
    """Prediction in the middle of a step, from those at its start and at the start of the last.

    It is linear in the logarithm of t / (1 - t), half the logarithm of the ratio of signal to
    noise, as in DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    Parameters
    ----------
    x_1 : torch.Tensor
        Prediction at the start of this step, shape (A, L).
    before : torch.Tensor or None
        At the start of the last step; None in the first.
    times : tuple of float
        Start of the last step, start and end of this one.
    """
    earlier, now, then = times
    if before is None or earlier <= 0 or then >= 1:
        return x_1
    last, now, then = (math.log(t / (1 - t)) for t in (earlier, now, then))
    return x_1 + 0.5 * (then - now) / (now - last) * (x_1 - before)


@torch.no_grad()
def integrate(
    denoiser: Denoiser,
    x_0: Tensor,
    groups: DomainGroups,
    num_steps: int,
    solver: str,
    guidance_scale: float | Mapping[str, float],
    on_step: Callable[[int, Tensor], None] | None = None,
    fresh_noise: Tensor | None = None,
    start_time: float = 0.0,
    told: Told | None = None,
    impose: Callable[[Tensor, float], Tensor] | None = None,
    decide: Callable[[Tensor], Told] | None = None,
    settled: Tensor | None = None,
    step_focus: float = 0.0,
) -> Tensor:
    """Solve dx/dt = (x_1(x_t, t) - x_t) / (1 - t), from noise at 0 or later to latents at 1.

    Self-conditioning carries the last prediction from one evaluation to the next. The last
    interval is an Euler step, which lands on the prediction itself: the velocity has no value
    at t = 1.

    Parameters
    ----------
    denoiser : Denoiser
        Trained model.
    x_0 : torch.Tensor
        Gaussian noise, or what holds some at the first of the times, shape (A, L).
    groups : DomainGroups
        Of the batch.
    num_steps : int
        Intervals from 0 to 1.
    solver : str
        ``"euler"``, ``"midpoint"``, ``"heun"``, ``"ancestral"`` or ``"multistep"``.
    guidance_scale : float or mapping
        Weight w of the prediction that is told something over one that is told only what is
        fixed; 1 evaluates only the first, and so does a batch that is told nothing else. By kind
        of condition: ``told + sum of (w - 1) (told - told without the kind)``.
    on_step : callable
        Called with the number of finished steps and x_t.
    fresh_noise : torch.Tensor
        Gaussian noise of the ancestral solver, shape (num_steps - 1, A, L); with a later start,
        as many as steps are left but one. The multistep solver renews noise if it is given any.
    start_time : float
        Time of ``x_0`` in [0, 1), see :func:`time_grid`.
    told : Told
        See :meth:`Denoiser.forward`; nothing by default.
    impose : callable
        Puts what is known into a prediction of x_1 at a time, which the flow then arrives at.
    decide : callable
        Called once, with the prediction of x_1 of the step that reaches :data:`DECIDE_AT`; what it
        returns is told from then on.
    settled : torch.Tensor
        Systems whose atoms do not exchange renewed noise, shape (S,), bool.
    step_focus : float
        See :func:`time_grid`.

    Returns
    -------
    torch.Tensor
        Normalised latents, shape (A, L).

    Raises
    ------
    ValueError
        If the ancestral solver has no fresh noise.
    """
    known = denoiser.tell_nothing(groups) if told is None else told
    together = not isinstance(guidance_scale, Mapping)
    if isinstance(guidance_scale, Mapping):
        parts = [(w, FIELDS[kind]) for kind, w in guidance_scale.items() if w != 1]
    else:
        parts = [(guidance_scale, GUIDED)] if guidance_scale != 1 else []
    use_memory = denoiser.config.self_condition > 0
    memory: Tensor | None = None

    def predict(x: Tensor, time: float) -> Tensor:
        nonlocal memory
        t = x.new_full((groups.packing.num_systems,), time)
        x_1 = denoiser(x, t, groups, known, memory)
        told_all = x_1
        for weight, kinds in parts:
            if known.is_guided(kinds):
                free = denoiser(x, t, groups, known.without(kinds), memory)
                if together:
                    x_1 = free + weight * (told_all - free)
                else:
                    x_1 = x_1 + (weight - 1) * (told_all - free)
        if impose is not None:
            x_1 = impose(x_1, time)
        if use_memory:
            memory = x_1
        return x_1

    def renewed(x: Tensor, x_1: Tensor, now: float, then: float, noise: Tensor) -> Tensor:
        x = renew_noise(x, x_1, now, then, noise)
        if denoiser.config.optimal_noise:  # as in training
            x = then * x_1 + assign_noise(x - then * x_1, x_1, groups, known, settled)
        return x

    times = time_grid(num_steps, start_time, step_focus)
    last = len(times) - 2
    if solver == "ancestral" and fresh_noise is None and last > 0:
        raise ValueError("the ancestral solver needs fresh_noise")
    x = x_0
    decided = decide is None
    before: tuple[Tensor, float] | None = None  # the last prediction and its time
    for step, (now, then) in enumerate(pairwise(times)):
        width = then - now
        if not decided and now >= DECIDE_AT:
            assert decide is not None
            known, decided = decide(predict(x, now) if memory is None else memory), True
        slope = (predict(x, now) - x) / (1 - now)
        if solver == "euler" or step == last:
            x = x + width * slope
        elif solver == "ancestral":
            assert fresh_noise is not None
            x_1 = x + (1 - now) * slope
            x = renewed(x + width * slope, x_1, now, then, fresh_noise[step])
        elif solver == "multistep":
            x_1 = x + (1 - now) * slope
            earlier, at = (None, 0.0) if before is None else before
            middle_x_1 = extrapolated(x_1, earlier, (at, now, then))
            before = x_1, now
            x = x + width * (middle_x_1 - x) / (1 - now)
            if fresh_noise is not None:
                x = renewed(x, middle_x_1, now, then, fresh_noise[step])
        elif solver == "midpoint":
            middle = now + width / 2
            halfway = x + width / 2 * slope
            x = x + width * (predict(halfway, middle) - halfway) / (1 - middle)
        else:
            ahead = x + width * slope
            x = x + width / 2 * (slope + (predict(ahead, then) - ahead) / (1 - then))
        if on_step is not None:
            on_step(step + 1, x)
    return x
