"""What the denoiser is told of each sample of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import atomic_numbers

from adit_model.conditions.crystal import cell_matrix
from adit_model.conditions.known import Known
from adit_model.network.cells import CELL_DIM, cell_numbers
from adit_model.network.conditioning import Told
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups

if TYPE_CHECKING:
    from adit_model.sampling.request import Draw


def tell(denoiser: Denoiser, known: Known, draws: Sequence[Draw], groups: DomainGroups) -> Told:
    """Put what is asked of samples into tensors; systems after them are told nothing.

    Parameters
    ----------
    denoiser : Denoiser
        Of any kind: those without ``conditions`` are told elements alone.
    known : Known
        Has the mean and standard deviation of each property.
    draws : sequence of Draw
        The first systems of the batch.
    groups : DomainGroups
        Of the batch.
    """
    told = denoiser.tell_nothing(groups)
    stops = groups.packing.sizes.cumsum(0).tolist()
    device = told.values.device
    for i, (draw, stop) in enumerate(zip(draws, stops, strict=False)):
        condition, start = draw.condition, stop - len(draw.noise)
        if draw.told is not None:
            numbers = torch.from_numpy(np.asarray(draw.told, dtype=np.int64)).to(device)
            told.elements[start : start + draw.num_atoms] = numbers
        if not denoiser.config.conditions:
            continue
        for symbol in condition.elements or ():
            told.element_set[i, atomic_numbers[symbol]] = 1
        if draw.template is not None:
            told.space_group[i] = draw.template.space_group
        elif condition.space_group is not None:
            told.space_group[i] = condition.space_group
        for name, target in draw.targets.items():
            scale = known.properties[name]
            place = denoiser.config.properties.index(name)
            told.properties[i, place] = (target - scale.mean) / scale.std
        if draw.fixed is not None and draw.fixed_latents is not None:
            rows = torch.from_numpy(start + draw.fixed).to(device)
            told.fixed[rows] = True
            told.values[rows] = torch.from_numpy(draw.fixed_latents).to(told.values)
        if condition.cell is not None and denoiser.cells:
            cell = torch.from_numpy(cell_matrix(condition.cell))[None]
            numbers = cell_numbers(cell, torch.tensor([draw.num_atoms]))[0].to(told.values)
            mean, std = (x[2, :CELL_DIM] for x in (denoiser.latent_mean, denoiser.latent_std))
            told.fixed[stop - 1] = True
            told.values[stop - 1, :CELL_DIM] = (numbers - mean) / std
    return told
