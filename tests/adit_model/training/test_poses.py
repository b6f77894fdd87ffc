"""Canonical forms and random poses of data sets and batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.geometry import get_distances

from adit_model.batch import AtomicBatch
from adit_model.data.dataset import AtomicDataset
from adit_model.geometry import cell_to_parameters, random_rotation
from adit_model.systems import AtomicSystem
from adit_model.training.batches import SystemSource
from adit_model.training.poses import (
    augment,
    cached_canonical_dataset,
    canonical_dataset,
    dataset_fingerprint,
)


@pytest.fixture
def batch(dataset) -> AtomicBatch:
    return SystemSource(canonical_dataset(dataset)).batch(np.arange(len(dataset)))


def rotated(dataset: AtomicDataset) -> AtomicDataset:
    rng = np.random.default_rng(5)
    systems = []
    for system in dataset:
        rotation = random_rotation(rng)
        shift = 0 if system.is_periodic else rng.normal(size=3)
        cell = None if system.cell is None else system.cell @ rotation
        systems.append(
            AtomicSystem(system.numbers, system.positions @ rotation + shift, cell, system.info)
        )
    return AtomicDataset.from_systems(systems, dataset.name)


def distances(system: AtomicSystem) -> np.ndarray:
    """All distances, to the nearest image in a crystal."""
    pbc = None if system.cell is None else True
    return get_distances(system.positions, cell=system.cell, pbc=pbc)[1]


def test_canonical_poses_do_not_depend_on_the_orientation(dataset):
    one, other = canonical_dataset(dataset), canonical_dataset(rotated(dataset))
    np.testing.assert_allclose(one.positions, other.positions, atol=2e-4)
    np.testing.assert_allclose(one.cells, other.cells, atol=1e-4)
    assert (one.name, one.skipped) == (dataset.name, dataset.skipped)
    np.testing.assert_array_equal(one.ids, dataset.ids)


def test_an_unphysical_cell_is_named(dataset):
    cells = dataset.cells.copy()
    crystal = int(np.flatnonzero(dataset.periodic)[0])
    cells[crystal, 2] *= 1e4
    with pytest.raises(ValueError, match=f"system {dataset.ids[crystal]} of small: cell lengths"):
        canonical_dataset(replace(dataset, cells=cells))


def test_random_poses_keep_distances_cells_and_elements(dataset, batch):
    moved = augment(batch, torch.Generator().manual_seed(0))
    for old, new in zip(batch.split(), moved.split(), strict=True):
        np.testing.assert_array_equal(new.numbers, old.numbers)
        np.testing.assert_allclose(distances(new), distances(old), atol=2e-5)
        if old.cell is not None:
            for a, b in zip(
                cell_to_parameters(old.cell), cell_to_parameters(new.cell), strict=True
            ):
                np.testing.assert_allclose(a, b, atol=2e-5)
            assert np.linalg.det(new.cell) * np.linalg.det(old.cell) > 0
    assert torch.equal(moved.periodic, batch.periodic)
    identity = torch.eye(3).expand(int((~batch.periodic).sum()), 3, 3)
    assert torch.equal(moved.cells[~moved.periodic], identity)


def test_random_poses_keep_handedness():
    positions = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    batch = AtomicBatch(
        torch.tensor([6, 1, 9, 17] * 50),
        (positions - positions.mean(0)).repeat(50, 1),
        torch.eye(3).expand(50, 3, 3),
        torch.zeros(50, dtype=torch.bool),
        torch.full((50,), 4),
    )
    moved = augment(batch, torch.Generator().manual_seed(1)).positions.view(50, 4, 3)
    volumes = torch.linalg.det(moved[:, 1:] - moved[:, :1])
    torch.testing.assert_close(volumes, torch.full((50,), 6.0), atol=1e-4, rtol=0)


def test_atoms_of_crystals_stay_in_the_cell_and_move_together(batch):
    moved = augment(batch, torch.Generator().manual_seed(2))
    frac = moved.frac_coords[moved.atom_periodic]
    assert frac.min() > -1e-5
    assert frac.max() < 1 + 1e-5
    shift = moved.frac_coords - batch.frac_coords
    first = shift[torch.cumsum(batch.sizes, 0) - batch.sizes][batch.packing.index]
    difference = shift - first
    assert (difference - difference.round()).abs().max() < 1e-5
    assert len(torch.unique(first[batch.atom_periodic].round(decimals=4))) > 3


def test_rotations_have_no_preferred_direction():
    """Mean 0 and variance 1/3 of each component of a rotated unit vector."""
    number = 4000
    batch = AtomicBatch(
        torch.ones(number, dtype=torch.int64),
        torch.tensor([[0.0, 0.0, 1.0]]).repeat(number, 1),
        torch.eye(3).expand(number, 3, 3),
        torch.zeros(number, dtype=torch.bool),
        torch.ones(number, dtype=torch.int64),
    )
    turned = augment(batch, torch.Generator().manual_seed(3)).positions
    assert turned.mean(0).abs().max() < 4 / (3 * number) ** 0.5
    torch.testing.assert_close(turned.square().mean(0), torch.full((3,), 1 / 3), atol=0.02, rtol=0)


def test_random_poses_follow_the_generator(batch):
    one, same, other = (augment(batch, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one.positions, same.positions)
    assert not torch.equal(one.positions, other.positions)


def test_fingerprint_tells_data_apart(dataset):
    assert dataset_fingerprint(dataset) == dataset_fingerprint(replace(dataset, name="other"))
    positions = dataset.positions.copy()
    positions[-1, 2] += 1e-6
    changed = [
        replace(dataset, positions=positions),
        replace(dataset, numbers=dataset.numbers[::-1].copy()),
        dataset.subset(np.arange(5)),
    ]
    assert len({dataset_fingerprint(d) for d in (dataset, *changed)}) == 4


def test_canonical_forms_are_kept_in_the_cache(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("ADIT_CACHE_DIR", str(tmp_path))
    first = cached_canonical_dataset(dataset)
    files = list(tmp_path.glob("canonical-*.npz"))
    assert len(files) == 1
    shifted = replace(first, positions=first.positions + 1)
    shifted.save(files[0])
    again = cached_canonical_dataset(dataset)
    np.testing.assert_array_equal(again.positions, shifted.positions)
