"""Markdown tables, and how numbers are written in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def table(header: Sequence[str], body: Sequence[Sequence[str]], texts: int = 0) -> list[str]:
    """Lines of a Markdown table, and an empty one after it; numbers to the right.

    Parameters
    ----------
    header, body : sequence
        Cells of the title line and of the others; the first column is text.
    texts : int
        How many of the last columns are text, too.
    """
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (header, *body)]
    rule = "|---" + "|---:" * (len(header) - 1 - texts) + "|---" * texts + "|"
    text = ["| " + " | ".join(row) + " |" for row in rows]
    return [text[0], rule, *text[1:], ""]


def share(rate: Mapping[str, Any] | None) -> str:
    """Write a rate with its counts."""
    if rate is None:
        return "-"
    return f"{100 * rate['share']:.1f} % ({rate['passed']}/{rate['of']})"


def percent(rate: Mapping[str, Any] | None) -> str:
    """Write a rate as a number."""
    return "-" if rate is None else f"{100 * rate['share']:.1f}"


def number(value: float | None) -> str:
    """Write a value with three digits."""
    return "-" if value is None else f"{value:.3g}"


def interval(rate: Mapping[str, Any] | None) -> str:
    """Write the 95 % interval of a share (Wilson, J. Am. Stat. Assoc. 22, 209, 1927)."""
    if rate is None:
        return "-"
    n, p, z = rate["of"], rate["share"], 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{100 * max(0, middle - half):.0f}-{100 * min(1, middle + half):.0f}"
