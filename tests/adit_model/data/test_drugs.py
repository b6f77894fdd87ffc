from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import msgpack
import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from adit_model.canonical import canonicalise
from adit_model.data.drugs import load_geom
from adit_model.systems import AtomicSystem


def conformer(name: str, geom_id: int, energy: float, shift: float = 0.0) -> dict:
    """Build a conformer as in the published files: atomic number and coordinates in one table."""
    atoms = molecule(name)
    table = np.column_stack([atoms.numbers, atoms.positions + shift])
    return {
        "geom_id": geom_id,
        "set": 1,
        "degeneracy": 1,
        "totalenergy": energy,
        "relativeenergy": 0.0,
        "boltzmannweight": 0.5,
        "conformerweights": [0.5],
        "xyz": table.tolist(),
    }


BATCHES = [
    {
        "CCO": {
            "totalconfs": 3,
            "conformers": [
                conformer("CH3CH2OH", 11, -11.30, 1.0),
                conformer("CH3CH2OH", 12, -11.39, 2.0),
                conformer("CH3CH2OH", 13, -11.35, 3.0),
            ],
        },
        "O": {"totalconfs": 1, "conformers": [conformer("H2O", 21, -5.07)]},
    },
    {
        "bad": {"conformers": [{"totalenergy": 0.0, "geom_id": 31, "xyz": [[1.5, 0, 0, 0]]}]},
        "worse": {"totalconfs": 0},
        "C": {"totalconfs": 1, "conformers": [conformer("CH4", 41, -4.2)]},
    },
]


@pytest.fixture
def packed() -> bytes:
    return b"".join(msgpack.packb(batch) for batch in BATCHES)


def archive(path: Path, content: bytes, name: str = "drugs_crude.msgpack") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("packing", ["plain", "archive"])
def test_lowest_conformers_come_first(tmp_path: Path, packed: bytes, packing: str) -> None:
    path = tmp_path / "drugs_crude.msgpack"
    path.write_bytes(packed)
    if packing == "archive":
        path = archive(tmp_path / "drugs_crude.msgpack.tar.gz", packed)
    data = load_geom(path, progress=False)
    assert data.ids.tolist() == ["geom_12", "geom_21", "geom_41"]
    assert data.sizes.tolist() == [9, 3, 5]
    assert not data.periodic.any()
    reference = canonicalise(AtomicSystem.from_atoms(molecule("CH3CH2OH"))).system
    np.testing.assert_array_equal(data[0].numbers, reference.numbers)
    np.testing.assert_allclose(data[0].positions, reference.positions, atol=1e-4)
    reasons = dict(data.skipped)
    assert "must hold atomic numbers" in reasons["bad#0"]
    assert "no conformers with energies" in reasons["worse"]
    two = load_geom(path, conformers=2, progress=False)
    assert two.ids.tolist() == ["geom_12", "geom_13", "geom_21", "geom_41"]


def test_limits(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(packed)
    assert load_geom(path, max_molecules=1, progress=False).ids.tolist() == ["geom_12"]
    data = load_geom(path, max_atoms=5, progress=False)
    assert data.ids.tolist() == ["geom_21", "geom_41"]
    assert ("geom_12", "9 atoms, more than max_atoms=5") in data.skipped
    with pytest.raises(ValueError, match="conformers must be a positive integer, got 0"):
        load_geom(path, conformers=0)


def test_other_formats_of_molecules(tmp_path: Path) -> None:
    write(tmp_path / "x.xyz", [molecule("H2O"), molecule("CH4")])
    data = load_geom(tmp_path / "x.xyz", progress=False)
    assert (data.name, data.sizes.tolist()) == ("GEOM", [3, 5])


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_pickles_are_never_opened(clean_dir: Path) -> None:
    path = clean_dir / "train_data.pickle"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="is a pickle, which can run any code"):
        load_geom(path)
    # Nor under another name.
    disguised = path.rename(clean_dir / "x.msgpack")
    with pytest.raises(ValueError, match=r"no msgpack file|no GEOM file"):
        load_geom(disguised, progress=False)
    assert not Path("exploded").exists()


def test_broken_files_are_named(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(packed[:-30])
    with pytest.raises(ValueError, match=r"x\.msgpack is cut off: \d+ bytes hold no whole map"):
        load_geom(path, progress=False)
    path.write_bytes(msgpack.packb([1, 2]))
    with pytest.raises(ValueError, match="is no GEOM file: a map expected, got <class 'list'>"):
        load_geom(path, progress=False)
    tar = archive(tmp_path / "x.tar.gz", b"", "notes.txt")
    with pytest.raises(ValueError, match=r"holds no \.msgpack file"):
        load_geom(tar, progress=False)
    tar.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no readable tar archive"):
        load_geom(tar, progress=False)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_geom(tmp_path / "absent.msgpack")


def test_keys_that_are_none_are_a_plain_error(tmp_path: Path) -> None:
    path = tmp_path / "drugs_crude.msgpack"
    path.write_bytes(bytes([0x81, 0x90, 0x01]))  # a map whose key is a list
    with pytest.raises(ValueError, match=r"drugs_crude\.msgpack"):
        load_geom(path, progress=False)
