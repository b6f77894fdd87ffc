"""The condition: its text, its JSON, its contradictions, and what it says of a structure."""

import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from ase.data import chemical_symbols
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monty.json import MontyDecoder, MontyEncoder

from adit_model.conditions.condition import Condition, as_condition
from adit_model.systems import AtomicSystem

SYMBOLS = st.sampled_from(chemical_symbols[1:])
COUNTS = st.one_of(
    st.integers(1, 300),
    st.tuples(st.integers(1, 50), st.integers(50, 300)),
    st.lists(st.integers(1, 300), min_size=1, max_size=4),
)
FINITE = st.floats(-1e6, 1e6, allow_nan=False)
CELLS = st.tuples(*[st.floats(1, 50)] * 3, *[st.floats(70, 110)] * 3)
SITES = st.lists(st.tuples(SYMBOLS, FINITE, FINITE, FINITE), min_size=1, max_size=3)


@st.composite
def conditions(draw):
    parts = {
        "domain": st.sampled_from(["crystal", "molecule", "both"]),
        "num_atoms": COUNTS,
        "elements": st.lists(SYMBOLS, min_size=1, max_size=4),
        "formula": st.dictionaries(SYMBOLS, st.integers(1, 12), min_size=1, max_size=4),
        "formula_units": COUNTS,
        "space_group": st.integers(1, 230),
        "properties": st.dictionaries(
            st.sampled_from(["band_gap", "energy_above_hull", "density"]),
            st.one_of(FINITE, st.tuples(st.floats(-9, 0), st.floats(0, 9))),
        ),
        "cell": CELLS,
        "atoms": SITES,
    }
    chosen = draw(st.sets(st.sampled_from(sorted(parts))))
    try:
        return Condition(**{name: draw(parts[name]) for name in sorted(chosen)})
    except ValueError as error:
        assume("contradicts" not in str(error))
        raise


@given(conditions())
@settings(max_examples=60, deadline=None)
def test_text_and_json_round_trips(condition):
    assert Condition.from_text(str(condition)) == condition
    text = json.dumps(condition, cls=MontyEncoder)
    assert json.loads(text, cls=MontyDecoder) == condition
    assert hash(Condition.from_dict(json.loads(json.dumps(condition.as_dict())))) == hash(condition)


@pytest.mark.parametrize(
    ("text", "parts"),
    {
        "": {},
        "both": {},
        "S-Li-P, atoms=4-12": {"elements": ("Li", "P", "S"), "num_atoms": (4, 12)},
        "O4Mn3Li, units=2": {"formula": "LiMn3O4", "formula_units": 2},
        "crystal, spacegroup=Fm-3m, band_gap=1.5": {
            "domain": "crystal",
            "space_group": 225,
            "properties": (("band_gap", 1.5),),
        },
        "spacegroup=P2_1/c": {"space_group": 14},
        "e_hull=0-0.05": {"properties": (("e_hull", (0.0, 0.05)),)},
        "Si": {"elements": ("Si",)},
        "Si2": {"formula": "Si2"},
        "atoms=8|4": {"num_atoms": frozenset({4, 8})},
        "cell=4/4/5/90/90/120": {"cell": (4, 4, 5, 90, 90, 120)},
        "molecule, CH3CH2OH": {"domain": "molecule", "formula": "C2H6O"},
        "Li2 Mn4 O8": {"formula": "Li2Mn4O8"},
        "property:cell=2, property:band_gap=1": {"properties": (("band_gap", 1.0), ("cell", 2.0))},
    }.items(),
)
def test_text(text, parts):
    assert Condition.from_text(text) == Condition(**parts)
    assert Condition.from_text(text).asked == parts


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "Xx-O": "'Xx' is no element: symbols are H, He",
        "li-O": "did you mean Li",
        "spacegroup=300": "'300' is no space group: give its number, 1 to 230",
        "spacegroup=Fm3": "such as Fm-3m",
        "chem_system=Li-O": "unknown key 'chem_system'.* known: domain, elements, formula, atoms",
        "Li-O, something": "no condition: write crystal or molecule",
        "LiMn3O4, atoms=5": "8 atoms a unit, which 5 atoms are not: leave the number",
        "LiMn3O4, units=2, atoms=8": "2 units were asked for",
        "LiMn3O4, Li-O": "leave the elements away",
        "units=2": "units need a formula",
        "Li-P-S, atoms=2": "2 atoms cannot hold 3 elements",
        "molecule, spacegroup=2": "a molecule has no space group",
        "molecule, cell=4/4/4/90/90/90": "a molecule has no cell",
        "crystal, molecule": "says domain twice",
        "atoms=4, num_atoms=5": "says num_atoms twice",
        "atoms=0": "num_atoms must be positive, got 0",
        "atoms=9-4": "must be \\(low, high\\)",
        "atoms=few": "a number \\(12\\), a range \\(4-12",
        "cell=1/2/3": "a/b/c/alpha/beta/gamma",
        "cell=4/4/4/10/90/170": "span no volume",
        "fixed=Na@0/0": "written Na@0/0.5/0.5",
        "crystal, fixed=Na@0/0/0": "need the cell",
        "NaCl, units=1, cell=4/4/4/90/90/90, fixed=Na@0/0/0;Na@0.5/0/0": "more Na than the formula",
        "Li-O, cell=4/4/4/90/90/90, fixed=Na@0/0/0": "hold Na, the elements do not",
        "Li0": "at least one atom",
        "band_gap=1.5x": "must be a number",
    }.items(),
)
def test_errors_say_what_is_known(text, said):
    with pytest.raises(ValueError, match=said):
        Condition.from_text(text)


def test_parts_of_the_wrong_type():
    for value in (True, 2.5, [True], {"a": 1}):
        with pytest.raises(TypeError, match="num_atoms must be a number"):
            Condition(num_atoms=value)
    with pytest.raises(ValueError, match="unknown condition 'chem_system', known: domain"):
        as_condition({"chem_system": "Li-O"})
    with pytest.raises(TypeError, match="a condition is text such as"):
        as_condition(5)
    with pytest.raises(FrozenInstanceError):
        Condition().domain = "crystal"


def test_short_forms_join_a_condition():
    joined = as_condition("Li-P-S", domain="crystal", num_atoms=(4, 12))
    assert joined == as_condition({"elements": "Li-P-S"}, domain="crystal", num_atoms="4-12")
    assert joined == Condition.from_text("crystal, Li-P-S, atoms=4-12")
    with pytest.raises(ValueError, match="'crystal' and domain='molecule' contradict"):
        as_condition("crystal", domain="molecule")
    assert as_condition("crystal", domain="crystal").domain == "crystal"
    both = as_condition("band_gap=1", properties={"alpha": "2-3"})
    assert both == Condition.from_text("alpha=2-3, band_gap=1")
    with pytest.raises(ValueError, match=r"'band_gap=1' and properties=.* contradict"):
        as_condition("band_gap=1", properties={"band_gap": 2})


def test_holds():
    rock_salt = AtomicSystem([11, 17], [[0, 0, 0], [2, 2, 2]], 4 * np.eye(3))
    asked = Condition.from_text(
        "crystal, atoms=2-4, NaCl, units=1, spacegroup=221, cell=4/4/4/90/90/90, fixed=Na@0/0/0"
    )
    assert asked.holds(rock_salt) == dict.fromkeys(asked.asked, True)
    assert Condition(elements="Na-Cl").holds(rock_salt) == {"elements": True}
    other = AtomicSystem([11, 17, 17], [[0.1, 0, 0], [2, 2, 2], [2, 0, 0]], 4.1 * np.eye(3))
    assert asked.holds(other) == {
        **dict.fromkeys(asked.asked, False),
        "domain": True,
        "num_atoms": True,
    }
    water = AtomicSystem([8, 1, 1], np.eye(3))
    assert not Condition(elements="O-H-C").holds(water)["elements"]
    assert Condition(properties={"band_gap": 1}).holds(water) == {}
    assert Condition.from_text("crystal, band_gap=1").holds(None) == {"domain": False}


def test_completing_a_structure():
    cell = np.array([[0.0, 4, 0], [-4, 0, 0], [0, 0, 5]])
    known = AtomicSystem([22, 8], [[0, 0, 0], [-2, 2, 2.5]], cell)
    condition = Condition.completing(known, {"Li": 2})
    assert str(condition) == (
        "crystal, Li2TiO, units=1, cell=0/4/0/-4/0/0/0/0/5, fixed=Ti@0/0/0;O@0.5/0.5/0.5"
    )
    assert Condition.from_text(str(condition)) == condition
    assert Condition.completing(known.to_atoms(), 3).num_atoms == 5


def test_a_property_may_be_named_like_a_key():
    asked = Condition(properties={"cell": 2, "units": (1, 3), "band_gap": 1})
    assert str(asked) == "band_gap=1, property:cell=2, property:units=1-3"
    assert Condition.from_text(str(asked)) == asked
