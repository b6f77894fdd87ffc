"""A denoiser that can be told anything: order, nulls, and what is given comes back."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from adit_model.config import MINI
from adit_model.network.conditioning import GUIDED, Told, property_features
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups
from adit_model.sampling.flow import integrate

SIZES, PERIODIC = [3, 4, 2], [True, False, True]
ROWS = 11  # two crystals have one more


def make_denoiser(seed: int = 0) -> Denoiser:
    """Random weights in every layer, those that start at zero too."""
    torch.manual_seed(seed)
    config = replace(
        MINI.denoiser, dim=24, num_heads=2, num_layers=4, properties=("band_gap", "gap")
    )
    denoiser = Denoiser(config, cells=True).double().eval()
    for parameter in denoiser.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    denoiser.latent_std[2] = 0.2
    denoiser.latent_mean[2, :3] = 0.9
    return denoiser


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return make_denoiser()


@pytest.fixture
def groups() -> DomainGroups:
    return DomainGroups.of_atoms(torch.tensor(SIZES), torch.tensor(PERIODIC), cells=True)


def noise(seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, 8, generator=generator, dtype=torch.float64)


def everything(denoiser: Denoiser, groups: DomainGroups) -> Told:
    """Something of each kind."""
    told = denoiser.tell_nothing(groups)
    told.values = noise(2)
    told.elements[[0, 5]] = torch.tensor([8, 6])
    told.fixed[[1, 3, 6]] = True  # a site, a cell, an atom of the molecule
    told.element_set[0, [8, 22]] = 1
    told.space_group[2] = 225
    told.properties[0, 0], told.properties[1, 1] = 0.5, -1.0
    return told


T = torch.tensor([0.3, 0.6, 0.8], dtype=torch.float64)


def test_rows_of_the_cells(groups):
    assert groups.packing.num_atoms == ROWS
    assert groups.cells.tolist() == [3, 10]
    assert groups.kinds.tolist() == [1, 1, 1, 2, 0, 0, 0, 0, 1, 1, 2]
    assert groups.num_atoms.tolist() == SIZES


@pytest.mark.parametrize("tell", [False, True])
def test_order_of_the_atoms_does_not_matter(denoiser, groups, tell):
    order = torch.tensor([2, 0, 1, 3, 7, 5, 4, 6, 9, 8, 10])
    x, memory = noise(), noise(3)
    told = everything(denoiser, groups) if tell else denoiser.tell_nothing(groups)
    moved = replace(
        told, elements=told.elements[order], fixed=told.fixed[order], values=told.values[order]
    )
    before = denoiser(x, T, groups, told, memory)
    after = denoiser(x[order], T, groups, moved, memory[order])
    torch.testing.assert_close(after, before[order], atol=1e-10, rtol=0)


def test_each_kind_changes_its_system_alone_and_its_null_nothing(denoiser, groups):
    x, nothing = noise(), denoiser.tell_nothing(groups)
    plain = denoiser(x, T, groups)
    torch.testing.assert_close(denoiser(x, T, groups, nothing), plain, atol=0, rtol=0)
    full = everything(denoiser, groups)
    index = groups.packing.index
    where = {
        "elements": [0, 1],
        "element_set": [0],
        "space_group": [2],
        "properties": [0, 1],
        "fixed": [0, 1],
    }
    for kind, systems in where.items():
        told = replace(nothing, values=full.values, **{kind: getattr(full, kind)})
        changed = (denoiser(x, T, groups, told) - plain).abs().amax(-1) > 1e-9
        found = [bool(changed[index == i].any()) for i in range(3)]
        assert found == [i in systems for i in range(3)], kind
    told = full.without(GUIDED)
    assert full.is_guided() and not told.is_guided()
    assert torch.equal(told.fixed, full.fixed)
    back = replace(told, fixed=nothing.fixed)
    torch.testing.assert_close(denoiser(x, T, groups, back), plain, atol=0, rtol=0)


def test_a_new_embedding_changes_nothing(groups):
    torch.manual_seed(0)
    config = replace(MINI.denoiser, dim=24, num_heads=2, num_layers=2)
    new = Denoiser(config, cells=True).double()
    new.final_modulation.weight.data.normal_()
    new.output.weight.data.normal_()
    told = everything(new, groups)
    told.fixed[:] = False
    told.elements[:] = 0
    torch.testing.assert_close(new(noise(), T, groups, told), new(noise(), T, groups))


@pytest.mark.parametrize("solver", ["euler", "ancestral", "multistep"])
def test_what_is_given_comes_back(denoiser, groups, solver):
    told = everything(denoiser, groups)
    fresh = torch.stack([noise(i) for i in range(10, 14)])
    x = integrate(denoiser, noise(), groups, 5, solver, 2.0, None, fresh, told=told)
    given = told.given(groups)
    assert given.sum(-1).tolist() == [0, 3, 0, 6, 0, 0, 3, 0, 0, 0, 0]
    torch.testing.assert_close(x[given], told.values[given], atol=1e-6, rtol=0)
    assert (x[~given] - told.values[~given]).abs().min() > 1e-3
    again = denoiser(noise(4), T, groups, told)
    torch.testing.assert_close(again[given], told.values[given], atol=1e-12, rtol=0)


def test_distances_see_the_estimate_of_the_cell(denoiser, groups):
    """The same fractional coordinates in another given cell are other distances."""
    told = denoiser.tell_nothing(groups)
    told.fixed[[3, 10]] = True
    told.values = noise(2)
    before = denoiser(noise(), T, groups, told)
    larger = replace(told, values=told.values + 1.0)
    after = denoiser(noise(), T, groups, larger)
    atoms = torch.tensor([0, 1, 2, 8, 9])
    assert ((before - after)[atoms].abs().amax(-1) > 1e-6).all()
    torch.testing.assert_close(before[4:8], after[4:8], atol=0, rtol=0)  # the molecule has none


def test_features_of_unknown_properties_are_zero():
    values = torch.tensor([[float("nan"), 0.3], [2.0, float("nan")]])
    features = property_features(values)
    assert features.isfinite().all()
    assert (features[values.isnan()] == 0).all() and (features[~values.isnan()][:, 0] == 1).all()
    # beyond the range of the data nothing explodes
    assert property_features(torch.tensor([[1e9]])).abs().max() <= 6


def test_what_is_told_moves_to_a_device_whole(denoiser, groups):
    told = everything(denoiser, groups)
    moved = told.to("cpu")
    for field in fields(Told):
        assert torch.equal(
            getattr(moved, field.name).nan_to_num(), getattr(told, field.name).nan_to_num()
        )
