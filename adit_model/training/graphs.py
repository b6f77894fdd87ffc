"""CUDA graphs of the denoiser: its kernels are recorded once and replayed in every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

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
    remembers, told : bool
        Whether it is given an earlier prediction, and elements.
    """

    def __init__(
        self, denoiser: Denoiser, groups: DomainGroups, remembers: bool, told: bool
    ) -> None:
        super().__init__()
        self.denoiser, self.groups = denoiser, groups
        self.remembers, self.told = remembers, told

    def forward(self, x_t: Tensor, t: Tensor, domain: Tensor, *rest: Tensor) -> Tensor:
        """Predict x_1; ``rest`` is what is given of prediction and elements, then the groups."""
        given = list(rest)
        previous = given.pop(0) if self.remembers else None
        elements = given.pop(0) if self.told else None
        groups = self.groups.replaced(given)
        return self.denoiser(x_t, t, domain, groups, previous, elements)


class GraphedDenoiser:
    """Stands in for a denoiser in training on a GPU.

    Recorded at the first call with and without an earlier prediction. All batches must have as
    many systems and atoms of each domain as the first, and be padded to the same widths.

    Parameters
    ----------
    denoiser : Denoiser
        On the GPU. Its weights may change, but not their place in memory.
    bfloat16 : bool
        Record mixed precision.
    """

    def __init__(self, denoiser: Denoiser, bfloat16: bool) -> None:
        self.denoiser, self.bfloat16 = denoiser, bfloat16
        self._recorded: dict[tuple[bool, bool], Any] = {}

    def __call__(
        self,
        x_t: Tensor,
        t: Tensor,
        domain: Tensor,
        groups: DomainGroups,
        self_condition: Tensor | None = None,
        elements: Tensor | None = None,
    ) -> Tensor:
        """As :meth:`Denoiser.forward`; the result is overwritten by the next call of its kind."""
        given = [x for x in (self_condition, elements) if x is not None]
        arguments = (x_t, t, domain, *given, *groups.tensors())
        key = (self_condition is not None, elements is not None)
        if key not in self._recorded:
            flat = FlatDenoiser(self.denoiser, groups, *key)
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
