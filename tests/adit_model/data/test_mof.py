from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from adit_model.canonical import canonicalise
from adit_model.data import json_files
from adit_model.data.json_files import iterate_json_list
from adit_model.data.mof import load_qmof
from adit_model.systems import AtomicSystem

SMALL = Structure(
    Lattice.from_parameters(6, 7, 8, 85, 95, 100),
    ["Zn", "O", "C"],
    [[0, 0, 0], [0.3] * 3, [0.6] * 3],
)
LARGE = (SMALL * (4, 4, 4)).perturb(0.1)


def cif_with_charges(structure: Structure) -> str:
    """Write a CIF as in the database: site properties as more columns of the atom loop."""
    lines = []
    for line in str(CifWriter(structure)).splitlines():
        atom = len(line.split()) == 7 and line.split()[-1] == "1"
        lines.append(f"{line}  0.91  0.0" if atom else line)
        if line.strip() == "_atom_site_occupancy":
            lines += [" _atom_site_pbe_ddec_charge", " _atom_site_pbe_magmom"]
    return "\n".join(lines) + "\n"


def entry(qmof_id: str, structure: Structure) -> dict:
    """Build an entry of ``qmof_structure_data.json``."""
    structure = structure.copy()
    structure.add_site_property("pbe_ddec_charge", [0.5] * len(structure))
    return {"qmof_id": qmof_id, "name": "ABACUF01_FSR", "structure": structure.as_dict()}


def assert_is_small(system) -> None:
    expected = canonicalise(AtomicSystem.from_structure(SMALL)).system
    np.testing.assert_array_equal(system.numbers, expected.numbers)
    np.testing.assert_allclose(system.positions, expected.positions, atol=1e-5)
    assert system.volume == pytest.approx(SMALL.volume, rel=1e-5)


def test_archive_is_read_without_being_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "relaxed_structures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("relaxed_structures/qmof-2.cif", cif_with_charges(SMALL))
        archive.writestr("relaxed_structures/qmof-1.cif", cif_with_charges(LARGE))
        archive.writestr("relaxed_structures/qmof-3.cif", "data_broken")
        archive.writestr("README.txt", "text")
    data = load_qmof(path, progress=False)
    assert data.ids.tolist() == ["qmof-2"]
    assert_is_small(data[0])
    assert [name for name, _ in data.skipped] == ["qmof-3", "qmof-1"]
    assert dict(data.skipped)["qmof-1"] == "192 atoms, more than max_atoms=150"
    assert load_qmof(path, max_atoms=None, progress=False).sizes.tolist() == [192, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["relaxed_structures.zip"]


def test_folder_of_files_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "qmof-2.cif").write_text(cif_with_charges(SMALL))
    data = load_qmof(tmp_path, progress=False)
    assert data.ids.tolist() == ["qmof-2"]
    assert_is_small(data[0])


@pytest.mark.parametrize("name", ["qmof_structure_data.json", "qmof_structure_data.json.gz"])
def test_structure_data_gives_the_same(tmp_path: Path, name: str) -> None:
    entries = [entry("qmof-2", SMALL), {"qmof_id": "qmof-4"}, "text", entry("qmof-1", LARGE)]
    text = json.dumps(entries).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    data = load_qmof(path, progress=False)
    assert data.ids.tolist() == ["qmof-2"]
    assert_is_small(data[0])
    assert [name for name, _ in data.skipped] == ["qmof-4", "2", "qmof-1"]


def test_nested_archives_of_the_whole_record_are_opened(tmp_path: Path) -> None:
    content = cif_with_charges(SMALL).encode()
    for name in ("qmof-2.cif", "qmof_database/relaxed_structures.zip", "qmof_database.zip"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name, content)
            archive.writestr("README.txt", "text")
        content = packed.getvalue()
    path = tmp_path / "figshare.zip"
    path.write_bytes(content)
    data = load_qmof(path, progress=False)
    assert data.ids.tolist() == ["qmof-2"]
    assert_is_small(data[0])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vasp_files.zip", b"")
    with pytest.raises(ValueError, match=r"holds no CIF files but \['vasp_files.zip'\]"):
        load_qmof(path, progress=False)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load_qmof(tmp_path / "absent")
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(ValueError, match="no zip archive of CIF files and no JSON file of QMOF"):
        load_qmof(tmp_path / "x.txt")
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="a: holds no structure but int"):
        load_qmof(tmp_path / "x.json", progress=False)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.lists(values, max_size=6), st.sampled_from([None, 2]), st.integers(1, 9))
def test_long_list_is_decoded_entry_by_entry(entries, indent, characters) -> None:
    original = json_files._READ_CHARACTERS
    json_files._READ_CHARACTERS = characters  # cut anywhere, also inside numbers and strings
    try:
        text = io.StringIO(json.dumps(entries, indent=indent))
        assert list(iterate_json_list(text, "x")) == entries
    finally:
        json_files._READ_CHARACTERS = original


@pytest.mark.parametrize("text", ["[1, 2", '[{"a": 1}', '[{"a": ', "[", "[1, x]"])
def test_list_that_does_not_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="x is no complete JSON list"):
        list(iterate_json_list(io.StringIO(text), "x"))
