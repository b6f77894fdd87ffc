"""What the denoiser is told of the systems it makes, as tensors, and how it takes that in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from adit_model.batch import to_device
from adit_model.network.groups import DomainGroups
from adit_model.network.layers import MLP

NULL_CLASS, CRYSTAL_CLASS, MOLECULE_CLASS = 0, 1, 2
NUM_ELEMENTS = 119  # atomic numbers, and 0 for none
NUM_SPACE_GROUPS = 231  # 1 to 230, and 0 for none
PROPERTY_RADIAL = 16
PROPERTY_FEATURES = PROPERTY_RADIAL + 2
PROPERTY_RANGE = 3.0  # standard deviations that the radial functions span
GUIDED = ("elements", "element_set", "space_group", "properties")
FIELDS = {  # of what is told, by the kind of condition that guidance compares with and without
    "elements": ("elements", "element_set"),
    "formula": ("elements",),
    "space_group": ("space_group",),
    "properties": ("properties",),
}


@dataclass
class Told:
    """What the denoiser is told of a packed batch of S systems with T rows of latents.

    A row is an atom or, the last of each crystal where the model has a row for it, a cell. What is
    not told has the null value; :meth:`nothing` makes that. Domain and number of atoms are always
    told.

    Parameters
    ----------
    domain : torch.Tensor
        Class of each system: 1 crystal, 2 molecule, shape (S,), int64. 0, hidden, is known to
        models without ``conditions`` alone.
    elements : torch.Tensor
        Atomic number that each atom shall have, 0 where it is free and for cells, shape (T,),
        int64.
    fixed : torch.Tensor
        Rows whose geometry is given, shape (T,), bool: fixed sites (channels 0 to 2 of an atom),
        a given cell (channels 0 to 5 of its row). They are reset at every call and come back as
        they were given. The sites of a crystal may have any origin; a molecule may have any
        orientation, with the mean of its fixed atoms at the origin.
    values : torch.Tensor
        Normalised latents of the fixed rows, other rows do not count, shape (T, L).
    element_set : torch.Tensor
        1 for each element the system shall hold and no others, by atomic number; all zero where
        it is not told, shape (S, 119), float.
    space_group : torch.Tensor
        1 to 230, or 0 where it is not told, shape (S,), int64.
    properties : torch.Tensor
        Standardised (less the mean, over the standard deviation, both of the training data) in
        the order of the model's ``properties``; NaN where it is not told, shape (S, P).
    """

    domain: Tensor
    elements: Tensor
    fixed: Tensor
    values: Tensor
    element_set: Tensor
    space_group: Tensor
    properties: Tensor

    @classmethod
    def nothing(cls, groups: DomainGroups, latent_dim: int, num_properties: int = 0) -> Told:
        """Tell nothing but the domain."""
        rows, systems = groups.packing.num_atoms, groups.packing.num_systems
        device = groups.periodic.device
        return cls(
            domain=torch.where(groups.periodic, CRYSTAL_CLASS, MOLECULE_CLASS),
            elements=torch.zeros(rows, dtype=torch.int64, device=device),
            fixed=torch.zeros(rows, dtype=torch.bool, device=device),
            values=torch.zeros(rows, latent_dim, device=device),
            element_set=torch.zeros(systems, NUM_ELEMENTS, device=device),
            space_group=torch.zeros(systems, dtype=torch.int64, device=device),
            properties=torch.full((systems, num_properties), torch.nan, device=device),
        )

    def without(self, kinds: tuple[str, ...] = GUIDED) -> Told:
        """Tell the same but for some kinds: what guidance compares with.

        Parameters
        ----------
        kinds : tuple of str
            Names of fields.
        """
        nulls = {kind: torch.zeros_like(getattr(self, kind)) for kind in kinds}
        if "properties" in nulls:
            nulls["properties"] = torch.full_like(self.properties, torch.nan)
        return replace(self, **nulls)

    def is_guided(self, kinds: tuple[str, ...] = GUIDED) -> bool:
        """Whether anything of these kinds is told."""
        return any(
            bool((values.isfinite() if kind == "properties" else values != 0).any())
            for kind, values in ((kind, getattr(self, kind)) for kind in kinds)
        )

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]

    def to(self, device: torch.device | str) -> Told:
        """Return the same on another device."""
        return Told(*(to_device(tensor, device) for tensor in self.tensors()))

    def given(self, groups: DomainGroups) -> Tensor:
        """Channels that are given, shape (T, L), bool."""
        channel = torch.arange(self.values.shape[1], device=self.fixed.device)
        number = torch.where(groups.is_cell, 6, 3)[:, None]
        return self.fixed[:, None] & (channel < number)


class ConditionEmbedding(nn.Module):
    """Embed what is told of whole systems; nothing told, and a new embedding, add zero.

    Parameters
    ----------
    dim : int
        Width of the denoiser.
    num_properties : int
        Scalar properties.
    """

    def __init__(self, dim: int, num_properties: int) -> None:
        super().__init__()
        self.num_properties = num_properties
        self.space_group = nn.Embedding(NUM_SPACE_GROUPS, dim)
        self.element_set = MLP(NUM_ELEMENTS, dim, dim, silu=True)
        self.properties = (
            MLP(num_properties * PROPERTY_FEATURES, dim, dim, silu=True) if num_properties else None
        )
        nn.init.zeros_(self.space_group.weight)
        for mlp in (self.element_set, self.properties):
            for parameter in () if mlp is None else mlp[2].parameters():
                nn.init.zeros_(parameter)

    def forward(self, told: Told) -> Tensor:
        """Sum of the embeddings, shape (S, D)."""
        is_told = (told.space_group > 0)[:, None]
        out = self.space_group.weight.index_select(0, told.space_group) * is_told
        elements = told.element_set.to(out)
        out = out + self.element_set(elements) * (elements.sum(-1, keepdim=True) > 0)
        if self.properties is not None:
            known = told.properties.isfinite()
            features = property_features(told.properties.to(out)).flatten(1)
            out = out + self.properties(features) * known.any(-1, keepdim=True)
        return out


def property_features(values: Tensor) -> Tensor:
    """Features of standardised values (S, P), zero where they are NaN, shape (S, P, 18)."""
    known = values.isfinite()
    x = values.nan_to_num(0.0, 0.0, 0.0).clamp(-2 * PROPERTY_RANGE, 2 * PROPERTY_RANGE)[..., None]
    centres = torch.linspace(
        -PROPERTY_RANGE, PROPERTY_RANGE, PROPERTY_RADIAL, device=x.device, dtype=x.dtype
    )
    width = 2 * PROPERTY_RANGE / (PROPERTY_RADIAL - 1)
    radial = (-0.5 * ((x - centres) / width).square()).exp()
    return torch.cat([torch.ones_like(x), x, radial], dim=-1) * known[..., None]
