"""Which atom gets which noise: in training, and where noise is renewed in sampling."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from adit_model.network.conditioning import NUM_ELEMENTS, Told
from adit_model.network.groups import DomainGroups


def assign_noise(
    noise: Tensor, x_1: Tensor, groups: DomainGroups, told: Told, settled: Tensor | None = None
) -> Tensor:
    """Exchange the noise of atoms that are told the same, so that it lies nearest to the data.

    The rows of each system are permuted by a linear assignment on the squared distances of
    channels 0 to 2. Atoms of which different elements are told never exchange theirs, so the noise
    of each stays Gaussian whatever is told. The assignment makes paths from noise to data short
    (Klein et al. 2023, arXiv 2306.15030); a network trained with it expects it of every noise.

    Parameters
    ----------
    noise, x_1 : torch.Tensor
        Shape (T, L).
    groups : DomainGroups
        Of the batch.
    told : Told
        Of the systems.
    settled : torch.Tensor
        Systems whose noise stays as it is, shape (S,), bool; none by default.
    """
    from scipy.optimize import linear_sum_assignment

    start, end = noise[:, :3].cpu().numpy(), x_1[:, :3].cpu().numpy()
    kind = (
        (told.elements + NUM_ELEMENTS * (told.fixed.long() + 2 * groups.is_cell.long()))
        .cpu()
        .numpy()
    )
    order = np.arange(len(kind))
    stops = groups.packing.sizes.cumsum(0).tolist()
    for system, (first, last) in enumerate(pairwise([0, *stops])):
        if settled is not None and settled[system]:
            continue
        rows = slice(first, last)
        cost = -start[rows] @ end[rows].T  # of noise i at atom j; the squares do not matter
        other = kind[rows][:, None] != kind[rows]
        order[rows] = first + linear_sum_assignment((cost + 1e4 * other).T)[1]
    return noise.index_select(0, torch.from_numpy(order).to(noise.device))
