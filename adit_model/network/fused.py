"""Attention with pair terms, and radial functions: what torch.compile can join to few kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

RADIAL_RANGE = (0.7, 10.0)  # angstrom


def _radial_functions(square: Tensor, number: int) -> Tensor:
    log_distance = 0.5 * (square + 1e-2).log()
    low, high = (math.log(r) for r in RADIAL_RANGE)
    width = (high - low) / (number - 1)
    centres = torch.linspace(low, high, number, device=square.device, dtype=square.dtype)
    centres = centres.view(-1, *[1] * square.ndim)
    return (-0.5 * ((log_distance - centres) / width).square()).exp()


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pair: Tensor,
    scale: Tensor | None,
    mask: Tensor,
    values: Tensor,
    periodic: bool,
) -> Tensor:
    if scale is not None:
        pair = pair * (1 + scale.T[..., None, None])
    bias, weight = pair.chunk(2)
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias  # (H, S, N, N)
    attention = logits.masked_fill(~mask[:, None, :], -1e9).softmax(-1)
    y = (attention @ v).permute(1, 2, 0, 3)  # (S, N, H, D / H)
    total = (attention * weight) @ values  # (H, S, N, 4 or 6)
    if periodic:
        sine, cosine = values.chunk(2, dim=-1)
        direction = total[..., :3] * cosine - total[..., 3:] * sine
    else:
        direction = total[..., :3] - total[..., 3:] * values[..., :3]
    direction = direction.permute(1, 2, 0, 3)  # (S, N, H, 3)
    return torch.cat([y.flatten(2), direction.flatten(2)], dim=-1)


_functions: dict[str, Callable[..., Tensor]] = {
    "attend": _attend,
    "radial_functions": _radial_functions,
}


@contextmanager
def compiled(backend: str = "inductor") -> Iterator[None]:
    """Compile these functions at their first call in the body.

    Results differ by rounding, so that sampling, which shall repeat bit for bit, is done without.

    Parameters
    ----------
    backend : str
        Of ``torch.compile``. The default needs a C++ compiler, or on a GPU Triton.
    """
    plain = dict(_functions)
    for name, function in plain.items():
        _functions[name] = torch.compile(function, dynamic=True, backend=backend)
    try:
        yield
    finally:
        _functions.update(plain)


@contextmanager
def kernels() -> Iterator[None]:
    """Compute attention with pair terms in Triton kernels in the body, up to 64 rows a system.

    Results differ by rounding. See :mod:`adit_model.network.triton_attention`.
    """
    from adit_model.network import triton_attention

    plain = _functions["attend"]

    def attend(q: Tensor, *rest: Any) -> Tensor:
        small = q.shape[2] <= triton_attention.LARGEST
        return triton_attention.attend(q, *rest) if small else plain(q, *rest)

    _functions["attend"] = attend
    try:
        yield
    finally:
        _functions["attend"] = plain


def radial_functions(square: Tensor, number: int) -> Tensor:
    """Gaussians of the logarithm of a distance, given squared (angstrom), shape (number, ...)."""
    return _functions["radial_functions"](square, number)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pair: Tensor,
    scale: Tensor | None,
    mask: Tensor,
    values: Tensor,
    periodic: bool,
) -> Tensor:
    """Attend with a bias of pairs, and sum the directions to what is attended to.

    The direction from atom i to j is r_j - r_i in angstrom in a molecule and
    sin 2 pi (f_j - f_i) in a crystal, which does not care about periodic images.

    Parameters
    ----------
    q, k, v : torch.Tensor
        Shape (H, S, N, D / H).
    pair : torch.Tensor
        Biases, then weights of the directions, shape (2 H, S, N, N).
    scale : torch.Tensor or None
        Strength of both in each system, less 1, shape (S, 2 H).
    mask : torch.Tensor
        Which slots hold atoms, shape (S, N), bool.
    values : torch.Tensor
        See :class:`~adit_model.network.pairs.PairGeometry`, shape (S, N, 4 or 6).
    periodic : bool
        Crystals or molecules.

    Returns
    -------
    torch.Tensor
        Shape (S, N, D + 3 H).
    """
    return _functions["attend"](q, k, v, pair, scale, mask, values, periodic)
