"""Compiled parts of the networks, and that nothing stays compiled."""

from __future__ import annotations

import torch
from torch import Tensor

from adit_model.network import fused


def results() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    heads = (draw(2, 2, 5, 4) for _ in range(3))
    pair, scale, values = draw(4, 2, 5, 5), draw(2, 4), draw(2, 5, 6)
    attended = fused.attend(*heads, pair, scale, mask, values, periodic=True)
    return [attended, fused.radial_functions(draw(7).square(), 6)]


def test_compiled_functions_give_the_same_and_only_in_the_block():
    plain, functions = results(), dict(fused._functions)
    with fused.compiled("eager"):
        assert not set(fused._functions.values()) & set(functions.values())
        torch.testing.assert_close(results(), plain)
    assert fused._functions == functions
    torch.testing.assert_close(results(), plain, rtol=0, atol=0)
