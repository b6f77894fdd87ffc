"""Fully sharded data parallel: each process keeps a part of every weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adit_model.network.denoiser import Denoiser
from adit_model.network.layers import Block, DiTBlock


def shard(network: nn.Module, mesh: Any) -> None:
    """Divide the weights of both stages among processes, block by block (PyTorch's FSDP2).

    A block's weights are whole while it computes, and only then, so that a process holds its share
    of weights, gradients and moments, and one block.

    Parameters
    ----------
    network : torch.nn.Module
        Denoiser or autoencoder, with the same weights in all processes; changed in place.
    mesh : torch.distributed.device_mesh.DeviceMesh
        Of one dimension.
    """
    from torch.distributed.fsdp import fully_shard  # not in every build of torch

    # The autoencoder is not called as a whole, its two parts are.
    roots = [network] if isinstance(network, Denoiser) else list(network.children())
    for root in roots:
        for module in root.modules():
            if isinstance(module, Block | DiTBlock):
                fully_shard(module, mesh=mesh, reshard_after_forward=True)
        # Also of the root: whole weights that stayed would not see those loaded for validation.
        fully_shard(root, mesh=mesh, reshard_after_forward=True)


def is_sharded(tensor: Any) -> bool:
    """Whether other processes keep parts of a tensor."""
    return hasattr(tensor, "to_local")


def local(tensor: Any) -> Tensor:
    """Part of a tensor that this process keeps, which is all of it if it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """All of a tensor. If it is sharded all processes must ask for it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def sharded_like(tensor: Any, other: Any) -> Tensor:
    """Divide a tensor, the same in all processes, as another one is, on the other's device."""
    if not is_sharded(other) or is_sharded(tensor):
        return tensor.to(other.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether what this process keeps of tensors is finite."""
    return all(bool(torch.isfinite(local(tensor)).all()) for tensor in tensors)
