"""Stage 2: the Diffusion Transformer over latents (Joshi et al. 2025, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adit_model.config import DenoiserConfig
from adit_model.network.cells import CELL_DIM, CELL_FEATURES, cell_features, cell_metric
from adit_model.network.conditioning import (
    CRYSTAL_CLASS,
    MOLECULE_CLASS,
    NULL_CLASS,
    NUM_ELEMENTS,
    ConditionEmbedding,
    Told,
)
from adit_model.network.encoders.transformer import latent_coordinates
from adit_model.network.groups import DomainGroups
from adit_model.network.layers import MLP, DiTBlock, sinusoidal_embedding
from adit_model.network.pairs import PairEncoder

__all__ = ["CRYSTAL_CLASS", "MOLECULE_CLASS", "NULL_CLASS", "Denoiser"]

FREQUENCY_DIM = 256
CELL_LIMIT = 4.0  # standard deviations up to which an estimate of a cell is shown to pairs


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
    cells : bool
        The last row of each crystal is its cell, see :class:`~adit_model.network.exact
        .ExactAutoencoder`.
    """

    latent_mean: Tensor
    latent_std: Tensor
    channel_scale: Tensor

    def __init__(
        self,
        config: DenoiserConfig,
        latent_dim: int = 8,
        coordinate_scale: float = 0.3,
        cells: bool = False,
    ) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.latent_dim = latent_dim
        self.coordinate_scale = coordinate_scale
        self.cells = cells
        kinds = 3 if cells else 2  # atom of a molecule, of a crystal, cell
        self.register_buffer("latent_mean", torch.zeros(kinds, latent_dim))
        self.register_buffer("latent_std", torch.ones(kinds, latent_dim))
        channel_scale = torch.ones(kinds, latent_dim)
        channel_scale[0, 3:] = config.feature_scale
        self.register_buffer("channel_scale", channel_scale, persistent=False)
        self.input = nn.Linear(2 * latent_dim, dim)
        self.time = MLP(FREQUENCY_DIM, dim, dim, silu=True)
        self.domain = nn.Embedding(3, dim)
        self.size = MLP(FREQUENCY_DIM, dim, dim, silu=True) if config.size_condition else None
        told = config.element_condition or config.conditions
        self.elements = nn.Embedding(NUM_ELEMENTS, dim, padding_idx=0) if told else None
        self.told = ConditionEmbedding(dim, len(config.properties)) if config.conditions else None
        self.fixed = nn.Embedding(2, dim) if config.conditions else None  # an atom, a cell
        self.cell_input = nn.Linear(2 * CELL_DIM, dim) if cells else None
        self.cell_output = nn.Linear(dim, CELL_DIM) if cells else None
        self.blocks = nn.ModuleList(
            DiTBlock(dim, config.num_heads, config.geometry, cells)
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.final_modulation = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, latent_dim)
        number = 1 + (config.num_layers - 1) // config.geometry_every if config.geometry else 0
        self.pair_encoders = nn.ModuleList(PairEncoder() for _ in range(number))
        self.coordinate_updates = nn.ModuleList(nn.Linear(dim, 3) for _ in range(number - 1))
        self.cell_updates = nn.ModuleList(
            nn.Linear(dim, CELL_DIM) for _ in range(number - 1 if cells else 0)
        )
        self.cell_waves = nn.ModuleList(
            nn.Linear(CELL_FEATURES, dim, bias=False) for _ in range(number + 1 if cells else 0)
        )  # of what is noisy, then of the estimates
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
        if self.fixed is not None:
            nn.init.zeros_(self.fixed.weight)
        if self.cell_input is not None:
            nn.init.xavier_uniform_(self.cell_input.weight)
        zero = [self.final_modulation, self.output, *self.coordinate_updates, *self.cell_updates]
        zero += self.cell_waves
        if self.cell_output is not None:
            zero.append(self.cell_output)
        for layer in zero:
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def normalise(self, latents: Tensor, kinds: Tensor) -> Tensor:
        """Latents (T, L) of the autoencoder to zero mean and the scale of their channel.

        ``kinds`` (T,) says of each row what it is, see :attr:`DomainGroups.kinds`.
        """
        kind = kinds.long()
        unit = (latents - self.latent_mean[kind]) / self.latent_std[kind]
        return unit * self.channel_scale[kind]

    def denormalise(self, x: Tensor, kinds: Tensor) -> Tensor:
        """Inverse of :meth:`normalise`."""
        kind = kinds.long()
        return x / self.channel_scale[kind] * self.latent_std[kind] + self.latent_mean[kind]

    def tell_nothing(self, groups: DomainGroups) -> Told:
        """Make what the denoiser is called with when nothing is told but the domain."""
        return Told.nothing(groups, self.latent_dim, len(self.config.properties))

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        groups: DomainGroups,
        told: Told | None = None,
        self_condition: Tensor | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """Predict x_1.

        Parameters
        ----------
        x_t : torch.Tensor
            Noisy normalised latents, shape (T, L).
        t : torch.Tensor
            Time of each system in [0, 1], 1 is data, shape (S,).
        groups : DomainGroups
            Which rows belong together.
        told : Told
            What is known of the systems; nothing by default.
        self_condition : torch.Tensor
            An earlier prediction of x_1, shape (T, L).
        seen : list of torch.Tensor
            What each block puts out is appended to it, shape (T, D).

        Returns
        -------
        torch.Tensor
            Shape (T, L). Fixed rows are as they were given.
        """
        config, packing = self.config, groups.packing
        index = packing.index
        told = self.tell_nothing(groups) if told is None else told
        condition = self.time(sinusoidal_embedding(1000.0 * t, FREQUENCY_DIM).to(x_t.dtype))
        condition = condition + self.domain.weight.index_select(0, told.domain)  # (S, D)
        if self.size is not None:
            sizes = sinusoidal_embedding(groups.num_atoms, FREQUENCY_DIM)
            condition = condition + self.size(sizes.to(x_t.dtype))
        if self.told is not None:
            condition = condition + self.told(told)
        condition = nn.functional.silu(condition)

        kinds = groups.kinds
        spread = self.channel_scale.index_select(0, kinds)  # (T, L)
        time = t[index, None]  # (T, 1)
        if self.told is not None:
            given = told.given(groups)
            x_t = torch.where(given, told.values.to(x_t), x_t)
            time = torch.where(given, 1.0, time)  # (T, L)
        previous = torch.zeros_like(x_t) if self_condition is None else self_condition / spread
        noisy, skip, scale = x_t, torch.zeros_like(x_t), spread
        if config.precondition:
            # with data of that spread: E[x_1 | x_t] = skip * x_t, standard deviation = scale
            norm = ((time * spread).square() + (1 - time).square()).sqrt()
            noisy = x_t / norm
            skip, scale = time * (spread / norm).square(), (1 - time) * spread / norm
        h = self._tokens(noisy, previous, groups, told)  # (T, D)

        base = skip * x_t
        guess = base if self_condition is None else self_condition
        coordinates, cells, rows = base[:, :3], None, groups.cells
        if self_condition is not None:
            coordinates = self_condition[:, :3]
        if self.cells:
            cells = guess.index_select(0, rows)[:, :CELL_DIM]
            cell_scale = scale.index_select(0, rows)[:, :CELL_DIM]
        pairs = None
        for i, block in enumerate(self.blocks):
            if config.geometry and i % config.geometry_every == 0:
                stage = i // config.geometry_every
                if stage > 0:
                    update = self.coordinate_updates[stage - 1](h)
                    coordinates = coordinates + scale[:, :3] * update
                    if cells is not None:
                        update = self.cell_updates[stage - 1](h.index_select(0, rows))
                        cells = cells + cell_scale * update
                metric = None
                if cells is not None:
                    estimate = cells.detach().clamp(-CELL_LIMIT, CELL_LIMIT)
                    metric = self._metric(estimate, groups)
                    waves = self._waves(estimate, stage + 1)
                    h = h.index_add(0, rows, waves.to(h.dtype))
                real = self._real_coordinates(coordinates, kinds)
                pairs = self.pair_encoders[stage](real, groups, metric)
            h = block(h, condition, groups, pairs)
            if seen is not None:
                seen.append(h)
        shift, gain = (
            part.index_select(0, index)
            for part in self.final_modulation(condition).chunk(2, dim=-1)
        )
        h = torch.addcmul(shift, self.final_norm(h), 1 + gain)
        out = self.output(h)  # (T, L)
        if config.geometry:
            base = torch.cat([coordinates, base[:, 3:]], dim=-1)
        out = base + scale * out
        if cells is not None and self.cell_output is not None:
            cells = cells + cell_scale * self.cell_output(h.index_select(0, rows))
            padded = nn.functional.pad(cells.to(out.dtype), (0, self.latent_dim - CELL_DIM))
            out = out.index_copy(0, rows, padded)
        return out

    def _tokens(self, noisy: Tensor, previous: Tensor, groups: DomainGroups, told: Told) -> Tensor:
        """Embed the rows, shape (T, D)."""
        h = self.input(torch.cat([noisy, previous], dim=-1))
        if self.config.index_embedding:
            h = h + sinusoidal_embedding(groups.packing.rank, self.config.dim).to(h.dtype)
        if self.elements is not None:
            # What nn.Embedding does, whose gradient cannot be recorded in a CUDA graph.
            rows = self.elements.weight.index_select(0, told.elements)
            h = h + rows.masked_fill((told.elements == 0)[:, None], 0.0)
        if self.cell_input is not None:
            both = [x.index_select(0, groups.cells)[:, :CELL_DIM] for x in (noisy, previous)]
            cells = self.cell_input(torch.cat(both, dim=-1))
            cells = cells + self._waves(both[0].clamp(-CELL_LIMIT, CELL_LIMIT), 0)
            h = h.index_copy(0, groups.cells, cells.to(h.dtype))
        if self.fixed is not None:
            rows = self.fixed.weight.index_select(0, groups.is_cell.long())
            h = h + rows * told.fixed[:, None]
        return h

    def _cell_numbers(self, cells: Tensor) -> Tensor:
        """Undo the normalisation of cells (C, 6)."""
        return cells * self.latent_std[2, :CELL_DIM] + self.latent_mean[2, :CELL_DIM]

    def _metric(self, cells: Tensor, groups: DomainGroups) -> Tensor:
        """Metric tensors of normalised cells (C, 6), shape (C, 3, 3)."""
        sizes = groups.num_atoms.index_select(0, groups.crystals)
        return cell_metric(self._cell_numbers(cells), sizes)

    def _waves(self, cells: Tensor, place: int) -> Tensor:
        """Describe an estimate (C, 6) of the cells to their rows, shape (C, D)."""
        return self.cell_waves[place](cell_features(cells, self._cell_numbers(cells)))

    def _real_coordinates(self, x: Tensor, kinds: Tensor) -> Tensor:
        """Normalised channels 0 to 2 to fractional or Cartesian (angstrom), shape (T, 3)."""
        latents = x * self.latent_std[kinds, :3] + self.latent_mean[kinds, :3]
        return latent_coordinates(latents, kinds > 0, self.coordinate_scale)
