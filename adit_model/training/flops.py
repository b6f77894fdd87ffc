"""Model FLOPs of a training step, for throughput."""

from __future__ import annotations

from torch import nn

from adit_model.network.denoiser import Denoiser

SYSTEM_LAYERS = (
    *("modulation", "time", "domain", "size", "cell", "lattice_head", "told"),
    *("cell_input", "cell_output", "cell_updates", "cell_waves"),  # of crystals
)


def training_flops(network: nn.Module, num_atoms: int, num_systems: int) -> float:
    """Floating-point operations of one forward and backward pass.

    Counts 6 operations for each weight of a linear layer and each row it acts on (Kaplan et al.
    2020, section 2.1), 2 for a frozen one, which has no backward pass; attention scores, norms
    and pair terms are left out. Self-conditioned steps of the denoiser add a forward pass (2
    operations a weight).

    Parameters
    ----------
    network : torch.nn.Module
        Autoencoder or denoiser.
    num_atoms, num_systems : int
        Rows of layers that act on atoms, and of those that act on whole systems.
    """
    atoms = systems = 0.0
    extra = 2.0 * network.config.self_condition if isinstance(network, Denoiser) else 0.0
    for name, module in network.named_modules():
        if not isinstance(module, nn.Linear) or "pair" in name:
            continue
        operations = (extra + (6.0 if module.weight.requires_grad else 2.0)) * module.weight.numel()
        if any(part in SYSTEM_LAYERS for part in name.split(".")) or name.endswith("modulation"):
            systems += operations
        else:
            atoms += operations
    return atoms * num_atoms + systems * num_systems
