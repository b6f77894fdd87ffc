"""Properties of a finished structure, read off what the denoiser sees in it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from adit_model.config import DenoiserConfig
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups

STAGES = 4  # evenly spaced blocks of the denoiser that are read
LARGEST = 5.0  # standard deviations at which a feature is cut off
LEAST_SPREAD = 1e-3  # of a feature; float16 holds it
DROPOUT = 0.1


class Estimator(nn.Module):
    """Estimate properties from features of the denoiser by a network of two hidden layers.

    Parameters
    ----------
    config : DenoiserConfig
        Says what the features are, see :func:`features`, and names the properties.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        number, width = 3 * len(read_blocks(config)) * config.dim + 2, 2 * config.dim
        self.register_buffer("mean", torch.zeros(number))
        self.register_buffer("std", torch.ones(number))
        self.layers = nn.Sequential(
            *(nn.Linear(number, width), nn.SiLU(), nn.Dropout(DROPOUT)),
            *(nn.Linear(width, width), nn.SiLU(), nn.Dropout(DROPOUT)),
            nn.Linear(width, len(config.properties)),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Standardised properties of features (S, F), shape (S, P)."""
        unit = (features - self.mean) / self.std
        return self.layers(unit.clamp(-LARGEST, LARGEST))


def read_blocks(config: DenoiserConfig) -> tuple[int, ...]:
    """Choose the blocks whose output is read: four evenly spaced ones, or all of fewer."""
    return tuple(sorted({config.num_layers * k // STAGES for k in range(1, STAGES + 1)} - {0}))


@torch.no_grad()
def features(denoiser: Denoiser, x_1: Tensor, groups: DomainGroups, numbers: Tensor) -> Tensor:
    """Describe finished structures by what the denoiser sees in them.

    Parameters
    ----------
    denoiser : Denoiser
        In evaluation mode. It is told the elements and that no noise is left.
    x_1 : torch.Tensor
        Normalised latents of canonical forms, shape (T, L).
    groups : DomainGroups
        Which rows belong together.
    numbers : torch.Tensor
        Atomic numbers, 0 for cells, shape (T,).

    Returns
    -------
    torch.Tensor
        Shape (S, F): over the atoms the mean and the standard deviation of each channel behind
        each of :func:`read_blocks`, the row of the cell there (0 without one), and the number of
        atoms and its inverse.
    """
    seen: list[Tensor] = []
    told = replace(denoiser.tell_nothing(groups), elements=numbers)
    done = torch.ones(groups.packing.num_systems, device=x_1.device, dtype=x_1.dtype)
    denoiser(x_1, done, groups, told, x_1, seen)
    rows = torch.stack([seen[i - 1] for i in read_blocks(denoiser.config)], dim=1).float()
    rows = rows.flatten(1)  # (T, blocks * D)
    systems, index = groups.packing.num_systems, groups.packing.index
    count = groups.num_atoms[:, None].to(rows)
    atoms = (~groups.is_cell)[:, None]

    def mean(values: Tensor) -> Tensor:
        return values.new_zeros(systems, values.shape[1]).index_add_(0, index, values) / count

    centre = mean(rows * atoms)
    spread = mean((rows - centre[index]).square() * atoms).sqrt()
    cell = torch.zeros_like(centre)
    if groups.has_cells:
        cell[groups.crystals] = rows[groups.cells]
    return torch.cat([centre, spread, cell, count, 1 / count], dim=1)
