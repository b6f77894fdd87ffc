"""Which systems a step sees: a function of (seed, step) alone, so a run can resume exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from adit_model.batch import AtomicBatch, Packing, to_device
from adit_model.network.groups import DomainGroups

if TYPE_CHECKING:
    from adit_model.data.dataset import AtomicDataset

DEALT_STEPS = 8
LEVEL_STEP = 3  # atoms by which a system may differ from the one it is exchanged for


@dataclass
class StepSampler:
    """Draw the systems of each step, each domain from its own endless series of permutations.

    Parameters
    ----------
    periodic : numpy.ndarray
        Which systems of the data are crystals, shape (S,), bool.
    batch_size : int
        Systems a step over all processes.
    crystal_fraction : float
        Share of crystals where the data hold both domains.
    seed : int
        Of the permutations.
    rank, world : int
        This process, and how many there are; each gets every ``world``-th system of a batch.
    sizes : numpy.ndarray, optional
        Atoms of each system, shape (S,). With them every batch holds the same number of atoms of a
        domain: a few systems are exchanged for slightly smaller or larger ones.
    alike : numpy.ndarray, optional
        Atoms of each system, shape (S,). With them the systems of a domain in a batch are about as
        large as one another, which leaves less to pad: the systems of eight steps are sorted by
        size and dealt anew.

    Raises
    ------
    ValueError
        If a domain has no place in the batch, or a process none.
    """

    periodic: np.ndarray
    batch_size: int
    crystal_fraction: float
    seed: int
    rank: int = 0
    world: int = 1
    sizes: np.ndarray | None = None
    alike: np.ndarray | None = None

    def __post_init__(self) -> None:
        pools = [np.flatnonzero(self.periodic), np.flatnonzero(~self.periodic)]
        crystals = round(self.batch_size * self.crystal_fraction)
        counts = [crystals, self.batch_size - crystals]
        if not len(pools[0]) or not len(pools[1]):
            counts = [self.batch_size * bool(len(pool)) for pool in pools]
        elif 0 < self.crystal_fraction < 1 and 0 in counts:
            raise ValueError(
                f"batch_size {self.batch_size} has no place for both domains at crystal_fraction "
                f"{self.crystal_fraction}"
            )
        if self.batch_size < self.world:
            raise ValueError(f"batch_size {self.batch_size} is less than {self.world} processes")
        self.parts = [(d, p, c) for d, (p, c) in enumerate(zip(pools, counts, strict=True)) if c]
        self._by_size: dict[int, tuple[dict[int, np.ndarray], float]] = {}
        if self.sizes is not None:
            for domain, pool, _ in self.parts:
                sizes = self.sizes[pool]
                members = {int(n): pool[sizes == n] for n in np.unique(sizes)}
                self._by_size[domain] = (members, float(sizes.mean()))
        self._permutation = lru_cache(maxsize=4)(self._draw)

    def _draw(self, domain: int, epoch: int) -> np.ndarray:
        size = {d: len(p) for d, p, _ in self.parts}[domain]
        return np.random.default_rng([self.seed, domain, epoch]).permutation(size)

    @property
    def mixed(self) -> bool:
        """Whether every process sees every domain of the data, and both, at every step."""
        return len(self.parts) == 2 and min(count for *_, count in self.parts) >= self.world

    def _level(self, chosen: np.ndarray, domain: int, step: int) -> np.ndarray:
        """Exchange systems until the batch holds as many atoms as batches do on average."""
        assert self.sizes is not None
        members, mean = self._by_size[domain]
        random = np.random.default_rng([self.seed, domain, step, 1])
        chosen = chosen.copy()
        excess = int(self.sizes[chosen].sum()) - round(mean * len(chosen))
        while excess:
            before = excess
            for place in random.permutation(len(chosen)):
                size = int(self.sizes[chosen[place]])
                nearer = np.sign(excess) * np.arange(min(LEVEL_STEP, abs(excess)), 0, -1)
                wanted = next((n for n in (size - nearer).tolist() if n in members), size)
                if wanted != size:
                    chosen[place] = random.choice(members[wanted])
                    excess -= size - wanted
                if not excess:
                    break
            if excess == before:
                raise ValueError(
                    "batches of a fixed number of atoms need systems of more sizes: leave out "
                    "cuda_graphs"
                )
        return chosen

    def indices(self, step: int) -> np.ndarray:
        """Systems of this process at a step, crystals first."""
        chosen = []
        for domain, pool, count in self.parts:
            if self.alike is None:
                here = self._stream(domain, pool, step * count, count)
            else:
                here = self._dealt(domain, pool, step, count)
            chosen.append(here if self.sizes is None else self._level(here, domain, step))
        return np.concatenate(chosen)[self.rank :: self.world]

    def _stream(self, domain: int, pool: np.ndarray, start: int, count: int) -> np.ndarray:
        """Systems of a domain at places of its series of permutations."""
        epochs, within = np.divmod(np.arange(start, start + count), len(pool))
        return np.concatenate(
            [
                pool[self._permutation(domain, int(epoch))[within[epochs == epoch]]]
                for epoch in np.unique(epochs)
            ]
        )

    def _dealt(self, domain: int, pool: np.ndarray, step: int, count: int) -> np.ndarray:
        """Systems of a domain at a step, those of some steps being sorted by size."""
        assert self.alike is not None
        window, place = divmod(step, DEALT_STEPS)
        number = DEALT_STEPS * count
        found = self._stream(domain, pool, window * number, number)
        found = found[np.argsort(self.alike[found], kind="stable")].reshape(DEALT_STEPS, count)
        order = np.random.default_rng([self.seed, domain, window, 2]).permutation(DEALT_STEPS)
        return found[order[place]]


class SystemSource:
    """Packed batches of systems, for stage 1."""

    def __init__(self, dataset: AtomicDataset) -> None:
        self.dataset = dataset
        self.periodic, self.sizes = dataset.periodic, dataset.sizes

    def batch(self, indices: np.ndarray) -> AtomicBatch:
        """Pack the systems at ``indices``."""
        data = self.dataset
        atoms = atom_rows(data.offsets, indices)
        cells = data.cells[indices]
        periodic = self.periodic[indices]
        cells = np.where(periodic[:, None, None], cells, np.eye(3, dtype=np.float32))
        return AtomicBatch(
            numbers=torch.from_numpy(data.numbers[atoms].astype(np.int64)),
            positions=torch.from_numpy(data.positions[atoms]),
            cells=torch.from_numpy(cells),
            periodic=torch.from_numpy(periodic),
            sizes=torch.from_numpy(data.sizes[indices].astype(np.int64)),
        )


@dataclass
class LatentBatch:
    """Packed latents, for stage 2.

    Parameters
    ----------
    latents : torch.Tensor
        Shape (T, L).
    groups : DomainGroups
        Of the batch.
    numbers : torch.Tensor
        Atomic numbers, 0 for a cell, shape (T,).
    space_groups : torch.Tensor
        0 where unknown, shape (S,).
    properties : torch.Tensor
        Standardised, NaN where unknown, shape (S, P).
    """

    latents: Tensor
    groups: DomainGroups
    numbers: Tensor
    space_groups: Tensor
    properties: Tensor

    def __len__(self) -> int:
        return self.packing.num_systems

    @property
    def num_atoms(self) -> int:
        """Rows of latents of all systems together."""
        return len(self.latents)

    def to(self, device: torch.device | str) -> LatentBatch:
        """Return the batch on another device."""
        rest = (self.latents, self.numbers, self.space_groups, self.properties)
        latents, *labels = (to_device(tensor, device) for tensor in rest)
        return LatentBatch(latents, self.groups.to(device), *labels)

    @property
    def packing(self) -> Packing:
        """Where each row stands."""
        return self.groups.packing

    @property
    def periodic(self) -> Tensor:
        """Which systems are crystals, shape (S,), bool."""
        return self.groups.periodic


class LatentSource:
    """Packed batches of cached latents.

    Parameters
    ----------
    latents : numpy.ndarray
        Shape (T, L), float32; of each crystal one row more than atoms where ``has_cells``.
    dataset : AtomicDataset
        What they are of.
    has_cells : bool
        The last row of each crystal is its cell.
    properties : numpy.ndarray, optional
        Standardised labels, NaN where unknown, shape (S, P).
    """

    def __init__(
        self,
        latents: np.ndarray,
        dataset: AtomicDataset,
        has_cells: bool = False,
        properties: np.ndarray | None = None,
    ) -> None:
        self.widths: tuple[int, int] | None = None  # see DomainGroups
        self.latents, self.periodic, self.has_cells = latents, dataset.periodic, has_cells
        self.sizes = dataset.sizes + (self.periodic if has_cells else 0)  # rows of each system
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])
        numbers = dataset.numbers.astype(np.int64)
        if has_cells:
            after = dataset.offsets[1:][self.periodic]
            numbers = np.insert(numbers, after, 0)
        self.numbers = numbers
        self.space_groups = dataset.space_groups.astype(np.int64)
        empty = np.zeros((len(self.sizes), 0))
        given = empty if properties is None else properties
        self.properties = np.asarray(given, dtype=np.float32)

    def batch(self, indices: np.ndarray) -> LatentBatch:
        """Pack the latents of the systems at ``indices``."""
        rows = atom_rows(self.offsets, indices)
        periodic = torch.from_numpy(self.periodic[indices])
        sizes = torch.from_numpy(self.sizes[indices].astype(np.int64))
        return LatentBatch(
            torch.from_numpy(self.latents[rows]),
            DomainGroups(Packing(sizes), periodic, self.widths, self.has_cells),
            torch.from_numpy(self.numbers[rows]),
            torch.from_numpy(self.space_groups[indices]),
            torch.from_numpy(self.properties[indices]),
        )

    def largest(self) -> tuple[int, int]:
        """Rows of the largest molecule and of the largest crystal, 0 without any."""
        molecules, crystals = self.sizes[~self.periodic], self.sizes[self.periodic]
        return int(molecules.max(initial=0)), int(crystals.max(initial=0))


def atom_rows(offsets: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Rows of the atoms of the systems at ``indices``, in order."""
    starts, sizes = offsets[indices], offsets[indices + 1] - offsets[indices]
    shift = np.repeat(starts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    return np.arange(sizes.sum()) + shift


class StepBatches(IterableDataset):
    """Endless batches from a step onwards, each with the number of its step."""

    def __init__(
        self, source: SystemSource | LatentSource, sampler: StepSampler, start: int = 0
    ) -> None:
        super().__init__()
        self.source, self.sampler, self.start = source, sampler, start

    def __iter__(self) -> Iterator[tuple[int, AtomicBatch | LatentBatch]]:
        step = self.start
        while True:
            yield step, self.source.batch(self.sampler.indices(step))
            step += 1


class FixedBatches(Dataset):
    """The same few batches each time, numbered from -1 downwards: validation."""

    def __init__(
        self, source: SystemSource | LatentSource, size: int, batch_size: int, seed: int = 0
    ) -> None:
        self.source = source
        order = np.random.default_rng(seed).permutation(len(source.periodic))[:size]
        self.chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, i: int) -> tuple[int, AtomicBatch | LatentBatch]:
        return -1 - i, self.source.batch(self.chunks[i])


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """Random numbers of one step of one process, independent of all before."""
    state = np.random.SeedSequence([seed, step & 0xFFFFFFFF, rank]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
