"""What attention sees of two atoms: distances and directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adit_model.batch import Packing
from adit_model.network.groups import DomainGroups

NUM_RADIAL = 20


RADIAL_RANGE = (0.7, 10.0)  # angstrom


NUM_FOURIER = 3


PAIR_FEATURES = 20  # of a molecule: NUM_RADIAL; of a crystal: made from 3 x NUM_FOURIER x 2


@dataclass
class PairGeometry:
    """All pairs of atoms of each system of one domain group, heads and features first.

    Parameters
    ----------
    features : torch.Tensor
        What is known of each pair, shape (PAIR_FEATURES, S * N * N).
    values : torch.Tensor
        What a weighted sum over partners j needs of j, shape (S, N, 4 or 6).
    periodic : bool
        Crystals or molecules.
    """

    features: Tensor
    values: Tensor
    periodic: bool

    def directions(self, weight: Tensor) -> Tensor:
        """Sum the directions from atom i to its partners j.

        A direction is r_j - r_i in angstrom in a molecule and sin 2 pi (f_j - f_i) in a crystal,
        which does not care about periodic images.

        Parameters
        ----------
        weight : torch.Tensor
            Shape (H, S, N, N).

        Returns
        -------
        torch.Tensor
            Shape (H, S, N, 3).
        """
        total = weight @ self.values  # (H, S, N, 4 or 6)
        if self.periodic:
            sine, cosine = self.values.chunk(2, dim=-1)
            return total[..., :3] * cosine - total[..., 3:] * sine
        return total[..., :3] - total[..., 3:] * self.values[..., :3]


class PairEncoder(nn.Module):
    """Describe pairs of atoms: radial functions in molecules, a Fourier series in crystals."""

    def __init__(self) -> None:
        super().__init__()
        self.crystal = nn.Linear(6 * NUM_FOURIER, PAIR_FEATURES)

    def forward(self, coordinates: Tensor, groups: DomainGroups) -> list[PairGeometry]:
        """Describe all pairs.

        Parameters
        ----------
        coordinates : torch.Tensor
            Angstrom for molecules, fractional for crystals, shape (A, 3).
        groups : DomainGroups
            Of the batch.
        """
        pairs = []
        for (periodic, packing), rows in zip(groups.groups, groups.split(coordinates), strict=True):
            x = packing.pad(rows)  # (S, N, 3)
            pairs.append(self._crystal(x) if periodic else self._molecule(x))
        return pairs

    def _crystal(self, frac: Tensor) -> PairGeometry:
        k = torch.arange(1, NUM_FOURIER + 1, device=frac.device, dtype=frac.dtype)
        phase = 2 * math.pi * frac.permute(2, 0, 1) * k[:, None, None, None]  # (K, 3, S, N)
        sine, cosine = phase.sin().flatten(0, 1), phase.cos().flatten(0, 1)  # (3 K, S, N)
        sine_i, cosine_i = sine[..., None], cosine[..., None]
        sine_j, cosine_j = sine[..., None, :], cosine[..., None, :]
        waves = torch.cat(
            [sine_j * cosine_i - cosine_j * sine_i, cosine_j * cosine_i + sine_j * sine_i]
        )  # (6 K, S, N, N), of f_j - f_i
        features = F.silu(
            torch.addmm(self.crystal.bias[:, None], self.crystal.weight, waves.flatten(1))
        )
        values = torch.cat([sine[:3], cosine[:3]]).permute(1, 2, 0)  # (S, N, 6)
        return PairGeometry(features, values, periodic=True)

    def _molecule(self, positions: Tensor) -> PairGeometry:
        delta = positions[:, None] - positions[:, :, None]  # (S, N, N, 3)
        log_distance = 0.5 * (delta.square().sum(-1) + 1e-2).log().flatten()  # (S N N,)
        low, high = (math.log(r) for r in RADIAL_RANGE)
        width = (high - low) / (NUM_RADIAL - 1)
        centres = torch.linspace(
            low, high, NUM_RADIAL, device=positions.device, dtype=positions.dtype
        )
        features = (-0.5 * ((log_distance - centres[:, None]) / width).square()).exp()
        values = torch.cat([positions, torch.ones_like(positions[..., :1])], dim=-1)
        return PairGeometry(features, values, periodic=False)


class PairBias(nn.Module):
    """What each head makes of a pair: a bias of its attention and a weight of its direction."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.molecule = nn.Linear(PAIR_FEATURES, 2 * num_heads)
        self.crystal = nn.Linear(PAIR_FEATURES, 2 * num_heads)
        nn.init.zeros_(self.molecule.bias)
        nn.init.zeros_(self.crystal.bias)

    def forward(self, pair: PairGeometry, packing: Packing) -> Tensor:
        """Return biases and weights, shape (2 H, S, N, N)."""
        layer = self.crystal if pair.periodic else self.molecule
        out = torch.addmm(layer.bias[:, None], layer.weight, pair.features)  # (2 H, S N N)
        return out.view(-1, packing.num_systems, packing.max_size, packing.max_size)
