"""How well an autoencoder gives back what went in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adit_model.quality.crystals import structure_matcher
from adit_model.quality.pool import run_isolated
from adit_model.systems import AtomicSystem


@dataclass(frozen=True)
class CrystalMatch:
    """Agreement of crystals with their reconstructions.

    Parameters
    ----------
    rms_distances : numpy.ndarray
        Root-mean-square distance of the matched sites in units of (volume / atoms)^(1/3), shape
        (N,); NaN where the structure matcher finds no match.
    """

    rms_distances: np.ndarray

    @property
    def match_rate(self) -> float:
        """Share of all crystals that match, 0 to 1."""
        return float(np.isfinite(self.rms_distances).mean())

    @property
    def rmse(self) -> float:
        """Mean normalised RMS distance of the crystals that match; NaN if none does."""
        matched = self.rms_distances[np.isfinite(self.rms_distances)]
        return float(matched.mean()) if len(matched) else float("nan")


def match_crystals(
    originals: Sequence[AtomicSystem],
    reconstructions: Sequence[AtomicSystem | None],
    *,
    workers: int = 1,
    time_limit: float = 30.0,
    progress: bool = False,
) -> CrystalMatch:
    """Compare crystals by pymatgen's structure matcher in the convention of CDVAE.

    Tolerances: stol 0.5, ltol 0.3, angle_tol 10 degrees. A pair without match, a missing
    reconstruction and a comparison of more than ``time_limit`` seconds count as mismatch. The
    validity of the reconstruction by SMACT, which CDVAE asks for too, is not needed: one real
    crystal in ten fails it.

    Raises
    ------
    ValueError
        If the numbers of crystals differ or there are none.
    """
    _check_pairs(originals, reconstructions)
    distances = np.full(len(originals), np.nan)
    present = [i for i, system in enumerate(reconstructions) if system is not None]
    outcomes = run_isolated(
        _rms_distance,
        [(originals[i], reconstructions[i]) for i in present],
        time_limit=time_limit,
        workers=workers,
        prepare=structure_matcher,
        progress="matching" if progress else None,
    )
    for i, outcome in zip(present, outcomes, strict=True):
        if outcome.value is not None:
            distances[i] = outcome.value
    return CrystalMatch(distances)


def _rms_distance(pair: tuple[AtomicSystem, AtomicSystem]) -> float | None:
    original, reconstruction = pair
    if reconstruction.volume / len(reconstruction) < 1e-3:
        return None
    found = structure_matcher().get_rms_dist(reconstruction.to_structure(), original.to_structure())
    return None if found is None else float(found[0])


def molecule_rmsd(
    originals: Sequence[AtomicSystem], reconstructions: Sequence[AtomicSystem | None]
) -> np.ndarray:
    """Root-mean-square deviation of each molecule after the best rigid motion, in angstrom.

    Kabsch alignment with a proper rotation (a mirror image does not match); atoms are compared in
    order, without permutation, whatever their elements.

    Returns
    -------
    numpy.ndarray
        Shape (N,); NaN where there is no reconstruction.

    Raises
    ------
    ValueError
        If the numbers of molecules, or of atoms in a pair, differ.
    """
    rmsd = np.full(len(originals), np.nan)
    for i, original, reconstruction in _pairs(originals, reconstructions):
        if reconstruction is not None:
            rmsd[i] = kabsch_rmsd(original.positions, reconstruction.positions)
    return rmsd


def kabsch_rmsd(first: np.ndarray, second: np.ndarray) -> float:
    """RMSD of two point sets after the best translation and proper rotation.

    Kabsch, Acta Cryst. A 32, 922 (1976).

    Parameters
    ----------
    first, second : numpy.ndarray
        Coordinates, shape (N, 3).
    """
    first = first - first.mean(axis=0)
    second = second - second.mean(axis=0)
    left, _, right = np.linalg.svd(second.T @ first)
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    return float(np.sqrt(np.mean(np.sum((second @ left @ right - first) ** 2, axis=1))))


def element_accuracy(
    originals: Sequence[AtomicSystem], reconstructions: Sequence[AtomicSystem | None]
) -> float:
    """Share of atoms whose element is reconstructed, 0 to 1; a missing system has none right.

    Raises
    ------
    ValueError
        If the numbers of systems, or of atoms in a pair, differ.
    """
    right = total = 0
    for _, original, reconstruction in _pairs(originals, reconstructions):
        total += len(original)
        if reconstruction is not None:
            right += int((original.numbers == reconstruction.numbers).sum())
    return right / total


def _check_pairs(originals: Sequence[object], reconstructions: Sequence[object]) -> None:
    if len(originals) == 0 or len(originals) != len(reconstructions):
        raise ValueError(
            f"need as many reconstructions as originals, got {len(reconstructions)} for "
            f"{len(originals)}"
        )


def _pairs(
    originals: Sequence[AtomicSystem], reconstructions: Sequence[AtomicSystem | None]
) -> Iterator[tuple[int, AtomicSystem, AtomicSystem | None]]:
    _check_pairs(originals, reconstructions)
    for i, (original, reconstruction) in enumerate(zip(originals, reconstructions, strict=True)):
        if reconstruction is not None and len(reconstruction) != len(original):
            raise ValueError(
                f"system {i} has {len(original)} atoms, its reconstruction {len(reconstruction)}"
            )
        yield i, original, reconstruction
