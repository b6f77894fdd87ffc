"""Attention with pair terms in one Triton kernel for each direction, for GPUs.

What :func:`adit_model.network.fused.attend` says in PyTorch writes logits, attention and weighted
attention of all pairs to memory, and reads them again in the gradient. Here one program holds one
head of one system, whose pairs fit its registers: only biases and weights of the pairs and their
gradients go through memory, in their own precision. It sums in float32.

The kernels run in Triton's interpreter on a CPU (``TRITON_INTERPRET=1``), which is how they are
tested; they have not run on a GPU yet.
"""

# Triton gives annotations of arguments a meaning of its own.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = 64  # rows of a system that one program holds
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    if PRECISION == "interpreter":  # which has no products of bfloat16
        out = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        out = tl.dot(a, b, input_precision=PRECISION)
    return out


@triton.jit
def _pairs(
    q_ptr, k_ptr, pair_ptr, scale_ptr, sizes_ptr,
    h, s, sq_h, sq_s, sq_n, sq_d, sk_h, sk_s, sk_n, sk_d,
    number, width, systems, heads, factor,
    HAS_SCALE: tl.constexpr, B: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return q, k, the attention, biases and weights as given, and what they are scaled by."""
    n, d = tl.arange(0, B), tl.arange(0, D)
    inside = (n[:, None] < number) & (d[None, :] < width)
    both = (n[:, None] < number) & (n[None, :] < number)
    q = tl.load(q_ptr + h * sq_h + s * sq_s + n[:, None] * sq_n + d[None, :] * sq_d, inside, 0.0)
    k = tl.load(k_ptr + h * sk_h + s * sk_s + n[:, None] * sk_n + d[None, :] * sk_d, inside, 0.0)
    place = n[:, None] * number + n[None, :]
    area = number * number
    bias = tl.load(pair_ptr + (h * systems + s) * area + place, both, 0.0).to(tl.float32)
    other = ((heads + h) * systems + s) * area
    weight = tl.load(pair_ptr + other + place, both, 0.0).to(tl.float32)
    bias_scale, weight_scale = 1.0, 1.0
    if HAS_SCALE:
        bias_scale += tl.load(scale_ptr + s * 2 * heads + h).to(tl.float32)
        weight_scale += tl.load(scale_ptr + s * 2 * heads + heads + h).to(tl.float32)
    logits = _product(q, tl.trans(k), PRECISION) * factor + bias * bias_scale
    logits = tl.where(n[None, :] < tl.load(sizes_ptr + s), logits, -1e9)
    logits = tl.where(n[None, :] < number, logits, -float("inf"))
    power = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    attention = power / tl.sum(power, axis=1)[:, None]
    return q, k, attention, bias, weight, bias_scale, weight_scale


@triton.jit
def _direction(values_ptr, s, c, number, PERIODIC: tl.constexpr, B: tl.constexpr):
    """Return component c of the direction from i to j, and what it is made of."""
    n = tl.arange(0, B)
    if PERIODIC:
        row = values_ptr + (s * number + n) * 6 + c
        sine = tl.load(row, n < number, 0.0).to(tl.float32)
        cosine = tl.load(row + 3, n < number, 0.0).to(tl.float32)
        g = sine[None, :] * cosine[:, None] - cosine[None, :] * sine[:, None]
    else:
        sine = tl.load(values_ptr + (s * number + n) * 4 + c, n < number, 0.0).to(tl.float32)
        cosine = sine
        g = sine[None, :] - sine[:, None]
    return g, sine, cosine


@triton.jit
def _forward(
    q_ptr, k_ptr, v_ptr, pair_ptr, scale_ptr, sizes_ptr, values_ptr, out_ptr,
    sq_h, sq_s, sq_n, sq_d, sk_h, sk_s, sk_n, sk_d, sv_h, sv_s, sv_n, sv_d,
    number, width, systems, heads, factor,
    HAS_SCALE: tl.constexpr, PERIODIC: tl.constexpr, B: tl.constexpr, D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    s, h = tl.program_id(0), tl.program_id(1)
    _, _, attention, _, weight, _, weight_scale = _pairs(
        q_ptr, k_ptr, pair_ptr, scale_ptr, sizes_ptr,
        h, s, sq_h, sq_s, sq_n, sq_d, sk_h, sk_s, sk_n, sk_d,
        number, width, systems, heads, factor, HAS_SCALE, B, D, PRECISION,
    )  # fmt: skip
    n, d = tl.arange(0, B), tl.arange(0, D)
    inside = (n[:, None] < number) & (d[None, :] < width)
    v = tl.load(v_ptr + h * sv_h + s * sv_s + n[:, None] * sv_n + d[None, :] * sv_d, inside, 0.0)
    y = _product(attention.to(v.dtype), v, PRECISION)
    row = out_ptr + (s * number + n) * heads * (width + 3)
    tl.store(row[:, None] + h * width + d[None, :], y.to(out_ptr.dtype.element_ty), inside)
    weighted = attention * weight * weight_scale
    for c in tl.static_range(3):
        g, _, _ = _direction(values_ptr, s, c, number, PERIODIC, B)
        total = tl.sum(weighted * g, axis=1).to(out_ptr.dtype.element_ty)
        tl.store(row + heads * width + 3 * h + c, total, n < number)


@triton.jit
def _backward(
    q_ptr, k_ptr, v_ptr, pair_ptr, scale_ptr, sizes_ptr, values_ptr, grad_ptr,
    dq_ptr, dk_ptr, dv_ptr, dpair_ptr, dscale_ptr, dvalues_ptr,
    sq_h, sq_s, sq_n, sq_d, sk_h, sk_s, sk_n, sk_d, sv_h, sv_s, sv_n, sv_d,
    number, width, systems, heads, factor,
    HAS_SCALE: tl.constexpr, PERIODIC: tl.constexpr, B: tl.constexpr, D: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    s, h = tl.program_id(0), tl.program_id(1)
    q, k, attention, bias, weight, bias_scale, weight_scale = _pairs(
        q_ptr, k_ptr, pair_ptr, scale_ptr, sizes_ptr,
        h, s, sq_h, sq_s, sq_n, sq_d, sk_h, sk_s, sk_n, sk_d,
        number, width, systems, heads, factor, HAS_SCALE, B, D, PRECISION,
    )  # fmt: skip
    n, d = tl.arange(0, B), tl.arange(0, D)
    inside = (n[:, None] < number) & (d[None, :] < width)
    both = (n[:, None] < number) & (n[None, :] < number)
    v = tl.load(v_ptr + h * sv_h + s * sv_s + n[:, None] * sv_n + d[None, :] * sv_d, inside, 0.0)
    row = grad_ptr + (s * number + n) * heads * (width + 3)
    dy = tl.load(row[:, None] + h * width + d[None, :], inside, 0.0).to(v.dtype)

    weighted = attention * weight * weight_scale
    along = tl.zeros((B, B), tl.float32)  # of the gradient of the direction, on the direction
    rows = dvalues_ptr + ((h * systems + s) * number + n) * 6
    for c in tl.static_range(3):
        g, sine, cosine = _direction(values_ptr, s, c, number, PERIODIC, B)
        dtotal = tl.load(row + heads * width + 3 * h + c, n < number, 0.0).to(tl.float32)
        along += dtotal[:, None] * g
        dg = weighted * dtotal[:, None]
        if PERIODIC:
            dsine = tl.sum(dg * cosine[:, None], axis=0) - tl.sum(dg * cosine[None, :], axis=1)
            dcosine = tl.sum(dg * sine[None, :], axis=1) - tl.sum(dg * sine[:, None], axis=0)
            tl.store(rows + 3 + c, dcosine, n < number)
        else:
            dsine = tl.sum(dg, axis=0) - tl.sum(dg, axis=1)
        tl.store(rows + c, dsine, n < number)

    dweight = attention * along
    dattention = _product(dy, tl.trans(v), PRECISION) + along * weight * weight_scale
    dbias = attention * (dattention - tl.sum(attention * dattention, axis=1)[:, None])
    place = n[:, None] * number + n[None, :]
    area = number * number
    kind = dpair_ptr.dtype.element_ty
    first, second = (h * systems + s) * area, ((heads + h) * systems + s) * area
    tl.store(dpair_ptr + first + place, (dbias * bias_scale).to(kind), both)
    tl.store(dpair_ptr + second + place, (dweight * weight_scale).to(kind), both)
    if HAS_SCALE:
        tl.store(dscale_ptr + s * 2 * heads + h, tl.sum(tl.sum(dbias * bias, axis=1), axis=0))
        total = tl.sum(tl.sum(dweight * weight, axis=1), axis=0)
        tl.store(dscale_ptr + s * 2 * heads + heads + h, total)

    dlogits = dbias.to(q.dtype)
    dq = _product(dlogits, k, PRECISION) * factor
    dk = _product(tl.trans(dlogits), q, PRECISION) * factor
    dv = _product(tl.trans(attention.to(v.dtype)), dy, PRECISION)
    at = ((h * systems + s) * number + n[:, None]) * width + d[None, :]
    tl.store(dq_ptr + at, dq.to(dq_ptr.dtype.element_ty), inside)
    tl.store(dk_ptr + at, dk.to(dk_ptr.dtype.element_ty), inside)
    tl.store(dv_ptr + at, dv.to(dv_ptr.dtype.element_ty), inside)


def _arguments(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor | None, periodic: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Strides and sizes, and what a kernel is compiled for."""
    heads, systems, number, width = q.shape
    numbers = (*q.stride(), *k.stride(), *v.stride())
    precision = "ieee" if q.dtype == torch.float32 else "tf32"
    precision = "interpreter" if INTERPRETED else precision
    constants = {
        "HAS_SCALE": scale is not None,
        "PERIODIC": periodic,
        "B": max(16, triton.next_power_of_2(number)),
        "D": max(16, triton.next_power_of_2(width)),
        "PRECISION": precision,
        "num_warps": 4 if number <= 32 else 8,
    }
    return (*numbers, number, width, systems, heads, width**-0.5), constants


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pair: Tensor,
        scale: Tensor | None,
        sizes: Tensor,
        values: Tensor,
        periodic: bool,
    ) -> Tensor:
        heads, systems, number, width = q.shape
        out = q.new_empty(systems, number, heads * (width + 3))
        numbers, constants = _arguments(q, k, v, scale, periodic)
        given = (q, k, v, pair, pair if scale is None else scale, sizes, values)
        _forward[(systems, heads)](*given, out, *numbers, **constants)
        ctx.save_for_backward(q, k, v, pair, scale, sizes, values)
        ctx.periodic = periodic
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        q, k, v, pair, scale, sizes, values = ctx.saved_tensors
        heads, systems, number, _ = q.shape
        dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
        dpair = torch.empty_like(pair)
        wide = {"device": q.device, "dtype": torch.float32}
        dscale = torch.empty(systems, 2 * heads, **wide)
        dvalues = torch.zeros(heads, systems, number, 6, **wide)
        numbers, constants = _arguments(q, k, v, scale, ctx.periodic)
        given = (q, k, v, pair, pair if scale is None else scale, sizes, values)
        results = (dq, dk, dv, dpair, dscale, dvalues)
        _backward[(systems, heads)](
            *given, gradients[0].contiguous(), *results, *numbers, **constants
        )
        total = dvalues.sum(0)
        if not ctx.periodic:  # the last of the four is constant
            total = torch.cat([total[..., :3], torch.zeros_like(total[..., :1])], dim=-1)
        given_scale = None if scale is None else dscale.to(scale.dtype)
        return dq, dk, dv, dpair, given_scale, None, total.to(values.dtype), None


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
    """Attend as :func:`adit_model.network.fused.attend` does, for systems of up to 64 rows.

    Parameters
    ----------
    q, k, v, pair, scale, mask, values, periodic
        As there. ``mask`` is true for the first rows of each system.

    Raises
    ------
    ValueError
        If systems are padded to more rows than a program holds.
    """
    if q.shape[2] > LARGEST:
        raise ValueError(f"fused attention holds up to {LARGEST} rows a system, got {q.shape[2]}")
    sizes = mask.sum(-1, dtype=torch.int32)
    scale = None if scale is None else scale.contiguous()
    return _Attend.apply(q, k, v, pair.contiguous(), scale, sizes, values.contiguous(), periodic)
