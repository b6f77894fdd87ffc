"""What is imposed on the predictions of the sampler: fixed atoms, elements, symmetry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from adit_model.conditions.atoms import ElementChoice
from adit_model.network.cells import CELL_DIM, cell_metric, metric_numbers
from adit_model.network.denoiser import Denoiser
from adit_model.network.exact import ExactAutoencoder
from adit_model.network.groups import DomainGroups
from adit_model.sampling.symmetry import Template, nearby_template
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from adit_model.sampling.request import Draw

Impose = Callable[[Tensor, float], Tensor]  # changes a prediction of x_1, made at a time

SIZE_STEP = 16  # operators are padded to a multiple of this, as attention is
FREE_FROM = 0.7  # time from which free coordinates move; earlier, images merge at mirror planes
FOUND_AT = 0.6  # time from which the symmetry that a crystal nearly has is looked for, and imposed
EVEN_FROM = 0.7  # time from which the elements of molecules are nearly certain
LEAST_SHARE = 1e-9


def fixed_atoms(draws: Sequence[Draw], x: Tensor) -> Impose:
    """Put the latents of the fixed atoms of a batch into its predictions, which are as ``x``."""
    rows: list[np.ndarray] = []
    values: list[np.ndarray] = []
    start = 0
    for draw in draws:
        if draw.fixed is not None and draw.fixed_latents is not None:
            rows.append(start + draw.fixed)
            values.append(draw.fixed_latents)
        start += len(draw.noise)
    index = torch.from_numpy(np.concatenate(rows)).to(x.device)
    latents = torch.from_numpy(np.concatenate(values)).to(x)
    return lambda x_1, _: x_1.index_copy(0, index, latents)


class ElementProjection:
    """Give the atoms of molecules elements that their choice allows, from a time on.

    Where the likeliest elements of a prediction break the rule, those atoms that
    :meth:`~adit_model.conditions.atoms.ElementChoice.choose` changes get the code of their new
    element. The other atoms and the bonds follow in the steps that are left.

    Parameters
    ----------
    autoencoder : ExactAutoencoder
        Has the code of each element.
    elements : sequence of int
        Atomic numbers that molecules can hold.
    denoiser : Denoiser
        Whose predictions are changed.
    choices : sequence of ElementChoice or None
        Of the first systems of the batch; None leaves a system alone.
    groups : DomainGroups
        Of the batch.
    """

    def __init__(
        self,
        autoencoder: ExactAutoencoder,
        elements: Sequence[int],
        denoiser: Denoiser,
        choices: Sequence[ElementChoice | None],
        groups: DomainGroups,
    ) -> None:
        self.elements = np.array(elements)
        stops = [0, *groups.packing.sizes.cumsum(0).tolist()]
        self.parts = [
            (choice, slice(*rows))
            for choice, rows in zip(choices, pairwise(stops), strict=False)
            if choice is not None
        ]
        code = autoencoder.code.weight.detach()
        latents = torch.nn.functional.pad(code, (3, 0))
        kinds = torch.zeros(len(code), dtype=torch.long, device=code.device)  # of molecules
        self.code = denoiser.normalise(latents, kinds)[:, 3:]
        code = self.code.double().cpu().numpy()[self.elements].T
        self.mixture = np.vstack([code, np.ones(len(self.elements))])  # (F + 1, K)
        self.num_elements = len(self.code)

    @torch.no_grad()
    def __call__(self, x_1: Tensor, time: float) -> Tensor:
        """Change a prediction of x_1, shape (T, L), made at a time."""
        if time < EVEN_FROM:
            return x_1
        features = x_1[:, 3:].double().cpu().numpy()
        free = ElementChoice()
        rows: list[int] = []
        numbers: list[int] = []
        for choice, part in self.parts:
            logits = self._log_shares(features[part])
            chosen = choice.choose(logits)
            changed = np.flatnonzero(chosen != free.choose(logits))
            rows.extend((part.start + changed).tolist())
            numbers.extend(chosen[changed].tolist())
        if not rows:
            return x_1
        at = torch.tensor(rows, device=x_1.device)
        code = self.code[torch.tensor(numbers, device=x_1.device)].to(x_1)
        return x_1.index_copy(0, at, torch.cat([x_1[at, :3], code], dim=1))

    def _log_shares(self, features: np.ndarray) -> np.ndarray:
        """Logarithms of the shares of elements in predicted codes (N, F), shape (N, E).

        A prediction is the mean over what an atom can be: a mixture of codes, whose shares are
        the probabilities of its elements.
        """
        shares = np.full((len(features), self.num_elements), LEAST_SHARE)
        for row, feature in zip(shares, features, strict=True):
            row[self.elements] += nnls(self.mixture, np.append(feature, 1.0))[0]
        return np.log(shares)


class SymmetryProjection:
    """Project predictions of x_1 on the structures that have the symmetry of templates.

    Coordinates: displacements from the template that break its symmetry vanish, the others stay as
    they are, but only at late times. Cell: its metric tensor is averaged over the rotations, at the
    same volume. Code of the elements: averaged over orbits.

    Parameters
    ----------
    denoiser : Denoiser
        Its normalisation; the last row of each crystal is its cell.
    templates : sequence of Template or None
        Of the first systems of the batch, at least one.
    groups : DomainGroups
        Of the batch.
    free_from : float
        Time from which free coordinates are the prediction's; earlier, they are the templates'.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        templates: Sequence[Template | None],
        groups: DomainGroups,
        free_from: float = FREE_FROM,
    ) -> None:
        self.free_from = free_from
        device, float_type = denoiser.latent_mean.device, denoiser.latent_mean.dtype
        mean = denoiser.latent_mean[1, :3].double().cpu().numpy()
        std = denoiser.latent_std[1, :3].double().cpu().numpy()
        stops = groups.packing.sizes.cumsum(0).tolist()
        used = [(t, stop - 1) for t, stop in zip(templates, stops, strict=False) if t is not None]
        width = -(-max(len(t.numbers) for t, _ in used) // SIZE_STEP) * SIZE_STEP
        shape = len(used), width
        projectors, sharers = (np.zeros((*shape, 3, width, 3)) for _ in range(2))
        anchors, metrics = np.zeros((*shape, 3)), np.zeros((len(used), 9, 9))
        rows, orbits = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        is_atom = np.zeros(shape, bool)
        for i, (template, cell) in enumerate(used):
            n, scale = len(template.numbers), std / std[:, None, None]
            projectors[i, :n, :, :n] = template.projector() * scale
            sharers[i, :n, :, :n] = template.sharer() * scale
            anchors[i, :n] = (2 * template.frac_coords - 1 - mean) / std
            r = template.rotations
            metrics[i] = np.einsum("gki,glj->ijkl", r, r).reshape(9, 9) / len(r)
            rows[i, :n] = cell - n + np.arange(n)
            orbits[i, :n] = i * width + template.orbits
            is_atom[i, :n] = True

        def tensor(x: np.ndarray) -> Tensor:
            return torch.from_numpy(x).to(device, float_type)

        def index(x: np.ndarray) -> Tensor:
            return torch.from_numpy(x).to(device)

        matrices = projectors.reshape(len(used), 3 * width, -1)
        flat = anchors.reshape(len(used), -1)
        self.projectors, self.offsets = (
            tensor(matrices),
            tensor(flat - (matrices @ flat[..., None])[..., 0]),
        )
        self.sharers = tensor(sharers.reshape(matrices.shape))
        self.anchors = tensor(anchors[is_atom])
        self.padded_rows, self.rows = index(rows.reshape(-1)), index(rows[is_atom])
        self.is_atom = index(np.flatnonzero(is_atom))
        labels = np.unique(orbits[is_atom], return_inverse=True)[1]
        self.orbits, self.orbit_sizes = index(labels), tensor(np.bincount(labels))[:, None]
        self.cells, self.metrics = index(np.array([cell for _, cell in used])), index(metrics)
        self.cell_mean = denoiser.latent_mean[2, :CELL_DIM].double()
        self.cell_std = denoiser.latent_std[2, :CELL_DIM].double()
        self.systems = index(np.isin(np.array(stops) - 1, [cell for _, cell in used]))

    def anchored(self, x: Tensor) -> Tensor:
        """Rows with the coordinates of the templates in place of their own, shape (T, L)."""
        result = x.clone()
        result[self.rows, :3] = self.anchors.to(x)
        return result

    def shared_noise(self, noise: Tensor) -> Tensor:
        """Noise as symmetric as what it is added to, shape (T, L).

        Atoms of an orbit have the code's noise and, turned, that of free coordinates in common,
        each of unit variance. Independent noise would average out over the orbit, and predictions
        with it: few elements, and coordinates that stay at more symmetric places.
        """
        code = self._orbit_sums(noise) / self.orbit_sizes.sqrt()
        return self._replaced(noise, self._coordinates(noise, self.sharers), code)

    def __call__(self, x_1: Tensor, time: float = 1.0) -> Tensor:
        """Project a prediction of some time, normalised latents of shape (T, L)."""
        code = self._orbit_sums(x_1) / self.orbit_sizes
        xyz = self._coordinates(x_1, self.projectors, self.offsets)
        if time < self.free_from:
            xyz = self.anchors.to(xyz)
        result = self._replaced(x_1, xyz, code)
        cells = x_1.index_select(0, self.cells)
        cells = torch.cat([self._symmetric(cells[:, :CELL_DIM]), cells[:, CELL_DIM:]], dim=1)
        return result.index_copy(0, self.cells, cells)

    def _coordinates(self, x: Tensor, matrices: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Map the coordinates of the atoms, shape (A, 3)."""
        xyz = x.index_select(0, self.padded_rows)[:, :3].reshape(len(matrices), 1, -1)
        xyz = (matrices * xyz).sum(-1)  # matrix products round otherwise where there is but one
        xyz = xyz if offsets is None else xyz + offsets
        return xyz.reshape(-1, 3).index_select(0, self.is_atom)

    def _orbit_sums(self, x: Tensor) -> Tensor:
        """Sum the code over each orbit, shape (O, L - 3)."""
        code = x.index_select(0, self.rows)[:, 3:]
        return code.new_zeros(len(self.orbit_sizes), code.shape[1]).index_add(0, self.orbits, code)

    def _replaced(self, x: Tensor, xyz: Tensor, code: Tensor) -> Tensor:
        """Put coordinates of the atoms (A, 3) and codes of the orbits (O, L - 3) into rows."""
        atoms = torch.cat([xyz, code.index_select(0, self.orbits)], dim=1)
        return x.index_copy(0, self.rows, atoms)

    def _symmetric(self, cells: Tensor) -> Tensor:
        """Average normalised cells (S, 6) over the rotations."""
        numbers = cells.double() * self.cell_std + self.cell_mean
        sizes = torch.ones_like(numbers[:, 0])
        metric = cell_metric(numbers.clamp(-10, 10), sizes)
        metric = (self.metrics * metric.reshape(-1, 1, 9)).sum(-1).reshape(-1, 3, 3)
        result = metric_numbers(metric, sizes)
        change = (numbers[:, :3].sum(1) - result[:, :3].sum(1)) / 3  # the volume stays
        result = torch.cat([result[:, :3] + change[:, None], result[:, 3:]], dim=1)
        return ((result - self.cell_mean) / self.cell_std).to(cells)


class FoundSymmetry:
    """Impose the symmetry that crystals nearly have, from when it is found.

    It is looked for in each prediction from :data:`FOUND_AT` on.

    Parameters
    ----------
    denoiser : Denoiser
        See :class:`SymmetryProjection`.
    decode : callable
        Makes the systems of predictions (T, L), in the order of the batch; None where there is
        none.
    wanted : sequence of bool
        Of the first systems of the batch, whether symmetry is looked for.
    groups : DomainGroups
        Of the batch.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        decode: Callable[[Tensor], Iterable[AtomicSystem | None]],
        wanted: Sequence[bool],
        groups: DomainGroups,
    ) -> None:
        self.denoiser, self.decode, self.groups = denoiser, decode, groups
        self.wanted = list(wanted)
        self.templates: list[Template | None] = [None] * len(self.wanted)
        self.projection: SymmetryProjection | None = None

    def __call__(self, x_1: Tensor, time: float) -> Tensor:
        """Project a prediction of some time, normalised latents of shape (T, L)."""
        if time >= FOUND_AT and any(self.wanted):
            found = False
            systems = list(zip(self.decode(x_1), self.wanted, strict=False))
            for i, (system, wanted) in enumerate(systems):
                if system is None or not wanted:
                    continue
                self.templates[i] = nearby_template(system)
                if self.templates[i] is not None:
                    self.wanted[i], found = False, True
            if found:
                self.projection = SymmetryProjection(
                    self.denoiser, self.templates, self.groups, free_from=FOUND_AT
                )
        return x_1 if self.projection is None else self.projection(x_1, time)


def composed(maps: Sequence[Impose]) -> Impose:
    """Apply one after the other to what comes with a time."""

    def apply(x: Tensor, time: float) -> Tensor:
        for one in maps:
            x = one(x, time)
        return x

    return apply
