"""What attention sees of two atoms: distances and directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adit_model.batch import Packing
from adit_model.network import fused
from adit_model.network.groups import DomainGroups

NUM_RADIAL = 20
NUM_FOURIER = 3
CRYSTAL_RADIAL = 16  # radial functions of a crystal with a known cell
CELL_FEATURES = CRYSTAL_RADIAL + 2  # beside PAIR_FEATURES; the last two: i, or j, is the cell
PAIR_FEATURES = 20  # of a molecule: NUM_RADIAL; of a crystal: made from 3 x NUM_FOURIER x 2


@dataclass
class PairGeometry:
    """All pairs of atoms of each system of one domain group, heads and features first.

    Parameters
    ----------
    features : torch.Tensor
        What is known of each pair, shape (PAIR_FEATURES, S * N * N); of a crystal with a cell
        CELL_FEATURES more.
    values : torch.Tensor
        What a weighted sum over partners j needs of j, shape (S, N, 4 or 6).
    periodic : bool
        Crystals or molecules.
    """

    features: Tensor
    values: Tensor
    periodic: bool


class PairEncoder(nn.Module):
    """Describe pairs of atoms: radial functions in molecules, a Fourier series in crystals.

    Where the cell of a crystal is known there are radial functions of the distance to the nearest
    image too, and pairs with the row of the cell have constant features.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crystal = nn.Linear(6 * NUM_FOURIER, PAIR_FEATURES)

    def forward(
        self, coordinates: Tensor, groups: DomainGroups, metric: Tensor | None = None
    ) -> list[PairGeometry]:
        """Describe all pairs.

        Parameters
        ----------
        coordinates : torch.Tensor
            Angstrom for molecules, fractional for crystals, shape (A, 3).
        groups : DomainGroups
            Of the batch.
        metric : torch.Tensor
            Metric tensors of the crystals in square angstrom, shape (C, 3, 3), where the last row
            of each crystal is its cell.
        """
        pairs = []
        for (periodic, packing), rows in zip(groups.groups, groups.split(coordinates), strict=True):
            x = packing.pad(rows)  # (S, N, 3)
            pairs.append(self._crystal(x, packing, metric) if periodic else self._molecule(x))
        return pairs

    def _crystal(self, frac: Tensor, packing: Packing, metric: Tensor | None) -> PairGeometry:
        k = torch.arange(1, NUM_FOURIER + 1, device=frac.device, dtype=frac.dtype)
        phase = 2 * math.pi * frac.permute(2, 0, 1) * k[:, None, None, None]  # (K, 3, S, N)
        sine, cosine = phase.sin().flatten(0, 1), phase.cos().flatten(0, 1)  # (3 K, S, N)
        if metric is not None:
            place = torch.arange(packing.max_size, device=frac.device)
            atoms = (place < packing.sizes[:, None] - 1).to(frac.dtype)  # (S, N)
            sine, cosine = sine * atoms, cosine * atoms
        sine_i, cosine_i = sine[..., None], cosine[..., None]
        sine_j, cosine_j = sine[..., None, :], cosine[..., None, :]
        waves = torch.cat(
            [sine_j * cosine_i - cosine_j * sine_i, cosine_j * cosine_i + sine_j * sine_i]
        )  # (6 K, S, N, N), of f_j - f_i
        features = F.silu(
            torch.addmm(self.crystal.bias[:, None], self.crystal.weight, waves.flatten(1))
        )
        if metric is not None:
            radial = self._cell_features(frac, atoms, metric).flatten(1)
            features = torch.cat([features, radial.to(features.dtype)])
        values = torch.cat([sine[:3], cosine[:3]]).permute(1, 2, 0)  # (S, N, 6)
        return PairGeometry(features, values, periodic=True)

    @staticmethod
    def _cell_features(frac: Tensor, atoms: Tensor, metric: Tensor) -> Tensor:
        """Radial functions and indicators of the cell, shape (CELL_FEATURES, S, N, N)."""
        x = frac.permute(2, 0, 1)  # (3, S, N)
        delta = x[..., None, :] - x[..., None]  # (3, S, N, N)
        delta = delta - delta.detach().round()
        g = metric.permute(1, 2, 0)[..., None, None]  # (3, 3, S, 1, 1)
        a, b, c = delta
        square = a * (g[0, 0] * a + 2 * g[0, 1] * b + 2 * g[0, 2] * c)
        square = square + b * (g[1, 1] * b + 2 * g[1, 2] * c) + g[2, 2] * c * c
        functions = fused.radial_functions(square, CRYSTAL_RADIAL)
        both = atoms[:, :, None] * atoms[:, None]  # (S, N, N)
        first, second = (
            (1 - atoms)[:, :, None] * atoms[:, None],
            atoms[:, :, None] * (1 - atoms)[:, None],
        )
        return torch.cat([functions * both, first[None], second[None]])

    def _molecule(self, positions: Tensor) -> PairGeometry:
        delta = positions[:, None] - positions[:, :, None]  # (S, N, N, 3)
        features = fused.radial_functions(delta.square().sum(-1).flatten(), NUM_RADIAL)
        values = torch.cat([positions, torch.ones_like(positions[..., :1])], dim=-1)
        return PairGeometry(features, values, periodic=False)


class PairBias(nn.Module):
    """What each head makes of a pair: a bias of its attention and a weight of its direction."""

    def __init__(self, num_heads: int, cells: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.cell = nn.Parameter(torch.zeros(2 * num_heads, CELL_FEATURES)) if cells else None
        self.molecule = nn.Linear(PAIR_FEATURES, 2 * num_heads)
        self.crystal = nn.Linear(PAIR_FEATURES, 2 * num_heads)
        nn.init.zeros_(self.molecule.bias)
        nn.init.zeros_(self.crystal.bias)

    def forward(self, pair: PairGeometry, packing: Packing) -> Tensor:
        """Return biases and weights, shape (2 H, S, N, N)."""
        layer = self.crystal if pair.periodic else self.molecule
        weight = layer.weight
        if pair.periodic and self.cell is not None:
            weight = torch.cat([weight, self.cell], dim=1)
        out = torch.addmm(layer.bias[:, None], weight, pair.features)  # (2 H, S N N)
        return out.view(-1, packing.num_systems, packing.max_size, packing.max_size)
