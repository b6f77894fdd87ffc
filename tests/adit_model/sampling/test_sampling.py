"""A sample is a function of (weights, settings, seed, index), and bad requests cost no work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers
from torch import nn

from adit_model.conditions.atoms import ElementChoice
from adit_model.conditions.condition import Condition
from adit_model.conditions.known import Known
from adit_model.config import AutoencoderConfig, DenoiserConfig, ModelConfig, SamplingConfig
from adit_model.geometry import random_rotation
from adit_model.model import ADiT
from adit_model.sampling.request import Request
from adit_model.sampling.sample import Sample
from adit_model.systems import AtomicSystem

SIZES = {
    "crystal": {str(k): k for k in range(1, 21)},
    "molecule": {str(k): 1 for k in range(3, 30)},
}


def tiny_model(sizes: dict[str, dict[str, int]] = SIZES, with_denoiser: bool = True) -> ADiT:
    """Geometry and preconditioning as the bundled model has them, random weights."""
    width = {"dim": 16, "num_heads": 2, "geometry": True}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    config = ModelConfig(
        AutoencoderConfig(**width, **layers, identity_start=True, canonical=True),
        DenoiserConfig(**width, num_layers=2, precondition=True),
        SamplingConfig(num_steps=10, guidance_scale=2.0),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        known = Known.of_checkpoint(config.as_dict(), {"sizes": sizes})
        model = ADiT(config, known, with_denoiser=with_denoiser).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model() -> ADiT:
    return tiny_model()


@pytest.fixture(scope="module")
def samples(model: ADiT) -> list[Sample]:
    return model.sample(24, seed=3, progress=False)


@contextmanager
def forward_sizes(module: nn.Module, limit: int | None = None) -> Iterator[list[int]]:
    """Rows of each forward pass; over ``limit`` rows, memory runs out."""
    rows: list[int] = []

    def note(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        rows.append(len(args[0]))
        if limit is not None and len(args[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = module.register_forward_pre_hook(note)
    try:
        yield rows
    finally:
        handle.remove()


def assert_same(ours: list[Sample], theirs: list[Sample]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.index, a.domain, a.num_atoms, a.fault) == (
            b.index,
            b.domain,
            b.num_atoms,
            b.fault,
        )
        assert a.decoded.keys() == b.decoded.keys()
        for key in a.decoded:
            np.testing.assert_array_equal(a.decoded[key], b.decoded[key])


@pytest.mark.parametrize("n", [1, 2, 7, 23])
def test_fewer_samples_are_a_prefix(model, samples, n):
    assert_same(model.sample(n, seed=3, progress=False), samples[:n])


@pytest.mark.parametrize(("n", "first_index"), [(1, 0), (6, 5), (13, 11), (1, 23)])
def test_a_part_of_the_samples_is_the_same(model, samples, n, first_index):
    part = model.sample(n, seed=3, first_index=first_index, progress=False)
    assert_same(part, samples[first_index : first_index + n])
    systems = [s.system for s in part if s.system is not None]
    assert [s.info["index"] for s in systems] == [s.index for s in part if s.system is not None]


def test_listed_counts_are_those_of_the_part(model):
    counts = [3, 4, 20, 29, 5]
    whole = model.sample(5, num_atoms=counts, progress=False)
    assert_same(model.sample(2, num_atoms=counts[3:], first_index=3, progress=False), whole[3:])
    moved = model.sample(2, num_atoms=counts[3:], first_index=2, progress=False)
    assert [s.domain for s in moved] == ["molecule", "molecule"]  # no crystal has 29 atoms
    with pytest.raises(ValueError, match="no training crystal has 29 atoms, they have 1-20"):
        model.sample(2, domain="crystal", num_atoms=counts[3:], progress=False)


@pytest.mark.parametrize("batch_atoms", [1, 40, 100])
def test_samples_do_not_depend_on_their_batch(model, samples, batch_atoms):
    assert_same(model.sample(24, seed=3, batch_atoms=batch_atoms, progress=False), samples)


@pytest.mark.parametrize("batch_atoms", [1, 60])
def test_renewed_noise_belongs_to_the_sample(model, batch_atoms):
    settings = {"solver": "ancestral", "guidance_scale": 1.0, "seed": 3, "progress": False}
    samples = model.sample(10, **settings)
    assert_same(model.sample(7, batch_atoms=batch_atoms, **settings), samples[:7])
    for scale in (0.5, 0.0):
        other = model.sample(2, noise_scale=scale, **settings)
        assert not np.allclose(other[1].decoded["positions"], samples[1].decoded["positions"])


def test_each_domain_has_its_noise(model):
    settings = {"solver": "ancestral", "seed": 3, "progress": False}
    both = model.sample(8, noise_scale={"crystal": 0.5, "molecule": 1.5}, **settings)
    for domain, scale in (("crystal", 0.5), ("molecule", 1.5)):
        alike = model.sample(8, noise_scale=scale, **settings)
        pairs = [(a, b) for a, b in zip(both, alike, strict=True) if a.domain == domain]
        assert pairs
        assert_same([a for a, _ in pairs], [b for _, b in pairs])


def test_samples_do_not_depend_on_the_atom_counts_of_others(model):
    counts = [5, 9, 20, 29]
    alone = model.sample(4, domain="molecule", num_atoms=[5, 5, 5, 5], progress=False)
    mixed = model.sample(4, domain="molecule", num_atoms=counts, progress=False)
    assert [len(s.decoded["numbers"]) for s in mixed] == counts
    assert_same(mixed[:1], alone[:1])


def test_seeds_and_indices_give_different_samples(model, samples):
    other = model.sample(2, seed=4, domain="molecule", num_atoms=6, progress=False)
    same = model.sample(2, seed=3, domain="molecule", num_atoms=6, progress=False)
    positions = [s.decoded["positions"] for s in (*other, *same)]
    for i in range(4):
        for j in range(i):
            assert not np.allclose(positions[i], positions[j], atol=1e-3)


def test_domains_alternate_and_counts_follow_the_histogram(samples):
    assert [s.domain for s in samples] == ["crystal", "molecule"] * 12
    for s in samples:
        assert str(s.num_atoms) in SIZES[s.domain]
        assert len(s.decoded["numbers"]) == s.num_atoms


def test_atom_counts_as_asked_for(model):
    def counts(num_atoms):
        return [s.num_atoms for s in model.sample(4, num_atoms=num_atoms, progress=False)]

    assert counts(6) == [6] * 4
    assert counts([3, 4, 20, 29]) == [3, 4, 20, 29]
    assert all(7 <= c <= 9 for c in counts((7, 9)))


def test_rotation_only_when_asked_and_distances_stay(model):
    plain = model.sample(6, domain="molecule", progress=False)
    turned = model.sample(6, domain="molecule", random_rotation=True, progress=False)
    for a, b in zip(plain, turned, strict=True):
        np.testing.assert_array_equal(a.system.positions, a.decoded["positions"])
        assert not np.allclose(a.system.positions, b.system.positions, atol=1e-3)
        delta = [s.positions[:, None] - s.positions for s in (a.system, b.system)]
        first, second = (np.linalg.norm(d, axis=-1) for d in delta)
        np.testing.assert_allclose(first, second, atol=1e-9)


def test_batches_are_halved_when_memory_runs_out(model, samples):
    with forward_sizes(model.denoiser, limit=120) as rows:
        again = model.sample(24, seed=3, progress=False)
    assert max(rows) > 120
    assert_same(again, samples)


def test_one_system_that_does_not_fit_is_an_error(model):
    with forward_sizes(model.denoiser, limit=4), pytest.raises(torch.OutOfMemoryError):
        model.sample(2, num_atoms=6, progress=False)


def test_guidance_needs_something_it_acts_on(model):
    with forward_sizes(model.denoiser) as rows:
        with pytest.raises(ValueError, match="guidance_scale 2 acts on nothing: the network is"):
            model.sample(2, domain="crystal", guidance_scale=2.0, progress=False)
        assert rows == []
        options = {"domain": "crystal", "num_steps": 4, "progress": False}
        assert_same(model.sample(2, guidance_scale=1.0, **options), model.sample(2, **options))
        request = Request.of(2, **{k: v for k, v in options.items() if k != "progress"})
        filled = request.filled(request.check(model.known, model.config))
        assert_same(model.sample(filled, progress=False), model.sample(2, **options))


def test_unphysical_cells_are_kept_with_their_reason():
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3)
    found = model.sample(20, domain="crystal", progress=False)
    assert [s.index for s in found] == list(range(20))
    assert any(s.system is None for s in found)
    for s in found:
        assert (s.system is None) == (s.fault is not None)
        assert s.plausible == (s.reason is None)
        assert s.fault in (None, s.reason)
        assert s.decoded["lengths"].shape == (3,)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n": 0}, ValueError, "n must be a positive integer, got 0"),
        ({"n": -3}, ValueError, "got -3"),
        ({"n": True}, TypeError, "n must be an integer, got True"),
        ({"n": 2.0}, TypeError, "n must be an integer"),
        ({"seed": -1}, ValueError, "seed"),
        ({"first_index": -1}, ValueError, "first_index must not be negative, got -1"),
        ({"first_index": 0.5}, TypeError, "first_index must be an integer, got 0.5"),
        ({"domain": "polymer"}, ValueError, "'polymer'"),
        ({"solver": "magic"}, ValueError, "magic"),
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"guidance_scale": -1.0}, ValueError, "guidance_scale"),
        ({"guidance_scale": float("nan")}, ValueError, "guidance_scale"),
        ({"num_atoms": 0}, ValueError, "num_atoms must be positive"),
        ({"num_atoms": 500}, ValueError, "no training crystal has 500 atoms, they have 1-20"),
        ({"num_atoms": (9, 3)}, ValueError, "range of num_atoms"),
        ({"num_atoms": [3, 4]}, ValueError, "2 atom counts for 4 samples"),
        ({"num_atoms": "six"}, ValueError, "num_atoms must be a number"),
        ({"condition": "Li-P-S, bandgap=2"}, ValueError, "know no property .bandgap."),
        ({"condition": "spacegroup=225"}, ValueError, "were not told the space group"),
        ({"steps": 4}, TypeError, "unknown option .steps., known: num_steps, solver"),
        ({"num_atoms": 2.5}, TypeError, "num_atoms"),
        ({"batch_atoms": 0}, ValueError, "batch_atoms"),
    ],
)
def test_bad_requests_are_refused_before_any_work(model, options, error, text):
    with forward_sizes(model.denoiser) as rows, pytest.raises(error, match=text):
        model.sample(**{"n": 4, "progress": False, **options})
    assert rows == []


def test_a_checkpoint_that_cannot_sample_says_so():
    with pytest.raises(ValueError, match="stage 1 only"):
        tiny_model(with_denoiser=False).sample(1)
    crystals = tiny_model({"crystal": {"4": 1}})
    with pytest.raises(ValueError, match="not trained on domain 'molecule', only on crystal"):
        crystals.sample(1, domain="molecule")


def test_a_free_domain_is_what_the_checkpoint_knows():
    crystals = tiny_model({"crystal": {"4": 1}})
    assert [s.domain for s in crystals.sample(3, progress=False)] == ["crystal"] * 3


def test_gaps_of_the_histogram_are_gaps():
    model = tiny_model({"molecule": {"3": 1, "4": 5, "7": 2, "9": 1}})
    for asked in (5, [3, 5], (5, 6), (10, 90)):
        condition = Condition(num_atoms=asked)
        with pytest.raises(ValueError, match=r"no training molecule has .* they have 3-4, 7, 9"):
            model.sample(4, condition, progress=False)
    found = {s.num_atoms for s in model.sample(40, num_atoms=(4, 8), num_steps=1, progress=False)}
    assert found == {4, 7}
    assert {s.num_atoms for s in model.sample(9, "atoms=3|9", num_steps=1, progress=False)} == {
        3,
        9,
    }


def test_elements_and_formulas_hold_whatever_the_weights(model):
    options = {"num_steps": 2, "progress": False}
    for sample in model.sample(20, "crystal, Li-P-S", **options):
        assert set(sample.decoded["numbers"]) <= {3, 15, 16}
        assert sample.num_atoms >= 3
        if sample.system is not None:
            assert sample.holds["elements"] == (set(sample.system.numbers) == {3, 15, 16})
    for sample in model.sample(20, "crystal, LiMn3O4", **options):
        units = sample.num_atoms // 8
        counts = dict(zip(*np.unique(sample.decoded["numbers"], return_counts=True), strict=True))
        assert counts == {3: units, 25: 3 * units, 8: 4 * units}
        assert units in (1, 2)
    for sample in model.sample(6, "molecule, C2H6O", **options):
        assert sorted(sample.decoded["numbers"]) == [1] * 6 + [6] * 2 + [8]
        assert sample.holds == {"domain": True, "formula": True}
    with pytest.raises(ValueError, match="24 atoms, they have 1-20"):
        model.sample(2, "crystal, LiMn3O4, units=3", **options)


@pytest.mark.parametrize("add", [{"Li": 2}, {"O": 1, "Sr": 1}, 3])
def test_fixed_atoms_and_their_cell_stay(model, add):
    """In any orientation of the cell, and wherever the networks order the atoms."""
    turn = random_rotation(np.random.default_rng(0))
    cell = np.array([[4.0, 0, 0], [1, 5, 0], [0.5, 1, 6]]) @ turn
    sites = np.array([[0, 0, 0], [0.5, -0.5, 1.5], [0.25, 0.5, 0.125]]) @ cell
    known = AtomicSystem([22, 8, 8], sites, cell)
    condition = Condition.completing(known, add)
    for sample in model.sample(4, condition, num_steps=3, progress=False):
        np.testing.assert_allclose(sample.system.cell, cell, atol=1e-9)
        np.testing.assert_allclose(sample.system.positions[:3], sites, atol=1e-6)
        assert sample.system.numbers[:3].tolist() == [22, 8, 8]
        assert sample.num_atoms == 3 + (add if isinstance(add, int) else sum(add.values()))
        assert set(sample.holds.values()) == {True}
        if isinstance(add, dict):
            rest = sorted(sample.system.numbers[3:].tolist())
            assert rest == sorted(atomic_numbers[s] for s, k in add.items() for _ in range(k))
    (turned,) = model.sample(1, condition, random_rotation=True, num_steps=3, progress=False)
    lengths = [
        np.linalg.norm(s[:, None] - s, axis=-1) for s in (turned.system.positions[:3], sites)
    ]
    np.testing.assert_allclose(*lengths, atol=1e-6)


def test_there_is_room_for_the_fixed_atoms_in_the_formula(model):
    condition = "LiO, cell=4/4/6/90/90/90, fixed=Li@0/0/0;Li@0/0/0.5, units=1-3"
    for sample in model.sample(12, condition, num_steps=2, progress=False):
        assert sample.num_atoms in (4, 6) and all(sample.holds.values())


def test_what_the_weights_cannot_be_told(model):
    water = AtomicSystem([8, 1, 1], np.eye(3))
    with pytest.raises(ValueError, match="cannot complete a molecule: its pose follows"):
        model.sample(1, Condition.completing(water, {"H": 1}), progress=False)
    with pytest.raises(ValueError, match="not told the cell in training, so they cannot be now"):
        model.sample(1, "cell=4/4/4/90/90/90", progress=False)


def test_a_decoder_cannot_contradict_what_it_was_told():
    told = ElementChoice(np.array([6, 1, 1]))
    logits = np.zeros((3, 20))
    logits[:, 8] = 9.0
    assert told.choose(logits).tolist() == [6, 1, 1]
    assert ElementChoice().choose(logits).tolist() == [8, 8, 8]
