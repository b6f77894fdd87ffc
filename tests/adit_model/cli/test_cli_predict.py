"""`adit predict` and `adit complete`: files, the table, and errors before any work."""

from __future__ import annotations

import csv
import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Structure

from adit_model.cli.candidates import FOLDER, SUMMARY, TABLE
from adit_model.cli.main import main
from adit_model.quality.records import SETTINGS, STRUCTURES


def run(command: str, checkpoint, out, *more: str) -> int:
    options = ("--checkpoint", str(checkpoint), "--out", str(out), "--quiet")
    return main([command, *more, *options])


def read_table(folder):
    with open(folder / TABLE, newline="") as file:
        return list(csv.DictReader(file))


def test_predict_writes_candidates_beside_known_crystals(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ("ZnS", "--candidates", "3", "--relax", "none", "--known", "2")
    assert run("predict", tiny_checkpoint, out, *asked) == 0
    rows = read_table(out)
    known = [row for row in rows if not row["rank"]]
    assert [row["formula"] for row in known] == ["ZnS"] * 2
    files = [*(out / FOLDER).glob("*.cif"), *(out / "known").glob("*.cif")]
    assert len(files) == len(rows) == len(ase.io.read(out / STRUCTURES, ":"))
    assert Structure.from_file(sorted((out / "known").glob("*.cif"))[0]).reduced_formula == "ZnS"
    settings = json.loads((out / SETTINGS).read_text())
    assert settings["engine"] == "none" and len(settings["dropped"]) + len(rows) - 2 <= 3
    printed = capsys.readouterr().out
    assert (out / SUMMARY).read_text() in printed
    assert run("predict", tiny_checkpoint, out, *asked) == 2  # the folder is not empty
    assert "is not empty" in capsys.readouterr().err


def test_complete_keeps_the_host_of_the_file(tiny_checkpoint, tmp_path):
    host = bulk("Na", "fcc", a=5.64, cubic=True)[[1, 0, 3, 2]]
    ase.io.write(tmp_path / "POSCAR", host, format="vasp")
    out = tmp_path / "out"
    asked = (str(tmp_path / "POSCAR"), "--add", "Cl4", "--candidates", "8")
    assert run("complete", tiny_checkpoint, out, *asked) == 0
    settings = json.loads((out / SETTINGS).read_text())
    assert settings["add"] == {"Cl": 4} and settings["request"]["n"] == 8
    rows = read_table(out)
    assert len(settings["dropped"]) + sum(int(row["samples"]) for row in rows) == 8
    for atoms in ase.io.read(out / STRUCTURES, ":") if rows else []:
        assert np.abs(atoms.positions[:4] - host.positions).max() < 1e-6


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (("predict", "NaCl7Xx"), "'Xx' is no element"),
        (("predict", "Na9Cl9"), "18 atoms a unit"),
        (("predict", "NaCl", "--relax", "xtb"), "crystals are relaxed by chgnet or sevennet"),
        (("predict", "NaCl", "--candidates", "0"), "must be a positive integer"),
        (("complete", "absent.cif", "--add", "Li"), "absent.cif"),
    ],
)
def test_mistakes_are_told_before_any_work(tiny_checkpoint, tmp_path, capsys, command, problem):
    name, *arguments = command
    assert run(name, tiny_checkpoint, tmp_path / "out", *arguments) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
