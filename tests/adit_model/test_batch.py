"""AtomicBatch and Packing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adit_model.batch import AtomicBatch, Packing
from adit_model.geometry import cell_to_parameters
from adit_model.systems import AtomicSystem


def make_systems(seed: int = 0) -> list[AtomicSystem]:
    rng = np.random.default_rng(seed)
    systems = []
    for i, n in enumerate([3, 1, 5, 2]):
        cell = None if i % 2 else 5 * np.eye(3) + rng.uniform(-1, 1, (3, 3))
        numbers = rng.integers(1, 90, n)
        systems.append(AtomicSystem(numbers, rng.normal(scale=4, size=(n, 3)), cell))
    return systems


def make_batch(**changes) -> AtomicBatch:
    arguments = {
        "numbers": torch.tensor([1, 2, 3]),
        "positions": torch.zeros(3, 3),
        "cells": torch.eye(3).expand(2, 3, 3),
        "periodic": torch.tensor([True, False]),
        "sizes": torch.tensor([1, 2]),
    }
    return AtomicBatch(**(arguments | changes))


def test_collate_and_split_are_inverse():
    systems = make_systems()
    batch = AtomicBatch.collate(systems, dtype=torch.float64)
    assert (len(batch), batch.num_atoms) == (4, 11)
    assert batch.sizes.tolist() == [3, 1, 5, 2]
    assert batch.periodic.tolist() == [True, False, True, False]
    for old, new in zip(systems, batch.split(), strict=True):
        np.testing.assert_array_equal(new.numbers, old.numbers)
        np.testing.assert_array_equal(new.positions, old.positions)
        assert new.is_periodic == old.is_periodic
        if old.cell is not None:
            np.testing.assert_array_equal(new.cell, old.cell)


def test_default_precision_is_float32_and_splits_without_gradients():
    systems = make_systems()
    batch = AtomicBatch.collate(systems)
    assert batch.positions.dtype == batch.cells.dtype == torch.float32
    batch.positions.requires_grad_()
    for old, new in zip(systems, batch.split(), strict=True):
        np.testing.assert_allclose(new.positions, old.positions, atol=2e-6)


def test_split_systems_do_not_share_memory_with_the_batch():
    batch = AtomicBatch.collate(make_systems(), dtype=torch.float64)
    first = batch.split()[0]
    before = first.positions.copy()
    batch.positions += 1.0
    np.testing.assert_array_equal(first.positions, before)


def test_collate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="empty list"):
        AtomicBatch.collate([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": torch.zeros(2, 3)}, r"positions must have shape \(3, 3\), got \(2, 3\)"),
        ({"positions": torch.zeros(3, 2)}, r"positions must have shape \(3, 3\), got \(3, 2\)"),
        ({"cells": torch.eye(3)[None]}, r"cells must have shape \(2, 3, 3\)"),
        ({"periodic": torch.tensor([True])}, r"periodic must have shape \(2,\)"),
        ({"periodic": torch.tensor([1, 0])}, "periodic must be bool"),
        ({"sizes": torch.tensor([1, 1])}, "sizes add up to 2, there are 3 atoms"),
        ({"sizes": torch.tensor([3, 0])}, r"positive and at least one, got \[3, 0\]"),
        ({"sizes": torch.tensor([4, -1])}, "positive"),
        ({"sizes": torch.zeros(0, dtype=torch.int64)}, "at least one"),
        ({"sizes": torch.tensor([1.0, 2.0])}, "sizes must be int64"),
        ({"sizes": torch.tensor(3)}, "sizes must be int64 of shape"),
        ({"numbers": torch.tensor([1.0, 2, 3])}, "numbers must be int64"),
        ({"numbers": torch.tensor([[1], [2], [3]])}, r"of shape \(3, 1\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_batch(**changes)


def test_derived_geometry_matches_the_single_systems():
    systems = make_systems()
    batch = AtomicBatch.collate(systems)
    lengths, angles = batch.cell_parameters
    frac = torch.split(batch.frac_coords, batch.sizes.tolist())
    for i, system in enumerate(systems):
        if system.cell is None:
            assert (frac[i] == 0).all()
            continue
        np.testing.assert_allclose(frac[i], system.frac_coords, atol=1e-5)
        expected = cell_to_parameters(system.cell)
        np.testing.assert_allclose(lengths[i], expected[0], rtol=1e-6)
        np.testing.assert_allclose(angles[i], expected[1], atol=1e-5)
    assert batch.atom_periodic.tolist() == [True] * 3 + [False] + [True] * 5 + [False] * 2


def test_coordinates_keep_their_precision_under_autocast():
    batch = AtomicBatch.collate(make_systems())
    expected, parameters = batch.frac_coords, batch.cell_parameters
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert batch.frac_coords.dtype == torch.float32
        torch.testing.assert_close(batch.frac_coords, expected)
        torch.testing.assert_close(batch.cell_parameters, parameters)


def test_angles_of_flat_cells_have_finite_gradients():
    cells = torch.tensor([[[3.0, 0, 0], [3.0, 0, 0], [0, 0, 3.0]]], requires_grad=True)
    batch = AtomicBatch(
        torch.tensor([1]), torch.zeros(1, 3), cells, torch.tensor([True]), torch.tensor([1])
    )
    batch.cell_parameters[1].sum().backward()
    assert torch.isfinite(cells.grad).all()


def test_to_changes_the_floating_dtype_only():
    batch = AtomicBatch.collate(make_systems()).to("cpu", torch.float64)
    assert batch.device.type == "cpu"
    assert batch.positions.dtype == batch.cells.dtype == batch.frac_coords.dtype == torch.float64
    assert batch.numbers.dtype == batch.sizes.dtype == torch.int64
    assert batch.periodic.dtype == torch.bool


def test_packing_places():
    packing = Packing(torch.tensor([2, 1, 3]))
    assert packing.index.tolist() == [0, 0, 1, 2, 2, 2]
    assert packing.rank.tolist() == [0, 1, 0, 0, 1, 2]
    assert packing.slot.tolist() == [0, 1, 3, 6, 7, 8]
    assert (packing.num_systems, packing.num_atoms, packing.max_size) == (3, 6, 3)
    assert packing.mask.int().tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_pad_and_unpad_are_inverse(shape):
    packing = Packing(torch.tensor([2, 1, 3]))
    x = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    padded = packing.pad(x)
    assert padded.shape == (3, 3, *shape)
    assert (padded[~packing.mask] == 0).all()
    torch.testing.assert_close(padded[packing.mask], x, rtol=0, atol=0)
    torch.testing.assert_close(packing.unpad(padded), x, rtol=0, atol=0)


def test_pad_lets_gradients_through():
    packing = Packing(torch.tensor([2, 1]))
    x = torch.randn(3, 2, requires_grad=True)
    (packing.pad(x) ** 2).sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_mean_is_the_mean_of_each_system(shape):
    sizes = [2, 1, 3]
    x = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([part.mean(dim=0) for part in x.split(sizes)])
    torch.testing.assert_close(Packing(torch.tensor(sizes)).mean(x), expected)


def test_mean_of_half_precision_is_summed_in_float32():
    x = torch.full((300,), 1.0078125, dtype=torch.bfloat16)
    mean = Packing(torch.tensor([300])).mean(x)
    assert mean.dtype == torch.bfloat16
    assert mean.item() == 1.0078125


def test_a_system_does_not_depend_on_its_batch_mates():
    systems = make_systems()
    alone = AtomicBatch.collate(systems[2:3])
    together = AtomicBatch.collate(systems)
    x = torch.randn(11, 7, generator=torch.Generator().manual_seed(0))
    mean = together.packing.mean(x)[2]
    torch.testing.assert_close(alone.packing.mean(x[4:9])[0], mean, rtol=0, atol=0)
    torch.testing.assert_close(together.frac_coords[4:9], alone.frac_coords, rtol=0, atol=1e-6)
