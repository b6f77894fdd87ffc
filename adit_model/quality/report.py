"""The summary as a Markdown report, published figures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adit_model.quality.conditions import held_lines
from adit_model.quality.crystals import CRYSTAL_SYSTEMS
from adit_model.quality.distances import CRYSTAL_NUMBERS, MOLECULE_NUMBERS
from adit_model.quality.energies import NUMBERS
from adit_model.quality.energies import RATES as ENERGY_RATES
from adit_model.quality.hull import FAR_BELOW, METASTABLE, STABILITIES
from adit_model.quality.published import BY_NUM_ATOMS, TABLES
from adit_model.quality.summary import RATES, STRAIN_NUMBERS
from adit_model.quality.tables import interval, number, percent, share, table
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE

COUNTING = """\
Every rate is a share of all samples unless it says otherwise; what could not be decoded or read,
and every check that failed or ran out of time, counts as not passed. Beside it stands the 95 %
interval (Wilson) that the number of samples leaves.
"""
DEFINITIONS: Mapping[str, str] = {
    CRYSTAL: """\
- *Structurally valid*: all distances, periodic images included, above 0.5 angstrom and volume above
  0.1 cubic angstrom per atom. *Compositionally valid*: SMACT with the oxidation states of CDVAE and
  ADiT (`smact14`), Pauling test, elements and alloys pass, at most seven elements.
- *Unique*, *novel*: pymatgen's StructureMatcher (ltol 0.3, stol 0.5, angle_tol 10), as generated.
  Structures far from any real one are unique and novel, too: read both beside validity only.
- *Strict set*: charges by the oxidation states observed in the ICSD (`icsd24`).
- *Space group*: spglib within 0.1 angstrom. Atoms a few tenths of an angstrom off leave none of the
  symmetry, which relaxation may bring back.
- *Wasserstein*: by how much the values of this set have to be moved, on average, to be those of the
  data. *Total variation*: the share of structures that would have to change, 0 to 1.
- *Coverage* (where asked for): precision is the share of samples that are near a structure of the
  data, recall the share of the data that is near a sample. Near means: CrystalNN fingerprints
  (matminer, `ops`, mean over sites) at most 0.4 apart and `magpie` composition features at most 10
  apart, each to the nearest, as in CDVAE; but the features are standardised by the data at hand,
  where CDVAE's code has constants. Recall rises with the number of samples.
""",
    MOLECULE: """\
- *Valid*: RDKit finds bonds from the coordinates at total charge 0 (`DetermineBonds`), the result
  passes its sanitisation and is one fragment.
- *Largest fragment valid*: only the largest connected part is asked; bonds by RDKit at charge 0, or
  by Open Babel as in the literature. Open Babel makes something of almost anything: 98 % of QM9
  passes even with 0.3 angstrom of noise on every atom, but nothing of that is in one piece with all
  its hydrogens, which the line below it asks.
- *Stable*: H, C, N, O and F only (Hoogeboom et al., ICML 2022).
- *PoseBusters*: configuration `mol`, bonds by RDKit at charge 0. For some cages its search for
  conformers finds none, hence there is no energy.
- *Strain*: what relaxation with GFN2-xTB (charge 0, lowest multiplicity, BFGS, forces below 0.05
  eV/angstrom) changes: energy drop, RMSD after the best rotation. That of real molecules is not
  zero: their geometries are of another method.
- Bonds, angles and rings of the distributions join atoms closer than 1.2 times the sum of their
  covalent radii, so they exist for invalid molecules too.
- *Wasserstein*: by how much the values of this set have to be moved, on average, to be those of the
  data.
""",
}
ENERGY_DEFINITIONS = """\
- *Relaxation* of atoms and cell: BFGS, Frechet cell filter. All shares are of all samples, valid or
  not; a relaxation that failed or did not converge counts as not passed. Medians and means are of
  the crystals that have the number.
- *Formation energy*: relative to the elements by the same force field. *Energy above hull*: of
  that, relative to the mixture of known phases with the lowest energy at the composition; there is
  none where only elements are known to compete and the hull is partial.
- *RMSD*: root mean square displacement of the atoms, their mean move and the change of the cell
  taken out.
- *Unique* is the lowest of equal metastable crystals, *novel* is equal to none of the reference.
"""
CAPTIONS: Mapping[str, str] = {
    "distributions": "Distributions of this set (lines) and of the data (filled)",
    "energy_above_hull": "Energy above hull; what lies outside is in the outermost bars",
    "structures": "Structures, evenly drawn from the set; invalid by the first table",
}
OURS = "**this set**"
PARTIAL = (
    "**The hull is partial**: known phases are missing from it, so the true energy above "
    "hull is higher. What is unstable by it is unstable; what is stable by it need not be."
)
WHOLE = "The hull holds all phases that its source knows."
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
            body.append(_rate(rate.label, rates[rate.name], rate.meaning))
        if rate.name == "stable" and (found := part.get("stable_atoms")):
            # atoms of one molecule are no independent samples, so there is no interval
            body.append(("atoms stable (EDM)", share(found), "-", "the same, a share of all atoms"))
    lines += table(RATE_HEADER, body, texts=1)
    lines += _not_taken(domain, rates)
    lines += held_lines("holds what was asked", part["holds"])
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
        _rate(rate.label.removeprefix("PoseBusters: "), found, rate.meaning)
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
        [f"Left out, because they were not measured or no sample has them: {'; '.join(names)}.", ""]
        if names
        else []
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


def _trust(found: Mapping[str, int]) -> str:
    """Say what the hull knows of these crystals."""
    labels = ", ".join(f"{found[label]} {label}" for label in STABILITIES)
    return (
        f"Of {found['of']} crystals with a formation energy, converged or not: {labels}. Unknown: "
        f"{found['elements_only']} compete with elements only, as the hull knows no compound that "
        "does, and have no energy above hull (they are unstable where they lie more than "
        f"{METASTABLE} eV/atom above the elements); {found['far_below']} lie more than "
        f"{-FAR_BELOW} eV/atom below the hull, which tells of missing phases or of a failing force "
        f"field rather than of a discovery. The hull knows what is likely to compete with "
        f"{found['competitors_known']}: a compound of the same composition or of each pair of "
        "elements."
    )


def energy_lines(energies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write what :func:`~adit_model.quality.energies.summarise_energies` found as Markdown."""
    lines: list[str] = []
    for part in energies.values():
        lines += [f"### Crystals: energies by {part['model']}", ""]
        hull = part["hull"]
        lines += [
            f"Hull: {hull['source']}; {hull['compounds']} compounds; energy scale: "
            f"{part['scale']}. {WHOLE if hull['complete'] else PARTIAL}",
            "",
        ]
        lines += [_trust(part["trust"]), "", *null_lines(part.get("null"))]
        taken = [
            (key, label, meaning) for key, label, _, meaning in ENERGY_RATES if part["rates"][key]
        ]
        body = [
            (label, share(rate), interval(rate), meaning)
            for key, label, meaning in taken
            for rate in [part["rates"][key]]
        ]
        lines += table(("", "share", "95 %", "what passes"), body, texts=1)
        values = [
            (label, str(found["count"]), number(found.get("median")), number(found.get("mean")))
            for column, label in NUMBERS
            for found in [part["numbers"][column]]
        ]
        lines += table(("", "crystals", "median", "mean"), values)
        bins = {label: group for label, group in part["by_num_atoms"].items() if group["count"]}
        counts = ("samples", *(str(group["count"]) for group in bins.values()))
        sizes = [
            (label, *(percent(group["rates"][key]) for group in bins.values()))
            for key, label, _ in taken
        ]
        lines += table(("per cent, by number of atoms", *bins), [counts, *sizes])
    return [*lines, ENERGY_DEFINITIONS] if lines else lines


def null_lines(null: Mapping[str, Any] | None) -> list[str]:
    """Say which share of metastable crystals a partial hull gives to crystals that are not."""
    if not null:
        return []
    shares = ", ".join(
        f"{100 * passed / null['of']:.0f} % of those {worse} eV/atom worse"
        for worse, passed in null["passed"].items()
    )
    return [
        f"**Null model**: of {null['of']} known compounds of this hull, made worse than metastable "
        "and judged by the hull without them as the crystals are, it takes for metastable (at most "
        f"{null['threshold']:g} eV/atom above it) {shares}. A rate of metastable crystals says "
        "something only as far as it is above that.",
        "",
    ]
