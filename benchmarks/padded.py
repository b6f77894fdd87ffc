"""The two losses on padded batches: what `packing.py` measures packed batches against.

Every system is padded to the largest of the batch and every padded row is a real row of every
tensor, so linear layers, norms and embeddings work on it. Attention masks padding, and so do all
sums over atoms. Crystals must come before molecules, so that each domain is a view of the batch.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F

from adit_model.batch import AtomicBatch, Packing
from adit_model.network.autoencoder import Autoencoder
from adit_model.network.denoiser import NULL_CLASS, Denoiser
from adit_model.sampling.flow import domain_classes
from adit_model.training.loss import draw_times


class PaddedPacking:
    """The interface of :class:`adit_model.batch.Packing` where every slot is a row.

    Parameters
    ----------
    sizes : torch.Tensor
        Real atoms of each system, shape (S,).
    width : int
        Rows of each system.
    """

    def __init__(self, sizes: Tensor, width: int) -> None:
        self.sizes, self.max_size = sizes, width
        self.num_systems = len(sizes)
        self.num_atoms = self.num_systems * width
        self.index = torch.arange(self.num_systems).repeat_interleave(width)
        self.rank = torch.arange(width).repeat(self.num_systems)
        self.mask = torch.arange(width) < sizes[:, None]  # (S, N)

    def pad(self, x: Tensor) -> Tensor:
        """View rows (S N, ...) as (S, N, ...)."""
        return x.view(self.num_systems, self.max_size, *x.shape[1:])

    def unpad(self, x: Tensor) -> Tensor:
        """View (S, N, ...) as rows (S N, ...)."""
        return x.flatten(0, 1)

    def mean(self, x: Tensor) -> Tensor:
        """Average over the real rows of each system: (S, ...)."""
        return (self.pad(x) * self.mask[..., None]).sum(1) / self.sizes[:, None]


class PaddedGroups:
    """The interface of :class:`adit_model.network.layers.DomainGroups` for a padded batch."""

    def __init__(self, packing: PaddedPacking, periodic: Tensor) -> None:
        self.packing, self.periodic = packing, periodic
        crystals, width = int(periodic.sum()), packing.max_size
        if not bool(periodic[:crystals].all()):
            raise ValueError("crystals must come first")
        sizes = {True: packing.sizes[:crystals], False: packing.sizes[crystals:]}
        self.groups = [
            (kind, PaddedPacking(part, width)) for kind, part in sizes.items() if len(part)
        ]

    def split(self, x: Tensor) -> list[Tensor]:
        """Rows (S N, ...) of each domain, as views."""
        return list(x.split([packing.num_atoms for _, packing in self.groups]))

    def systems(self, x: Tensor) -> list[Tensor]:
        """System rows (S, ...) of each domain, as views."""
        return list(x.split([packing.num_systems for _, packing in self.groups]))

    def join(self, parts: list[Tensor]) -> Tensor:
        """Join the domains."""
        return torch.cat(parts)


def pad_rows(x: Tensor, packing: Packing) -> Tensor:
    """Packed rows (A, ...) to padded rows (S N, ...), zeros elsewhere."""
    return packing.pad(x).flatten(0, 1)


def padded_flow_matching_loss(
    denoiser: Denoiser,
    latents: Tensor,
    periodic: Tensor,
    sizes: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """:func:`adit_model.sampling.flow.flow_matching_loss` of packed latents (A, L), padded."""
    config = denoiser.config
    real = Packing(sizes)
    groups = PaddedGroups(PaddedPacking(sizes, real.max_size), periodic)
    packing, number = groups.packing, len(sizes)
    x_0 = pad_rows(torch.randn(latents.shape, generator=generator), real)
    x_1 = denoiser.normalise(pad_rows(latents, real), periodic[packing.index])
    focus = config.time_focus if denoiser.training else 0.0
    t = draw_times(number, config.time_skew, generator, focus)
    hidden = torch.rand(number, generator=generator) < config.class_dropout
    self_condition = bool(torch.rand((), generator=generator) < config.self_condition)
    domain = domain_classes(periodic).masked_fill(hidden, NULL_CLASS)
    t_atom = t[packing.index, None]
    x_t = (1 - t_atom) * x_0 + t_atom * x_1
    previous = None
    if self_condition:
        with torch.no_grad():
            previous = denoiser(x_t, t, domain, groups).detach()  # type: ignore[arg-type]
    error = denoiser(x_t, t, domain, groups, previous) - x_1  # type: ignore[arg-type]
    weighted = (error / (1 - t_atom.clamp(max=config.time_clip))).square()
    return _mean(weighted, packing.mask.flatten())


def padded_autoencoder_loss(
    model: Autoencoder, batch: AtomicBatch, generator: torch.Generator
) -> Tensor:
    """:meth:`adit_model.network.autoencoder.Autoencoder.loss` of a packed batch, padded."""
    config, real, periodic = model.config, batch.packing, batch.periodic
    groups = PaddedGroups(PaddedPacking(batch.sizes, real.max_size), periodic)
    packing, atoms = groups.packing, batch.num_atoms
    present = packing.mask.flatten()
    numbers, positions = pad_rows(batch.numbers, real), pad_rows(batch.positions, real)
    atom_periodic = periodic[packing.index]

    masked = torch.rand(atoms, generator=generator) < config.mask_fraction
    shaken = torch.rand(atoms, 1, generator=generator) < config.noise_fraction
    shift = config.noise_angstrom * torch.randn(atoms, 3, generator=generator) * shaken
    # an AtomicBatch would insist on the real atom count
    corrupted = SimpleNamespace(
        numbers=numbers.masked_fill(pad_rows(masked, real), 0),
        positions=positions + pad_rows(shift, real),
        periodic=periodic,
        atom_periodic=atom_periodic,
        cell_parameters=batch.cell_parameters,
    )
    inverse = torch.linalg.inv(batch.cells)[packing.index]
    corrupted.frac_coords = (corrupted.positions[:, :, None] * inverse).sum(1)
    corrupted.frac_coords = corrupted.frac_coords * atom_periodic[:, None]
    mean, log_variance = model.encoder(corrupted, groups)
    noise = pad_rows(torch.randn(atoms, mean.shape[1], generator=generator), real)
    latents = mean + noise * (0.5 * log_variance).exp()
    divergence = mean.square() + log_variance.exp() - 1 - log_variance
    kl = 0.5 * _mean(divergence.sum(-1), present)
    if config.latent_noise > 0:
        level = torch.rand(len(batch), 1, generator=generator) * 2 - 1
        extra = config.latent_noise * level.clamp(min=0)[real.index]
        extra = extra * torch.randn(atoms, mean.shape[1], generator=generator)
        latents = latents + pad_rows(extra, real)
    out = model.decode(latents, groups)  # type: ignore[arg-type]

    inside, outside = present & atom_periodic, present & ~atom_periodic
    frac = (positions[:, :, None] * inverse).sum(1) * atom_periodic[:, None]
    frac_error = out.frac_coords - frac
    frac_error = frac_error - frac_error.round()
    centred = positions - packing.mean(positions)[packing.index]
    lengths, angles = batch.cell_parameters
    lengths = lengths / batch.sizes[:, None] ** (1 / 3)
    elements = F.cross_entropy(out.element_logits, numbers, reduction="none")
    share = batch.atom_periodic.float().mean()
    return (
        _mean(elements, present)
        + config.coordinate_weight
        * (
            share * _mean(frac_error.square(), inside)
            + (1 - share) * _mean((out.positions - centred).square(), outside)
        )
        + config.length_weight * _mean((out.scaled_lengths - lengths).square(), periodic)
        + config.angle_weight * _mean((out.angles - angles).square(), periodic)
        + config.kl_weight * kl
    )


def _mean(x: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen rows, zero if there are none."""
    weight = chosen.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    return (x * weight).sum() / (weight.sum() * (x[0].numel())).clamp(min=1)
