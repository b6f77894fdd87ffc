"""Sizes of the paper, what a new network says, and independence of batch mates."""

from __future__ import annotations

import pytest
import torch

from adit_model.batch import Packing
from adit_model.config import DenoiserConfig, named_size
from adit_model.network.autoencoder import Autoencoder
from adit_model.network.denoiser import Denoiser
from adit_model.network.exact import build_autoencoder
from adit_model.network.groups import DomainGroups


def number_of_parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("size", "millions"), [("small", 32.6), ("base", 129.7), ("large", 457.0)])
def test_sizes_of_the_paper(size, millions):
    """Joshi et al. 2025, section 4: DiT-S, DiT-B, DiT-L."""
    with torch.device("meta"):
        denoiser = Denoiser(named_size(size).denoiser)
    assert number_of_parameters(denoiser) / 1e6 == pytest.approx(millions, rel=0.01)


def test_autoencoder_of_the_paper():
    with torch.device("meta"):
        autoencoder = Autoencoder(named_size("base").autoencoder)
    assert number_of_parameters(autoencoder) / 1e6 == pytest.approx(51.1, rel=0.02)


def test_mini_is_small():
    config = named_size("mini")
    with torch.device("meta"):
        total = number_of_parameters(Denoiser(config.denoiser, cells=True))
        total += number_of_parameters(build_autoencoder(config.autoencoder))
    assert 3e6 < total < 10e6


def make_denoiser(**options) -> Denoiser:
    options = {"dim": 16, "num_layers": 2, "num_heads": 2, **options}
    return Denoiser(DenoiserConfig(**options)).double()


def make_batch(sizes: list[int], periodic: list[bool], seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = [torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in sizes]
    return x, DomainGroups(Packing(torch.tensor(sizes)), torch.tensor(periodic))


def predict(denoiser, x, groups, t=0.4, memory=None):
    time = torch.full((len(x),), t, dtype=torch.float64)
    return denoiser(torch.cat(x), time, groups, self_condition=memory)


def test_a_new_network_predicts_zero():
    x, groups = make_batch([3, 4], [True, False])
    assert (predict(make_denoiser(), x, groups) == 0).all()


@pytest.mark.parametrize("t", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_new_preconditioned_network_predicts_the_mean_of_gaussians(t, scale):
    """E[x_1 | x_t] = t s^2 x_t / (t^2 s^2 + (1 - t)^2) for x_0, x_1 of deviation 1, s."""
    x, groups = make_batch([3, 4], [True, False])
    denoiser = make_denoiser(precondition=True, geometry=True, feature_scale=scale)
    out = predict(denoiser, x, groups, t)
    spread = torch.ones(7, 8, dtype=torch.float64)
    spread[3:, 3:] = scale  # the molecule's channels past its coordinates
    expected = t * spread**2 / ((t * spread) ** 2 + (1 - t) ** 2) * torch.cat(x)
    torch.testing.assert_close(out, expected)


def test_normalised_features_have_their_scale():
    denoiser = make_denoiser(feature_scale=0.2)
    denoiser.latent_mean.copy_(torch.arange(16.0).view(2, 8))
    denoiser.latent_std.copy_(1 + torch.arange(16.0).view(2, 8))
    periodic = torch.arange(4000) % 2 == 0
    unit = torch.randn(4000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kind = periodic.long()
    latents = unit * denoiser.latent_std[kind] + denoiser.latent_mean[kind]
    x = denoiser.normalise(latents, periodic)
    torch.testing.assert_close(x[periodic], unit[periodic])
    torch.testing.assert_close(x[~periodic][:, :3], unit[~periodic][:, :3])
    torch.testing.assert_close(x[~periodic][:, 3:], 0.2 * unit[~periodic][:, 3:])
    torch.testing.assert_close(denoiser.denormalise(x, periodic), latents)


@pytest.mark.parametrize("geometry", [False, True])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 1, 2], [4, 3, 2, 1, 0]])
def test_a_system_does_not_see_its_batch_mates(geometry, order):
    torch.manual_seed(0)
    denoiser = make_denoiser(geometry=geometry, precondition=True, feature_scale=0.5)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    sizes, kinds = [2, 7, 4, 1, 9], [True, True, False, False, False]
    x, _ = make_batch(sizes, kinds)
    memory = [torch.randn_like(rows) for rows in x]
    packing = Packing(torch.tensor([sizes[i] for i in order]))
    groups = DomainGroups(packing, torch.tensor([kinds[i] for i in order]))
    together = predict(
        denoiser, [x[i] for i in order], groups, memory=torch.cat([memory[i] for i in order])
    ).split([sizes[i] for i in order])
    for place, i in enumerate(order):
        single = DomainGroups(Packing(torch.tensor([sizes[i]])), torch.tensor([kinds[i]]))
        alone = predict(denoiser, [x[i]], single, memory=memory[i])
        torch.testing.assert_close(together[place], alone, rtol=0, atol=1e-10)


def test_lattice_translations_change_nothing():
    """Self-conditioning coordinates of a crystal count modulo 1."""
    torch.manual_seed(0)
    denoiser = make_denoiser(geometry=True)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, groups = make_batch([5], [True])
    coordinates = denoiser._real_coordinates(x[0][:, :3], groups.kinds)
    shift = torch.randint(-2, 3, (5, 3)).double()
    before, after = (
        encoder_pairs.features
        for encoder_pairs in (
            denoiser.pair_encoders[0](coordinates, groups)[0],
            denoiser.pair_encoders[0](coordinates + shift, groups)[0],
        )
    )
    torch.testing.assert_close(before, after)
