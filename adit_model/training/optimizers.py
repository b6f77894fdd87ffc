"""Muon for the matrices of the transformer blocks, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024, "Muon", quintic iteration


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of matrices near 1 by Newton-Schulz iteration.

    Parameters
    ----------
    matrices : torch.Tensor
        Shape (B, M, N).
    steps : int
        Iterations.

    Returns
    -------
    torch.Tensor
        Shape (B, M, N), same singular vectors.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.transpose(1, 2) if tall else matrices).to(_fast_dtype(matrices.device))
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


def _fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it: elsewhere it is many times slower."""
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    if device.type == "cuda" or native():
        return torch.bfloat16
    return torch.float32


class MuonAdamW(Optimizer):
    """One optimiser with two rules.

    Own code, since torch.optim.Muon takes a fused query-key-value matrix for one, does one matrix
    at a time and computes in bfloat16 also where the processor does not.

    Group ``muon``: momentum, orthogonalised (in float32, which is the faster choice on a CPU)
    and scaled to the root mean square of an AdamW step, 0.2 sqrt(max(M, N)) (Liu et al. 2025,
    arXiv 2502.16982, section 2.2). The others: AdamW.

    Parameters
    ----------
    network : torch.nn.Module
        Weights of shape (M, N) below a module list ``blocks`` go to Muon, the modulation layers
        excepted; a fused query-key-value matrix counts as three.
    lr : float
        Learning rate of both rules.
    weight_decay : float
        Decoupled, both rules.
    momentum : float
        Of Muon, with Nesterov's correction.
    betas : tuple of float
        Of AdamW.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in network.named_parameters():
            (matrices if is_block_matrix(name, parameter) else others).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "rule": "muon", "momentum": momentum},
            {"params": others, "rule": "adamw", "betas": betas},
        ]
        defaults = {"lr": lr, "weight_decay": weight_decay}
        super().__init__([g for g in groups if g["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
            if group["rule"] == "muon":
                self._muon(parameters, group)
            else:
                self._adamw(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta = group["momentum"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = [self._buffer(p, "momentum") for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1.0 - beta)
        updates = torch._foreach_lerp(gradients, buffers, beta)
        stacks: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, update in zip(parameters, updates, strict=True):
            parts = 3 if parameter.shape[0] == 3 * parameter.shape[1] else 1
            for target, part in zip(parameter.chunk(parts), update.chunk(parts), strict=True):
                stacks[tuple(part.shape)].append((target, part))
        for (rows, columns), pairs in stacks.items():
            directions = orthogonalise(torch.stack([part for _, part in pairs]))
            scale = 0.2 * max(rows, columns) ** 0.5
            targets = [target for target, _ in pairs]
            torch._foreach_add_(targets, list(directions), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        group["step"] = group.get("step", 0) + 1
        gradients = [p.grad for p in parameters if p.grad is not None]
        first = [self._buffer(p, "first") for p in parameters]
        second = [self._buffer(p, "second") for p in parameters]
        torch._foreach_lerp_(first, gradients, 1.0 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1.0 - beta2)
        denominator = torch._foreach_sqrt(second)
        torch._foreach_div_(denominator, (1.0 - beta2 ** group["step"]) ** 0.5)
        torch._foreach_add_(denominator, 1e-8)
        size = -group["lr"] / (1.0 - beta1 ** group["step"])
        torch._foreach_addcdiv_(parameters, first, denominator, size)

    def _buffer(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]


def is_block_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates this weight: a matrix of a block, but no conditioning or pair layer."""
    parts = name.split(".")
    excluded = ("modulation", "pair_modulation", "pair_bias", "pair_encoder")
    return parameter.ndim == 2 and "blocks" in parts and not any(e in parts for e in excluded)


def build_optimizer(name: str, network: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """Build the optimiser a config names: ``"adamw"`` or ``"muon"``."""
    if name == "muon":
        return MuonAdamW(network, lr, weight_decay)
    parameters: Iterable[Tensor] = network.parameters()
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99))
