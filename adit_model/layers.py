"""Attention over packed atoms, the two transformer blocks, embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adit_model.batch import Packing

NUM_RADIAL = 24
NUM_FOURIER = 4
PAIR_FEATURES = 24  # NUM_RADIAL for molecules, 3 axes x NUM_FOURIER x (sin, cos) for crystals


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
    """Two linear layers with a GELU (tanh form) or SiLU between them."""

    def __init__(self, dim_in: int, hidden: int, dim_out: int, silu: bool = False) -> None:
        act = nn.SiLU() if silu else nn.GELU(approximate="tanh")
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
    """

    def __init__(self, packing: Packing, periodic: Tensor) -> None:
        self.packing = packing
        self.periodic = periodic
        self.groups: list[tuple[bool, Tensor | None, Packing]] = []
        kinds = periodic.unique().tolist()
        if len(kinds) == 1:
            self.groups.append((bool(kinds[0]), None, packing))
            return
        atom_periodic = periodic[packing.index]
        for kind in (True, False):
            atoms = torch.nonzero(atom_periodic == kind).squeeze(1)
            self.groups.append((kind, atoms, Packing(packing.sizes[periodic == kind])))

    def scatter(self, parts: list[Tensor]) -> Tensor:
        """Put the atom rows of the groups back into the order of the batch."""
        if self.groups[0][1] is None:
            return parts[0]
        index = torch.cat([g[1] for g in self.groups])  # type: ignore[misc]
        out = torch.empty_like(torch.cat(parts))
        return out.index_copy(0, index, torch.cat(parts))


@dataclass
class PairGeometry:
    """Distances and directions between the atoms of each system of one domain group.

    Parameters
    ----------
    features : torch.Tensor
        Radial (molecules) or Fourier (crystals) features, shape (S, N, N, PAIR_FEATURES).
    vectors : torch.Tensor
        Unit vectors (molecules) or sines of the periodic difference (crystals), (S, N, N, 3).
    """

    features: Tensor
    vectors: Tensor


def pair_geometry(coordinates: Tensor, groups: DomainGroups) -> list[PairGeometry]:
    """Describe all pairs of atoms.

    Parameters
    ----------
    coordinates : torch.Tensor
        Angstrom for molecules, fractional for crystals, shape (A, 3).
    groups : DomainGroups
        Of the batch.
    """
    pairs = []
    for periodic, atoms, packing in groups.groups:
        x = packing.pad(coordinates if atoms is None else coordinates[atoms])  # (S, N, 3)
        delta = x[:, None] - x[:, :, None]  # (S, N, N, 3), from atom i to atom j
        if periodic:
            k = torch.arange(1, NUM_FOURIER + 1, device=x.device, dtype=x.dtype)
            phase = 2 * math.pi * delta[..., None] * k  # (S, N, N, 3, K)
            sines, cosines = phase.sin(), phase.cos()
            features = torch.cat([sines, cosines], dim=-1).flatten(-2)  # (S, N, N, 6 K)
            pairs.append(PairGeometry(features, sines[..., 0]))
        else:
            distance = (delta.square().sum(-1) + 1e-4).sqrt()  # (S, N, N)
            low, high = math.log(0.6), math.log(12.0)
            centres = torch.linspace(low, high, NUM_RADIAL, device=x.device, dtype=x.dtype)
            width = (high - low) / (NUM_RADIAL - 1)
            features = torch.exp(
                -0.5 * ((distance.log()[..., None] - centres) / width).square()
            )  # (S, N, N, K)
            pairs.append(PairGeometry(features, delta / distance[..., None]))
    return pairs


class PairBias(nn.Module):
    """What a head makes of a pair: a bias of its attention and a weight of its direction."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.molecule = nn.Linear(PAIR_FEATURES, 2 * num_heads)
        self.crystal = MLP(PAIR_FEATURES, 2 * PAIR_FEATURES, 2 * num_heads, silu=True)
        for last in (self.molecule, self.crystal[-1]):
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, pair: PairGeometry, periodic: bool) -> tuple[Tensor, Tensor]:
        """Return bias and weight, each of shape (S, H, N, N)."""
        out = self.crystal(pair.features) if periodic else self.molecule(pair.features)
        bias, weight = out.permute(0, 3, 1, 2).chunk(2, dim=1)
        return bias, weight


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
        for i, (periodic, atoms, packing) in enumerate(groups.groups):
            rows = qkv if atoms is None else qkv[atoms]
            q, k, v = (
                packing.pad(rows)
                .unflatten(-1, (3, self.num_heads, -1))
                .permute(2, 0, 3, 1, 4)  # (3, S, H, N, D / H)
            )
            if self.pair_bias is None or pairs is None:
                mask = packing.mask[:, None, None, :]  # (S, 1, 1, N)
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
                parts.append(packing.unpad(y.transpose(1, 2).flatten(2)))  # (A', D)
                continue
            bias, weight = self.pair_bias(pairs[i], periodic)
            if pair_scale is not None:
                kind = groups.periodic == periodic
                bias_scale, weight_scale = pair_scale[kind][..., None, None].chunk(2, dim=1)
                bias, weight = bias * (1 + bias_scale), weight * (1 + weight_scale)
            blocked = ~packing.mask[:, None, None, :]
            logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias  # (S, H, N, N)
            attention = logits.masked_fill(blocked, -1e9).softmax(-1)
            y = (attention @ v).transpose(1, 2)  # (S, N, H, D / H)
            direction = torch.einsum("shij,sijc->sihc", attention * weight, pairs[i].vectors)
            y = torch.cat([y.flatten(2), direction.flatten(2)], dim=-1)  # (S, N, D + 3 H)
            parts.append(packing.unpad(y))
        return self.out(groups.scatter(parts))


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
        rows = self.modulation(condition)[index]  # (A, 6 D)
        shift1, scale1, gate1, shift2, scale2, gate2 = rows.chunk(6, dim=-1)
        scale = None if self.pair_modulation is None else self.pair_modulation(condition)
        y = torch.addcmul(shift1, self.norm1(x), 1 + scale1)
        x = torch.addcmul(x, gate1, self.attention(y, groups, pairs, scale))
        y = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        return torch.addcmul(x, gate2, self.mlp(y))
