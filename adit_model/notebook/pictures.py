"""Pictures of structures, of how they come about, of latent space, and of a discovery run.

Each function returns a matplotlib ``Figure`` and writes a file where it is given one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure
    from PIL.Image import Image


class Encoder(Protocol):
    """What encodes structures, such as an ADiTSampler."""

    def encode(self, atoms: list[Atoms]) -> Any:
        """Latents of each structure, with ``values`` of shape (N, L)."""


CRYSTAL_CLASSES = {  # the first that a crystal has an element of
    "oxide": (8,),
    "halide": (9, 17, 35, 53),
    "chalcogenide": (16, 34, 52),
    "pnictide": (7, 15, 33, 51),
    "carbide, boride or silicide": (5, 6, 14),
}
OTHER_CRYSTAL = "intermetallic or element"
MOLECULE_CLASSES = {"with F": (9,), "with N and O": (7, 8), "with N": (7,), "with O": (8,)}
OTHER_MOLECULE = "hydrocarbon or other"
COLOR = "#1f6fb2"


def contact_sheet(
    atoms: Sequence[Any],
    path: str | Path | None = None,
    *,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw structures in a grid, each under its index and formula, marked where not plausible.

    Parameters
    ----------
    atoms : sequence
        ``ase.Atoms``, pymatgen structures or molecules, or systems.
    path : str or Path, optional
        File to write (``.png``, ``.svg``, ``.pdf``).
    columns : int, optional
        Panels in a row.
    titles : sequence of str, optional
        Text above each.

    Raises
    ------
    ValueError
        If there is nothing to show, or a title is missing.
    """
    from adit_model.drawing import draw_grid, structure_title

    systems = [AtomicSystem.from_any(item) for item in atoms]
    if titles is None:
        titles = [
            structure_title(s.formula, s.info.get("index"), s.info.get("plausible"))
            for s in systems
        ]
    return _written(draw_grid(systems, columns, titles), path)


def depict(molecules: Sequence[Any], path: str | Path | None = None, *, columns: int = 4) -> Figure:
    """Draw molecules as structural formulas, bonds perceived from the coordinates by RDKit.

    Parameters
    ----------
    molecules : sequence
        ``ase.Atoms``, pymatgen molecules, or systems. Those without consistent bonds are drawn
        as an empty panel that says so.
    path : str or Path, optional
        File to write.
    columns : int
        Panels in a row.

    Raises
    ------
    ValueError
        If there is nothing to show, or a structure is a crystal.
    """
    from rdkit.Chem import Draw

    if not len(molecules):
        raise ValueError("there is no molecule to depict")
    systems = [AtomicSystem.from_any(item) for item in molecules]
    for system in systems:
        if system.is_periodic:
            raise ValueError(f"{system.formula} is a crystal: use contact_sheet")
    from adit_model.drawing import Picture, formula_title

    columns = min(columns, len(systems))
    rows = -(-len(systems) // columns)
    figure = Picture(2.2 * columns, 2.3 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in panels:
        ax.set_axis_off()
    for ax, system in zip(panels, systems, strict=False):
        flat = _without_conformer(system)
        if flat is None:
            ax.text(0.5, 0.5, "no bonds found", ha="center", va="center", fontsize=8)
        else:
            ax.imshow(Draw.MolToImage(flat, size=(440, 440)))
        ax.set_title(formula_title(system.formula), fontsize=8, pad=2)
    return _written(figure, path)


def _without_conformer(system: AtomicSystem) -> Any:
    """RDKit molecule without hydrogens and coordinates; None where no bonds are found."""
    from rdkit import Chem, rdBase

    try:
        with rdBase.BlockLogs():  # the panel says so
            return Chem.MolFromSmiles(Chem.MolToSmiles(Chem.RemoveHs(system.to_rdkit())))
    except ValueError:
        return None


def trajectory_gif(
    frames: Sequence[Atoms],
    path: str | Path,
    *,
    seconds: float = 4.0,
    hold: float = 1.5,
    size: int = 320,
) -> Path:
    """Write a sampling trajectory as a moving picture.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        From :meth:`ADiTSampler.trajectory`; all are shown from where the last
        is seen best, at its scale.
    path : str or Path
        ``.gif`` to write.
    seconds, hold : float
        Length of the motion, and of the last frame after it.
    size : int
        Pixels of a side.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If there is no frame, the file is no GIF, or a time is not positive.
    """
    from PIL import Image

    if not len(frames):
        raise ValueError("there is no frame to show")
    if Path(path).suffix != ".gif":
        raise ValueError(f"the file must end in .gif, got {str(path)!r}")
    if not (seconds > 0 and hold > 0):
        raise ValueError(f"seconds and hold must be positive, got {seconds} and {hold}")
    images = [
        image.convert("RGB").quantize(96, dither=Image.Dither.NONE)
        for image in _frame_images(frames, size)
    ]
    step = max(20, round(1000 * seconds / len(images)))
    durations = [step] * (len(images) - 1) + [round(1000 * hold)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)
    return Path(path)


def filmstrip(
    frames: Sequence[Atoms], path: str | Path | None = None, *, columns: int = 6
) -> Figure:
    """Draw frames of a sampling trajectory side by side, evenly spaced and the last among them.

    Raises
    ------
    ValueError
        If there is no frame.
    """
    if not len(frames):
        raise ValueError("there is no frame to show")
    from adit_model.drawing import draw_grid

    chosen = [frames[int(i)] for i in np.linspace(0, len(frames) - 1, columns).round()]
    name = "time" if "time" in chosen[0].info else "fraction"
    titles = [f"t = {a.info[name]:.2f}" if name in a.info else "" for a in chosen]
    systems = [AtomicSystem.from_atoms(a) for a in chosen]
    return _written(draw_grid(systems, columns, titles, mark=False), path)


def latent_map(
    sampler: Encoder,
    atoms: Sequence[Atoms],
    path: str | Path | None = None,
    *,
    color: str = "domain",
) -> Figure:
    """Map structures by the two main directions of their latents.

    Each structure is the mean of its latents over its atoms; a principal component analysis of
    these, each channel in units of its deviation, gives the axes.

    Parameters
    ----------
    sampler : ADiTSampler
        Encodes the structures.
    atoms : sequence of ase.Atoms
        At least three.
    path : str or Path, optional
        File to write.
    color : str
        ``"domain"``, or ``"class"``: see :func:`element_class`.

    Raises
    ------
    ValueError
        If there are fewer than three structures or ``color`` is unknown.
    """
    if color not in ("domain", "class"):
        raise ValueError(f"color must be domain or class, got {color!r}")
    if len(atoms) < 3:
        raise ValueError(f"a map needs at least three structures, got {len(atoms)}")
    latents = sampler.encode(list(atoms))
    pooled = np.stack([x.values.mean(axis=0) for x in latents])
    points, shares = principal_components(pooled)
    systems = [AtomicSystem.from_atoms(item) for item in atoms]
    labels = [element_class(s) if color == "class" else s.domain for s in systems]

    from matplotlib import colormaps

    palette = colormaps["tab20"](range(20))
    figure, ax = _figure(6.4, 4.4)
    for number, label in enumerate(sorted(set(labels))):
        mine = np.array([other == label for other in labels])
        periodic = systems[int(np.flatnonzero(mine)[0])].is_periodic
        ax.scatter(
            *points[mine].T,
            s=18,
            marker="s" if periodic else "o",
            color=palette[2 * number % 19],
            alpha=0.75,
            linewidths=0,
            label=f"{label} ({mine.sum()})",
        )
    ax.set_xlabel(f"first component ({100 * shares[0]:.0f} % of the variance)")
    ax.set_ylabel(f"second component ({100 * shares[1]:.0f} %)")
    ax.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return _written(figure, path)


def element_class(system: AtomicSystem) -> str:
    """Chemical class by the elements: oxide, halide, ... or a molecule with N, O, F."""
    present = set(system.numbers.tolist())
    if system.is_periodic:
        for name, numbers in CRYSTAL_CLASSES.items():
            if present & set(numbers):
                return name
        return OTHER_CRYSTAL
    for name, numbers in MOLECULE_CLASSES.items():
        if present >= set(numbers):
            return f"molecule {name}"
    return OTHER_MOLECULE


def principal_components(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project on the two main directions of standardised columns.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (M, K); constant columns are left out of account.

    Returns
    -------
    tuple of numpy.ndarray
        Points (M, 2), and the shares of the variance along each, (2,).
    """
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    keep = spread > 1e-9 * max(1.0, float(spread.max(initial=0.0)))
    scaled = centred[:, keep] / spread[keep]
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    points = np.zeros((len(values), 2))
    shares = np.zeros(2)
    count = min(2, len(singular))
    points[:, :count] = left[:, :count] * singular[:count]
    total = np.square(singular).sum()
    if total > 0:
        shares[:count] = np.square(singular[:count]) / total
    return points, shares


def funnel(counts: Mapping[str, int], path: str | Path | None = None, *, title: str = "") -> Figure:
    """Draw how many candidates passed each stage of a discovery run.

    Parameters
    ----------
    counts : mapping
        From the name of each stage, in order, to the number that passed it; no number grows.
    path : str or Path, optional
        File to write.
    title : str
        Above the picture.

    Raises
    ------
    ValueError
        If there is no stage, a count is negative, or one is larger than the one before.
    """
    if not counts:
        raise ValueError("there is no stage to show")
    names, values = list(counts), [int(v) for v in counts.values()]
    if min(values) < 0:
        raise ValueError(f"counts must not be negative, got {dict(counts)}")
    for before, after in pairwise(names):
        if counts[after] > counts[before]:
            raise ValueError(
                f"stage {after!r} has {counts[after]}, more than {counts[before]} in {before!r}"
            )
    figure, ax = _figure(6.4, 0.5 * len(names) + 0.6)
    top = max(values[0], 1)
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        ax.barh(place, value, left=(top - value) / 2, height=0.78, color=COLOR, alpha=0.85)
        share = f" ({100 * value / values[place - 1]:.0f} %)" if place and values[place - 1] else ""
        ax.text(1.03 * top, place, f"{value:,}{share}", va="center", fontsize=9)
        ax.text(-0.03 * top, place, name.replace("_", " "), va="center", ha="right", fontsize=9)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(0, top)
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=10)
    return _written(figure, path)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from adit_model.drawing import Picture

    figure = Picture(width, height)
    return figure, figure.subplots()


def _written(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight")
    return figure


def _frame_images(frames: Sequence[Atoms], size: int) -> list[Image]:
    """Each frame as a square picture, all in the view and at the scale of the last."""
    from PIL import Image as Images

    from adit_model.drawing import draw_scene, formula_title, molecule_turn, scene

    systems = [AtomicSystem.from_atoms(item) for item in frames]
    last = systems[-1]
    turn = None if last.is_periodic else molecule_turn(last)
    view = scene(last, turn)
    everything = np.concatenate([view.points, view.edges.reshape(-1, 3)])
    reach = 1.35 * max(2.5, float(np.abs(everything[:, :2]).max()) + 0.5)
    images: list[Image] = []
    for item, system in zip(frames, systems, strict=True):
        figure, ax = _figure(size / 100, size / 100)
        ax.set_axis_off()
        draw_scene(scene(system, turn)._replace(overlaps=np.zeros((0, 2), int)), ax, reach)
        title = formula_title(system.formula)
        if "time" in item.info:
            title = f"t = {item.info['time']:.2f}   {title}"
        ax.set_title(title, fontsize=8, loc="left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, facecolor="white")
        images.append(Images.open(buffer))
    return images
