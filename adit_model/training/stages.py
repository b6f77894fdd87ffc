"""What a stage starts from: data, networks, weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from adit_model.conditions.atoms import ElementOrders, element_order_histogram
from adit_model.conditions.condition import read_property_names
from adit_model.conditions.known import Known, PropertyRange
from adit_model.conditions.properties import property_name
from adit_model.config import AutoencoderConfig, DenoiserConfig, ModelConfig
from adit_model.data import load_source
from adit_model.data.dataset import AtomicDataset
from adit_model.data.prepare import check_labels, concatenate
from adit_model.model import ADiT
from adit_model.network.autoencoder import Autoencoder
from adit_model.network.denoiser import Denoiser
from adit_model.network.exact import ExactAutoencoder
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE
from adit_model.training.batches import LatentSource, SystemSource
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.growth import adopt, grow, with_properties
from adit_model.training.latents import (
    cached_latents,
    encode_dataset,
    latent_statistics,
    random_pose_latents,
)
from adit_model.training.modules import AutoencoderModule, DenoiserModule, StageModule
from adit_model.training.poses import cached_canonical_dataset

logger = logging.getLogger(__name__)


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


UNITS = {
    "formation_energy_per_atom": "eV/atom",
    "e_above_hull": "eV/atom",
    "band_gap": "eV",
    "volume_per_atom": "angstrom^3",
    "mu": "debye",
    "alpha": "bohr^3",
    "homo": "eV",
    "lumo": "eV",
    "gap": "eV",
    "cv": "cal/mol/K",
}
CONDITIONS = (
    "domain",
    "num_atoms",
    "elements",
    "formula",
    "space_group",
    "properties",
    "cell",
    "atoms",
)


def dataset_known(
    dataset: AtomicDataset,
    denoiser: DenoiserConfig | None = None,
    earlier: Mapping[str, PropertyRange] | None = None,
    units: Mapping[str, str] | None = None,
) -> tuple[Known, ElementOrders]:
    """Describe training data: what a checkpoint knows of it, the orders of elements in molecules.

    Parameters
    ----------
    dataset : AtomicDataset
        What the networks are trained on.
    denoiser : DenoiserConfig
        Says what it learns to be told; None with stage 1 alone. A property of ours (see
        :data:`UNITS`) that no system has is not learned, and cannot be asked for.
    earlier : mapping, optional
        Properties that the weights it starts from have learned: their mean and standard deviation
        go on to be what values are told in. Errors of estimates do not go on.
    units : mapping, optional
        Units of properties by name, beside :data:`UNITS`.

    Raises
    ------
    ValueError
        If no system has a property of another name that the denoiser shall learn, or a unit is
        not that of ``earlier``.
    """
    sizes: dict[str, dict[int, int]] = {}
    elements: dict[str, tuple[int, ...]] = {}
    periodic = np.repeat(dataset.periodic, dataset.sizes)
    for domain, kind in ((CRYSTAL, True), (MOLECULE, False)):
        if (dataset.periodic == kind).any():
            values, counts = np.unique(dataset.sizes[dataset.periodic == kind], return_counts=True)
            sizes[domain] = dict(zip(values.tolist(), counts.tolist(), strict=True))
            elements[domain] = tuple(np.unique(dataset.numbers[periodic == kind]).tolist())
    learned: tuple[str, ...] = ()
    properties = {}
    if denoiser is not None and denoiser.conditions:
        learned = CONDITIONS
        given = {property_name(name): unit for name, unit in (units or {}).items()}
        if strange := [name for name in given if name not in denoiser.properties]:
            raise ValueError(f"there is a unit of {strange[0]!r}, which is no property to learn")
        new = [name for name in denoiser.properties if name not in {**UNITS, **(earlier or {})}]
        check_labels(dataset, new)
        raw = property_values(dataset, denoiser.properties)
        for name, column in zip(denoiser.properties, raw.T, strict=True):
            before = (earlier or {}).get(name)
            found = _range(column, dataset.periodic, given.get(name, UNITS.get(name, "")), before)
            if before is not None and before.unit != given.get(name, before.unit):
                raise ValueError(f"the weights know {name} in {before.unit}, not {given[name]}")
            if found is not None:
                properties[name] = found
        if missing := [name for name in denoiser.properties if name not in properties]:
            logger.warning("not learned, as no training system has it: %s", ", ".join(missing))
    orders = element_order_histogram(dataset.numbers, dataset.sizes, dataset.periodic)
    return Known(sizes, elements, properties, learned), ElementOrders(orders)


def _range(
    values: np.ndarray, periodic: np.ndarray, unit: str, earlier: PropertyRange | None
) -> PropertyRange | None:
    there = np.isfinite(values)
    if not there.any():
        return None if earlier is None else replace(earlier, error=None)
    some = values[there]
    domains = tuple(
        d for d, kind in ((CRYSTAL, True), (MOLECULE, False)) if (there & (periodic == kind)).any()
    )
    low, high, mean, std = (float(f(some)) for f in (np.min, np.max, np.mean, np.std))
    if earlier is not None:
        low, high = min(low, earlier.min), max(high, earlier.max)
        both = tuple(d for d in DOMAINS if d in (*domains, *earlier.domains))
        return replace(earlier, min=low, max=high, domains=both, error=None)
    return PropertyRange(unit, low, high, mean, max(std, 1e-6), domains)


def property_values(dataset: AtomicDataset, names: Sequence[str]) -> np.ndarray:
    """Labels of the data, and what is computed, NaN where unknown, shape (S, P), float64.

    ``volume_per_atom`` of crystals, in cubic angstrom, is computed where the data have no such
    label.
    """
    columns = []
    for name in names:
        if name == "volume_per_atom" and name not in dataset.labels:
            with np.errstate(invalid="ignore"):  # molecules have no cell: NaN
                volumes = np.abs(np.linalg.det(dataset.cells.astype(np.float64)))
            columns.append(volumes / dataset.sizes)
        else:
            unknown = np.full(len(dataset), np.nan)
            columns.append(dataset.labels.get(name, unknown).astype(np.float64))
    return np.stack(columns, axis=1) if columns else np.zeros((len(dataset), 0))


def first_stage_of(
    config: RunConfig, start: ADiT | None, data: AtomicDataset
) -> tuple[ADiT, StageModule]:
    """Model and module of stage 1, with the weights of ``start`` if there are any.

    An exact autoencoder that starts from another kind takes its mean latents of each element in
    the crystals, or else the molecules, of the training data as its code.
    """
    model = ADiT(config.model, with_denoiser=False)
    if start is not None:
        old, new = start.autoencoder, model.autoencoder
        if isinstance(new, ExactAutoencoder) and isinstance(old, Autoencoder):
            _take_code(new, old, data)
        else:
            _load_weights(new, old, config.init_from)
    return model, AutoencoderModule(model.autoencoder, config.training)


def _take_code(new: ExactAutoencoder, old: Autoencoder, data: AtomicDataset) -> None:
    if data.periodic.any():
        data = data.subset(data.periodic)
    latents = encode_dataset(old, data, progress=False).latents[:, 3:]
    missing = np.random.default_rng(0).normal(
        latents.mean(0), latents.std(0), new.code.weight.shape
    )
    for number in range(new.config.num_elements):
        rows = latents[data.numbers == number]
        code = rows.mean(axis=0) if len(rows) else missing[number]
        new.code.weight.data[number] = torch.from_numpy(code)


def second_stage_of(
    config: RunConfig,
    first_stage: ADiT,
    start: ADiT | None,
    training_data: AtomicDataset,
    validation_data: list[AtomicDataset],
    folder: Path,
    progress: bool,
) -> tuple[ADiT, StageModule, SystemSource | LatentSource, list[Any]]:
    """Model, module, and latents (or systems) for training and validation, of stage 2.

    It knows the properties that ``start`` knows and then those of ``config`` that are new.
    """
    if start is not None and start.denoiser is None:
        raise ValueError(f"{config.init_from} has no denoiser to start from")
    autoencoder, stage_1 = first_stage.autoencoder, first_stage.config.autoencoder
    wanted = read_property_names(config.model.denoiser.properties)
    known = () if start is None else start.config.denoiser.properties
    names = tuple(dict.fromkeys([*known, *wanted]))
    denoiser = replace(config.model.denoiser, properties=names)
    model = ADiT(ModelConfig(stage_1, denoiser, config.model.sampling))
    model.autoencoder = autoencoder
    model.metadata["stage_1"] = {
        **first_stage.metadata.get("training", {}),
        "hash": first_stage.checkpoint_hash,
    }
    earlier = None if start is None else start.known.properties
    model.known, model.element_orders = dataset_known(
        training_data, denoiser, earlier, config.units
    )
    assert model.denoiser is not None
    unit = PropertyRange("", 0.0, 0.0, 0.0, 1.0)  # of what nobody has
    scales = [model.known.properties.get(name, unit) for name in names]

    device = _encoding_device(config.training)

    def encode(data: AtomicDataset) -> LatentSource:
        autoencoder.to(device)
        values = property_values(data, names)
        mean, std = (np.array([getattr(p, part) for p in scales]) for part in ("mean", "std"))
        latents = cached_latents(
            autoencoder, first_stage.checkpoint_hash, data, folder, progress, (values - mean) / std
        )
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
    mean, std = latent_statistics(sample_of_latents, stage_1.identity_start)
    model.denoiser.latent_mean.copy_(torch.from_numpy(mean))
    model.denoiser.latent_std.copy_(torch.from_numpy(std))
    if start is not None:
        _load_denoiser(model.denoiser, start.denoiser, config.init_from)
    if config.training.cuda_graphs:
        assert isinstance(train_source, LatentSource)  # of canonical poses
        train_source.widths = train_source.largest()
    encoder = None if stage_1.canonical else autoencoder
    module = DenoiserModule(model.denoiser, config.training, encoder)  # its average starts here
    return model, module, train_source, validation_sources


def _load_weights(network: nn.Module, start: nn.Module | None, name: str | None) -> None:
    if start is None:
        raise ValueError(f"{name} has no denoiser to start from")
    given, wanted = start.state_dict(), network.state_dict()
    wrong = [key for key in given.keys() | wanted.keys() if not _fits(given, wanted, key)]
    if wrong:
        key = min(wrong)
        shapes = [
            "absent" if key not in state else "x".join(map(str, state[key].shape)) or "a number"
            for state in (given, wanted)
        ]
        raise ValueError(
            f"the weights of {name} do not fit this run's model: {len(wrong)} parts differ, as "
            f"{key}, {shapes[0]} there and {shapes[1]} here. Leave out model.size: the size is "
            "then that of the weights"
        )
    network.load_state_dict(given)


def _fits(given: Mapping[str, Any], wanted: Mapping[str, Any], key: str) -> bool:
    return key in given and key in wanted and given[key].shape == wanted[key].shape


def _load_denoiser(network: Denoiser, start: Denoiser | None, name: str | None) -> None:
    """Start from other weights; those of fewer blocks are spread over the depth."""
    if start is not None and network.config.properties != start.config.properties:
        start = with_properties(start, network.config.properties)
    if start is not None and network.cells and not start.cells:
        adopt(start, network, name)
        return
    if start is None or start.config.num_layers >= network.config.num_layers:
        _load_weights(network, start, name)
        return
    # How it was trained does not matter, only what makes up the network.
    options = asdict(network.config) | {"num_layers": start.config.num_layers}
    like = Denoiser(
        DenoiserConfig(**options), network.latent_dim, network.coordinate_scale, network.cells
    )
    _load_weights(like, start, name)
    try:
        grow(like, network)
    except ValueError as error:
        raise ValueError(f"the weights of {name} do not fit this run's model: {error}") from error


def _encoding_device(settings: TrainingConfig) -> torch.device:
    gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu and settings.devices * settings.num_nodes == 1 else "cpu")
