"""Deeper denoisers from shallower ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adit_model.config import MINI, DenoiserConfig
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups
from adit_model.training.growth import grow, with_properties

SMALL = replace(MINI.denoiser, dim=16, num_heads=2, num_layers=4)


def random(config: DenoiserConfig) -> Denoiser:
    """Denoiser whose weights are all random, the gates too."""
    torch.manual_seed(0)
    denoiser = Denoiser(config, cells=True)
    for parameter in denoiser.parameters():
        parameter.data.normal_(std=0.3)
    denoiser.latent_mean.normal_()
    return denoiser


def predict(denoiser: Denoiser) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    sizes, periodic = torch.tensor([3, 5]), torch.tensor([True, False])
    groups = DomainGroups.of_atoms(sizes, periodic, cells=denoiser.cells)
    x, previous = torch.randn(2, groups.packing.num_atoms, 8, generator=generator)
    told = denoiser.tell_nothing(groups)
    told.elements[-5:] = torch.tensor([6, 1, 1, 1, 1])
    return denoiser(x, torch.tensor([0.3, 0.8]), groups, told, previous)


@pytest.mark.parametrize(
    "options",
    [{}, {"geometry_every": 1}, {"geometry_every": 4}, {"geometry": False, "geometry_every": 1}],
    ids=str,
)
@pytest.mark.parametrize("depth", [4, 8, 12])
def test_grown_denoiser_predicts_the_same_and_can_learn_more(options, depth):
    old = random(replace(SMALL, **options))
    new = Denoiser(replace(old.config, num_layers=depth), cells=True)
    grow(old, new)
    torch.testing.assert_close(predict(new), predict(old))
    predict(new).square().sum().backward()
    gates = [block.modulation.weight.grad for block in new.blocks]
    assert all(bool(gate.abs().sum() > 0) for gate in gates)


def test_every_block_of_the_old_one_is_there():
    old = random(SMALL)
    new = Denoiser(replace(SMALL, num_layers=8), cells=True)
    grow(old, new)
    for source, target in zip(old.blocks, new.blocks[::2], strict=True):
        for a, b in zip(source.parameters(), target.parameters(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("options", "latent_dim", "message"),
    [
        ({"dim": 32}, 8, "depth only"),
        ({"size_condition": False}, 8, "depth only"),
        ({"num_layers": 2}, 8, "shallower"),
        ({"num_layers": 6}, 8, "take a multiple"),
        ({"num_layers": 8}, 4, "channels"),
    ],
)
def test_what_cannot_be_grown_is_refused(options, latent_dim, message):
    new = Denoiser(replace(SMALL, **options), latent_dim, cells=True)
    with pytest.raises(ValueError, match=message):
        grow(random(SMALL), new)


@pytest.mark.parametrize("known", [(), ("band_gap", "gap")])
def test_more_properties_change_nothing_until_they_are_told(known):
    old = random(replace(SMALL, properties=known))
    new = with_properties(old, (*known, "bulk_modulus"))
    torch.testing.assert_close(predict(new), predict(old))
    groups = DomainGroups.of_atoms(torch.tensor([4]), torch.tensor([True]), cells=True)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))

    def told(denoiser: Denoiser, *values: float) -> torch.Tensor:
        what = denoiser.tell_nothing(groups)
        what.properties[:] = torch.tensor(values)
        return denoiser(x, torch.tensor([0.4]), groups, what)

    if known:
        torch.testing.assert_close(told(new, 0.5, 1.0, torch.nan), told(old, 0.5, 1.0))
    told(new, *[torch.nan] * len(known), 1.5).square().sum().backward()
    assert new.told is not None and new.told.properties is not None
    last = new.told.properties[0 if known else 2].weight  # the last one starts at zero if all do
    assert last.grad is not None and last.grad[:, -18:].abs().sum() > 0
    with pytest.raises(ValueError, match="which must stay"):
        with_properties(new, ("hardness",))
