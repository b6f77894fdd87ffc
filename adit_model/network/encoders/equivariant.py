"""An E(3)-equivariant encoder: messages between neighbours, with e3nn (Geiger and Smidt 2022)."""

from __future__ import annotations

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from e3nn.math import soft_one_hot_linspace, soft_unit_step
from torch import Tensor, nn
from torch.nn import functional as F

from adit_model.batch import AtomicBatch
from adit_model.config import AutoencoderConfig
from adit_model.network.encoders.neighbors import neighbor_list
from adit_model.network.encoders.transformer import cell_features
from adit_model.network.groups import DomainGroups
from adit_model.network.layers import MLP

CUTOFF = 5.0  # angstrom
NUM_RADIAL = 10
TYPICAL_NEIGHBORS = 20.0  # within the cutoff, of molecules and crystals together


class EquivariantEncoder(nn.Module):
    """Encode atoms to latents of which three channels rotate with the system, the rest do not.

    **Latent channels 0 to 2** are a vector: rotating the system by R turns the
    mean of each atom from v to R v, so the decoder can recover the orientation. In a molecule it
    starts as the scaled position relative to the centroid. **Channels 3 and up**
    do not change under rotation, nor does any log-variance: the three
    channels of the vector share one.

    Translating a molecule changes nothing. In a crystal the vector does not change either, nor
    does it depend on the choice of the unit cell; the invariant channels know the fractional
    coordinates (modulo one) and, with ``cell_input``, the lattice parameters, which the decoder
    must return with the origin and the cell they were given with. Replacing an atom of a crystal
    by any of its periodic images changes nothing; renumbering the atoms renumbers the latents.

    Parameters
    ----------
    config : AutoencoderConfig
        ``dim`` is split into scalars, vectors and rank-2 tensors of about that size together;
        ``num_encoder_layers`` rounds of messages pass between atoms closer than 5 angstrom.

    Raises
    ------
    ValueError
        If ``latent_dim`` has no room for a vector and a scalar.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        if config.latent_dim < 4:
            raise ValueError(
                f"the equivariant encoder needs latent_dim >= 4, got {config.latent_dim}"
            )
        self.config = config
        num_scalars = max(4, config.dim // 4)
        irreps = o3.Irreps(
            f"{num_scalars}x0e + {max(2, config.dim // 8)}x1o + {max(1, config.dim // 16)}x2e"
        )
        self.num_scalars = num_scalars
        self.sphere = o3.Irreps("0e + 1o + 2e")
        self.element = nn.Embedding(config.num_elements, num_scalars)
        self.start = o3.Linear(f"{num_scalars}x0e + 1o + 2e", irreps)
        self.layers = nn.ModuleList(
            Interaction(irreps, self.sphere) for _ in range(config.num_encoder_layers)
        )
        self.norm = EquivariantNorm(irreps[:2])
        self.vector_head = o3.Linear(irreps[:2], "1o")
        self.fractional = MLP(6, config.dim, config.dim, silu=True)
        self.cell = MLP(6, config.dim, config.dim, silu=True) if config.cell_input else None
        self.scalars = nn.Linear(num_scalars, config.dim)
        num_means, num_variances = config.latent_dim - 3, config.latent_dim - 2
        self.scalar_norm = nn.LayerNorm(config.dim)
        self.scalar_mlp = MLP(config.dim, config.dim, config.dim, silu=True)
        self.scalar_head = nn.Linear(config.dim, num_means + num_variances)
        nn.init.constant_(self.scalar_head.bias[num_means:], config.log_variance_start)
        with torch.no_grad():
            self.vector_head.weight.mul_(0.1)  # molecules start close to their positions

    def forward(self, batch: AtomicBatch, groups: DomainGroups) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each of shape (A, latent_dim)."""
        with torch.autocast(batch.device.type, enabled=False):  # geometry needs full precision
            return self._forward(batch, groups)

    def _forward(self, batch: AtomicBatch, groups: DomainGroups) -> tuple[Tensor, Tensor]:
        packing = groups.packing
        receiver, sender, vectors = neighbor_list(batch, CUTOFF)
        distances = vectors.norm(dim=1)
        harmonics = o3.spherical_harmonics(self.sphere, vectors, True, "component")  # (E, 9)
        radial = radial_basis(distances)  # (E, NUM_RADIAL)
        centred = batch.positions - packing.mean(batch.positions)[packing.index]
        anchor = self.config.coordinate_scale * centred * ~batch.atom_periodic[:, None]
        place = o3.spherical_harmonics(self.sphere[1:], anchor, False, "component")  # (A, 8)
        x = self.start(torch.cat([self.element(batch.numbers), place], dim=1))
        for layer in self.layers:
            x = layer(x, receiver, sender, harmonics, radial)
        x = self.norm(x[:, : self.vector_head.irreps_in.dim])
        vector = anchor + self.vector_head(x)  # (A, 3)
        features = self.scalars(x[:, : self.num_scalars]) + self._place(batch, packing.index)
        num_means = self.config.latent_dim - 3
        features = self.scalar_norm(features)
        scalars = self.scalar_head(features + self.scalar_mlp(features))
        log_variance = scalars[:, num_means:]  # of the vector, then of each scalar
        log_variance = torch.cat([log_variance[:, :1].expand(-1, 3), log_variance[:, 1:]], dim=1)
        mean = torch.cat([vector, scalars[:, :num_means]], dim=1)
        return mean, log_variance.clamp(-20.0, 10.0)

    def _place(self, batch: AtomicBatch, index: Tensor) -> Tensor:
        """Embed the place of each atom in its cell, shape (A, dim), zero in molecules."""
        phase = 2 * torch.pi * batch.frac_coords
        place = self.fractional(torch.cat([phase.sin(), phase.cos()], dim=1))
        if self.cell is not None:
            place = place + self.cell(cell_features(batch))[index]
        return place * batch.atom_periodic[:, None]


class Interaction(nn.Module):
    """One round of messages: x_i + gate(linear(m_i) + product(x_i, m_i)), m_i summed over j.

    A message is the channel-wise tensor product of the sender, in half its channels, with the
    spherical harmonics of its direction, weighted by a network of the distance.

    Parameters
    ----------
    irreps : e3nn.o3.Irreps
        Of the atoms' features: scalars, vectors, rank-2 tensors.
    sphere : e3nn.o3.Irreps
        Of the spherical harmonics.
    """

    def __init__(self, irreps: o3.Irreps, sphere: o3.Irreps) -> None:
        super().__init__()
        scalars, others = irreps[:1], irreps[1:]
        gates = o3.Irreps(f"{others.num_irreps}x0e")
        self.gate = e3nn_nn.Gate(scalars, [F.silu], gates, [torch.sigmoid], others)
        self.norm = EquivariantNorm(irreps)
        narrow = o3.Irreps([(max(1, mul // 2), ir) for mul, ir in irreps])
        self.send = o3.Linear(irreps, narrow)
        self.message = channelwise_product(narrow, sphere)
        self.radial = e3nn_nn.FullyConnectedNet([NUM_RADIAL, 32, self.message.weight_numel], F.silu)
        self.collect = o3.Linear(self.message.irreps_out, irreps)
        self.linear = o3.Linear(irreps, self.gate.irreps_in)
        self.product = o3.FullyConnectedTensorProduct(irreps, irreps, self.gate.irreps_in)

    def forward(
        self, x: Tensor, receiver: Tensor, sender: Tensor, harmonics: Tensor, radial: Tensor
    ) -> Tensor:
        """Map features (A, D) to features (A, D)."""
        y = self.norm(x)
        messages = self.message(self.send(y)[sender], harmonics, self.radial(radial))  # (E, D')
        total = messages.new_zeros(len(x), messages.shape[1]).index_add(0, receiver, messages)
        collected = self.collect(total / TYPICAL_NEIGHBORS**0.5)
        return x + self.gate(self.linear(collected) + self.product(y, collected))


class EquivariantNorm(nn.Module):
    """Layer norm of the scalars; each kind of tensor divided by its root mean square length.

    Parameters
    ----------
    irreps : e3nn.o3.Irreps
        Scalars first, one entry for each kind.
    """

    def __init__(self, irreps: o3.Irreps) -> None:
        super().__init__()
        self.shapes = [(mul, ir.dim) for mul, ir in irreps]
        self.scalar_norm = nn.LayerNorm(self.shapes[0][0])
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(mul)) for mul, _ in irreps[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Map features (A, D) to features (A, D)."""
        parts = x.split([mul * dim for mul, dim in self.shapes], dim=1)
        out = [self.scalar_norm(parts[0])]
        for part, scale, shape in zip(parts[1:], self.scales, self.shapes[1:], strict=True):
            tensors = part.unflatten(1, shape)  # (A, mul, 2 l + 1)
            # The floor keeps the round-off in symmetric sites, whose vectors vanish, small.
            rms = (tensors.square().mean(dim=(1, 2), keepdim=True) + 1e-3).sqrt()
            out.append((tensors / rms * scale[:, None]).flatten(1))
        return torch.cat(out, dim=1)


def channelwise_product(irreps: o3.Irreps, sphere: o3.Irreps) -> o3.TensorProduct:
    """Multiply each channel with the spherical harmonics, one weight for each path and channel.

    Only the kinds of ``irreps`` are kept.
    """
    outputs: list[tuple[int, o3.Irrep]] = []
    instructions = []
    for i, (mul, ir) in enumerate(irreps):
        for j, (_, direction) in enumerate(sphere):
            for product in ir * direction:
                if product in irreps:
                    instructions.append((i, j, len(outputs), "uvu", True))
                    outputs.append((mul, product))
    return o3.TensorProduct(
        irreps,
        sphere,
        o3.Irreps(outputs),
        instructions,
        shared_weights=False,
        internal_weights=False,
    )


def radial_basis(distances: Tensor) -> Tensor:
    """Bessel functions that go smoothly to zero at the cutoff, shape (E, NUM_RADIAL)."""
    distances = distances.clamp(min=0.01)  # the functions divide by it
    waves = soft_one_hot_linspace(distances, 0.0, CUTOFF, NUM_RADIAL, basis="bessel", cutoff=False)
    return waves * soft_unit_step(4.0 * (1.0 - distances / CUTOFF))[:, None]
