"""The two data treatments: canonical form, or random rotations and translations of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from e3nn import o3

from adit_model.batch import AtomicBatch
from adit_model.canonical import VERSION, canonicalise
from adit_model.conditions.crystal import space_group_of
from adit_model.data.cache import cached_dataset, data_cache_dir
from adit_model.data.dataset import AtomicDataset

GROUP_VERSION = 1  # of how missing space groups are found


def canonical_dataset(dataset: AtomicDataset, progress: bool = False) -> AtomicDataset:
    """Bring every system into canonical form, whatever the data came from.

    Readers do so too (:func:`adit_model.data.collect.collect`), but for QM9, whose atoms they leave
    as published, and files written by hand.

    Raises
    ------
    ValueError
        If a cell is unphysical.
    """
    from tqdm import tqdm

    forms = []
    for system in tqdm(dataset, "canonical form", len(dataset), disable=not progress):
        try:
            forms.append(canonicalise(system).system)
        except ValueError as error:
            raise ValueError(f"system {system.info['id']} of {dataset.name}: {error}") from error
    packed = AtomicDataset.from_systems(forms)
    return replace(
        dataset,
        numbers=packed.numbers,
        positions=packed.positions,
        cells=packed.cells,
        sizes=packed.sizes,
        space_groups=found_space_groups(dataset),
    )


def found_space_groups(dataset: AtomicDataset) -> np.ndarray:
    """Space groups of a data set, those that it lacks computed by spglib, shape (S,), int16.

    Molecules, and crystals of which it finds none, have 0.
    """
    groups = dataset.space_groups.copy()
    for i in np.flatnonzero(dataset.periodic & (groups == 0)):
        groups[i] = space_group_of(dataset[int(i)]) or 0
    return groups


def cached_canonical_dataset(dataset: AtomicDataset, progress: bool = False) -> AtomicDataset:
    """As :func:`canonical_dataset`, kept in the cache of parsed data."""
    key = f"{dataset_fingerprint(dataset)}-{VERSION}-{GROUP_VERSION}".encode()
    path = data_cache_dir() / f"canonical-{hashlib.sha256(key).hexdigest()[:16]}.npz"
    return cached_dataset(path, lambda: canonical_dataset(dataset, progress))


def dataset_fingerprint(dataset: AtomicDataset) -> str:
    """SHA-256 over the arrays of a data set."""
    digest = hashlib.sha256()
    for array in (dataset.numbers, dataset.positions, dataset.cells, dataset.sizes):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, values in {"space_groups": dataset.space_groups, **dataset.labels}.items():
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()


def augment(batch: AtomicBatch, generator: torch.Generator) -> AtomicBatch:
    """Rotate every system at random, and shift the atoms of crystals at random in their cell.

    Parameters
    ----------
    batch : AtomicBatch
        Molecules centred.
    generator : torch.Generator
        On the CPU.
    """
    q = torch.randn(len(batch), 4, generator=generator)
    rotation = o3.quaternion_to_matrix(q / q.norm(dim=-1, keepdim=True)).to(batch.positions)
    shift = torch.rand(len(batch), 3, generator=generator).to(batch.positions)
    index = batch.packing.index
    frac = batch.frac_coords + shift[index]
    frac = frac - frac.floor()
    inside = torch.einsum("ai,aij->aj", frac, batch.cells[index])
    positions = torch.where(batch.atom_periodic[:, None], inside, batch.positions)
    cells = torch.einsum("sij,skj->sik", batch.cells, rotation)
    cells = torch.where(batch.periodic[:, None, None], cells, batch.cells)
    return replace(
        batch,
        positions=torch.einsum("ai,aji->aj", positions, rotation[index]),
        cells=cells,
    )
