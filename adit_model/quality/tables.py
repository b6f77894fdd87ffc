"""Counts as shares with their interval, numbers as medians, and Markdown tables of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def tally(passed: int, of: int) -> dict[str, Any]:
    """Make a rate: ``passed``, ``of`` and ``share``, 0 of nothing."""
    return {"passed": passed, "of": of, "share": passed / of if of else 0.0}


def spread(values: Iterable[Any]) -> dict[str, Any]:
    """Summarise the numbers among values.

    Returns
    -------
    dict
        ``count``, and where there are any ``median``, ``mean`` and ``p90``, the 90th percentile.
    """
    known = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if not known:
        return {"count": 0}
    median, p90 = np.percentile(known, [50, 90]).tolist()
    return {"count": len(known), "median": median, "mean": float(np.mean(known)), "p90": p90}


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
    if not rate:
        return "-"
    return f"{100 * rate['share']:.1f} % ({rate['passed']}/{rate['of']})"


def percent(rate: Mapping[str, Any] | None) -> str:
    """Write a rate as a number."""
    return f"{100 * rate['share']:.1f}" if rate else "-"


def number(value: float | None) -> str:
    """Write a value with three digits."""
    return "-" if value is None else f"{value:.3g}"


def interval(rate: Mapping[str, Any] | None) -> str:
    """Write the 95 % interval of a share in per cent, Wilson's."""
    from scipy.stats import binomtest

    if not rate or not rate["of"]:
        return "-"
    found = binomtest(rate["passed"], rate["of"]).proportion_ci(method="wilson")
    return f"{100 * found.low:.0f}-{100 * found.high:.0f}"
