import numpy as np
import pytest
import spglib

from adit_model.canonical import canonicalise
from adit_model.data.phases import (
    known_molecules,
    known_phases,
    reduced_formula,
    without_none,
)
from adit_model.data.qm9 import qm9_split
from adit_model.data.sources import absolute_source, load_source
from adit_model.quality.entries import load_reference


def test_the_table_holds_rock_salt() -> None:
    known = known_phases()
    (salt,) = known.select(formula="Na4Cl4", space_group=225)
    system = known.system(salt)
    assert (system.formula, len(system)) == ("NaCl", 2)
    assert known.ids[salt] == system.info["id"] == "mp-22862"
    assert known.chemical_systems[salt] == "Cl-Na"
    distances = system.to_structure().distance_matrix
    assert distances[0, 1] == pytest.approx(5.69 / 2, abs=0.03)  # lattice parameter of PBE
    assert known.formation_energy_per_atom[salt] == pytest.approx(-2.1, abs=0.1)
    assert known.e_above_hull[salt] == 0


def test_splits_share_no_composition() -> None:
    known = known_phases()
    assert len(known) == 19_702
    parts = [set(known.formulas[known.select([split])]) for split in ("train", "val", "test")]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert [len(known.select([split])) for split in ("train", "val", "test")] == [16950, 1099, 1653]


def test_select_takes_all_conditions_together() -> None:
    known = known_phases()
    rows = known.select(["train", "val"], elements=["Li", "O", "Fe"], num_atoms=4)
    assert len(rows) > 0
    for row in rows:
        assert set(known.chemical_systems[row].split("-")) <= {"Li", "O", "Fe"}
        assert len(known.system(row)) == 4 and known.splits[row] != "test"
    assert len(known.select(elements=["He"], num_atoms=20)) == 0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"splits train, val, test, got \['all'\]"):
        known_phases().select(["all"])
    with pytest.raises(ValueError, match="no element 'Xx'"):
        known_phases().select(elements=["Xx"])


@pytest.mark.parametrize("part", range(4))
def test_rounding_keeps_symmetry_and_canonical_form(part: int) -> None:
    known = known_phases()
    ours = known.num_atoms <= 8
    rows = np.flatnonzero(ours & (known.sources == "mp-20"))[part::600]
    same = 0
    for row in rows:
        system = known.system(row)
        assert system.cell is not None
        found = spglib.get_symmetry_dataset(
            (system.cell, system.frac_coords, system.numbers), symprec=0.01
        )
        same += found is not None and found.number == known.space_groups[row]
        again = canonicalise(system).system
        assert len(again) == len(system)
        np.testing.assert_allclose(again.cell, system.cell, atol=1e-3)
    assert same >= 0.9 * len(rows)  # the Materials Project's tolerance is 0.1 angstrom


def test_dataset_holds_the_same_structures() -> None:
    known = known_phases()
    rows = known.select(["test"], num_atoms=5)[:7]
    dataset = known.dataset(rows)
    for i, row in enumerate(rows):
        system = known.system(row)
        np.testing.assert_allclose(dataset[i].positions, system.positions, atol=1e-5)
        assert dataset[i].formula == system.formula
        assert dataset.labels["e_above_hull"][i] == pytest.approx(
            known.e_above_hull[row], nan_ok=True
        )


def test_known_molecules_are_those_of_qm9() -> None:
    known = known_molecules()
    assert len(known) == 130_831
    assert dict(known.select())["gdb_1"] == "C"
    test = dict(known.select(["test"]))
    assert len(test) == 12_831
    first = qm9_split("test")[0]
    assert f"gdb_{known.numbers[first]}" == next(iter(test))
    assert {"CCO", "c1ccccc1", "N"} <= set(known.smiles)


def test_reduced_formula_is_that_of_pymatgen() -> None:
    assert reduced_formula("Fe4 O6") == "Fe2O3"
    with pytest.raises(ValueError, match="Invalid formula"):
        reduced_formula("")


def test_the_known_are_a_source_of_which_the_test_part_can_be_left_out() -> None:
    for spec, number in (("known", 19_702), ("known:test", 1653)):
        assert len(load_source(spec)) == number
        assert absolute_source(spec) == spec
    reference = load_reference(["known:train", "known:val"])
    assert reference.crystals is not None and len(reference.crystals) == 16_950 + 1099
    test = known_phases().ids[known_phases().select("test")]
    assert not set(test.tolist()) & set(reference.crystals.ids.tolist())
    held_out = [smiles for _, smiles in known_molecules().select("test")]
    assert 0.98 < np.mean([smiles not in reference.canonical for smiles in held_out]) <= 1
    with pytest.raises(ValueError, match=r"splits train, val, test, got \['tset'\]"):
        load_source("known:tset")


def test_none_stands_for_no_source_and_alone() -> None:
    assert without_none("none") == without_none(None) == without_none(["none"]) == []
    assert without_none("known") == ["known"]
    with pytest.raises(ValueError, match="'none' stands alone"):
        without_none(["none", "known"])
