"""Templates: which known crystals fit, which come first, and what becomes of them."""

from __future__ import annotations

import numpy as np
import pytest

from adit_model.data.dataset import AtomicDataset
from adit_model.prediction.templates import fitting, stoichiometry, templates
from adit_model.quality.matching import distance
from adit_model.systems import AtomicSystem


def cubic(name: str, first: int, second: int, a: float, kind: str = "rock salt") -> AtomicSystem:
    """Primitive cell of two atoms; of caesium chloride with another lattice."""
    lattice = np.eye(3) if kind == "CsCl" else 0.5 * (np.ones((3, 3)) - np.eye(3))
    shift = {"zincblende": 0.25}.get(kind, 0.5)
    cell = a * lattice
    frac = np.array([[0.0, 0, 0], [shift] * 3])
    return AtomicSystem(np.array([first, second]), frac @ cell, cell, {"id": name})


@pytest.fixture(scope="module")
def known():
    water = AtomicSystem(np.array([8, 1, 1]), np.eye(3), None, {"id": "molecule"})
    pair = cubic("two units", 11, 17, 5.64)
    doubled = AtomicSystem(
        np.tile(pair.numbers, 2),
        np.concatenate([pair.positions, pair.positions + pair.cell[0]]),
        np.diag([2.0, 1.0, 1.0]) @ pair.cell,
        {"id": "two units"},
    )
    return AtomicDataset.from_systems(
        [
            cubic("sulfide", 30, 16, 5.4, "zincblende"),
            cubic("fluoride", 3, 9, 4.03),
            cubic("bromide", 19, 35, 6.6),
            cubic("caesium", 55, 17, 4.1, "CsCl"),
            cubic("itself", 11, 17, 5.64),
            doubled,
            water,
        ]
    )


def test_what_fits_has_the_stoichiometry_and_not_the_composition(known):
    assert stoichiometry(np.array([8, 8, 22])) == (1, 2)
    found = known.ids[fitting(known, np.array([11, 17]))]
    assert found.tolist() == ["sulfide", "fluoride", "bromide", "caesium"]
    whole = known.ids[fitting(known, np.array([19, 35]), [2, 4])]
    assert "two units" in whole and "bromide" not in whole


def test_the_nearest_elements_come_first_and_each_type_once(known):
    found = list(templates(known, np.array([11, 17])))
    assert [t.id for t in found] == [
        "bromide",
        "caesium",
        "sulfide",
    ]  # the fluoride is rock salt, too
    assert found[0].distance < found[-1].distance
    rock_salt = found[0].system
    assert sorted(rock_salt.numbers.tolist()) == [11, 17]
    truth = cubic("", 11, 17, 5.64)
    assert distance(rock_salt, truth) == pytest.approx(0, abs=1e-3)
    assert rock_salt.volume == pytest.approx(truth.volume, rel=0.25)  # the bromide's is 1.6 times
    sodium = rock_salt.numbers.tolist().index(11)
    assert known[2].numbers[sodium] == 19  # sodium in the place of potassium


def test_what_more_crystals_of_near_elements_have_comes_first():
    def kind(name, first, second, group):
        known = "CsCl" if group == 221 else "rock salt"
        return cubic(name, first, second, 4.0, known), group

    pairs = [kind("one", 37, 17, 221), *(kind(f"{z}", 19, z, 225) for z in (9, 17, 35))]
    known = AtomicDataset.from_systems([system for system, _ in pairs])
    known.space_groups[:] = [group for _, group in pairs]
    bromide = np.array([37, 35])  # RbBr: RbCl and KBr differ by one element each
    assert [t.id for t in templates(known, bromide)] == ["35", "one"]
    assert [t.id for t in templates(known, bromide, space_group=221)] == ["one"]
    alone = AtomicDataset.from_systems([pairs[0][0], pairs[1][0]])
    assert [t.id for t in templates(alone, bromide)] == ["one", "9"]  # the nearest
