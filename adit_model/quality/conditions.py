"""Did samples obey: of what was asked, how often a finished sample holds it.

Each kind of condition judges a sample itself, and the sample carries the verdicts
(``Sample.holds``); here they are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adit_model.quality.tables import interval, share, table, tally


def held(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Count for each thing that was asked how many samples hold it.

    Parameters
    ----------
    rows : sequence of dict
        Each with ``holds``, from the name of what was asked to whether the sample holds it. One
        that could not be decoded holds nothing.

    Returns
    -------
    dict
        From each name to ``passed``, ``of`` (samples that were asked for it) and ``share``; the
        name ``"all"`` is of samples that hold everything they were asked for.
    """
    asked = [row for row in rows if row.get("holds")]
    names = dict.fromkeys(name for row in asked for name in row["holds"])
    counts = {
        name: [row["holds"][name] is True for row in asked if name in row["holds"]]
        for name in names
    }
    if len(names) > 1:
        counts["all"] = [all(row["holds"].values()) for row in asked]
    return {name: tally(sum(verdicts), len(verdicts)) for name, verdicts in counts.items()}


def held_lines(title: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write what :func:`held` found as a Markdown table; nothing where nothing was asked."""
    body = [(name, share(rate), interval(rate)) for name, rate in found.items()]
    return table((title, "share", "95 %"), body) if body else []
