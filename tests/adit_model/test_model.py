"""ADiT: encoding and decoding systems, and what a decoded dictionary describes."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from adit_model.batch import Packing
from adit_model.canonical import canonicalise
from adit_model.conditions.known import Known
from adit_model.config import AutoencoderConfig, DenoiserConfig, ModelConfig
from adit_model.model import ADiT, chunks, resolve_device
from adit_model.network import decoding
from adit_model.network.autoencoder import Decoded
from adit_model.network.decoding import raw_to_system, unpack_decoded
from adit_model.network.groups import DomainGroups
from adit_model.systems import AtomicSystem


@pytest.fixture(scope="module")
def model() -> ADiT:
    """Untrained, so that coordinates are copied through the latents."""
    width = {"dim": 16, "num_heads": 2, "geometry": True}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    config = ModelConfig(
        AutoencoderConfig(**width, **layers, identity_start=True, canonical=True),
        DenoiserConfig(**width, num_layers=1),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ADiT(config).eval()


@pytest.fixture
def systems() -> list[AtomicSystem]:
    atoms = [bulk("NaCl", "rocksalt", a=5.6), molecule("CH3CH2OH"), bulk("ZnS", "wurtzite", a=3.8)]
    return [AtomicSystem.from_atoms(a) for a in (*atoms, molecule("H2O"))]


def turned(system: AtomicSystem, seed: int = 0) -> AtomicSystem:
    rotation = Rotation.random(random_state=seed).as_matrix()
    cell = None if system.cell is None else system.cell @ rotation.T
    return AtomicSystem(system.numbers, system.positions @ rotation.T, cell, {"name": "turned"})


def test_latents_do_not_depend_on_pose_and_order(model, systems):
    for seed in range(2):
        orders = [np.random.default_rng(seed).permutation(len(s)) for s in systems]
        moved = [turned(system, seed) for system in systems]
        moved = [
            AtomicSystem(s.numbers[o], s.positions[o], s.cell)
            for s, o in zip(moved, orders, strict=True)
        ]
        found = model.encode(moved)
        for a, b, order in zip(model.encode(systems), found, orders, strict=True):
            np.testing.assert_allclose(a[order], b, atol=1e-5)


def test_structures_of_all_libraries_are_encoded(model, systems):
    for system in systems:
        (expected,) = model.encode([system])
        for structure in (system.to_pymatgen(), system.to_atoms()):
            np.testing.assert_allclose(model.encode([structure])[0], expected, atol=1e-5)
            np.testing.assert_allclose(model.encode(structure)[0], expected, atol=1e-5)  # one alone
            (copy,) = model.reconstruct([structure])
            np.testing.assert_allclose(copy.positions[0], system.positions[0], atol=1e-4)
    with pytest.raises(TypeError, match="expected an AtomicSystem"):
        model.encode(["NaCl"])


def test_a_supercell_has_the_latents_of_its_primitive_cell(model, systems):
    salt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    (small,), (large,) = model.encode(systems[:1]), model.encode([salt])
    assert large.shape[0] == 8
    np.testing.assert_allclose(large[::2], small[[0] * 4], atol=1e-5)
    (copy,) = model.reconstruct([salt])
    difference = copy.frac_coords - salt.get_scaled_positions()
    np.testing.assert_allclose(difference, np.round(difference), atol=1e-5)


def test_latents_do_not_depend_on_the_batch(model, systems):
    together = model.encode(systems)
    assert [len(z) for z in together] == [len(s) for s in systems]
    for batch_atoms in (1, 12):
        for a, b in zip(together, model.encode(systems, batch_atoms), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_prepared_systems_are_in_canonical_form(model, systems):
    for system in systems:
        moved = turned(system)
        prepared = model.prepare(moved)
        assert prepared.info == {"name": "turned"}
        expected = canonicalise(system).system
        np.testing.assert_array_equal(prepared.numbers, expected.numbers)
        np.testing.assert_allclose(prepared.positions, expected.positions, atol=1e-7)


def test_an_untrained_model_reconstructs_coordinates_where_they_were(model, systems):
    for system in [*systems, *map(turned, systems)]:
        (copy,) = model.reconstruct([system])
        assert len(copy) == len(system)
        if system.cell is None:
            np.testing.assert_allclose(copy.positions, system.positions, atol=1e-5)
        else:
            difference = copy.frac_coords - system.frac_coords
            np.testing.assert_allclose(difference, np.round(difference), atol=1e-5)


def test_nothing_to_encode(model):
    assert model.encode([]) == []
    assert model.reconstruct([]) == []


def test_elements_outside_the_vocabulary_are_refused(model, systems):
    fermium = AtomicSystem(np.array([100]), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"system 4 holds element 100.* numbers 1 to 99"):
        model.encode([*systems, fermium])


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 60))
def test_chunks_divide_in_order_and_keep_the_limit(sizes, limit):
    found = list(chunks(sizes, limit))
    assert [i for chunk in found for i in chunk] == list(range(len(sizes)))
    for chunk in found:
        assert len(chunk) == 1 or sum(sizes[i] for i in chunk) <= limit
    for chunk, following in pairwise(found):
        assert sum(sizes[i] for i in chunk) + sizes[following[0]] > limit


def test_decoded_arrays_have_their_units():
    logits = torch.zeros(3, 100)
    logits[:, 0] = 9.0  # the mask, which is no element
    logits[0, 11] = logits[1, 17] = logits[2, 2] = 5.0
    coordinates = torch.tensor([[0.1, -0.2, 1.3]]).repeat(3, 1)
    right = torch.full((2, 3), torch.pi / 2)
    groups = DomainGroups(Packing(torch.tensor([2, 1])), torch.tensor([True, False]))
    decoded = Decoded(logits, coordinates, coordinates, torch.full((2, 3), 4.0), right)
    crystal, helium = unpack_decoded(decoded, groups)
    assert crystal["numbers"].tolist() == [11, 17]
    np.testing.assert_allclose(crystal["frac_coords"], [[0.1, 0.8, 0.3]] * 2, atol=1e-6)
    np.testing.assert_allclose(crystal["lengths"], 4.0 * 2 ** (1 / 3))
    np.testing.assert_allclose(crystal["angles"], 90.0, rtol=1e-6)
    assert helium["numbers"].tolist() == [2]
    np.testing.assert_allclose(helium["positions"], [[0.1, -0.2, 1.3]])
    system, reason = raw_to_system(crystal)
    assert reason is None
    assert system.volume == pytest.approx(64.0 * 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"angles": [90, 90, 179.0]}, "cell angles .* leave"),
        ({"angles": [60, 60, 140.0]}, "span no volume"),
        ({"lengths": [4, 4, -1.0]}, "cell lengths .* leave"),
        ({"lengths": [4, np.nan, 4]}, "cell parameters are not finite"),
        ({"frac_coords": [[0, 0, np.inf]]}, "fractional coordinates are not finite"),
    ],
)
def test_what_is_no_crystal_says_why(changes, reason):
    raw = {
        "domain": "crystal",
        "numbers": np.array([6]),
        "frac_coords": [[0.0, 0, 0]],
        "lengths": [4.0, 4, 4],
        "angles": [90.0, 90, 90],
    }
    raw = {k: np.array(v) if isinstance(v, list) else v for k, v in (raw | changes).items()}
    system, found = raw_to_system(raw)
    assert system is None
    assert re.search(reason, found)


def test_what_is_no_molecule_says_why():
    raw = {"domain": "molecule", "numbers": np.array([6]), "positions": np.full((1, 3), np.nan)}
    assert raw_to_system(raw) == (None, "decoded positions are not finite")


def test_domains_are_those_that_are_known(model):
    assert model.domains == ()
    assert ADiT(model.config, Known({"crystal": {}, "molecule": {3: 1}})).domains == ("molecule",)


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="unknown device 'tricorder'"):
        resolve_device("tricorder")


def test_decoded_values_leave_the_device_before_they_are_widened():
    """Apple's GPUs have no float64."""
    order = []

    class Recorder:
        def __getattr__(self, name):
            def step():
                order.append(name)
                return self

            return step

    decoding._numpy(Recorder())
    assert order.index("cpu") < order.index("double")
