"""How well an autoencoder gives back what went in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adit_model.quality.crystals import space_group
from adit_model.quality.matching import distance, structure_matcher
from adit_model.quality.pool import run_isolated
from adit_model.quality.relax import kabsch_rmsd
from adit_model.quality.tables import spread, tally
from adit_model.systems import CRYSTAL, DOMAINS, AtomicSystem

PRECISIONS = (0.01, 0.1)  # angstrom, of the space group
# (key, label) of the rates, and (key, label, unit) of the numbers
RATES = (
    ("complete", "all elements right"),
    ("tight", "same crystal, tight matcher (ltol 0.05, stol 0.1, 5 degrees, volumes not scaled)"),
    ("loose", "same crystal, loose matcher (ltol 0.3, stol 0.5, 10 degrees, volumes scaled)"),
    *((f"space_group_{p:g}", f"space group kept, within {p:g} angstrom") for p in PRECISIONS),
)
NUMBERS = (
    ("rmsd", "RMSD after the best rotation", "angstrom"),
    ("volume_error", "volume error", "%"),
    ("distance", "RMS distance of the atoms of the same, loose", "(volume/atoms)^(1/3)"),
)


def evaluate_reconstruction(
    originals: Sequence[AtomicSystem],
    reconstructions: Sequence[AtomicSystem | None],
    *,
    workers: int = 1,
    time_limit: float = 60.0,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure how well systems came back from the autoencoder.

    A missing reconstruction, and a comparison of more than ``time_limit`` seconds, pass nothing.
    Validity by SMACT, which CDVAE asks of a match too, is not: one real crystal in ten fails it.

    Parameters
    ----------
    originals : sequence of AtomicSystem
        Crystals, molecules or both, not seen in training.
    reconstructions : sequence of AtomicSystem or None
        What ``ADiT.reconstruct`` made of them, atoms in the same order.
    workers : int
        Worker processes.
    time_limit : float
        Seconds for one structure.
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        Ready for JSON: ``"crystals"`` and ``"molecules"``, where there are any, each with
        ``count``, ``elements`` (share of all atoms), ``rates`` (see :data:`RATES`) and ``numbers``
        (``median`` and ``p90``, the 90th percentile, see :data:`NUMBERS`).

    Raises
    ------
    ValueError
        If the numbers of systems, or of atoms in a pair, differ.
    """
    if len(originals) == 0 or len(originals) != len(reconstructions):
        raise ValueError(
            f"need as many reconstructions as originals, got {len(reconstructions)} for "
            f"{len(originals)}"
        )
    pairs = list(zip(originals, reconstructions, strict=True))
    for i, (before, after) in enumerate(pairs):
        if after is not None and len(after) != len(before):
            raise ValueError(f"system {i} has {len(before)} atoms, its reconstruction {len(after)}")
    outcomes = run_isolated(
        compare_pair,
        pairs,
        time_limit=time_limit,
        workers=workers,
        prepare=structure_matcher,
        progress="reconstruction" if progress else None,
    )
    result: dict[str, Any] = {}
    for domain in DOMAINS:
        chosen = [i for i, system in enumerate(originals) if system.domain == domain]
        if chosen:
            cells = [outcomes[i].value or {} for i in chosen]
            atoms = sum(len(originals[i]) for i in chosen)
            result[f"{domain}s"] = {
                "count": len(chosen),
                "elements": tally(sum(cell.get("right", 0) for cell in cells), atoms),
                "rates": {
                    key: tally(sum(cell.get(key) is True for cell in cells), len(cells))
                    for key, _ in RATES
                    if domain == CRYSTAL or key == "complete"
                },
                "numbers": {
                    key: spread([cell[key] for cell in cells if cell.get(key) is not None])
                    for key, *_ in NUMBERS
                    if (key == "rmsd") is (domain != CRYSTAL)
                },
            }
    return result


def compare_pair(pair: tuple[AtomicSystem, AtomicSystem | None]) -> dict[str, Any]:
    """Compare one system to its reconstruction.

    Returns
    -------
    dict
        ``right``: atoms whose element is the same, ``complete``: all of them. Molecules: ``rmsd``
        in angstrom, atoms in order. Crystals: ``distance`` by the loose matcher, ``loose`` and
        ``tight``, ``volume_error`` in per cent, and ``space_group_P`` for each precision.
    """
    before, after = pair
    if after is None:
        return {}
    right = int((before.numbers == after.numbers).sum())
    cells: dict[str, Any] = {"right": right, "complete": right == len(before)}
    if not before.is_periodic:
        return {**cells, "rmsd": kabsch_rmsd(before.positions, after.positions)}
    loose = distance(after, before)
    cells |= {"distance": loose, "loose": loose is not None}
    cells["tight"] = cells["loose"] and distance(after, before, "tight") is not None
    cells["volume_error"] = 100 * abs(after.volume / before.volume - 1)
    for precision in PRECISIONS:
        cells[f"space_group_{precision:g}"] = _kept_group(before, after, precision)
    return cells


def _kept_group(before: AtomicSystem, after: AtomicSystem, precision: float) -> bool:
    try:
        return space_group(before, precision) == space_group(after, precision)
    except ValueError:
        return False
