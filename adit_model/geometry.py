"""Lattices, poses and rotations of single systems (NumPy)."""

from __future__ import annotations

import numpy as np

WRAP_CUT = 0.015  # canonical fractional coordinates lie in [-WRAP_CUT, 1 - WRAP_CUT)
DEGENERATE = 1e-3  # principal moments closer than this, relative to the largest, count as equal
SYMMETRIC = 1e-3  # skewness (third moment over mean absolute third moment) that counts as none


def cell_to_parameters(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (angstrom) and angles (radians; alpha, beta, gamma) of a cell.

    Parameters
    ----------
    cell : numpy.ndarray
        Lattice vectors as rows, shape (..., 3, 3).

    Returns
    -------
    tuple of numpy.ndarray
        Lengths and angles, each of shape (..., 3).
    """
    cell = np.asarray(cell, dtype=np.float64)
    lengths = np.linalg.norm(cell, axis=-1)
    unit = cell / lengths[..., None]
    cosines = np.stack(
        [
            (unit[..., 1, :] * unit[..., 2, :]).sum(-1),
            (unit[..., 0, :] * unit[..., 2, :]).sum(-1),
            (unit[..., 0, :] * unit[..., 1, :]).sum(-1),
        ],
        axis=-1,
    )
    return lengths, np.arccos(np.clip(cosines, -1.0, 1.0))


def parameters_to_cell(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Cell of given lengths and angles: a along x, b in the xy plane, right-handed.

    Parameters
    ----------
    lengths : numpy.ndarray
        Lengths in angstrom, shape (3,).
    angles : numpy.ndarray
        Alpha, beta, gamma in radians, shape (3,).

    Returns
    -------
    numpy.ndarray
        Lattice vectors as rows, shape (3, 3).

    Raises
    ------
    ValueError
        If a length is not positive or no cell has these angles.
    """
    reason = unphysical_cell(lengths, angles)
    if reason:
        raise ValueError(reason)
    a, b, c = (float(x) for x in lengths)
    cos_a, cos_b, cos_g = np.cos(angles)
    sin_g = np.sin(angles[2])
    cx = cos_b
    cy = (cos_a - cos_b * cos_g) / sin_g
    cz = np.sqrt(1.0 - cx**2 - cy**2)
    return np.array([[a, 0, 0], [b * cos_g, b * sin_g, 0], [c * cx, c * cy, c * cz]])


def unphysical_cell(
    lengths: np.ndarray,
    angles: np.ndarray,
    length_range: tuple[float, float] = (0.5, 200.0),
    angle_range: tuple[float, float] = (5.0, 175.0),
) -> str | None:
    """Why no crystal has such a cell, or None if one can.

    The default ranges admit every Materials Project primitive cell, reduced or not (angles of
    6.9 to 170.7 degrees occur), and a squared volume of 1e-4 a^2 b^2 c^2 at least.

    Parameters
    ----------
    lengths : numpy.ndarray
        Lengths in angstrom, shape (3,).
    angles : numpy.ndarray
        Angles in radians, shape (3,).
    length_range, angle_range : tuple of float
        Accepted lengths in angstrom and angles in degrees.
    """
    lengths, angles = np.asarray(lengths, np.float64), np.asarray(angles, np.float64)
    if lengths.shape != (3,) or angles.shape != (3,):
        raise ValueError(
            f"lengths and angles must have shape (3,), got {lengths.shape} and {angles.shape}"
        )
    degrees = np.degrees(angles)
    if not (np.isfinite(lengths).all() and np.isfinite(degrees).all()):
        return "cell parameters are not finite"
    if (lengths < length_range[0]).any() or (lengths > length_range[1]).any():
        return (
            f"cell lengths {np.round(lengths, 3).tolist()} angstrom "
            f"leave {length_range[0]}..{length_range[1]}"
        )
    if (degrees < angle_range[0]).any() or (degrees > angle_range[1]).any():
        return (
            f"cell angles {np.round(degrees, 2).tolist()} degrees "
            f"leave {angle_range[0]}..{angle_range[1]}"
        )
    cosines = np.cos(angles)
    if 1.0 - (cosines**2).sum() + 2.0 * cosines.prod() < 1e-4:
        return f"cell angles {np.round(degrees, 2).tolist()} degrees span no volume"
    return None


def wrap_frac(frac_coords: np.ndarray) -> np.ndarray:
    """Wrap fractional coordinates into [0, 1), 1 - 1e-9 and above counting as 0."""
    wrapped = frac_coords - np.floor(frac_coords)
    return np.where(wrapped > 1.0 - 1e-9, 0.0, wrapped)


def canonical_molecule(positions: np.ndarray) -> np.ndarray:
    """Centre and turn a molecule into its canonical pose.

    The axes are the principal axes of the unweighted point cloud, longest first; the signs of
    the first two make their third moments positive, the third completes a right-handed frame,
    so chirality is kept. Where symmetry leaves an axis or a sign open (equal moments, no
    skewness), the first atom far from the centre along what is left decides, so the pose is the
    same for every input orientation of the same ordered atoms.

    Parameters
    ----------
    positions : numpy.ndarray
        Coordinates in angstrom, shape (N, 3).

    Returns
    -------
    numpy.ndarray
        Coordinates in angstrom, shape (N, 3).
    """
    positions = np.asarray(positions, dtype=np.float64)
    centred = positions - positions.mean(axis=0)
    moments, vectors = np.linalg.eigh(centred.T @ centred)
    moments, vectors = moments[::-1], vectors[:, ::-1]
    axes: list[np.ndarray] = []
    start = 0
    for stop in range(1, 4):
        if stop == 3 or moments[stop - 1] - moments[stop] > DEGENERATE * moments[0]:
            axes += _axes_within(centred, vectors[:, start:stop])
            start = stop
    axes[2] = np.cross(axes[0], axes[1])
    return centred @ np.stack(axes, axis=1)


def _axes_within(centred: np.ndarray, basis: np.ndarray) -> list[np.ndarray]:
    """Orthonormal axes spanning the columns of ``basis`` (3, k), fixed by the atoms alone."""
    if basis.shape[1] == 1:
        axis = basis[:, 0]
        along = centred @ axis
        skewness = (along**3).sum()
        if abs(skewness) <= SYMMETRIC * (np.abs(along) ** 3).sum():
            skewness = along[_first_far(np.abs(along))]
        return [-axis if skewness < 0 else axis]
    within = centred @ basis  # (N, k)
    distances = np.linalg.norm(within, axis=1)
    if distances.max() < 1e-6:  # a single atom, or the directions across a linear molecule
        return list(basis.T)
    first = within[_first_far(distances)]
    first = first / np.linalg.norm(first)
    rest = np.linalg.svd(first[None])[2][1:].T  # (k, k - 1), orthogonal to first
    return [basis @ first, *_axes_within(centred, basis @ rest)]


def _first_far(distances: np.ndarray) -> int:
    """Index of the first atom at least half as far out as the farthest one."""
    return int(np.argmax(distances >= 0.5 * distances.max()))


def canonical_crystal(positions: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a crystal so that a lies along x and b in the xy plane, and wrap its atoms.

    A left-handed cell first has its three vectors negated, which describes the same crystal.
    Fractional coordinates end in [-0.015, 0.985) rather than [0, 1): about half of the sites of
    real crystals lie on a cell face, and their numerical noise must not throw them to the
    opposite one.

    Parameters
    ----------
    positions : numpy.ndarray
        Cartesian coordinates in angstrom, shape (N, 3).
    cell : numpy.ndarray
        Lattice vectors as rows, shape (3, 3).

    Returns
    -------
    tuple of numpy.ndarray
        Positions (N, 3) and cell (3, 3).
    """
    positions = np.asarray(positions, dtype=np.float64)
    cell = np.asarray(cell, dtype=np.float64)
    if np.linalg.det(cell) < 0:
        cell = -cell
    frac = np.linalg.solve(cell.T, positions.T).T
    frac = frac - np.floor(frac + WRAP_CUT)
    _, upper = np.linalg.qr(cell.T)  # cell = upper.T @ rotation
    new_cell = upper.T * np.sign(np.diag(upper))
    return frac @ new_cell, new_cell


def random_rotation(generator: np.random.Generator) -> np.ndarray:
    """Draw a rotation matrix uniformly (Haar measure), shape (3, 3)."""
    q = generator.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
