from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from adit_model.canonical import canonicalise
from adit_model.data.cif import read_cif
from adit_model.data.crystal_csv import load_crystal_csv, load_crystal_table
from adit_model.data.dataset import AtomicDataset

ROCKSALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
IRON = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
MIXED = Structure(Lattice.cubic(3.0), [{"Fe": 0.5, "Na": 0.5}], [[0, 0, 0]])


def write_csv(path: Path, rows: list[tuple], columns: str = "material_id,cif,band_gap") -> Path:
    import pandas as pd

    pd.DataFrame(rows, columns=columns.split(",")).to_csv(path, index=False)
    return path


@pytest.fixture
def rows() -> list[tuple]:
    return [
        ("mp-1", str(CifWriter(ROCKSALT)), 5.0),
        ("mp-bad", "data_nonsense", 1.0),
        ("007", str(CifWriter(IRON)), 0.0),
        ("mp-mixed", str(CifWriter(MIXED)), 0.0),
        ("mp-empty", None, 0.0),
    ]


@pytest.mark.parametrize("name", ["set.csv", "set.csv.gz"])
def test_good_rows_load_and_bad_rows_are_reported(
    tmp_path: Path, rows: list[tuple], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_csv(tmp_path / name, rows)
    with caplog.at_level(logging.WARNING):
        data = load_crystal_csv(path, progress=False)
    assert data.name == "set"
    assert data.ids.tolist() == ["mp-1", "007"]
    assert data.sizes.tolist() == [2, 1]  # of the primitive cells
    assert data.periodic.all()
    assert data[1].to_structure().matches(IRON)
    assert [name for name, _ in data.skipped] == ["mp-bad", "mp-mixed", "mp-empty"]
    reasons = dict(data.skipped)
    assert "the CIF lists no atoms" in reasons["mp-bad"]
    assert "disordered" in reasons["mp-mixed"]
    assert reasons["mp-empty"] == "the column of structures is empty"
    (record,) = caplog.records
    assert "3 of 5 entries could not be read" in record.message
    # The cache knows what was skipped, and says so again, once.
    caplog.clear()
    again = load_crystal_csv(path, progress=False)
    assert again.skipped == data.skipped
    assert len(caplog.records) == 1


def test_crystals_are_in_canonical_form(tmp_path: Path, rows: list[tuple]) -> None:
    data = load_crystal_csv(write_csv(tmp_path / "x.csv", rows), progress=False)
    system = canonicalise(read_cif(rows[0][1])).system
    np.testing.assert_allclose(data[0].cell, system.cell, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(data[0].positions, system.positions, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(data[0].numbers, system.numbers)


def test_processes_give_the_same_as_one(tmp_path: Path, rows: list[tuple]) -> None:
    path = write_csv(tmp_path / "x.csv", rows * 40)
    one = load_crystal_csv(path, tmp_path / "one", workers=1, progress=False)
    two = load_crystal_csv(path, tmp_path / "two", workers=2, progress=False)
    for key in ("numbers", "positions", "cells", "sizes", "ids"):
        np.testing.assert_array_equal(getattr(one, key), getattr(two, key))
    assert one.skipped == two.skipped


def test_cache_is_keyed_by_content(tmp_path: Path, rows: list[tuple]) -> None:
    cache = tmp_path / "cache"
    path = write_csv(tmp_path / "x.csv", rows)
    load_crystal_csv(path, cache, progress=False)
    (file,) = cache.glob("*.npz")
    AtomicDataset.load(file).subset([1]).save(file)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(path.read_bytes())
    cached = load_crystal_csv(copy, cache, progress=False)
    assert (cached.ids.tolist(), cached.name) == (["007"], "copy")
    write_csv(path, rows[:1])
    assert load_crystal_csv(path, cache, progress=False).ids.tolist() == ["mp-1"]


def test_larger_crystals_are_left_out_and_listed(tmp_path: Path, rows: list[tuple]) -> None:
    path = write_csv(tmp_path / "x.csv", [rows[0], rows[2]])
    data = load_crystal_csv(path, max_atoms=1, progress=False)
    assert data.ids.tolist() == ["007"]
    assert data.skipped == [("mp-1", "2 atoms, more than max_atoms=1")]
    # The limit is no part of the cache.
    assert len(load_crystal_csv(path, progress=False)) == 2
    with pytest.raises(ValueError, match="no system of at most 1 atoms, the smallest has 2"):
        load_crystal_csv(write_csv(path, rows[:1]), max_atoms=1, progress=False)


def test_properties_are_read_beside(tmp_path: Path, rows: list[tuple]) -> None:
    table = load_crystal_table(write_csv(tmp_path / "x.csv", rows))
    assert table.columns.tolist() == ["band_gap"]
    assert table.index.tolist() == ["mp-1", "mp-bad", "007", "mp-mixed", "mp-empty"]
    assert table.loc["mp-1", "band_gap"] == 5.0


def test_index_column_and_missing_ids_as_in_published_files(
    tmp_path: Path, rows: list[tuple]
) -> None:
    text = rows[0][1]
    path = tmp_path / "x.csv"
    path.write_text(f'Unnamed: 0,material_id,cif\n0,,"{text}"\n1,18517,"{text}"\n')
    assert load_crystal_csv(path, progress=False).ids.tolist() == ["row-1", "18517"]
    assert load_crystal_table(path).columns.tolist() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.csv is empty"),
        (b"material_id,cif\n", "has a header and no rows"),
        (b"material_id;gap\na;1\n", r"lacks a column of structures .*'gap'\] \(separator ';'\)"),
        (b"material_id,cif\nmp-1,nothing\n", "holds no system; 1 skipped, the first, mp-1: "),
        (b"material_id,cif\n\xff\xfe,1\n", "no readable CSV file"),
        (b'material_id,cif\n"a,b\n', "no readable CSV file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_crystal_csv(path, progress=False)


def test_missing_and_broken_files_are_named(tmp_path: Path, rows: list[tuple]) -> None:
    with pytest.raises(FileNotFoundError, match=r"no CSV file .*absent\.csv"):
        load_crystal_csv(tmp_path / "absent.csv")
    path = write_csv(tmp_path / "x.csv.gz", rows)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"x\.csv\.gz (is no readable|has .* not unpacked)"):
        load_crystal_csv(path, progress=False)
    path.write_text("material_id,cif\n")
    with pytest.raises(ValueError, match=r"x\.csv\.gz (is no readable|has .* not unpacked)"):
        load_crystal_table(path)
    with gzip.open(path, "wt") as file:
        file.write("")
    with pytest.raises(ValueError, match="is empty"):
        load_crystal_table(path)


@pytest.mark.parametrize("option", ["max_atoms", "workers"])
def test_numbers_must_be_positive(tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be a positive integer, got 0"):
        load_crystal_csv(tmp_path / "x.csv", **{option: 0})


@pytest.mark.data
def test_real_file_is_read_whole(data_dir: Path) -> None:
    path = data_dir / "crystals_val.csv.gz"
    data = load_crystal_csv(path, progress=False)
    table = load_crystal_table(path)
    assert data.skipped == []
    assert data.ids.tolist() == table.index.tolist()
    smaller = data.sizes < table["nsites"].to_numpy()  # not primitive in the file
    assert 0 < smaller.sum() < 0.01 * len(data)
    assert (table["nsites"].to_numpy() % data.sizes == 0).all()
    from pymatgen.core import Composition

    for i in range(0, len(data), 50):
        formula = Composition(table["formula"].iloc[i]).reduced_formula
        assert data[i].to_structure().composition.reduced_formula == formula
