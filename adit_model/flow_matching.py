"""Flow matching on latents: interpolant, loss, guidance and solvers (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from adit_model.denoiser import CRYSTAL_CLASS, MOLECULE_CLASS, NULL_CLASS, Denoiser
from adit_model.layers import DomainGroups

T_MIN, T_MAX = 0.01, 0.99
FOCUS_MEAN, FOCUS_STD = 0.2, 0.75  # of logit(t)

Velocity = Callable[[Tensor, float], tuple[Tensor, Tensor]]


def domain_classes(periodic: Tensor) -> Tensor:
    """Class index of each system, shape (S,)."""
    return torch.where(periodic, CRYSTAL_CLASS, MOLECULE_CLASS)


def draw_times(
    number: int, skew: float, generator: torch.Generator | None, focus: float = 0.0
) -> Tensor:
    """Draw t from Beta(1 + skew, 1), stretched to [0.01, 0.99], shape (number,).

    The cumulative distribution is t^(1 + skew), so a uniform number to the power
    1 / (1 + skew) follows it. A share ``focus`` is logit-normal, of mean 0.2 and deviation 0.75.
    """
    device = None if generator is None else generator.device
    uniform = torch.rand(number, generator=generator, device=device)
    times = T_MIN + (T_MAX - T_MIN) * uniform ** (1.0 / (1.0 + skew))
    if focus > 0:
        normal = torch.randn(number, generator=generator, device=device)
        focused = (FOCUS_MEAN + FOCUS_STD * normal).sigmoid().clamp(T_MIN, T_MAX)
        chosen = torch.rand(number, generator=generator, device=device) < focus
        times = torch.where(chosen, focused, times)
    return times


def flow_matching_loss(
    denoiser: Denoiser,
    x_1: Tensor,
    groups: DomainGroups,
    generator: torch.Generator | None = None,
    elements: Tensor | None = None,
    self_condition: bool | None = None,
    predict: Callable[..., Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of the predicted x_1, weighted by 1 / (1 - min(t, time_clip))^2.

    In evaluation mode times are not focused, so that runs can be compared.

    Parameters
    ----------
    denoiser : Denoiser
        Model under training.
    x_1 : torch.Tensor
        Normalised latents, shape (A, L).
    groups : DomainGroups
        Of the batch.
    generator : torch.Generator
        Of noise, times and dropout, on the CPU; on a GPU they are drawn there, from its seed.
    elements : torch.Tensor
        See :meth:`Denoiser.forward`; hidden with the domain, and again as often by itself.
    self_condition : bool
        Whether to condition on a first prediction; drawn if not given.
    predict : callable
        Stands in for calling the denoiser.

    Returns
    -------
    tuple
        The loss, and its terms by domain.
    """
    config, packing = denoiser.config, groups.packing
    predict = predict or denoiser
    number, device = packing.num_systems, x_1.device
    drawn = _on_device(generator, device)
    at = None if drawn is None else drawn.device
    x_0 = torch.randn(x_1.shape, generator=drawn, device=at).to(x_1)
    focus = config.time_focus if denoiser.training else 0.0
    t = draw_times(number, config.time_skew, drawn, focus).to(x_1)
    hidden = torch.rand(number, generator=drawn, device=at).to(device) < config.class_dropout
    if self_condition is None:
        self_condition = bool(torch.rand((), generator=generator) < config.self_condition)
    domain = domain_classes(groups.periodic).masked_fill(hidden, NULL_CLASS)
    t_atom = t[packing.index, None]
    x_t = (1 - t_atom) * x_0 + t_atom * x_1
    if elements is not None:
        secret = torch.rand(number, generator=drawn, device=at).to(device) < config.class_dropout
        elements = elements.masked_fill((hidden | secret)[packing.index], 0)

    previous = None
    if self_condition:
        with torch.no_grad():
            previous = predict(x_t, t, domain, groups, None, elements).detach()
    error = predict(x_t, t, domain, groups, previous, elements) - x_1
    weighted = (error / (1 - t_atom.clamp(max=config.time_clip))).square()  # (A, L)
    loss = weighted.mean()
    terms = {}
    for (periodic, _), rows in zip(groups.groups, groups.split(weighted.detach()), strict=True):
        name = "crystal" if periodic else "molecule"
        terms[name] = rows.mean()
        terms[f"{name}_coordinates"] = rows[:, :3].mean()
    return loss, terms


def _on_device(generator: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """Give a generator on the GPU the seed of this one: it would wait for numbers made here."""
    if generator is None or device.type != "cuda" or generator.device.type == "cuda":
        return generator
    return torch.Generator(device).manual_seed(generator.initial_seed())


def time_grid(num_steps: int, start: float = 0.0) -> list[float]:
    """Equally spaced times from ``start`` to 1, ``num_steps + 1`` of them from 0.

    A later start takes its share of the steps, rounded, and at least one.
    """
    steps = max(1, round(num_steps * (1 - start)))
    return [start + (1 - start) * (i / steps) for i in range(steps)] + [1.0]


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


@torch.no_grad()
def integrate(
    denoiser: Denoiser,
    x_0: Tensor,
    groups: DomainGroups,
    num_steps: int,
    solver: str,
    guidance_scale: float,
    on_step: Callable[[int, Tensor], None] | None = None,
    fresh_noise: Tensor | None = None,
    start_time: float = 0.0,
    elements: Tensor | None = None,
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
        ``"euler"``, ``"midpoint"``, ``"heun"`` or ``"ancestral"``.
    guidance_scale : float
        Weight of the class-conditional over the unconditional prediction; 1 evaluates only the
        first.
    on_step : callable
        Called with the number of finished steps and x_t.
    fresh_noise : torch.Tensor
        Gaussian noise of the ancestral solver, shape (num_steps - 1, A, L); with a later start,
        as many as steps are left but one.
    start_time : float
        Time of ``x_0`` in [0, 1), see :func:`time_grid`.
    elements : torch.Tensor
        See :meth:`Denoiser.forward`; the unconditional prediction does without.

    Returns
    -------
    torch.Tensor
        Normalised latents, shape (A, L).

    Raises
    ------
    ValueError
        If the ancestral solver has no fresh noise.
    """
    domain = domain_classes(groups.periodic)
    hidden = torch.full_like(domain, NULL_CLASS)
    use_memory = denoiser.config.self_condition > 0
    memory: Tensor | None = None

    def predict(x: Tensor, time: float) -> Tensor:
        nonlocal memory
        t = x.new_full((groups.packing.num_systems,), time)
        x_1 = denoiser(x, t, domain, groups, memory, elements)
        if guidance_scale != 1.0:
            free = denoiser(x, t, hidden, groups, memory)
            x_1 = free + guidance_scale * (x_1 - free)
        if use_memory:
            memory = x_1
        return x_1

    times = time_grid(num_steps, start_time)
    last = len(times) - 2
    if solver == "ancestral" and fresh_noise is None and last > 0:
        raise ValueError("the ancestral solver needs fresh_noise")
    x = x_0
    for step, (now, then) in enumerate(pairwise(times)):
        width = then - now
        slope = (predict(x, now) - x) / (1 - now)
        if solver == "euler" or step == last:
            x = x + width * slope
        elif solver == "ancestral":
            assert fresh_noise is not None
            x_1 = x + (1 - now) * slope
            x = renew_noise(x + width * slope, x_1, now, then, fresh_noise[step])
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
