"""Loss of flow matching on latents (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adit_model.network.denoiser import NULL_CLASS, Denoiser
from adit_model.network.groups import DomainGroups
from adit_model.sampling.flow import domain_classes

T_MIN, T_MAX = 0.01, 0.99


FOCUS_MEAN, FOCUS_STD = 0.2, 0.75  # of logit(t)


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
