"""The summary as a Markdown report, published figures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adit_model.evaluation.distances import CRYSTAL_NUMBERS, MOLECULE_NUMBERS
from adit_model.evaluation.energy_report import energy_lines
from adit_model.evaluation.published import BY_NUM_ATOMS, TABLES
from adit_model.evaluation.summary import RATES, STRAIN_NUMBERS
from adit_model.evaluation.tables import number, percent, share, table
from adit_model.metrics.crystal_properties import CRYSTAL_SYSTEMS
from adit_model.systems import CRYSTAL, DOMAINS

OURS = "**this set**"

COUNTING = (
    "Every rate is a share of all samples unless it says otherwise; what could not be decoded or "
    "read, and every check that failed or ran out of time, counts as not passed."
)
DEFINITIONS = {
    "crystal": """\
- *Structurally valid*: all distances, periodic images included, above 0.5 angstrom and volume above
  0.1 cubic angstrom per atom. *Compositionally valid*: SMACT with the oxidation states of CDVAE and
  ADiT (`smact14`), Pauling test, elements and alloys pass, at most seven elements.
- *Unique*: the first of those that pymatgen's StructureMatcher (ltol 0.3, stol 0.5, angle_tol 10)
  finds equal; *novel*: equal to none of the reference.
- *Strict set*: charge neutral with the oxidation states observed in the ICSD (`icsd24`); all
  distances at least 0.7 times the sum of the covalent radii; density 0.3 to 25 g/cm^3 and 4 to 120
  cubic angstrom per atom; reduced lattice vectors of 2 to 60 angstrom.
- *Space group*: spglib within 0.1 angstrom.
- *Coverage* (where asked for): precision is the share of samples that are near a structure of the
  data, recall the share of the data that is near a sample. Near means: CrystalNN fingerprints
  (matminer, `ops`, mean over sites) at most 0.4 apart and `magpie` composition features at most 10
  apart, each to the nearest, as in CDVAE; but the features are standardised by the data at hand,
  where CDVAE's code has constants. Recall rises with the number of samples.
""",
    "molecule": """\
- *Valid*: RDKit finds bonds from the coordinates at total charge 0 (`DetermineBonds`), the result
  passes its sanitisation and is one fragment. *Closed shell*: no radical and no formal charge.
- *Largest fragment valid*: only the largest connected part is asked; bonds by RDKit at charge 0, or
  by Open Babel as in the literature. Open Babel makes something of almost anything: 98 % of QM9
  passes even with 0.3 angstrom of noise on every atom, but nothing of that is in one piece with all
  its hydrogens, which the line below it asks.
- *Unique*, *novel*: by canonical SMILES without stereochemistry.
- *Stable*: by EDM's bond lengths all atoms have the valence of their element (H, C, N, O, F only).
- *PoseBusters*: configuration `mol`, bonds by RDKit at charge 0; shares of the molecules that have
  bonds and a verdict (for some cages its search for conformers finds none, hence no energy).
- *Strain*: what relaxation with GFN2-xTB (charge 0, lowest multiplicity, BFGS, forces below 0.05
  eV/angstrom) changes: energy drop, RMSD after the best rotation.
- Bonds, angles and rings of the distributions join atoms closer than 1.2 times the sum of their
  covalent radii, so they exist for invalid molecules too.
""",
}


def write_report(summary: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """Write a summary as Markdown.

    Parameters
    ----------
    summary : mapping
        From :func:`~adit_model.evaluation.summary.summarise`, with ``samples`` and ``reference``,
        the sources, and ``command`` and ``packages`` where they are known.
    pictures : sequence of str
        Files to show, relative to the report.
    """
    lines = ["# Evaluation", ""]
    if "command" in summary:
        lines += ["```", summary["command"], "```", ""]
    known = ", ".join(f"`{name}`" for name in summary.get("reference") or ())
    lines += [f"Samples: `{summary['samples']}`. Reference: {known or 'none given'}."]
    if "compared_to" in summary:
        lines += [f"Distributions are compared to `{summary['compared_to']}`."]
    if "unreadable" in summary:
        lines += [f"{summary['unreadable']} structures could not be read and are in no rate."]
    if "packages" in summary:
        versions = ", ".join(f"{name} {number}" for name, number in summary["packages"].items())
        lines += ["", f"{versions}."]
    lines += ["", COUNTING, ""]
    for domain in DOMAINS:
        part = summary.get(f"{domain}s")
        if part:
            lines += _domain(domain, part)
    for picture in pictures:
        lines += [f"![{picture}]({picture})", ""]
    return "\n".join(lines)


def _domain(domain: str, part: Mapping[str, Any]) -> list[str]:
    lines = [f"## {domain.capitalize()}s", ""]
    lines += [f"{part['count']} samples, {part['decoded']} of them structures.", ""]
    rates = part["rates"]
    body = [(rate.label, share(rates[rate.name])) for rate in RATES[domain]]
    if part.get("stable_atoms"):
        body.append(("atoms stable (EDM)", share(part["stable_atoms"])))
    lines += table(("", "share"), body)
    lines += _by_size(domain, part)
    if "strain" in part:
        lines += _strain(part["strain"])
    if "distances" in part:
        lines += _distances(domain, part)
    lines += energy_lines(part.get("energies") or {})
    lines += _failures(part["failed"])
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
            lines += table(("", *published.columns), [(OURS, *ours), *others])
    return lines


def _by_size(domain: str, part: Mapping[str, Any]) -> list[str]:
    bins = {label: group for label, group in part["by_num_atoms"].items() if group["count"]}
    lines = [f"### {domain.capitalize()}s by number of atoms", ""]
    body = [("samples", *(str(group["count"]) for group in bins.values()))]
    body += [
        (rate.label, *(percent(group["rates"][rate.name]) for group in bins.values()))
        for rate in RATES[domain]
        if part["rates"][rate.name]
    ]
    if domain == CRYSTAL:
        body.append(
            ("ADiT in LeMat-GenBench, its valid", *(BY_NUM_ATOMS.get(label, "-") for label in bins))
        )
    return lines + table(("per cent", *bins), body)


def _distances(domain: str, part: Mapping[str, Any]) -> list[str]:
    distances = part["distances"]
    columns = CRYSTAL_NUMBERS if domain == CRYSTAL else MOLECULE_NUMBERS
    lines = [
        f"### {domain.capitalize()}s: distance to the reference",
        "",
        f"{distances['samples']} structures against {distances['reference']}. Small sets are some "
        "way off even if both are drawn from the same data.",
        "",
    ]
    body = [
        (f"Wasserstein, {name.replace('_', ' ')}{f' ({unit})' if unit else ''}",
         number(distances["wasserstein"][name]))
        for name, unit in columns
    ]  # fmt: skip
    if domain == CRYSTAL:
        body += [
            (f"total variation, {name.replace('_', ' ')}", number(value))
            for name, value in distances["total_variation"].items()
        ]
        body += [
            (f"coverage, {name}", f"{100 * value:.1f} %")
            for name, value in distances.get("coverage", {}).items()
        ]
        sides = distances["crystal_systems"]
        shares = [
            (name, *(f"{100 * sides[side].get(name, 0):.1f}" for side in ("samples", "reference")))
            for name in CRYSTAL_SYSTEMS
        ]
        header = ("crystal system, per cent", "this set", "reference")
        return lines + table(("", "distance"), body) + table(header, shares)
    for name, unit in (("bond_lengths", "angstrom"), ("angles", "degrees")):
        title = name.replace("_", " ")
        body += [
            (f"Wasserstein, {title} {kind} ({unit})", number(value))
            for kind, value in distances[name].items()
        ]
    return lines + table(("", "distance"), body)


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


def _failures(failed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not failed:
        return []
    columns: dict[tuple[str, str], list[str]] = {}
    for name, entry in failed.items():
        columns.setdefault((str(entry["count"]), entry["first"]), []).append(name)
    body = [(", ".join(names), *reason) for reason, names in columns.items()]
    lines = ["Cells that hold a reason in place of a value, and the first reason of each column:"]
    return [*lines, "", *table(("columns", "cells", "first reason"), body)]
