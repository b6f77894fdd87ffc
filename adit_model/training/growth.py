"""Start a denoiser from the weights of one with fewer blocks or fewer properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from adit_model.network.conditioning import PROPERTY_FEATURES
from adit_model.network.denoiser import Denoiser

STAGED = ("coordinate_updates.", "cell_updates.", "cell_waves.")  # new ones are zero


def with_properties(old: Denoiser, names: Sequence[str]) -> Denoiser:
    """Copy a denoiser and let it be told more properties.

    It predicts the same where they are not told. Their inputs start at zero.

    Parameters
    ----------
    old : Denoiser
        Trained.
    names : sequence of str
        All properties, those that it knows first.

    Raises
    ------
    ValueError
        If it cannot be told properties, or knows others.
    """
    known = old.config.properties
    if not old.config.conditions:
        raise ValueError(
            "weights made without denoiser.conditions cannot learn properties: start from mini-2"
        )
    if tuple(names[: len(known)]) != known:
        raise ValueError(f"the weights know the properties {', '.join(known)}, which must stay")
    config = replace(old.config, properties=tuple(names))
    new = Denoiser(config, old.latent_dim, old.coordinate_scale, old.cells)
    state = new.state_dict() | old.state_dict()
    if known:
        first = "told.properties.0.weight"
        added = (len(names) - len(known)) * PROPERTY_FEATURES
        state[first] = torch.nn.functional.pad(old.state_dict()[first], (0, added))
    new.load_state_dict(state)
    return new


def grow(old: Denoiser, new: Denoiser) -> None:
    """Give a denoiser the weights of one with fewer blocks, so that both predict the same.

    The old blocks are spread evenly over the new depth. The blocks between them keep the zero
    gates they are made with (adaLN-Zero), which add nothing until they are trained; so do new
    updates of the coordinates, and a new description of pairs is a copy of the last one before it.

    Parameters
    ----------
    old : Denoiser
        Trained.
    new : Denoiser
        Just made, with more blocks and otherwise the same configuration; changed in place.

    Raises
    ------
    ValueError
        If the configurations differ in more than depth, or an old description of pairs would not
        stand before the block it stood before.
    """
    if replace(old.config, num_layers=new.config.num_layers) != new.config:
        raise ValueError("a denoiser grows in depth only: its other options must stay as they are")
    if old.config.num_layers > new.config.num_layers:
        raise ValueError("a denoiser cannot be made shallower")
    if old.latent_dim != new.latent_dim or old.cells != new.cells:
        raise ValueError("a denoiser grows in depth only: the latents must have as many channels")
    place = [
        i * new.config.num_layers // old.config.num_layers for i in range(old.config.num_layers)
    ]
    every = old.config.geometry_every
    pair_place = [place[i * every] for i in range(len(old.pair_encoders))]
    if any(p % every for p in pair_place):
        raise ValueError(
            f"{old.config.num_layers} blocks with geometry_every {every} cannot be spread over "
            f"{new.config.num_layers}: take a multiple"
        )
    state: dict[str, Tensor] = {
        name: value
        for name, value in old.state_dict().items()
        if not name.startswith(("blocks.", "pair_encoders.", *STAGED))
    }
    state |= {
        name: value for name, value in new.state_dict().items() if name not in state
    }  # zero gates, zero updates

    def take(kind: str, source: int, target: int) -> None:
        module = getattr(old, kind)[source]
        state.update({f"{kind}.{target}.{k}": v for k, v in module.state_dict().items()})

    for source, target in enumerate(place):
        take("blocks", source, target)
    for target in range(len(new.pair_encoders)):
        source = sum(p <= target * every for p in pair_place) - 1
        take("pair_encoders", source, target)
    for source, target in enumerate(pair_place[1:]):
        take("coordinate_updates", source, target // every - 1)
        if old.cells:
            take("cell_updates", source, target // every - 1)
    if old.cells:
        for source, target in enumerate([-every, *pair_place]):  # the first is of what is noisy
            take("cell_waves", source, target // every + 1)
    new.load_state_dict(state)


def adopt(old: Denoiser, new: Denoiser, name: str | None) -> None:
    """Give a denoiser with rows for cells the weights of one without.

    What both have is taken over; new inputs, outputs and updates keep the zeros they are made
    with. Scale and mean of the coordinates stay those the old weights fit; those of the other
    channels are of the new latents.

    Parameters
    ----------
    old, new : Denoiser
        Trained, and just made with as many blocks of the same width; the second is changed.
    name : str or None
        Of the old weights, for the error.

    Raises
    ------
    ValueError
        If a weight that both have is of another shape, or the new denoiser lacks one.
    """
    state, given = new.state_dict(), old.state_dict()
    for key, value in given.items():
        if key in ("latent_mean", "latent_std"):
            state[key][:2, :3] = value[:, :3]
        elif key in state and state[key].shape == value.shape:
            state[key] = value
        else:
            raise ValueError(f"the weights of {name} do not fit this run's model: {key}")
    new.load_state_dict(state)
