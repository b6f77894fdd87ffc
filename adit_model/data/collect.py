"""Pack systems into a data set in canonical form, with a list of what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from adit_model.canonical import canonicalise
from adit_model.data.checks import (
    clean_id,
    clean_reason,
    doubts,
    overlap,
    warn_doubts,
    warn_unread,
)
from adit_model.data.dataset import AtomicDataset
from adit_model.systems import AtomicSystem

NO_LABELS = ("id", "index", "seed", "nsites", "num_sites", "natoms", "spacegroup")  # no properties


def collect(
    items: Iterable[tuple[str, AtomicSystem | str]],
    name: str,
    max_atoms: int | None = None,
    canonical: bool = False,
) -> AtomicDataset:
    """Bring named systems into canonical form and pack them, in single precision.

    All readers of files, stores and objects end here, so that one structure has the same arrays
    wherever it comes from; see :func:`~adit_model.canonical.canonicalise`. The numbers in the
    information of the systems become the labels of the data set.

    Parameters
    ----------
    items : iterable of tuple
        ``(id, system)``, or ``(id, reason)`` for what could not be read.
    name : str
        Name of the data set.
    max_atoms : int, optional
        Leave out systems larger than that in canonical form (crystals: in the primitive cell);
        they are listed in ``skipped`` too.
    canonical : bool
        Whether the systems are in canonical form already.

    Raises
    ------
    ValueError
        If no system is left, or ``max_atoms`` is not positive.
    """
    check_max_atoms(max_atoms)
    numbers, positions, cells, sizes, ids = [], [], [], [], []
    unread, too_large, doubtful, infos = [], [], [], []
    no_cell = np.full((3, 3), np.nan, dtype=np.float32)
    for item_id, found in items:
        item_id = clean_id(item_id)
        item = found if canonical else canonical_item(found)
        if isinstance(item, str):
            unread.append((item_id, clean_reason(item)))
        elif max_atoms is not None and len(item) > max_atoms:
            too_large.append((item_id, too_large_reason(len(item), max_atoms)))
        else:
            numbers.append(item.numbers.astype(np.int16))
            positions.append(item.positions.astype(np.float32))
            cells.append(no_cell if item.cell is None else item.cell.astype(np.float32))
            sizes.append(len(item))
            ids.append(item_id)
            doubtful += [
                (item_id, *doubt) for doubt in doubts(item if isinstance(found, str) else found)
            ]
            infos.append(item.info)
    skipped = unread + too_large
    if not sizes:
        raise ValueError(f"{name} holds no system{_first(skipped)}")
    dataset = AtomicDataset(
        np.concatenate(numbers),
        np.concatenate(positions),
        np.stack(cells),
        np.array(sizes, dtype=np.int32),
        np.array(ids, dtype=np.str_),
        name,
        skipped,
        numeric_labels(infos),
    )
    warn_unread(name, len(skipped) + len(dataset), unread)
    warn_doubts(name, len(dataset), doubtful)
    return dataset


def numeric_labels(infos: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Columns of the numbers in information of S systems, NaN where one has none, shape (S,).

    Truth values, and what names or counts a system (:data:`NO_LABELS`), are left out.
    """
    labels: dict[str, np.ndarray] = {}
    for i, info in enumerate(infos):
        for key, value in info.items():
            if isinstance(value, np.ndarray) and value.ndim == 0:
                value = value.item()
            if not isinstance(value, Real) or isinstance(value, bool) or key in NO_LABELS:
                continue
            if key not in labels:
                labels[key] = np.full(len(infos), np.nan, dtype=np.float32)
            labels[key][i] = float(value)
    return labels


def canonical_item(item: AtomicSystem | str) -> AtomicSystem | str:
    """Canonical form of a system that was read, or why it has none; a reason stays as it is.

    Atoms on one spot are such a reason (:func:`~adit_model.data.checks.overlap`).
    """
    if isinstance(item, str):
        return item
    try:
        system = canonicalise(item).system
        _ = system.charge  # one that is no whole number is a reason, too
        return overlap(system) or system
    except ValueError as error:
        return str(error)


def check_max_atoms(max_atoms: int | None) -> None:
    """Raise ValueError unless ``max_atoms`` is None or positive."""
    if max_atoms is not None and max_atoms < 1:
        raise ValueError(f"max_atoms must be a positive integer, got {max_atoms}")


def too_large_reason(size: int, max_atoms: int) -> str:
    """Why a system of ``size`` atoms was left out."""
    return f"{size} atoms, more than max_atoms={max_atoms}"


def at_most(dataset: AtomicDataset, max_atoms: int) -> AtomicDataset:
    """Keep the systems of at most ``max_atoms`` atoms; the others are added to ``skipped``.

    Raises
    ------
    ValueError
        If none is left, or ``max_atoms`` is not positive.
    """
    check_max_atoms(max_atoms)
    small = dataset.sizes <= max_atoms
    if not small.any():
        raise ValueError(
            f"{dataset.name} has no system of at most {max_atoms} atoms, "
            f"the smallest has {dataset.sizes.min()}"
        )
    chosen = dataset.subset(np.flatnonzero(small))
    large = zip(dataset.ids[~small], dataset.sizes[~small], strict=True)
    chosen.skipped = dataset.skipped + [
        (str(name), too_large_reason(int(size), max_atoms)) for name, size in large
    ]
    return chosen


def _first(skipped: list[tuple[str, str]]) -> str:
    if not skipped:
        return ""
    return f"; {len(skipped)} skipped, the first, {skipped[0][0]}: {skipped[0][1]}"
