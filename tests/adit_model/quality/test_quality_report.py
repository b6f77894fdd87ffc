import json
from dataclasses import dataclass

import ase.build
import numpy as np
import pytest

from adit_model.quality.training_tables import (
    evaluate_reconstruction,
    evaluate_samples,
    format_reconstruction,
    format_table,
)
from adit_model.systems import AtomicSystem


@dataclass(frozen=True)
class Drawn:
    """What ``evaluate_samples`` reads of a sample."""

    system: AtomicSystem | None
    domain: str
    num_atoms: int


def rock_salt(cation, anion, length, repeat=1):
    atoms = ase.build.bulk(f"{cation}{anion}", "rocksalt", a=length).repeat((repeat, 1, 1))
    return AtomicSystem.from_atoms(atoms)


def molecule(name):
    return AtomicSystem.from_atoms(ase.build.molecule(name))


@pytest.fixture(scope="module")
def report():
    nacl = rock_salt("Na", "Cl", 5.64)
    close = AtomicSystem(nacl.numbers, nacl.positions * 0.15, nacl.cell * 0.15)
    samples = [
        nacl,
        rock_salt("Na", "Cl", 5.7, repeat=3),  # the same crystal, six atoms
        rock_salt("Mg", "O", 4.21),
        rock_salt("Ba", "F", 5.9),  # refused by SMACT
        close,
        Drawn(None, "crystal", 19),
        Drawn(rock_salt("K", "Br", 6.6, repeat=13), "crystal", 26),
        molecule("C6H6"),
        Drawn(molecule("C6H6"), "molecule", 12),
        molecule("H2O"),
        AtomicSystem(np.array([8, 1, 1]), 3 * molecule("H2O").positions),
    ]
    return evaluate_samples(
        samples,
        reference_crystals=[rock_salt("Mg", "O", 4.3)],
        reference_smiles={"O"},
    )


def test_molecules_are_counted(report):
    assert report["molecules"] == {
        "count": 4,
        "valid": 3,
        "closed_shell": 3,
        "unique": 2,
        "novel": 2,
        "vun": 1,
        "timed_out": 0,
    }


def test_crystals_are_counted(report):
    crystals = dict(report["crystals"])
    by_num_atoms = crystals.pop("by_num_atoms")
    assert crystals == {
        "count": 7,
        "structural": 5,
        "compositional": 5,
        "valid": 4,
        "unique": 3,
        "novel": 3,
        "vun": 2,
        "timed_out": 0,
    }
    assert {label: (c["count"], c["valid"]) for label, c in by_num_atoms.items()} == {
        "1-4": (4, 2),
        "5-8": (1, 1),
        "9-12": (0, 0),
        "13-16": (0, 0),
        "17-20": (1, 0),
        "21-26": (1, 1),
    }


def test_reports_are_plain_json(report):
    assert json.loads(json.dumps(report)) == report


def test_the_table_shows_shares_and_counts(report):
    lines = format_table({"model": report, "other": {"molecules": report["molecules"]}})
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines.splitlines()}
    cells = {label: [value.strip() for value in values] for label, values in rows.items()}
    assert cells[""] == ["model", "other"]
    assert cells["valid and connected"] == ["75.0 % (3/4)"] * 2
    assert cells["closed shell, uncharged (of valid)"] == ["100.0 % (3/3)"] * 2
    assert cells["both"] == ["57.1 % (4/7)", "-"]
    assert cells["both, 5-8 atoms"] == ["100.0 % (1/1)", "-"]
    assert cells["both, 9-12 atoms"] == ["-", "-"]
    assert "no answer in time (counted invalid)" not in cells
    assert len({line.count("|") for line in lines.splitlines()}) == 1


def test_novelty_without_reference_is_unknown():
    report = evaluate_samples([molecule("H2O")])
    assert report == {
        "molecules": {
            "count": 1,
            "valid": 1,
            "closed_shell": 1,
            "unique": 1,
            "novel": None,
            "vun": None,
            "timed_out": 0,
        }
    }
    assert "| novel (of valid) | - |" in format_table({"model": report})


def test_answers_out_of_time_appear_in_the_table():
    water = molecule("H2O")  # 2,000 of them take RDKit about a second
    places = 5.0 * np.arange(2000)[:, None, None] * np.array([1.0, 0.0, 0.0])
    many = AtomicSystem(np.tile(water.numbers, 2000), (water.positions + places).reshape(-1, 3))
    report = evaluate_samples([many], time_limit=0.01)
    assert report["molecules"]["timed_out"] == 1
    assert "| no answer in time (counted invalid) | 1 |" in format_table({"model": report})


def test_empty_and_foreign_input_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        evaluate_samples([])
    with pytest.raises(TypeError, match=r"got builtins\.str"):
        evaluate_samples(["NaCl"])
    with pytest.raises(ValueError, match="no reports"):
        format_table({})


def test_reconstruction_of_both_domains():
    nacl, benzene, water = rock_salt("Na", "Cl", 5.64), molecule("C6H6"), molecule("H2O")
    kcl = AtomicSystem(np.where(nacl.numbers == 11, 19, 17), nacl.positions, nacl.cell)
    turned = AtomicSystem(benzene.numbers, benzene.positions[:, [2, 0, 1]] + 1.0)
    bent = AtomicSystem(water.numbers, water.positions * 1.1)
    result = evaluate_reconstruction(
        [nacl, benzene, nacl, water, nacl, nacl], [nacl, turned, kcl, bent, None, nacl]
    )
    spread = water.positions - water.positions.mean(axis=0)
    stretch = 0.1 * np.sqrt((spread**2).sum(axis=1).mean())
    assert result["molecules"] == {
        "count": 2,
        "element_accuracy": 1.0,
        "rmsd_mean": pytest.approx(stretch / 2),
        "rmsd_median": pytest.approx(stretch / 2),
    }
    assert result["crystals"] == {
        "count": 4,
        "element_accuracy": 5 / 8,
        "match_rate": 0.5,
        "rmse": pytest.approx(0, abs=1e-6),
    }
    table = format_reconstruction(result)
    assert "| element accuracy | 62.50 % |" in table
    assert "| StructureMatcher match rate | 50.00 % |" in table
    assert f"| RMSD, mean | {stretch / 2:.4f} angstrom |" in table


def test_a_reconstruction_with_nothing_decoded():
    result = evaluate_reconstruction([rock_salt("Na", "Cl", 5.64)], [None])
    assert result == {
        "crystals": {"count": 1, "element_accuracy": 0.0, "match_rate": 0.0, "rmse": None}
    }
    assert "(volume/atoms)^(1/3) | - |" in format_reconstruction(result)
    with pytest.raises(ValueError, match="got 0 for 1"):
        evaluate_reconstruction([molecule("H2O")], [])
