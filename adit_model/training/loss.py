"""Loss of flow matching on latents (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from adit_model.network.cells import CELL_DIM
from adit_model.network.conditioning import NULL_CLASS, Told
from adit_model.network.coupling import assign_noise
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups

T_MIN, T_MAX = 0.01, 0.99
CELL_WEIGHT = 6.0  # of a number of the cell, of which there are few, beside one of an atom
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
    told: Told | None = None,
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
    told : Told
        See :meth:`Denoiser.forward`. Of models without ``conditions`` the elements are hidden with
        the domain, and again as often by themselves.
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
    told = denoiser.tell_nothing(groups) if told is None else told
    if not config.conditions:
        secret = torch.rand(number, generator=drawn, device=at).to(device) < config.class_dropout
        told = replace(
            told,
            domain=told.domain.masked_fill(hidden, NULL_CLASS),
            elements=told.elements.masked_fill((hidden | secret)[packing.index], 0),
        )
    if config.optimal_noise:
        x_0 = assign_noise(x_0, x_1, groups, told)
    t_atom = t[packing.index, None]
    x_t = (1 - t_atom) * x_0 + t_atom * x_1

    previous = None
    if self_condition:
        with torch.no_grad():
            previous = predict(x_t, t, groups, told, None).detach()
    error = predict(x_t, t, groups, told, previous) - x_1
    weighted = (error / (1 - t_atom.clamp(max=config.time_clip))).square()  # (T, L)
    if not groups.has_cells:
        loss = weighted.mean()
    else:
        rows = groups.cells
        is_cell = groups.is_cell[:, None]
        channel = torch.arange(x_1.shape[1], device=device)
        weight = torch.where(is_cell, CELL_WEIGHT * (channel < CELL_DIM), 1.0)
        loss = (weighted * weight).sum() / weight.sum()
    terms = {}
    for (periodic, _), part in zip(groups.groups, groups.split(weighted.detach()), strict=True):
        name = "crystal" if periodic else "molecule"
        if periodic and groups.has_cells:
            part = weighted.detach()[groups.kinds == 1]
            terms["cell"] = weighted.detach().index_select(0, rows)[:, :CELL_DIM].mean()
        terms[name] = part.mean()
        terms[f"{name}_coordinates"] = part[:, :3].mean()
    return loss, terms


def _on_device(generator: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """Give a generator on the GPU the seed of this one: it would wait for numbers made here."""
    if generator is None or device.type != "cuda" or generator.device.type == "cuda":
        return generator
    return torch.Generator(device).manual_seed(generator.initial_seed())
