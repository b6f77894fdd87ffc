"""The two data treatments: canonical poses, or random rotations and translations."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from e3nn import o3

from adit_model.batch import AtomicBatch
from adit_model.data.cache import cached_dataset, data_cache_dir
from adit_model.data.dataset import AtomicDataset
from adit_model.geometry import canonical_crystal, canonical_molecule


def canonical_dataset(dataset: AtomicDataset, canonical: bool = True) -> AtomicDataset:
    """Bring every system into its canonical pose.

    Parameters
    ----------
    dataset : AtomicDataset
        As parsed.
    canonical : bool
        If false, molecules are only centred; crystals are always brought into standard
        orientation (a random rotation may follow).
    """
    positions = dataset.positions.astype(np.float64)
    cells = dataset.cells.astype(np.float64)
    for i, periodic in enumerate(dataset.periodic):
        atoms = slice(dataset.offsets[i], dataset.offsets[i + 1])
        if periodic:
            positions[atoms], cells[i] = canonical_crystal(positions[atoms], cells[i])
        elif canonical:
            positions[atoms] = canonical_molecule(positions[atoms])
        else:
            positions[atoms] -= positions[atoms].mean(axis=0)
    return AtomicDataset(
        dataset.numbers,
        positions.astype(np.float32),
        cells.astype(np.float32),
        dataset.sizes,
        dataset.ids,
        dataset.name,
        dataset.skipped,
    )


POSE_VERSION = 1  # of the rules in adit_model.geometry


def cached_canonical_dataset(dataset: AtomicDataset, canonical: bool = True) -> AtomicDataset:
    """As :func:`canonical_dataset`, kept in the cache of parsed data."""
    key = f"{dataset_fingerprint(dataset)}-{canonical}-{POSE_VERSION}".encode()
    path = data_cache_dir() / f"poses-{hashlib.sha256(key).hexdigest()[:16]}.npz"
    return cached_dataset(path, lambda: canonical_dataset(dataset, canonical))


def dataset_fingerprint(dataset: AtomicDataset) -> str:
    """SHA-256 over the arrays of a data set."""
    digest = hashlib.sha256()
    for array in (dataset.numbers, dataset.positions, dataset.cells, dataset.sizes):
        digest.update(np.ascontiguousarray(array).tobytes())
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
