"""Small inputs that once failed or misled, in every reader that they can come in by."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import re
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from pymatgen.core import Lattice, Molecule, Structure

from adit_model.data.json_files import read_entry
from adit_model.data.mof import load_qmof
from adit_model.data.sources import load_source
from adit_model.data.structures import load_structures, read_one
from adit_model.systems import AtomicSystem

FOLDER = Path(__file__).parent
WATER = [1, 1, 8]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADIT_CACHE_DIR", str(tmp_path / "cache"))


def load(name, **options):
    return load_source(str(FOLDER / name), progress=False, **options)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["by_number.xyz", "fortran_exponent.xyz"])
def test_unambiguous_xyz_is_read(name):
    system = read_one(FOLDER / name)
    assert system.numbers.tolist() == [8, 1, 1]
    np.testing.assert_allclose(system.positions[:, 2], [0.119, -0.477, -0.477])


@pytest.mark.parametrize("label", ["CL", "Cl1", "cl", "17", "Cl-", "Cl_2"])
def test_labels_and_numbers_of_xyz_are_symbols(tmp_path, label):
    plain = write(tmp_path / "x.xyz", f"2\n\nH 0 0 0\n{label} 0 0 1.27\n")
    table = "2\nProperties=pos:R:3:species:S:1\n0 0 0 H\n0 0 1.27 " + f"{label}\n"
    for path in (plain, write(tmp_path / "y.extxyz", table)):
        assert read_one(path).formula == "HCl"


XYZ = (FOLDER / "heavy_water.xyz").read_text()
POSCAR = "x\n1\n9 0 0\n0 9 0\n0 0 9\nO D\n1 2\nCartesian\n0 0 .119\n0 .763 -.477\n0 -.763 -.477\n"
CIF = Structure(Lattice.cubic(4), ["O", "H", "H"], [[0, 0, 0], [0.2, 0, 0], [0, 0.2, 0]]).to(
    fmt="cif"
)
SDF = """

  1 -0 -0
  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 D   0  0
    0.0000    0.0000    0.7400 H   0  0
  1  2  1  0
M  END
$$$$
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.xyz", XYZ),
        ("t.xyz", XYZ.replace("D", "T")),
        ("x.vasp", POSCAR),
        ("x.cif", CIF.replace("  H  ", "  D  ")),
        ("x.sdf", SDF),
        ("x.json", json.dumps(Molecule(["H"], [[0, 0, 0]]).as_dict()).replace('"H"', '"D"')),
    ],
)
def test_heavy_hydrogen_is_hydrogen_with_one_note(tmp_path, name, text):
    assert text
    with pytest.warns(UserWarning, match="read as hydrogen"):
        system = read_one(write(tmp_path / name, text))
    assert set(system.numbers.tolist()) <= {1, 8}


def test_heavy_hydrogen_of_objects_is_hydrogen():
    with pytest.warns(UserWarning, match="read as hydrogen"):
        assert AtomicSystem.from_any(Molecule(["D", "F"], [[0, 0, 0], [0, 0, 0.9]])).numbers[0] == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ghost.xyz", "row 6: 'X' is no element"),
        ("over_occupied.cif", "Fe, Ni at .* sum to 1.2"),
        ("unknown_cell_length.cif", r"cell length a is '\?'"),
        ("hydrate_without_h_positions.cif", "2 of 5 atoms have no coordinates"),
        ("poscar_vasp4.vasp", "line 6 lacks the symbols .* write them"),
        ("ethanol_without_hydrogens.sdf", "6 hydrogens are missing"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, name, reason):
    with pytest.raises(ValueError, match=reason):
        load(name)
    with pytest.raises(ValueError, match=reason):
        read_one(FOLDER / name)
    text = (FOLDER / name).read_text()
    if name.endswith(".cif"):  # as in a table
        assert re.search(reason, str(read_entry({"cif": text})[1]))
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("x.cif", text)
        with pytest.raises(ValueError, match=reason):
            load_qmof(tmp_path / "x.zip", progress=False)


def test_ghosts_of_objects_are_refused_by_their_place():
    with pytest.raises(ValueError, match=r"atom 1 .* has 0 .a ghost"):
        AtomicSystem.from_any(Atoms("HX", [[0, 0, 0], [0, 0, 1]]))


def test_a_formula_with_hydrogen_needs_hydrogen(tmp_path):
    text = (FOLDER / "iron_cube.cif").read_text().replace(" 0.9", " 3.9")
    text = text.replace("loop_", "_chemical_formula_sum 'Fe1 H2 O1'\nloop_", 1)
    text = text.replace("data_x", "data_x\n_symmetry_equiv_pos_as_xyz 'x, y, z'")
    with pytest.raises(ValueError, match="no hydrogen has coordinates"):
        read_one(write(tmp_path / "x.cif", text))


def test_poscar_of_vasp_4_with_symbols_in_its_comment_is_read(tmp_path):
    text = (FOLDER / "poscar_vasp4.vasp").read_text().replace("relaxed cell of last week", "Si")
    assert read_one(write(tmp_path / "POSCAR", text)).formula == "Si"


def test_hydrogens_are_added_on_request():
    data = load("ethanol_without_hydrogens.sdf", add_hydrogens=True)
    assert data[0].formula == "C2H6O"


def test_rdkit_objects_without_hydrogens_are_refused_or_filled():
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.MolFromSmiles("CCO")
    AllChem.EmbedMolecule(mol, randomSeed=1)
    with pytest.raises(ValueError, match="6 hydrogens are missing"):
        AtomicSystem.from_any(mol)
    assert load_structures(mol, progress=False, add_hydrogens=True)[0].formula == "C2H6O"


def test_molecules_that_seem_to_lack_hydrogens_are_said(tmp_path, caplog):
    bare = write(tmp_path / "x.xyz", "3\n\nC -1.17 -0.4 0\nC 0.01 0.55 0\nO 1.2 -0.2 0\n")
    whole = write(tmp_path / "y.xyz", "3\n\nO 0 0 -1.16\nC 0 0 0\nO 0 0 1.16\n")
    load_source(whole, progress=False)
    assert not caplog.records
    load_source(bare, progress=False)
    assert "1 of 1 seem to lack hydrogens (x: C2O" in caplog.text


@pytest.mark.parametrize("name", ["slab_ttt.extxyz", "water_in_a_box_ttt.extxyz"])
def test_vacuum_in_a_crystal_is_said_and_counted(name, caplog):
    assert load(name).periodic.all()
    assert "1 of 1 have a wide gap" in caplog.text
    assert "a gap of 20.7 angstrom along c" in caplog.text or name != "slab_ttt.extxyz"
    caplog.clear()
    load_structures([bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6)], progress=False)
    assert not caplog.records


def test_a_cell_without_periodicity_is_said():
    atoms = Atoms("Fe2", [[0, 0, 0], [1.4, 1.4, 1.4]], cell=[2.8, 2.8, 2.8], pbc=False)
    with pytest.warns(UserWarning, match="pbc=False are read as a molecule"):
        assert not AtomicSystem.from_any(atoms).is_periodic


def test_other_columns_and_separators_of_csv(tmp_path, caplog):
    data = load("other_id_column.csv")
    assert data.ids.tolist() == ["my-1"]
    assert "ids are the column 'structure_id'" in caplog.text
    with pytest.raises(ValueError, match="the first, a: the CIF lists no atoms"):
        load("semicolons.csv")
    (entry,) = json.loads((FOLDER / "structures.json").read_text())
    import pandas as pd

    for text, mark in ((json.dumps(entry), ","), (str(entry), "\t")):
        path = tmp_path / f"x{ord(mark)}.csv"
        frame = pd.DataFrame(
            [["b", text, 1.5], ["c", text, None]], columns=["jid", "structure", "gap"]
        )
        frame.to_csv(path, index=False, sep=mark)
        data = load_source(str(path), progress=False)
        assert data.ids.tolist() == ["b", "c"]
        np.testing.assert_allclose(data.labels["gap"], [1.5, np.nan])


def entries():
    (structure,) = json.loads((FOLDER / "structures.json").read_text())
    return structure, {"structure": structure, "gap": 1.5, "material_id": "mp-1"}


def contents():
    structure, entry = entries()
    computed = {"structure": structure, "energy": -7.0, "data": {"mat_id": "agm1", "gap": 1.5}}
    jarvis = {
        "jid": "JVASP-1",
        "gap": 1.5,
        "atoms": {
            "lattice_mat": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
            "coords": [[0, 0, 0], [0.5, 0.5, 0.5]],
            "elements": ["Na", "Cl"],
            "cartesian": False,
        },
    }
    matbench = {"index": ["mb-1"], "columns": ["structure", "gap"], "data": [[structure, 1.5]]}
    return {
        "one": (structure, "x"),
        "list": ([structure], "x"),
        "documents": ([entry], "mp-1"),
        "mapping": ({"a": entry | {"material_id": None}}, "a"),
        "alexandria": ({"entries": [computed]}, "agm1"),
        "matbench": (matbench, "mb-1"),
        "jarvis": ([jarvis], "JVASP-1"),
    }


@pytest.mark.parametrize("kind", list(contents()))
@pytest.mark.parametrize("pack", ["", ".gz", ".bz2"])
def test_json_of_the_field_is_read(tmp_path, kind, pack):
    content, name = contents()[kind]
    path = tmp_path / f"x.json{pack}"
    text = json.dumps(content).encode()
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[pack](text))
    data = load_source(str(path), progress=False)
    assert (data.ids.tolist(), data[0].formula) == ([name], "NaCl")
    if kind not in ("one", "list"):
        np.testing.assert_allclose(data.labels["gap"], [1.5])
    assert load_source(str(tmp_path), progress=False)[0].formula == "NaCl"


def files_of_the_field():
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    salt = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    table = f'id,structure\na,"{salt.to(fmt="poscar")}"\n'
    return {
        "x.cif": (salt.to(fmt="cif"), "NaCl"),
        "POSCAR": (salt.to(fmt="poscar"), "NaCl"),
        "x.json": (json.dumps(salt.as_dict()), "NaCl"),
        "x.csv": (table, "NaCl"),
        "x.xyz": ((FOLDER / "by_number.xyz").read_text(), "H2O"),
        "x.sdf": (Chem.MolToMolBlock(mol), "C2H6O"),
        "x.pdb": (Chem.MolToPDBBlock(mol), "C2H6O"),
    }


@pytest.mark.parametrize("name", list(files_of_the_field()))
def test_packed_files_are_read_and_damaged_ones_a_plain_error(tmp_path, name):
    text, formula = files_of_the_field()[name]
    for ending, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        path = tmp_path / (name + ending)
        path.write_bytes(packed := pack(text.encode()))
        assert [s.formula for s in load_source(str(path), progress=False)] == [formula]
        path.write_bytes(packed[: len(packed) // 2])
        with pytest.raises(ValueError, match=r"cannot be read|no readable|no system|damaged"):
            load_source(str(path), progress=False)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["x.cif", "POSCAR", "x.json", "x.csv", "x.xyz"])
def test_marks_of_byte_order_and_line_ends_of_windows(tmp_path, name, encoding):
    text, formula = files_of_the_field()[name]
    path = tmp_path / name
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert [s.formula for s in load_source(str(path), progress=False)] == [formula]


def test_ids_are_names_of_files_without_type_and_packing(tmp_path):
    text, _ = files_of_the_field()["x.cif"]
    for name in ("Li0.5.v2.cif", "a.b.cif.gz"):
        (tmp_path / name).write_bytes(
            gzip.compress(text.encode()) if "gz" in name else text.encode()
        )
        (only,) = load_source(str(tmp_path / name), progress=False).ids
        assert f"{only}.cif" == name.removesuffix(".gz")
    assert load_source(str(tmp_path), progress=False).ids.tolist() == ["Li0.5.v2", "a.b"]


def test_files_of_qm9_are_read(tmp_path):
    text = (
        "3\ngdb 3\t799.58\t437.9\nO\t-0.034\t 0.977\t 0.0075\t-0.58\nH\t 0.064\t 2.*^-6\t"
        " 0.0018\t 0.29\nH\t 0.871\t 1.300\t 0.0006\t 0.29\n1671.4\t3803.0\nO\tO\t\n"
        "InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2\n"
    )
    data = load_source(write(tmp_path / "dsgdb9nsd_000003.xyz", text), progress=False)
    assert ([s.formula for s in data], data.skipped) == (["H2O"], [])


def test_json_lines_and_documents_of_jobs(tmp_path):
    structure, _ = entries()
    document = {"uuid": "u", "output": {"structure": structure, "energy": -1.5}}
    path = write(tmp_path / "x.jsonl", json.dumps(document) + "\n" + json.dumps(document) + "\n")
    data = load_source(path, progress=False)
    assert [s.formula for s in data] == ["NaCl", "NaCl"]
    np.testing.assert_allclose(data.labels["energy"], [-1.5, -1.5])
    with pytest.raises(ValueError, match="is no JSON file"):
        load_source(write(tmp_path / "y.json", json.dumps(document) + "\n{"), progress=False)


def test_decimal_commas_and_names_of_columns_in_capitals(tmp_path):
    text, _ = files_of_the_field()["x.cif"]
    quoted = '"' + text.replace('"', '""') + '"'
    table = f"Material_ID;CIF;gap;word\n007;{quoted};1,5;1,a\n8;{quoted};;b\n"
    data = load_source(write(tmp_path / "x.csv", table), progress=False)
    assert (data.ids.tolist(), list(data.labels)) == (["007", "8"], ["gap"])
    np.testing.assert_allclose(data.labels["gap"], [1.5, np.nan])


def test_an_archive_is_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.cif", "")
    with pytest.raises(ValueError, match="is an archive: unpack it"):
        load_source(str(tmp_path / "x.zip"), progress=False)


def test_the_end_of_a_pdb_file_is_no_model(tmp_path):
    text, _ = files_of_the_field()["x.pdb"]
    models = "".join(f"MODEL {i}\n{text.replace('END', 'ENDMDL')}" for i in (1, 2)) + "END\n"
    data = load_source(write(tmp_path / "x.pdb", models), progress=False)
    assert (len(data), data.skipped) == (2, [])


def test_models_of_one_file_are_read(tmp_path):
    from ase.io import write as ase_write

    frames = [molecule("H2O"), molecule("H2O")]
    for name, form in (("x.pdb", "proteindatabank"), ("x.traj", "traj")):
        ase_write(tmp_path / name, frames, format=form)
        data = load_source(str(tmp_path / name), progress=False)
        assert [s.formula for s in data] == ["H2O", "H2O"]
    ase_write(tmp_path / "XDATCAR", [bulk("Cu")] * 2, format="vasp-xdatcar")
    assert len(load_source(str(tmp_path / "XDATCAR"), progress=False)) == 2


@pytest.mark.parametrize("name", ["acetate.xyz", "ammonium.sdf"])
def test_charges_are_kept_and_said(name, caplog):
    charge = {"acetate.xyz": -1, "ammonium.sdf": 1}[name]
    assert read_one(FOLDER / name).charge == charge
    data = load(name)
    assert data[0].charge == charge
    assert "the bundled weights know neutral molecules only" in caplog.text


@pytest.mark.parametrize("comment", ["charge=-1", "charge: -1", "a charge -1", "Charge = -1"])
def test_charges_in_comments(tmp_path, comment):
    text = (FOLDER / "acetate.xyz").read_text().replace("charge=-1", comment)
    assert read_one(write(tmp_path / "x.xyz", text)).charge == -1


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        ("-1 1", {"charge": -1}),
        (" -1,3 ", {"charge": -1, "spin_multiplicity": 3}),
        ("0 2", {"charge": 0}),
        ("0 4", {"charge": 0, "spin_multiplicity": 4}),
        ("+1 1", {"charge": 1}),
        ("0 1", None),  # nine electrons are no singlet
        ("8 9", None),
        ("9 1", None),
        ("12 2", None),
        ("0 0", None),
        ("1 1 1", None),
        ("1.0 1", None),
    ],
)
def test_two_numbers_alone_in_a_comment_are_charge_and_multiplicity(tmp_path, comment, told):
    path = write(tmp_path / "x.xyz", f"2\n{comment}\nO 0 0 0\nH 0 0 0.97\n")
    system = read_one(path)
    assert system.charge == (told or {"charge": 0})["charge"]
    assert told is None or system.info == told
    assert system.to_molecule().spin_multiplicity == (told or {}).get(
        "spin_multiplicity", 1 + (9 - system.charge) % 2
    )


def test_charges_of_objects():
    from rdkit import Chem
    from rdkit.Chem import AllChem

    hydroxide = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], charges=[-1, 0])
    ion = Molecule(["O", "H"], [[0, 0, 0], [0, 0, 0.97]], charge=-1)
    mol = Chem.AddHs(Chem.MolFromSmiles("[OH-]"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    for obj in (hydroxide, ion, mol, ion.as_dict()):
        system = read_entry(obj)[1] if isinstance(obj, dict) else AtomicSystem.from_any(obj)
        assert system.charge == -1
        assert AtomicSystem.from_any(system.to_molecule()).charge == -1
        assert AtomicSystem.from_any(system.to_atoms()).charge == -1
    with pytest.raises(ValueError, match=r"must be a whole number, got 0\.5"):
        _ = AtomicSystem.from_atoms(molecule("H2O"), charge=0.5).charge


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("x.xyz", "2\n\nH 0 0 0\nH 0 0 0.1\n", "on one spot"),
        ("x.xyz", "1\n\nH 0 0 1e30\n", "within 100000 angstrom"),
        ("x.xyz", "1\n\n11.7 0 0 0\n", "'11.7' is no element"),
        ("x.extxyz", "1\nProperties=Z:R:1:pos:R:3\n11.7 0 0 0\n", r"'11.7' is no element"),
        ("x.xyz", "5000\n\n" + "H 0 0 0\n" * 5000, "5000 atoms"),
        ("x.vasp", POSCAR.replace("\n1\n", "\n-1e30\n", 1).replace("O D", "O H"), "angstrom"),
        ("x.vasp", POSCAR.replace("1 2", "1 900000000").replace("D", "H"), "at most 4000"),
        ("x.json", json.dumps({"atoms": "[" * 9000}), "no atoms"),
        ("x.json", "[" * 100_000, "nests too deeply|no complete|damaged"),
        ("x.json", "\x00\xff", "no JSON"),
    ],
)
def test_nonsense_is_refused_quickly(tmp_path, name, text, reason):
    start = time.process_time()
    with pytest.raises(ValueError, match=reason), np.errstate(all="ignore"):
        load_source(write(tmp_path / name, text), progress=False)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("blank", ["\n", " "])
def test_a_file_of_blanks_is_read_in_the_time_of_its_length(tmp_path, blank):
    text = (FOLDER / "iron_cube.cif").read_text().replace(" 0.9", " 3.9")
    many = text.replace("loop_", "loop_" + blank * 200_000 + "\n", 1) + blank * 200_000
    start = time.process_time()
    for content in (many, blank * 200_000):
        path = write(tmp_path / "x.cif", content)
        if content == many:
            assert read_one(path).formula == "Fe"
        else:
            with pytest.raises(ValueError, match="lists no atoms"):
                read_one(path)
    assert time.process_time() - start < 10


def test_many_atoms_of_a_p1_file_are_refused_before_they_are_compared(tmp_path):
    head, _ = (FOLDER / "iron_cube.cif").read_text().split("Fe1", 1)
    head = head.replace("0.9", "90").replace("data_x", "data_x\n_space_group_IT_number 1")
    places = np.random.default_rng(0).random((10_000, 3))
    text = head + "".join(
        f"Fe{i} Fe {x:.5f} {y:.5f} {z:.5f} 1\n" for i, (x, y, z) in enumerate(places)
    )
    with pytest.raises(ValueError, match="10000 atoms"):
        load_source(write(tmp_path / "x.cif", text), progress=False)


def test_long_ids_and_reasons_are_cut():
    data = load_structures(
        [
            bulk("Cu"),
            AtomicSystem(np.array([2]), np.zeros((1, 3)), None, {"id": "\x1b[31m" + "i" * 10**6}),
        ],
        progress=False,
    )
    assert data.ids.dtype.itemsize <= 4 * 200
    assert data.ids[1].startswith("?[31mi")


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.cif", (FOLDER / "iron_cube.cif").read_text())
        archive.writestr("bomb.cif", b" " * (30 << 20))
    data = load_qmof(tmp_path / "x.zip", progress=False)
    assert len(data) == 1
    assert "more than a CIF file" in data.skipped[0][1]


def test_a_folder_of_samples_is_read_once(tmp_path):
    from ase.io import write as ase_write

    ase_write(tmp_path / "samples.extxyz", [bulk("Cu"), bulk("Mg")], format="extxyz")
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "crystals").mkdir()
    ase_write(tmp_path / "crystals" / "0000_Cu.cif", bulk("Cu"))
    shutil.copy(FOLDER / "nitromethane.xyz", tmp_path / "mine.xyz")
    assert len(load_source(str(tmp_path), progress=False)) == 3


def test_names_of_generated_files_are_those_that_are_written():
    from adit_model.data.structures import SAMPLES, SETTINGS
    from adit_model.quality import records

    assert (SAMPLES, SETTINGS) == (records.STRUCTURES, records.SETTINGS)


def test_skipped_entries_are_counted_by_reason(caplog):
    with caplog.at_level(logging.WARNING):
        slab = Atoms("Al", cell=[3, 3, 9], pbc=[1, 1, 0])
        load_structures([bulk("Cu"), slab, slab, "text"], progress=False)
    assert "3 of 4 entries could not be read" in caplog.text
    assert "2 like 1: pbc must" in caplog.text
    assert "1 like 3: expected an AtomicSystem" in caplog.text


def named(smiles):
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(mol)
    return AtomicSystem.from_rdkit(mol)


@pytest.mark.parametrize(
    ("smiles", "closed"),
    [
        ("C[N+](=O)[O-]", True),
        ("C[N+](C)(C)[O-]", True),
        ("[NH3+]CC(=O)[O-]", True),
        ("CC(=O)[O-]", True),
        ("[NH4+]", True),
        ("[OH3+]", True),
        ("CCO", True),
    ],
)
def test_formal_charges_are_no_radicals(smiles, closed):
    from adit_model.quality.molecules import bonds
    from adit_model.quality.plausible import plausible

    system = named(smiles)
    found = bonds(system)
    assert (found["bonded"], found["closed_shell"]) == (True, closed)
    assert plausible(system).plausible, plausible(system).reason


def test_nitromethane_and_acetate_of_files():
    from adit_model.quality.molecules import bonds

    assert bonds(read_one(FOLDER / "nitromethane.xyz"))["closed_shell"]
    acetate = read_one(FOLDER / "acetate.xyz")
    assert bonds(acetate)["closed_shell"]
    neutral = AtomicSystem(acetate.numbers, acetate.positions)
    assert "do not fit a neutral molecule" in bonds(neutral)["reason"]


def test_two_radical_centres_are_not_closed_shell():
    from rdkit import Chem

    from adit_model.quality.molecules import is_closed_shell

    assert not is_closed_shell(Chem.AddHs(Chem.MolFromSmiles("[CH2+]CC[CH2-]")))
    assert not is_closed_shell(Chem.AddHs(Chem.MolFromSmiles("[CH2]CC[CH2]")))


def test_wrong_charges_are_not_plausible():
    from adit_model.quality.plausible import plausible

    system = named("CCO")
    wrong = AtomicSystem(system.numbers, system.positions, None, {"charge": 2})
    assert "no drawing of its bonds has a charge of +2" in str(plausible(wrong).reason)


def test_a_packed_table_that_unpacks_to_far_more_is_refused(tmp_path):
    path = tmp_path / "x.csv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(110):
            file.write(b"0" * (1 << 20))
    with pytest.raises(ValueError, match="not unpacked"):
        load_source(str(path), progress=False)


def test_few_and_equal_structures_are_counted(caplog):
    from adit_model.data.duplicates import warn_few

    conventional = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    warn_few(load_structures([conventional, bulk("NaCl", "rocksalt", a=5.64)], progress=False))
    assert "structures: 2 structures, 1 distinct" in caplog.text


def test_formulas_and_signs_that_steer_stay_out_of_tables():
    from adit_model.files import csv_row

    given = {"id": "=cmd|' /C calc'!A0", "a": "-1.5", "b": "-Li", "c": "\x1b[2J", "d": -2.0}
    safe = {"id": "'=cmd|' /C calc'!A0", "a": "-1.5", "b": "'-Li", "c": "?[2J", "d": -2.0}
    assert csv_row(given) == safe


def test_html_of_a_list_is_escaped():
    from adit_model.notebook.samples import SampleList

    text = SampleList([], missing={"<script>": "<b>"})._repr_html_()
    assert "<script>" not in text and "<b>" not in text


def test_one_structure_is_a_list_of_one():
    from adit_model.systems import as_list

    structure = Structure(Lattice.cubic(2.8), ["Fe"], [[0, 0, 0]])
    for one in (structure, bulk("Cu"), Molecule(["He"], [[0, 0, 0]])):
        assert as_list(one) == [one]
        assert len(load_structures(one, progress=False)) == 1


def test_a_charge_is_given_where_none_is_told():
    from adit_model.quality.entries import load_samples, with_charge

    told = load_samples(str(FOLDER / "acetate.xyz"))
    untold = load_samples(str(FOLDER / "nitromethane.xyz"))
    assert [e.system.charge for e in with_charge(told + untold, 1)] == [-1, 1]


def test_elements_of_a_hull_lie_at_zero():
    from adit_model.quality.hull import MP2020, Hull

    hull = Hull.from_csv(FOLDER / "hull_without_elements.csv")
    assert hull.above("NaCl", -2.0, scale=MP2020).energy_above_hull == pytest.approx(0.1)


def test_impossible_crystals_are_not_plausible():
    from adit_model.quality.plausible import plausible

    assert not plausible(read_one(FOLDER / "iron_cube.cif")).plausible
    dense = bulk("Fe", "fcc", a=1.4, cubic=True)
    assert not plausible(dense).plausible
