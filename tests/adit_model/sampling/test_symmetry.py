"""Generated crystals have the space group that is asked for."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import spglib
import torch
from ase.data import atomic_numbers

from adit_model.conditions.condition import Condition
from adit_model.data.phases import known_phases
from adit_model.model import ADiT
from adit_model.network.groups import DomainGroups
from adit_model.sampling.explore import variations
from adit_model.sampling.projections import SymmetryProjection
from adit_model.sampling.request import Request
from adit_model.sampling.sampler import prepare
from adit_model.sampling.symmetry import (
    assign_elements,
    known_templates,
    template_of,
)

QUICK = {"num_steps": 6, "progress": False}


@pytest.fixture(scope="module")
def model() -> ADiT:
    return ADiT.load("mini-2", device="cpu")


def group_of(system, tolerance: float) -> int:
    cell = (system.cell, system.frac_coords, system.numbers)
    return spglib.get_symmetry_dataset(cell, tolerance).number


@pytest.mark.parametrize("space_group", [225, 194, 62, 166, 14, 139, 1])
def test_templates_are_exactly_symmetric(space_group):
    known = known_phases()
    rng = np.random.default_rng(space_group)
    for place in rng.choice(known.select("train", space_group=space_group), 3):
        template = template_of(known.system(int(place)))
        assert template is not None and template.space_group == space_group
        cell = known.cells[place]
        metric = np.mean([r.T @ cell @ cell.T @ r for r in template.rotations], axis=0)
        exact = (np.linalg.cholesky(metric), template.frac_coords, template.numbers)
        assert spglib.get_symmetry_dataset(exact, 1e-5).number == space_group
        size = 3 * len(template.numbers)
        projector = template.projector().reshape(size, size)
        np.testing.assert_allclose(projector @ projector, projector, atol=1e-12)
        sharer = template.sharer().reshape(size, size)
        np.testing.assert_allclose(
            projector @ sharer @ projector @ sharer,
            projector @ sharer @ sharer,
            atol=1e-9,
        )


def test_projection_changes_nothing_twice(model):
    draws, _ = prepare(model, Request.of(6, "crystal, spacegroup=62, atoms=8-16", seed=1))
    sizes = torch.tensor([draw.num_atoms for draw in draws])
    groups = DomainGroups.of_atoms(sizes, torch.ones(6, dtype=torch.bool), cells=True)
    templates = [draw.template for draw in draws]
    templates[2] = None  # nothing is imposed on it
    project = SymmetryProjection(model.denoiser, templates, groups)
    x = torch.from_numpy(np.concatenate([draw.noise for draw in draws]))
    once = project(x)
    torch.testing.assert_close(project(once), once, atol=2e-5, rtol=0)
    early = project(x, 0.5)
    torch.testing.assert_close(early[:, :3], project(project.anchored(early))[:, :3])
    assert not torch.isclose(early[:, :3], once[:, :3], atol=1e-3)[groups.packing.index == 0].all()
    free = groups.packing.index == 2
    assert torch.equal(once[free], x[free]) and not torch.isclose(once[~free], x[~free]).all()
    volumes = [y[groups.cells, :3] * model.denoiser.latent_std[2, :3] for y in (x, once)]
    torch.testing.assert_close(volumes[0].sum(1), volumes[1].sum(1), atol=1e-4, rtol=0)


def test_the_shared_noise_has_unit_variance(model):
    (draw,), _ = prepare(model, Request.of(1, "crystal, spacegroup=62, atoms=12"))
    groups = DomainGroups.of_atoms(torch.tensor([12]), torch.tensor([True]), cells=True)
    project = SymmetryProjection(model.denoiser, [draw.template], groups)
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, 13, 8, generator=rng)
    shared = torch.stack([project.shared_noise(x) for x in noise])
    torch.testing.assert_close(shared[:, :12].std(0), torch.ones(12, 8), atol=0.1, rtol=0)
    first, second = np.flatnonzero(draw.template.orbits == draw.template.orbits[0])[:2]
    assert torch.equal(shared[:, first, 3:], shared[:, second, 3:])


@pytest.mark.parametrize("space_group", [225, 62])
def test_the_space_group_is_reached(model, space_group):
    samples = model.sample(4, f"spacegroup={space_group}", seed=2, **QUICK)
    reached = [group_of(sample.system, 0.01) for sample in samples]
    assert reached.count(space_group) >= 3, reached  # equal elements may add symmetry
    told = model.sample(4, f"spacegroup={space_group}", seed=2, symmetry="free", **QUICK)
    assert space_group not in [group_of(sample.system, 0.01) for sample in told]


def test_formula_and_elements_fill_whole_orbits(model):
    for condition in ("LiFeO2, spacegroup=166", "Ba-Ti-O, spacegroup=221, atoms=5"):
        request = Request.of(3, condition, seed=1, num_steps=6)
        draws, _ = prepare(model, request)
        for draw, sample in zip(draws, model.sample(request, progress=False), strict=True):
            assert draw.template is not None
            numbers = sample.decoded["numbers"]
            for orbit in np.unique(draw.template.orbits):
                assert len(set(numbers[draw.template.orbits == orbit])) == 1
            if "Fe" in condition:
                assert sample.holds["formula"]
                np.testing.assert_array_equal(numbers, draw.told)
            else:
                assert set(numbers) <= {8, 22, 56}


def test_elements_are_assigned_to_orbits_or_not_at_all():
    (place,) = known_phases().select("train", formula="SrTiO3", space_group=221)[:1]
    template = template_of(known_phases().system(int(place)))  # orbits of 1, 1 and 3
    rng = np.random.default_rng(0)
    ba, zr, o = (atomic_numbers[s] for s in ("Ba", "Zr", "O"))
    numbers = assign_elements(template, {o: 3, zr: 1, ba: 1}, rng)
    assert numbers[template.numbers == 38].tolist() == [ba]  # the less electronegative one
    assert numbers[template.numbers == 22].tolist() == [zr]
    assert Counter(assign_elements(template, {o: 4, zr: 1}, rng).tolist()) == {o: 4, zr: 1}
    assert assign_elements(template, {o: 2, zr: 2, ba: 1}, rng) is None
    assert assign_elements(template, {o: 4, zr: 2}, rng) is None  # six atoms


def test_known_draws_templates_without_a_space_group(model):
    request = Request.of(6, "crystal", seed=3, symmetry="known")
    draws, settings = prepare(model, request)
    assert settings.symmetry == "known"
    assert all(draw.template is not None for draw in draws)
    train = set(known_phases().ids[known_phases().select("train")])
    assert {draw.template.id for draw in draws} <= train
    free, _ = prepare(model, Request.of(6, "crystal", seed=3))
    assert all(draw.template is None for draw in free)
    fixed = Request.of(1, "cell=4/4/4/90/90/90, atoms=2", symmetry="known")
    assert prepare(model, fixed)[0][0].template is None
    mixed, _ = prepare(model, Request.of(4, seed=3, symmetry="known"))
    assert [draw.template is not None for draw in mixed] == [True, False] * 2


def test_the_symmetry_that_is_nearly_there_is_imposed(model):
    request = "crystal, atoms=2-12"
    options = {"seed": 3, "num_steps": 12, "progress": False}
    free = model.sample(24, request, symmetry="free", **options)
    found = model.sample(24, request, symmetry="found", **options)
    moved = 0
    for one, other in zip(free, found, strict=True):
        if other.system is None or one.system is None:
            continue
        before, after = (group_of(s.system, 0.1) for s in (one, other))
        moved += before < after
        if not np.allclose(one.system.positions, other.system.positions, atol=1e-3):
            assert group_of(other.system, 1e-3) > 1  # what was changed is symmetric
    assert moved >= 3
    alone = model.sample(1, request, symmetry="found", first_index=5, **options)
    np.testing.assert_array_equal(alone[0].system.positions, found[5].system.positions)


def test_a_cell_that_is_asked_for_stays_as_it_is(model):
    cell = "crystal, atoms=4, cell=4.1/4.2/4.3/90/95/90"
    for sample in model.sample(3, cell, symmetry="found", **QUICK):
        lengths = sample.system.to_structure().lattice.parameters
        np.testing.assert_allclose(lengths, (4.1, 4.2, 4.3, 90, 95, 90), atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch(model):
    conditions = ["crystal, spacegroup=225", "crystal, atoms=4", "crystal, spacegroup=62"] * 2
    together = model.sample(6, conditions, seed=4, **QUICK)
    for start in (1, 2):
        alone = model.sample(1, conditions[start], seed=4, first_index=start, **QUICK)[0]
        for name, values in alone.decoded.items():
            np.testing.assert_array_equal(values, together[start].decoded[name])


def test_what_cannot_be_imposed_is_said(model):
    groups = known_phases().space_groups[known_phases().select("train")]
    missing = min(set(range(1, 231)) - set(groups.tolist()))
    with pytest.warns(UserWarning, match="no known crystal has the symmetry") as caught:
        prepare(model, Request.of(3, f"spacegroup={missing}"))
    assert len(caught) == 1
    with pytest.raises(ValueError, match="symmetry must be one of asked, known, found, free"):
        model.sample(1, symmetry="all")
    with pytest.raises(ValueError, match="symmetry 'known' acts on crystals"):
        model.sample(1, "molecule", symmetry="known")
    with pytest.raises(ValueError, match="variations start from a structure"):
        variations(model, known_phases().system(0), 1, symmetry="known")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(model, Request.of(1, f"spacegroup={missing}", symmetry="free"))
    prepare(model, Request.of(1, "molecule").filled(model.config.sampling))  # where it is a default
    with pytest.raises(ValueError, match="symmetry 'found' acts on crystals"):
        ADiT.load("mini", device="cpu").sample(1, "crystal", symmetry="found")


def test_elements_have_a_noise_of_their_own(model):
    draws, settings = prepare(model, Request.of(4, seed=3))
    for draw in draws:
        one = draw.fresh_noise(5, replace(settings, noise_scale=1))
        text = "crystal=0.5, molecule=0.5, crystal.elements=0.25, molecule.elements=0.75"
        parts = draw.fresh_noise(5, replace(settings, noise_scale=text))
        atoms = slice(draw.num_atoms)
        np.testing.assert_array_equal(parts[:, atoms, :3], 0.5 * one[:, atoms, :3])
        share = 0.25 if draw.domain == "crystal" else 0.75
        np.testing.assert_array_equal(parts[:, atoms, 3:], share * one[:, atoms, 3:])
        np.testing.assert_array_equal(parts[:, draw.num_atoms :], 0.5 * one[:, draw.num_atoms :])
    with pytest.raises(ValueError, match="elements have a noise of their own in weights whose"):
        ADiT.load("mini", device="cpu").sample(1, noise_scale=text)


def test_more_elements_than_orbits_find_no_template():
    rng = np.random.default_rng(0)
    assert known_templates().draw(Condition("crystal", 2, "Na-Cl"), [2], rng) is not None
    asked = Condition(elements="Na-Cl-Br", space_group=225)
    template, _ = known_templates().draw(asked, range(2, 21), rng)
    assert len(np.unique(template.orbits)) >= 3
    assert known_templates().draw(Condition(formula="Na2Cl", space_group=225), [3], rng)
    asked = Condition(formula="NaClBr", space_group=225)  # in its 3 atoms two are equivalent
    assert known_templates().draw(asked, [3], rng) is None
