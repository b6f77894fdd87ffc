"""What the denoiser is told in training: drawn for each system, each kind by itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adit_model.geometry import WRAP_CUT
from adit_model.network.conditioning import NUM_ELEMENTS, Told
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups

# Of the systems that are told something: how often one kind alone is, as users ask it; of the rest
# how often each kind is.
ALONE = 0.35
ALL_ELEMENTS, SOME_ELEMENTS = 0.45, 0.15
ELEMENT_SET, SPACE_GROUP, PROPERTY, CELL, SITES = 0.35, 0.35, 0.25, 0.1, 0.15
HOST_CELL = 0.7  # of the crystals with fixed sites: who knows sites knows the cell


def normalise_and_tell(
    denoiser: Denoiser,
    latents: Tensor,
    groups: DomainGroups,
    numbers: Tensor,
    labels: tuple[Tensor, Tensor] | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Told]:
    """Normalise a training batch of latents, and say what any denoiser is told of it.

    Parameters
    ----------
    labels : tuple of torch.Tensor
        Space groups and properties; those with ``conditions`` need them, others are told at most
        the elements of molecules.
    denoiser, latents, groups, numbers, generator
        And results: see :func:`draw_told`.
    """
    if denoiser.config.conditions:
        assert labels is not None
        return draw_told(denoiser, latents, groups, numbers, *labels, generator)
    told = denoiser.tell_nothing(groups)
    if denoiser.config.element_condition:
        told.elements = numbers * (groups.kinds == 0)
    return denoiser.normalise(latents, groups.kinds), told


def draw_told(
    denoiser: Denoiser,
    latents: Tensor,
    groups: DomainGroups,
    numbers: Tensor,
    space_groups: Tensor,
    properties: Tensor,
    generator: torch.Generator | None,
) -> tuple[Tensor, Told]:
    """Draw what is told of each system of a training batch.

    Parameters
    ----------
    denoiser : Denoiser
        With ``conditions``.
    latents : torch.Tensor
        Of the autoencoder, not normalised, shape (T, L).
    groups : DomainGroups
        Of the batch.
    numbers : torch.Tensor
        Atomic numbers, 0 for cells, shape (T,).
    space_groups : torch.Tensor
        0 where unknown, shape (S,).
    properties : torch.Tensor
        Standardised, NaN where unknown, shape (S, P).
    generator : torch.Generator
        Of the draws.

    Returns
    -------
    tuple
        Normalised latents (T, L), those of systems with fixed sites moved at random, and what is
        told of them.
    """
    device = latents.device
    systems, index = groups.packing.num_systems, groups.packing.index
    is_cell = groups.is_cell

    def chance(*shape: int) -> Tensor:
        at = None if generator is None else generator.device
        return torch.rand(shape, generator=generator, device=at).to(device)

    some = chance(systems) >= denoiser.config.free_share
    alone = some & (chance(systems) < ALONE)
    only = torch.where(alone, (4 * chance(systems)).long(), -1)  # elements, set, group, property
    drawn = chance(systems)
    whole = torch.where(alone, only == 0, drawn < ALL_ELEMENTS)
    part = ~alone & (drawn >= 1 - SOME_ELEMENTS)
    share = torch.where(whole, 1.0, torch.where(part, chance(systems), 0.0)) * some
    named = (chance(len(index)) < share[index]) & ~is_cell
    sites = some & ~alone & (chance(systems) < SITES)
    share = torch.where(sites, chance(systems), 0.0)
    fixed = (chance(len(index)) < share[index]) & ~is_cell
    named = named | (fixed & (chance(systems) < 0.8)[index])  # who gives a site knows its element
    cell = torch.where(sites, HOST_CELL, CELL)
    cell = some & ~alone & groups.periodic & (chance(systems) < cell)
    told = Told.nothing(groups, denoiser.latent_dim, properties.shape[1])
    listed = torch.where(alone, only == 1, some & (chance(systems) < ELEMENT_SET))
    counts = latents.new_zeros(systems, NUM_ELEMENTS).index_put(
        (index[~is_cell], numbers[~is_cell]), latents.new_ones(())
    )
    grouped = torch.where(alone, only == 2, some & (chance(systems) < SPACE_GROUP))
    asked = some[:, None] & (chance(systems, properties.shape[1]) < PROPERTY)
    if properties.shape[1]:
        known = properties.isfinite()
        one = (chance(systems, properties.shape[1]) * known).argmax(dim=1)
        single = nn.functional.one_hot(one, properties.shape[1]).bool()
        valued = (only == 3) | ((only == 2) & (space_groups == 0))
        asked = torch.where(alone[:, None], single & valued[:, None], asked)
    moved = move(latents, groups, fixed, chance)
    x_1 = denoiser.normalise(moved, groups.kinds)
    return x_1, Told(
        domain=told.domain,
        elements=numbers * named,
        fixed=fixed | (is_cell & cell[index]),
        values=x_1,
        element_set=counts * listed[:, None],
        space_group=space_groups * grouped,
        properties=properties.masked_fill(~asked, math.nan),
    )


def move(
    latents: Tensor, groups: DomainGroups, fixed: Tensor, chance: Callable[..., Tensor]
) -> Tensor:
    """Give systems with fixed sites a random origin, molecules a random orientation too.

    A molecule ends with the mean of its fixed atoms at the origin, the frame in which
    :class:`Told` takes them.
    """
    packing, index = groups.packing, groups.packing.index
    systems = packing.num_systems
    has = latents.new_zeros(systems).index_add(0, index, fixed.to(latents.dtype))
    if not bool(has.any()):
        return latents
    uniform = chance(systems, 4)
    xyz = latents[:, :3]
    # crystals: channels hold 2 (f - 1/2), f in [-WRAP_CUT, 1 - WRAP_CUT)
    frac = 0.5 * xyz + 0.5 + uniform[index, :3]
    shifted = 2.0 * (frac - (frac + WRAP_CUT).floor()) - 1.0
    turn = rotations(uniform[:, :3])  # (S, 3, 3)
    mean = latents.new_zeros(systems, 3).index_add(0, index, xyz * fixed[:, None])
    mean = mean / has.clamp(min=1)[:, None]
    turned = ((xyz - mean[index])[:, None] * turn[index]).sum(-1)
    crystal = (groups.kinds == 1)[:, None]
    new = torch.where(crystal, shifted, turned)
    use = (has > 0)[index, None] & (groups.kinds < 2)[:, None]
    return torch.cat([torch.where(use, new, xyz), latents[:, 3:]], dim=1)


def rotations(uniform: Tensor) -> Tensor:
    """Rotation matrices (S, 3, 3) of three uniform numbers each (Shoemake 1992)."""
    u, v, w = uniform[:, 0], 2 * math.pi * uniform[:, 1], 2 * math.pi * uniform[:, 2]
    a, b = (1 - u).sqrt(), u.sqrt()
    x, y, z, s = a * v.sin(), a * v.cos(), b * w.sin(), b * w.cos()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * s), 2 * (x * z + y * s)],
        [2 * (x * y + z * s), 1 - 2 * (x * x + z * z), 2 * (y * z - x * s)],
        [2 * (x * z - y * s), 2 * (y * z + x * s), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
