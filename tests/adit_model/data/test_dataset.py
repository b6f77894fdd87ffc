"""The array file of a data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adit_model.data.dataset import FORMAT_VERSION, AtomicDataset
from adit_model.systems import AtomicSystem


def make_systems(n: int = 6, seed: int = 0) -> list[AtomicSystem]:
    rng = np.random.default_rng(seed)
    systems = []
    for i in range(n):
        atoms = int(rng.integers(1, 7))
        cell = None if i % 3 == 0 else np.diag(rng.uniform(3, 9, 3))
        info = {} if i == 1 else {"id": f"mp-{i}"}
        positions = rng.normal(scale=4, size=(atoms, 3))
        systems.append(AtomicSystem(rng.integers(1, 119, atoms), positions, cell, info))
    return systems


def assert_same(a: AtomicSystem, b: AtomicSystem) -> None:
    """Equal to the float32 precision of the file."""
    np.testing.assert_array_equal(a.numbers, b.numbers)
    np.testing.assert_allclose(a.positions, b.positions, atol=2e-6)
    assert a.is_periodic == b.is_periodic
    if a.cell is not None:
        np.testing.assert_allclose(a.cell, b.cell, atol=2e-6)


@pytest.fixture
def dataset() -> AtomicDataset:
    return AtomicDataset.from_systems(make_systems(), "six", [("row 9", "no cif"), ("x", "NaN")])


@pytest.fixture
def saved(dataset, tmp_path):
    path = tmp_path / "deep" / "six.npz"
    dataset.save(path)
    return path


def rewrite(path, **changes):
    """Write the arrays of ``path`` again with some replaced; None leaves one out."""
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


def test_systems_come_back(dataset):
    systems = make_systems()
    assert len(dataset) == 6
    for old, new in zip(systems, dataset, strict=True):
        assert_same(old, new)
    assert [s.info["id"] for s in dataset] == ["mp-0", "1", "mp-2", "mp-3", "mp-4", "mp-5"]
    assert dataset.periodic.tolist() == [s.is_periodic for s in systems]
    assert_same(dataset[-1], systems[-1])
    assert_same(dataset[np.int64(2)], systems[2])
    for outside in (6, -7):
        with pytest.raises(IndexError, match=f"index {outside} is out of range for 6 systems"):
            dataset[outside]


def test_save_and_load(dataset, saved):
    loaded = AtomicDataset.load(saved)
    for key in ("numbers", "positions", "cells", "sizes", "ids"):
        old, new = getattr(dataset, key), getattr(loaded, key)
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(new, old)
    assert loaded.name == "six"
    assert loaded.skipped == [("row 9", "no cif"), ("x", "NaN")]
    assert [p.name for p in saved.parent.iterdir()] == ["six.npz"]


def test_nothing_skipped_survives(tmp_path):
    AtomicDataset.from_systems(make_systems(1)).save(tmp_path / "a.npz")
    assert AtomicDataset.load(tmp_path / "a.npz").skipped == []


def test_saving_over_a_file_replaces_it_or_leaves_it(dataset, saved):
    dataset.subset([0]).save(saved)
    assert len(AtomicDataset.load(saved)) == 1
    dataset.name = (c for c in "six")  # cannot be written: saving fails after the large arrays
    with pytest.raises(TypeError, match="generator"):
        dataset.save(saved)
    assert len(AtomicDataset.load(saved)) == 1
    assert [p.name for p in saved.parent.iterdir()] == ["six.npz"]


def test_stored_crystals_keep_their_fractional_coordinates():
    """Float32 costs less than 1e-5 even in a long cell far from the origin."""
    cell = np.array([[60.0, 0, 0], [-20, 50, 0], [3, -7, 3.0]])
    frac = np.array([[0.99999, 0, 0.5], [1 / 3, 2 / 3, 0.99999], [0.00001, 0.25, 0.75]])
    stored = AtomicDataset.from_systems([AtomicSystem(np.array([6, 6, 6]), frac @ cell, cell)])[0]
    np.testing.assert_allclose(stored.frac_coords, frac, atol=5e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-6, 5), min_size=1, max_size=12))
def test_subset_takes_the_systems_in_order(indices):
    dataset = AtomicDataset.from_systems(make_systems(), "six")
    part = dataset.subset(indices)
    assert len(part) == len(indices)
    assert part.name == "six"
    for i, system in zip(indices, part, strict=True):
        assert_same(system, dataset[i])
        assert system.info == dataset[i].info


def test_subset_by_mask(dataset):
    crystals = dataset.subset(dataset.periodic, "crystals")
    assert crystals.ids.tolist() == ["1", "mp-2", "mp-4", "mp-5"]
    assert crystals.periodic.all()
    assert crystals.name == "crystals"


def test_bad_subsets_are_refused(dataset):
    with pytest.raises(ValueError, match="'six' is empty"):
        dataset.subset([])
    with pytest.raises(ValueError, match="'six' is empty"):
        dataset.subset(np.zeros(6, dtype=bool))
    with pytest.raises(ValueError, match=r"mask of shape \(6,\), got bool of shape \(2,\)"):
        dataset.subset(np.array([True, False]))
    with pytest.raises(ValueError, match="got float64"):
        dataset.subset([0.5])
    for outside in (6, -7):
        with pytest.raises(IndexError, match=f"index {outside} is out of range for 6 systems"):
            dataset.subset([0, outside])


def test_empty_sets_say_what_was_skipped():
    with pytest.raises(ValueError, match=r"data set 'mine' is empty$"):
        AtomicDataset.from_systems([], "mine")
    with pytest.raises(ValueError, match="2 rows could not be parsed; the first, a: bad cif"):
        AtomicDataset.from_systems(iter([]), "mine", [("a", "bad cif"), ("b", "NaN")])


def test_arrays_that_do_not_fit_are_refused(dataset):
    arrays = {
        key: getattr(dataset, key) for key in ("numbers", "positions", "cells", "sizes", "ids")
    }
    n = len(dataset.numbers)
    for key, value, message in [
        ("numbers", dataset.numbers[:-1], rf"numbers must have shape \({n},\)"),
        ("positions", dataset.positions[:, :2], rf"positions must have shape \({n}, 3\)"),
        ("cells", dataset.cells[:-1], r"cells must have shape \(6, 3, 3\)"),
        ("ids", dataset.ids[:-1], r"ids must have shape \(6,\)"),
        ("sizes", dataset.sizes + np.array([1, -1, 0, 0, 0, 0]) * dataset.sizes[1], "has 0 atoms"),
    ]:
        with pytest.raises(ValueError, match=message):
            AtomicDataset(**(arrays | {key: value}))
    positions = dataset.positions.copy()
    positions[-1, 1] = np.nan
    with pytest.raises(ValueError, match="system mp-5: positions must be finite"):
        AtomicDataset(**(arrays | {"positions": positions}))


def test_ids_of_objects_are_stored_as_text(dataset, tmp_path):
    """An object array, as a pandas column is, must not end as a pickle in the file."""
    ids = np.array([f"mp-{i}" for i in range(6)], dtype=object)
    arrays = (dataset.numbers, dataset.positions, dataset.cells, dataset.sizes)
    AtomicDataset(*arrays, ids).save(tmp_path / "a.npz")
    assert AtomicDataset.load(tmp_path / "a.npz").ids.tolist() == ids.tolist()


def test_missing_file(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match="no data file"):
            AtomicDataset.load(path)


@pytest.mark.parametrize("keep", [0, 10, 100, -1, -30])
def test_truncated_file(saved, keep):
    content = saved.read_bytes()
    saved.write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"six.npz is no array file of this package"):
        AtomicDataset.load(saved)


def test_flipped_bytes(saved, dataset):
    content = bytearray(saved.read_bytes())
    start = content.find(dataset.positions.tobytes())
    assert start > 0
    content[start] ^= 0xFF
    saved.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"no array file of this package.*CRC"):
        AtomicDataset.load(saved)


def test_other_files_are_refused(tmp_path):
    text, array, zipped = tmp_path / "a.csv", tmp_path / "a.npy", tmp_path / "a.npz"
    text.write_text("material_id,cif\n")
    np.save(array, np.arange(3))
    np.savez(zipped, x=np.arange(3))
    for path in (text, array, zipped):
        with pytest.raises(ValueError, match="no array file of this package"):
            AtomicDataset.load(path)


@pytest.mark.parametrize(
    "key", ["numbers", "positions", "cells", "sizes", "ids", "name", "skipped"]
)
def test_missing_arrays(saved, key):
    rewrite(saved, **{key: None})
    with pytest.raises(ValueError, match=key):
        AtomicDataset.load(saved)


def test_arrays_of_other_lengths(saved):
    rewrite(saved, numbers=np.ones(2))
    with pytest.raises(ValueError, match=r"six.npz is damaged: 6 systems"):
        AtomicDataset.load(saved)


def test_newer_format_is_told_from_a_damaged_one(saved):
    rewrite(saved, version=np.array(FORMAT_VERSION + 1), skipped=None, extra=np.ones(3))
    with pytest.raises(
        ValueError, match=rf"format {FORMAT_VERSION + 1}.*up to {FORMAT_VERSION}: upd"
    ):
        AtomicDataset.load(saved)


def test_pickles_are_never_read(saved, tmp_path):
    mark = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return (open, (str(mark), "w"))

    rewrite(saved, ids=np.array([Payload()] * 6, dtype=object))
    with pytest.raises(ValueError, match="no array file of this package"):
        AtomicDataset.load(saved)
    assert not mark.exists()


def test_an_archive_of_another_version_of_zip_is_a_plain_error(tmp_path) -> None:
    path = tmp_path / "new.npz"
    np.savez(path, numbers=np.ones(3))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 173  # version needed to extract
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"new\.npz is no array file of this package"):
        AtomicDataset.load(path)
