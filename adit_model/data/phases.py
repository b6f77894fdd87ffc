"""Known crystals and molecules that come with the package: no file and no network is needed.

Crystals: 19,702 phases of the Materials Project with at most 20 atoms in the primitive cell (Jain
et al., APL Mater. 1, 011002, 2013; CC BY 4.0), split by reduced formula. Molecules: the 130,831
canonical SMILES of QM9 (Ramakrishnan et al., Sci. Data 1, 140022, 2014).
``adit_model/data/known/README.md`` has sources and licence; ``benchmarks/known_phases.py`` makes
the files. A benchmark leaves the test split out of what it knows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.data.dataset import AtomicDataset
from adit_model.data.qm9 import qm9_split
from adit_model.geometry import WRAP_CUT
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Composition

FOLDER = Path(__file__).parent / "known"
CRYSTALS, MOLECULES = FOLDER / "crystals.npz", FOLDER / "molecules.npz"
SPLITS = ("train", "val", "test")
GRID = 65520  # steps of fractional coordinates, 2^4 3^2 5 7 13: halves to twelfths are exact
KNOWN = "known"  # name of these crystals and molecules as a source; "known:train" of one split
NONE = "none"  # in place of a source: nothing is known
LABELS = ("formation_energy_per_atom", "e_above_hull", "band_gap")


@dataclass(frozen=True, eq=False)
class KnownPhases:
    """Crystals of the Materials Project, packed in S rows and A atoms.

    Parameters
    ----------
    ids : numpy.ndarray
        ``material_id`` of each, shape (S,), str.
    formulas : numpy.ndarray
        Reduced formulas as pymatgen writes them, shape (S,), str.
    splits : numpy.ndarray
        ``"train"``, ``"val"`` or ``"test"``, shape (S,), str.
    sources : numpy.ndarray
        Data set that each was taken from, ``"mp-20"`` for one, shape (S,), str.
    space_groups : numpy.ndarray
        International numbers, at a tolerance of 0.1 angstrom, shape (S,), int16.
    num_atoms : numpy.ndarray
        Atoms of the primitive cells, shape (S,), int.
    formation_energy_per_atom, e_above_hull, band_gap : numpy.ndarray
        In eV/atom, eV/atom and eV, shape (S,), float32; NaN where unknown. Energies are PBE and
        PBE+U with corrections, of the Materials Project's hull when the source was made.
    numbers : numpy.ndarray
        Atomic numbers, shape (A,), uint8.
    grid_coords : numpy.ndarray
        Fractional coordinates in steps of 1 / :data:`GRID`, shape (A, 3), uint16.
    triangles : numpy.ndarray
        ax, bx, by, cx, cy, cz of the canonical cells in angstrom, shape (S, 6), float32.
    """

    ids: np.ndarray
    formulas: np.ndarray
    splits: np.ndarray
    sources: np.ndarray
    space_groups: np.ndarray
    num_atoms: np.ndarray
    formation_energy_per_atom: np.ndarray
    e_above_hull: np.ndarray
    band_gap: np.ndarray
    numbers: np.ndarray
    grid_coords: np.ndarray
    triangles: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"KnownPhases({len(self)} crystals of the Materials Project)"

    @cached_property
    def offsets(self) -> np.ndarray:
        """Place of the first atom of each, shape (S + 1,)."""
        return np.concatenate([[0], np.cumsum(self.num_atoms)])

    @cached_property
    def cells(self) -> np.ndarray:
        """Canonical lattice vectors as rows in angstrom, shape (S, 3, 3), float64."""
        cells = np.zeros((len(self), 3, 3))
        cells[:, *np.tril_indices(3)] = self.triangles
        return cells

    @cached_property
    def element_sets(self) -> list[frozenset[int]]:
        """Atomic numbers that occur in each."""
        return [frozenset(part.tolist()) for part in np.split(self.numbers, self.offsets[1:-1])]

    @cached_property
    def chemical_systems(self) -> np.ndarray:
        """Symbols in alphabetical order, ``"Fe-O"``, shape (S,), str."""
        from ase.data import chemical_symbols

        names = {
            elements: "-".join(sorted(chemical_symbols[z] for z in elements))
            for elements in set(self.element_sets)
        }
        return np.array([names[elements] for elements in self.element_sets])

    def system(self, i: int) -> AtomicSystem:
        """Return one crystal in canonical form, with ``id`` in its ``info``."""
        atoms = slice(self.offsets[i], self.offsets[i] + self.num_atoms[i])
        positions = _fractions(self.grid_coords[atoms]) @ self.cells[i]
        info = {"id": str(self.ids[i])}
        return AtomicSystem(self.numbers[atoms].astype(np.int64), positions, self.cells[i], info)

    def select(
        self,
        splits: Sequence[str] = SPLITS,
        *,
        space_group: int | None = None,
        elements: Iterable[str] | None = None,
        num_atoms: int | None = None,
        formula: str | None = None,
    ) -> np.ndarray:
        """Find the crystals that fit all that is given.

        Parameters
        ----------
        splits : sequence of str
            Some of ``"train"``, ``"val"``, ``"test"``.
        space_group : int, optional
            Number of the space group.
        elements : iterable of str, optional
            Symbols; crystals hold these or some of these, and no other.
        num_atoms : int, optional
            Atoms in the primitive cell.
        formula : str, optional
            In any form: ``"Fe4O6"`` finds Fe2O3.

        Returns
        -------
        numpy.ndarray
            Their places, ascending, integers.

        Raises
        ------
        ValueError
            If there is no such split, element or formula.
        """
        found = np.isin(self.splits, _checked(splits))
        if space_group is not None:
            found &= self.space_groups == space_group
        if num_atoms is not None:
            found &= self.num_atoms == num_atoms
        if formula is not None:
            found &= self.formulas == reduced_formula(formula)
        if elements is not None:
            asked = _numbers(elements)
            found &= np.fromiter((e <= asked for e in self.element_sets), bool, len(self))
        return np.flatnonzero(found)

    def dataset(self, indices: Sequence[int] | np.ndarray | None = None) -> AtomicDataset:
        """Return crystals, by default all, as a data set with labels and space groups."""
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        atoms = np.concatenate([np.arange(*self.offsets[i : i + 2]) for i in chosen])
        owner = np.repeat(chosen, self.num_atoms[chosen])
        positions = np.einsum("ni,nij->nj", _fractions(self.grid_coords[atoms]), self.cells[owner])
        return AtomicDataset(
            self.numbers[atoms],
            positions,
            self.cells[chosen],
            self.num_atoms[chosen],
            self.ids[chosen],
            "known phases",
            labels={name: getattr(self, name)[chosen] for name in LABELS},
            space_groups=self.space_groups[chosen],
        )


@dataclass(frozen=True, eq=False)
class KnownMolecules:
    """Molecules of QM9 by their canonical SMILES, in the order of ``load_qm9("all")``.

    Parameters
    ----------
    smiles : tuple of str
        Canonical SMILES as RDKit of ``rdkit_version`` writes them.
    numbers : numpy.ndarray
        N of each id ``gdb_N``, shape (S,).
    rdkit_version : str
        Other versions may write a few molecules otherwise.
    """

    smiles: tuple[str, ...]
    numbers: np.ndarray
    rdkit_version: str

    def __len__(self) -> int:
        return len(self.smiles)

    def select(self, splits: Sequence[str] = SPLITS) -> Iterator[tuple[str, str]]:
        """Go through ``(id, smiles)`` of some of the splits of :func:`~.qm9.qm9_split`.

        Raises
        ------
        ValueError
            If there is no such split.
        """
        parts = [qm9_split(split, len(self)) for split in _checked(splits)]
        rows = np.sort(np.concatenate(parts))
        return ((f"gdb_{self.numbers[i]}", self.smiles[i]) for i in rows)


@lru_cache(maxsize=1)
def known_phases() -> KnownPhases:
    """Load the known crystals: 50 milliseconds at the first call, none at the next."""
    with np.load(CRYSTALS, allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files}
    for name in ("ids", "formulas"):
        columns[name] = np.array(_lines(columns[name]))
    columns["splits"] = np.array(SPLITS)[columns["splits"]]
    columns["sources"] = columns.pop("source_names")[columns["sources"]]
    columns["num_atoms"] = columns["num_atoms"].astype(np.int64)
    return KnownPhases(**columns)


@lru_cache(maxsize=1)
def known_molecules() -> KnownMolecules:
    """Load the known molecules: 0.1 seconds at the first call, none at the next."""
    with np.load(MOLECULES, allow_pickle=False) as file:
        return KnownMolecules(
            tuple(_lines(file["smiles"])), np.cumsum(file["steps"]), str(file["rdkit_version"])
        )


def is_known(source: object) -> bool:
    """Whether a source of structures is named ``"known"`` or ``"known:SPLIT"``."""
    return isinstance(source, str) and source.partition(":")[0] == KNOWN


def without_none(sources: str | Sequence[Any] | None) -> list[Any]:
    """Return sources as a list, empty if they are ``None`` or ``"none"``.

    Raises
    ------
    ValueError
        If ``"none"`` stands among others.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources or [])
    if not any(isinstance(source, str) and source == NONE for source in given):
        return given
    if len(given) > 1:
        raise ValueError(f"{NONE!r} stands alone, got {given}")
    return []


def known_splits(source: str | Path) -> list[str]:
    """Return the splits that ``"known"`` (all) or ``"known:SPLIT"`` names.

    Raises
    ------
    ValueError
        If there is no such split.
    """
    _, colon, split = str(source).partition(":")
    return _checked([split] if colon else SPLITS)


def known_table(splits: Sequence[str] = SPLITS) -> pd.DataFrame:
    """Return formula, source and properties of known crystals, indexed by ``material_id``."""
    import pandas as pd

    known = known_phases()
    chosen = known.select(splits)
    columns = {"formula": known.formulas, "source": known.sources}
    columns |= {name: getattr(known, name).astype(float) for name in LABELS}
    table = pd.DataFrame({name: values[chosen] for name, values in columns.items()})
    return table.set_index(pd.Index(known.ids[chosen], name="material_id"))


def reduced_formula(given: Composition | str) -> str:
    """Write the reduced formula of a composition as pymatgen does: ``"Fe2O3"`` of ``"Fe4 O6"``.

    Raises
    ------
    ValueError
        If it is no formula, or an empty one.
    """
    from pymatgen.core import Composition

    composition = Composition(given).element_composition
    if not composition:
        raise ValueError("it is empty")
    with warnings.catch_warnings():  # that noble gases have no electronegativity to sort by
        warnings.simplefilter("ignore")
        return composition.reduced_formula


def _checked(splits: str | Sequence[str]) -> list[str]:
    splits = [splits] if isinstance(splits, str) else list(splits)
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise ValueError(f"known phases have the splits {', '.join(SPLITS)}, got {unknown}")
    return splits


def _fractions(grid: np.ndarray) -> np.ndarray:
    fractions = grid / GRID
    return fractions - np.floor(fractions + WRAP_CUT)


def _lines(text: np.ndarray) -> list[str]:
    """Texts that are packed as bytes, one a line; NumPy's own strings compress worse."""
    return text.tobytes().decode("ascii").split("\n")


def _numbers(symbols: Iterable[str]) -> frozenset[int]:
    from ase.data import atomic_numbers

    symbols = [symbols] if isinstance(symbols, str) else list(symbols)
    if unknown := [symbol for symbol in symbols if symbol not in atomic_numbers]:
        raise ValueError(f"no element {unknown[0]!r}")
    return frozenset(atomic_numbers[symbol] for symbol in symbols)
