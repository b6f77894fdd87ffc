"""Markdown tables, and how numbers are written in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, and an empty one after it; numbers to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (header, *body)]
    rule = "|---" + "|---:" * (len(header) - 1) + "|"
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
