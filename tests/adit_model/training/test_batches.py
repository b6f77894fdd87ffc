"""Which systems a step sees."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adit_model.batch import AtomicBatch
from adit_model.data.dataset import AtomicDataset
from adit_model.training.batches import (
    FixedBatches,
    LatentSource,
    StepBatches,
    StepSampler,
    SystemSource,
    step_generator,
)


@st.composite
def samplers(draw):
    """Arguments of a sampler of joint data, with room for both domains."""
    periodic = np.array(draw(st.permutations([True, False, *draw(st.lists(st.booleans()))])))
    size = draw(st.integers(2, 12))
    crystals = draw(st.integers(1, size - 1))
    return periodic, size, crystals / size, draw(st.integers(0, 1000))


@given(samplers(), st.integers(1, 12), st.integers(0, 100))
@settings(deadline=None)
def test_all_ranks_together_see_what_one_process_sees(arguments, world, step):
    world = min(world, arguments[1])
    whole = StepSampler(*arguments).indices(step)
    parts = [StepSampler(*arguments, rank, world).indices(step) for rank in range(world)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert sorted(np.concatenate(parts)) == sorted(whole)


@given(samplers(), st.integers(0, 100))
@settings(deadline=None)
def test_each_step_holds_the_share_of_crystals(arguments, step):
    periodic, size, fraction, _ = arguments
    chosen = StepSampler(*arguments).indices(step)
    assert len(chosen) == size
    assert periodic[chosen].sum() == round(size * fraction)


@given(samplers(), st.integers(0, 3))
@settings(deadline=None)
def test_each_epoch_sees_each_system_once(arguments, epoch):
    periodic = arguments[0]
    sampler = StepSampler(*arguments)
    steps = (epoch + 1) * len(periodic) + 1
    seen = np.concatenate([sampler.indices(step) for step in range(steps)])
    for kind in (True, False):
        pool = np.flatnonzero(periodic == kind)
        stream = seen[periodic[seen] == kind]
        part = stream[epoch * len(pool) : (epoch + 1) * len(pool)]
        assert sorted(part) == pool.tolist()


@given(samplers(), st.integers(0, 50), st.data())
@settings(deadline=None)
def test_levelled_batches_hold_as_many_atoms_as_the_average(arguments, step, data):
    periodic = arguments[0]
    length = len(periodic)
    sizes = np.array(data.draw(st.lists(st.integers(1, 4), min_size=length, max_size=length)))
    plain = StepSampler(*arguments)
    try:
        chosen = StepSampler(*arguments, sizes=sizes).indices(step)
    except ValueError as error:
        assert "more sizes" in str(error)
        assert not all(len(np.unique(sizes[periodic == kind])) == 4 for kind in (True, False))
        return
    before = plain.indices(step)
    np.testing.assert_array_equal(periodic[chosen], periodic[before])
    for kind in (True, False):
        mine = chosen[periodic[chosen] == kind]
        assert sizes[mine].sum() == round(sizes[periodic == kind].mean() * len(mine))
    if np.array_equal(sizes[chosen], sizes[before]):
        np.testing.assert_array_equal(chosen, before)


def test_levelling_exchanges_few_systems_and_depends_on_the_step_alone():
    random = np.random.default_rng(0)
    periodic = random.random(2000) < 0.3
    sizes = random.integers(1, 20, 2000)
    sampler = StepSampler(periodic, 500, 0.4, 1, sizes=sizes)
    plain = StepSampler(periodic, 500, 0.4, 1)
    for step in (7, 3, 7):
        chosen = sampler.indices(step)
        again = StepSampler(periodic, 500, 0.4, 1, sizes=sizes).indices(step)
        np.testing.assert_array_equal(chosen, again)
        assert (chosen != plain.indices(step)).mean() < 0.2


def test_sizes_that_cannot_be_levelled_are_an_error():
    sizes = np.array([2, 9] * 10)
    sampler = StepSampler(np.zeros(20, bool), 5, 0.5, 0, sizes=sizes)
    with pytest.raises(ValueError, match="more sizes: leave out"):
        for step in range(20):
            sampler.indices(step)


def test_order_changes_with_the_epoch_and_the_seed():
    periodic = np.zeros(50, bool)
    epochs = [
        tuple(StepSampler(periodic, 50, 0.5, seed).indices(i)) for seed in (0, 1) for i in (0, 1)
    ]
    assert len(set(epochs)) == 4


def test_batches_depend_on_the_step_alone():
    periodic = np.arange(23) % 3 == 0
    forwards = [StepSampler(periodic, 5, 0.4, 7).indices(step) for step in range(40)]
    sampler = StepSampler(periodic, 5, 0.4, 7)
    for step in np.random.default_rng(0).permutation(40):
        np.testing.assert_array_equal(sampler.indices(int(step)), forwards[step])


@pytest.mark.parametrize("kind", [True, False])
def test_data_of_one_domain_fill_the_batch(kind):
    sampler = StepSampler(np.full(5, kind), 4, 0.25, 0)
    assert len(sampler.indices(3)) == 4
    assert not sampler.mixed


def test_mixed_means_that_every_process_has_both_domains():
    periodic = np.arange(20) < 10
    for size, fraction, world in ((8, 0.5, 4), (8, 0.25, 2), (8, 0.25, 3), (7, 0.5, 3), (6, 0, 2)):
        parts = [StepSampler(periodic, size, fraction, 0, rank, world) for rank in range(world)]
        both = all(len(set(periodic[p.indices(s)])) == 2 for p in parts for s in range(5))
        assert parts[0].mixed == both, (size, fraction, world)


def test_batches_too_small_are_refused():
    periodic = np.array([True, False])
    with pytest.raises(ValueError, match=r"batch_size 2 has no place for both .* 0\.1"):
        StepSampler(periodic, 2, 0.1, 0)
    with pytest.raises(ValueError, match="batch_size 2 is less than 3 processes"):
        StepSampler(periodic, 2, 0.5, 0, 0, 3)


def test_packed_systems_are_those_of_the_data(dataset):
    indices = np.array([4, 12, 0, 14, 4])
    batch = SystemSource(dataset).batch(indices)
    expected = AtomicBatch.collate([dataset[int(i)] for i in indices])
    for name in ("numbers", "positions", "cells", "periodic", "sizes"):
        torch.testing.assert_close(getattr(batch, name), getattr(expected, name), rtol=0, atol=0)


def test_packed_latents_are_those_of_the_systems():
    cells = np.stack([np.eye(3), np.full((3, 3), np.nan), np.full((3, 3), np.nan)])
    systems = AtomicDataset(
        np.array([3, 9, 6, 1, 8, 7]),
        np.zeros((6, 3)),
        cells,
        np.array([2, 1, 3]),
        np.array(["a", "b", "c"]),
        space_groups=np.array([225, 0, 0]),
    )
    latents = np.arange(12, dtype=np.float32).reshape(6, 2)
    properties = np.array([[0.5, np.nan], [1.0, 2.0], [np.nan, -1.0]])
    batch = LatentSource(latents, systems, properties=properties).batch(np.array([2, 0]))
    assert batch.latents[:, 0].tolist() == [6, 8, 10, 0, 2]
    assert (batch.packing.sizes.tolist(), batch.periodic.tolist()) == ([3, 2], [False, True])
    assert (len(batch), batch.num_atoms) == (2, 5)
    assert batch.packing.index.tolist() == [0, 0, 0, 1, 1]
    assert batch.numbers.tolist() == [1, 8, 7, 3, 9]
    assert batch.space_groups.tolist() == [0, 225]
    np.testing.assert_array_equal(batch.properties, [[np.nan, -1.0], [0.5, np.nan]])
    # with a row for the cell of the crystal, the last
    latents = np.arange(14, dtype=np.float32).reshape(7, 2)
    batch = LatentSource(latents, systems, has_cells=True).batch(np.array([2, 0]))
    assert batch.latents[:, 0].tolist() == [8, 10, 12, 0, 2, 4]
    assert batch.groups.kinds.tolist() == [0, 0, 0, 1, 1, 2]
    assert batch.numbers.tolist() == [1, 8, 7, 3, 9, 0]
    assert batch.groups.num_atoms.tolist() == [3, 2]


def test_batches_from_a_later_step_are_the_tail(dataset):
    source = SystemSource(dataset)
    sampler = StepSampler(dataset.periodic, 4, 0.5, 0)
    whole = list(islice(StepBatches(source, sampler), 6))
    tail = list(islice(StepBatches(source, sampler, 4), 2))
    assert [step for step, _ in whole] == [0, 1, 2, 3, 4, 5]
    for (step, batch), (other, same) in zip(whole[4:], tail, strict=True):
        assert step == other
        torch.testing.assert_close(batch.positions, same.positions, rtol=0, atol=0)


def test_validation_batches_stay_the_same_and_hold_nothing_twice(dataset):
    source = SystemSource(dataset)
    for size in (7, 100):
        batches = FixedBatches(source, size, 3)
        numbers, parts = zip(*(batches[i] for i in range(len(batches))), strict=True)
        assert list(numbers) == [-1 - i for i in range(len(batches))]
        assert sum(map(len, parts)) == min(size, len(dataset))
        assert len(np.unique(np.concatenate(batches.chunks))) == min(size, len(dataset))
        for chunk, again in zip(batches.chunks, FixedBatches(source, size, 3).chunks, strict=True):
            np.testing.assert_array_equal(chunk, again)


def test_noise_is_a_function_of_seed_step_and_rank():
    def draw(*key):
        return tuple(torch.rand(2, generator=step_generator(*key)).tolist())

    keys = [(s, t, r) for s in range(3) for t in (-2, -1, *range(40)) for r in range(3)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(1, 5, 2) == draw(1, 5, 2)


def test_alike_batches_hold_each_system_once_and_pad_less():
    random = np.random.default_rng(0)
    periodic = np.arange(400) < 160
    sizes = random.integers(2, 30, 400)
    plain = StepSampler(periodic, 20, 0.4, 3)
    dealt = StepSampler(periodic, 20, 0.4, 3, alike=sizes)
    steps = [dealt.indices(step) for step in range(20)]
    for batch in steps:
        assert periodic[batch[:8]].all() and not periodic[batch[8:]].any()
    assert sorted(np.concatenate(steps[:16])) == sorted(
        np.concatenate([plain.indices(step) for step in range(16)])
    )  # two turns of eight steps

    def padded(batches: list[np.ndarray]) -> int:
        return sum(len(x) * sizes[x].max() ** 2 for b in batches for x in (b[:8], b[8:]))

    assert padded(steps[:16]) < 0.7 * padded([plain.indices(step) for step in range(16)])
    again = StepSampler(periodic, 20, 0.4, 3, alike=sizes)
    np.testing.assert_array_equal(again.indices(13), steps[13])  # a run can go on anywhere
    assert {tuple(np.diff([sizes[b[:8]].mean() for b in steps[:8]]) > 0)} != {(True,) * 7}
