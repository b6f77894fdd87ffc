"""Pictures of many structures at once."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CRYSTAL_VIEW = "-78x,24y,6x"
MOLECULE_VIEW = "-12x,8y"
CRYSTAL_RADIUS = 0.5
MOLECULE_RADIUS = 0.42
BOND_RADIUS = 0.11
BOND_TOLERANCE, OVERLAP = 1.2, 0.6  # in sums of covalent radii
NONMETALS = (1, 2, *range(5, 11), *range(14, 19), *range(32, 37), *range(51, 55), 85, 86)
CAMERA_DISTANCE = 5.0
FOG = 0.45
HIGHLIGHTS = ((0.75, 0.14), (0.5, 0.18), (0.22, 0.45))  # size, opacity
_PANEL_INCHES = 1.9
_FACE_TOLERANCE = 0.02


class Scene(NamedTuple):
    """What a panel shows, in viewing coordinates (x right, y up, z to the viewer, angstrom).

    Attributes
    ----------
    numbers : numpy.ndarray
        Atomic numbers, shape (M,), periodic images included.
    points : numpy.ndarray
        Coordinates, shape (M, 3).
    bonds : numpy.ndarray
        Pairs of bonded atoms, shape (B, 2).
    overlaps : numpy.ndarray
        Pairs of atoms that are too close, shape (O, 2).
    edges : numpy.ndarray
        Ends of the cell's edges, shape (E, 2, 3); none for a molecule.
    """

    numbers: np.ndarray
    points: np.ndarray
    bonds: np.ndarray
    overlaps: np.ndarray
    edges: np.ndarray


def plot_grid(
    systems: Sequence[AtomicSystem],
    path: str | Path,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    dpi: int = 150,
) -> Path:
    """Write a grid of structures as a picture, elements in Jmol's colours.

    Crystals are shown with their cell and with the images of atoms on its faces. Sticks join atoms
    closer than 1.2 times the sum of their covalent radii; in a crystal not those of two metals,
    unless it is metals alone. A red ring marks atoms that overlap (closer than 0.6 times that
    sum). A legend below names the colours of the elements.

    Parameters
    ----------
    systems : sequence of AtomicSystem
        What to show, row by row.
    path : str or Path
        File to write; its suffix sets the format (``.png``, ``.svg``, ``.pdf``).
    columns : int, optional
        Panels in a row; by default the grid is about square, with at most 8.
    titles : sequence of str, optional
        Text above each panel; by default the index, if it has one, and the formula.
    dpi : int
        Resolution of a ``.png``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If there is nothing to show, a title is missing, or a number is not positive.
    """
    if dpi < 1:
        raise ValueError(f"dpi must be positive, got {dpi}")
    figure = draw_grid(systems, columns, titles)
    path = Path(path)
    figure.savefig(path, dpi=dpi, facecolor="white")
    return path


def draw_grid(
    systems: Sequence[AtomicSystem],
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    mark: bool = True,
) -> Figure:
    """Draw what :func:`plot_grid` writes, and return the figure.

    Without ``mark`` atoms that overlap have no ring, as in frames of a sampling trajectory.

    Raises
    ------
    ValueError
        If there is nothing to show, a title is missing, or ``columns`` is not positive.
    """
    if not len(systems):
        raise ValueError("there is no structure to plot")
    if titles is not None and len(titles) != len(systems):
        raise ValueError(f"{len(systems)} structures need as many titles, got {len(titles)}")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be a positive integer, got {columns}")
    titles = titles or [structure_title(s.formula, s.info.get("index")) for s in systems]
    columns = min(len(systems), columns or min(8, math.ceil(math.sqrt(len(systems)))))
    rows = math.ceil(len(systems) / columns)
    elements = len({int(z) for system in systems for z in system.numbers})
    legend_rows = math.ceil(elements / _legend_columns(columns))
    height = rows * (_PANEL_INCHES + 0.2) + 0.2 * legend_rows + 0.1
    figure = Picture(columns * _PANEL_INCHES, height)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in panels:
        ax.set_axis_off()
    for ax, system, title in zip(panels, systems, titles, strict=False):
        view = scene(system)
        draw_scene(view if mark else view._replace(overlaps=view.overlaps[:0]), ax)
        ax.set_title(title, fontsize=8, pad=2)
    _add_legend(figure, systems, columns)
    return figure


def _legend_columns(columns: int) -> int:
    return max(3, 4 * columns)


def _add_legend(figure: Figure, systems: Sequence[AtomicSystem], columns: int) -> None:
    """Name the colours of the elements, by atomic number, below the panels."""
    from ase.data import chemical_symbols
    from ase.data.colors import jmol_colors
    from matplotlib.lines import Line2D

    numbers = sorted({int(z) for system in systems for z in system.numbers})
    dots = [
        Line2D(
            *([], []),
            marker="o",
            linestyle="",
            markersize=6,
            markerfacecolor=jmol_colors[min(z, len(jmol_colors) - 1)],
            markeredgecolor="0.2",
            markeredgewidth=0.5,
            label=chemical_symbols[z],
        )
        for z in numbers
    ]
    figure.legend(
        handles=dots,
        loc="outside lower center",
        ncols=min(len(dots), _legend_columns(columns)),
        frameon=False,
        fontsize=8,
        handletextpad=0.1,
        columnspacing=0.8,
    )


def scene(system: AtomicSystem, turn: np.ndarray | None = None) -> Scene:
    """Place a system for the viewer: centred, turned, with bonds or cell edges.

    ``turn``, shape (3, 3), replaces the rotation that is chosen for the system.
    """
    from ase.utils import rotate

    if system.cell is not None:
        numbers, frac_coords = _with_face_images(system)
        positions = frac_coords @ system.cell
        corners = np.array(list(np.ndindex(2, 2, 2)), dtype=float)
        pairs = [(a, b) for a in corners for b in corners if (b - a).sum() == 1 == abs(b - a).sum()]
        edges = np.array(pairs) @ system.cell
        centre = system.cell.sum(axis=0) / 2
        chosen = _upright(system.cell) @ rotate(CRYSTAL_VIEW)
    else:
        numbers, positions = system.numbers, system.positions
        edges = np.zeros((0, 2, 3))
        centre = positions.mean(axis=0)
        chosen = molecule_turn(system)
    turn = chosen if turn is None else turn
    bonds, overlaps = _contacts(numbers, positions, system.is_periodic)
    return Scene(numbers, (positions - centre) @ turn, bonds, overlaps, (edges - centre) @ turn)


def molecule_turn(system: AtomicSystem) -> np.ndarray:
    """Rotation that shows a molecule broadside, shape (3, 3)."""
    from ase.utils import rotate

    centred = system.positions - system.positions.mean(axis=0)
    return _principal_axes(centred) @ rotate(MOLECULE_VIEW)


def _upright(cell: np.ndarray) -> np.ndarray:
    """Rotation that brings the first cell vector to x and the third into the xz plane."""
    x = cell[0] / np.linalg.norm(cell[0])
    z = cell[2] - (cell[2] @ x) * x
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _with_face_images(system: AtomicSystem) -> tuple[np.ndarray, np.ndarray]:
    """Atoms of one cell and their images on its upper faces, edges and corners, fractional."""
    frac = system.frac_coords % 1.0
    frac[frac > 1 - _FACE_TOLERANCE] -= 1
    numbers, coords = [system.numbers], [frac]
    for shift in np.ndindex(2, 2, 2):
        moved = np.array(shift, dtype=bool)
        if moved.any():
            on_face = (frac[:, moved] < _FACE_TOLERANCE).all(axis=1)
            numbers.append(system.numbers[on_face])
            coords.append(frac[on_face] + moved)
    return np.concatenate(numbers), np.concatenate(coords)


def _principal_axes(centred: np.ndarray) -> np.ndarray:
    """Rotation that lays the longest axis along x and turns the shortest to the viewer."""
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1].copy()
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    return axes


def _contacts(
    numbers: np.ndarray, positions: np.ndarray, crystal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of bonded atoms, and of atoms that overlap, each of shape (P, 2)."""
    from ase.data import covalent_radii

    radii = covalent_radii[numbers]
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    share = distances / (radii[:, None] + radii[None])
    bonded = np.triu(share < BOND_TOLERANCE, k=1)
    metal = ~np.isin(numbers, NONMETALS)
    if crystal and not metal.all():
        bonded &= ~(metal[:, None] & metal[None])
    return np.argwhere(bonded), np.argwhere(np.triu(share < OVERLAP, k=1))


def draw_scene(view: Scene, ax: Axes, reach: float | None = None) -> None:
    """Paint back to front, with weak perspective and distant parts paler.

    ``reach`` is half the side of the panel in angstrom; by default all fits in.
    """
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle, Patch, PathPatch, Polygon
    from matplotlib.path import Path as Line

    radius_scale = CRYSTAL_RADIUS if len(view.edges) else MOLECULE_RADIUS
    everything = np.concatenate([view.points, view.edges.reshape(-1, 3)])
    extent = max(float(np.linalg.norm(everything, axis=1).max()), 1.0)
    camera = CAMERA_DISTANCE * extent
    colors = jmol_colors[np.minimum(view.numbers, len(jmol_colors) - 1)]
    radii = radius_scale * covalent_radii[view.numbers]
    painted: list[tuple[float, Patch]] = []

    def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        zoom = camera / (camera - points[..., 2])
        return points[..., :2] * zoom[..., None], zoom

    def fade(color: np.ndarray | float, depth: float) -> np.ndarray:
        weight = FOG * (1 - (depth / extent + 1) / 2)
        return np.clip((1 - weight) * np.asarray(color) + weight, 0, 1) * np.ones(3)

    def line(ends: np.ndarray, depth: float, width: float) -> None:
        color = fade(0.35, depth)
        painted.append((depth, PathPatch(Line(ends), fill=False, ec=color, lw=width)))

    # cell edges in pieces, so that each is hidden by what lies in front of it
    edges, _ = project(np.linspace(view.edges[:, 0], view.edges[:, 1], 9))
    depths = np.linspace(view.edges[:, 0, 2], view.edges[:, 1, 2], 9)
    for edge, ends in zip(edges.swapaxes(0, 1), depths.T, strict=True):
        for i, depth in enumerate((ends[1:] + ends[:-1]) / 2):
            line(edge[i : i + 2], depth, 0.8)
    for i, j in view.bonds:
        middle = (view.points[i] + view.points[j]) / 2
        for atom in (i, j):
            along = middle - view.points[atom]
            surface = 0.9 * radii[atom] / max(float(np.linalg.norm(along)), 1e-6)
            ends = np.stack([view.points[atom] + min(surface, 0.9) * along, middle])
            color = fade(colors[atom] * 0.92, depth := ends[:, 2].mean())
            flat, zoom = project(ends)
            across = (flat[1] - flat[0])[::-1] * [-1, 1]
            across *= BOND_RADIUS / max(float(np.linalg.norm(across)), 1e-6)
            sides = [flat + across * zoom[:, None], flat - across * zoom[:, None]]
            stick = np.concatenate([sides[0], sides[1][::-1]])
            painted.append((depth, Polygon(stick, fc=color, ec=color, lw=0.2)))
            for side in sides:
                line(side, depth, 0.4)
    flat, zoom = project(view.points)
    for i, center in enumerate(flat):
        depth, radius = view.points[i, 2], radii[i] * zoom[i]
        body = Circle(center, radius, fc=fade(colors[i], depth), ec=fade(0.2, depth), lw=0.5)
        painted.append((depth, body))
        for size, alpha in HIGHLIGHTS:
            shine = center + radius * (1 - size) * np.array([-0.5, 0.5])
            painted.append((depth, Circle(shine, radius * size, fc="white", lw=0, alpha=alpha)))
    for i in {int(i) for i in view.overlaps.ravel()}:
        ring = Circle(flat[i], 1.25 * radii[i] * zoom[i], fill=False, ec="red", lw=1.5)
        painted.append((np.inf, ring))
    painted.sort(key=lambda item: item[0])
    ax.add_collection(PatchCollection([patch for _, patch in painted], match_original=True))
    reach = reach or 1.02 * max(
        2.5, *(np.abs(flat).max(axis=1) + radii * zoom), *np.abs(edges).ravel()
    )
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def structure_title(formula: str, index: int | None = None, plausible: bool | None = None) -> str:
    """Write a title of matplotlib: index, formula, and whether it is not plausible."""
    number = "" if index is None else f"{index}:  "
    return number + formula_title(formula) + (" (not plausible)" if plausible is False else "")


def formula_title(formula: str) -> str:
    """Write a formula with its numbers as subscripts, for a title of matplotlib."""
    text = "".join(f"$_{{{c}}}$" if c.isdigit() else c for c in formula)
    return text.replace("}$$_{", "")


class Picture(Figure):
    """A figure on its own canvas, outside pyplot's global state.

    Parameters
    ----------
    width, height : float
        Inches.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=90, facecolor="white", bbox_inches="tight")
        return buffer.getvalue()
