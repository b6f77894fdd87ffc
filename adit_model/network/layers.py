"""Attention over packed atoms, the two transformer blocks, embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adit_model.network import fused
from adit_model.network.groups import DomainGroups
from adit_model.network.pairs import PairBias, PairGeometry


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
    cells : bool
        The last row of a crystal is its cell.
    """

    def __init__(
        self, dim: int, num_heads: int, geometry: bool = False, cells: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim + (3 * num_heads if geometry else 0), dim)
        self.pair_bias = PairBias(num_heads, cells) if geometry else None

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
            scale = None if scales is None else scales[i]
            pair = self.pair_bias(pairs[i], packing)  # (2 H, S, N, N)
            y = fused.attend(q, k, v, pair, scale, packing.mask, pairs[i].values, pairs[i].periodic)
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

    def __init__(
        self, dim: int, num_heads: int, geometry: bool = False, cells: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(dim, num_heads, geometry, cells)
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
