"""Packed attention against plain formulas, pair geometry, and blocks that start as the identity."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from adit_model.batch import Packing
from adit_model.network.fused import attend
from adit_model.network.groups import DomainGroups
from adit_model.network.layers import Attention, Block, DiTBlock, sinusoidal_embedding
from adit_model.network.pairs import PairEncoder, PairGeometry

SIZES = [3, 1, 4, 2]
KINDS = [False, True, False, True]


def make_groups(sizes: list[int], kinds: list[bool]) -> DomainGroups:
    return DomainGroups(Packing(torch.tensor(sizes)), torch.tensor(kinds))


@pytest.fixture
def groups() -> DomainGroups:
    return make_groups(SIZES, KINDS)


def rows(groups: DomainGroups, dim: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(groups.packing.num_atoms, dim, generator=generator, dtype=torch.float64)


def test_sinusoidal_embedding_by_hand():
    found = sinusoidal_embedding(torch.tensor([0.0, 2.0]), 4, max_period=100.0)
    angles = torch.tensor([[0.0, 0.0], [2.0, 0.2]])
    torch.testing.assert_close(found, torch.cat([angles.cos(), angles.sin()], dim=1))


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8))
def test_split_and_join_are_inverse(systems):
    sizes, kinds = (list(part) for part in zip(*systems, strict=True))
    groups = make_groups(sizes, kinds)
    x = rows(groups, 2)
    parts = groups.split(x)
    assert len(parts) == len(groups.groups) == len(set(kinds))
    for (periodic, packing), part in zip(groups.groups, parts, strict=True):
        chosen = torch.tensor(kinds) == periodic
        assert packing.sizes.tolist() == [n for n, k in systems if k == periodic]
        assert torch.equal(part, x[chosen[groups.packing.index]])
    assert torch.equal(groups.join(parts), x)


def test_attention_is_that_of_each_system_alone(groups):
    torch.manual_seed(0)
    layer = Attention(8, 2).double()
    x = rows(groups, 8)
    expected = []
    for part in x.split(SIZES):
        q, k, v = layer.qkv(part).chunk(3, dim=-1)
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            weights = (q[:, h] @ k[:, h].T / 2.0).softmax(-1)  # 2 = sqrt(8 / 2 channels)
            heads.append(weights @ v[:, h])
        expected.append(layer.out(torch.cat(heads, dim=-1)))
    torch.testing.assert_close(layer(x, groups), torch.cat(expected))


@pytest.mark.parametrize("geometry", [False, True])
def test_a_block_does_not_see_other_systems(groups, geometry):
    torch.manual_seed(0)
    block, encoder = Block(8, 2, geometry).double(), PairEncoder().double()
    x, coordinates = rows(groups, 8), rows(groups, 3, seed=1)

    def run(x: torch.Tensor) -> torch.Tensor:
        return block(x, groups, encoder(coordinates, groups) if geometry else None)

    before = run(x).split(SIZES)
    x[:3] += 1.0
    coordinates[:3] *= 2.0
    after = run(x).split(SIZES)
    assert (before[0] - after[0]).abs().min() > 1e-3
    for a, b in zip(before[1:], after[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def directions(weight: torch.Tensor, pairs: PairGeometry) -> torch.Tensor:
    """What `attend` makes of weights (H, S, N, N) of the pairs, without its other results."""
    heads, systems, size, _ = weight.shape
    blank = torch.zeros(heads, systems, size, 2, dtype=weight.dtype)
    mask = torch.ones(systems, size, dtype=torch.bool)
    pair = torch.cat([torch.zeros_like(weight), size * weight])  # attention is 1 / N throughout
    out = attend(blank, blank, blank, pair, None, mask, pairs.values, pairs.periodic)
    return out[..., 2 * heads :].unflatten(-1, (heads, 3)).permute(2, 0, 1, 3)  # (H, S, N, 3)


def test_distances_of_molecules_do_not_depend_on_the_pose():
    groups = make_groups([4], [False])
    positions = 2.0 * rows(groups, 3)
    rotation = torch.from_numpy(Rotation.random(random_state=0).as_matrix())
    encoder = PairEncoder().double()
    (pairs,) = encoder(positions, groups)
    (moved,) = encoder(positions @ rotation.T + 5.0, groups)
    torch.testing.assert_close(moved.features, pairs.features)
    weight = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(directions(weight, moved), directions(weight, pairs) @ rotation.T)


def test_pairs_of_crystals_do_not_depend_on_images_or_origin():
    groups = make_groups([4], [True])
    frac = rows(groups, 3)
    encoder = PairEncoder().double()
    (pairs,) = encoder(frac, groups)
    (moved,) = encoder(frac + torch.randint(-3, 4, (4, 3)) + 0.37, groups)
    torch.testing.assert_close(moved.features, pairs.features)
    weight = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(directions(weight, moved), directions(weight, pairs))


@pytest.mark.parametrize("periodic", [False, True])
def test_directions_are_the_weighted_sum_over_partners(periodic):
    groups = make_groups([5], [periodic])
    x = rows(groups, 3)
    (pairs,) = PairEncoder().double()(x, groups)
    weight = rows(make_groups([50], [True]), 1).view(2, 1, 5, 5)
    delta = x[None] - x[:, None]  # from i to j
    if periodic:
        delta = (2 * math.pi * delta).sin()
    expected = torch.einsum("hsij,ijc->hsic", weight, delta)
    torch.testing.assert_close(directions(weight, pairs), expected)


@pytest.mark.parametrize("geometry", [False, True])
def test_an_adaln_zero_block_starts_as_the_identity(groups, geometry):
    block, encoder = DiTBlock(8, 2, geometry).double(), PairEncoder().double()
    x, condition = rows(groups, 8), torch.randn(len(SIZES), 8, dtype=torch.float64)
    pairs = encoder(rows(groups, 3), groups) if geometry else None
    assert torch.equal(block(x, condition, groups, pairs), x)


def test_each_system_has_its_own_condition(groups):
    torch.manual_seed(0)
    block = DiTBlock(8, 2).double()
    torch.nn.init.normal_(block.modulation.weight)
    x, condition = rows(groups, 8), torch.randn(len(SIZES), 8, dtype=torch.float64)
    before = block(x, condition, groups)
    condition[2] += 1.0
    changed = (block(x, condition, groups) - before).abs().amax(-1) > 1e-6
    assert torch.equal(changed, groups.packing.index == 2)


def test_modulation_by_hand(groups):
    """Peebles and Xie 2023, figure 3: x + gate * mlp(norm(x) * (1 + scale) + shift)."""
    block = DiTBlock(8, 2).double()
    values = torch.tensor([0.0, 0.0, 0.0, 0.3, -0.4, 0.5], dtype=torch.float64)
    with torch.no_grad():
        block.modulation.bias.copy_(values.repeat_interleave(8))
    x = rows(groups, 8)
    expected = x + 0.5 * block.mlp(F.layer_norm(x, (8,), eps=1e-6) * 0.6 + 0.3)
    condition = torch.randn(len(SIZES), 8, dtype=torch.float64)
    torch.testing.assert_close(block(x, condition, groups), expected)
