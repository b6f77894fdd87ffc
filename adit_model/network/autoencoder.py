"""Stage 1: atoms to latents and back (Joshi et al. 2025, section 3.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adit_model.batch import AtomicBatch
from adit_model.config import AutoencoderConfig
from adit_model.network.encoders import build_encoder
from adit_model.network.encoders.transformer import latent_coordinates
from adit_model.network.groups import DomainGroups
from adit_model.network.layers import Block, sinusoidal_embedding
from adit_model.network.pairs import PairEncoder


@dataclass
class Decoded:
    """What the decoder says of a packed batch.

    Parameters
    ----------
    element_logits : torch.Tensor
        Shape (A, num_elements).
    frac_coords : torch.Tensor
        Fractional coordinates, meaningful for crystals, shape (A, 3).
    positions : torch.Tensor
        Centred Cartesian coordinates in angstrom, meaningful for molecules, shape (A, 3).
    scaled_lengths : torch.Tensor
        Lattice lengths in angstrom divided by N^(1/3), shape (S, 3).
    angles : torch.Tensor
        Lattice angles in radians, shape (S, 3).
    """

    element_logits: Tensor
    frac_coords: Tensor
    positions: Tensor
    scaled_lengths: Tensor
    angles: Tensor


class Decoder(nn.Module):
    """Transformer with heads for elements, both kinds of coordinates, and the lattice."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.latent = nn.Linear(config.latent_dim, dim)
        self.domain = nn.Embedding(2, dim)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.geometry) for _ in range(config.num_decoder_layers)
        )
        self.pair_encoder = PairEncoder() if config.geometry else None
        self.norm = nn.LayerNorm(dim)
        self.element_head = nn.Linear(dim, config.num_elements)
        self.frac_head = nn.Linear(dim, 3)
        self.position_head = nn.Linear(dim, 3)
        self.lattice_head = nn.Linear(dim, 6)
        nn.init.normal_(self.domain.weight, std=0.02)
        if config.identity_start:
            for head in (self.frac_head, self.position_head):
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
        with torch.no_grad():
            self.lattice_head.bias.copy_(torch.tensor([3.0] * 3 + [math.pi / 2] * 3))

    def forward(self, latents: Tensor, groups: DomainGroups) -> Decoded:
        """Decode latents (A, latent_dim)."""
        packing = groups.packing
        atom_periodic = groups.periodic[packing.index]
        x = self.latent(latents) + self.domain(groups.periodic.long())[packing.index]
        x = x + sinusoidal_embedding(packing.rank, x.shape[-1]).to(x.dtype)
        pairs, start = None, latents.new_zeros(1, 3)
        if self.config.identity_start:
            start = latent_coordinates(latents, atom_periodic, self.config.coordinate_scale)
        if self.pair_encoder is not None:
            pairs = self.pair_encoder(start, groups)
        for block in self.blocks:
            x = block(x, groups, pairs)
        x = self.norm(x)
        positions = self.position_head(x) + start
        lattice = self.lattice_head(packing.mean(x))  # (S, 6)
        return Decoded(
            element_logits=self.element_head(x),
            frac_coords=self.frac_head(x) + start,
            positions=positions - packing.mean(positions)[packing.index],
            scaled_lengths=lattice[:, :3],
            angles=lattice[:, 3:],
        )


class Autoencoder(nn.Module):
    """Encoder, Gaussian bottleneck, decoder.

    Parameters
    ----------
    config : AutoencoderConfig
        Sizes, data treatment and loss weights.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config)
        self.decoder = Decoder(config)

    def encode(self, batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, each of shape (A, latent_dim)."""
        return self.encoder(batch, DomainGroups(batch.packing, batch.periodic))

    def decode(self, latents: Tensor, groups: DomainGroups) -> Decoded:
        """Decode latents (A, latent_dim) of a packed batch."""
        return self.decoder(latents, groups)

    def loss(
        self,
        batch: AtomicBatch,
        generator: torch.Generator | None = None,
        frozen_encoder: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss and its terms.

        Cross-entropy of the elements + weighted squared errors of the coordinates (fractional,
        on the torus, for crystals; centred Cartesian in angstrom for molecules), lattice lengths
        divided by N^(1/3) and lattice angles in radians + weighted Kullback-Leibler divergence.

        Parameters
        ----------
        batch : AtomicBatch
            Clean systems.
        generator : torch.Generator
            Of the corruption and the latent noise, on the CPU.
        frozen_encoder : bool
            Train the decoder alone: from the mean latents of the clean systems, which are what
            the denoiser learns to make, plus ``latent_noise``.
        """
        config = self.config
        groups = DomainGroups(batch.packing, batch.periodic)
        terms: dict[str, Tensor] = {}
        if frozen_encoder:
            with torch.no_grad():
                latents, _ = self.encoder(batch, groups)
        else:
            mean, log_variance = self.encoder(corrupt(batch, config, generator), groups)
            noise = torch.randn(mean.shape, generator=generator).to(mean)
            latents = mean + noise * (0.5 * log_variance).exp()
            divergence = mean.square() + log_variance.exp() - 1 - log_variance
            terms["kl"] = 0.5 * divergence.sum(-1).mean()
        if config.latent_noise > 0:
            level = torch.rand(len(batch), 1, generator=generator) * 2 - 1  # half get none
            extra = config.latent_noise * level.clamp(min=0)[batch.packing.index.cpu()]
            latents = latents + (extra * torch.randn(latents.shape, generator=generator)).to(
                latents
            )
        terms |= reconstruction_terms(self.decoder(latents, groups), batch)
        share = batch.atom_periodic.float().mean()
        total = (
            terms["elements"]
            + config.coordinate_weight
            * (share * terms["fractional"] + (1 - share) * terms["cartesian"])
            + config.length_weight * terms["lengths"]
            + config.angle_weight * terms["angles"]
        )
        if "kl" in terms:
            total = total + config.kl_weight * terms["kl"]
        return total, terms


def reconstruction_terms(out: Decoded, batch: AtomicBatch) -> dict[str, Tensor]:
    """Unweighted losses of what was decoded against the systems it should be."""
    periodic, atom_periodic = batch.periodic, batch.atom_periodic
    frac_error = out.frac_coords - batch.frac_coords
    frac_error = frac_error - frac_error.round()
    centred = batch.positions - batch.packing.mean(batch.positions)[batch.packing.index]
    lengths, angles = batch.cell_parameters
    lengths = lengths / batch.sizes[:, None] ** (1 / 3)
    return {
        "elements": F.cross_entropy(out.element_logits, batch.numbers),
        "fractional": _mean_square(frac_error[atom_periodic]),
        "cartesian": _mean_square((out.positions - centred)[~atom_periodic]),
        "lengths": _mean_square((out.scaled_lengths - lengths)[periodic]),
        "angles": _mean_square((out.angles - angles)[periodic]),
    }


def corrupt(
    batch: AtomicBatch, config: AutoencoderConfig, generator: torch.Generator | None
) -> AtomicBatch:
    """Mask elements and shake positions, as ``mask_fraction`` and ``noise_*`` say."""
    n = batch.num_atoms
    device = batch.device
    masked = torch.rand(n, generator=generator).to(device) < config.mask_fraction
    shaken = torch.rand(n, 1, generator=generator).to(device) < config.noise_fraction
    noise = config.noise_angstrom * torch.randn(n, 3, generator=generator).to(batch.positions)
    return replace(
        batch,
        numbers=batch.numbers.masked_fill(masked, 0),
        positions=batch.positions + noise * shaken,
    )


def _mean_square(error: Tensor) -> Tensor:
    return error.square().mean() if error.numel() else error.sum()
