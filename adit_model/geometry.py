"""Cells and rotations of single systems (NumPy)."""

from __future__ import annotations

import numpy as np

WRAP_CUT = 0.015  # canonical fractional coordinates lie in [-WRAP_CUT, 1 - WRAP_CUT)


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
