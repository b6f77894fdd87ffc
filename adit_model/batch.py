"""Many systems as one packed set of atoms: no padding outside attention."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from adit_model.systems import AtomicSystem


@dataclass
class AtomicBatch:
    """A packed batch of S systems with A atoms in all.

    Parameters
    ----------
    numbers : torch.Tensor
        Atomic numbers, shape (A,), int64.
    positions : torch.Tensor
        Cartesian coordinates in angstrom, shape (A, 3).
    cells : torch.Tensor
        Lattice vectors as rows in angstrom, shape (S, 3, 3); the identity for a molecule.
    periodic : torch.Tensor
        Which systems are crystals, shape (S,), bool.
    sizes : torch.Tensor
        Atoms of each system, shape (S,), int64.

    Raises
    ------
    ValueError
        If the shapes do not belong together, or numbers, sizes or ``periodic`` have a wrong dtype.
    """

    numbers: Tensor
    positions: Tensor
    cells: Tensor
    periodic: Tensor
    sizes: Tensor

    def __post_init__(self) -> None:
        self.packing = Packing(self.sizes)
        n_atoms, n_systems = self.packing.num_atoms, self.packing.num_systems
        if self.numbers.ndim != 1 or self.numbers.dtype != torch.int64:
            raise ValueError(
                "numbers must be int64 of shape (A,), "
                f"got {self.numbers.dtype} of shape {tuple(self.numbers.shape)}"
            )
        if len(self.numbers) != n_atoms:
            raise ValueError(f"sizes add up to {n_atoms}, there are {len(self.numbers)} atoms")
        if self.periodic.dtype != torch.bool:
            raise ValueError(f"periodic must be bool, got {self.periodic.dtype}")
        expected = {
            "positions": (n_atoms, 3),
            "cells": (n_systems, 3, 3),
            "periodic": (n_systems,),
        }
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(
                    f"{name} must have shape {shape}, got {tuple(getattr(self, name).shape)}"
                )

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def num_atoms(self) -> int:
        """Atoms in all systems together."""
        return len(self.numbers)

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.positions.device

    @property
    def atom_periodic(self) -> Tensor:
        """Whether each atom belongs to a crystal, shape (A,), bool."""
        return self.periodic[self.packing.index]

    @property
    def frac_coords(self) -> Tensor:
        """Fractional coordinates in crystals, zero in molecules, shape (A, 3)."""
        inverse = torch.linalg.inv(self.cells)[self.packing.index]  # (A, 3, 3)
        # No matmul or einsum: autocast would round those to bfloat16.
        frac = (self.positions[:, :, None] * inverse).sum(dim=1)  # (A, 3)
        return frac * self.atom_periodic[:, None]

    @property
    def cell_parameters(self) -> tuple[Tensor, Tensor]:
        """Lengths in angstrom and angles in radians, each of shape (S, 3)."""
        lengths = self.cells.norm(dim=-1)
        unit = self.cells / lengths[..., None]
        cosines = torch.stack(
            [
                (unit[:, 1] * unit[:, 2]).sum(-1),
                (unit[:, 0] * unit[:, 2]).sum(-1),
                (unit[:, 0] * unit[:, 1]).sum(-1),
            ],
            dim=-1,
        )
        return lengths, torch.arccos(cosines.clamp(-1 + 1e-6, 1 - 1e-6))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> AtomicBatch:
        """Return the batch on another device, its floating tensors in another dtype."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self)}
        if dtype is not None:
            moved["positions"] = moved["positions"].to(dtype)
            moved["cells"] = moved["cells"].to(dtype)
        return AtomicBatch(**moved)

    @classmethod
    def collate(
        cls, systems: Sequence[AtomicSystem], dtype: torch.dtype = torch.float32
    ) -> AtomicBatch:
        """Pack systems.

        Raises
        ------
        ValueError
            If there are none.
        """
        if not systems:
            raise ValueError("cannot collate an empty list of systems")
        cells = np.stack([np.eye(3) if s.cell is None else s.cell for s in systems])
        return cls(
            numbers=torch.from_numpy(np.concatenate([s.numbers for s in systems])),
            positions=torch.from_numpy(np.concatenate([s.positions for s in systems])).to(dtype),
            cells=torch.from_numpy(cells).to(dtype),
            periodic=torch.tensor([s.is_periodic for s in systems]),
            sizes=torch.tensor([len(s) for s in systems]),
        )

    def split(self) -> list[AtomicSystem]:
        """Unpack into single systems, in order.

        Raises
        ------
        ValueError
            If a system cannot exist (coordinates not finite, a cell without volume).
        """
        borders = np.cumsum(self.sizes.tolist())[:-1]
        numbers = np.split(self.numbers.cpu().numpy(), borders)
        positions = np.split(self.positions.detach().cpu().double().numpy(), borders)
        cells = self.cells.detach().cpu().double().numpy()
        return [
            AtomicSystem(z, r, cell if periodic else None)
            for z, r, cell, periodic in zip(
                numbers, positions, cells, self.periodic.tolist(), strict=True
            )
        ]


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Move a tensor; to a GPU from pinned memory, so that nothing waits for the copy."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Packing:
    """Where each atom of a packed batch stands.

    Parameters
    ----------
    sizes : torch.Tensor
        Atoms of each system, shape (S,), int64, all >= 1. Tensors on a device are read back once.
    width : int, optional
        Pad to this size instead of that of the largest system.

    Raises
    ------
    ValueError
        If there are no systems, one has no atoms or more than ``width``, or the sizes are not
        int64.

    Attributes
    ----------
    sizes : torch.Tensor
        As given, shape (S,).
    index : torch.Tensor
        System of each atom, shape (A,).
    rank : torch.Tensor
        Place of each atom within its system, shape (A,).
    max_size : int
        Size that systems are padded to.
    """

    def __init__(self, sizes: Tensor, width: int | None = None) -> None:
        if sizes.ndim != 1 or sizes.dtype != torch.int64:
            raise ValueError(
                f"sizes must be int64 of shape (S,), "
                f"got {sizes.dtype} of shape {tuple(sizes.shape)}"
            )
        listed = sizes.tolist()
        if not listed or min(listed) < 1:
            raise ValueError(f"sizes must be positive and at least one, got {listed}")
        self.sizes = sizes
        self.num_systems = len(listed)
        self.num_atoms = sum(listed)
        self.max_size = max(listed) if width is None else width
        if max(listed) > self.max_size:
            raise ValueError(f"a system of {max(listed)} atoms does not fit width {width}")
        systems = torch.arange(self.num_systems, device=sizes.device)
        self.index = torch.repeat_interleave(systems, sizes, output_size=self.num_atoms)
        starts = torch.cumsum(sizes, 0) - sizes
        self.rank = torch.arange(self.num_atoms, device=sizes.device) - starts[self.index]
        self.slot = self.index * self.max_size + self.rank  # place in the padded array

    def tensors(self) -> list[Tensor]:
        """Tensors that depend on the batch."""
        return [self.sizes, self.index, self.rank, self.slot]

    def replaced(self, tensors: list[Tensor]) -> Packing:
        """Return a packing of as many systems and atoms, of other :meth:`tensors`."""
        other = copy.copy(self)
        other.sizes, other.index, other.rank, other.slot = tensors
        return other

    @property
    def mask(self) -> Tensor:
        """Which padded slots hold atoms, shape (S, max_size), bool."""
        return torch.arange(self.max_size, device=self.sizes.device) < self.sizes[:, None]

    def pad(self, x: Tensor) -> Tensor:
        """Spread atom rows (A, ...) to (S, max_size, ...), zeros elsewhere."""
        padded = x.new_zeros(self.num_systems * self.max_size, *x.shape[1:])
        padded = padded.index_copy(0, self.slot, x)
        return padded.view(self.num_systems, self.max_size, *x.shape[1:])

    def unpad(self, x: Tensor) -> Tensor:
        """Gather (S, max_size, ...) back to atom rows (A, ...)."""
        return x.flatten(0, 1).index_select(0, self.slot)

    def mean(self, x: Tensor) -> Tensor:
        """Average floating atom rows (A, ...) over each system: (S, ...), summed in float32."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        total = wide.new_zeros(self.num_systems, *x.shape[1:]).index_add(0, self.index, wide)
        return (total / self.sizes.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)
