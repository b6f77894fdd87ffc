"""A whole evaluation: rows, summary, report and pictures in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adit_model.files import package_versions
from adit_model.quality.cells import measure_systems
from adit_model.quality.energies import (
    energy_names,
    fill_energies,
    make_hull,
    summarise_energies,
)
from adit_model.quality.entries import Entry, Reference, draw
from adit_model.quality.report import write_report
from adit_model.quality.rows import Options, Row, asked_columns, make_rows, write_rows
from adit_model.quality.summary import summarise
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE

TABLE, SUMMARY, REPORT, KEPT = "rows.csv", "summary.json", "report.md", "cells"
COMPARE_NUMBER = 2000
PACKAGES = (
    "adit-atomate",
    "pymatgen-core",
    "spglib",
    "smact",
    "rdkit",
    "openbabel-wheel",
    "posebusters",
    "tblite",
    "matminer",
    "chgnet",
    "sevenn",
)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Parameters
    ----------
    rows : list of dict
        See :func:`~adit_model.quality.rows.make_rows`.
    summary : dict
        See :func:`~adit_model.quality.summary.summarise`.
    drawn : dict
        From a domain to the measured structures that distributions were compared to.
    report : str
        Markdown; empty if none was written.
    """

    rows: list[Row]
    summary: dict[str, Any]
    drawn: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    report: str = ""


def score(
    entries: Sequence[Entry],
    options: Options | None = None,
    *,
    reference: Reference | None = None,
    compared: Reference | None = None,
    compare_number: int = COMPARE_NUMBER,
    hull: Sequence[Any] = (),
    folder: Path | None = None,
) -> Evaluation:
    """Measure and summarise.

    Parameters
    ----------
    entries : sequence of Entry
        What to evaluate.
    options : Options, optional
        How to run.
    reference : Reference, optional
        Known structures, which are not novel.
    compared : Reference, optional
        Data that distributions are compared to.
    compare_number : int
        Structures drawn from it.
    hull : sequence
        Where known phases come from, if energies are among the measures; see
        :func:`~adit_model.quality.energies.make_hull`.
    folder : Path, optional
        Where to write relaxed crystals.

    Raises
    ------
    ValueError, FileNotFoundError, DownloadError
        If the hull cannot be made.
    """
    options = options or Options()
    crystals = [e.system for e in entries if e.system is not None and e.domain == CRYSTAL]
    # first, since a hull that cannot be made is told before hours of relaxation
    names = energy_names(options.measures) if crystals else []
    hulls = {name: make_hull(name, hull, crystals, options) for name in names}
    rows = make_rows(entries, reference, options)
    fill_energies(rows, entries, reference, options, hulls, folder)
    drawn = _measure_reference(rows, compared, compare_number, options)
    asked = {domain: asked_columns(domain, reference, options.measures) for domain in DOMAINS}
    summary = summarise(rows, asked, drawn)
    if hulls and "crystals" in summary:
        novelty = reference is not None and reference.crystals is not None
        summary["crystals"]["energies"] = summarise_energies(rows, hulls, novelty)
    return Evaluation(rows, summary, drawn)


def evaluate(
    entries: Sequence[Entry],
    folder: Path,
    options: Options,
    about: Mapping[str, Any],
    *,
    plot: bool = True,
    **given: Any,
) -> Evaluation:
    """Measure, summarise, and write the table, the summary, the report and pictures.

    Parameters
    ----------
    entries : sequence of Entry
        What to evaluate.
    folder : Path
        An existing folder to write to.
    options : Options
        How to run.
    about : mapping
        Put at the head of the summary: ``samples`` and ``reference`` (names of the sources), and
        what else there is to say of the run.
    plot : bool
        Draw pictures.
    **given
        As of :func:`score`.

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError, FileNotFoundError, DownloadError
        If the hull cannot be made.
    """
    found = score(entries, options, folder=folder, **given)
    write_rows(folder / TABLE, found.rows, options.measures)
    packages = package_versions(*PACKAGES)
    summary = {**about, "packages": packages, **found.summary}
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    pictures: list[str] = []
    if plot:
        from adit_model.quality.pictures import draw_pictures

        systems = [entry.system for entry in entries]
        pictures = draw_pictures(folder, summary, found.rows, systems, found.drawn)
    report = write_report(summary, pictures)
    (folder / REPORT).write_text(report, encoding="utf-8")
    return Evaluation(found.rows, summary, found.drawn, report)


def _measure_reference(
    rows: Sequence[Row], compared: Reference | None, number: int, options: Options
) -> dict[str, list[dict[str, Any]]]:
    """Measure structures drawn from the data, of the domains that the samples have."""
    drawn: dict[str, list[dict[str, Any]]] = {}
    if compared is None:
        return drawn
    for domain, dataset in ((CRYSTAL, compared.crystals), (MOLECULE, compared.molecules)):
        if dataset is None or not any(row["domain"] == domain for row in rows):
            continue
        systems = draw(dataset, number)
        found = measure_systems(
            systems,
            [measure for measure in options.of(domain) if measure.describes],
            options.store,
            workers=options.workers,
            progress=options.title(f"reference {domain}s"),
        )
        drawn[domain] = [
            {**cells, "num_atoms": len(system)}
            for cells, system in zip(found, systems, strict=True)
        ]
    return drawn
