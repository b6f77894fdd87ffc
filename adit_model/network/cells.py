"""Six numbers of a cell that do not depend on its orientation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CELL_DIM = 6
_ROWS, _COLUMNS = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)  # xx, yy, zz, yz, xz, xy


def cell_numbers(cells: Tensor, sizes: Tensor) -> Tensor:
    """Logarithm of the symmetric polar factor of cells, less that of the size.

    With C the lattice vectors as rows, S = (C C^T)^(1/2) is the symmetric factor of the polar
    decomposition C = S R; it describes the same crystal as C. The six numbers are those of
    log S - log(N) / 3: their trace is the logarithm of the volume of an atom, and an orthogonal
    cell has zeros off the diagonal.

    Parameters
    ----------
    cells : torch.Tensor
        Lattice vectors as rows in angstrom, shape (S, 3, 3).
    sizes : torch.Tensor
        Atoms in each cell, shape (S,).

    Returns
    -------
    torch.Tensor
        xx, yy, zz, yz, xz, xy, shape (S, 6), float64.
    """
    cells = cells.double()
    return metric_numbers(cells @ cells.transpose(-1, -2), sizes)


def metric_numbers(metric: Tensor, sizes: Tensor) -> Tensor:
    """Inverse of :func:`cell_metric`, shape (S, 6)."""
    values, vectors = torch.linalg.eigh(metric)
    log = 0.5 * (vectors * values.log()[:, None]) @ vectors.transpose(-1, -2)  # (S, 3, 3)
    log = log - torch.diag_embed((sizes.to(metric).log() / 3)[:, None].expand(-1, 3))
    return log[:, _ROWS, _COLUMNS]


def cell_metric(numbers: Tensor, sizes: Tensor) -> Tensor:
    """Metric tensors C C^T in square angstrom, shape (S, 3, 3), of :func:`cell_numbers`.

    Computed in float64: in float32 the last digit depends on how many cells there are.
    """
    wide = numbers.double()
    log = wide.new_zeros(len(wide), 3, 3)
    log[:, _ROWS, _COLUMNS] = wide
    log[:, _COLUMNS, _ROWS] = wide
    factor = (sizes.double() ** (2 / 3))[:, None, None]
    return (factor * torch.linalg.matrix_exp(2 * log)).to(numbers.dtype)


def cell_parameters(numbers: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths in angstrom and angles in radians, each (S, 3), of :func:`cell_numbers`."""
    metric = cell_metric(numbers.double().clamp(-10, 10), sizes)
    lengths = metric.diagonal(dim1=-2, dim2=-1).sqrt()
    cosines = torch.stack(
        [metric[:, i, j] / (lengths[:, i] * lengths[:, j]) for i, j in ((1, 2), (0, 2), (0, 1))],
        dim=-1,
    )
    return lengths, torch.arccos(cosines.clamp(-1, 1))


WAVES = 8  # octaves of the waves of each quantity
CELL_FEATURES = 12 * 2 * WAVES


def cell_features(normalised: Tensor, numbers: Tensor) -> Tensor:
    """Waves of a cell's numbers, ratios of lengths and cosines of angles, shape (C, 192).

    Symmetric cells have angles of 60, 90 or 120 degrees and equal lengths, exactly; short waves
    let a network see how far an estimate is from that.

    Parameters
    ----------
    normalised : torch.Tensor
        The six numbers in units of their standard deviations, shape (C, 6).
    numbers : torch.Tensor
        The same as :func:`cell_numbers` gives them.
    """
    metric = cell_metric(numbers, torch.ones_like(numbers[:, 0]))
    squares = metric.diagonal(dim1=-2, dim2=-1)
    log = 0.5 * squares.double().log().to(squares.dtype)  # as in cell_metric
    ratios = log - log.roll(1, dims=-1)
    pairs = ((1, 2), (0, 2), (0, 1))
    cosines = torch.stack(
        [metric[:, i, j] / (squares[:, i] * squares[:, j]).sqrt() for i, j in pairs], dim=-1
    )
    # shortest waves: 0.03 standard deviations, 0.008 in ratios and cosines change them by a radian
    x = torch.cat([0.25 * normalised, ratios, math.pi / 2 * cosines], dim=-1)  # (C, 12)
    octaves = 2.0 ** torch.arange(WAVES, device=x.device, dtype=x.dtype)
    phase = (x[..., None] * octaves).flatten(1)
    return torch.cat([phase.sin(), phase.cos()], dim=-1)
