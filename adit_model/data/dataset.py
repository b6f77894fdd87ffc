"""The on-disk array format: many systems packed into a few NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.conditions.properties import property_name
from adit_model.files import atomic_path
from adit_model.systems import AtomicSystem

FORMAT_VERSION = 1
_KEYS = ("numbers", "positions", "cells", "sizes", "ids", "name", "skipped")


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
    labels : dict
        Scalar properties, each of shape (S,), float32; NaN where unknown. Names are kept as
        conditions write them, ``"K (GPa)"`` as ``"k_gpa"``.
    space_groups : numpy.ndarray, optional
        Numbers of the space groups, 0 where unknown and for molecules, shape (S,), int16.

    Raises
    ------
    ValueError
        If the set is empty, the shapes do not belong together, a system has no atoms or a
        coordinate is not finite.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    sizes: np.ndarray
    ids: np.ndarray
    name: str = ""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    space_groups: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if len(self.sizes) == 0:
            raise ValueError(f"the data set {self.name!r} is empty{self._skip_note()}")
        self.numbers = np.asarray(self.numbers, dtype=np.int16)
        self.positions = np.asarray(self.positions, dtype=np.float32)
        self.cells = np.asarray(self.cells, dtype=np.float32)
        self.sizes = np.asarray(self.sizes, dtype=np.int32)
        self.ids = np.asarray(self.ids, dtype=np.str_)  # an object array would be pickled
        n_systems, n_atoms = len(self.sizes), int(self.sizes.sum())
        if self.space_groups is None:
            self.space_groups = np.zeros(n_systems)
        self.space_groups = np.asarray(self.space_groups, dtype=np.int16)
        self.labels = {
            property_name(k): np.asarray(v, dtype=np.float32) for k, v in self.labels.items()
        }
        expected = {
            "numbers": (n_atoms,),
            "positions": (n_atoms, 3),
            "cells": (n_systems, 3, 3),
            "sizes": (n_systems,),
            "ids": (n_systems,),
        }
        for key, shape in expected.items():
            if getattr(self, key).shape != shape:
                raise ValueError(
                    f"{n_systems} systems with {n_atoms} atoms: {key} must have shape {shape}, "
                    f"got {getattr(self, key).shape}"
                )
        for key, values in {"space_groups": self.space_groups, **self.labels}.items():
            if values.shape != (n_systems,):
                raise ValueError(f"{key} must have shape ({n_systems},), got {values.shape}")
        if self.sizes.min() < 1:
            bad = int(self.sizes.argmin())
            raise ValueError(f"system {self.ids[bad]} has {self.sizes[bad]} atoms")
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])
        broken = np.flatnonzero(~np.isfinite(self.positions).all(axis=1))
        if len(broken):
            bad = int(np.searchsorted(self.offsets, broken[0], side="right")) - 1
            raise ValueError(
                f"system {self.ids[bad]}: positions must be finite, "
                f"got {self.positions[broken[0]].tolist()}"
            )

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
        info: dict[str, Any] = {"id": str(self.ids[i])}
        charge = self.labels["charge"][i] if "charge" in self.labels else 0.0
        if cell is None and np.isfinite(charge) and charge:
            info["charge"] = float(charge)
        return AtomicSystem(self.numbers[atoms].astype(np.int64), self.positions[atoms], cell, info)

    def __iter__(self) -> Iterator[AtomicSystem]:
        return (self[i] for i in range(len(self)))

    def subset(self, indices: Sequence[int] | np.ndarray, name: str | None = None) -> AtomicDataset:
        """Return the systems at ``indices`` (or of a boolean mask), in that order.

        Raises
        ------
        ValueError
            If there are none, or ``indices`` are neither integers nor a mask of every system.
        IndexError
            If an index is out of range.
        """
        indices = np.asarray(indices)
        if indices.dtype == np.bool_ and indices.shape == (len(self),):
            indices = np.flatnonzero(indices)
        if indices.ndim != 1 or (indices.size and not np.issubdtype(indices.dtype, np.integer)):
            raise ValueError(
                f"indices must be integers of shape (n,) or a mask of shape ({len(self)},), "
                f"got {indices.dtype} of shape {indices.shape}"
            )
        indices = indices.astype(np.int64)
        outside = indices[(indices < -len(self)) | (indices >= len(self))]
        if len(outside):
            raise IndexError(f"index {outside[0]} is out of range for {len(self)} systems")
        indices %= len(self)
        sizes = self.sizes[indices].astype(np.int64)
        starts = np.cumsum(sizes) - sizes
        atoms = np.repeat(self.offsets[indices] - starts, sizes) + np.arange(sizes.sum())
        return AtomicDataset(
            self.numbers[atoms],
            self.positions[atoms],
            self.cells[indices],
            self.sizes[indices],
            self.ids[indices],
            self.name if name is None else name,
            labels={key: values[indices] for key, values in self.labels.items()},
            space_groups=self.space_groups[indices],
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
        """Write to one ``.npz`` file, atomically: other readers see the old file or the new."""
        with atomic_path(path) as partial, open(partial, "wb") as file:
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
                space_groups=self.space_groups,
                label_names=np.array(list(self.labels), dtype=np.str_),
                label_values=np.array(list(self.labels.values()), dtype=np.float32),
            )

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
                version = int(file["version"])
                newer = version > FORMAT_VERSION
                arrays = {} if newer else {key: file[key] for key in _KEYS}
                if "label_names" in file:  # not in files of before
                    names, values = file["label_names"].tolist(), file["label_values"]
                    labels = dict(zip(names, values, strict=True))
                    arrays |= {"labels": labels, "space_groups": file["space_groups"]}
        except Exception as error:  # zipfile and NumPy raise any type on a damaged file
            raise ValueError(f"{path} is no array file of this package: {error}") from error
        if newer:
            raise ValueError(
                f"{path} has data format {version}, this version reads up to {FORMAT_VERSION}: "
                "update adit-atomate"
            )
        skipped = [(str(a), str(b)) for a, b in arrays.pop("skipped")]
        try:
            return cls(**{**arrays, "name": str(arrays["name"])}, skipped=skipped)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
