"""The sampler: what it makes, in which order, and what becomes of it."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.db import connect
from ase.io import read

from adit_atomate.ase import ADiTSampler, Latents
from adit_model import ADiT
from adit_model.checkpoint import CheckpointError
from adit_model.notebook.samples import SampleList
from adit_model.sampling.sample import SamplingInterrupted


@pytest.fixture
def sampler(tiny_checkpoint):
    return ADiTSampler(tiny_checkpoint, device="cpu", seed=3, check=False, progress=False)


def same(one, other):
    """Whether two lists hold the same structures, bit for bit."""
    assert [a.info["index"] for a in one] == [a.info["index"] for a in other]
    return all(
        np.array_equal(a.numbers, b.numbers)
        and np.array_equal(a.positions, b.positions)
        and np.array_equal(a.cell.array, b.cell.array)
        for a, b in zip(one, other, strict=True)
    )


def test_atoms_are_those_of_the_model(sampler, tiny_checkpoint):
    samples = ADiT.load(tiny_checkpoint, "cpu").sample(10, seed=3, progress=False)
    atoms = sampler.sample(10)
    assert [a.info["index"] for a in atoms] == [s.index for s in samples if s.system]
    assert same(atoms, [s.system.to_atoms() for s in samples if s.system])
    assert atoms.missing == {s.index: s.fault for s in samples if s.system is None}
    for a in atoms:
        assert a.calc is None
        assert {type(value) for value in a.info.values()} <= {int, str, bool}
        assert (a.info["seed"], a.info["domain"]) == (3, "crystal" if a.pbc.all() else "molecule")


def test_calls_go_on_and_a_first_index_repeats(sampler, tiny_checkpoint):
    first, second = sampler.sample(3), sampler.sample(5)
    assert sampler.next_index == 8
    assert same([*first, *second], ADiTSampler(tiny_checkpoint, seed=3, progress=False).sample(8))
    assert same(sampler.sample(5, first_index=3), second)
    assert sampler.next_index == 8


def test_stream_gives_the_same_structures(sampler):
    whole = sampler.sample(9, first_index=0, domain="molecule")
    stream = sampler.iter_sample(9, first_index=0, domain="molecule", batch_atoms=8)
    assert same(sorted(stream, key=lambda a: a.info["index"]), whole)


def test_endless_stream(sampler):
    stream = sampler.iter_sample(domain="molecule", num_atoms=3)
    indices = [next(stream).info["index"] for _ in range(70)]
    assert len(set(indices)) == 70
    assert sampler.next_index == 128


def test_validity_is_a_plain_bool_with_a_reason(tiny_checkpoint):
    atoms = ADiTSampler(tiny_checkpoint, progress=False).sample(6, domain="molecule")
    for a in atoms:
        assert isinstance(a.info["plausible"], bool)
        assert a.info["plausible"] == ("reason" not in a.info)
    assert list(atoms.plausible) == [a for a in atoms if a.info["plausible"]]


def test_a_calculator_fits(sampler):
    atoms = sampler.sample(1, domain="molecule")[0]
    atoms.numbers[:] = 29
    atoms.calc = EMT()
    assert np.isfinite(atoms.get_potential_energy())


def test_threads_share_a_sampler(sampler):
    expected = [sampler.sample(4, first_index=4 * i) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda i: sampler.sample(4, first_index=4 * i), range(6)))
        taken = list(pool.map(lambda _: sampler.sample(2), range(6)))
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    indices = [a.info["index"] for part in taken for a in part]
    missing = [i for part in taken for i in part.missing]
    assert sorted(indices + missing) == list(range(12))


def test_joblib_processes(sampler):
    joblib = pytest.importorskip("joblib")
    parts = joblib.Parallel(n_jobs=2)(
        joblib.delayed(sampler.sample)(2, first_index=2 * i) for i in range(2)
    )
    assert same([a for part in parts for a in part], sampler.sample(4))


def test_pickled_sampler_goes_on(sampler):
    sampler.sample(2)
    data = pickle.dumps(sampler)
    assert len(data) < 5000  # the name of the checkpoint, not its weights
    assert same(pickle.loads(data).sample(3), sampler.sample(3))


def test_a_loaded_model_can_be_given_and_pickled(tiny_checkpoint, sampler):
    given = ADiTSampler(ADiT.load(tiny_checkpoint, "cpu"), seed=3, check=False, progress=False)
    assert same(pickle.loads(pickle.dumps(given)).sample(3), sampler.sample(3))


def test_a_given_model_is_left_as_it_is(tiny_checkpoint, sampler):
    model = ADiT.load(tiny_checkpoint, "cpu")
    double = ADiTSampler(model, dtype="float64", seed=3, check=False, progress=False)
    assert (double.model.dtype, model.dtype) == (torch.float64, torch.float32)
    assert ADiTSampler(model).model is model
    model.train()
    ADiTSampler(model)
    assert model.training
    for a, b in zip(double.sample(3), sampler.sample(3), strict=True):
        assert 0 < np.abs(a.positions - b.positions).max() < 1e-3


def test_what_is_asked_for_is_said(tiny_checkpoint):
    sampler = ADiTSampler(tiny_checkpoint, condition="crystal, Li-O", check=False, progress=False)
    made = sampler.sample(6)
    assert {atoms.info["condition"] for atoms in made} == {"crystal, Li-O"}
    for atoms in made:
        assert set(atoms.numbers) <= {3, 8}
        assert atoms.info["holds"] == (set(atoms.numbers) == {3, 8})
    assert {a.info["condition"] for a in sampler.sample(2, "molecule")} == {"molecule"}
    (atoms,) = sampler.sample(1, domain="molecule", num_atoms=3)
    assert atoms.info["condition"] == "molecule, Li-O, atoms=3"


def test_double_precision_is_used(tiny_checkpoint, sampler):
    double = ADiTSampler(tiny_checkpoint, "cpu", "float64", 3, check=False, progress=False)
    one, other = double.sample(6), sampler.sample(6)
    assert double.model.dtype.itemsize == 8
    assert [list(a.numbers) for a in one] == [list(a.numbers) for a in other]
    difference = max(
        np.abs(a.positions - b.positions).max() for a, b in zip(one, other, strict=True)
    )
    assert 0 < difference < 1e-3


def test_latents_decode_to_the_reconstruction(sampler):
    atoms = [molecule("H2O"), bulk("NaCl", "rocksalt", a=5.6), molecule("CH4")]
    latents = sampler.encode(atoms)
    assert [len(x) for x in latents] == [3, 2, 5]
    expected = sampler.model.reconstruct([sampler.model.prepare(a) for a in atoms])
    decoded = sampler.decode(latents)
    kept = [s for s in expected if s is not None]
    assert len(decoded) == len(kept)
    for a, system in zip(decoded, kept, strict=True):
        assert np.array_equal(a.numbers, system.numbers)
        np.testing.assert_allclose(a.positions, system.positions, atol=1e-4)
    one = sampler.decode(sampler.encode(atoms[0]))
    np.testing.assert_allclose(one.positions, decoded[0].positions, atol=1e-5)


def test_path_starts_and_ends_at_the_reconstructions(sampler):
    a, b = molecule("H2O"), molecule("SO2")
    path = sampler.interpolate(a, b, 5, match=False)
    assert [x.info["fraction"] for x in path] == [0, 0.25, 0.5, 0.75, 1]
    for end, atoms in ((path[0], a), (path[-1], b)):
        known = sampler.decode(sampler.encode(atoms))
        np.testing.assert_allclose(end.positions, known.positions, atol=1e-4)


def test_matching_finds_a_permutation(sampler):
    """From water to water with its atoms in another order, nothing moves."""
    water = molecule("H2O")
    path = sampler.interpolate(water, water[[1, 0, 2]], 3)
    for point in path:
        np.testing.assert_allclose(point.positions, path[0].positions, atol=1e-4)


def test_full_strength_is_sampling(sampler):
    water = molecule("H2O")
    expected = sampler.sample(4, domain="molecule", num_atoms=3, first_index=5)
    assert same(sampler.variations(water, 4, strength=1, first_index=5), expected)


def test_weak_variations_stay_near():
    """With the bundled weights: less noise, less change, and water stays water."""
    sampler = ADiTSampler(num_steps=20, check=False, progress=False)
    water = molecule("CH3OH")
    known = sampler.decode(sampler.encode(water))
    moved = []
    for strength in (0.02, 0.3):
        found = sampler.variations(water, 6, strength=strength, first_index=0)
        gaps = [np.abs(a.get_all_distances() - known.get_all_distances()).mean() for a in found]
        moved.append(np.mean(gaps))
    assert moved[0] < 0.1 < moved[1]
    weak = sampler.variations(water, 6, strength=0.02, first_index=0)
    assert all(a.get_chemical_formula() == "CH4O" for a in weak)


def test_trajectory_ends_at_the_sample(sampler, tmp_path):
    for index, domain in ((0, "crystal"), (1, "molecule")):
        frames = sampler.trajectory(index=index)
        (atoms,) = sampler.sample(1, first_index=index)
        times = [a.info["time"] for a in frames]
        assert times == sorted(times)
        assert (times[-1], frames[-1].info["domain"]) == (1.0, domain)
        assert len(times) + len(frames.missing) == 4  # the tiny model takes three steps
        assert np.array_equal(frames[-1].positions, atoms.positions)
        assert np.array_equal(frames[-1].numbers, atoms.numbers)
        turned = sampler.trajectory(index=index, random_rotation=True)
        (alike,) = sampler.sample(1, first_index=index, random_rotation=True)
        assert np.array_equal(turned[-1].positions, alike.positions)
        assert not np.allclose(turned[0].positions, frames[0].positions)
        back = read(frames.write(tmp_path / f"{domain}.traj"), index=":")
        assert [list(a.numbers) for a in back] == [list(a.numbers) for a in frames]


def test_database_in_one_call(tiny_checkpoint, tmp_path):
    atoms = ADiTSampler(tiny_checkpoint, progress=False).sample(6)
    atoms.write(tmp_path / "made.db")
    atoms.write(tmp_path / "made.db")
    with connect(tmp_path / "made.db") as database:
        assert len(database) == 2 * len(atoms)
        rows = list(database.select(domain="molecule", plausible=False))
        expected = [a for a in atoms if not a.pbc.any() and not a.info["plausible"]]
        assert len(rows) == 2 * len(expected) > 0
        assert {row.reason for row in rows} == {a.info["reason"] for a in expected}
        assert {row.seed for row in rows} == {0}


def test_list_shows_itself(sampler):
    atoms = sampler.sample(4, domain="molecule")
    assert "data:image/png;base64," in atoms._repr_html_()
    assert f"{len(atoms)} structures" in atoms._repr_html_()
    assert isinstance(atoms[1:], SampleList)
    assert "<script>" not in SampleList([], {0: "<script>"})._repr_html_()
    assert repr(SampleList([molecule("H2O")], {4: "flat"})) == "<1 structures, 1 missing: H2O>"


def test_an_interrupt_keeps_what_is_done(sampler, monkeypatch):
    from adit_model.sampling import sampler as sampling

    whole = sampling._integrate_batch
    calls = []

    def stop_after_one(*args):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return whole(*args)

    expected = sampler.sample(9, first_index=0, domain="molecule", num_atoms=3)
    monkeypatch.setattr(sampling, "_integrate_batch", stop_after_one)
    with pytest.raises(SamplingInterrupted, match="of 9 samples are finished"):
        sampler.sample(9, first_index=0, domain="molecule", num_atoms=3, batch_atoms=12)
    assert 0 < len(sampler.finished) < 9
    assert same(sampler.finished, expected[: len(sampler.finished)])


BAD = {
    "model": ({"model": "nothing"}, CheckpointError, "no checkpoint 'nothing'"),
    "device": ({"device": "tpu"}, ValueError, "device must be auto, cpu, cuda or cuda:1"),
    "dtype": ({"dtype": "float8"}, ValueError, "dtype must be one of float32, float64"),
    "seed": ({"seed": -1}, ValueError, "seed must not be negative, got -1"),
    "domain": ({"domain": "metal"}, ValueError, "domain must be one of"),
    "steps": ({"num_steps": 0}, ValueError, "num_steps must be a positive integer, got 0"),
    "solver": ({"solver": "rk4"}, ValueError, "'rk4'"),
}


@pytest.mark.parametrize("case", BAD)
def test_constructor_says_what_is_wrong(case):
    options, error, text = BAD[case]
    with pytest.raises(error, match=text):
        ADiTSampler(**options)


def test_methods_say_what_is_wrong_before_any_work(sampler, monkeypatch):
    monkeypatch.setattr(type(sampler), "model", property(lambda self: pytest.fail("loaded")))
    water, slab = molecule("H2O"), bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    bad = [
        (lambda: sampler.sample(0), "n must be a positive integer, got 0"),
        (
            lambda: sampler.sample(2, num_atoms=900),
            "no training crystal has 900 atoms",
        ),
        (lambda: sampler.iter_sample(-1), "n must be a positive integer, got -1"),
        (lambda: sampler.iter_sample(num_atoms=[3, 4]), "needs n"),
        (lambda: sampler.variations(water, 2, strength=0), "strength must lie in"),
        (lambda: sampler.variations(molecule("C6H6"), 2), "no training molecule has 12 atoms"),
        (lambda: sampler.variations(slab, 2), "pbc must be true in all directions"),
        (lambda: sampler.trajectory(index=-1), "first_index must not be negative"),
        (lambda: Latents(np.zeros(3), "crystal"), "shape"),
    ]
    for call, text in bad:
        with pytest.raises(ValueError, match=text):
            call()
    assert sampler.next_index == 0


def test_paths_need_ends_that_fit(sampler):
    water = molecule("H2O")
    with pytest.raises(ValueError, match="no path from a molecule to a crystal"):
        sampler.interpolate(water, bulk("NaCl", "rocksalt", a=5.6))
    with pytest.raises(ValueError, match="equally many atoms"):
        sampler.interpolate(water, molecule("CH4"))
    with pytest.raises(ValueError, match="k must be an integer of at least 2, got 1"):
        sampler.interpolate(water, water, 1)
    with pytest.raises(ValueError, match="channels, got 3"):
        sampler.decode(Latents(np.zeros((2, 3)), "molecule"))


def test_import_takes_less_than_two_seconds_and_no_torch():
    code = "import sys, adit_atomate; assert 'torch' not in sys.modules"
    best = min(_seconds(code) for _ in range(3))
    assert best < 2.0


def _seconds(code):
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started
