"""CUDA graphs of the denoiser: its kernels are recorded once and replayed in every step."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from adit_model.network.conditioning import Told
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups


class FlatDenoiser(nn.Module):
    """A denoiser that takes tensors alone, for batches of fixed shapes.

    Parameters
    ----------
    denoiser : Denoiser
        What is called.
    groups : DomainGroups
        Of any batch with the shapes of all.
    remembers : bool
        Whether it is given an earlier prediction.
    """

    def __init__(self, denoiser: Denoiser, groups: DomainGroups, remembers: bool) -> None:
        super().__init__()
        self.denoiser, self.groups, self.remembers = denoiser, groups, remembers

    def forward(self, x_t: Tensor, t: Tensor, *rest: Tensor) -> Tensor:
        """Predict x_1; ``rest`` is the prediction, if there is one, what is told, the groups."""
        given = list(rest)
        previous = given.pop(0) if self.remembers else None
        number = len(fields(Told))
        told, groups = Told(*given[:number]), self.groups.replaced(given[number:])
        return self.denoiser(x_t, t, groups, told, previous)


class GraphedDenoiser:
    """Stands in for a denoiser in training on a GPU.

    Recorded at the first call with and without an earlier prediction. All batches must have as
    many systems and rows of each domain as the first, and be padded to the same widths.

    Parameters
    ----------
    denoiser : Denoiser
        On the GPU. Its weights may change, but not their place in memory.
    bfloat16 : bool
        Record mixed precision.
    """

    def __init__(self, denoiser: Denoiser, bfloat16: bool) -> None:
        self.denoiser, self.bfloat16 = denoiser, bfloat16
        self._recorded: dict[bool, Any] = {}

    def __call__(
        self,
        x_t: Tensor,
        t: Tensor,
        groups: DomainGroups,
        told: Told,
        self_condition: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`Denoiser.forward`; the result is overwritten by the next call of its kind."""
        given = [] if self_condition is None else [self_condition]
        arguments = (x_t, t, *given, *told.tensors(), *groups.tensors())
        key = self_condition is not None
        if key not in self._recorded:
            flat = FlatDenoiser(self.denoiser, groups, key)
            # The cache would keep casts of weights from one step to the next.
            with (
                torch.enable_grad(),
                torch.autocast("cuda", torch.bfloat16, enabled=self.bfloat16, cache_enabled=False),
            ):
                samples = tuple(x.clone() for x in arguments)
                self._recorded[key] = torch.cuda.make_graphed_callables(
                    flat, samples, allow_unused_input=True
                )
        return self._recorded[key](*arguments)
