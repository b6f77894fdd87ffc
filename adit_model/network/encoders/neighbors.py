"""All pairs of atoms within a cutoff, periodic images included.

Own code, since vesin takes one system at a time and this a batch, on its device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adit_model.batch import AtomicBatch

MAX_CANDIDATES = 20_000_000  # pairs of one system looked at, images included


def neighbor_list(batch: AtomicBatch, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find the ordered pairs of atoms of one system closer than a cutoff.

    In a crystal every periodic image of the sender counts as a pair of its own, images of the
    receiver itself too, wherever in space the atoms are given.

    Parameters
    ----------
    batch : AtomicBatch
        Packed systems.
    cutoff : float
        Distance in angstrom.

    Returns
    -------
    tuple of torch.Tensor
        Receivers (E,), senders (E,) and the vectors from receiver to sender in angstrom (E, 3),
        which carry the gradients of positions and cells.

    Raises
    ------
    ValueError
        If a cell is so flat that too many images would have to be looked at.
    """
    sizes, index = batch.sizes, batch.packing.index
    reach = _image_reach(batch, cutoff)  # (S, 3)
    spans = 2 * reach + 1
    counts = sizes**2 * spans.prod(dim=1)  # (S,)
    listed = counts.tolist()
    if max(listed) > MAX_CANDIDATES:
        worst = listed.index(max(listed))
        raise ValueError(
            f"system {worst} of the batch needs {listed[worst]} pairs for a cutoff of {cutoff} "
            f"angstrom, its cell is {batch.cells[worst].tolist()}: reduce the cell"
        )
    total = sum(listed)
    system = torch.repeat_interleave(
        torch.arange(len(batch), device=batch.device), counts, output_size=total
    )
    # Number the candidates of a system as receiver + N (sender + N (image)).
    rest = torch.arange(total, device=batch.device) - (counts.cumsum(0) - counts)[system]
    n, first = sizes[system], (sizes.cumsum(0) - sizes)[system]
    receiver, rest = first + rest % n, rest // n
    sender, rest = first + rest % n, rest // n
    image = []
    for span, most in zip(spans[system].unbind(1), reach[system].unbind(1), strict=True):
        image.append(rest % span - most)
        rest = rest // span
    frac = batch.frac_coords.detach()
    nearest = (frac[sender] - frac[receiver]).round()  # 0 in molecules
    shift = torch.stack(image, dim=1).to(nearest) - nearest  # (C, 3) lattice vectors

    with torch.no_grad():
        vectors = _vectors(batch, receiver, sender, shift, index)
        close = vectors.square().sum(dim=1) < cutoff**2
        itself = (sender == receiver) & (shift == 0).all(dim=1)
        kept = torch.nonzero(close & ~itself).squeeze(1)
    receiver, sender = receiver[kept], sender[kept]
    return receiver, sender, _vectors(batch, receiver, sender, shift[kept], index)


def _image_reach(batch: AtomicBatch, cutoff: float) -> Tensor:
    """Images to look at on each side of the nearest one, shape (S, 3), 0 for molecules.

    Lattice planes of axis k lie 1 / |b_k| apart (b reciprocal, without 2 pi), and a pair in its
    nearest image is at most half a plane distance off.
    """
    reciprocal = torch.linalg.inv(batch.cells.detach()).norm(dim=1)  # (S, 3)
    reach = (cutoff * reciprocal + 0.5 + 1e-4).floor().long()
    return reach * batch.periodic[:, None]


def _vectors(
    batch: AtomicBatch, receiver: Tensor, sender: Tensor, shift: Tensor, index: Tensor
) -> Tensor:
    translation = (shift[:, :, None] * batch.cells[index[receiver]]).sum(dim=1)
    return batch.positions[sender] - batch.positions[receiver] + translation
