"""The Triton kernels against plain PyTorch: in the interpreter on a CPU, compiled on a GPU."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest
import torch
from torch import Tensor

from adit_model.config import DenoiserConfig
from adit_model.network import fused
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups

pytest.importorskip("triton")
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The kernels; ``conftest.py`` has the interpreter run them where there is no GPU."""
    return importlib.import_module("adit_model.network.triton_attention")


def inputs(
    periodic: bool, scaled: bool, dtype: torch.dtype, sizes: tuple[int, ...], width: int = 8
) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(len(sizes))
    systems, number, heads = len(sizes), max(sizes), 2

    def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE, dtype).requires_grad_()

    qkv = [draw(systems, number, heads, width).permute(2, 0, 1, 3) for _ in range(3)]
    pair = draw(2 * heads, systems, number, number)
    scale = draw(systems, 2 * heads) if scaled else None
    values = draw(systems, number, 6 if periodic else 4, dtype=torch.float32)
    if not periodic:
        values.data[..., 3] = 1.0
    return [*qkv, pair, scale, values]


def gradients(function, tensors: list[Tensor | None], mask: Tensor, periodic: bool):
    *rest, values = tensors
    out = function(*rest, mask, values, periodic).float()
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.device)
    wanted = [x for x in tensors if x is not None]
    found = torch.autograd.grad((out * probe)[mask].sum(), wanted)
    if not periodic:  # of the constant column there is none
        found = (*found[:-1], found[-1][..., :3])
    return [out[mask].detach(), *found]


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("sizes", [(5, 3), (1,), (17, 2, 20)])
def test_values_and_gradients_are_those_of_pytorch(kernels, periodic, scaled, sizes):
    mask = torch.arange(max(sizes), device=DEVICE) < torch.tensor(sizes, device=DEVICE)[:, None]
    tensors = inputs(periodic, scaled, torch.float32, sizes)
    ours = gradients(kernels.attend, tensors, mask, periodic)
    theirs = gradients(fused.attend, tensors, mask, periodic)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("periodic", [True, False])
def test_bfloat16_stays_near_float32(kernels, periodic):
    sizes = (6, 4)
    mask = torch.arange(6, device=DEVICE) < torch.tensor(sizes, device=DEVICE)[:, None]
    tensors = inputs(periodic, True, torch.bfloat16, sizes)
    exact = [None if x is None else x.detach().float().requires_grad_() for x in tensors]
    ours = gradients(kernels.attend, tensors, mask, periodic)
    theirs = gradients(fused.attend, exact, mask, periodic)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.float() - b).norm() < 0.02 * b.norm()


def test_a_denoiser_learns_the_same(kernels):
    """Both domains, the cell's row and padding: the gradient of all weights, and the numbers."""
    options = {"geometry": True, "precondition": True, "conditions": True}
    config = DenoiserConfig(dim=16, num_heads=2, num_layers=3, **options)
    torch.manual_seed(0)
    network = Denoiser(config, cells=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.to(DEVICE)
    sizes, periodic = torch.tensor([4, 3, 6]), torch.tensor([True, False, False])
    groups = DomainGroups.of_atoms(sizes, periodic, cells=True).to(DEVICE)
    x_t = torch.randn(14, 8).to(DEVICE)
    t = torch.tensor([0.3, 0.6, 0.9]).to(DEVICE)

    def step() -> list[Tensor]:
        network.zero_grad()
        out = network(x_t, t, groups)
        out.square().sum().backward()
        return [out.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]

    plain, functions = step(), dict(fused._functions)
    with fused.kernels():
        assert fused._functions != functions
        ours = step()
    assert fused._functions == functions
    for a, b in zip(ours, plain, strict=True):
        assert (a - b).norm() <= 1e-3 * b.norm() + 1e-6


def test_larger_systems_are_left_to_pytorch(kernels):
    sizes = (kernels.LARGEST + 1,)
    mask = torch.ones(1, sizes[0], dtype=torch.bool, device=DEVICE)
    *rest, values = inputs(True, True, torch.float32, sizes)
    with pytest.raises(ValueError, match="up to 64 rows a system, got 65"):
        kernels.attend(*rest, mask, values, True)
    with fused.kernels():
        torch.testing.assert_close(
            fused.attend(*rest, mask, values, True), fused._attend(*rest, mask, values, True)
        )


@pytest.mark.skipif(not GPU, reason="needs a CUDA GPU")
def test_kernels_are_compiled_on_a_gpu(kernels):
    assert os.environ.get("TRITON_INTERPRET") != "1"
    tensors = inputs(True, True, torch.bfloat16, (30, 20, 31), 32)
    mask = torch.arange(31, device=DEVICE) < torch.tensor([30, 20, 31], device=DEVICE)[:, None]
    *rest, values = tensors
    out = kernels.attend(*rest, mask, values, True)
    assert out.is_cuda and out.isfinite().all()
