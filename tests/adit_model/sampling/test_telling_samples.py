"""What is asked reaches the denoiser, and what is exact comes back."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols

from adit_model.conditions.atoms import ElementChoice
from adit_model.conditions.known import Known, PropertyRange
from adit_model.config import MINI
from adit_model.model import ADiT
from adit_model.network.groups import DomainGroups
from adit_model.sampling.projections import EVEN_FROM, ElementProjection
from adit_model.sampling.request import Request
from adit_model.sampling.sampler import prepare
from adit_model.sampling.telling import tell
from adit_model.training.stages import CONDITIONS


@pytest.fixture(scope="module")
def model() -> ADiT:
    config = replace(
        MINI,
        denoiser=replace(
            MINI.denoiser, dim=24, num_heads=2, num_layers=2, properties=("band_gap", "gap")
        ),
        autoencoder=replace(MINI.autoencoder, dim=16),
        sampling=replace(MINI.sampling, num_steps=4),
    )
    known = Known(
        sizes={"crystal": {2: 1, 4: 3, 8: 2}, "molecule": {3: 1, 5: 2}},
        elements={"crystal": tuple(range(1, 90)), "molecule": (1, 6, 7, 8)},
        properties={
            "band_gap": PropertyRange("eV", 0.0, 9.0, 1.0, 2.0),
            "gap": PropertyRange("eV", 1.0, 9.0, 6.0, 1.5, ("molecule",)),
        },
        learned=CONDITIONS,
    )
    torch.manual_seed(0)
    model = ADiT(config, known).eval()
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        model.denoiser.latent_mean[2, :3] = 1.0
        model.denoiser.latent_std[2, :6] = 0.2
    return model


def told_of(model: ADiT, condition: str, n: int = 1):
    draws, _ = prepare(model, Request.of(n, condition))
    sizes = torch.tensor([d.num_atoms for d in draws])
    periodic = torch.tensor([d.domain == "crystal" for d in draws])
    groups = DomainGroups.of_atoms(sizes, periodic, cells=True)
    return draws, groups, tell(model.denoiser, model.known, draws, groups)


def test_nothing_is_told_of_free_samples(model):
    *_, told = told_of(model, None, n=4)
    assert not told.is_guided() and not told.fixed.any()
    assert told.domain.tolist() == [1, 2, 1, 2]


def test_a_formula_names_every_atom(model):
    (draw,), _, told = told_of(model, "LiFeO2, units=2")
    found = sorted(chemical_symbols[z] for z in told.elements[:8].tolist())
    assert found == sorted(["Li", "Fe", "O", "O"] * 2)
    assert told.elements[8] == 0  # the cell
    samples = model.sample(3, "LiFeO2, units=2", progress=False)
    for sample in samples:
        assert sorted(sample.decoded["numbers"]) == sorted(draw.told)


def test_kinds_of_whole_systems(model):
    _, _, told = told_of(model, "crystal, Li-O, spacegroup=225, band_gap=3")
    assert told.element_set[0].nonzero()[:, 0].tolist() == [3, 8]
    assert told.space_group.tolist() == [225]
    assert told.properties[0, 0] == pytest.approx((3 - 1) / 2)
    assert told.properties[0, 1].isnan()
    assert not told.elements.any()
    for sample in model.sample(3, "crystal, Li-O, spacegroup=225", progress=False):
        assert set(sample.decoded["numbers"]) <= {3, 8}


def test_cell_and_fixed_sites_are_given_and_come_back(model):
    condition = "cell=4.1/5.2/6.3/80/95/107, fixed=Na@0.1/0.2/0.3;Cl@0.6/0.7/0.8, atoms=4"
    _, groups, told = told_of(model, condition)
    assert told.fixed.tolist() == [True, True, False, False, True]
    assert told.elements.tolist() == [11, 17, 0, 0, 0]
    latents = model.denoiser.denormalise(told.values, groups.kinds)
    np.testing.assert_allclose(
        0.5 * latents[:2, :3] + 0.5, [[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]], atol=1e-6
    )
    for sample in model.sample(4, condition, progress=False):
        assert sample.system is not None and all(sample.holds.values())
        assert sample.system.numbers[:2].tolist() == [11, 17]
        lengths = np.linalg.norm(sample.system.cell, axis=1)
        np.testing.assert_allclose(lengths, [4.1, 5.2, 6.3], atol=1e-6)


def test_a_molecule_is_completed_around_its_fixed_atoms(model):
    condition = "molecule, fixed=C@5.0/1.0/0.0;O@6.2/1.0/0.0, atoms=5"
    _, _, told = told_of(model, condition)
    assert told.fixed.tolist() == [True, True, False, False, False]
    mean = told.values[:2, :3].mean(0)
    offset = model.denoiser.latent_mean[0, :3] / model.denoiser.latent_std[0, :3]
    torch.testing.assert_close(mean, -offset, atol=1e-6, rtol=0)
    for sample in model.sample(3, condition, progress=False):
        assert sample.system.numbers[:2].tolist() == [6, 8]
        np.testing.assert_allclose(sample.system.positions[:2], [[5, 1, 0], [6.2, 1, 0]], atol=1e-6)


def test_guidance_changes_what_is_told_something(model):
    options = {"progress": False, "seed": 3, "symmetry": "free"}
    plain, guided = (
        model.sample(2, "crystal, spacegroup=225, atoms=4", guidance_scale=w, **options)
        for w in (1.0, 3.0)
    )
    for a, b in zip(plain, guided, strict=True):
        assert not np.allclose(a.decoded["frac_coords"], b.decoded["frac_coords"])
    for condition in ("crystal, atoms=4", "cell=4/4/5/90/90/90"):  # never hidden in training
        with pytest.raises(ValueError, match="acts on nothing: the network is told nothing of the"):
            model.sample(1, condition, guidance_scale=2.0, progress=False)


def test_a_property_is_told_of_its_domain_and_in_its_range(model):
    (draw,), _, _ = told_of(model, "gap=2")
    assert draw.domain == "molecule"  # the free domain of sample 0 is crystals
    with pytest.raises(ValueError, match="these weights know gap of molecules alone"):
        told_of(model, "crystal, gap=2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told_of(model, "band_gap=0-9")
    outside = "band_gap=8-12 is outside the training data, which have 0 to 9 eV"
    with pytest.warns(UserWarning, match=outside):
        told_of(model, "band_gap=8-12")


def test_all_elements_of_a_set_come_and_are_told_once_decided(model, monkeypatch):
    seen = []
    forward = type(model.denoiser).forward

    def spy(self, x, t, groups, told=None, memory=None):
        seen.append(told.elements.clone())
        return forward(self, x, t, groups, told, memory)

    monkeypatch.setattr(type(model.denoiser), "forward", spy)
    monkeypatch.setattr("adit_model.sampling.flow.DECIDE_AT", 0.5)
    for condition in ("crystal, Li-Na-O, atoms=4", "crystal, Li-O, atoms=2"):
        seen.clear()
        (sample,) = model.sample(1, condition, progress=False)
        assert sample.holds["elements"]
        assert set(sample.decoded["numbers"]) == {int(z) for z in seen[-1][: sample.num_atoms]}
        assert seen[-1][: sample.num_atoms].tolist() == sample.decoded["numbers"].tolist()
        told = [bool(elements.any()) for elements in seen]
        assert told == [False, False, True, True]  # from the third of four steps on
    (molecule,) = model.sample(1, "molecule, C-H-O, atoms=3", progress=False)
    assert molecule.holds["elements"] and not seen[-1].any()  # chosen at decoding


def test_elements_that_fixed_sites_have_need_no_atom_more(model):
    fixed = "cell=4/4/4/90/90/90, fixed=Na@0/0/0;Na@0.5/0.5/0.5;Na@0.5/0/0"
    for sample in model.sample(4, f"Cl-Na, {fixed}", progress=False):
        assert sample.num_atoms >= 4 and sample.holds["elements"] and sample.holds["atoms"]
    with pytest.raises(ValueError, match="cannot be made"):
        model.sample(1, f"Cl-Na-O, atoms=4, {fixed}", progress=False)


def test_a_range_of_a_property_is_drawn_from(model):
    draws, _, told = told_of(model, "crystal, band_gap=2-4", n=8)
    targets = [draw.targets["band_gap"] for draw in draws]
    assert len(set(targets)) == 8 and all(2 <= target <= 4 for target in targets)
    torch.testing.assert_close(
        told.properties[:, 0], torch.tensor([(target - 1) / 2 for target in targets])
    )
    again, _, _ = told_of(model, "crystal, band_gap=2-4", n=3)
    assert [draw.targets["band_gap"] for draw in again] == targets[:3]
    (sample,) = model.sample(1, "crystal, band_gap=2-4", progress=False)
    assert sample.targets == draws[0].targets
    assert sample.system is None or sample.system.info["target_band_gap"] == targets[0]


def test_guidance_by_kind(model):
    options = {"progress": False, "seed": 3, "symmetry": "free"}

    def positions(condition, scale):
        (sample,) = model.sample(1, condition, guidance_scale=scale, **options)
        return sample.decoded["frac_coords"]

    one = "crystal, spacegroup=225, atoms=4"
    together, alone = positions(one, 3), positions(one, {"space_group": 3})
    np.testing.assert_allclose(together, alone, atol=1e-4)  # of one kind both are the same
    two = "crystal, spacegroup=225, atoms=4, band_gap=2"
    weights = ({"space_group": 3, "properties": 1}, {"properties": 3, "space_group": 1})
    first, second = (positions(two, scale) for scale in weights)
    assert not np.allclose(first, second) and not np.allclose(first, positions(two, 1))
    with pytest.raises(ValueError, match="acts on nothing for properties: no condition"):
        positions(one, "space_group=2, properties=1.5")
    with pytest.raises(ValueError, match="with kinds elements, formula, space_group, properties"):
        positions(one, {"spacegroup": 2})
    with pytest.raises(ValueError, match=r"must lie in 0\.\.100, got -1"):
        positions(one, "space_group=-1")


def test_molecules_have_an_even_number_of_electrons(model):
    request = "molecule, atoms=3-5"
    free = model.sample(40, request, even_electrons=False, progress=False)
    assert {int(s.system.numbers.sum()) % 2 for s in free} == {0, 1}
    even = model.sample(40, request, even_electrons=True, progress=False)
    assert {int(s.system.numbers.sum()) % 2 for s in even} == {0}
    asked = model.sample(2, "molecule, NO2", even_electrons=True, progress=False)
    assert {s.system.formula for s in asked} == {"NO2"}


def test_elements_are_imposed_late_on_the_least_certain_atom(model):
    draws, groups, _ = told_of(model, "molecule, atoms=3-5", n=20)
    elements = np.array([1, 6, 7, 8])
    choices = [replace(d.choice or ElementChoice(), even=elements) for d in draws]
    project = ElementProjection(model.autoencoder, elements, model.denoiser, choices, groups)
    rng = np.random.default_rng(0)
    number = groups.packing.num_atoms
    numbers = rng.choice(elements, number)
    others = np.where(np.isin(numbers, [1, 7]), 6, 7)  # of the other parity
    share = rng.uniform(0.01, 0.4, number)
    mean = torch.tensor(share, dtype=torch.float32)[:, None]
    x_1 = torch.randn(number, model.denoiser.latent_dim)
    x_1[:, 3:] = (1 - mean) * project.code[numbers] + mean * project.code[others]
    assert project(x_1, EVEN_FROM - 0.01) is x_1
    moved = project(x_1, EVEN_FROM)
    for system in range(len(draws)):
        rows = np.flatnonzero(groups.packing.index.numpy() == system)
        changed = rows[(moved[rows] != x_1[rows]).any(dim=1).numpy()]
        if numbers[rows].sum() % 2 == 0:
            assert not len(changed)
            continue
        least = rows[np.argmax(share[rows])]
        assert changed.tolist() == [least]
        expected = torch.cat([x_1[least, :3], project.code[others[least]]])
        torch.testing.assert_close(moved[least], expected)
    assert project(moved, EVEN_FROM) is moved
