"""From structures of any origin to training data: filtered, without duplicates, split."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.data.checks import reason_kind
from adit_model.data.dataset import AtomicDataset
from adit_model.data.duplicates import find_duplicates
from adit_model.files import csv_cell, write_atomic

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Preparation:
    """What is kept of the structures that were read, and how it is divided.

    Parameters
    ----------
    min_atoms, max_atoms : int, int or None
        Smallest and largest number of atoms in a cell or molecule.
    elements : tuple of str or None
        Symbols a structure may hold; None allows all.
    exclude_elements : tuple of str
        Symbols it may not hold.
    deduplicate : bool
        Keep the first of equal structures; see :func:`~adit_model.data.duplicates.find_duplicates`.
    tolerance : float
        Relative difference of distances up to which two structures are equal.
    validation_fraction, test_fraction : float
        Share of the compositions that are held out.
    seed : int
        Of the split. A composition stays on its side when data are added.
    """

    min_atoms: int = 1
    max_atoms: int | None = None
    elements: tuple[str, ...] | None = None
    exclude_elements: tuple[str, ...] = ()
    deduplicate: bool = True
    tolerance: float = 0.01
    validation_fraction: float = 0.1
    test_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        from ase.data import atomic_numbers

        if self.min_atoms < 1:
            raise ValueError(f"min_atoms must be a positive integer, got {self.min_atoms}")
        if self.max_atoms is not None and self.max_atoms < self.min_atoms:
            raise ValueError(
                f"max_atoms must be at least min_atoms={self.min_atoms}, got {self.max_atoms}"
            )
        for symbol in (*(self.elements or ()), *self.exclude_elements):
            if symbol not in atomic_numbers or symbol == "X":
                raise ValueError(f"no element has the symbol {symbol!r}")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {self.tolerance}")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"validation_fraction {self.validation_fraction} and test_fraction "
                f"{self.test_fraction} leave nothing to train on"
            )


@dataclass
class Prepared:
    """The parts of the data, and what was left out.

    Parameters
    ----------
    parts : dict
        ``"train"`` and, where they are not empty, ``"validation"`` and ``"test"``.
    read : int
        Entries of the sources, readable or not.
    dropped : list of tuple
        ``(id, reason)`` of each entry that was left out.
    """

    parts: dict[str, AtomicDataset]
    read: int
    dropped: list[tuple[str, str]]

    def reasons(self) -> dict[str, int]:
        """Count what was dropped by kind of reason, numbers and names left out."""
        kinds = Counter(reason_kind(reason) for _, reason in self.dropped)
        return dict(kinds.most_common())

    def report(self) -> str:
        """Say in a few lines what was kept, and what was dropped and why."""
        kept = sum(len(part) for part in self.parts.values())
        lines = [f"{self.read:,} entries read, {kept:,} kept, {len(self.dropped):,} dropped"]
        for name, part in self.parts.items():
            crystals = int(part.periodic.sum())
            lines.append(
                f"{name}: {len(part):,} ({crystals:,} crystals, {len(part) - crystals:,} molecules)"
            )
        examples: dict[str, tuple[str, str]] = {}
        for name, reason in self.dropped:
            examples.setdefault(reason_kind(reason), (name, reason))
        for kind, count in self.reasons().items():
            name, reason = examples[kind]
            lines.append(f"dropped: {count:,} like {name}: {reason}")
        return "\n".join(lines)

    def write(self, folder: Path) -> dict[str, Path]:
        """Write each part as ``NAME.npz``, ``report.txt`` and ``dropped.csv``.

        Returns
        -------
        dict
            The array file of each part.
        """
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: folder / f"{name}.npz" for name in self.parts}
        for name, path in paths.items():
            self.parts[name].save(path)
        write_atomic(folder / "report.txt", self.report() + "\n")
        table = io.StringIO(newline="")
        csv.writer(table).writerows(
            [("id", "reason"), *(tuple(map(csv_cell, entry)) for entry in self.dropped)]
        )
        write_atomic(folder / "dropped.csv", table.getvalue())
        return paths


def prepare(
    datasets: Sequence[AtomicDataset],
    options: Preparation | None = None,
    name: str | None = None,
) -> Prepared:
    """Filter structures, leave out duplicates and split by composition.

    Parameters
    ----------
    datasets : sequence of AtomicDataset
        What was read; of equal structures that of the first data set stays.
    options : Preparation, optional
        What is kept.
    name : str, optional
        Name of the data, by default those of the data sets.

    Raises
    ------
    ValueError
        If nothing is left to train on.
    """
    options = options or Preparation()
    joined = concatenate(datasets, name)
    dropped = list(joined.skipped)
    kept = []
    for i in range(len(joined)):
        reason = _unwanted(joined, i, options)
        if reason is None:
            kept.append(i)
        else:
            dropped.append((str(joined.ids[i]), reason))
    if options.deduplicate and kept:
        wanted = joined.subset(kept)
        originals = find_duplicates(wanted, options.tolerance)
        for k, original in originals.items():
            dropped.append((str(wanted.ids[k]), f"equal to {wanted.ids[original]}"))
        kept = [i for k, i in enumerate(kept) if k not in originals]
    sides: dict[str, list[int]] = defaultdict(list)
    for i in kept:
        atoms = joined.numbers[joined.offsets[i] : joined.offsets[i + 1]]
        sides[_side(composition(atoms), options)].append(i)
    prepared = Prepared(
        {
            side: joined.subset(sides[side], f"{joined.name} {side}")
            for side in SPLITS
            if sides[side]
        },
        len(joined) + len(joined.skipped),
        dropped,
    )
    if "train" not in prepared.parts:
        raise ValueError(f"nothing is left to train on\n{prepared.report()}")
    return prepared


def concatenate(datasets: Sequence[AtomicDataset], name: str | None = None) -> AtomicDataset:
    """Join data sets in order; labels that one of them lacks are NaN there.

    Raises
    ------
    ValueError
        If there are none.
    """
    if not datasets:
        raise ValueError("there are no data to join")
    names = dict.fromkeys(key for part in datasets for key in part.labels)
    return AtomicDataset(
        numbers=np.concatenate([part.numbers for part in datasets]),
        positions=np.concatenate([part.positions for part in datasets]),
        cells=np.concatenate([part.cells for part in datasets]),
        sizes=np.concatenate([part.sizes for part in datasets]),
        ids=np.concatenate([part.ids for part in datasets]),
        name=" + ".join(part.name for part in datasets) if name is None else name,
        skipped=[entry for part in datasets for entry in part.skipped],
        labels={key: np.concatenate([_label(part, key) for part in datasets]) for key in names},
        space_groups=np.concatenate([part.space_groups for part in datasets]),
    )


def check_labels(dataset: AtomicDataset, names: Sequence[str]) -> None:
    """Make sure that a data set has labels.

    Raises
    ------
    ValueError
        If no system has a number of that name; the text lists the names that there are.
    """
    there = sorted(name for name, values in dataset.labels.items() if np.isfinite(values).any())
    for name in names:
        if name not in there:
            raise ValueError(
                f"no system of {dataset.name or 'the data'} has a number named {name!r}; "
                f"there are {', '.join(there) or 'none'}"
            )


def _label(dataset: AtomicDataset, name: str) -> np.ndarray:
    unknown = np.full(len(dataset), np.nan, dtype=np.float32)
    return dataset.labels.get(name, unknown)


def composition(numbers: np.ndarray) -> str:
    """Reduced formula as text, the same for a cell and its supercell: ``"8-1,22-1"``."""
    elements, counts = np.unique(numbers, return_counts=True)
    divisor = np.gcd.reduce(counts)
    return ",".join(f"{z}-{n // divisor}" for z, n in zip(elements, counts, strict=True))


def _side(formula: str, options: Preparation) -> str:
    digest = hashlib.sha256(f"{options.seed}|{formula}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < options.validation_fraction:
        return "validation"
    return "test" if place < options.validation_fraction + options.test_fraction else "train"


def _unwanted(dataset: AtomicDataset, i: int, options: Preparation) -> str | None:
    from ase.data import chemical_symbols

    size = int(dataset.sizes[i])
    if size < options.min_atoms:
        return f"{size} atoms, fewer than min_atoms={options.min_atoms}"
    if options.max_atoms is not None and size > options.max_atoms:
        return f"{size} atoms, more than max_atoms={options.max_atoms}"
    numbers = dataset.numbers[dataset.offsets[i] : dataset.offsets[i + 1]]
    symbols: list[Any] = [chemical_symbols[z] for z in np.unique(numbers)]
    for symbol in symbols:
        if symbol in options.exclude_elements or (
            options.elements is not None and symbol not in options.elements
        ):
            return f"holds {symbol}"
    return None
