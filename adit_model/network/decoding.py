"""From latents to arrays and systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adit_model.conditions.atoms import ElementChoice
from adit_model.geometry import parameters_to_cell, unphysical_cell
from adit_model.network.autoencoder import Decoded
from adit_model.network.exact import AnyAutoencoder
from adit_model.network.groups import DomainGroups
from adit_model.systems import CRYSTAL, MOLECULE, AtomicSystem


@torch.no_grad()
def decode_latents(
    autoencoder: AnyAutoencoder,
    latents: Tensor,
    sizes: Tensor,
    periodic: Tensor,
    choices: Sequence[ElementChoice | None] | None = None,
) -> list[dict[str, Any]]:
    """Decode packed latents.

    Parameters
    ----------
    autoencoder : Autoencoder or ExactAutoencoder
        Whose decoder to use.
    latents : torch.Tensor
        Shape (A, latent_dim), on the scale of the autoencoder; where that is exact, with a row
        for the cell after those of each crystal's atoms.
    sizes, periodic : torch.Tensor
        Atoms of each system and whether it is a crystal, shape (S,).
    choices : sequence of ElementChoice or None
        How the elements of the first systems are chosen; otherwise the likeliest of each atom.

    Returns
    -------
    list of dict
        ``numbers`` (N,); crystals: ``frac_coords`` (N, 3), ``lengths`` (3,) in angstrom,
        ``angles`` (3,) in degrees; molecules: ``positions`` (N, 3) in angstrom.
    """
    groups = DomainGroups.of_atoms(sizes, periodic, cells=autoencoder.config.exact)
    return unpack_decoded(autoencoder.decode(latents, groups), groups, choices)


def unpack_decoded(
    out: Decoded, groups: DomainGroups, choices: Sequence[ElementChoice | None] | None = None
) -> list[dict[str, Any]]:
    """Turn decoder output into one dictionary of arrays for each system."""
    sizes = groups.num_atoms.cpu().numpy()
    cuts = np.cumsum(sizes)[:-1]
    logits = np.split(_numpy(out.element_logits), cuts)
    frac = np.split(_numpy(out.frac_coords), cuts)
    positions = np.split(_numpy(out.positions), cuts)
    lengths = _numpy(out.scaled_lengths) * sizes[:, None] ** (1 / 3)
    angles = np.degrees(_numpy(out.angles))
    free = ElementChoice()
    result: list[dict[str, Any]] = []
    for i, periodic in enumerate(groups.periodic.tolist()):
        choice = choices[i] if choices is not None and i < len(choices) else None
        numbers = (choice or free).choose(logits[i])
        raw: dict[str, Any] = {"numbers": numbers, "domain": CRYSTAL if periodic else MOLECULE}
        if periodic:
            wrapped = frac[i] - np.floor(frac[i])
            raw.update(frac_coords=wrapped, lengths=lengths[i], angles=angles[i])
        else:
            raw.update(positions=positions[i])
        result.append(raw)
    return result


def _numpy(x: Tensor) -> np.ndarray:
    """Copy to float64 on the CPU, in this order: some devices have no float64."""
    return x.detach().cpu().double().numpy()


def raw_to_system(raw: Mapping[str, Any]) -> tuple[AtomicSystem | None, str | None]:
    """Build the system a decoded dictionary describes, or say why it describes none."""
    if raw["domain"] == MOLECULE:
        if not np.isfinite(raw["positions"]).all():
            return None, "decoded positions are not finite"
        return AtomicSystem(raw["numbers"], raw["positions"]), None
    if not np.isfinite(raw["frac_coords"]).all():
        return None, "decoded fractional coordinates are not finite"
    if "cell" in raw:  # it was asked for
        return AtomicSystem(raw["numbers"], raw["frac_coords"] @ raw["cell"], raw["cell"]), None
    angles = np.radians(raw["angles"])
    reason = unphysical_cell(raw["lengths"], angles)
    if reason is not None:
        return None, reason
    cell = parameters_to_cell(raw["lengths"], angles)
    return AtomicSystem(raw["numbers"], raw["frac_coords"] @ cell, cell), None
