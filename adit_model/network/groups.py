"""A packed batch divided into its crystals and its molecules."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from adit_model.batch import Packing, to_device


class DomainGroups:
    """A packed batch divided into its crystals and its molecules.

    Each domain is padded to its own largest system, and only inside attention.

    Parameters
    ----------
    packing : Packing
        Of the whole batch.
    periodic : torch.Tensor
        Which systems are crystals, shape (S,), bool.
    widths : tuple of int, optional
        Pad molecules, and crystals, to these sizes.
    has_cells : bool
        The last row of each crystal is its cell, not an atom.
    """

    def __init__(
        self,
        packing: Packing,
        periodic: Tensor,
        widths: tuple[int, int] | None = None,
        has_cells: bool = False,
    ) -> None:
        self.packing = packing
        self.periodic = periodic
        self.has_cells = has_cells
        self.groups: list[tuple[bool, Packing]] = []  # is it crystals, where their atoms stand
        self._counts: list[int] = []
        self._order: Tensor | None = None  # atoms of the first group, then of the second
        self._inverse: Tensor | None = None
        self._systems: list[Tensor] = []  # of each group
        kinds = periodic.unique().tolist()
        if len(kinds) == 1:
            self.groups.append((bool(kinds[0]), packing))
            return
        atom_periodic = periodic[packing.index]
        for kind in (True, False):
            systems = torch.nonzero(periodic == kind)[:, 0]
            part = Packing(packing.sizes[systems], None if widths is None else widths[kind])
            self.groups.append((kind, part))
            self._counts.append(part.num_atoms)
            self._systems.append(systems)
        if not bool(periodic[: self.groups[0][1].num_systems].all()):  # else crystals come first
            self._order = torch.argsort(~atom_periodic, stable=True)
            self._inverse = torch.argsort(self._order)

    @classmethod
    def of_atoms(
        cls,
        num_atoms: Tensor,
        periodic: Tensor,
        widths: tuple[int, int] | None = None,
        cells: bool = False,
    ) -> DomainGroups:
        """Make groups of systems of ``num_atoms`` (S,), crystals with a row for the cell or not."""
        sizes = num_atoms + periodic.long() if cells else num_atoms
        return cls(Packing(sizes), periodic, widths, cells)

    @property
    def num_atoms(self) -> Tensor:
        """Atoms of each system, shape (S,)."""
        sizes = self.packing.sizes
        return sizes - self.periodic.long() if self.has_cells else sizes

    @property
    def is_cell(self) -> Tensor:
        """Which rows are cells, shape (T,), bool."""
        index, rank = self.packing.index, self.packing.rank
        last = rank + 1 == self.packing.sizes[index]
        return last & self.periodic[index] if self.has_cells else torch.zeros_like(last)

    @property
    def kinds(self) -> Tensor:
        """What each row is: 0 atom of a molecule, 1 atom of a crystal, 2 cell, shape (T,)."""
        return self.periodic[self.packing.index].long() + self.is_cell.long()

    @property
    def crystals(self) -> Tensor:
        """Places of the crystals among the systems, shape (C,)."""
        if self._systems:  # of the crystals, then of the molecules
            return self._systems[0]
        count = self.packing.num_systems if self.groups[0][0] else 0
        return torch.arange(count, device=self.periodic.device)

    @property
    def cells(self) -> Tensor:
        """Rows of the cells, in the order of the crystals, shape (C,)."""
        if not self.has_cells:
            return self.periodic.new_zeros(0, dtype=torch.int64)
        return (self.packing.sizes.cumsum(0) - 1).index_select(0, self.crystals)

    @property
    def atoms(self) -> Tensor:
        """Rows of the atoms, shape (A,)."""
        return torch.nonzero(~self.is_cell)[:, 0]

    def tensors(self) -> list[Tensor]:
        """Tensors that depend on the batch, always in the same order."""
        found = [self.periodic, *self.packing.tensors()]
        for _, part in self.groups:
            if part is not self.packing:
                found += part.tensors()
        found += self._systems
        if self._order is not None and self._inverse is not None:
            found += [self._order, self._inverse]
        return found

    def replaced(self, tensors: Sequence[Tensor]) -> DomainGroups:
        """Return groups of as many systems and atoms, of other :meth:`tensors`."""
        rest = list(tensors)

        def take(number: int) -> list[Tensor]:
            taken = rest[:number]
            del rest[:number]
            return taken

        other = copy.copy(self)
        (other.periodic,) = take(1)
        other.packing = self.packing.replaced(take(4))
        other.groups = [
            (kind, other.packing if part is self.packing else part.replaced(take(4)))
            for kind, part in self.groups
        ]
        other._systems = take(len(self._systems))
        if self._order is not None:
            other._order, other._inverse = take(2)
        return other

    def to(self, device: torch.device | str) -> DomainGroups:
        """Return the groups on another device; nothing waits for it."""
        return self.replaced([to_device(tensor, device) for tensor in self.tensors()])

    def systems(self, x: Tensor) -> list[Tensor]:
        """System rows (S, ...) of each group."""
        if not self._systems:
            return [x]
        return [x.index_select(0, systems) for systems in self._systems]

    def split(self, x: Tensor) -> list[Tensor]:
        """Atom rows (A, ...) of each group."""
        if not self._counts:
            return [x]
        if self._order is not None:
            x = x.index_select(0, self._order)
        return list(x.split(self._counts))

    def join(self, parts: list[Tensor]) -> Tensor:
        """Put the atom rows of the groups back into the order of the batch."""
        if not self._counts:
            return parts[0]
        x = torch.cat(parts)
        return x if self._inverse is None else x.index_select(0, self._inverse)
