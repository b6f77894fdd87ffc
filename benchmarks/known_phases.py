"""Make the files of known crystals and molecules in ``adit_model/data/known``.

    python benchmarks/known_phases.py DATA_FOLDER

``DATA_FOLDER`` holds ``crystals_{train,val,test}.csv.gz`` in CDVAE format; QM9 is that of
``qm9pack``. Takes three minutes on one core. It prints how much the rounding moves atoms, and of
how many crystals it changes the space group at 0.01 angstrom.
"""

import sys
from pathlib import Path

import numpy as np
import rdkit
import spglib
from rdkit import Chem, RDLogger

from adit_model.data.crystal_csv import load_crystal_csv, load_crystal_table
from adit_model.data.phases import (
    CRYSTALS,
    GRID,
    LABELS,
    MOLECULES,
    SPLITS,
    known_phases,
    reduced_formula,
)
from adit_model.data.qm9 import load_qm9, load_qm9_smiles
from adit_model.geometry import WRAP_CUT
from adit_model.quality.molecules import canonical_smiles
from adit_model.systems import AtomicSystem


def pack(lines: list[str]) -> np.ndarray:
    return np.frombuffer("\n".join(lines).encode("ascii"), dtype=np.uint8)


def on_grid(frac: np.ndarray) -> np.ndarray:
    """Round, and keep what is on the canonical side of the cell's edge there."""
    return np.maximum(np.rint(frac * GRID), -np.floor(WRAP_CUT * GRID))


def space_group(system: AtomicSystem, symprec: float) -> int:
    found = spglib.get_symmetry_dataset(
        (system.cell, system.frac_coords, system.numbers), symprec=symprec
    )
    return 0 if found is None else found.number


def crystals(folder: Path) -> None:
    sets = [load_crystal_csv(folder / f"crystals_{split}.csv.gz") for split in SPLITS]
    sources = []
    for split, part in zip(SPLITS, sets, strict=True):
        table = load_crystal_table(folder / f"crystals_{split}.csv.gz")
        sources += table.loc[part.ids, "source"].tolist()
    systems = [system for part in sets for system in part]
    groups = np.concatenate([part.space_groups for part in sets])
    for i in np.flatnonzero(groups == 0):
        groups[i] = space_group(systems[i], 0.1)
    names = sorted(set(sources))
    cells = np.concatenate([part.cells for part in sets])
    np.savez_compressed(
        CRYSTALS,
        ids=pack([str(name) for part in sets for name in part.ids]),
        formulas=pack([reduced_formula(system.to_structure().composition) for system in systems]),
        splits=np.repeat(np.arange(3, dtype=np.uint8), [len(part) for part in sets]),
        sources=np.array([names.index(name) for name in sources], dtype=np.uint8),
        source_names=np.array(names),
        space_groups=groups.astype(np.int16),
        num_atoms=np.array([len(system) for system in systems], dtype=np.uint8),
        numbers=np.concatenate([system.numbers for system in systems]).astype(np.uint8),
        grid_coords=np.concatenate(
            [on_grid(system.frac_coords) % GRID for system in systems]
        ).astype(np.uint16),
        triangles=cells[:, *np.tril_indices(3)].astype(np.float32),
        **{name: np.concatenate([part.labels[name] for part in sets]) for name in LABELS},
    )
    known = known_phases()
    moved, changed = 0.0, []
    for i, system in enumerate(systems):
        stored = known.system(i)
        moved = max(moved, float(np.abs(stored.positions - system.positions).max()))
        if space_group(stored, 0.01) != space_group(system, 0.01):
            changed.append(str(known.ids[i]))
    print(f"{len(known)} crystals, {CRYSTALS.stat().st_size / 1e6:.2f} MB")
    print(f"rounding moves a coordinate by {moved:.1e} angstrom at most")
    print(f"another space group at 0.01 angstrom: {len(changed)} {changed[:20]}")


def molecules() -> None:
    RDLogger.DisableLog("rdApp.*")
    ids = [int(name.removeprefix("gdb_")) for name in load_qm9("all", progress=False).ids]
    smiles = [canonical_smiles(Chem.MolFromSmiles(text)) for text in load_qm9_smiles("all")]
    steps = np.diff(ids, prepend=0)
    assert steps.max() < 2**16
    np.savez_compressed(
        MOLECULES,
        smiles=pack(smiles),
        steps=steps.astype(np.uint16),
        rdkit_version=np.array(rdkit.__version__),
    )
    print(f"{len(smiles)} molecules, {MOLECULES.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    CRYSTALS.parent.mkdir(exist_ok=True)
    molecules()
    crystals(Path(sys.argv[1]))
