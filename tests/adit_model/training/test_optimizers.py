"""Muon and AdamW."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from adit_model.config import AutoencoderConfig, DenoiserConfig
from adit_model.network.autoencoder import Autoencoder
from adit_model.network.denoiser import Denoiser
from adit_model.training.optimizers import (
    MuonAdamW,
    _fast_dtype,
    build_optimizer,
    is_block_matrix,
    orthogonalise,
)


class Small(nn.Module):
    """One fused matrix of three, one tall matrix, and what AdamW gets."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Linear(3, 6)
        block = nn.ModuleDict({"qkv": nn.Linear(6, 18), "up": nn.Linear(6, 24, bias=False)})
        self.blocks = nn.ModuleList([block])
        self.output = nn.Linear(24, 2)

    def forward(self, x):
        h = self.input(x)
        q, k, v = self.blocks[0]["qkv"](h).chunk(3, dim=-1)
        return self.output(torch.tanh(self.blocks[0]["up"](h + q * k + v)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Small()


def fill_gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(5, 16, 16), (3, 24, 6), (2, 6, 24), (1, 1, 5)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_come_near_one_and_vectors_stay(shape, scale):
    matrices = scale * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    result = orthogonalise(matrices)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    found = left.mT @ result @ right.mT  # (B, R, R)
    spectrum = found.diagonal(dim1=1, dim2=2)
    # The quintic maps singular values above 0.01 of the norm to 0.7..1.2 (Jordan et al. 2024);
    # a square Gaussian matrix can have smaller ones, which grow less.
    large = values > 0.01 * matrices.norm(dim=(1, 2))[:, None]
    assert large.float().mean() > 0.9
    assert ((spectrum > 0.65) & (spectrum < 1.25))[large].all()
    rest = found - torch.diag_embed(spectrum)
    exact = _fast_dtype(matrices.device) == torch.float32
    assert rest.abs().max() < (1e-4 if exact else 4 * torch.finfo(torch.bfloat16).eps)


def test_muon_step_is_momentum_orthogonalised_and_scaled(network):
    optimizer = MuonAdamW(network, lr=0.1, weight_decay=0.5, momentum=0.9)
    weights = {name: p.detach().clone() for name, p in network.named_parameters()}
    momentum = {name: torch.zeros_like(p) for name, p in weights.items()}
    for seed in range(3):
        fill_gradients(network, seed)
        optimizer.step()
        for name in ("blocks.0.qkv.weight", "blocks.0.up.weight"):
            gradient = network.get_parameter(name).grad
            momentum[name] = 0.9 * momentum[name] + 0.1 * gradient
            update = 0.1 * gradient + 0.9 * momentum[name]  # Nesterov
            parts = update.chunk(3) if "qkv" in name else [update]
            step = torch.cat([orthogonalise(p[None])[0] * 0.2 * max(p.shape) ** 0.5 for p in parts])
            weights[name] = (1 - 0.1 * 0.5) * weights[name] - 0.1 * step
            torch.testing.assert_close(network.get_parameter(name).detach(), weights[name])


def test_muon_step_has_the_size_of_an_adam_step(network):
    before = network.blocks[0]["up"].weight.detach().clone()
    fill_gradients(network, 0)
    MuonAdamW(network, lr=0.01).step()
    size = (network.blocks[0]["up"].weight.detach() - before).square().mean().sqrt()
    assert 0.7 * 0.2 < size / 0.01 < 1.2 * 0.2  # a matrix of rank R has R singular values near 1


def test_other_weights_take_the_steps_of_torch_adamw(network):
    others = [p for n, p in network.named_parameters() if not is_block_matrix(n, p)]
    assert len(others) == 5
    clones = [p.detach().clone().requires_grad_() for p in others]
    reference = torch.optim.AdamW(clones, lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    optimizer = MuonAdamW(network, lr=0.01, weight_decay=0.1)
    for seed in range(5):
        fill_gradients(network, seed)
        for clone, parameter in zip(clones, others, strict=True):
            clone.grad = parameter.grad
        optimizer.step()
        reference.step()
        for clone, parameter in zip(clones, others, strict=True):
            torch.testing.assert_close(parameter, clone, atol=1e-6, rtol=1e-5)


def test_weights_without_gradient_stay(network):
    optimizer = MuonAdamW(network, lr=0.1, weight_decay=0.1)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    network.input.weight.grad = torch.ones_like(network.input.weight)
    optimizer.step()
    changed = [n for n, p in network.named_parameters() if not torch.equal(p, before[n])]
    assert changed == ["input.weight"]


def test_closure_and_saved_state(network):
    inputs = torch.randn(16, 3, generator=torch.Generator().manual_seed(3))
    target = inputs[:, :2].sin()
    optimizer = MuonAdamW(network, lr=0.01)

    def closure():
        optimizer.zero_grad()
        loss = (network(inputs) - target).square().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]
    weights = {k: v.clone() for k, v in network.state_dict().items()}
    state = copy.deepcopy(optimizer.state_dict())
    expected = [optimizer.step(closure).item() for _ in range(3)]
    network.load_state_dict(weights)
    optimizer = MuonAdamW(network, lr=0.5)
    optimizer.load_state_dict(state)
    assert [optimizer.step(closure).item() for _ in range(3)] == expected


def test_matrices_of_the_blocks_go_to_muon_and_no_others():
    size = {"dim": 16, "num_heads": 2}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    options = {"canonical": True, "identity_start": True, "geometry": True}
    per_block = ("attention.qkv", "attention.out", "mlp.0", "mlp.2")
    for network, places in (
        (Autoencoder(AutoencoderConfig(**size, **layers, **options)), ("encoder.", "decoder.")),
        (Denoiser(DenoiserConfig(**size, num_layers=1, geometry=True, size_condition=True)), ("",)),
    ):
        found = {n for n, p in network.named_parameters() if is_block_matrix(n, p)}
        assert found == {f"{place}blocks.0.{m}.weight" for place in places for m in per_block}
        groups = build_optimizer("muon", network, 1e-3, 0.0).param_groups
        assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))
        assert [g["rule"] for g in groups] == ["muon", "adamw"]


def test_adamw_is_torch_adamw(network):
    optimizer = build_optimizer("adamw", network, 3e-4, 0.02)
    assert isinstance(optimizer, torch.optim.AdamW)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (3e-4, 0.02, (0.9, 0.99))
    assert len(group["params"]) == len(list(network.parameters()))


def test_learning_rate_zero_changes_nothing(network):
    before = [p.detach().numpy().copy() for p in network.parameters()]
    fill_gradients(network, 0)
    MuonAdamW(network, lr=0.0, weight_decay=1.0).step()
    for old, new in zip(before, network.parameters(), strict=True):
        np.testing.assert_array_equal(old, new.detach().numpy())
