from dataclasses import dataclass, field

import ase.build
import numpy as np
import pytest

from adit_model.conditions.condition import Condition
from adit_model.quality.conditions import held
from adit_model.quality.entries import Entry, make_entries, sample_entries
from adit_model.quality.reconstruction import evaluate_reconstruction
from adit_model.quality.rows import Options
from adit_model.quality.run import score
from adit_model.quality.table import TABLE_MEASURES, quality_lines
from adit_model.systems import AtomicSystem


@dataclass(frozen=True)
class Drawn:
    """What is read of a sample."""

    index: int
    system: AtomicSystem | None
    domain: str
    num_atoms: int
    fault: str | None = None
    holds: dict[str, bool] = field(default_factory=dict)
    condition: Condition = field(default_factory=Condition)


def rock_salt(cation, anion, length, repeat=1):
    atoms = ase.build.bulk(f"{cation}{anion}", "rocksalt", a=length).repeat((repeat, 1, 1))
    return AtomicSystem.from_atoms(atoms)


def molecule(name):
    return AtomicSystem.from_atoms(ase.build.molecule(name))


@pytest.fixture(scope="module")
def summary():
    nacl = rock_salt("Na", "Cl", 5.64)
    systems = [
        nacl,
        rock_salt("Na", "Cl", 5.7, repeat=3),  # the same crystal, six atoms
        rock_salt("Mg", "O", 4.21),
        rock_salt("Ba", "F", 5.9),  # refused by SMACT
        AtomicSystem(nacl.numbers, nacl.positions * 0.15, nacl.cell * 0.15),
        None,
        rock_salt("K", "Br", 6.6, repeat=13),
        molecule("C6H6"),
        molecule("C6H6"),
        molecule("H2O"),
        AtomicSystem(np.array([8, 1, 1]), 3 * molecule("H2O").positions),
    ]
    samples = [
        Drawn(i, system, "crystal" if system is None else system.domain,
              19 if system is None else len(system), None if system else "no cell")
        for i, system in enumerate(systems)
    ]  # fmt: skip
    return score(sample_entries(samples), Options(measures=TABLE_MEASURES)).summary


def test_crystals_and_molecules_are_counted(summary):
    crystals, molecules = summary["crystals"], summary["molecules"]
    assert (crystals["count"], crystals["decoded"], molecules["count"]) == (7, 6, 4)
    passed = {name: rate and rate["passed"] for name, rate in crystals["rates"].items()}
    assert [passed[name] for name in ("structural", "compositional", "valid")] == [5, 5, 4]
    assert (passed["unique"], passed["novel"], passed["vun"]) == (3, None, None)
    assert passed["separated"] == 5 and passed["triclinic"] == 0
    passed = {name: rate and rate["passed"] for name, rate in molecules["rates"].items()}
    assert (passed["valid"], passed["closed_shell"], passed["unique"]) == (3, 3, 2)
    assert {
        label: (group["count"], (group["rates"]["valid"] or {}).get("passed"))
        for label, group in crystals["by_num_atoms"].items()
    } == {"1-4": (4, 2), "5-8": (1, 1), "9-12": (0, None), "13-16": (0, None), "17-20": (1, 0),
          "21-26": (1, 1)}  # fmt: skip


def test_the_table_has_shares_intervals_and_the_real_beside_the_generated(summary):
    real = score(make_entries([molecule("H2O")] * 2), Options(measures=TABLE_MEASURES)).summary
    found = evaluate_reconstruction([rock_salt("Na", "Cl", 5.64)], [rock_salt("Na", "Cl", 5.7)])
    lines = quality_lines({"generated": summary, "real": real}, found)
    assert "|  | generated | 95 % | what passes |" in lines  # no real crystals here
    assert "|  | generated | 95 % | real | 95 % | what passes |" in lines
    rows = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert (
        "75.0 % (3/4) | 30-95 | 100.0 % (2/2) | 34-100" in rows["valid (RDKit bonds, one fragment)"]
    )
    assert "57.1 % (4/7) | 25-84" in rows["valid (both)"]
    assert rows["21-26"] == "| 21-26 | 100.0 % (1/1) | 21-100 |"
    assert "13-16" not in rows and "novel (of valid)" not in rows
    assert (
        "| 100.0 % (1/1) |"
        in rows["same crystal, loose matcher (ltol 0.3, stol 0.5, 10 degrees, volumes scaled)"]
    )
    assert rows["volume error (%)"] == "| volume error (%) | 3.23 | 3.23 |"
    assert "## Reconstruction of 1 held-out crystals" in lines


def test_checks_out_of_time_do_not_pass_and_are_told():
    water = molecule("H2O")  # 2,000 of them take RDKit about a second
    places = 5.0 * np.arange(2000)[:, None, None] * np.array([1.0, 0.0, 0.0])
    many = AtomicSystem(np.tile(water.numbers, 2000), (water.positions + places).reshape(-1, 3))
    options = Options(measures=TABLE_MEASURES, time_limit=0.01)
    molecules = score(make_entries([many]), options).summary["molecules"]
    assert molecules["rates"]["valid"]["passed"] == 0
    assert molecules["failed"]["bonded"]["first"] == "failed: no result within 0.01 s"


def test_what_was_asked_is_counted_by_name():
    rows = [{"holds": {"elements": True, "space_group": False}}, {"holds": {"elements": True}}]
    found = held([*rows, {"holds": {}}])
    assert found["elements"] == {"passed": 2, "of": 2, "share": 1.0}
    assert found["space_group"] == {"passed": 0, "of": 1, "share": 0.0}
    assert found["all"] == {"passed": 1, "of": 2, "share": 0.5}
    assert held([{"holds": {}}]) == {}
    system = molecule("H2O")
    entries = [Entry("0", "molecule", 3, "H2O", system, None, {"elements": True})]
    summary = score(entries, Options(measures=())).summary
    lines = quality_lines({"generated": summary})
    assert "| elements | 100.0 % (1/1) | 21-100 |" in lines
