"""Distances between distributions of a sample set and of reference data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from adit_model.quality.coverage import coverage
from adit_model.quality.crystals import crystal_system
from adit_model.quality.tables import spread
from adit_model.systems import CRYSTAL

MIN_SHARE = 0.01  # of all bonds or angles, for a kind to have a line of its own

# (column, unit)
CRYSTAL_NUMBERS = (
    ("density", "g/cm^3"),
    ("volume_per_atom", "cubic angstrom"),
    ("num_elements", ""),
    ("num_atoms", ""),
)
MOLECULE_NUMBERS = (("num_atoms", ""), ("num_bonds", ""), ("num_rings", ""), ("num_fragments", ""))


def wasserstein(first: Sequence[float], second: Sequence[float]) -> float | None:
    """First Wasserstein distance of two samples, in their unit; None if one is empty."""
    from scipy.stats import wasserstein_distance

    if not len(first) or not len(second):
        return None
    return float(wasserstein_distance(first, second))


def total_variation(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Half the sum of the differences of all shares, 0 to 1; None if one sample is empty."""
    if not len(first) or not len(second):
        return None
    shares = [
        {key: n / len(sample) for key, n in Counter(sample).items()} for sample in (first, second)
    ]
    keys = set(shares[0]) | set(shares[1])
    return 0.5 * sum(abs(shares[0].get(key, 0) - shares[1].get(key, 0)) for key in keys)


def compare(
    domain: str,
    samples: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    num_samples: int | None = None,
) -> dict[str, Any]:
    """Compare measured samples to measured reference structures.

    Parameters
    ----------
    domain : str
        ``"crystal"`` or ``"molecule"``.
    samples, reference : sequence of dict
        Results of the measures that describe; texts in place of numbers are passed over.
    num_samples : int, optional
        All samples, those without a structure included, which cover nothing.

    Returns
    -------
    dict
        ``"wasserstein"``: distance of each number, and ``"means"`` of both sides. Crystals:
        ``"total_variation"`` of space groups and crystal systems, both sides'
        ``"crystal_systems"`` as shares, and where it was measured ``"coverage"``: ``"precision"``
        and ``"recall"``. Molecules:
        ``"bond_lengths"`` (angstrom) and ``"angles"`` (degrees): distances by kind, those that
        make up a hundredth of the reference, with ``"mean"`` weighted by their share there.
    """
    columns = CRYSTAL_NUMBERS if domain == CRYSTAL else MOLECULE_NUMBERS
    result: dict[str, Any] = {
        "samples": len(samples),
        "reference": len(reference),
        "wasserstein": {
            name: wasserstein(numbers(samples, name), numbers(reference, name))
            for name, _ in columns
        },
        "means": {
            side: {name: spread(numbers(rows, name)).get("mean") for name, _ in columns}
            for side, rows in (("samples", samples), ("reference", reference))
        },
    }
    if domain == CRYSTAL:
        groups = [[int(n) for n in numbers(rows, "space_group")] for rows in (samples, reference)]
        systems = [[crystal_system(n) for n in side] for side in groups]
        result["total_variation"] = {
            "space_group": total_variation(*groups),
            "crystal_system": total_variation(*systems),
        }
        result["crystal_systems"] = {
            side: {name: n / len(found) for name, n in Counter(found).items()}
            for side, found in zip(("samples", "reference"), systems, strict=True)
        }
        taken = [
            [row for row in side if row.get("fingerprint") is True] for side in (samples, reference)
        ]
        found = coverage(taken[0], taken[1], num_samples or len(samples))
        if found is not None:
            result["coverage"] = found
        return result
    for name in ("bond_lengths", "angles"):
        result[name] = _by_kind(_pooled(samples, name), _pooled(reference, name))
    return result


def numbers(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    """Values of a column that are numbers."""
    values = (row.get(column) for row in rows)
    return [value for value in values if isinstance(value, int | float)]


def _pooled(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[float]]:
    pooled: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for kind, values in (row.get(name) or {}).items():
            pooled[kind] += values
    return pooled


def _by_kind(
    samples: Mapping[str, list[float]], reference: Mapping[str, list[float]]
) -> dict[str, float | None]:
    total = sum(map(len, reference.values()))
    common = sorted(
        (kind for kind, values in reference.items() if len(values) >= MIN_SHARE * total),
        key=lambda kind: -len(reference[kind]),
    )
    found = {kind: wasserstein(samples.get(kind, []), reference[kind]) for kind in common}
    known = {kind: value for kind, value in found.items() if value is not None}
    weights = np.array([len(reference[kind]) for kind in known])
    mean = float(np.average(list(known.values()), weights=weights)) if known else None
    return {"mean": mean, **found}
