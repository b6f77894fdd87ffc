"""Checks that every reader of structures shares: what is refused, and what is doubtful."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from adit_model.systems import AtomicSystem

logger = logging.getLogger(__name__)

ONE_SPOT = 0.3  # angstrom: below it two atoms are on one spot
WIDE_GAP = 10.0  # angstrom without an atom: more than layered crystals have between layers
MAX_ID = 200  # characters of an id; longer ones are cut
MAX_REASON = 500  # characters
MAX_KINDS = 5  # of reasons in a warning
VACUUM = "have a wide gap: a slab, wire or molecule in vacuum is no crystal"
NO_HYDROGEN = "seem to lack hydrogens"
CHARGED = "have a charge: the bundled weights know neutral molecules only"
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def overlap(system: AtomicSystem) -> str | None:
    """Say which two atoms are on one spot, None if there are none.

    Parameters
    ----------
    system : AtomicSystem
        Of a crystal, the cell should be reduced.
    """
    from ase.data import chemical_symbols
    from scipy.spatial import cKDTree

    if system.cell is None:
        pairs = cKDTree(system.positions).query_pairs(ONE_SPOT, output_type="ndarray")
        vectors = system.positions[pairs[:, 0]] - system.positions[pairs[:, 1]]
    else:
        frac = system.frac_coords % 1.0 % 1.0
        heights = 1.0 / np.linalg.norm(np.linalg.inv(system.cell), axis=0)
        tree = cKDTree(frac, boxsize=1.0)
        reach = min(ONE_SPOT * np.sqrt(3) / float(heights.min()), 0.49)
        pairs = tree.query_pairs(reach, output_type="ndarray")
        between = frac[pairs[:, 0]] - frac[pairs[:, 1]]
        vectors = (between - np.round(between)) @ system.cell
    distances = np.linalg.norm(vectors, axis=1)
    if not len(distances) or distances.min() >= ONE_SPOT:
        return None
    first, second = pairs[distances.argmin()]
    names = [chemical_symbols[system.numbers[i]] for i in (first, second)]
    return f"{names[0]} and {names[1]} are {distances.min():.2f} angstrom apart: on one spot"


def doubts(system: AtomicSystem) -> list[tuple[str, str]]:
    """List what is doubtful about a structure: a kind, and what was seen.

    Parameters
    ----------
    system : AtomicSystem
        As it was read.

    Returns
    -------
    list of tuple
        A gap of :data:`WIDE_GAP` or more across a crystal; a molecule without hydrogens whose
        carbon has a free valence; a charge.
    """
    found = []
    if system.cell is not None:
        heights = 1.0 / np.linalg.norm(np.linalg.inv(system.cell), axis=0)
        gaps = np.zeros(3)
        for axis in np.flatnonzero(heights >= WIDE_GAP):
            places = np.sort(system.frac_coords[:, axis] % 1.0)
            gaps[axis] = heights[axis] * np.diff([*places, places[0] + 1.0]).max()
        if (widest := int(gaps.argmax())) >= 0 and gaps[widest] >= WIDE_GAP:
            found.append((VACUUM, f"a gap of {gaps[widest]:.1f} angstrom along {'abc'[widest]}"))
        return found
    if lacks_hydrogens(system):
        found.append((NO_HYDROGEN, f"{system.formula} has carbon with a free valence"))
    if system.charge:
        found.append((CHARGED, f"{system.formula} has {system.charge:+d}"))
    return found


def lacks_hydrogens(system: AtomicSystem) -> bool:
    """Whether a molecule without hydrogen has a carbon atom that its neighbours cannot fill.

    It has fewer than three of them, of the second row, none nearer than a double bond.
    """
    carbon = system.positions[system.numbers == 6]
    if (system.numbers > 10).any():
        return False
    if len(system) < 3 or not len(carbon) or (system.numbers == 1).any():
        return False
    distances = np.linalg.norm(carbon[:, None] - system.positions[None], axis=-1)
    distances[distances < 1e-6] = np.inf
    lone = (distances < 1.9).sum(axis=1) < 3
    return bool((lone & (distances.min(axis=1) > 1.28)).any())


def clean_id(text: object) -> str:
    """Bring an id into one printable line of at most :data:`MAX_ID` characters."""
    return printable(str(text)[:MAX_ID])


def printable(text: str) -> str:
    """Replace what steers a terminal in a text of foreign origin, line ends included, by ``?``."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def clean_reason(text: str) -> str:
    """Bring a reason into one printable line of at most :data:`MAX_REASON` characters."""
    return printable(" ".join(text[: 2 * MAX_REASON].split())[:MAX_REASON])


def reason_kind(reason: str) -> str:
    """Reason without its numbers and names, so that equal ones can be counted."""
    for start in ("equal to", "holds"):
        if reason.startswith(start + " "):
            return start
    return _NUMBER.sub("#", reason)


def warn_doubts(name: str, total: int, found: Sequence[tuple[str, str, str]]) -> None:
    """Log one warning for each kind of doubt, with the number and the first; see :func:`doubts`.

    Parameters
    ----------
    name : str
        Of the source.
    total : int
        Structures that were read.
    found : sequence of tuple
        Id, kind and what was seen.
    """
    counts = Counter(kind for _, kind, _ in found)
    for kind, count in counts.items():
        first, seen = next((i, text) for i, other, text in found if other == kind)
        logger.warning("%s: %d of %d %s (%s: %s)", name, count, total, kind, first, seen)


def warn_unread(source: object, total: int, unread: Sequence[tuple[str, str]]) -> None:
    """Log one warning that counts what could not be read by reason, if anything."""
    if not unread:
        return
    examples: dict[str, tuple[str, str]] = {}
    for name, reason in unread:
        examples.setdefault(reason_kind(reason), (name, reason))
    counts = Counter(reason_kind(reason) for _, reason in unread).most_common(MAX_KINDS)
    lines = [f"{n} like {examples[kind][0]}: {examples[kind][1]}" for kind, n in counts]
    if len(examples) > MAX_KINDS:
        lines.append(f"{len(examples) - MAX_KINDS} more kinds")
    logger.warning(
        "%s: %d of %d entries could not be read (see .skipped): %s",
        source,
        len(unread),
        total,
        "; ".join(lines),
    )
