"""The default encoder: a transformer over atom tokens (Joshi et al. 2025, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adit_model.batch import AtomicBatch
from adit_model.config import AutoencoderConfig
from adit_model.network.groups import DomainGroups
from adit_model.network.layers import MLP, Block, sinusoidal_embedding

POSITION_SCALE = 0.3  # brings coordinates in angstrom to about unit scale


class TransformerEncoder(nn.Module):
    """Encode atoms to the mean and log-variance of their latents.

    A token is the sum of embeddings of the element, the Cartesian and the fractional
    coordinates, the index of the atom and, with ``cell_input``, the lattice parameters.

    Parameters
    ----------
    config : AutoencoderConfig
        Width, depth and data treatment.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.element = nn.Embedding(config.num_elements, dim)
        self.position = MLP(3, dim, dim, silu=True)
        self.fractional = MLP(6, dim, dim, silu=True)
        self.cell = MLP(6, dim, dim, silu=True) if config.cell_input else None
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads) for _ in range(config.num_encoder_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 2 * config.latent_dim)
        nn.init.normal_(self.element.weight, std=1.0)
        nn.init.constant_(self.head.bias[config.latent_dim :], config.log_variance_start)

    def forward(self, batch: AtomicBatch, groups: DomainGroups) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each of shape (A, latent_dim)."""
        periodic = batch.atom_periodic[:, None]  # (A, 1)
        frac = batch.frac_coords
        waves = torch.cat([(2 * torch.pi * frac).sin(), frac - 0.5], dim=-1)  # (A, 6)
        x = self.element(batch.numbers) + self.position(POSITION_SCALE * batch.positions)
        x = x + self.fractional(waves) * periodic
        if self.cell is not None:
            lattice = self.cell(cell_features(batch)) * batch.periodic[:, None]  # (S, D)
            x = x + lattice[groups.packing.index]
        x = x + sinusoidal_embedding(groups.packing.rank, x.shape[-1]).to(x.dtype)
        for block in self.blocks:
            x = block(x, groups)
        mean, log_variance = self.head(self.norm(x)).chunk(2, dim=-1)  # (A, L) each
        if self.config.identity_start:
            anchor = coordinate_anchor(batch, self.config.coordinate_scale)
            mean = torch.cat([anchor, mean[:, 3:]], dim=-1)
        return mean, log_variance.clamp(-20.0, 10.0)


def cell_features(batch: AtomicBatch) -> Tensor:
    """Logarithms of the lengths (angstrom) and cosines of the angles, shape (S, 6)."""
    lengths, angles = batch.cell_parameters
    return torch.cat([lengths.log(), angles.cos()], dim=-1)


def coordinate_anchor(batch: AtomicBatch, scale: float) -> Tensor:
    """Coordinates in latent units: scaled Cartesian (molecules), 2 (frac - 1/2) (crystals).

    Returns
    -------
    torch.Tensor
        Shape (A, 3).
    """
    return torch.where(
        batch.atom_periodic[:, None], 2.0 * (batch.frac_coords - 0.5), scale * batch.positions
    )


def latent_coordinates(latents: Tensor, atom_periodic: Tensor, scale: float) -> Tensor:
    """Invert :func:`coordinate_anchor`: fractional or Cartesian (angstrom), shape (A, 3)."""
    z = latents[:, :3]
    return torch.where(atom_periodic[:, None], 0.5 * z + 0.5, z / scale)
