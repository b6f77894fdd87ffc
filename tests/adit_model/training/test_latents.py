"""Latents of data sets."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from adit_model.data.dataset import AtomicDataset
from adit_model.model import ADiT
from adit_model.training.batches import LatentSource
from adit_model.training.latents import (
    cached_latents,
    encode_dataset,
    latent_statistics,
    random_pose_latents,
)
from adit_model.training.poses import canonical_dataset


@pytest.fixture
def model(first_stage):
    return ADiT.load(first_stage, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_latents_are_those_of_the_single_systems(model, dataset, batch_size):
    source = encode_dataset(
        model.autoencoder, canonical_dataset(dataset), batch_size, progress=False
    )
    prepared = [model.prepare(system) for system in dataset]
    expected = model.encode_prepared(prepared)
    assert source.latents.dtype == np.float32
    np.testing.assert_allclose(source.latents, np.concatenate(expected), atol=2e-5)
    np.testing.assert_array_equal(source.sizes, [len(system) for system in prepared])
    np.testing.assert_array_equal(source.periodic, dataset.periodic)


def test_latents_are_encoded_once_and_read_again(model, dataset, tmp_path):
    data = canonical_dataset(dataset)

    def get(key="a", data=data):
        return cached_latents(model.autoencoder, key, data, tmp_path / "run", progress=False)

    first = get()
    (file,) = (tmp_path / "run").glob("*.npy")
    np.testing.assert_array_equal(np.load(file), first.latents)
    np.save(file, first.latents + 1)
    again = get()  # from the file: nothing is encoded
    np.testing.assert_array_equal(again.latents, first.latents + 1)
    np.testing.assert_array_equal(again.sizes, first.sizes)
    np.testing.assert_array_equal(get(key="b").latents, first.latents)
    few = data.subset(np.arange(3))
    assert len(get(data=few).latents) == few.sizes.sum()
    moved = replace(data, positions=data.positions + np.float32(0.1))
    assert abs(get(data=moved).latents - first.latents).max() > 0.01
    assert len(list((tmp_path / "run").glob("*.npy"))) == 4


def test_of_processes_that_start_together_one_encodes(model, dataset, tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    from adit_model.training import latents

    data, barrier, encoded = canonical_dataset(dataset), Barrier(3), []

    def slow(*args, **kwargs):
        encoded.append(1)
        time.sleep(0.3)  # the others reach the lock meanwhile
        return encode_dataset(*args, **kwargs)

    def rank(_):
        barrier.wait(10)
        return cached_latents(model.autoencoder, "a", data, tmp_path, progress=False).latents

    monkeypatch.setattr(latents, "encode_dataset", slow)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(rank, range(3)))
    assert len(encoded) == 1
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def systems(sizes: list[int], periodic: list[bool]) -> AtomicDataset:
    """Systems of hydrogen at the origin."""
    cells = np.where(np.array(periodic)[:, None, None], np.eye(3), np.nan)
    total = sum(sizes)
    ids = np.arange(len(sizes)).astype(str)
    return AtomicDataset(np.ones(total), np.zeros((total, 3)), cells, np.array(sizes), ids)


def test_statistics_of_each_domain():
    latents = np.array(
        [[1, 0, 0, 5], [3, 0, 2, 5], [10, 10, 10, 0], [10, 20, 10, 2], [10, 30, 10, 4]], np.float32
    )
    source = LatentSource(latents, systems([2, 3], [True, False]))
    mean, std = latent_statistics(source, share_coordinates=False)
    np.testing.assert_allclose(mean, [[10, 20, 10, 2], [2, 0, 1, 5]])
    tiny = 1e-3  # of a channel that is constant
    np.testing.assert_allclose(
        std, [[tiny, np.sqrt(200 / 3), tiny, np.sqrt(8 / 3)], [1, tiny, 1, tiny]]
    )
    shared = latent_statistics(source, share_coordinates=True)[1]
    np.testing.assert_allclose(shared[0, :3], np.sqrt(200 / 9))
    np.testing.assert_allclose(shared[1, :3], np.sqrt(2 / 3))
    np.testing.assert_allclose(shared[:, 3], std[:, 3])


def test_a_domain_without_data_is_left_as_it_is():
    source = LatentSource(np.ones((4, 5), np.float32), systems([4], [True]))
    mean, std = latent_statistics(source, share_coordinates=True)
    assert (mean[0].tolist(), std[0].tolist()) == ([0] * 5, [1] * 5)
    assert mean[1].tolist() == [1] * 5


def test_normalised_latents_have_mean_zero_and_variance_one(model, dataset):
    source = encode_dataset(model.autoencoder, canonical_dataset(dataset), progress=False)
    mean, std = latent_statistics(source, share_coordinates=False)
    kind = np.repeat(source.periodic, source.sizes).astype(int)
    x = (source.latents - mean[kind]) / std[kind]
    for row in (0, 1):
        np.testing.assert_allclose(x[kind == row].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(x[kind == row].std(0), 1, atol=1e-3)


def test_latents_of_random_poses_are_drawn_the_same_each_time(paper_first_stage, dataset):
    autoencoder = ADiT.load(paper_first_stage, device="cpu").autoencoder
    data = canonical_dataset(dataset)
    one, same = (random_pose_latents(autoencoder, data, progress=False) for _ in range(2))
    np.testing.assert_array_equal(one.latents, same.latents)
    unturned = encode_dataset(autoencoder, data, progress=False)
    assert one.latents.shape == unturned.latents.shape
    assert abs(one.latents - unturned.latents).max() > 0.01
    few = random_pose_latents(autoencoder, data, progress=False, most=4)
    assert len(few.sizes) == 4


def test_encoding_needs_no_gradient(model, dataset):
    before = torch.is_grad_enabled()
    encode_dataset(model.autoencoder, canonical_dataset(dataset), progress=False)
    assert torch.is_grad_enabled() == before
    assert all(p.grad is None for p in model.parameters())
