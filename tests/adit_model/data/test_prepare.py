from __future__ import annotations

import csv

import numpy as np
import pytest
from ase.build import bulk, molecule

from adit_model.data.dataset import AtomicDataset
from adit_model.data.prepare import Preparation, composition, concatenate, prepare
from adit_model.systems import AtomicSystem


def dataset(names, structures, label="small") -> AtomicDataset:
    systems = [
        AtomicSystem.from_atoms(atoms, id=name)
        for name, atoms in zip(names, structures, strict=True)
    ]
    return AtomicDataset.from_systems(systems, label)


@pytest.fixture
def small() -> AtomicDataset:
    names = ["salt", "cube", "gold", "methane", "benzene", "silane"]
    structures = [
        bulk("NaCl", "rocksalt", a=5.64),
        bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        bulk("Au"),
        molecule("CH4"),
        molecule("C6H6"),
        molecule("SiH4"),
    ]
    data = dataset(names, structures)
    data.skipped = [("broken", "no atoms")]
    return data


def test_what_is_dropped_is_listed_with_its_reason(small, tmp_path):
    options = Preparation(
        min_atoms=2, max_atoms=10, exclude_elements=("Si",), validation_fraction=0.0
    )
    prepared = prepare([small], options)
    assert prepared.parts["train"].ids.tolist() == ["salt", "methane"]
    assert dict(prepared.dropped) == {
        "broken": "no atoms",
        "gold": "1 atoms, fewer than min_atoms=2",
        "benzene": "12 atoms, more than max_atoms=10",
        "silane": "holds Si",
        "cube": "equal to salt",
    }
    assert prepared.read == 7
    assert sum(prepared.reasons().values()) == 5
    assert "7 entries read, 2 kept, 5 dropped" in prepared.report()
    assert "dropped: 1 like cube: equal to salt" in prepared.report()
    paths = prepared.write(tmp_path)
    assert AtomicDataset.load(paths["train"]).ids.tolist() == ["salt", "methane"]
    assert (tmp_path / "report.txt").read_text() == prepared.report() + "\n"
    with open(tmp_path / "dropped.csv", newline="") as file:
        assert {row["id"]: row["reason"] for row in csv.DictReader(file)} == dict(prepared.dropped)


def test_the_first_of_equal_structures_stays(small):
    other = dataset(["mine"], [bulk("Au")], "mine")
    options = Preparation(validation_fraction=0.0)
    assert ("mine", "equal to gold") in prepare([small, other], options).dropped
    assert ("gold", "equal to mine") in prepare([other, small], options).dropped
    kept = prepare([small, other], Preparation(validation_fraction=0.0, deduplicate=False))
    assert len(kept.parts["train"]) == 7


def test_elements_that_are_allowed(small):
    options = Preparation(elements=("C", "H", "Au"), validation_fraction=0.0)
    assert prepare([small], options).parts["train"].ids.tolist() == ["gold", "methane", "benzene"]


def test_compositions_are_on_one_side_and_stay_there():
    random = np.random.default_rng(0)
    systems = []
    for i in range(600):
        numbers = random.integers(1, 9, size=3)
        repeat = np.tile(numbers, random.integers(1, 3))
        systems.append(AtomicSystem(repeat, random.normal(size=(len(repeat), 3)), info={"id": i}))
    data = AtomicDataset.from_systems(systems)
    options = Preparation(deduplicate=False, validation_fraction=0.2, test_fraction=0.1)
    parts = prepare([data], options).parts
    assert sum(len(part) for part in parts.values()) == 600
    formulas = {name: {composition(s.numbers) for s in part} for name, part in parts.items()}
    assert not formulas["train"] & formulas["validation"]
    assert not formulas["train"] & formulas["test"]
    assert not formulas["validation"] & formulas["test"]
    total = sum(map(len, formulas.values()))
    assert len(formulas["validation"]) / total == pytest.approx(0.2, abs=0.08)
    assert len(formulas["test"]) / total == pytest.approx(0.1, abs=0.06)
    fewer = prepare([data.subset(np.arange(100))], options).parts
    for name, part in fewer.items():
        assert {composition(s.numbers) for s in part} <= formulas[name]
    other = prepare([data], Preparation(deduplicate=False, validation_fraction=0.2, seed=1)).parts
    assert {composition(s.numbers) for s in other["validation"]} != formulas["validation"]


def test_a_cell_and_its_supercell_have_one_composition():
    assert composition(np.array([8, 22, 8])) == composition(np.array([8] * 4 + [22] * 2))
    assert composition(np.array([8, 22])) != composition(np.array([8, 22, 8]))


def test_joined_data_keep_everything(small):
    joined = concatenate([small, dataset(["more"], [bulk("Cu")], "more")])
    assert joined.name == "small + more"
    assert joined.ids.tolist() == [*small.ids.tolist(), "more"]
    assert joined.skipped == small.skipped
    np.testing.assert_array_equal(joined[6].numbers, [29])
    with pytest.raises(ValueError, match="no data to join"):
        concatenate([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_atoms": 0}, "min_atoms must be a positive integer, got 0"),
        ({"min_atoms": 5, "max_atoms": 4}, "max_atoms must be at least min_atoms=5, got 4"),
        ({"elements": ("Xx",)}, "no element has the symbol 'Xx'"),
        ({"tolerance": 0.0}, "tolerance must lie between 0 and 1"),
        ({"validation_fraction": 1.0}, r"validation_fraction must lie in \[0, 1\)"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "leave nothing to train on"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**options)


def test_nothing_left_says_what_was_dropped(small):
    with pytest.raises(ValueError, match=r"nothing is left to train on\n.*7 dropped"):
        prepare([small], Preparation(elements=("He",)))
