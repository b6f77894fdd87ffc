from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from adit_model.quality.hull import MP2020, Hull, check_scale

TABLE = """material_id,source,formula,formation_energy_per_atom,e_above_hull,cif
mp-1,mp-20,Na1 Cl1,-2.0,0.1,-
mp-2,mp-20,Na2 Cl2,-2.1,0.0,-
mp-3,mpts-52,Na1 Cl3,-1.0,,-
mp-4,flla-2015,Na1 Br1,-1.5,0.0,-
mp-5,mp-20,Mg1 Cl2,-2.2,0.0,-
"""


def entries(*items: tuple[str, float]) -> list[ComputedEntry]:
    """Entries by their energies per atom."""
    return [ComputedEntry(name, energy * Composition(name).num_atoms) for name, energy in items]


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    path = tmp_path / "crystals.csv"
    path.write_text(TABLE)
    return path


def test_entries_of_a_csv_file_fix_the_hull_at_their_composition(csv_file: Path) -> None:
    hull = Hull.from_csv(csv_file)
    result = hull.above("NaCl", -2.0)
    assert result.energy_above_hull == pytest.approx(0.1)
    assert (result.competing, result.complete, result.reason) == (["NaCl"], False, None)
    assert "partial" in result.source
    # A mixture of one formula unit of each, five atoms.
    mixed = hull.above({"Na": 1, "Mg": 1, "Cl": 3}, -2.0)
    assert mixed.energy_above_hull == pytest.approx((2 * 2.1 + 3 * 2.2) / 5 - 2.0)
    assert mixed.competing == ["MgCl2", "NaCl"]
    below = hull.above("NaCl", -2.5)
    assert below.energy_above_hull == pytest.approx(-0.4)


def test_entries_with_older_corrections_or_without_hull_are_left_out(csv_file: Path) -> None:
    hull = Hull.from_csv(csv_file)
    assert len(hull) == 3
    unknown = hull.above("NaBr", -1.5)
    assert unknown.energy_above_hull is None and unknown.competing == ["Br", "Na"]
    # NaCl3, without e_above_hull, is a phase like any other: less stable than NaCl and chlorine.
    assert hull.above("NaCl3", -1.0).energy_above_hull == pytest.approx(0.05)


def test_no_answer_has_a_reason(csv_file: Path) -> None:
    hull = Hull.from_csv(csv_file)
    for composition, energy, reason in (
        ("RnO", -1.0, "no known compound of O-Rn competes, only elements"),
        ("Xx", 0.0, "no reference energy of Xx"),
        ("", 0.0, "no composition"),
        ("a?", 0.0, "no composition"),
        ("NaCl", float("nan"), "the energy is nan"),
    ):
        result = hull.above(composition, energy)
        assert result.energy_above_hull is None
        assert reason in (result.reason or "")
        assert result.source == hull.source


def test_a_file_that_fixes_no_hull_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("material_id,formula,cif\n1,NaCl,-\n")
    with pytest.raises(ValueError, match="it lacks formation_energy_per_atom, it has"):
        Hull.from_csv(path)
    path.write_text(TABLE.splitlines()[0] + "\nmp-1,mp-20,Na1 Cl1,,,-\n")
    with pytest.raises(ValueError, match="has a formation energy"):
        Hull.from_csv([path])
    with pytest.raises(ValueError, match="one file at least"):
        Hull.from_csv([])


def test_elements_of_a_file_without_them_lie_at_zero_and_formulas_follow(tmp_path: Path) -> None:
    cif = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0] * 3, [0.5] * 3]).to(fmt="cif")
    path = tmp_path / "bare.csv"
    path.write_text(f'material_id,cif,formation_energy_per_atom\nmp-x,"{cif}",-2.1\n')
    hull = Hull.from_csv(path)
    assert hull.above("Na", 0.03).energy_above_hull == pytest.approx(0.03)
    found = hull.above("Na2Cl2", -2.0)
    assert (found.energy_above_hull, found.competing) == (pytest.approx(0.1), ["NaCl"])


def test_elements_alone_are_no_hull() -> None:
    hull = Hull.of_elements()
    result = hull.above("Fe2O3", -1.6)
    assert (result.energy_above_hull, result.stability) == (None, "unknown")
    assert result.reason == "no known compound of Fe-O competes, only elements"
    assert not result.complete and "elements only" in result.source
    assert result.competing == ["Fe", "O"]
    # no missing phase can mend this, and an element needs no compound
    assert hull.above("Fe2O3", 0.25).stability == "unstable"
    assert hull.above("Fe", 0.05).stability == "metastable"


def test_the_stability_says_what_the_hull_knows(csv_file: Path) -> None:
    hull = Hull.from_csv(csv_file)
    for energy, stability in (
        (-2.201, "unknown"),  # lies 0.101 below
        (-2.199, "stable"),
        (-2.1, "stable"),
        (-2.001, "metastable"),
        (-1.9, "unstable"),
    ):
        assert hull.above("NaCl", energy).stability == stability
    salt = hull.above("NaCl", -2.1)
    assert (salt.known_phases, salt.competitors_known) == (2, True)  # NaCl and NaCl3
    # Na and Mg: no compound of the two is known
    mixed = hull.above("NaMgCl3", -2.1)
    assert (mixed.known_phases, mixed.competitors_known) == (3, False)
    assert mixed.stability == "metastable" and mixed.competing == ["MgCl2", "NaCl"]


def test_a_known_composition_may_compete_with_elements_alone() -> None:
    hull = Hull({"LiFe": 0.0}, ["Li", "Fe"], scale="", source="")
    found = hull.above("LiFe", 0.05)
    assert (found.energy_above_hull, found.stability) == (0.05, "metastable")
    assert found.competing == ["LiFe"] or found.competing == ["Fe", "Li"]
    assert hull.above("Li2Fe", -0.05).energy_above_hull is None


def test_a_complete_hull_may_have_elements_alone() -> None:
    hull = Hull({}, ["Li", "Fe"], scale="", source="all", complete=True)
    found = hull.above("LiFe", -0.05)
    assert (found.energy_above_hull, found.stability) == (-0.05, "stable")
    assert found.competitors_known


def test_the_known_phases_are_a_hull() -> None:
    hull = Hull.from_csv("known")
    rock_salt = hull.above("NaCl", -2.0)
    assert rock_salt.competing == ["NaCl"] and rock_salt.competitors_known
    assert rock_salt.energy_above_hull == pytest.approx(0.11, abs=0.01)
    assert hull.source == "known phases (partial)" and not hull.complete
    train = Hull.from_csv(["known:train", "known:val"])
    assert len(hull) > len(train) > 13_000
    null = hull.null_rates(number=100)
    assert null["passed"]["0.3"] < null["passed"]["0.15"] < 60
    assert 0 < null["unknown"]["0.3"] < 50
    with pytest.raises(ValueError, match="known phases have the splits"):
        Hull.from_csv("known:all")


def test_entries_lie_relative_to_their_lowest_elements() -> None:
    hull = Hull.from_entries(
        entries(("Na", -1.3), ("Na", -1.0), ("Cl2", -1.8), ("NaCl", -3.5), ("KCl", -3.0))
    )
    assert hull.above("NaCl", -1.95).energy_above_hull == pytest.approx(0.0)
    assert hull.above("KCl", -1.0).reason == "no reference energy of K in this hull"
    with pytest.raises(ValueError, match="no entry is a pure element"):
        Hull.from_entries(entries(("NaCl", -3.5)))


def test_scales_do_not_mix(csv_file: Path) -> None:
    hull = Hull.from_csv(csv_file)
    assert hull.above("NaCl", -2.1, scale=MP2020).energy_above_hull == pytest.approx(0)
    with pytest.raises(ValueError, match="cannot be compared"):
        hull.above("NaCl", -2.1, scale="PBE of SevenNet-0")
    with pytest.raises(ValueError, match="cannot be compared"):
        check_scale(MP2020, "PBE")
    check_scale("", "PBE")


def ternary(seed: int, count: int) -> list[PDEntry]:
    """Three elements and random compounds of them."""
    rng = random.Random(seed)
    found = [PDEntry(Composition(symbol), 0.0) for symbol in ("Li", "Fe", "O")]
    for _ in range(count):
        amounts = [rng.randint(0, 4) for _ in range(3)]
        if sum(amounts):
            composition = Composition(dict(zip(("Li", "Fe", "O"), amounts, strict=True)))
            found.append(PDEntry(composition, rng.uniform(-2, 0.2) * composition.num_atoms))
    return found


def test_a_hull_that_lacks_phases_takes_worse_crystals_for_metastable() -> None:
    """Without Li2O the hull lies at -0.45 there (LiO2 and Li), without LiO2 at -0.5."""
    hull = Hull({"Li2O": -1.0, "LiO2": -0.9}, ["Li", "O"], scale="", source="two")
    found = hull.null_rates((0.4, 0.6, 0.7), threshold=0.1)
    assert found == {
        "threshold": 0.1,
        "of": 2,
        "passed": {"0.4": 1, "0.6": 1, "0.7": 0},
        "unknown": {"0.4": 1, "0.6": 0, "0.7": 0},  # Li2O: 0.15 eV/atom below
    }
    assert hull.above("Li2O", -1.0).energy_above_hull == 0  # the hull itself is left whole


@pytest.mark.data
def test_the_null_model_agrees_with_compounds_kept_out_altogether(data_dir: Path) -> None:
    """Crystals of one file, 0.2 eV/atom worse, above the hull of the others: none is metastable."""
    from adit_model.data.crystal_csv import load_crystal_table

    hull = Hull.from_csv([data_dir / f"crystals_{name}.csv.gz" for name in ("train", "val")])
    table = load_crystal_table(data_dir / "crystals_test.csv.gz").sample(250, random_state=0)
    table = table.dropna(subset=["e_above_hull"])[lambda t: t["source"] != "flla-2015"]
    above = [
        hull.above(row.formula, row.formation_energy_per_atom - row.e_above_hull + 0.2)
        for row in table.itertuples()
    ]
    kept_out = np.mean([result.stability in ("stable", "metastable") for result in above])
    found = hull.null_rates((0.2,), number=200)
    assert 0.15 < kept_out < 0.45
    assert found["passed"]["0.2"] / found["of"] == pytest.approx(kept_out, abs=0.1)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 9)), st.tuples(*[st.integers(0, 5)] * 3))
def test_energy_above_a_partial_hull_is_a_lower_bound(seed, left_out, amounts) -> None:
    assume(sum(amounts))
    composition = Composition(dict(zip(("Li", "Fe", "O"), amounts, strict=True)))
    known = [entry for entry in ternary(seed, 10) if len(entry.composition) > 1]
    elements = ternary(seed, 0)
    kept = [entry for i, entry in enumerate(known) if i not in left_out]
    whole = Hull.from_entries(elements + known).above(composition, -0.5)
    partial = Hull.from_entries(elements + kept).above(composition, -0.5)
    if partial.energy_above_hull is None:  # no compound competes
        assert partial.stability == "unknown"
        return
    assert whole.energy_above_hull is not None
    assert partial.energy_above_hull <= whole.energy_above_hull + 1e-7


@pytest.mark.data
def test_no_entry_of_the_data_lies_higher_than_it_is_known_to(data_dir: Path) -> None:
    from adit_model.data.crystal_csv import load_crystal_table

    hull = Hull.from_csv([data_dir / f"crystals_{name}.csv.gz" for name in ("val", "test")])
    table = load_crystal_table(data_dir / "crystals_test.csv.gz").sample(200, random_state=0)
    table = table.dropna(subset=["e_above_hull"])[lambda t: t["source"] != "flla-2015"]
    differences = [
        hull.above(row.formula, row.formation_energy_per_atom).energy_above_hull - row.e_above_hull
        for row in table.itertuples()
    ]
    assert len(differences) > 100
    assert np.max(np.abs(differences)) < 1e-6  # their own composition is in the hull
