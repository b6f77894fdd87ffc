"""The canonical form of a crystal or molecule: one pose, one cell and one order of atoms.

A structure has many descriptions: atoms in any order, any orientation, any cell of its lattice. The
form computed here depends on the structure alone, so that the same structure gives the same arrays
wherever it comes from. It is computed of all that enters a data set, the networks or training; a
generated sample is left as decoded.

Nothing is idealised: no site is moved onto a symmetric position; only the images of one atom of the
primitive cell, which may deviate from each other by ``SAME_SITE``, become their mean. Where
symmetry leaves a choice of axes open, all of them are tried, and a number that depends neither on
the order nor on the input orientation of the atoms picks one.

Molecules: centred; principal axes, longest first; signs that make the third moments of the first
two axes positive; right-handed. Heavy atoms in the order of a SMILES-like walk along the bonds
(76 % of QM9 molecules keep their published order), then hydrogens in the order of their heavy atom.

Crystals: primitive cell, Niggli-reduced (Grosse-Kunstleve et al., Acta Cryst. A60, 1, 2004),
right-handed, a along x and b in the xy plane; origin kept; fractional coordinates in
[-WRAP_CUT, 1 - WRAP_CUT). Atoms by increasing electronegativity, as formulas are written, then by
fractional coordinates.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import gcd

import numpy as np

from adit_model.geometry import WRAP_CUT, cell_to_parameters, unphysical_cell
from adit_model.systems import AtomicSystem

MAX_ATOMS = 4000  # time and memory grow with the square
VERSION = 1  # of the rules in this module
DEGENERATE = 1e-3  # principal moments closer than this, relative to the largest, count as equal
SYMMETRIC = 1e-3  # skewness (third moment over mean absolute third moment) that counts as none
SAME_SITE = 0.01  # angstrom: images of a primitive cell's atoms may deviate by this much
SAME_METRIC = 1e-4  # relative lengths and cosines of cells that count as equal
BOND_SCALE = 1.25  # atoms are bonded within this multiple of the sum of their covalent radii
_TIE = 1e-11  # relative difference of keys that is rounding
_BY_COORDINATES = np.array([1.0, np.pi**-2, np.pi**-4])  # orders atoms by x, then y, then z


@dataclass(frozen=True, eq=False)
class Canonical:
    """The canonical form of a system, and the way back to the description it came from.

    Parameters
    ----------
    system : AtomicSystem
        The canonical form, M atoms; ``info`` as in the input.
    order : numpy.ndarray
        Which input atom each canonical atom comes from, shape (M,). If the input cell holds several
        primitive cells, it is one of the atom's images.
    atoms : numpy.ndarray
        Which canonical atom each input atom is (an image of), shape (N,).
    shifts : numpy.ndarray
        Lattice vectors between the two, in units of the canonical cell, integers of shape (N, 3);
        zero for a molecule.
    rotation : numpy.ndarray
        Shape (3, 3), determinant 1: a vector v of the input is ``v @ rotation`` here.
    centre : numpy.ndarray
        Point of the input that is the origin here, in angstrom, shape (3,); zero for a crystal.
    cell_transform : numpy.ndarray
        Integers of shape (3, 3): the input cell, turned, is ``cell_transform @ system.cell``. The
        identity for a molecule.
    """

    system: AtomicSystem
    order: np.ndarray
    atoms: np.ndarray
    shifts: np.ndarray
    rotation: np.ndarray
    centre: np.ndarray
    cell_transform: np.ndarray

    def restore(self, system: AtomicSystem) -> AtomicSystem:
        """Bring a system from canonical form back to the order, pose and cell of the input.

        It makes sense for what describes the same atoms, as the autoencoder's reconstruction of
        them does; not for a newly generated structure, whose atoms are no one's images. Every
        image of a primitive cell's atom comes back.

        Parameters
        ----------
        system : AtomicSystem
            As many atoms as ``self.system``, in its order; of a crystal, the cell may differ in its
            parameters.

        Raises
        ------
        ValueError
            If the number of atoms or the domain differs.
        """
        if len(system) != len(self.system) or system.domain != self.system.domain:
            raise ValueError(
                f"expected a {self.system.domain} of {len(self.system)} atoms in canonical order, "
                f"got a {system.domain} of {len(system)}"
            )
        positions = system.positions[self.atoms]
        cell = None
        if system.cell is not None:
            positions = positions + self.shifts @ system.cell
            cell = self.cell_transform @ system.cell @ self.rotation.T
        positions = positions @ self.rotation.T + self.centre
        return AtomicSystem(system.numbers[self.atoms], positions, cell, system.info)


def canonicalise(system: AtomicSystem, *, primitive: bool = True) -> Canonical:
    """Compute the canonical form of a crystal or molecule.

    Parameters
    ----------
    system : AtomicSystem
        In any order, orientation and cell.
    primitive : bool
        Divide the cell of a crystal into primitive ones; otherwise it is only reduced.

    Returns
    -------
    Canonical
        Equal, to the precision of the input, for every description of one structure. A system that
        is in canonical form keeps its arrays to rounding.

    Raises
    ------
    ValueError
        If there are more than :data:`MAX_ATOMS` atoms, or the reduced cell of a crystal is
        unphysical (:func:`~adit_model.geometry.unphysical_cell`).
    """
    if len(system) > MAX_ATOMS:
        raise ValueError(f"{len(system)} atoms, at most {MAX_ATOMS} are read")
    return _crystal(system, primitive) if system.is_periodic else _molecule(system)


# molecules


def _molecule(system: AtomicSystem) -> Canonical:
    numbers = system.numbers
    centre = system.positions.mean(axis=0)
    centred = system.positions - centre
    frames = _frames(centred)
    if len(frames) == 1:
        frame = frames[0]
    else:
        turned = np.einsum("ni,kij->knj", centred, frames)
        frame = frames[_best(_molecule_keys(numbers, turned), _is_identity(frames))]
    positions = centred @ frame
    order = molecule_order(numbers, positions)
    atoms = np.empty_like(order)
    atoms[order] = np.arange(len(order))
    return Canonical(
        AtomicSystem(numbers[order], positions[order], None, system.info),
        order,
        atoms,
        np.zeros((len(order), 3), dtype=np.int64),
        frame,
        centre,
        np.eye(3, dtype=np.int64),
    )


def _frames(centred: np.ndarray) -> np.ndarray:
    """Right-handed frames that the shape of a point cloud (N, 3) allows, columns of (K, 3, 3)."""
    moments, vectors = np.linalg.eigh(centred.T @ centred)
    moments, vectors = moments[::-1], vectors[:, ::-1]
    equal = moments[:-1] - moments[1:] <= DEGENERATE * moments[0]
    if equal.all():
        pairs = [
            (first, second)
            for first in _directions(centred, np.eye(3))
            for second in _directions(centred, _complement(first))
        ]
    elif equal[0]:
        pairs = [
            (first, sign * np.cross(vectors[:, 2], first))
            for first in _directions(centred, vectors[:, :2])
            for sign in (1.0, -1.0)
        ]
    elif equal[1]:
        pairs = [
            (first, second)
            for first in _signed(centred, vectors[:, 0])
            for second in _directions(centred, vectors[:, 1:])
        ]
    else:
        pairs = list(product(_signed(centred, vectors[:, 0]), _signed(centred, vectors[:, 1])))
    return np.array([np.stack([a, b, np.cross(a, b)], axis=1) for a, b in pairs])


def _signed(centred: np.ndarray, axis: np.ndarray) -> list[np.ndarray]:
    """Choose the direction of an axis with positive third moment; both if it has none."""
    along = centred @ axis
    skewness = (along**3).sum()
    if abs(skewness) <= SYMMETRIC * (np.abs(along) ** 3).sum():
        return [axis, -axis]
    return [-axis if skewness < 0 else axis]


def _directions(centred: np.ndarray, basis: np.ndarray) -> list[np.ndarray]:
    """Return unit vectors to the far atoms, projected on the columns of ``basis`` (3, k)."""
    within = centred @ basis
    distances = np.linalg.norm(within, axis=1)
    if distances.max() < 1e-6:  # a single atom, or the directions across a linear molecule
        return [basis[:, 0]]
    far = distances > 0.457 * distances.max()  # not 0.5, a ratio that symmetric molecules have
    return list(within[far] / distances[far, None] @ basis.T)


def _complement(axis: np.ndarray) -> np.ndarray:
    """Orthonormal columns (3, 2) across a unit vector (3,)."""
    return np.linalg.svd(axis[None])[2][1:].T


def _molecule_keys(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Give each of K poses (K, N, 3) a number that does not depend on the order of atoms."""
    waves = np.array([[0.61, 0.37, 0.23], [0.29, 0.71, -0.41], [-0.47, 0.31, 0.83]])
    phases = positions @ waves + np.array([0.3, 1.1, 1.9])
    return np.sin(phases).sum(axis=-1) @ np.sqrt(numbers)


def molecule_order(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Order of a molecule's atoms: a walk along the bonds of heavy atoms, then hydrogens.

    The walk starts at an atom with few heavy neighbours and takes, at a branch, the neighbour
    first that comes first by: number of heavy neighbours, number of hydrogens (more first),
    atomic number, then the same of its neighbours, and theirs; equals by their coordinates.
    Hydrogens follow in the order of the heavy atom they are bonded to.

    Parameters
    ----------
    numbers : numpy.ndarray
        Atomic numbers, shape (N,).
    positions : numpy.ndarray
        In canonical pose, angstrom, shape (N, 3).

    Returns
    -------
    numpy.ndarray
        Indices of the atoms, shape (N,).
    """
    by_place = np.argsort(positions @ _BY_COORDINATES, kind="stable")
    numbers, positions = numbers[by_place], positions[by_place]
    heavy = np.flatnonzero(numbers > 1)
    hydrogens = np.flatnonzero(numbers == 1)
    reach = BOND_SCALE * _covalent_radii()[numbers]
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    bonded = distances < reach[:, None] + reach[None]
    np.fill_diagonal(bonded, False)
    walk = _walk(numbers[heavy], bonded[np.ix_(heavy, heavy)], bonded[heavy][:, hydrogens].sum(1))
    heavy = heavy[walk]
    if len(heavy) and len(hydrogens):
        parents = distances[np.ix_(hydrogens, heavy)].argmin(axis=1)
        hydrogens = hydrogens[np.argsort(parents, kind="stable")]
    return by_place[np.concatenate([heavy, hydrogens])]


def _walk(numbers: np.ndarray, bonded: np.ndarray, hydrogens: np.ndarray) -> list[int]:
    """Depth-first order of a graph of heavy atoms, by rank; equal ranks by index."""
    neighbours = [np.flatnonzero(row).tolist() for row in bonded]
    labels: list[tuple] = [
        (len(near), -int(h), int(z))
        for near, h, z in zip(neighbours, hydrogens, numbers, strict=True)
    ]
    kinds = 0
    while len(set(labels)) > kinds:
        kinds = len(set(labels))
        places = {label: i for i, label in enumerate(sorted(set(labels)))}
        ranks = [places[label] for label in labels]
        labels = [
            (rank, *sorted(ranks[j] for j in near))
            for rank, near in zip(ranks, neighbours, strict=True)
        ]
    walk: list[int] = []
    seen: set[int] = set()
    by_rank = sorted(range(len(labels)), key=lambda i: (ranks[i], i))
    stack = by_rank[::-1]
    while stack:
        atom = stack.pop()
        if atom in seen:
            continue
        seen.add(atom)
        walk.append(atom)
        stack += sorted(neighbours[atom], key=lambda i: (ranks[i], i), reverse=True)
    return walk


@lru_cache
def _covalent_radii() -> np.ndarray:
    from ase.data import covalent_radii

    return np.asarray(covalent_radii)


# crystals


def _crystal(system: AtomicSystem, primitive: bool) -> Canonical:
    assert system.cell is not None
    numbers, positions = system.numbers, system.positions
    images = np.arange(len(numbers))[:, None]  # of each atom of the primitive cell: (M, 1)
    cell = _short_basis(system.cell)
    divided = _divide(numbers, positions, cell) if primitive else None
    if divided is not None:
        cell, images, positions = divided
        numbers = numbers[images[:, 0]]
        cell = _short_basis(cell)
    reason = unphysical_cell(*cell_to_parameters(cell))
    if reason:
        raise ValueError(reason)

    bases = _niggli_bases(cell)  # (K, 3, 3), in units of cell
    transforms = np.rint(system.cell @ np.linalg.inv(bases @ cell)).astype(np.int64)
    chosen = 0
    if len(bases) > 1:
        frac = np.einsum("ni,kij->knj", positions, np.linalg.inv(bases @ cell))
        chosen = _best(_crystal_keys(numbers, frac, bases @ cell), _is_identity(transforms))
    transform = transforms[chosen]
    cell = np.linalg.solve(transform, system.cell)
    rotation, lower = _standard_orientation(cell)
    frac = positions @ np.linalg.inv(cell)
    frac -= np.floor(frac + WRAP_CUT)
    places = np.lexsort((frac @ _BY_COORDINATES, electronegativity_ranks()[numbers]))

    atoms = np.empty(len(system), dtype=np.int64)
    atoms[images[places]] = np.arange(len(places))[:, None]
    frac = frac[places]
    shifts = np.rint(system.positions @ np.linalg.inv(cell) - frac[atoms]).astype(np.int64)
    return Canonical(
        AtomicSystem(numbers[places], frac @ lower, lower, system.info),
        images[places, 0],
        atoms,
        shifts,
        rotation,
        np.zeros(3),
        transform,
    )


def _standard_orientation(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a right-handed cell to a along x, b in xy: the rotation and the turned cell, (3, 3)."""
    q, upper = np.linalg.qr(cell.T)  # cell = upper.T @ q.T
    signs = np.sign(np.diag(upper))
    return q * signs, np.tril((upper * signs[:, None]).T)


def _short_basis(cell: np.ndarray) -> np.ndarray:
    """Find a right-handed Minkowski-reduced basis of a lattice, rows by length.

    Nguyen and Stehle, ACM Trans. Algorithms 5, 46 (2009). ``ase.geometry.minkowski_reduce`` is the
    same, but takes 2 milliseconds where vectors are equally long up to rounding.
    """
    basis = cell
    while True:
        basis = basis[np.argsort(np.linalg.norm(basis, axis=1), kind="stable")]
        a, b, c = basis
        b = b - np.rint(a @ b / (a @ a)) * a
        nearest = np.rint(np.linalg.lstsq(np.stack([a, b], axis=1), c, rcond=None)[0])
        around = c - (nearest + _AROUND) @ np.stack([a, b])  # (9, 3)
        c = around[np.argmin(np.square(around).sum(axis=1))]
        shorter = np.stack([a, b, c])
        if np.square(shorter).sum() > np.square(basis).sum() * (1 - 1e-10):
            return basis if np.linalg.det(basis) > 0 else -basis
        basis = shorter


_AROUND = np.array(list(product((0, -1, 1), repeat=2)))
_SMALL = np.array([v for v in product(range(-2, 3), repeat=3) if any(v)])


def _divide(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Divide a cell into primitive cells.

    Returns
    -------
    tuple of numpy.ndarray, or None
        The primitive cell (3, 3), which atoms are the images of each of its atoms (M, k), and the
        mean positions of these images (M, 3); None if the cell is primitive.
    """
    kinds, counts = np.unique(numbers, return_counts=True)
    most = gcd(*counts.tolist())  # the number of primitive cells divides it
    if most == 1:
        return None
    frac = positions @ np.linalg.inv(cell)
    rare = frac[numbers == kinds[counts.argmin()]]
    between = rare[1:] - rare[0]
    translations = np.rint(between * most).astype(np.int64) % most  # in units of 1 / most
    off = between - translations / most
    off = np.linalg.norm((off - np.rint(off)) @ cell, axis=1)
    translations = np.unique(translations[off < SAME_SITE], axis=0)
    translations = translations[translations.any(axis=1)]
    if not len(translations):
        return None
    moved, deviation = _moved(numbers, frac, translations / most, cell)
    tolerance = SAME_SITE
    while (kept := deviation < tolerance).any():
        lattice = _hermite(np.concatenate([translations[kept], most * np.eye(3, dtype=np.int64)]))
        count = round(most**3 / abs(np.prod(np.diag(lattice).astype(float))))
        images = np.concatenate([np.arange(len(frac))[None], moved[kept]]).T  # (N, 1 + T)
        groups = np.unique(np.sort(images, axis=1), axis=0)
        if kept.sum() + 1 == count and len(groups) * count == len(frac):
            images = images[np.unique(images.min(axis=1))]  # one row for each group
            shifts = np.concatenate([np.zeros((1, 3)), translations[kept] / most])
            apart = frac[images] - shifts - frac[images[:, :1]]
            mean = frac[images[:, 0]] + (apart - np.rint(apart)).mean(axis=1)
            return lattice / most @ cell, images, mean @ cell
        tolerance *= 0.5  # translations that only nearly hold need not form a lattice
    return None


def _moved(
    numbers: np.ndarray, frac: np.ndarray, translations: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where translations bring atoms.

    Returns
    -------
    tuple of numpy.ndarray
        For each of T translations the atom nearest to each moved atom (T, N), and the largest
        distance in angstrom between the two (T,).
    """
    from scipy.spatial import cKDTree

    moved = np.empty((len(translations), len(frac)), dtype=np.int64)
    wrapped = (frac - np.floor(frac)) % 1.0
    for kind in np.unique(numbers):
        same = np.flatnonzero(numbers == kind)
        target = (wrapped[same] + translations[:, None]) % 1.0
        moved[:, same] = same[cKDTree(wrapped[same], boxsize=1.0).query(target)[1]]
    apart = frac + translations[:, None] - frac[moved]
    apart = np.linalg.norm((apart - np.rint(apart)) @ cell, axis=-1)
    return moved, apart.max(axis=1)


def _hermite(rows: np.ndarray) -> np.ndarray:
    """Basis (3, 3), upper triangular, of the lattice that integer rows (R, 3) span."""
    rows = rows.copy()
    basis = []
    for column in range(3):
        while np.count_nonzero(rows[:, column]) > 1:
            values = np.abs(rows[:, column])
            pivot = np.where(values > 0, values, values.max() + 1).argmin()
            factors = rows[:, column] // rows[pivot, column]
            factors[pivot] = 0
            rows -= factors[:, None] * rows[pivot]
        pivot = int(np.flatnonzero(rows[:, column])[0])
        basis.append(rows[pivot])
        rows = np.delete(rows, pivot, axis=0)
    return np.array(basis)


def _niggli_bases(cell: np.ndarray) -> np.ndarray:
    """Find all right-handed Niggli bases of a lattice, to the relative tolerance ``SAME_METRIC``.

    They are the shortest bases that satisfy the special conditions of Niggli reduction
    (International Tables A, 9.2.2), equality taken with the tolerance, so that they do not depend
    on rounding.

    Parameters
    ----------
    cell : numpy.ndarray
        A Minkowski-reduced, right-handed basis, shape (3, 3).

    Returns
    -------
    numpy.ndarray
        Integers, shape (K, 3, 3), in units of ``cell``; for a cubic lattice K is 24.
    """
    lengths = np.linalg.norm(cell, axis=1)
    norms = np.linalg.norm(_SMALL @ cell, axis=1)
    rows = [_SMALL[np.abs(norms - length) <= SAME_METRIC * length] for length in lengths]
    a, b = (x.reshape(-1, 3) for x in _pairs(rows[0], rows[1]))
    volumes = np.cross(a, b) @ rows[2].T
    pair, third = np.nonzero(volumes == 1)
    bases = np.stack([a[pair], b[pair], rows[2][third]], axis=1)
    return bases[_niggli(bases @ cell)]


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shape = (len(first), len(second), 3)
    return np.broadcast_to(first[:, None], shape), np.broadcast_to(second[None], shape)


def _niggli(bases: np.ndarray) -> np.ndarray:
    """Which of the shortest bases (K, 3, 3) satisfy the conditions of Niggli reduction."""
    squares = np.square(bases).sum(axis=-1)
    aa, bb, cc = squares.T
    bc, ac, ab = (2 * (bases[:, i] * bases[:, j]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1)))
    small = 2 * SAME_METRIC * np.sqrt(np.stack([bb * cc, aa * cc, aa * bb]))
    same = 2 * SAME_METRIC * cc  # of squares and products
    cosines = np.stack([bc, ac, ab])

    def equal(x: np.ndarray, y: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return np.abs(x - y) <= 2 * SAME_METRIC * scale

    def less(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x <= y + same

    acute = (cosines > small).all(axis=0)
    acute &= ~equal(aa, bb, bb) | less(bc, ac)
    acute &= ~equal(bb, cc, cc) | less(ac, ab)
    acute &= ~equal(bc, bb, bb) | less(ab, 2 * ac)
    acute &= ~equal(ac, aa, aa) | less(ab, 2 * bc)
    acute &= ~equal(ab, aa, aa) | less(ac, 2 * bc)
    if acute.any():
        return acute
    obtuse = (cosines <= small).all(axis=0)
    bc, ac, ab = -bc, -ac, -ab
    obtuse &= ~equal(aa, bb, bb) | less(bc, ac)
    obtuse &= ~equal(bb, cc, cc) | less(ac, ab)
    obtuse &= ~equal(bc, bb, bb) | less(ab, np.zeros_like(ab))
    obtuse &= ~equal(ac, aa, aa) | less(ab, np.zeros_like(ab))
    obtuse &= ~equal(ab, aa, aa) | less(ac, np.zeros_like(ac))
    obtuse &= ~equal(bc + ac + ab, aa + bb, bb) | less(aa, ac + ab / 2)
    return obtuse


def _crystal_keys(numbers: np.ndarray, frac: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Give each of K cells a number that depends neither on the order nor on the images of atoms.

    Parameters
    ----------
    numbers, frac, cells : numpy.ndarray
        Atomic numbers (N,), fractional coordinates (K, N, 3) and cells (K, 3, 3).
    """
    waves = np.cos(2 * np.pi * (frac - np.array([0.07, 0.16, 0.27])))
    sites = np.exp(waves @ np.array([0.9, 0.7, 0.5])) @ np.sqrt(numbers)
    metric = (cells @ np.swapaxes(cells, 1, 2)).reshape(-1, 9) @ _GENERIC
    return sites + metric / np.square(cells[0]).sum()


_GENERIC = np.sqrt(np.array([2.0, 3.0, 5.0, 0.0, 7.0, 11.0, 0.0, 0.0, 13.0]))


@lru_cache
def electronegativity_ranks() -> np.ndarray:
    """Place of each element (119,) by Pauling electronegativity, those without one last."""
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements without an electronegativity
        values = np.array([float(Element.from_Z(z).X) for z in range(1, 119)])
    order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")
    ranks = np.zeros(119, dtype=np.int64)
    ranks[order + 1] = np.arange(118)
    return ranks


def _best(keys: np.ndarray, preferred: np.ndarray) -> int:
    """Index of the largest key; of equal ones a preferred one, else the first."""
    equal = keys >= keys.max() - _TIE * np.abs(keys).max()
    return int(np.argmax(equal & preferred if (equal & preferred).any() else equal))


def _is_identity(matrices: np.ndarray) -> np.ndarray:
    """Which of the matrices (K, 3, 3) change nothing."""
    return np.abs(matrices - np.eye(3)).max(axis=(1, 2)) < 1e-6
