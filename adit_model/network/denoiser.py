"""Stage 2: the Diffusion Transformer over latents (Joshi et al. 2025, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adit_model.config import DenoiserConfig
from adit_model.network.encoders.transformer import latent_coordinates
from adit_model.network.groups import DomainGroups
from adit_model.network.layers import MLP, DiTBlock, sinusoidal_embedding
from adit_model.network.pairs import PairEncoder

NULL_CLASS, CRYSTAL_CLASS, MOLECULE_CLASS = 0, 1, 2
FREQUENCY_DIM = 256
NUM_ELEMENTS = 119  # atomic numbers, and 0 for none


class Denoiser(nn.Module):
    """Predict the clean latents x_1 from noisy ones x_t.

    Latents go in and out normalised: in each domain zero mean, and unit variance but for
    ``feature_scale`` of the config. With ``geometry`` the buffers say how to undo that for
    channels 0 to 2, the coordinates.

    Parameters
    ----------
    config : DenoiserConfig
        Sizes and options.
    latent_dim : int
        Channels of the latents.
    coordinate_scale : float
        Latent units per angstrom of a molecule's coordinate channels.
    """

    latent_mean: Tensor
    latent_std: Tensor
    channel_scale: Tensor

    def __init__(
        self, config: DenoiserConfig, latent_dim: int = 8, coordinate_scale: float = 0.3
    ) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.latent_dim = latent_dim
        self.coordinate_scale = coordinate_scale
        self.register_buffer("latent_mean", torch.zeros(2, latent_dim))  # molecule, crystal
        self.register_buffer("latent_std", torch.ones(2, latent_dim))
        channel_scale = torch.ones(2, latent_dim)
        channel_scale[0, 3:] = config.feature_scale
        self.register_buffer("channel_scale", channel_scale, persistent=False)
        self.input = nn.Linear(2 * latent_dim, dim)
        self.time = MLP(FREQUENCY_DIM, dim, dim, silu=True)
        self.domain = nn.Embedding(3, dim)
        self.size = MLP(FREQUENCY_DIM, dim, dim, silu=True) if config.size_condition else None
        self.elements = (
            nn.Embedding(NUM_ELEMENTS, dim, padding_idx=0) if config.element_condition else None
        )
        self.blocks = nn.ModuleList(
            DiTBlock(dim, config.num_heads, config.geometry) for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.final_modulation = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, latent_dim)
        number = 1 + (config.num_layers - 1) // config.geometry_every if config.geometry else 0
        self.pair_encoders = nn.ModuleList(PairEncoder() for _ in range(number))
        self.coordinate_updates = nn.ModuleList(nn.Linear(dim, 3) for _ in range(number - 1))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, DiTBlock):
                for linear in (module.attention.qkv, module.attention.out, *module.mlp):
                    if isinstance(linear, nn.Linear):
                        nn.init.xavier_uniform_(linear.weight)
                        nn.init.zeros_(linear.bias)
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.normal_(self.domain.weight, std=0.02)
        if self.elements is not None:
            nn.init.zeros_(self.elements.weight)
        zero = [self.final_modulation, self.output, *self.coordinate_updates]
        for layer in zero:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def normalise(self, latents: Tensor, atom_periodic: Tensor) -> Tensor:
        """Latents (A, L) of the autoencoder to zero mean and the scale of their channel."""
        kind = atom_periodic.long()
        unit = (latents - self.latent_mean[kind]) / self.latent_std[kind]
        return unit * self.channel_scale[kind]

    def denormalise(self, x: Tensor, atom_periodic: Tensor) -> Tensor:
        """Inverse of :meth:`normalise`."""
        kind = atom_periodic.long()
        return x / self.channel_scale[kind] * self.latent_std[kind] + self.latent_mean[kind]

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        domain: Tensor,
        groups: DomainGroups,
        self_condition: Tensor | None = None,
        elements: Tensor | None = None,
    ) -> Tensor:
        """Predict x_1.

        Parameters
        ----------
        x_t : torch.Tensor
            Noisy normalised latents, shape (A, L).
        t : torch.Tensor
            Time of each system in [0, 1], 1 is data, shape (S,).
        domain : torch.Tensor
            Class of each system: 0 hidden, 1 crystal, 2 molecule, shape (S,).
        groups : DomainGroups
            Which atoms belong together.
        self_condition : torch.Tensor
            An earlier prediction of x_1, shape (A, L).
        elements : torch.Tensor
            Atomic number each atom shall have, 0 where it is free, shape (A,).

        Returns
        -------
        torch.Tensor
            Shape (A, L).
        """
        config, packing = self.config, groups.packing
        index = packing.index
        dim = config.dim
        condition = self.time(sinusoidal_embedding(1000.0 * t, FREQUENCY_DIM).to(x_t.dtype))
        condition = condition + self.domain.weight.index_select(0, domain)  # (S, D)
        if self.size is not None:
            sizes = sinusoidal_embedding(packing.sizes, FREQUENCY_DIM)
            condition = condition + self.size(sizes.to(x_t.dtype))
        condition = nn.functional.silu(condition)

        spread = self.channel_scale[groups.periodic.long()][index]  # (A, L)
        previous = torch.zeros_like(x_t) if self_condition is None else self_condition / spread
        noisy, skip, scale = x_t, torch.zeros_like(x_t), spread
        if config.precondition:
            # with data of that spread: E[x_1 | x_t] = skip * x_t, standard deviation = scale
            time = t[index, None]  # (A, 1)
            norm = ((time * spread).square() + (1 - time).square()).sqrt()
            noisy = x_t / norm
            skip, scale = time * (spread / norm).square(), (1 - time) * spread / norm
        h = self.input(torch.cat([noisy, previous], dim=-1))  # (A, D)
        h = h + sinusoidal_embedding(packing.rank, dim).to(h.dtype)
        if self.elements is not None and elements is not None:
            # What nn.Embedding does, whose gradient cannot be recorded in a CUDA graph.
            rows = self.elements.weight.index_select(0, elements)
            h = h + rows.masked_fill((elements == 0)[:, None], 0.0)

        base = skip * x_t
        coordinates = base[:, :3] if self_condition is None else self_condition[:, :3]
        pairs = None
        for i, block in enumerate(self.blocks):
            if config.geometry and i % config.geometry_every == 0:
                if i > 0:
                    update = self.coordinate_updates[i // config.geometry_every - 1](h)
                    coordinates = coordinates + scale[:, :3] * update
                encoder = self.pair_encoders[i // config.geometry_every]
                pairs = encoder(self._real_coordinates(coordinates, groups), groups)
            h = block(h, condition, groups, pairs)
        shift, gain = (
            part.index_select(0, index)
            for part in self.final_modulation(condition).chunk(2, dim=-1)
        )
        out = self.output(torch.addcmul(shift, self.final_norm(h), 1 + gain))  # (A, L)
        if config.geometry:
            base = torch.cat([coordinates, base[:, 3:]], dim=-1)
        return base + scale * out

    def _real_coordinates(self, x: Tensor, groups: DomainGroups) -> Tensor:
        """Normalised channels 0 to 2 to fractional or Cartesian (angstrom), shape (A, 3)."""
        atom_periodic = groups.periodic[groups.packing.index]
        kind = atom_periodic.long()
        latents = x * self.latent_std[kind, :3] + self.latent_mean[kind, :3]
        return latent_coordinates(latents, atom_periodic, self.coordinate_scale)
