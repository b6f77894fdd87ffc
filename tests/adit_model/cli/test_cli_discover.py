"""`adit discover`: from nothing to ranked CIF files, and on from where it was cut off."""

from __future__ import annotations

import csv
import importlib.util

import pytest
from ase.build import bulk
from pymatgen.core import Structure

from adit_model.cli.candidates import FOLDER, PICTURE, SUMMARY, TABLE
from adit_model.cli.discover import UNFINISHED
from adit_model.cli.main import main
from adit_model.prediction import discover
from adit_model.prediction.candidates import Candidate
from adit_model.systems import AtomicSystem

needs_chgnet = pytest.mark.skipif(importlib.util.find_spec("chgnet") is None, reason="needs chgnet")


def run(out, *more: str) -> int:
    sampling = ("--num-steps", "12", "--formula", "NaCl", "--num-atoms", "2", "--quiet")
    return main(["discover", "-n", "2", "--out", str(out), "--keep-known", *sampling, *more])


def read_table(folder):
    with open(folder / TABLE, newline="") as file:
        return list(csv.DictReader(file))


@needs_chgnet
def test_discover_ends_with_ranked_cif_files(tmp_path, capsys, monkeypatch):
    out = tmp_path / "found"
    place = discover._rank

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(discover, "_rank", fail)  # after the relaxations
    assert run(out) == 2
    assert "--resume goes on" in capsys.readouterr().err and (out / UNFINISHED).is_dir()
    monkeypatch.setattr(discover, "_rank", place)
    assert run(out) == 2 and "give --resume" in capsys.readouterr().err
    assert run(out, "--resume", "--seed", "1") == 2  # of another run
    assert "another request" in capsys.readouterr().err

    def again(*_, **__):
        raise AssertionError("it was done before")

    monkeypatch.setattr(discover, "stream_samples", again)
    monkeypatch.setattr("adit_model.quality.cells._cells", again)
    assert run(out, "--resume") == 0
    rows = read_table(out)
    ranked = [row for row in rows if row["rank"]]
    assert ranked and len(rows) <= 2
    assert float(ranked[0]["energy_above_hull"]) < 0.1
    scores = [float(row["energy_above_hull"]) for row in ranked]
    assert scores == sorted(scores)
    files = sorted((out / FOLDER).glob("*.cif"))
    assert (
        len(files) == len(ranked) and files[0].name == f"01_NaCl_sg{ranked[0]['space_group']}.cif"
    )
    assert Structure.from_file(files[0]).reduced_formula == "NaCl"
    assert (out / PICTURE).is_file() and not (out / UNFINISHED).exists()
    assert (out / SUMMARY).read_text() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--relax", "emt"), "chgnet, sevennet or none"),
        (("--resume",), "no unfinished run"),
        (("--condition", "molecule"), "molecule"),
        (("--hull", "absent.csv", "--relax", "none"), "absent.csv"),
        (("--hull", "mp"), "MP_API_KEY"),
        (("--keep", "0"), "--keep must be positive"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path, capsys, monkeypatch, options, problem):
    for name in ("MP_API_KEY", "PMG_MAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("adit_model.quality.force_fields.importlib.util.find_spec", bool)
    assert main(["discover", "-n", "2", "--out", str(tmp_path / "out"), *options]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_force_field_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("adit_model.quality.force_fields.importlib.util.find_spec", lambda _: None)
    assert main(["discover", "-n", "2", "--out", str(tmp_path / "out")]) == 2
    text = capsys.readouterr().err
    assert "pip install chgnet" in text and "--relax none" in text


@needs_chgnet
def test_without_a_hull_the_score_is_the_formation_energy():
    asked = discover.Search(None, "chgnet", hull=())
    crystal = AtomicSystem.from_atoms(bulk("NaCl", "rocksalt", a=5.64))
    find = discover.Find(Candidate(crystal, energy=-3.4))
    source = discover._rank([find], asked, discover.CellStore(), 1, False)
    assert find.energy_above_hull is None and "elements only" in source
    assert find.score == find.formation_energy and find.score < -0.5
