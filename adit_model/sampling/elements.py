"""Elements imposed on the way: predictions moved to the nearest ones that a rule allows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from adit_model.conditions.atoms import ElementChoice
from adit_model.network.denoiser import Denoiser
from adit_model.network.exact import ExactAutoencoder
from adit_model.network.groups import DomainGroups

LEAST_SHARE = 1e-9
IMPOSE_FROM = 0.7  # time from which the elements of molecules are nearly certain


class ElementProjection:
    """Give the atoms of molecules elements that their choice allows, from a time on.

    Where the likeliest elements of a prediction break the rule, those atoms that
    :meth:`~adit_model.conditions.atoms.ElementChoice.choose` changes get the code of their new
    element. The other atoms and the bonds follow in the steps that are left.

    Parameters
    ----------
    autoencoder : ExactAutoencoder
        Has the code of each element.
    elements : sequence of int
        Atomic numbers that molecules can hold.
    denoiser : Denoiser
        Whose predictions are changed.
    choices : sequence of ElementChoice or None
        Of the first systems of the batch; None leaves a system alone.
    groups : DomainGroups
        Of the batch.
    """

    def __init__(
        self,
        autoencoder: ExactAutoencoder,
        elements: Sequence[int],
        denoiser: Denoiser,
        choices: Sequence[ElementChoice | None],
        groups: DomainGroups,
    ) -> None:
        self.elements = np.array(elements)
        stops = [0, *groups.packing.sizes.cumsum(0).tolist()]
        self.parts = [
            (choice, slice(*rows))
            for choice, rows in zip(choices, pairwise(stops), strict=False)
            if choice is not None
        ]
        code = autoencoder.code.weight.detach()
        latents = torch.nn.functional.pad(code, (3, 0))
        kinds = torch.zeros(len(code), dtype=torch.long, device=code.device)  # of molecules
        self.code = denoiser.normalise(latents, kinds)[:, 3:]
        code = self.code.double().cpu().numpy()[self.elements].T
        self.mixture = np.vstack([code, np.ones(len(self.elements))])  # (F + 1, K)
        self.num_elements = len(self.code)

    @torch.no_grad()
    def __call__(self, x_1: Tensor, time: float) -> Tensor:
        """Change a prediction of x_1, shape (T, L), made at a time."""
        if time < IMPOSE_FROM:
            return x_1
        features = x_1[:, 3:].double().cpu().numpy()
        free = ElementChoice()
        rows: list[int] = []
        numbers: list[int] = []
        for choice, part in self.parts:
            logits = self._log_shares(features[part])
            chosen = choice.choose(logits)
            changed = np.flatnonzero(chosen != free.choose(logits))
            rows.extend((part.start + changed).tolist())
            numbers.extend(chosen[changed].tolist())
        if not rows:
            return x_1
        at = torch.tensor(rows, device=x_1.device)
        code = self.code[torch.tensor(numbers, device=x_1.device)].to(x_1)
        return x_1.index_copy(0, at, torch.cat([x_1[at, :3], code], dim=1))

    def _log_shares(self, features: np.ndarray) -> np.ndarray:
        """Logarithms of the shares of elements in predicted codes (N, F), shape (N, E).

        A prediction is the mean over what an atom can be: a mixture of codes, whose shares are
        the probabilities of its elements.
        """
        shares = np.full((len(features), self.num_elements), LEAST_SHARE)
        for row, feature in zip(shares, features, strict=True):
            row[self.elements] += nnls(self.mixture, np.append(feature, 1.0))[0]
        return np.log(shares)
