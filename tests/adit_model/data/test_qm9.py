from __future__ import annotations

import ast
import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from adit_model.data.dataset import AtomicDataset
from adit_model.data.qm9 import (
    PARTS,
    load_qm9,
    load_qm9_smiles,
    qm9_files,
    qm9_split,
    read_qm9_files,
)

HEADER = "XYZ_file,Index,SMILES,InChi,N_atoms,Elements,XYZ_Ang,Dipole_debye\n"
WATER = (
    '"dsgdb9nsd_000003.xyz",3,"O","InChI=1S/H2O/h1H2",3,"[\'O\',\'H\',\'H\']",'
    '"[[-0.0343604951,0.9775395708,0.0076015923],[0.0647664923,0.0205721989,0.0015346341],'
    '[0.8717903737,1.3007924048,6.931336e-4]]",1.8511\n'
)
AMMONIA = (
    "\"dsgdb9nsd_000002.xyz\",2,\"N\",\"InChI=1S/H3N/h1H3\",4,\"['N','H','H','H']\","
    '"[[-0.04,1.02,0.06],[0.01,0.01,-0.02],[0.91,1.35,-0.02],[-0.52,1.34,-0.77]]",1.6256\n'
)


@pytest.fixture(scope="module")
def qm9(qm9_cache: Path) -> AtomicDataset:
    return load_qm9("all", qm9_cache, progress=False)


@pytest.fixture
def small_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a qm9pack of three molecules, which cannot be imported, first on the path."""
    folder = tmp_path / "site" / "qm9pack"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for part, text in zip(PARTS, [WATER, AMMONIA, WATER], strict=True):
        (folder / "data" / part).write_text(HEADER + text)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.delitem(sys.modules, "qm9pack", raising=False)
    importlib.invalidate_caches()
    return folder / "data"


def test_holds_the_published_molecules(qm9: AtomicDataset) -> None:
    # Ramakrishnan et al. 2014: 133,885 molecules of up to nine C, O, N, F, of which 3,054 fail
    # the consistency check.
    assert len(qm9) == 133_885 - 3_054 == len(set(qm9.ids))
    assert set(np.unique(qm9.numbers)) == {1, 6, 7, 8, 9}
    heavy = np.add.reduceat((qm9.numbers > 1).astype(int), qm9.offsets[:-1])
    assert (heavy.min(), heavy.max(), qm9.sizes.max()) == (1, 9, 29)
    assert not qm9.periodic.any()
    methane = qm9[0]
    assert (methane.info["id"], methane.formula) == ("gdb_1", "CH4")
    bonds = np.linalg.norm(methane.positions[1:] - methane.positions[0], axis=1)
    np.testing.assert_allclose(bonds, 1.092, atol=0.001)
    assert qm9.ids[-1] == "gdb_133885"


def test_equals_the_text_read_row_by_row(qm9: AtomicDataset) -> None:
    import pandas as pd

    start = 0
    for path in qm9_files():
        table = pd.read_csv(path, nrows=40, usecols=["Index", "Elements", "XYZ_Ang"])
        for i, row in enumerate(table.itertuples(index=False)):
            system = qm9[start + i]
            assert system.info["id"] == f"gdb_{row.Index}"
            np.testing.assert_allclose(
                system.positions, ast.literal_eval(row.XYZ_Ang), rtol=0, atol=1e-6
            )
            symbols = [{1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}[z] for z in system.numbers]
            assert symbols == ast.literal_eval(row.Elements)
        with open(path) as file:
            start += sum(1 for _ in file) - 1
    assert start == len(qm9)


def test_smiles_belong_to_the_molecules(qm9: AtomicDataset, tmp_path: Path) -> None:
    from rdkit import Chem

    smiles = load_qm9_smiles("all", tmp_path)
    assert smiles[:3] == ["C", "N", "O"]
    assert len(smiles) == len(qm9)
    for i in np.random.default_rng(0).integers(len(qm9), size=100):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles[i]))
        assert sorted(a.GetAtomicNum() for a in mol.GetAtoms()) == sorted(qm9[int(i)].numbers)
    test = qm9_split("test")
    assert load_qm9_smiles("test", tmp_path) == [smiles[i] for i in test]


def test_splits_are_fixed_disjoint_and_complete() -> None:
    parts = {name: qm9_split(name) for name in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [100_000, 18_000, 12_831]
    together = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(together), qm9_split("all"))
    # Recorded once: the stream of RandomState is frozen (NEP 19), so the split must never move.
    assert parts["test"][:5].tolist() == [10, 13, 21, 30, 43]


def test_small_package_is_read_without_being_imported(small_package: Path, tmp_path: Path) -> None:
    data = load_qm9("all", tmp_path / "cache", progress=False)
    assert data.ids.tolist() == ["gdb_3", "gdb_2", "gdb_3"]
    assert data.sizes.tolist() == [3, 4, 3]
    assert data[0].positions[2, 2] == pytest.approx(6.931336e-4)
    # "N" is ammonia, not a missing value.
    assert load_qm9_smiles("all", tmp_path / "cache") == ["O", "N", "O"]
    with pytest.raises(ValueError, match="more than 118000 molecules, got 3"):
        load_qm9("train", tmp_path / "cache", progress=False)


def test_cache_is_used_until_the_source_changes(small_package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    load_qm9("all", cache, progress=False)
    (file,) = cache.glob("*.npz")
    AtomicDataset.load(file).subset([1]).save(file)
    assert load_qm9("all", cache, progress=False).ids.tolist() == ["gdb_2"]
    part = small_package / PARTS[1]
    part.write_text(HEADER + AMMONIA + WATER)
    assert len(load_qm9("all", cache, progress=False)) == 4


def test_damaged_cache_and_unwritable_cache_cost_only_time(
    small_package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    load_qm9("all", cache, progress=False)
    (file,) = cache.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert len(load_qm9("all", cache, progress=False)) == 3
    assert len(AtomicDataset.load(file)) == 3
    (tmp_path / "a file").write_text("")
    caplog.clear()
    assert len(load_qm9("all", tmp_path / "a file" / "sub", progress=False)) == 3
    assert "set ADIT_CACHE_DIR to a writable directory" in caplog.text


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qm9pack", None)
    with pytest.raises(ImportError, match=r"pip install 'adit-atomate\[data\]'"):
        load_qm9("train")


def test_incomplete_package_names_the_file(small_package: Path) -> None:
    os.remove(small_package / PARTS[2])
    with pytest.raises(ImportError, match=r"lacks \['qm9_part3.csv'\]"):
        load_qm9("all")


def test_unknown_split_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="train, val, test, all, got 'valid'"):
        load_qm9("valid")
    with pytest.raises(ValueError, match="got 'dev'"):
        load_qm9_smiles("dev")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("N_atoms,", "atoms,", r"lacks the columns \['N_atoms'\], it has"),
        (",3,\"['O'", ",4,\"['O'", "data row 1: the number of elements is not N_atoms"),
        ("'H','H'", "'H','X'", r"unknown: \['X'\]"),
        (",1.3007924048,", ",", "data row 1: the number of coordinates is not 3 x N_atoms"),
        ("0.9775395708", "0.97*^-3", "a coordinate is no number"),
        ("0.9775395708", "nan", "1 coordinates are not finite"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = HEADER + WATER
    assert old in text
    path = tmp_path / "part.csv"
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_qm9_files([path])
