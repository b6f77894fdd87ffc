"""Encoders: one interface, and the symmetries of the equivariant one."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule as ase_molecule
from ase.neighborlist import neighbor_list as ase_neighbor_list
from safetensors.torch import load_file, save_file
from torch import Tensor

from adit_model.batch import AtomicBatch
from adit_model.config import ENCODERS, AutoencoderConfig
from adit_model.geometry import parameters_to_cell, random_rotation
from adit_model.network.autoencoder import Autoencoder
from adit_model.network.encoders import build_encoder
from adit_model.network.encoders.equivariant import EquivariantEncoder
from adit_model.network.encoders.neighbors import neighbor_list
from adit_model.network.groups import DomainGroups
from adit_model.systems import AtomicSystem

VECTOR, INVARIANT = slice(0, 3), slice(3, None)  # channels that rotate with the system, or do not


def make_config(encoder: str = "equivariant", **changes) -> AutoencoderConfig:
    return AutoencoderConfig(
        encoder=encoder, dim=32, num_heads=4, num_encoder_layers=2, num_decoder_layers=1, **changes
    )


@pytest.fixture(scope="module")
def encoder() -> EquivariantEncoder:
    torch.manual_seed(0)
    return build_encoder(make_config()).eval()


def make_crystal(n: int, seed: int, angles: tuple[float, float, float] = (80, 95, 105)):
    rng = np.random.default_rng(seed)
    edge = (16 * n) ** (1 / 3)
    cell = parameters_to_cell(edge * rng.uniform(0.9, 1.1, 3), np.radians(angles))
    positions = rng.uniform(-1, 2, (n, 3)) @ cell
    return AtomicSystem(rng.integers(1, 90, n), positions, cell @ np.eye(3))


def make_systems() -> list[AtomicSystem]:
    ethanol = AtomicSystem.from_atoms(ase_molecule("CH3CH2OH"))
    rng = np.random.default_rng(7)
    spread = AtomicSystem(rng.integers(1, 9, 12), rng.normal(scale=4, size=(12, 3)))
    return [make_crystal(5, 1), ethanol, make_crystal(1, 2), make_crystal(12, 3), spread]


@torch.no_grad()
def encode(encoder: torch.nn.Module, systems: list[AtomicSystem]) -> tuple[Tensor, Tensor]:
    batch = AtomicBatch.collate(systems)
    return encoder(batch, DomainGroups(batch.packing, batch.periodic))


def changed(system: AtomicSystem, positions=None, cell=None, order=None) -> AtomicSystem:
    positions = system.positions if positions is None else positions
    cell = system.cell if cell is None else cell
    order = np.arange(len(system)) if order is None else order
    return AtomicSystem(system.numbers[order], positions[order], cell)


def assert_same_latents(one, two, atol=1e-4):
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


# every encoder


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_share_their_interface(name):
    for latent_dim in (4, 8):
        config = make_config(name, latent_dim=latent_dim, log_variance_start=-5.0)
        batch = AtomicBatch.collate(make_systems())
        encoder = build_encoder(config)
        mean, log_variance = encoder(batch, DomainGroups(batch.packing, batch.periodic))
        assert mean.shape == log_variance.shape == (batch.num_atoms, latent_dim)
        assert mean.dtype == log_variance.dtype == torch.float32
        assert log_variance.mean().item() == pytest.approx(-5.0, abs=1.0)
        (mean.square().sum() + log_variance.square().sum()).backward()
        idle = [k for k, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == []


@pytest.mark.parametrize("name", ENCODERS)
def test_latents_do_not_depend_on_batch_mates(name):
    torch.manual_seed(0)
    encoder = build_encoder(make_config(name)).eval()
    systems = make_systems()
    together = encode(encoder, systems)
    alone = [encode(encoder, [s]) for s in systems]
    assert_same_latents(together, [torch.cat(parts) for parts in zip(*alone, strict=True)], 1e-5)


# the equivariant encoder


def test_latents_under_rotation(encoder):
    systems = make_systems()
    mean, log_variance = encode(encoder, systems)
    assert mean[:, VECTOR].std() > 0.1
    assert mean[:, INVARIANT].std() > 0.1
    rng = np.random.default_rng(0)
    for _ in range(3):
        rotation = random_rotation(rng)
        turned = [
            changed(s, s.positions @ rotation.T, None if s.cell is None else s.cell @ rotation.T)
            for s in systems
        ]
        new_mean, new_log_variance = encode(encoder, turned)
        expected = mean[:, VECTOR] @ torch.tensor(rotation.T, dtype=torch.float32)
        assert (expected - mean[:, VECTOR]).abs().max() > 0.1
        torch.testing.assert_close(new_mean[:, VECTOR], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(new_mean[:, INVARIANT], mean[:, INVARIANT], rtol=0, atol=1e-4)
        torch.testing.assert_close(new_log_variance, log_variance, rtol=0, atol=1e-4)


def test_vectors_are_reflected_with_the_system(encoder):
    systems = make_systems()
    mirror = np.diag([-1.0, 1, 1])
    mean, _ = encode(encoder, systems)
    mirrored, _ = encode(
        encoder,
        [
            changed(s, s.positions @ mirror, None if s.cell is None else s.cell @ mirror)
            for s in systems
        ],
    )
    expected = torch.cat([mean[:, VECTOR] * torch.tensor([-1.0, 1, 1]), mean[:, INVARIANT]], dim=1)
    torch.testing.assert_close(mirrored, expected, rtol=0, atol=1e-4)


def test_latents_under_translation(encoder):
    """Only the scalars of a crystal, which know its origin, may change."""
    systems = make_systems()
    mean, log_variance = encode(encoder, systems)
    moved = [changed(s, s.positions + np.array([1.3, -2.1, 0.7])) for s in systems]
    new_mean, new_log_variance = encode(encoder, moved)
    torch.testing.assert_close(new_mean[:, VECTOR], mean[:, VECTOR], rtol=0, atol=1e-4)
    molecule = ~AtomicBatch.collate(systems).atom_periodic
    torch.testing.assert_close(new_mean[molecule], mean[molecule], rtol=0, atol=1e-4)
    torch.testing.assert_close(
        new_log_variance[molecule], log_variance[molecule], rtol=0, atol=1e-4
    )
    assert (new_mean - mean)[~molecule][:, INVARIANT].abs().max() > 0.01


def test_latents_follow_the_order_of_the_atoms(encoder):
    rng = np.random.default_rng(0)
    for system in make_systems():
        order = rng.permutation(len(system))
        one = encode(encoder, [system])
        two = encode(encoder, [changed(system, order=order)])
        assert_same_latents([x[order] for x in one], two, 1e-5)


def test_periodic_images_are_the_same_atom(encoder):
    rng = np.random.default_rng(0)
    for system in make_systems():
        if system.cell is None:
            continue
        images = rng.integers(-3, 4, size=(len(system), 3)) @ system.cell
        assert_same_latents(
            encode(encoder, [changed(system, system.positions + images)]), encode(encoder, [system])
        )


def test_vectors_do_not_depend_on_the_choice_of_the_cell(encoder):
    system = make_crystal(4, 5)
    mean, _ = encode(encoder, [system])
    skewed = changed(system, cell=np.array([[1, 0, 0], [1, 1, 0], [0, -2, 1]]) @ system.cell)
    atoms = system.to_atoms().repeat((2, 1, 3))
    torch.testing.assert_close(
        encode(encoder, [skewed])[0][:, VECTOR], mean[:, VECTOR], rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        encode(encoder, [AtomicSystem.from_atoms(atoms)])[0][:, VECTOR],
        mean[:, VECTOR].repeat(6, 1),
        rtol=0,
        atol=1e-4,
    )


def test_latents_see_elements_distances_and_the_lattice(encoder):
    crystal, ethanol = make_systems()[:2]
    for system in (crystal, ethanol):
        mean, _ = encode(encoder, [system])
        numbers = system.numbers.copy()
        numbers[0] += 1
        other = AtomicSystem(numbers, system.positions, system.cell)
        bent = system.positions.copy()
        bent[0] += 0.2
        for change in (other, changed(system, bent)):
            assert (encode(encoder, [change])[0] - mean)[:, INVARIANT].abs().max() > 1e-3
    stretched = changed(crystal, crystal.positions * 3, crystal.cell * 3)
    wider = changed(crystal, crystal.positions * 4, crystal.cell * 4)  # no neighbours in either
    difference = encode(encoder, [stretched])[0] - encode(encoder, [wider])[0]
    assert difference[:, INVARIANT].abs().max() > 1e-3


def test_symmetric_sites_have_no_vector(encoder):
    rock_salt = AtomicSystem(
        np.array([11, 17]),
        np.array([[0, 0, 0], [2.8, 0, 0]]),
        2.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    )
    mean, _ = encode(encoder, [rock_salt])
    assert mean[:, VECTOR].abs().max() < 1e-4


def test_latents_are_continuous_at_the_cutoff(encoder):
    def pair(distance):
        return AtomicSystem(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, distance]]))

    inside, outside = (encode(encoder, [pair(5.0 + d)])[0] for d in (-1e-3, 1e-3))
    torch.testing.assert_close(inside, outside, rtol=0, atol=2e-3)


def test_coincident_atoms_and_single_atoms_stay_finite(encoder):
    systems = [
        AtomicSystem(np.array([6, 6]), np.zeros((2, 3))),
        AtomicSystem(np.array([2]), np.ones((1, 3))),
        AtomicSystem(np.array([26]), np.zeros((1, 3)), 30 * np.eye(3)),
    ]
    for x in encode(encoder, systems):
        assert torch.isfinite(x).all()


def test_masked_atoms_are_encoded(encoder):
    batch = AtomicBatch.collate(make_systems())
    masked = replace(batch, numbers=torch.zeros_like(batch.numbers))
    mean, _ = encoder(masked, DomainGroups(masked.packing, masked.periodic))
    assert torch.isfinite(mean).all()


def test_full_precision_under_autocast(encoder):
    systems = make_systems()
    expected = encode(encoder, systems)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same_latents(encode(encoder, systems), expected, 1e-6)


def test_weights_survive_copies_and_files(encoder, tmp_path):
    systems = make_systems()
    expected = encode(encoder, systems)
    assert_same_latents(encode(copy.deepcopy(encoder), systems), expected, 0)
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    torch.manual_seed(1)
    other = build_encoder(make_config()).eval()
    assert (encode(other, systems)[0] - expected[0]).abs().max() > 0.1
    other.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    assert_same_latents(encode(other, systems), expected, 0)


def test_the_decoder_recovers_the_orientation():
    """After a few steps on random orientations, unseen ones are decoded from the latents."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ethanol = AtomicSystem.from_atoms(ase_molecule("CH3CH2OH"))
    autoencoder = Autoencoder(
        AutoencoderConfig("equivariant", 16, 2, num_encoder_layers=1, num_decoder_layers=1)
    )
    optimizer = torch.optim.Adam(autoencoder.parameters(), 1e-2)

    def cartesian_error(train: bool) -> float:
        turned = [changed(ethanol, ethanol.positions @ random_rotation(rng)) for _ in range(16)]
        loss, terms = autoencoder.loss(AtomicBatch.collate(turned))
        if train:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return terms["cartesian"].item()

    before = cartesian_error(train=False)
    for _ in range(60):
        cartesian_error(train=True)
    assert cartesian_error(train=False) < 0.2 * before


def test_room_for_a_vector_and_a_scalar_is_needed():
    with pytest.raises(ValueError, match="latent_dim >= 4, got 3"):
        build_encoder(make_config(latent_dim=3))


def test_e3nn_is_imported_by_its_encoder_only():
    code = (
        "import sys; from adit_model.config import AutoencoderConfig as C; "
        "from adit_model.network.autoencoder import Autoencoder; "
        "Autoencoder(C(dim=8, num_heads=1, num_encoder_layers=1, num_decoder_layers=1)); "
        "sys.exit('e3nn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# neighbours


@pytest.mark.parametrize("cutoff", [2.5, 5.0, 7.0])
def test_neighbors_match_ase(cutoff):
    systems = [
        *make_systems(),
        make_crystal(3, 9, angles=(35, 40, 45)),
        make_crystal(2, 10, angles=(140, 60, 100)),
        AtomicSystem(np.array([29]), np.ones((1, 3)), 1.8 * (1 - np.eye(3))),  # fcc copper
    ]
    batch = AtomicBatch.collate(systems, dtype=torch.float64)
    receiver, sender, vectors = neighbor_list(batch, cutoff)
    torch.testing.assert_close(batch.packing.index[receiver], batch.packing.index[sender])
    start = 0
    for system in systems:
        mine = (receiver >= start) & (receiver < start + len(system))
        found = torch.cat(
            [receiver[mine, None] - start, sender[mine, None] - start, vectors[mine]], dim=1
        ).numpy()
        i, j, d = ase_neighbor_list("ijD", system.to_atoms(), cutoff)
        expected = np.column_stack([i, j, d])
        assert found.shape == expected.shape
        for rows in (found, expected):
            rows[:] = rows[np.lexsort(np.round(rows, 6).T[::-1] + 0.0)]
        np.testing.assert_allclose(found, expected, atol=1e-9)
        start += len(system)


def test_hopelessly_flat_cells_are_refused():
    flat = AtomicSystem(np.array([6]), np.zeros((1, 3)), np.diag([1e-3, 1e-3, 1e-2]))
    with pytest.raises(ValueError, match=r"system 1 of the batch needs .*reduce the cell"):
        neighbor_list(AtomicBatch.collate([make_crystal(2, 0), flat]), 5.0)
