"""Atom counts as text, for the command line and for JSON: ``12``, ``4-12`` or ``4,5,6``."""

from __future__ import annotations

import re
from collections.abc import Sequence

AtomCounts = int | tuple[int, int] | list[int] | None


def parse_atom_counts(text: str) -> int | tuple[int, int] | list[int]:
    """Read the atom counts that :meth:`adit_model.model.ADiT.sample` is to use.

    Parameters
    ----------
    text : str
        ``"12"`` (all samples), ``"4-12"`` (a range, ends included) or ``"4,5,6"`` (one for each
        sample).

    Raises
    ------
    ValueError
        If it is none of these.
    """
    text = text.strip()
    if re.fullmatch(r"\d+", text):
        return int(text)
    if match := re.fullmatch(r"(\d+)\s*-\s*(\d+)", text):
        return int(match[1]), int(match[2])
    if re.fullmatch(r"\d+(\s*,\s*\d+)+", text):
        return [int(part) for part in text.split(",")]
    raise ValueError(
        f"atom counts must be a number (12), a range (4-12) or a list (4,5,6), got {text!r}"
    )


def format_atom_counts(counts: int | Sequence[int] | None) -> str | None:
    """Write atom counts as :func:`parse_atom_counts` reads them; None stays None."""
    if counts is None:
        return None
    if isinstance(counts, tuple):
        return "-".join(str(count) for count in counts)
    if isinstance(counts, Sequence):
        return ",".join(str(count) for count in counts)
    return str(counts)
