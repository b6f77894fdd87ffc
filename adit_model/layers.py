"""Attention over packed atoms, the two transformer blocks, embeddings."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adit_model.batch import Packing, to_device

NUM_RADIAL = 20
RADIAL_RANGE = (0.7, 10.0)  # angstrom
NUM_FOURIER = 3
PAIR_FEATURES = 20  # of a molecule: NUM_RADIAL; of a crystal: made from 3 x NUM_FOURIER x 2


def sinusoidal_embedding(x: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of geometrically spaced frequencies.

    Parameters
    ----------
    x : torch.Tensor
        Positions or times, shape (M,).
    dim : int
        Even number of features.

    Returns
    -------
    torch.Tensor
        Shape (M, dim).
    """
    half = dim // 2
    exponent = torch.arange(half, device=x.device, dtype=torch.float32) / half
    angles = x.float()[:, None] * torch.exp(-math.log(max_period) * exponent)  # (M, dim / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class MLP(nn.Sequential):
    """Two linear layers with a GELU or SiLU between them."""

    def __init__(self, dim_in: int, hidden: int, dim_out: int, silu: bool = False) -> None:
        act = nn.SiLU() if silu else nn.GELU()
        super().__init__(nn.Linear(dim_in, hidden), act, nn.Linear(hidden, dim_out))


class DomainGroups:
    """A packed batch divided into its crystals and its molecules.

    Each domain is padded to its own largest system, and only inside attention.

    Parameters
    ----------
    packing : Packing
        Of the whole batch.
    periodic : torch.Tensor
        Which systems are crystals, shape (S,), bool.
    widths : tuple of int, optional
        Pad molecules, and crystals, to these sizes.
    """

    def __init__(
        self, packing: Packing, periodic: Tensor, widths: tuple[int, int] | None = None
    ) -> None:
        self.packing = packing
        self.periodic = periodic
        self.groups: list[tuple[bool, Packing]] = []  # is it crystals, where their atoms stand
        self._counts: list[int] = []
        self._order: Tensor | None = None  # atoms of the first group, then of the second
        self._inverse: Tensor | None = None
        self._systems: list[Tensor] = []  # of each group
        kinds = periodic.unique().tolist()
        if len(kinds) == 1:
            self.groups.append((bool(kinds[0]), packing))
            return
        atom_periodic = periodic[packing.index]
        for kind in (True, False):
            systems = torch.nonzero(periodic == kind)[:, 0]
            part = Packing(packing.sizes[systems], None if widths is None else widths[kind])
            self.groups.append((kind, part))
            self._counts.append(part.num_atoms)
            self._systems.append(systems)
        if not bool(periodic[: self.groups[0][1].num_systems].all()):  # else crystals come first
            self._order = torch.argsort(~atom_periodic, stable=True)
            self._inverse = torch.argsort(self._order)

    def tensors(self) -> list[Tensor]:
        """Tensors that depend on the batch, always in the same order."""
        found = [self.periodic, *self.packing.tensors()]
        for _, part in self.groups:
            if part is not self.packing:
                found += part.tensors()
        found += self._systems
        if self._order is not None and self._inverse is not None:
            found += [self._order, self._inverse]
        return found

    def replaced(self, tensors: Sequence[Tensor]) -> DomainGroups:
        """Return groups of as many systems and atoms, of other :meth:`tensors`."""
        rest = list(tensors)

        def take(number: int) -> list[Tensor]:
            taken = rest[:number]
            del rest[:number]
            return taken

        other = copy.copy(self)
        (other.periodic,) = take(1)
        other.packing = self.packing.replaced(take(4))
        other.groups = [
            (kind, other.packing if part is self.packing else part.replaced(take(4)))
            for kind, part in self.groups
        ]
        other._systems = take(len(self._systems))
        if self._order is not None:
            other._order, other._inverse = take(2)
        return other

    def to(self, device: torch.device | str) -> DomainGroups:
        """Return the groups on another device; nothing waits for it."""
        return self.replaced([to_device(tensor, device) for tensor in self.tensors()])

    def systems(self, x: Tensor) -> list[Tensor]:
        """System rows (S, ...) of each group."""
        if not self._systems:
            return [x]
        return [x.index_select(0, systems) for systems in self._systems]

    def split(self, x: Tensor) -> list[Tensor]:
        """Atom rows (A, ...) of each group."""
        if not self._counts:
            return [x]
        if self._order is not None:
            x = x.index_select(0, self._order)
        return list(x.split(self._counts))

    def join(self, parts: list[Tensor]) -> Tensor:
        """Put the atom rows of the groups back into the order of the batch."""
        if not self._counts:
            return parts[0]
        x = torch.cat(parts)
        return x if self._inverse is None else x.index_select(0, self._inverse)


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


class Attention(nn.Module):
    """Multi-head self-attention within each system.

    Linear layers run on packed atoms; only queries, keys and values are padded.

    Parameters
    ----------
    dim, num_heads : int
        Width and heads.
    geometry : bool
        Add a distance-dependent bias, and give each head the mean direction to what it attends
        to, weighted by distance.
    """

    def __init__(self, dim: int, num_heads: int, geometry: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim + (3 * num_heads if geometry else 0), dim)
        self.pair_bias = PairBias(num_heads) if geometry else None

    def forward(
        self,
        x: Tensor,
        groups: DomainGroups,
        pairs: list[PairGeometry] | None = None,
        pair_scale: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Parameters
        ----------
        x : torch.Tensor
            Atoms, shape (A, D).
        groups : DomainGroups
            Of the batch.
        pairs : list of PairGeometry
            One for each group, if the layer has geometry.
        pair_scale : torch.Tensor
            Strength of the pair terms in each system, shape (S, 2 H).
        """
        qkv = self.qkv(x)  # (A, 3 D)
        parts = []
        scales = None if pair_scale is None else groups.systems(pair_scale)
        for i, ((_, packing), rows) in enumerate(
            zip(groups.groups, groups.split(qkv), strict=True)
        ):
            q, k, v = (
                packing.pad(rows)
                .unflatten(-1, (3, self.num_heads, -1))
                .permute(2, 3, 0, 1, 4)  # (3, H, S, N, D / H)
            )
            if self.pair_bias is None or pairs is None:
                mask = packing.mask[:, None, :]  # (S, 1, N)
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
                parts.append(packing.unpad(y.permute(1, 2, 0, 3).flatten(2)))  # (A', D)
                continue
            pair = self.pair_bias(pairs[i], packing)  # (2 H, S, N, N)
            if scales is not None:
                pair = pair * (1 + scales[i].T[..., None, None])
            bias, weight = pair.chunk(2)
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias  # (H, S, N, N)
            attention = logits.masked_fill(~packing.mask[:, None, :], -1e9).softmax(-1)
            y = (attention @ v).permute(1, 2, 0, 3)  # (S, N, H, D / H)
            direction = pairs[i].directions(attention * weight).permute(1, 2, 0, 3)
            y = torch.cat([y.flatten(2), direction.flatten(2)], dim=-1)  # (S, N, D + 3 H)
            parts.append(packing.unpad(y))
        return self.out(groups.join(parts))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, num_heads: int, geometry: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads, geometry)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim, dim)

    def forward(
        self, x: Tensor, groups: DomainGroups, pairs: list[PairGeometry] | None = None
    ) -> Tensor:
        """Map atoms (A, D) to atoms (A, D)."""
        x = x + self.attention(self.norm1(x), groups, pairs)
        return x + self.mlp(self.norm2(x))


class DiTBlock(nn.Module):
    """Transformer block with adaLN-Zero conditioning (Peebles and Xie 2023, figure 3)."""

    def __init__(self, dim: int, num_heads: int, geometry: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(dim, num_heads, geometry)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp = MLP(dim, 4 * dim, dim)
        self.modulation = nn.Linear(dim, 6 * dim)
        self.pair_modulation = nn.Linear(dim, 2 * num_heads) if geometry else None
        for layer in (self.modulation, self.pair_modulation):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        groups: DomainGroups,
        pairs: list[PairGeometry] | None = None,
    ) -> Tensor:
        """Map atoms (A, D) to atoms (A, D) under a condition (S, D)."""
        index = groups.packing.index
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            part.index_select(0, index)  # (A, D); many times faster than [index] on a CPU
            for part in self.modulation(condition).chunk(6, dim=-1)
        )
        scale = None if self.pair_modulation is None else self.pair_modulation(condition)
        y = torch.addcmul(shift1, self.norm1(x), 1 + scale1)
        x = torch.addcmul(x, gate1, self.attention(y, groups, pairs, scale))
        y = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        return torch.addcmul(x, gate2, self.mlp(y))
