"""The summary as a Markdown report, published figures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adit_model.quality.crystal_properties import CRYSTAL_SYSTEMS
from adit_model.quality.definitions import CAPTIONS, COUNTING, DEFINITIONS, MEANINGS
from adit_model.quality.distances import CRYSTAL_NUMBERS, MOLECULE_NUMBERS
from adit_model.quality.energy_report import energy_lines
from adit_model.quality.published import BY_NUM_ATOMS, TABLES
from adit_model.quality.summary import RATES, STRAIN_NUMBERS
from adit_model.quality.tables import interval, number, percent, share, table
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE

OURS = "**this set**"
RATE_HEADER = ("", "share", "95 %", "what passes")
DISTANCES = ("", "distance", "mean, this set", "mean, the data")


def write_report(summary: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """Write a summary as Markdown.

    Parameters
    ----------
    summary : mapping
        From :func:`~adit_model.quality.summary.summarise`, with ``samples`` and ``reference``,
        the sources, and ``command`` and ``packages`` where they are known.
    pictures : sequence of str
        Files to show, relative to the report.
    """
    lines = ["# Evaluation", ""]
    if "command" in summary:
        lines += ["```", summary["command"], "```", ""]
    known = ", ".join(f"`{name}`" for name in summary.get("reference") or ())
    data = known
    if "compared_to" in summary:
        data = ", ".join(f"`{name}`" for name in summary["compared_to"].split(", "))
    lines += [f"- Samples: `{summary['samples']}`"]
    lines += [f"- *Novel* is what is not in: {known or 'no reference given'}"]
    lines += [f"- Distributions are compared to: {data}"] if data else []
    if "unreadable" in summary:
        lines += [f"- {summary['unreadable']} structures could not be read and are in no rate"]
    if "packages" in summary:
        versions = ", ".join(
            f"{name} {number}"
            for name, number in summary["packages"].items()
            if number != "not installed"
        )
        lines += [f"- Versions: {versions}"]
    lines += ["", COUNTING]
    left = list(pictures)
    for domain in DOMAINS:
        part = summary.get(f"{domain}s")
        if part:
            mine = [name for name in left if name.startswith(f"{domain}s_")]
            left = [name for name in left if name not in mine]
            lines += _domain(domain, part, mine)
    return "\n".join([*lines, *_pictures(left)])


def _pictures(names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        kind = name.partition("_")[2].removesuffix(".png")
        caption = CAPTIONS.get(kind, name)
        lines += [f"![{caption}]({name})", "", f"*{caption}.*", ""]
    return lines


def _domain(domain: str, part: Mapping[str, Any], pictures: Sequence[str]) -> list[str]:
    lines = [f"## {domain.capitalize()}s", ""]
    lines += [f"{part['count']} samples, {part['decoded']} of them decoded to structures.", ""]
    rates = part["rates"]
    body = []
    for rate in RATES[domain]:
        if rates.get(rate.name) and not _is_check(rate.name):
            body.append(_rate(rate.label, rates[rate.name], MEANINGS[domain][rate.name]))
        if rate.name == "stable" and (found := part.get("stable_atoms")):
            # atoms of one molecule are no independent samples, so there is no interval
            body.append(("atoms stable (EDM)", share(found), "-", "the same, a share of all atoms"))
    lines += table(RATE_HEADER, body, texts=1)
    lines += _not_taken(domain, rates)
    lines += _by_size(domain, part)
    lines += _posebusters(part) if rates.get("pb_all") else []
    if "strain" in part:
        lines += _strain(part["strain"])
    if "distances" in part:
        lines += _distances(domain, part)
    lines += energy_lines(part.get("energies") or {})
    lines += _failures(domain, part["failed"])
    lines += _pictures(pictures)
    lines += [f"### {domain.capitalize()}s: definitions", "", DEFINITIONS[domain]]
    lines += [f"### {domain.capitalize()}s: published figures, per cent", ""]
    for published in TABLES:
        if published.domain == domain:
            found = {**rates, "stable_atoms": part.get("stable_atoms")}
            ours = [percent(found.get(name)) if name else "-" for name in published.ours]
            lines += [f"**{published.title}.** {published.definition}", ""]
            others = [
                (name, *(figure or "-" for figure in figures))
                for name, figures in published.rows.items()
            ]
            first = [] if set(ours) == {"-"} else [(OURS, *ours)]
            lines += table(("", *published.columns), [*first, *others])
    return lines


def _is_check(name: str) -> bool:
    """Whether a rate is one of PoseBusters' checks, which have a table of their own."""
    return name.startswith("pb_") and name not in ("pb_all", "pb_passed")


def _rate(label: str, found: Mapping[str, Any], meaning: str) -> tuple[str, ...]:
    return (label, share(found), interval(found), meaning)


def _posebusters(part: Mapping[str, Any]) -> list[str]:
    rates = part["rates"]
    lines = [
        "### Molecules: PoseBusters",
        "",
        f"Shares of the {rates['pb_all']['of']} molecules of {part['count']} with a verdict: the "
        "rest, the worst, for which RDKit finds no bonds or which took too long, is in none.",
        "",
    ]
    body = [
        _rate(rate.label.removeprefix("PoseBusters: "), found, MEANINGS[MOLECULE][rate.name])
        for rate in RATES[MOLECULE]
        if _is_check(rate.name) and (found := rates.get(rate.name))
    ]
    return lines + table(RATE_HEADER, body, texts=1)


def _not_taken(domain: str, rates: Mapping[str, Any]) -> list[str]:
    """Name the rates that are missing; those of PoseBusters by one name."""
    missing = [rate for rate in RATES[domain] if not rates.get(rate.name)]
    names = [rate.label for rate in missing if not rate.name.startswith("pb_")]
    names += ["PoseBusters"] if len(names) < len(missing) else []
    return (
        [f"Not asked for, or nothing to take a share of: {'; '.join(names)}.", ""] if names else []
    )


def _by_size(domain: str, part: Mapping[str, Any]) -> list[str]:
    bins = {label: group for label, group in part["by_num_atoms"].items() if group["count"]}
    lines = [f"### {domain.capitalize()}s by number of atoms", ""]
    body = [("samples", *(str(group["count"]) for group in bins.values()))]
    body += [
        (rate.label, *(percent(group["rates"].get(rate.name)) for group in bins.values()))
        for rate in RATES[domain]
        if part["rates"].get(rate.name) and not _is_check(rate.name)
    ]
    if domain == CRYSTAL:
        body.append(
            (
                "published: ADiT, valid as LeMat-GenBench has it",
                *(BY_NUM_ATOMS.get(label, "-") for label in bins),
            )
        )
    return lines + table(("per cent", *bins), body)


def _distances(domain: str, part: Mapping[str, Any]) -> list[str]:
    distances = part["distances"]
    columns = CRYSTAL_NUMBERS if domain == CRYSTAL else MOLECULE_NUMBERS
    lines = [
        f"### {domain.capitalize()}s: distance to the data",
        "",
        f"{distances['samples']} structures against {distances['reference']} of the data. 0 "
        "is equal; small sets are some way off even if both are drawn from the same data.",
        "",
    ]
    means = distances.get("means", {})
    sides = [means.get(side, {}) for side in ("samples", "reference")]
    body = [
        (f"Wasserstein, {name.replace('_', ' ')}{f' ({unit})' if unit else ''}",
         number(distances["wasserstein"][name]), *(number(side.get(name)) for side in sides))
        for name, unit in columns
    ]  # fmt: skip
    if domain == CRYSTAL:
        body += [
            (f"total variation, {name.replace('_', ' ')}", number(value), "", "")
            for name, value in distances["total_variation"].items()
        ]
        body += [
            (f"coverage, {name}", f"{100 * value:.1f} %", "", "")
            for name, value in distances.get("coverage", {}).items()
        ]
        found = distances["crystal_systems"]
        shares = [
            (name, *(f"{100 * found[side].get(name, 0):.1f}" for side in ("samples", "reference")))
            for name in CRYSTAL_SYSTEMS
        ]
        systems = ("crystal system, per cent", "this set", "the data")
        return lines + table(DISTANCES, body) + table(systems, shares)
    for name, unit in (("bond_lengths", "angstrom"), ("angles", "degrees")):
        title = name.replace("_", " ")
        body += [
            (
                f"Wasserstein, {title} {'of all kinds' if kind == 'mean' else kind} ({unit})",
                number(value),
                "",
                "",
            )
            for kind, value in distances[name].items()
        ]
    return lines + table(DISTANCES, body)


def _strain(strain: Mapping[str, Any]) -> list[str]:
    groups = {name: strain[name] for name in ("all", "valid")}
    header = ("median (mean)", *(f"{name} molecules" for name in groups))
    body = [("relaxed", *(f"{group['relaxed']}/{group['of']}" for group in groups.values()))]
    for column, label in STRAIN_NUMBERS:
        cells = [group[column] for group in groups.values()]
        body.append(
            (label, *(f"{number(cell['median'])} ({number(cell['mean'])})" for cell in cells))
        )
    return ["### Molecules: strain", "", *table(header, body)]


def _failures(domain: str, failed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not failed:
        return []
    columns: dict[tuple[str, str], list[str]] = {}
    for name, entry in failed.items():
        columns.setdefault((str(entry["count"]), entry["first"]), []).append(name)
    body = [(_shortened(names), *reason) for reason, names in columns.items()]
    lines = [f"### {domain.capitalize()}s: questions without an answer", ""]
    lines += ["Cells of `rows.csv` that hold a reason in place of a value, and the first reason:"]
    return [*lines, "", *table(("columns", "cells", "first reason"), body, texts=1)]


def _shortened(names: Sequence[str]) -> str:
    """Join names of columns, many of one prefix by that."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition("_")[0], []).append(name)
    return ", ".join(
        f"{prefix}_* ({len(group)} columns)" if len(group) > 3 else ", ".join(group)
        for prefix, group in groups.items()
    )
