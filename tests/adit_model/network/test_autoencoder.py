"""Stage 1: a perfect copy of coordinates at the start, losses by hand, independent systems."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from adit_model.batch import AtomicBatch
from adit_model.config import AutoencoderConfig
from adit_model.network.autoencoder import Autoencoder, Decoded, corrupt, reconstruction_terms
from adit_model.network.groups import DomainGroups
from adit_model.systems import AtomicSystem

TINY = {"dim": 16, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 2}
IDENTITY = {**TINY, "identity_start": True, "geometry": True, "canonical": True}
CLEAN = {"mask_fraction": 0.0, "noise_fraction": 0.0}


def make_systems() -> list[AtomicSystem]:
    crystals = [bulk("NaCl", "rocksalt", a=5.6), bulk("ZnS", "wurtzite", a=3.8)]
    molecules = [molecule("CH3CH2OH"), molecule("H2O"), molecule("C6H6")]
    systems = [AtomicSystem.from_atoms(atoms) for atoms in (*crystals, *molecules)]
    return [systems[i] for i in (2, 0, 3, 1, 4)]


def make_batch(systems: list[AtomicSystem] | None = None) -> AtomicBatch:
    return AtomicBatch.collate(systems or make_systems(), dtype=torch.float64)


def make_model(noise: float = 0.0, **options) -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Autoencoder(AutoencoderConfig(**options)).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
    return model


def decode(model: Autoencoder, latents: torch.Tensor, batch: AtomicBatch) -> Decoded:
    return model.decode(latents, DomainGroups(batch.packing, batch.periodic))


def test_an_untrained_model_copies_coordinates():
    model, batch = make_model(**IDENTITY), make_batch()
    mean, log_variance = model.encode(batch)
    periodic = batch.atom_periodic
    torch.testing.assert_close(mean[periodic, :3], 2 * batch.frac_coords[periodic] - 1)
    torch.testing.assert_close(mean[~periodic, :3], 0.3 * batch.positions[~periodic])
    out = decode(model, mean, batch)
    torch.testing.assert_close(out.frac_coords[periodic], batch.frac_coords[periodic])
    centred = batch.positions - batch.packing.mean(batch.positions)[batch.packing.index]
    torch.testing.assert_close(out.positions[~periodic], centred[~periodic])
    assert mean.shape == log_variance.shape == (batch.num_atoms, 8)
    terms = reconstruction_terms(out, batch)
    assert terms["fractional"] < 1e-20
    assert terms["cartesian"] < 1e-20


@pytest.mark.parametrize("options", [TINY, IDENTITY, {**TINY, "encoder": "equivariant"}])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 1, 0, 3, 2], [1, 3, 4, 2, 0]])
def test_a_system_does_not_see_its_batch_mates(options, order):
    model, systems = make_model(0.1, **options), make_systems()
    batch = make_batch([systems[i] for i in order])
    mean, log_variance = model.encode(batch)
    out = decode(model, mean, batch)
    split = {
        name: getattr(out, name).split(batch.sizes.tolist())
        for name in ("element_logits", "frac_coords", "positions")
    }
    for place, i in enumerate(order):
        alone = make_batch([systems[i]])
        atoms = batch.packing.index == place
        one_mean, one_log_variance = model.encode(alone)
        torch.testing.assert_close(mean[atoms], one_mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(log_variance[atoms], one_log_variance, rtol=0, atol=1e-10)
        one = decode(model, one_mean, alone)
        for name, parts in split.items():
            torch.testing.assert_close(parts[place], getattr(one, name), rtol=0, atol=1e-9)
        torch.testing.assert_close(out.scaled_lengths[place], one.scaled_lengths[0])
        torch.testing.assert_close(out.angles[place], one.angles[0])


def test_decoded_molecules_are_centred():
    model, batch = make_model(0.1, **TINY), make_batch()
    out = decode(model, torch.randn(batch.num_atoms, 8, dtype=torch.float64), batch)
    assert batch.packing.mean(out.positions).abs().max() < 1e-12


def test_reconstruction_terms_by_hand():
    crystal = AtomicSystem(np.array([11, 17]), [[0, 0, 0], [2, 2, 2]], np.diag([4.0, 4, 4]))
    lithium = AtomicSystem(np.array([3, 1]), [[0, 0, 1.0], [0, 0, 3.0]])
    batch = make_batch([crystal, lithium])
    shift = torch.tensor([[0.1, 0, 0]], dtype=torch.float64)
    out = Decoded(
        element_logits=torch.zeros(4, 100, dtype=torch.float64),
        frac_coords=batch.frac_coords + shift - torch.tensor([[2, -1, 3]]),  # any image will do
        positions=torch.tensor([[0, 0, -1.0], [0, 0, 1.0]]).repeat(2, 1).double() + 0.2,
        scaled_lengths=torch.full((2, 3), 4 / 2 ** (1 / 3) + 0.3, dtype=torch.float64),
        angles=torch.full((2, 3), math.pi / 2 - 0.05, dtype=torch.float64),
    )
    terms = {name: float(value) for name, value in reconstruction_terms(out, batch).items()}
    assert terms == pytest.approx(
        {
            "elements": math.log(100),
            "fractional": 0.1**2 / 3,
            "cartesian": 0.2**2,
            "lengths": 0.3**2,
            "angles": 0.05**2,
        }
    )


def test_total_loss_by_hand():
    model = make_model(
        0.1, **TINY, **CLEAN, kl_weight=0.7, coordinate_weight=3.0, length_weight=2.0
    )
    batch = make_batch()
    mean, log_variance = model.encode(batch)
    total, terms = model.loss(batch, torch.Generator().manual_seed(0))
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1).mean()
    torch.testing.assert_close(terms["kl"], divergence)
    share = 6 / 30  # atoms in crystals
    expected = (
        terms["elements"]
        + 3.0 * (share * terms["fractional"] + (1 - share) * terms["cartesian"])
        + 2.0 * terms["lengths"]
        + 10.0 * terms["angles"]
        + 0.7 * divergence
    )
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("wanted", [True, False])
def test_one_domain_alone_has_no_loss_of_the_other(wanted):
    model = make_model(0.1, **TINY)
    batch = make_batch([s for s in make_systems() if s.is_periodic == wanted])
    total, terms = model.loss(batch, torch.Generator().manual_seed(0))
    total.backward()
    absent = ["cartesian"] if wanted else ["fractional", "lengths", "angles"]
    assert {name for name, value in terms.items() if value == 0} == set(absent)
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_losses_repeat_with_the_seed():
    model, batch = make_model(0.1, **IDENTITY, latent_noise=0.1), make_batch()
    losses = [model.loss(batch, torch.Generator().manual_seed(s))[0].item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_a_frozen_encoder_gets_no_gradient():
    model, batch = make_model(0.1, **TINY), make_batch()
    total, terms = model.loss(batch, torch.Generator().manual_seed(0), frozen_encoder=True)
    total.backward()
    assert "kl" not in terms
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.decoder.parameters())


def test_corruption_has_the_asked_for_strength():
    n = 20_000
    config = AutoencoderConfig(mask_fraction=0.1, noise_fraction=0.3, noise_angstrom=0.05)
    clean = make_batch([AtomicSystem(np.full(n, 6), np.zeros((n, 3)))])
    spoiled = corrupt(clean, config, torch.Generator().manual_seed(0))
    assert (clean.numbers == 6).all() and (clean.positions == 0).all()
    masked = spoiled.numbers == 0
    assert set(spoiled.numbers.unique().tolist()) == {0, 6}
    assert float(masked.double().mean()) == pytest.approx(0.1, abs=0.01)
    shaken = (spoiled.positions != 0).any(-1)
    assert float(shaken.double().mean()) == pytest.approx(0.3, abs=0.015)
    assert float(spoiled.positions[shaken].std()) == pytest.approx(0.05, rel=0.03)
    both = float((masked & shaken).double().mean())
    assert both == pytest.approx(0.03, abs=0.006)  # independent of each other


@settings(max_examples=10, deadline=None)
@given(st.floats(1.5, 30.0), st.floats(40.0, 140.0), st.integers(1, 6))
def test_the_true_lattice_has_no_loss(length, gamma, n):
    g = math.radians(gamma)
    cell = np.array([[length, 0, 0], [5 * math.cos(g), 5 * math.sin(g), 0], [0, 0, 7.0]])
    rng = np.random.default_rng(n)
    batch = make_batch([AtomicSystem(np.full(n, 14), rng.uniform(size=(n, 3)) @ cell, cell)])
    scaled = torch.tensor([[length, 5.0, 7.0]], dtype=torch.float64) / n ** (1 / 3)
    angles = torch.tensor([[math.pi / 2, math.pi / 2, g]], dtype=torch.float64)
    logits = torch.zeros(n, 100, dtype=torch.float64)
    out = Decoded(logits, batch.frac_coords, batch.positions, scaled, angles)
    terms = reconstruction_terms(out, batch)
    assert max(terms["lengths"], terms["angles"], terms["fractional"]) < 1e-12
