"""The on-disk array format: many systems packed into a few NumPy arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adit_model.systems import AtomicSystem

FORMAT_VERSION = 1


@dataclass(eq=False)
class AtomicDataset:
    """S systems with A atoms in all, as arrays in memory.

    Parameters
    ----------
    numbers : numpy.ndarray
        Atomic numbers, shape (A,), int16.
    positions : numpy.ndarray
        Coordinates in angstrom, shape (A, 3), float32.
    cells : numpy.ndarray
        Lattice vectors as rows in angstrom, shape (S, 3, 3), float32; NaN for a molecule.
    sizes : numpy.ndarray
        Atoms of each system, shape (S,), int32.
    ids : numpy.ndarray
        Name of each system, shape (S,), str.
    name : str
        What this set is, for reports.
    skipped : list of tuple
        ``(id, reason)`` of what could not be parsed.

    Raises
    ------
    ValueError
        If the shapes do not belong together or the set is empty.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    sizes: np.ndarray
    ids: np.ndarray
    name: str = ""
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.sizes) == 0:
            raise ValueError(f"the data set {self.name!r} is empty{self._skip_note()}")
        if int(self.sizes.sum()) != len(self.numbers) or len(self.positions) != len(self.numbers):
            raise ValueError(
                f"sizes add up to {int(self.sizes.sum())} atoms, numbers hold {len(self.numbers)}, "
                f"positions {len(self.positions)}"
            )
        if len(self.cells) != len(self.sizes) or len(self.ids) != len(self.sizes):
            raise ValueError(
                f"{len(self.sizes)} systems, but {len(self.cells)} cells and {len(self.ids)} ids"
            )
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])

    def _skip_note(self) -> str:
        if not self.skipped:
            return ""
        name, reason = self.skipped[0]
        return f" ({len(self.skipped)} rows could not be parsed; the first, {name}: {reason})"

    @property
    def periodic(self) -> np.ndarray:
        """Which systems are crystals, shape (S,), bool."""
        return np.isfinite(self.cells[:, 0, 0])

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, i: int) -> AtomicSystem:
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is out of range for {len(self)} systems")
        i %= len(self)
        atoms = slice(self.offsets[i], self.offsets[i + 1])
        cell = self.cells[i] if np.isfinite(self.cells[i, 0, 0]) else None
        return AtomicSystem(
            self.numbers[atoms].astype(np.int64),
            self.positions[atoms],
            cell,
            {"id": str(self.ids[i])},
        )

    def __iter__(self) -> Iterator[AtomicSystem]:
        return (self[i] for i in range(len(self)))

    def subset(self, indices: Sequence[int] | np.ndarray, name: str | None = None) -> AtomicDataset:
        """Return the systems at ``indices``, in that order.

        Raises
        ------
        ValueError
            If there are none.
        """
        indices = np.asarray(indices, dtype=np.int64)
        atoms = (
            np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices])
            if len(indices)
            else np.zeros(0, dtype=np.int64)
        )
        return AtomicDataset(
            self.numbers[atoms],
            self.positions[atoms],
            self.cells[indices],
            self.sizes[indices],
            self.ids[indices],
            self.name if name is None else name,
        )

    @classmethod
    def from_systems(
        cls,
        systems: Iterable[AtomicSystem],
        name: str = "",
        skipped: list[tuple[str, str]] | None = None,
    ) -> AtomicDataset:
        """Pack systems; each is named by ``info["id"]`` or its index."""
        systems = list(systems)
        nan_cell = np.full((3, 3), np.nan)
        empty = not systems
        return cls(
            np.concatenate([s.numbers for s in systems]).astype(np.int16)
            if not empty
            else np.zeros(0, np.int16),
            np.concatenate([s.positions for s in systems]).astype(np.float32)
            if not empty
            else np.zeros((0, 3), np.float32),
            np.stack([nan_cell if s.cell is None else s.cell for s in systems]).astype(np.float32)
            if not empty
            else np.zeros((0, 3, 3), np.float32),
            np.array([len(s) for s in systems], dtype=np.int32),
            np.array([str(s.info.get("id", i)) for i, s in enumerate(systems)]),
            name,
            list(skipped or []),
        )

    def save(self, path: str | Path) -> None:
        """Write to one ``.npz`` file, atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with open(partial, "wb") as file:
            np.savez(
                file,
                version=np.array(FORMAT_VERSION),
                numbers=self.numbers,
                positions=self.positions,
                cells=self.cells,
                sizes=self.sizes,
                ids=self.ids,
                name=np.array(self.name),
                skipped=np.array(self.skipped, dtype=np.str_).reshape(-1, 2),
            )
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> AtomicDataset:
        """Read a file written by :meth:`save`, all of it into memory.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not such a file, or of a newer format.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no data file {path}")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            version = int(arrays.pop("version"))
            skipped = [(str(a), str(b)) for a, b in arrays.pop("skipped")]
            name = str(arrays.pop("name"))
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path} is no array file of this package: {error}") from error
        if version > FORMAT_VERSION:
            raise ValueError(
                f"{path} has data format {version}, this version reads up to {FORMAT_VERSION}: "
                "update adit-atomate"
            )
        return cls(**arrays, name=name, skipped=skipped)
