"""Good files of every kind, and what damages them."""

from __future__ import annotations

import gzip
import json
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

CASES = Path(__file__).resolve().parents[1] / "cases"
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
WORD = re.compile(rb"[\w.+-]+")
STRANGE = (
    *("0", "-1", "nan", "inf", "1e30", "-1e30", "1e400", "1e-300", "99999999999999999999", "11.7"),
    *(
        "",
        "?",
        "*",
        "Xx",
        "D",
        "'",
        '"',
        "[" * 500,
        "{" * 3000,
        "\x00",
        "\u202e",
        "=cmd",
        "\x1b[2J",
    ),
    *("10000", "100000", "118", "119", "1e5", "None", "true", "H" * 5000, "../..", ","),
)


def write_good_files(folder: Path) -> list[Path]:
    """Write a good file of every format that is read."""
    import ase.db
    import ase.io
    import msgpack
    from ase.build import bulk, molecule
    from pymatgen.io.ase import AseAtomsAdaptor
    from rdkit import Chem
    from rdkit.Chem import AllChem

    from adit_model.data.dataset import AtomicDataset
    from adit_model.systems import AtomicSystem

    folder.mkdir(parents=True, exist_ok=True)
    salt, copper = bulk("NaCl", "rocksalt", a=5.64, cubic=True), bulk("Cu", "fcc", a=3.6)
    crystals = [salt, copper, bulk("GaAs", "zincblende", a=5.65)]
    molecules = [molecule(name) for name in ("H2O", "CH3CH2OH", "C6H6")]
    structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in crystals]
    ase.io.write(folder / "p1.cif", salt)
    structures[0].to(filename=str(folder / "symmetric.cif"), symprec=0.01)
    ase.io.write(folder / "many.extxyz", crystals + molecules)
    ase.io.write(folder / "water.xyz", molecules[:2], format="xyz")
    ase.io.write(folder / "POSCAR", salt, format="vasp")
    ase.io.write(folder / "XDATCAR", [copper, copper], format="vasp-xdatcar")
    ase.io.write(folder / "models.pdb", molecules)
    ase.io.write(folder / "path.traj", crystals)
    with ase.db.connect(folder / "some.db") as database:
        for atoms in crystals + molecules:
            database.write(atoms, band_gap=1.5)
    ethanol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    AllChem.EmbedMolecule(ethanol, randomSeed=1)
    (folder / "ethanol.sdf").write_text(Chem.MolToMolBlock(ethanol) + "$$$$\n")
    entries = [{"material_id": f"m{i}", "structure": s.as_dict()} for i, s in enumerate(structures)]
    text = json.dumps(entries, default=str)
    (folder / "entries.json").write_text(text)
    (folder / "one.json").write_text(json.dumps(entries[0], default=str))
    (folder / "packed.json.gz").write_bytes(gzip.compress(text.encode()))
    cifs = [s.to(fmt="cif") for s in structures]
    rows = "".join(f'm{i},{i}.5,"{cif}"\n' for i, cif in enumerate(cifs))
    (folder / "table.csv").write_text("material_id,band_gap,cif\n" + rows)
    (folder / "table.csv.gz").write_bytes(gzip.compress(("material_id,gap,cif\n" + rows).encode()))
    with zipfile.ZipFile(folder / "relaxed_structures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i, cif in enumerate(cifs):
            archive.writestr(f"relaxed_structures/qmof-{i}.cif", cif)
    systems = [AtomicSystem.from_atoms(atoms) for atoms in crystals + molecules]
    AtomicDataset.from_systems(systems, "good").save(folder / "good.npz")
    conformers = [
        {"geom_id": i, "totalenergy": -1.0, "xyz": np.c_[m.numbers, m.positions].tolist()}
        for i, m in enumerate(molecules)
    ]
    packed: Any = {"CCO": {"totalconfs": 3, "conformers": conformers}}
    (folder / "drugs.msgpack").write_bytes(msgpack.packb(packed))
    for case in CASES.iterdir():
        if case.suffix not in (".py", ".pyc") and case.is_file():
            (folder / f"case_{case.name}").write_bytes(case.read_bytes())
    return sorted(path for path in folder.iterdir() if path.is_file())


def mutate(content: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Damage a file in one to four places."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(MUTATIONS)(content, rng, other)
    return content


def _flip(content: bytes, rng: random.Random, other: bytes) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 8))):
        if found:
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _cut(content: bytes, rng: random.Random, other: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _remove(content: bytes, rng: random.Random, other: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 5, 100)) :]


def _insert(content: bytes, rng: random.Random, other: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    new = rng.choice((rng.randbytes(8), rng.choice(STRANGE).encode(), other[:2000], b"\n" * 50))
    return content[:start] + new + content[start:]


def _replace(pattern: re.Pattern[bytes]) -> Any:
    def replace(content: bytes, rng: random.Random, other: bytes) -> bytes:
        start = rng.randrange(len(content) + 1)
        match = pattern.search(content, start) or pattern.search(content)
        if match is None:
            return content
        new = rng.choice(STRANGE).encode()
        return content[: match.start()] + new + content[match.end() :]

    return replace


def _lines(content: bytes, rng: random.Random, other: bytes) -> bytes:
    lines = content.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        del lines[i]
    elif kind == 1:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 2:
        lines[i:i] = [lines[j]] * rng.choice((1, 1, 30))
    else:
        lines[i] = lines[i].upper() if rng.random() < 0.5 else lines[i].lower()
    return b"\n".join(lines)


def _join(content: bytes, rng: random.Random, other: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


MUTATIONS = (
    *(_flip, _cut, _remove, _insert, _replace(NUMBER), _replace(NUMBER), _replace(WORD)),
    *(_lines, _lines, _join),
)


def strange_value(rng: random.Random) -> Any:
    """A value of JSON or YAML that nobody expects."""
    deep: Any = 1
    for _ in range(rng.choice((3, 150))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    values = (
        0,
        -1,
        1.5,
        1e30,
        float("inf"),
        10**9,
        10**25,
        True,
        None,
        "",
        "x",
        [],
        {},
        [1, "a"],
        {"1": 2},
        deep,
    )
    return rng.choice(values)


def replace_value(tree: Any, rng: random.Random) -> Any:
    """Put a strange value in one place of nested lists and mappings, drop it, or add one."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        if rng.random() < 0.1:
            return {k: v for k, v in tree.items() if k != key}
        if rng.random() < 0.05:
            return {**tree, rng.choice(("new", 1, "", None)): strange_value(rng)}
        return {**tree, key: replace_value(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.7:
        i = rng.randrange(len(tree))
        return [*tree[:i], replace_value(tree[i], rng), *tree[i + 1 :]]
    return strange_value(rng)
