"""Going on from trained weights: earlier data in the batches, new elements in the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from adit_model.data.dataset import AtomicDataset
from adit_model.data.prepare import concatenate

if TYPE_CHECKING:
    from adit_model.model import ADiT


@dataclass
class Replay:
    """New data with earlier ones among them.

    Parameters
    ----------
    dataset : AtomicDataset
        What a run is trained on.
    crystal_fraction : float
        Share of crystals in a batch that gives the earlier data the share that was asked for.
    crystals, molecules : int
        Earlier ones in the data set.
    """

    dataset: AtomicDataset
    crystal_fraction: float
    crystals: int
    molecules: int


def mix_replay(
    new: AtomicDataset,
    earlier: Sequence[AtomicDataset],
    fraction: float,
    seed: int = 0,
    most: int = 20_000,
) -> Replay:
    """Mix earlier data into new ones, so that a model does not forget what it could.

    Each domain of the earlier data gets an equal part of ``fraction``, and the domains of the new
    data share the rest by their numbers. Batches draw crystals and molecules separately, so the
    number of earlier systems of a domain sets their share among the new ones of that domain.

    Parameters
    ----------
    new, earlier : AtomicDataset
        Data to learn, and data not to forget.
    fraction : float
        Share of each batch that the earlier data get, in (0, 1).
    seed : int
        Of the choice among the earlier data.
    most : int
        Most earlier systems of a domain; a smaller number costs less to encode.

    Raises
    ------
    ValueError
        If ``fraction`` is out of range.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction of earlier data must lie between 0 and 1, got {fraction}")
    known = concatenate(earlier)
    fresh = {kind: int((new.periodic == kind).sum()) for kind in (True, False)}
    pools = {kind: np.flatnonzero(known.periodic == kind) for kind in (True, False)}
    domains = [kind for kind, pool in pools.items() if len(pool)]
    random = np.random.default_rng(seed)
    share, chosen = {}, {}
    for kind in (True, False):
        of_new = (1 - fraction) * fresh[kind] / len(new)
        of_earlier = fraction / len(domains) if kind in domains else 0.0
        share[kind] = of_new + of_earlier
        count = min(len(pools[kind]), most)
        if fresh[kind]:
            count = min(count, round(fresh[kind] * of_earlier / of_new))
        chosen[kind] = random.permutation(pools[kind])[:count]
    parts = [new]
    picked = np.sort(np.concatenate([chosen[True], chosen[False]]))
    if len(picked):
        parts.append(known.subset(picked))
    mixed = concatenate(parts, f"{new.name} with {known.name}")
    return Replay(mixed, share[True], len(chosen[True]), len(chosen[False]))


def with_elements(model: ADiT, num_elements: int) -> ADiT:
    """Return a model that knows more elements, with the weights of the given one.

    Parameters
    ----------
    model : ADiT
        Trained.
    num_elements : int
        Size of the vocabulary: the largest atomic number plus one.

    Raises
    ------
    ValueError
        If the model knows more elements already.
    """
    import torch

    from adit_model.model import ADiT

    known = model.config.autoencoder.num_elements
    if num_elements < known:
        raise ValueError(f"the model knows {known} elements, more than {num_elements}")
    config = replace(
        model.config, autoencoder=replace(model.config.autoencoder, num_elements=num_elements)
    )
    has_denoiser = model.denoiser is not None
    larger = ADiT(config, model.known, model.element_orders, model.metadata, has_denoiser)
    weights = larger.state_dict()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if weights[name].shape == value.shape:
                weights[name].copy_(value)
            else:
                weights[name][:known].copy_(value)
                if name.endswith(".bias"):
                    weights[name][known:] = value.min()  # no guess before it is learned
    larger.load_state_dict(weights)
    return larger.to(model.device).eval()
