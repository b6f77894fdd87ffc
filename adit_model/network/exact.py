"""Stage 1 without loss: coordinates and cell as they are, and a learned code of the elements."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adit_model.batch import AtomicBatch, Packing
from adit_model.config import AutoencoderConfig
from adit_model.network.autoencoder import Autoencoder, Decoded
from adit_model.network.cells import CELL_DIM, cell_numbers, cell_parameters
from adit_model.network.encoders.transformer import coordinate_anchor, latent_coordinates
from adit_model.network.groups import DomainGroups
from adit_model.network.layers import MLP


class ExactAutoencoder(nn.Module):
    """Autoencoder that keeps coordinates and cell as they are and learns a code of the elements.

    A molecule has one row of latents for each atom, a crystal one more, the last, for its cell.
    Channels 0 to 2 of an atom are its scaled coordinates, the others the code of its element; the
    first six channels of a cell are its :func:`~adit_model.network.cells.cell_numbers`, the
    others zero. Nothing depends on the order of the atoms.

    Parameters
    ----------
    config : AutoencoderConfig
        ``latent_dim``, ``num_elements``, ``coordinate_scale``, ``dim`` (width of the head that
        tells the elements), ``latent_noise`` and ``kl_weight`` count.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.code = nn.Embedding(config.num_elements, config.latent_dim - 3)
        self.element_head = MLP(config.latent_dim - 3, config.dim, config.num_elements)

    def groups(self, batch: AtomicBatch) -> DomainGroups:
        """Domain groups of the rows of latents of a batch."""
        return DomainGroups.of_atoms(batch.sizes, batch.periodic, cells=True)

    def encode(self, batch: AtomicBatch) -> tuple[Tensor, Tensor]:
        """Latents, and their log-variance (none: -20), each of shape (T, latent_dim)."""
        groups = self.groups(batch)
        atoms = torch.cat(
            [coordinate_anchor(batch, self.config.coordinate_scale), self.code(batch.numbers)], -1
        )
        crystals = torch.nonzero(batch.periodic)[:, 0]
        cells = cell_numbers(batch.cells[crystals], batch.sizes[crystals]).to(atoms)
        cells = F.pad(cells, (0, self.config.latent_dim - CELL_DIM))
        latents = atoms.new_zeros(groups.packing.num_atoms, self.config.latent_dim)
        latents = latents.index_copy(0, groups.atoms, atoms).index_copy(0, groups.cells, cells)
        return latents, torch.full_like(latents, -20.0)

    def decode(self, latents: Tensor, groups: DomainGroups) -> Decoded:
        """Decode latents (T, latent_dim) with a row for each cell; what comes is of the atoms."""
        atoms = latents.index_select(0, groups.atoms)
        sizes = groups.num_atoms
        packing = Packing(sizes)
        periodic = groups.periodic[packing.index]
        coordinates = latent_coordinates(atoms, periodic, self.config.coordinate_scale)
        crystals = torch.nonzero(groups.periodic)[:, 0]
        numbers = latents.index_select(0, groups.cells)[:, :CELL_DIM]
        lengths = latents.new_zeros(len(sizes), 3, dtype=torch.float64)
        angles = torch.zeros_like(lengths)
        lengths[crystals], angles[crystals] = cell_parameters(numbers, sizes[crystals])
        return Decoded(
            element_logits=self.element_head(atoms[:, 3:]),
            frac_coords=coordinates,
            positions=coordinates,
            scaled_lengths=lengths / sizes[:, None] ** (1 / 3),
            angles=angles,
        )

    def loss(
        self,
        batch: AtomicBatch,
        generator: torch.Generator | None = None,
        frozen_encoder: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of elements told from their noisy code, and the terms of the loss.

        Every element counts, those of the batch by their number and all once more alike. The noise
        has up to ``latent_noise`` standard deviations of the code itself, so that elements are
        told apart by what the denoiser leaves imprecise.

        Parameters
        ----------
        batch : AtomicBatch
            Clean systems.
        generator : torch.Generator
            Of the noise, on the CPU.
        frozen_encoder : bool
            Train the head alone.
        """
        every = torch.arange(1, self.config.num_elements, device=batch.device)
        numbers = torch.cat([batch.numbers, every.repeat(8)])
        code = self.code(numbers)
        if frozen_encoder:
            code = code.detach()
        spread = self.code(every).detach().std(dim=0)
        level = self.config.latent_noise * torch.rand(len(code), 1, generator=generator)
        noise = torch.randn(code.shape, generator=generator) * level
        logits = self.element_head(code + noise.to(code) * spread)
        error = F.cross_entropy(logits, numbers, reduction="none")
        seen = len(batch.numbers)
        terms = {"elements": error[:seen].mean(), "all_elements": error[seen:].mean()}
        size = 0.5 * code.square().mean()
        total = terms["elements"] + terms["all_elements"] + self.config.kl_weight * size
        return total, terms


AnyAutoencoder = Autoencoder | ExactAutoencoder


def build_autoencoder(config: AutoencoderConfig) -> AnyAutoencoder:
    """Build the autoencoder a config describes: the paper's, or with ``exact`` the exact one."""
    return ExactAutoencoder(config) if config.exact else Autoencoder(config)
