from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgpack
import pytest
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from adit_model.data.dataset import AtomicDataset
from adit_model.data.sources import load_source
from adit_model.data.structures import load_structures

IRON = str(CifWriter(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make one file of every kind, each of known content."""
    (tmp_path / "set.csv").write_text(f'material_id,cif\nmp-13,"{IRON}"\n')
    (tmp_path / "set.txt").write_text(f'material_id,cif\nmp-14,"{IRON}"\n')
    load_structures([molecule("H2O")], progress=False).save(tmp_path / "set.npz")
    with connect(tmp_path / "set.db") as database:
        database.write(bulk("Cu"), name="copper")
    write(tmp_path / "set.extxyz", [bulk("Al"), bulk("Ag")])
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "iron.cif").write_text(IRON)
    water = molecule("H2O")
    rows = [
        [float(z), *xyz] for z, xyz in zip(water.numbers, water.positions.tolist(), strict=True)
    ]
    record = {"O": {"conformers": [{"geom_id": 7, "totalenergy": -5.0, "xyz": rows}]}}
    (tmp_path / "set.msgpack").write_bytes(msgpack.packb(record))
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "ids"),
    [
        ("{}/set.csv", ["mp-13"]),
        ("csv:{}/set.txt", ["mp-14"]),
        ("{}/set.npz", ["0"]),
        ("npz:{}/set.npz", ["0"]),
        ("{}/set.db", ["copper"]),
        ("db:{}/set.db", ["copper"]),
        ("{}/set.extxyz", ["set", "set#1"]),
        ("{}/cifs/", ["iron"]),
        ("{}/cifs/iron.cif", ["iron"]),
        ("qmof:{}/cifs", ["iron"]),
        ("{}/set.msgpack", ["geom_7"]),
        ("geom:{}/set.msgpack", ["geom_7"]),
    ],
)
def test_each_name_goes_to_its_reader(folder: Path, spec: str, ids: list[str]) -> None:
    data = load_source(spec.format(folder), cache_dir=folder / "cache", progress=False)
    assert data.ids.tolist() == ids


def test_limit_holds_for_every_source(folder: Path) -> None:
    with pytest.raises(ValueError, match="at most 1 atoms, the smallest has 3"):
        load_source(f"{folder}/set.npz", max_atoms=1)
    with pytest.raises(ValueError, match="3 atoms, more than max_atoms=1"):
        load_source(f"{folder}/set.msgpack", max_atoms=1, progress=False)
    with pytest.raises(ValueError, match="max_atoms must be a positive integer, got 0"):
        load_source("qm9", max_atoms=0)


def test_qm9_is_known_by_name(qm9_cache: Path) -> None:
    data = load_source("qm9:test", cache_dir=qm9_cache, max_atoms=9, progress=False)
    assert data.name == "QM9 test"
    assert 0 < len(data) < 12_831
    assert len(data) + len(data.skipped) == 12_831
    assert data.sizes.max() <= 9


@pytest.mark.parametrize("spec", ["qm9:dev", "mp21", "x.parquet", "csv:", "", "ftp:x"])
def test_unknown_names_list_the_known(clean_dir: Path, spec: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)unknown data source .*no file or folder.*qm9:train"):
        load_source(spec)


def test_known_format_of_a_missing_file(clean_dir: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no CSV file absent\.csv"):
        load_source("absent.csv")
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        load_source("absent.npz")
    Path("notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"unknown data source 'notes.txt'\. Known are"):
        load_source("notes.txt")


def test_own_folder_goes_before_a_download(clean_dir: Path) -> None:
    Path("mp20").mkdir()
    Path("mp20/iron.cif").write_text(IRON)
    assert load_source("mp20", progress=False).ids.tolist() == ["iron"]


def test_saved_file_is_the_same_data(folder: Path) -> None:
    data = load_source(f"{folder}/set.extxyz", progress=False)
    data.save(folder / "copy.npz")
    copy = load_source(f"{folder}/copy.npz")
    assert isinstance(copy, AtomicDataset)
    assert copy.positions.tolist() == data.positions.tolist()
    assert copy.name == data.name


def test_import_stays_cheap() -> None:
    code = (
        "import sys, adit_model.data; "
        "heavy = {'torch', 'pymatgen', 'ase', 'rdkit', 'pandas', 'requests', 'qm9pack'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
