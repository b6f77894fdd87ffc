"""What a stage starts from: data, networks, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from adit_model.conditions.atoms import ElementOrders, element_order_histogram
from adit_model.conditions.known import Known
from adit_model.config import AutoencoderConfig, DenoiserConfig, ModelConfig
from adit_model.data import load_source
from adit_model.data.dataset import AtomicDataset
from adit_model.data.prepare import concatenate
from adit_model.model import ADiT
from adit_model.network.denoiser import Denoiser
from adit_model.systems import CRYSTAL, MOLECULE
from adit_model.training.batches import LatentSource, SystemSource
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.growth import grow
from adit_model.training.latents import cached_latents, latent_statistics, random_pose_latents
from adit_model.training.modules import AutoencoderModule, DenoiserModule, StageModule
from adit_model.training.poses import cached_canonical_dataset


def load_data(specs: Sequence[str], known: AutoencoderConfig, progress: bool) -> AtomicDataset:
    """Join sources of data in canonical form.

    Parameters
    ----------
    specs : sequence of str
        As :func:`adit_model.data.load_source` takes them.
    known : AutoencoderConfig
        Says which elements the model knows.
    progress : bool
        Show progress bars.

    Raises
    ------
    ValueError
        If a system holds an element that the model does not know, or a source cannot be read.
    """
    joined = concatenate([load_source(spec, progress=progress) for spec in specs])
    heaviest = int(joined.numbers.argmax())
    if joined.numbers[heaviest] >= known.num_elements:
        system = int(np.searchsorted(joined.offsets, heaviest, side="right")) - 1
        raise ValueError(
            f"system {joined.ids[system]} of {joined.name} holds element "
            f"{joined.numbers[heaviest]}, the model knows atomic numbers 1 to "
            f"{known.num_elements - 1}: leave it out or raise autoencoder.num_elements"
        )
    return cached_canonical_dataset(joined, progress)


def dataset_known(dataset: AtomicDataset) -> tuple[Known, ElementOrders]:
    """Atom counts and elements of each domain, and the orders of elements in molecules."""
    sizes: dict[str, dict[int, int]] = {}
    elements: dict[str, tuple[int, ...]] = {}
    periodic = np.repeat(dataset.periodic, dataset.sizes)
    for domain, kind in ((CRYSTAL, True), (MOLECULE, False)):
        if (dataset.periodic == kind).any():
            values, counts = np.unique(dataset.sizes[dataset.periodic == kind], return_counts=True)
            sizes[domain] = dict(zip(values.tolist(), counts.tolist(), strict=True))
            elements[domain] = tuple(np.unique(dataset.numbers[periodic == kind]).tolist())
    orders = element_order_histogram(dataset.numbers, dataset.sizes, dataset.periodic)
    return Known(sizes, elements), ElementOrders(orders)


def first_stage_of(config: RunConfig, start: ADiT | None) -> tuple[ADiT, StageModule]:
    """Model and module of stage 1, with the weights of ``start`` if there are any."""
    model = ADiT(config.model, with_denoiser=False)
    if start is not None:
        _load_weights(model.autoencoder, start.autoencoder, config.init_from)
    return model, AutoencoderModule(model.autoencoder, config.training)


def second_stage_of(
    config: RunConfig,
    first_stage: ADiT,
    start: ADiT | None,
    training_data: AtomicDataset,
    validation_data: list[AtomicDataset],
    folder: Path,
    progress: bool,
) -> tuple[ADiT, StageModule, SystemSource | LatentSource, list[Any]]:
    """Model, module, and latents (or systems) for training and validation, of stage 2."""
    autoencoder, stage_1 = first_stage.autoencoder, first_stage.config.autoencoder
    model = ADiT(ModelConfig(stage_1, config.model.denoiser, config.model.sampling))
    model.autoencoder = autoencoder
    model.metadata["stage_1"] = {
        **first_stage.metadata.get("training", {}),
        "hash": first_stage.checkpoint_hash,
    }
    assert model.denoiser is not None

    if start is not None:
        _load_denoiser(model.denoiser, start.denoiser, config.init_from)

    device = _encoding_device(config.training)

    def encode(data: AtomicDataset) -> LatentSource:
        autoencoder.to(device)
        latents = cached_latents(autoencoder, first_stage.checkpoint_hash, data, folder, progress)
        autoencoder.cpu()
        return latents

    train_source: SystemSource | LatentSource
    if stage_1.canonical:
        train_source = sample_of_latents = encode(training_data)
        validation_sources: list[Any] = [encode(data) for data in validation_data]
    else:  # each step draws new poses and encodes them
        train_source = SystemSource(training_data)
        validation_sources = [SystemSource(data) for data in validation_data]
        sample_of_latents = random_pose_latents(autoencoder, training_data, progress)
    if start is None:
        mean, std = latent_statistics(sample_of_latents, stage_1.identity_start)
        model.denoiser.latent_mean.copy_(torch.from_numpy(mean))
        model.denoiser.latent_std.copy_(torch.from_numpy(std))
    if config.training.cuda_graphs:
        assert isinstance(train_source, LatentSource)  # of canonical poses
        train_source.widths = train_source.largest()
    encoder = None if stage_1.canonical else autoencoder
    module = DenoiserModule(model.denoiser, config.training, encoder)  # its average starts here
    return model, module, train_source, validation_sources


def _load_weights(network: nn.Module, start: nn.Module | None, name: str | None) -> None:
    if start is None:
        raise ValueError(f"{name} has no denoiser to start from")
    try:
        network.load_state_dict(start.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the weights of {name} do not fit this run's model: {error}") from error


def _load_denoiser(network: Denoiser, start: Denoiser | None, name: str | None) -> None:
    """Start from other weights; those of fewer blocks are spread over the depth."""
    if start is None or start.config.num_layers >= network.config.num_layers:
        _load_weights(network, start, name)
        return
    # How it was trained does not matter, only what makes up the network.
    options = asdict(network.config) | {"num_layers": start.config.num_layers}
    like = Denoiser(DenoiserConfig(**options), network.latent_dim, network.coordinate_scale)
    _load_weights(like, start, name)
    try:
        grow(like, network)
    except ValueError as error:
        raise ValueError(f"the weights of {name} do not fit this run's model: {error}") from error


def _encoding_device(settings: TrainingConfig) -> torch.device:
    gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu and settings.devices * settings.num_nodes == 1 else "cpu")
