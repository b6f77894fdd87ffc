"""Lattices, poses and rotations of single systems (NumPy)."""

from __future__ import annotations

import numpy as np


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
    angle_range: tuple[float, float] = (10.0, 170.0),
) -> str | None:
    """Why no crystal has such a cell, or None if one can.

    Parameters
    ----------
    lengths : numpy.ndarray
        Lengths in angstrom, shape (3,).
    angles : numpy.ndarray
        Angles in radians, shape (3,).
    length_range, angle_range : tuple of float
        Accepted lengths in angstrom and angles in degrees.
    """
    lengths, degrees = np.asarray(lengths), np.degrees(angles)
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
    the first two make their third moments non-negative, the third completes a right-handed frame,
    so chirality is kept.

    Parameters
    ----------
    positions : numpy.ndarray
        Coordinates in angstrom, shape (N, 3).

    Returns
    -------
    numpy.ndarray
        Coordinates in angstrom, shape (N, 3).
    """
    centred = positions - positions.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1].copy()
    third = ((centred @ axes) ** 3).sum(axis=0)
    for k in range(2):
        if third[k] < 0 or (abs(third[k]) < 1e-9 and axes[np.abs(axes[:, k]).argmax(), k] < 0):
            axes[:, k] *= -1.0
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    return centred @ axes


def canonical_crystal(positions: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn a crystal so that a lies along x and b in the xy plane, atoms wrapped into the cell.

    A left-handed cell first has its three vectors negated, which describes the same crystal.

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
    frac = wrap_frac(np.linalg.solve(cell.T, positions.T).T)
    if np.linalg.det(cell) < 0:
        cell, frac = -cell, wrap_frac(-frac)
    new_cell = parameters_to_cell(*cell_to_parameters(cell))
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
