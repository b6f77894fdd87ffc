"""What is told in training, systems that are moved, and the assignment of noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from adit_model.config import MINI
from adit_model.network.coupling import assign_noise
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups
from adit_model.sampling.flow import integrate
from adit_model.training.loss import flow_matching_loss
from adit_model.training.telling import draw_told, rotations

NUMBER = 600


def make_denoiser(**options) -> Denoiser:
    config = replace(
        MINI.denoiser, dim=16, num_heads=2, num_layers=2, properties=("band_gap",), **options
    )
    torch.manual_seed(0)
    return Denoiser(config, cells=True)


def make_batch(number: int = NUMBER):
    """Half crystals of three atoms, half molecules of four."""
    periodic = torch.arange(number) < number // 2
    sizes = torch.where(periodic, 3, 4)
    groups = DomainGroups.of_atoms(sizes, periodic, cells=True)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(groups.packing.num_atoms, 8, generator=generator)
    latents[:, :3] = 2 * torch.rand(len(latents), 3, generator=generator) - 1
    numbers = torch.randint(1, 90, (len(latents),), generator=generator)
    numbers = numbers * ~groups.is_cell
    space_groups = torch.where(periodic, 225, 0)
    properties = torch.where(periodic, 0.5, torch.nan)[:, None]
    return latents, groups, numbers, space_groups, properties


def test_a_share_is_told_nothing_and_every_kind_is_told_sometimes():
    denoiser = make_denoiser()
    _, groups, numbers, *_ = make_batch()
    x_1, told = draw_told(denoiser, *make_batch(), torch.Generator().manual_seed(1))
    index, systems = groups.packing.index, groups.packing.num_systems

    def of_system(rows: torch.Tensor) -> torch.Tensor:
        return torch.zeros(systems).index_add(0, index, rows.float())

    named, fixed = of_system(told.elements > 0), of_system(told.fixed)
    kinds = {
        "elements": named > 0,
        "fixed": fixed > 0,
        "set": told.element_set.sum(-1) > 0,
        "space_group": told.space_group > 0,
        "property": told.properties.isfinite()[:, 0],
    }
    free = ~torch.stack(list(kinds.values())).any(0)
    assert free.float().mean() > MINI.denoiser.free_share - 0.05
    for name, told_of in kinds.items():
        for part in (groups.periodic, ~groups.periodic):
            if name in ("space_group", "property") and not part[0]:
                continue  # molecules have none here
            assert 0.03 < told_of[part].float().mean() < 0.6, name
    assert (named == groups.num_atoms).any() and ((named > 0) & (named < groups.num_atoms)).any()
    assert told.fixed[groups.cells].any()  # cells too
    right = told.elements > 0
    assert torch.equal(told.elements[right], numbers[right])
    assert torch.equal(told.values, x_1)
    some = kinds["set"]
    for i in torch.nonzero(some)[:5, 0]:
        mine = numbers[(index == i) & ~groups.is_cell].unique()
        assert told.element_set[i].nonzero()[:, 0].tolist() == mine.tolist()


def test_one_kind_alone_is_told_often():
    denoiser = make_denoiser(free_share=0.0)
    _, groups, *_ = make_batch()
    _, told = draw_told(denoiser, *make_batch(), torch.Generator().manual_seed(2))
    index, systems = groups.packing.index, groups.packing.num_systems
    named = torch.zeros(systems).index_add(0, index, (told.elements > 0).float())
    fixed = torch.zeros(systems).index_add(0, index, told.fixed.float())
    kinds = [
        named == groups.num_atoms,
        told.element_set.sum(-1) > 0,
        told.space_group > 0,
        told.properties.isfinite()[:, 0],
    ]
    single = torch.stack([*kinds, named > 0]).sum(0) - kinds[0].long() == 1
    single &= fixed == 0
    for kind in kinds:  # of the crystals, which have all of them
        assert (kind & single)[groups.periodic].float().mean() > 0.05


def test_only_systems_with_fixed_atoms_are_moved():
    denoiser = make_denoiser()
    latents, groups, *labels = make_batch()
    x_1, told = draw_told(denoiser, latents, groups, *labels, torch.Generator().manual_seed(1))
    index, cell = groups.packing.index, groups.is_cell
    sites = told.fixed & ~cell
    has = torch.zeros(NUMBER, dtype=torch.bool)
    has[index[sites]] = True
    before = denoiser.normalise(latents, groups.kinds)
    torch.testing.assert_close(x_1[~has[index]], before[~has[index]])
    torch.testing.assert_close(x_1[:, 3:], before[:, 3:])
    torch.testing.assert_close(x_1[cell], before[cell])
    after = denoiser.denormalise(x_1, groups.kinds)
    for i in torch.nonzero(has)[:, 0].tolist():
        rows = (index == i) & ~cell
        old, new = latents[rows, :3], after[rows, :3]
        if groups.periodic[i]:  # a new origin: differences of fractional coordinates stay
            turns = 0.5 * ((new - new[:1]) - (old - old[:1]))
            torch.testing.assert_close(turns, turns.round(), atol=1e-5, rtol=0)
            assert (new[0] - old[0]).abs().max() > 1e-3
            assert new.min() >= -1.031 and new.max() < 0.971  # as canonical crystals
        else:  # turned, its fixed atoms around the origin
            torch.testing.assert_close(
                torch.cdist(new, new), torch.cdist(old, old), atol=1e-4, rtol=0
            )
            mean = after[sites & (index == i), :3].mean(0)
            torch.testing.assert_close(mean, torch.zeros(3), atol=1e-5, rtol=0)


def test_rotations_are_rotations_in_all_directions():
    turn = rotations(torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)).double())
    torch.testing.assert_close(
        turn @ turn.transpose(1, 2), torch.eye(3).double().expand(4000, 3, 3)
    )
    assert torch.allclose(torch.linalg.det(turn), torch.ones(4000).double())
    for i, j in ((0, 0), (1, 2), (2, 1)):  # each entry is uniform in [-1, 1] (Haar measure)
        assert stats.kstest(turn[:, i, j].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_assigned_noise_is_the_nearest_permutation():
    denoiser = make_denoiser()
    _, groups, *_ = make_batch(2)
    x_1, noise = (torch.randn(8, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    told = denoiser.tell_nothing(groups)
    found = assign_noise(noise, x_1, groups, told)
    for rows in (slice(0, 3), slice(4, 8)):  # row 3 is the cell
        given, wanted = noise[rows], x_1[rows]
        costs = {
            order: float((given[list(order), :3] - wanted[:, :3]).square().sum())
            for order in permutations(range(len(given)))
        }
        best = min(costs, key=costs.__getitem__)
        torch.testing.assert_close(found[rows], given[list(best)])
    torch.testing.assert_close(found[3], noise[3])


def test_assigned_noise_keeps_its_distribution_whatever_is_told():
    """Of an atom whose element is told as no other's, the noise is not touched: it stays Gaussian.

    Of those told alike the set stays as it was drawn.
    """
    denoiser = make_denoiser()
    latents, groups, *_ = make_batch()
    told = denoiser.tell_nothing(groups)
    index = groups.packing.index
    first = groups.packing.rank == 0
    told.elements[first] = 8
    told.fixed[groups.packing.rank == 1] = True
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    found = assign_noise(noise, latents, groups, told)
    alone = first | told.fixed | groups.is_cell
    torch.testing.assert_close(found[alone], noise[alone])
    assert not torch.equal(found[~alone], noise[~alone])
    key = index * 1000.0
    for channel in range(8):
        a, b = (key + x[:, channel] for x in (found, noise))
        torch.testing.assert_close(a.sort().values, b.sort().values)


@pytest.mark.parametrize("optimal", [False, True])
def test_loss_counts_what_is_free(optimal):
    """Everything given leaves no error; the unused channels of a cell's row do not count."""
    denoiser = make_denoiser(optimal_noise=optimal, feature_scale=1.0)
    latents, groups, *_ = make_batch(6)
    x_1 = denoiser.normalise(latents, groups.kinds)
    told = denoiser.tell_nothing(groups)
    changed = x_1.clone()
    changed[groups.cells, 6:] += 100.0
    losses = [
        float(flow_matching_loss(denoiser, x, groups, torch.Generator().manual_seed(0), told)[0])
        for x in (x_1, changed)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    told.fixed[:], told.values = True, x_1
    _, terms = flow_matching_loss(denoiser, x_1, groups, torch.Generator().manual_seed(0), told)
    assert set(terms) == {
        "cell",
        "crystal",
        "crystal_coordinates",
        "molecule",
        "molecule_coordinates",
    }
    assert float(terms["cell"]) == float(terms["crystal_coordinates"]) == 0
    assert float(terms["crystal"]) > 0


def test_a_training_step_reaches_every_weight():
    denoiser = make_denoiser(self_condition=1.0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    x_1, told = draw_told(denoiser, *make_batch(), torch.Generator().manual_seed(1))
    groups = make_batch()[1]
    flow_matching_loss(denoiser, x_1, groups, torch.Generator().manual_seed(2), told)[0].backward()
    idle = [
        name
        for name, parameter in denoiser.named_parameters()
        if parameter.grad is None
        or not np.isfinite(parameter.grad.norm())
        or not parameter.grad.any()
    ]
    assert idle == []


@pytest.mark.parametrize("solver", ["ancestral", "multistep"])
def test_sampling_renews_noise_as_training_assigns_it(solver):
    """At each step but the first, the noise in x is the nearest to the prediction before it."""
    denoiser = make_denoiser(self_condition=0.0)
    denoiser.output.weight.data.normal_()
    seen = []

    class Watched(torch.nn.Module):
        config = denoiser.config
        tell_nothing = denoiser.tell_nothing

        def forward(self, x, t, groups, told, previous=None):
            x_1 = denoiser(x, t, groups, told, previous).detach()
            seen.append((float(t[0]), x, x_1))
            return x_1

    _, groups, *_ = make_batch(4)
    generator = torch.Generator().manual_seed(0)
    x_0, *fresh = torch.randn(5, groups.packing.num_atoms, 8, generator=generator)
    integrate(Watched(), x_0, groups, 5, solver, 1.0, fresh_noise=torch.stack(fresh))
    told = denoiser.tell_nothing(groups)
    at, x, _ = seen[1]  # where the first prediction alone decides
    noise = x - at * seen[0][2]
    torch.testing.assert_close(assign_noise(noise, seen[0][2], groups, told), noise)
    assert not torch.equal(assign_noise(x_0, seen[0][2], groups, told), x_0)
