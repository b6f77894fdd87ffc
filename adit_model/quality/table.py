"""The quality table: samples beside real structures, validity by size, reconstruction.

It is made of summaries of :func:`adit_model.quality.run.score`, by ``benchmarks/quality.py`` for
the bundled weights and by the report of a training for those that were just trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adit_model.quality.conditions import held_lines
from adit_model.quality.measures import PROPERTIES, STABILITY, STRICT, SYMMETRY, VALIDITY
from adit_model.quality.reconstruction import NUMBERS
from adit_model.quality.reconstruction import RATES as RECONSTRUCTION_RATES
from adit_model.quality.summary import RATES
from adit_model.quality.tables import interval, number, percent, share, table
from adit_model.systems import DOMAINS, MOLECULE

TABLE_MEASURES = (*VALIDITY, STRICT, PROPERTIES, SYMMETRY, STABILITY)


def quality_lines(
    parts: Mapping[str, Mapping[str, Any]], reconstruction: Mapping[str, Any] | None = None
) -> list[str]:
    """Write the quality table as Markdown.

    Parameters
    ----------
    parts : mapping
        From the title of a column to a summary, such as that of generated samples and that of as
        many real, held-out structures by the same route, which is what can be reached.
    reconstruction : mapping, optional
        From :func:`~adit_model.quality.reconstruction.evaluate_reconstruction`.
    """
    lines: list[str] = []
    for domain in DOMAINS:
        found = {title: part[f"{domain}s"] for title, part in parts.items() if f"{domain}s" in part}
        if found:
            lines += [f"## {domain.capitalize()}s", "", *_rates(domain, found)]
            lines += _by_size(found)
            for title, part in found.items():
                lines += held_lines(f"{title}: holds what was asked", part["holds"])
    for domain in DOMAINS:
        if part := (reconstruction or {}).get(f"{domain}s"):
            lines += [f"## Reconstruction of {part['count']} held-out {domain}s", ""]
            lines += _reconstruction(part)
    return lines


def _rates(domain: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    body = [("samples", *(c for part in found.values() for c in (str(part["count"]), "")), "")]
    counts = (c for part in found.values() for c in (str(part["decoded"]), ""))
    body.append(("decoded", *counts, "there is a physical structure"))
    for rate in RATES[domain]:
        rates = [part["rates"].get(rate.name) for part in found.values()]
        if any(rates):
            cells = (cell for each in rates for cell in (share(each), interval(each)))
            body.append((rate.label, *cells, rate.meaning))
    if domain == MOLECULE and any(part.get("stable_atoms") for part in found.values()):
        # atoms of one molecule are no independent samples, so there is no interval
        cells = (c for part in found.values() for c in (share(part.get("stable_atoms")), "-"))
        body.append(("atoms stable (EDM)", *cells, "a share of all atoms"))
    titles = (cell for title in found for cell in (title, "95 %"))
    return table(("", *titles, "what passes"), body, texts=1)


def _by_size(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    labels = list(dict.fromkeys(label for part in found.values() for label in part["by_num_atoms"]))
    body = []
    for label in labels:
        groups = [part["by_num_atoms"].get(label, {"rates": {}}) for part in found.values()]
        rates = [group["rates"].get("valid") for group in groups]
        if any(rates):
            cells = (cell for rate in rates for cell in (share(rate), interval(rate)))
            body.append((label, *cells))
    titles = (cell for title in found for cell in (title, "95 %"))
    return table(("valid, by number of atoms", *titles), body)


def _reconstruction(part: Mapping[str, Any]) -> list[str]:
    elements = part["elements"]
    body = [("elements right, of all atoms", f"{percent(elements)} %", "-")]
    body += [
        (label, share(part["rates"][key]), interval(part["rates"][key]))
        for key, label in RECONSTRUCTION_RATES
        if key in part["rates"]
    ]
    numbers = [
        (f"{label} ({unit})", number(found.get("median")), number(found.get("p90")))
        for key, label, unit in NUMBERS
        if (found := part["numbers"].get(key))
    ]
    return table(("", "share", "95 %"), body) + table(("", "median", "90th percentile"), numbers)
