"""Symmetry imposed while sampling: that of a known crystal, or one that is nearly there.

As in DiffCSP++ (Jiao et al. 2024, arXiv 2402.03992), a generated crystal takes the space group and
the Wyckoff positions of a known one; its elements and cell are new, and its free coordinates, which
are the known ones at first, follow. Nothing is learned for it: each prediction of the flow is
projected onto the structures of that symmetry. A crystal without such a template can have the
symmetry imposed that its own prediction nearly has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor

from adit_model.canonical import electronegativity_ranks
from adit_model.conditions.atoms import composition_of
from adit_model.conditions.condition import Condition
from adit_model.conditions.crystal import SYMMETRY_TOLERANCE
from adit_model.data.phases import known_phases
from adit_model.network.cells import CELL_DIM, cell_metric, metric_numbers
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups
from adit_model.systems import AtomicSystem

SIZE_STEP = 16  # operators are padded to a multiple of this, as attention is
FREE_FROM = 0.7  # time from which free coordinates move; earlier, images merge at mirror planes
FOUND_AT = 0.7  # time from which the symmetry that a crystal nearly has is imposed
FOUND_WITHIN = (0.6, 0.3)  # angstrom; the first tolerance at which spglib finds one
SAME_FORMULA = 20.0  # how much likelier a template of the same anonymous formula is drawn


@dataclass(frozen=True, eq=False)
class Template:
    """A crystal whose symmetry is imposed on others, in its own cell and order of atoms.

    Parameters
    ----------
    id : str
        Name of the crystal.
    space_group : int
        Number.
    numbers : numpy.ndarray
        Its atomic numbers, shape (N,).
    frac_coords : numpy.ndarray
        Exactly symmetric, shape (N, 3).
    rotations : numpy.ndarray
        Of each operation in fractional coordinates (columns), integers, shape (G, 3, 3).
    images : numpy.ndarray
        Atom that each operation brings an atom to, shape (G, N).
    """

    id: str
    space_group: int
    numbers: np.ndarray
    frac_coords: np.ndarray
    rotations: np.ndarray
    images: np.ndarray

    @property
    def orbits(self) -> np.ndarray:
        """Orbit of each atom, from 0, shape (N,)."""
        return np.unique(self.images.min(axis=0), return_inverse=True)[1]

    def projector(self) -> np.ndarray:
        """Average displacements over the operations, shape (N, 3, N, 3).

        It is the projection on the displacements that break no symmetry.
        """
        atoms = np.arange(len(self.numbers))
        result = np.zeros((len(atoms), 3, len(atoms), 3))
        for rotation, image in zip(self.rotations, self.images, strict=True):
            result[image, :, atoms] += rotation / len(self.rotations)
        return result

    def sharer(self) -> np.ndarray:
        """Make independent displacements of unit variance symmetric, shape (N, 3, N, 3).

        What the site symmetry of an atom leaves free becomes common to its orbit, at the same
        variance; the rest stays independent.
        """
        atoms, orbits = np.arange(len(self.numbers)), self.orbits
        free = [self.rotations[self.images[:, i] == i].mean(axis=0) for i in atoms]
        result = self.projector() * np.sqrt(np.bincount(orbits)[orbits])[:, None, None, None]
        result[atoms, :, atoms] += np.eye(3) - np.array(free)
        return result


def template_of(system: AtomicSystem, tolerance: float = SYMMETRY_TOLERANCE) -> Template | None:
    """Find the symmetry of a crystal with spglib, and make it exact.

    Parameters
    ----------
    system : AtomicSystem
        A crystal.
    tolerance : float
        In angstrom.

    Returns
    -------
    Template or None
        None where spglib finds no operations that permute the atoms.
    """
    import spglib

    assert system.cell is not None
    frac: np.ndarray = system.frac_coords
    cell: Any = (system.cell, frac, system.numbers)
    try:
        found = spglib.get_symmetry_dataset(cell, tolerance)
    except spglib.SpglibError:
        return None
    if found is None:
        return None
    rotations, translations = np.asarray(found.rotations), np.asarray(found.translations)
    moved = np.einsum("gij,nj->gni", rotations, frac) + translations[:, None]
    apart = moved[:, :, None] - frac  # (G, N, N, 3)
    apart = apart - np.rint(apart)
    distances = np.linalg.norm(apart @ system.cell, axis=-1)
    distances[:, system.numbers[:, None] != system.numbers] = np.inf
    images = distances.argmin(axis=2)
    if (np.sort(images, axis=1) != np.arange(len(frac))).any():
        return None
    atoms = np.arange(len(frac))
    mean = np.zeros_like(frac)
    for operation, image in zip(apart, images, strict=True):
        mean[image] += operation[atoms, image] / len(images)
    return Template(
        str(system.info.get("id", "")),
        int(found.number),
        system.numbers,
        frac + mean,
        rotations.astype(np.int64),
        images,
    )


# which known crystal


@lru_cache(maxsize=4096)
def _known_template(place: int) -> Template | None:
    return template_of(known_phases().system(place))


class Templates:
    """Known crystals of the training split, to draw templates from."""

    def __init__(self) -> None:
        known = known_phases()
        self.places = known.select("train")
        self.groups = known.space_groups[self.places]
        self.sizes = known.num_atoms[self.places]
        self._barren: set[tuple[Condition, frozenset[int]]] = set()

    @cached_property
    def anonymous(self) -> list[list[int]]:
        """Amounts in the reduced formula of each, ascending."""
        known = known_phases()
        found = []
        for place in self.places:
            atoms = known.numbers[known.offsets[place] : known.offsets[place + 1]]
            counts = np.unique(atoms, return_counts=True)[1]
            found.append(sorted((counts // np.gcd.reduce(counts)).tolist()))
        return found

    def draw(
        self, condition: Condition, counts: Iterable[int], generator: np.random.Generator
    ) -> tuple[Template, np.ndarray | None] | None:
        """Draw a known crystal that fits a condition, each equally likely.

        Where a formula is asked for, those of the same anonymous formula are 20 times as likely.

        Parameters
        ----------
        condition : Condition
            Of a crystal, without cell and fixed atoms.
        counts : iterable of int
            Allowed numbers of atoms.
        generator : numpy.random.Generator
            Of the draw.

        Returns
        -------
        tuple or None
            The template, and of a formula the atomic numbers of its atoms, shape (N,); None if no
            known crystal fits.
        """
        counts = frozenset(counts)
        if (condition, counts) in self._barren:
            return None
        fits = np.isin(self.sizes, list(counts))
        if condition.space_group is not None:
            fits &= self.groups == condition.space_group
        rows = np.flatnonzero(fits)
        keys = generator.exponential(size=len(rows))
        unit = {} if condition.formula is None else composition_of(condition.formula)
        if unit:
            wanted = sorted(k // gcd(*unit.values()) for k in unit.values())
            keys[[self.anonymous[row] == wanted for row in rows]] /= SAME_FORMULA
        for row in rows[np.argsort(keys, kind="stable")]:
            template = _known_template(int(self.places[row]))
            if template is None or template.space_group != self.groups[row]:
                continue
            if len(np.unique(template.orbits)) < len(condition.elements or ()):
                continue
            if not unit:
                return template, None
            units = len(template.numbers) // sum(unit.values())
            amounts = {atomic_numbers[symbol]: k * units for symbol, k in unit.items()}
            numbers = assign_elements(template, amounts, generator)
            if numbers is not None:
                return template, numbers
        self._barren.add((condition, counts))
        return None


def assign_elements(
    template: Template, amounts: Mapping[int, int], generator: np.random.Generator
) -> np.ndarray | None:
    """Give whole orbits elements so that a composition results.

    Where the template has the same amounts, its elements are replaced, those of equal amounts in
    the order of their electronegativity; otherwise one of the ways is drawn.

    Parameters
    ----------
    template : Template
        Whose orbits are filled.
    amounts : mapping
        Atoms of each atomic number, as many as the template has in all.
    generator : numpy.random.Generator
        Of the draw.

    Returns
    -------
    numpy.ndarray or None
        Atomic numbers, shape (N,); None if no way exists.
    """
    if sum(amounts.values()) != len(template.numbers):
        return None
    own = Counter(template.numbers.tolist())
    if sorted(own.values()) == sorted(amounts.values()):
        ranks = electronegativity_ranks()
        theirs = sorted(own, key=lambda z: (own[z], ranks[z]))
        ours = sorted(amounts, key=lambda z: (amounts[z], ranks[z]))
        replaced = dict(zip(theirs, ours, strict=True))
        return np.array([replaced[z] for z in template.numbers.tolist()])
    orbits = template.orbits
    sizes = np.bincount(orbits)
    order = np.argsort(-sizes, kind="stable").tolist()
    elements = list(amounts)
    failed: set[tuple[int, ...]] = set()

    def fill(place: int, left: tuple[int, ...]) -> list[int] | None:
        if place == len(order):
            return []
        if (place, *left) in failed:
            return None
        size = int(sizes[order[place]])
        for k in generator.permutation(len(elements)).tolist():
            if left[k] >= size:
                rest = fill(place + 1, (*left[:k], left[k] - size, *left[k + 1 :]))
                if rest is not None:
                    return [elements[k], *rest]
        failed.add((place, *left))
        return None

    chosen = fill(0, tuple(amounts.values()))
    if chosen is None:
        return None
    numbers = np.zeros(len(sizes), np.int64)
    numbers[order] = chosen
    return numbers[orbits]


@lru_cache(maxsize=1)
def known_templates() -> Templates:
    """Known crystals of the training split, loaded at the first call."""
    return Templates()


def is_free(condition: Condition) -> bool:
    """Whether neither a cell nor sites are fixed: these have their own symmetry."""
    return condition.cell is None and condition.atoms is None


def is_imposed(condition: Condition, symmetry: str) -> bool:
    """Whether a template is drawn for a crystal: see ``symmetry`` of the sampling options."""
    if not is_free(condition):
        return False
    asked = symmetry in ("asked", "found") and condition.space_group is not None
    return symmetry == "known" or asked


def draw_template(
    index: int, seed: int, condition: Condition, counts: Mapping[int, int]
) -> tuple[Template, np.ndarray | None] | None:
    """Draw the template of a sample from its seed and index alone.

    Where no space group is asked for, the number of atoms is drawn first.

    Parameters
    ----------
    index, seed : int
        Which sample.
    condition : Condition
        Of a crystal.
    counts : mapping
        Allowed numbers of atoms, and how often to draw each.

    Returns
    -------
    tuple or None
        As of :meth:`Templates.draw`.
    """
    generator = np.random.default_rng([seed, index, 4])
    allowed = list(counts)
    if condition.space_group is None:
        weights = np.array(list(counts.values()), dtype=np.float64)
        allowed = [int(generator.choice(allowed, p=weights / weights.sum()))]
    return known_templates().draw(condition, allowed, generator)


# what is imposed


class SymmetryProjection:
    """Project predictions of x_1 on the structures that have the symmetry of templates.

    Coordinates: displacements from the template that break its symmetry vanish, the others stay as
    they are, but only at late times. Cell: its metric tensor is averaged over the rotations, at the
    same volume. Code of the elements: averaged over orbits.

    Parameters
    ----------
    denoiser : Denoiser
        Its normalisation; the last row of each crystal is its cell.
    templates : sequence of Template or None
        Of the first systems of the batch, at least one.
    groups : DomainGroups
        Of the batch.
    """

    def __init__(
        self, denoiser: Denoiser, templates: Sequence[Template | None], groups: DomainGroups
    ) -> None:
        device, float_type = denoiser.latent_mean.device, denoiser.latent_mean.dtype
        mean = denoiser.latent_mean[1, :3].double().cpu().numpy()
        std = denoiser.latent_std[1, :3].double().cpu().numpy()
        stops = groups.packing.sizes.cumsum(0).tolist()
        used = [(t, stop - 1) for t, stop in zip(templates, stops, strict=False) if t is not None]
        width = -(-max(len(t.numbers) for t, _ in used) // SIZE_STEP) * SIZE_STEP
        shape = len(used), width
        projectors, sharers = (np.zeros((*shape, 3, width, 3)) for _ in range(2))
        anchors, metrics = np.zeros((*shape, 3)), np.zeros((len(used), 9, 9))
        rows, orbits = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        is_atom = np.zeros(shape, bool)
        for i, (template, cell) in enumerate(used):
            n, scale = len(template.numbers), std / std[:, None, None]
            projectors[i, :n, :, :n] = template.projector() * scale
            sharers[i, :n, :, :n] = template.sharer() * scale
            anchors[i, :n] = (2 * template.frac_coords - 1 - mean) / std
            r = template.rotations
            metrics[i] = np.einsum("gki,glj->ijkl", r, r).reshape(9, 9) / len(r)
            rows[i, :n] = cell - n + np.arange(n)
            orbits[i, :n] = i * width + template.orbits
            is_atom[i, :n] = True

        def tensor(x: np.ndarray) -> Tensor:
            return torch.from_numpy(x).to(device, float_type)

        def index(x: np.ndarray) -> Tensor:
            return torch.from_numpy(x).to(device)

        matrices = projectors.reshape(len(used), 3 * width, -1)
        flat = anchors.reshape(len(used), -1)
        self.projectors, self.offsets = (
            tensor(matrices),
            tensor(flat - (matrices @ flat[..., None])[..., 0]),
        )
        self.sharers = tensor(sharers.reshape(matrices.shape))
        self.anchors = tensor(anchors[is_atom])
        self.padded_rows, self.rows = index(rows.reshape(-1)), index(rows[is_atom])
        self.is_atom = index(np.flatnonzero(is_atom))
        labels = np.unique(orbits[is_atom], return_inverse=True)[1]
        self.orbits, self.orbit_sizes = index(labels), tensor(np.bincount(labels))[:, None]
        self.cells, self.metrics = index(np.array([cell for _, cell in used])), index(metrics)
        self.cell_mean = denoiser.latent_mean[2, :CELL_DIM].double()
        self.cell_std = denoiser.latent_std[2, :CELL_DIM].double()
        self.systems = index(np.isin(np.array(stops) - 1, [cell for _, cell in used]))

    def anchored(self, x: Tensor) -> Tensor:
        """Rows with the coordinates of the templates in place of their own, shape (T, L)."""
        result = x.clone()
        result[self.rows, :3] = self.anchors.to(x)
        return result

    def shared_noise(self, noise: Tensor) -> Tensor:
        """Noise as symmetric as what it is added to, shape (T, L).

        Atoms of an orbit have the code's noise and, turned, that of free coordinates in common,
        each of unit variance. Independent noise would average out over the orbit, and predictions
        with it: few elements, and coordinates that stay at more symmetric places.
        """
        code = self._orbit_sums(noise) / self.orbit_sizes.sqrt()
        return self._replaced(noise, self._coordinates(noise, self.sharers), code)

    def __call__(self, x_1: Tensor, time: float = 1.0) -> Tensor:
        """Project a prediction of some time, normalised latents of shape (T, L).

        Before :data:`FREE_FROM` the coordinates are those of the template.
        """
        code = self._orbit_sums(x_1) / self.orbit_sizes
        xyz = self._coordinates(x_1, self.projectors, self.offsets)
        if time < FREE_FROM:
            xyz = self.anchors.to(xyz)
        result = self._replaced(x_1, xyz, code)
        cells = x_1.index_select(0, self.cells)
        cells = torch.cat([self._symmetric(cells[:, :CELL_DIM]), cells[:, CELL_DIM:]], dim=1)
        return result.index_copy(0, self.cells, cells)

    def _coordinates(self, x: Tensor, matrices: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Map the coordinates of the atoms, shape (A, 3)."""
        xyz = x.index_select(0, self.padded_rows)[:, :3].reshape(len(matrices), 1, -1)
        xyz = (matrices * xyz).sum(-1)  # matrix products round otherwise where there is but one
        xyz = xyz if offsets is None else xyz + offsets
        return xyz.reshape(-1, 3).index_select(0, self.is_atom)

    def _orbit_sums(self, x: Tensor) -> Tensor:
        """Sum the code over each orbit, shape (O, L - 3)."""
        code = x.index_select(0, self.rows)[:, 3:]
        return code.new_zeros(len(self.orbit_sizes), code.shape[1]).index_add(0, self.orbits, code)

    def _replaced(self, x: Tensor, xyz: Tensor, code: Tensor) -> Tensor:
        """Put coordinates of the atoms (A, 3) and codes of the orbits (O, L - 3) into rows."""
        atoms = torch.cat([xyz, code.index_select(0, self.orbits)], dim=1)
        return x.index_copy(0, self.rows, atoms)

    def _symmetric(self, cells: Tensor) -> Tensor:
        """Average normalised cells (S, 6) over the rotations."""
        numbers = cells.double() * self.cell_std + self.cell_mean
        sizes = torch.ones_like(numbers[:, 0])
        metric = cell_metric(numbers.clamp(-10, 10), sizes)
        metric = (self.metrics * metric.reshape(-1, 1, 9)).sum(-1).reshape(-1, 3, 3)
        result = metric_numbers(metric, sizes)
        change = (numbers[:, :3].sum(1) - result[:, :3].sum(1)) / 3  # the volume stays
        result = torch.cat([result[:, :3] + change[:, None], result[:, 3:]], dim=1)
        return ((result - self.cell_mean) / self.cell_std).to(cells)


class FoundSymmetry:
    """Impose the symmetry that crystals nearly have at :data:`FOUND_AT`, from then on.

    Parameters
    ----------
    denoiser : Denoiser
        See :class:`SymmetryProjection`.
    decode : callable
        Makes the systems of predictions (T, L), in the order of the batch; None where there is
        none.
    wanted : sequence of bool
        Of the first systems of the batch, whether symmetry is looked for.
    groups : DomainGroups
        Of the batch.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        decode: Callable[[Tensor], Iterable[AtomicSystem | None]],
        wanted: Sequence[bool],
        groups: DomainGroups,
    ) -> None:
        self.denoiser, self.decode, self.wanted, self.groups = denoiser, decode, wanted, groups
        self.projection: SymmetryProjection | None = None
        self.is_found = False

    def __call__(self, x_1: Tensor, time: float) -> Tensor:
        """Project a prediction of some time, normalised latents of shape (T, L)."""
        if time < FOUND_AT:
            return x_1
        if not self.is_found:
            systems = zip(self.decode(x_1), self.wanted, strict=False)
            templates = [nearby_template(s) if s and wanted else None for s, wanted in systems]
            if any(templates):
                self.projection = SymmetryProjection(self.denoiser, templates, self.groups)
            self.is_found = True
        return x_1 if self.projection is None else self.projection(x_1, time)


def nearby_template(system: AtomicSystem) -> Template | None:
    """Find the symmetry that a crystal nearly has, by :data:`FOUND_WITHIN`; None without any."""
    found = (template_of(system, tolerance) for tolerance in FOUND_WITHIN)
    return next((t for t in found if t is not None and t.space_group > 1), None)


def composed(*maps: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
    """Apply one after the other to what comes with a time."""

    def apply(x: Tensor, time: float) -> Tensor:
        for one in maps:
            x = one(x, time)
        return x

    return apply
