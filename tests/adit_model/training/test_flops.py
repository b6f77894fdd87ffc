"""The count of model FLOPs against one by hand."""

from __future__ import annotations

from adit_model.config import AutoencoderConfig, DenoiserConfig
from adit_model.network.autoencoder import Autoencoder
from adit_model.network.denoiser import Denoiser
from adit_model.training.flops import training_flops

D, L, Z = 16, 8, 100  # width, latent channels, elements
BLOCK = 3 * D * D + D * D + 2 * 4 * D * D  # qkv, out, both layers of the MLP


def test_autoencoder():
    config = AutoencoderConfig(dim=D, num_heads=2, num_encoder_layers=1, num_decoder_layers=2)
    network = Autoencoder(config)
    encoder = (3 * D + D * D) + (6 * D + D * D) + BLOCK + D * 2 * L
    decoder = L * D + 2 * BLOCK + D * Z + 3 * D + 3 * D
    cell, lattice = 6 * D + D * D, D * 6
    atoms, systems = 50, 7
    expected = 6 * (atoms * (encoder + decoder) + systems * (cell + lattice))
    assert training_flops(network, atoms, systems) == expected
    network.encoder.requires_grad_(False)  # forward alone
    expected = atoms * (2 * encoder + 6 * decoder) + systems * (2 * cell + 6 * lattice)
    assert training_flops(network, atoms, systems) == expected


def test_denoiser():
    config = DenoiserConfig(
        dim=D, num_heads=2, num_layers=3, size_condition=True, self_condition=0.5
    )
    atom_weights = 2 * L * D + 3 * BLOCK + D * L
    condition = 256 * D + D * D  # of the time, and of the size
    modulation = 3 * 6 * D * D + 2 * D * D
    atoms, systems = 50, 7
    once = atoms * atom_weights + systems * (2 * condition + modulation)
    assert training_flops(Denoiser(config), atoms, systems) == (6 + 2 * 0.5) * once


def test_pair_terms_are_left_out():
    """Geometry adds 3 H inputs to each output layer of attention and the coordinate updates."""
    plain = DenoiserConfig(dim=D, num_heads=2, num_layers=2, self_condition=0)
    geometry = DenoiserConfig(dim=D, num_heads=2, num_layers=2, self_condition=0, geometry=True)
    more = training_flops(Denoiser(geometry), 1, 1) - training_flops(Denoiser(plain), 1, 1)
    assert more == 6 * (2 * 3 * 2 * D + 3 * D)
