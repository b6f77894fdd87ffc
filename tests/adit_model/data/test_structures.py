from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.db import connect
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.io.cif import CifWriter

from adit_model.canonical import canonicalise
from adit_model.data.json_files import system_from_structure_dict
from adit_model.data.structures import load_structures
from adit_model.geometry import cell_to_parameters
from adit_model.systems import AtomicSystem

SALT = bulk("NaCl", "rocksalt", a=5.64)
WATER = molecule("H2O")
SLAB = fcc111("Al", (1, 1, 2), vacuum=5.0)  # periodic in two directions


def load(source, **options):
    return load_structures(source, progress=False, **options)


def assert_canonical(system: AtomicSystem, atoms: Atoms) -> None:
    expected = canonicalise(AtomicSystem.from_atoms(atoms)).system
    np.testing.assert_array_equal(system.numbers, expected.numbers)
    np.testing.assert_allclose(system.positions, expected.positions, atol=1e-5)
    assert system.is_periodic == expected.is_periodic
    if system.cell is not None:
        np.testing.assert_allclose(system.cell, expected.cell, atol=1e-5)


def test_objects_of_all_kinds_load_and_bad_ones_are_reported() -> None:
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles("CO"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    mixed = Structure(Lattice.cubic(3.0), [{"Fe": 0.5, "Na": 0.5}], [[0, 0, 0]])
    named = SALT.copy()
    named.info["material_id"] = "mp-22862"
    data = load(
        [
            AtomicSystem(np.array([2]), np.zeros((1, 3)), None, {"id": "helium"}),
            named,
            SLAB,
            Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]),
            mixed,
            Molecule(["O", "H"], [[0, 0, 0], [0, 0, 0.97]]),
            mol,
            "no structure",
        ]
    )
    assert data.ids.tolist() == ["helium", "mp-22862", "3", "5", "6"]
    assert data.periodic.tolist() == [False, True, True, False, False]
    assert data.sizes.tolist() == [1, 2, 1, 2, 6]
    reasons = dict(data.skipped)
    assert list(reasons) == ["2", "4", "7"]
    assert "got [True, True, False]" in reasons["2"]
    assert "disordered" in reasons["4"]
    assert "got builtins.str" in reasons["7"]


def test_generators_and_limits() -> None:
    metals = (bulk(name) for name in ("Mg", "Cu"))
    data = load(metals, name="metals", max_atoms=1)
    assert (data.name, data.ids.tolist()) == ("metals", ["1"])
    assert data.skipped == [("0", "2 atoms, more than max_atoms=1")]


def test_nothing_to_load_is_an_error_with_the_first_reason() -> None:
    with pytest.raises(ValueError, match=r"structures holds no system; 1 skipped, the first, 0: "):
        load([SLAB])
    with pytest.raises(ValueError, match=r"structures holds no system$"):
        load([])


def test_ase_database(tmp_path: Path) -> None:
    path = tmp_path / "calc.db"
    with connect(path) as database:
        database.write(SALT, material_id="mp-22862")
        database.write(SLAB)
        database.write(WATER)
    data = load(str(path))
    assert data.ids.tolist() == ["mp-22862", "3"]
    assert_canonical(data[0], SALT)
    assert_canonical(data[1], WATER)
    assert [name for name, _ in data.skipped] == ["2"]


def test_file_that_is_no_database_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("text")
    with pytest.raises(ValueError, match="no ASE database: it is not an SQLite file"):
        load(path)
    path.write_bytes(b"SQLite format 3\x00" + b"\x01" * 200)
    with pytest.raises(ValueError, match="no readable ASE database"):
        load(path)


@given(st.lists(st.sampled_from(["salt", "water", "iron"]), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_extended_xyz_round_trip(tmp_path_factory: pytest.TempPathFactory, kinds) -> None:
    frames = {"salt": SALT, "water": WATER, "iron": bulk("Fe")}
    path = tmp_path_factory.mktemp("xyz") / "run.xyz"
    write(path, [frames[kind] for kind in kinds], format="extxyz")
    data = load(path)
    assert data.ids.tolist() == ["run", *[f"run#{i}" for i in range(1, len(kinds))]]
    for system, kind in zip(data, kinds, strict=True):
        assert_canonical(system, frames[kind])


def test_bad_frame_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "run.extxyz"
    write(path, [SALT, WATER, SALT], format="extxyz")
    lines = path.read_text().splitlines(keepends=True)
    hydrogen = next(i for i, line in enumerate(lines) if line.startswith("H "))
    lines[hydrogen] = "H      zero 0.0 0.0\n"
    path.write_text("".join(lines) + "\n\n")
    data = load(path)
    assert data.ids.tolist() == ["run", "run#2"]
    assert [name for name, _ in data.skipped] == ["run#1"]


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("five\n", "line 6: expected a number of atoms, got 'five'; the rest is not read"),
        ("0\n\n", "line 6: expected a number of atoms, got '0'"),
        ("3\ncomment\nH 0 0 0\n", "line 6: 3 atoms announced, the file ends after 1"),
        ("3\n", "line 6: 3 atoms announced, the file ends after 0"),
    ],
)
def test_broken_end_of_an_xyz_file_is_reported(tmp_path: Path, tail: str, message: str) -> None:
    path = tmp_path / "run.xyz"
    path.write_text("3\nwater = 'best\nO 0 0 0\nH 0 0 1\nH 0 1 0\n" + tail)
    data = load(path)
    assert data.sizes.tolist() == [3]
    ((name, reason),) = data.skipped
    assert name == "run#1"
    assert reason.startswith(message)


def test_columns_without_end_cost_no_time(tmp_path: Path) -> None:
    path = tmp_path / "wide.extxyz"
    comment = "Properties=species:S:1:pos:R:3:x:R:99999999999"
    path.write_text(f"1\n{comment}\nH 0 0 0 1\n1\n\nH 0 0 0\n")
    data = load_structures(path, progress=False)
    assert len(data) == 1 and "announces 99999999999 columns" in data.skipped[0][1]


def test_folder_is_searched_for_all_formats(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    salt = Structure(SALT.cell[:], ["Na", "Cl"], SALT.get_scaled_positions())
    CifWriter(salt).write_file(tmp_path / "b.cif")
    write(tmp_path / "a.xyz", [WATER, WATER])
    write(tmp_path / "sub" / "POSCAR", SALT, format="vasp")
    write(tmp_path / "sub" / "slab.vasp", bulk("Al"), format="vasp")
    (tmp_path / "broken.cif").write_text("data_broken\n")
    (tmp_path / "notes.txt").write_text("no structure")
    data = load(tmp_path)
    assert data.name == tmp_path.name
    assert data.ids.tolist() == ["a", "a#1", "b", "sub/POSCAR", "sub/slab"]
    assert data.sizes.tolist() == [3, 3, 2, 2, 1]
    assert data.periodic.tolist() == [False, False, True, True, True]
    assert [name for name, _ in data.skipped] == ["broken"]
    assert data[3].to_structure().matches(salt)


def test_sdf_keeps_hydrogens_and_titles(tmp_path: Path) -> None:
    from rdkit import Chem
    from rdkit.Chem import AllChem

    path = tmp_path / "mols.sdf"
    with Chem.SDWriter(str(path)) as writer:
        for title, smiles in (("methanol", "CO"), ("", "C")):
            mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
            AllChem.EmbedMolecule(mol, randomSeed=1)
            mol.SetProp("_Name", title)
            writer.write(mol)
    data = load(path)
    assert data.ids.tolist() == ["methanol", "mols#1"]
    assert data.sizes.tolist() == [6, 5]
    bonds = np.linalg.norm(data[1].positions[1:] - data[1].positions[0], axis=1)
    np.testing.assert_allclose(bonds, 1.09, atol=0.05)


def test_unknown_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*absent"):
        load(tmp_path / "absent.cif")
    (tmp_path / "x.docx").write_text("")
    with pytest.raises(ValueError, match=r"cannot tell what x\.docx holds; known are \.db, \.cif"):
        load(tmp_path / "x.docx")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match=r"sub holds no \.cif"):
        load(tmp_path / "sub")
    with pytest.raises(ValueError, match="max_atoms must be a positive integer, got -1"):
        load([WATER], max_atoms=-1)


def test_dictionary_of_a_structure_needs_no_pymatgen() -> None:
    structure = Structure(
        Lattice.from_parameters(3, 4, 5, 80, 95, 102),
        ["Fe3+", "O2-"],
        [[0, 0, 0], [0.5, 0.2, -0.1]],
    )
    system = system_from_structure_dict(structure.as_dict())
    assert system.numbers.tolist() == [26, 8]
    np.testing.assert_allclose(system.cell, structure.lattice.matrix)
    np.testing.assert_allclose(system.positions, structure.cart_coords, atol=1e-9)
    mixed = Structure(Lattice.cubic(3.0), [{"Fe": 0.5, "Na": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match="disordered"):
        system_from_structure_dict(mixed.as_dict())
    with pytest.raises(ValueError, match="not the dictionary of a pymatgen Structure: KeyError"):
        system_from_structure_dict({"sites": [], "lattice": {}})


def test_skewed_cells_are_reduced_on_the_way() -> None:
    cell = np.array([[80.0, 0, 0], [79.9, 4.0, 0], [79.9, 2.0, 3.5]])
    (system,) = load([Atoms("Fe", cell=cell, pbc=True)])
    degrees = np.degrees(cell_to_parameters(system.cell)[1])
    assert (degrees > 59).all() and (degrees < 121).all()
    assert system.volume == pytest.approx(abs(np.linalg.det(cell)), rel=1e-5)


def test_one_crystal_has_the_same_arrays_from_every_source(tmp_path: Path) -> None:
    conventional = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    write(tmp_path / "POSCAR", conventional[[3, 0, 5, 2, 7, 4, 1, 6]], format="vasp")
    write(tmp_path / "salt.xyz", conventional, format="extxyz")
    CifWriter(AtomicSystem.from_atoms(conventional).to_structure()).write_file(tmp_path / "x.cif")
    with connect(tmp_path / "salt.db") as database:
        database.write(SALT)
    left_handed = Atoms(SALT, cell=-SALT.cell.array)
    sources = [*(tmp_path / x for x in ("POSCAR", "salt.xyz", "x.cif", "salt.db")), [left_handed]]
    for source in sources:
        (system,) = load(source)
        assert len(system) == 2
        assert_canonical(system, SALT)


def test_a_cell_too_long_for_a_crystal_is_skipped_at_once(tmp_path: Path) -> None:
    """Reduction by pymatgen would list millions of lattice points."""
    layer = Atoms("C2", [[0, 0, 0], [1.2, 0.7, 0]], cell=[2.5, 2.6, 1e4], pbc=True)
    write(tmp_path / "layer.vasp", layer, format="vasp")
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"layer.*cell lengths .*10000.* leave 0.5..200"):
        load(tmp_path / "layer.vasp")
    assert time.perf_counter() - start < 5
