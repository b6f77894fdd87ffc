"""Pictures of a report: distributions, energies above hull, a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.quality.crystals import CRYSTAL_SYSTEMS, crystal_system
from adit_model.quality.distances import CRYSTAL_NUMBERS, MOLECULE_NUMBERS, numbers
from adit_model.quality.hull import METASTABLE
from adit_model.systems import CRYSTAL, DOMAINS, AtomicSystem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SHOWN = 36
HULL_RANGE = (-0.5, 1.5)  # eV/atom; what lies outside is in the first and last bar
COLORS = ("#1f6fb2", "#b0b0b0")  # samples, reference
KINDS_SHOWN = 3  # of bonds, and of angles
Row = Mapping[str, Any]


def draw_pictures(
    folder: Path,
    summary: Mapping[str, Any],
    rows: Sequence[Row],
    systems: Sequence[AtomicSystem | None],
    reference: Mapping[str, Sequence[Row]],
) -> list[str]:
    """Draw what there is to draw.

    Parameters
    ----------
    folder : Path
        Where to write.
    summary : mapping
        From :func:`~adit_model.quality.summary.summarise`.
    rows : sequence of dict
        From :func:`~adit_model.quality.rows.make_rows`.
    systems : sequence of AtomicSystem or None
        The structures of the rows.
    reference : mapping
        From a domain to measured reference structures.

    Returns
    -------
    list of str
        Names of the files.
    """
    names = []
    for domain in DOMAINS:
        part = summary.get(f"{domain}s")
        if not part or not part["decoded"]:
            continue
        mine = [row for row in rows if row["domain"] == domain and row["decoded"]]
        names.append(f"{domain}s_distributions.png")
        figure = _distributions(domain, mine, reference.get(domain, ()))
        figure.savefig(folder / names[-1], dpi=120, facecolor="white")
        if part.get("energies"):
            names.append(f"{domain}s_energy_above_hull.png")
            figure = _above_hull(part["energies"], mine)
            figure.savefig(folder / names[-1], dpi=120, facecolor="white")
        names.append(f"{domain}s_structures.png")
        _contact_sheet(folder / names[-1], mine, systems)
    return names


def _figure(panels: int, columns: int = 3) -> tuple[Figure, np.ndarray]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    lines = -(-panels // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[panels:]:
        ax.set_axis_off()
    return figure, axes


def _above_hull(energies: Mapping[str, Any], rows: Sequence[Row]) -> Figure:
    figure, axes = _figure(len(energies), columns=2)
    for ax, (name, part) in zip(axes, energies.items(), strict=False):
        before, after = (
            numbers(rows, f"{name}_{column}") for column in ("above_hull_initial", "above_hull")
        )
        edges = np.linspace(*HULL_RANGE, 41)
        for values, label, color in (
            (before, "as generated", COLORS[1]),
            (after, "relaxed", COLORS[0]),
        ):
            ax.hist(
                np.clip(values, *HULL_RANGE), edges.tolist(), color=color, alpha=0.7, label=label
            )
        for value in (0, METASTABLE):
            ax.axvline(value, color="black", linewidth=0.6, linestyle=":")
        partial = "" if part["hull"]["complete"] else " (partial)"
        ax.set_title(part["model"], fontsize=9)
        ax.set_ylabel("crystals", fontsize=8)
        ax.set_xlabel(f"energy above hull{partial}, eV/atom", fontsize=8)
    figure.set_size_inches(4.4 * len(energies), 3.2)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _distributions(domain: str, rows: Sequence[Row], reference: Sequence[Row]) -> Figure:
    sides = (rows, reference)
    panels: list[tuple[str, list[Any], list[Any]]] = []
    columns = CRYSTAL_NUMBERS if domain == CRYSTAL else MOLECULE_NUMBERS
    for name, unit in columns:
        title = f"{name.replace('_', ' ')}{f' ({unit})' if unit else ''}"
        panels.append((title, numbers(rows, name), numbers(reference, name)))
    if domain == CRYSTAL:
        found = [[crystal_system(int(n)) for n in numbers(side, "space_group")] for side in sides]
        panels.append(("crystal system", found[0], found[1]))
    else:
        for name, unit in (("bond_lengths", "angstrom"), ("angles", "degrees")):
            for kind in _common_kinds(name, reference or rows):
                values = [
                    [value for row in side for value in (row.get(name) or {}).get(kind, ())]
                    for side in sides
                ]
                panels.append((f"{kind} ({unit})", values[0], values[1]))
    figure, axes = _figure(len(panels))
    for ax, (title, samples, known) in zip(axes, panels, strict=False):
        _histogram(ax, samples, known)
        ax.set_title(title, fontsize=9)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _common_kinds(name: str, rows: Sequence[Row]) -> list[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update({kind: len(values) for kind, values in (row.get(name) or {}).items()})
    return [kind for kind, _ in counts.most_common(KINDS_SHOWN)]


def _histogram(ax: Axes, samples: Sequence[Any], known: Sequence[Any]) -> None:
    sides = [
        (label, values, color)
        for label, values, color in zip(
            ("this set", "the data"), (samples, known), COLORS, strict=True
        )
        if len(values)
    ]
    ax.set_yticks([])
    if not sides:
        return
    if isinstance(sides[0][1][0], str):
        for k, (label, values, color) in enumerate(sides):
            shares = [values.count(name) / len(values) for name in CRYSTAL_SYSTEMS]
            ax.barh(np.arange(len(shares)) + 0.4 * k, shares, 0.4, color=color, label=label)
        ax.set_yticks(range(len(CRYSTAL_SYSTEMS)), list(CRYSTAL_SYSTEMS), fontsize=7)
        return
    joined = np.concatenate([values for _, values, _ in sides])
    low, high = np.quantile(joined, [0.002, 0.998])
    if np.array_equal(joined, joined.astype(int)):
        step = max(1, int(high - low) // 40)
        edges = np.arange(np.floor(low) - 0.5, high + step, step)
    else:
        # few samples in many bins are but spikes
        bins = int(np.clip(4 * np.sqrt(min(len(values) for _, values, _ in sides)), 10, 40))
        edges = np.linspace(low, max(high, low + 1e-6), bins + 1)
    for label, values, color in sides:
        weights = np.full(len(values), 1 / len(values))
        filled = label == "the data"
        ax.hist(
            values,
            edges.tolist(),
            weights=weights,
            histtype="stepfilled" if filled else "step",
            color=color,
            alpha=0.6 if filled else 1.0,
            label=label,
            zorder=1 if filled else 2,
        )


def _contact_sheet(path: Path, rows: Sequence[Row], systems: Sequence[AtomicSystem | None]) -> None:
    from adit_model.drawing import plot_grid, structure_title

    spread = np.unique(np.linspace(0, len(rows) - 1, min(MAX_SHOWN, len(rows))).round().astype(int))
    shown, titles = [], []
    for row in (rows[i] for i in spread):
        system = systems[row["index"]]
        if system is not None:
            shown.append(system)
            titles.append(structure_title(row["formula"], row["index"], row.get("plausible")))
    plot_grid(shown, path, titles=titles)
