"""Sites for atoms in a crystal, by geometry and the symmetry of the host: no network is asked.

An atom goes into a void, as far from all others as can be; hydrogen, too, to a bond length of a
nonmetal, away from the rest. The symmetry that the host has is kept: what is added fills whole
orbits of its space group. Where none fit in number, those of cyclic subgroups are tried, and at
last atoms alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from scipy.spatial import KDTree

from adit_model.systems import AtomicSystem

ANCHORS = (5, 6, 7, 8, 14, 15, 16, 33, 34)  # what hydrogen is bonded to: nonmetals, no halogens
REACH = 6.0  # angstrom within which atoms of the host are looked for
POINTS = (4.0, 200, 1500)  # that look for voids: per cubic angstrom, at least, at most
MERGE, SAME = 0.7, 0.3  # angstrom: images that are one special position; sites that are the same
ORBITS, CHOICES = 20, 2000  # that are looked at


@dataclass(frozen=True)
class Orbit:
    """Equivalent sites: fractional coordinates (M, 3), and how good they are in angstrom."""

    frac: np.ndarray
    score: float


class _Around:
    """The atoms of a host and their images, for the room at points in its cell."""

    def __init__(self, host: AtomicSystem) -> None:
        assert host.cell is not None
        self.cell = host.cell
        heights = 1 / np.linalg.norm(np.linalg.inv(host.cell), axis=0)
        ranges = [range(-k, k + 1) for k in np.ceil(REACH / heights).astype(int).tolist()]
        shifts = np.array(list(itertools.product(*ranges)))
        frac = host.frac_coords - np.floor(host.frac_coords)
        positions = ((frac[None] + shifts[:, None]) @ host.cell).reshape(-1, 3)
        self.atoms = np.tile(np.arange(len(host)), len(shifts))
        self.radii = covalent_radii[host.numbers]
        self.tree = KDTree(positions)

    def room(self, frac: np.ndarray, anchors: np.ndarray | None = None) -> np.ndarray:
        """Shortest distance to an atom less its covalent radius, the anchor of a point aside."""
        count = min(16, self.tree.n)
        apart, found = self.tree.query((frac - np.floor(frac)) @ self.cell, k=count)
        apart, atoms = apart.reshape(len(frac), -1), self.atoms[found.reshape(len(frac), -1)]
        room = apart - self.radii[atoms]
        if anchors is not None:
            room[(atoms == anchors[:, None]) & (apart < 1.6)] = np.inf
        return room.min(axis=1)

    def nearest(self, frac: np.ndarray, others: np.ndarray) -> float:
        """Shortest distance between points and others, images of all included, but no zero."""
        ways = frac[:, None] - others[None]
        ways = ways - np.round(ways)
        near = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
        apart = np.linalg.norm((ways[..., None, :] + near) @ self.cell, axis=-1)
        return float(apart[apart > 1e-3].min())


def sites(host: AtomicSystem, add: Mapping[str, int], n: int, seed: int = 0) -> list[AtomicSystem]:
    """Put atoms into a crystal in at most n different ways, the best first.

    Parameters
    ----------
    host : AtomicSystem
        A crystal.
    add : mapping
        Atoms of each element.
    n : int
        How many ways; fewer are found in a small or crowded cell.
    seed : int
        Of the random points that look for voids.

    Returns
    -------
    list of AtomicSystem
        The atoms of the host first, in its order and cell.
    """
    generator = np.random.default_rng([seed, 8])
    found: list[tuple[float, AtomicSystem]] = [(0.0, host)]
    for symbol, count in add.items():
        more = [
            (score + gained, filled)
            for score, system in found
            for gained, filled in _filled(system, atomic_numbers[symbol], count, n, generator)
        ]
        found = sorted(more, key=lambda item: -item[0])[:n] if len(add) > 1 else more[:n]
    return [system for _, system in found]


def _filled(
    host: AtomicSystem, number: int, count: int, n: int, generator: np.random.Generator
) -> Iterator[tuple[float, AtomicSystem]]:
    around = _Around(host)
    points = _points(host, around, number, generator)
    kept: list[np.ndarray] = []
    groups = list(_groups(host))
    turns, shifts = (np.array(part) for part in zip(*groups[0], strict=True))
    for k, operations in enumerate(groups):
        orbits = _orbits(around, points, operations, number)
        limit = n if k else math.ceil(0.75 * n)  # the symmetry may be lower than the host's
        for score, chosen in _choices(around, orbits, count, number):
            frac = np.concatenate([orbit.frac for orbit in chosen])
            images = np.einsum("gij,mj->gmi", turns, frac) + shifts[:, None]
            if len(kept) >= limit:
                break
            if any(_alike(images, other, around.cell) for other in kept):
                continue
            kept.append(frac)
            yield (
                score,
                AtomicSystem(
                    np.append(host.numbers, np.full(count, number)),
                    np.concatenate([host.positions, (frac - np.floor(frac)) @ around.cell]),
                    host.cell,
                ),
            )
        if len(kept) >= n:
            return


def _alike(images: np.ndarray, other: np.ndarray, cell: np.ndarray) -> bool:
    """Whether an image (G, M, 3) of some sites has all of others (M, 3) near its own."""
    apart = _apart(images.reshape(-1, 3), other, cell).reshape(*images.shape[:2], -1)
    return bool(
        ((apart.min(axis=2).max(axis=1) < SAME) & (apart.min(axis=1).max(axis=1) < SAME)).any()
    )


def _points(
    host: AtomicSystem, around: _Around, number: int, generator: np.random.Generator
) -> list[Orbit]:
    """Points with the most room around, each with its score: those that others are near go."""
    density, least, most = POINTS
    frac = generator.random((int(np.clip(density * host.volume, least, most)), 3))
    inverse = np.linalg.inv(around.cell)
    radius = covalent_radii[number]
    frac = _climbed(frac, around, generator, lambda points: points)
    room = around.room(frac)
    # more room than a bond needs is no better
    found = [(frac, np.where(room > radius + 0.3, 2 * (radius + 0.3) - room, room))]
    anchors = np.flatnonzero(np.isin(host.numbers, ANCHORS)) if number == 1 else np.array([], int)
    if len(anchors):
        owner = np.repeat(anchors, 40)
        centres = host.frac_coords[owner]
        lengths = (covalent_radii[host.numbers[owner]] + radius)[:, None]

        def bonded(points: np.ndarray) -> np.ndarray:
            ways = (points - centres) @ around.cell
            ways *= lengths / np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-6)
            return np.asarray(centres + ways @ inverse)

        start = bonded(centres + generator.normal(size=(len(owner), 3)) @ inverse)
        ends = _climbed(start, around, generator, bonded, owner)
        found.append((ends, 1.0 + around.room(ends, owner)))
    frac, score = (np.concatenate(part) for part in zip(*found, strict=True))
    return [Orbit(frac[i][None], float(score[i])) for i in np.argsort(-score, kind="stable")]


def _climbed(frac, around, generator, project, anchors=None):  # type: ignore[no-untyped-def]
    """Move points to where there is more room, in ever smaller random steps."""
    inverse = np.linalg.inv(around.cell)
    room = around.room(frac, anchors)
    for step in np.geomspace(0.6, 0.02, 30):
        tried = project(frac + generator.normal(0, step, frac.shape) @ inverse)
        better = (after := around.room(tried, anchors)) > room
        frac, room = np.where(better[:, None], tried, frac), np.where(better, after, room)
    return frac


def _groups(host: AtomicSystem) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Operations of the host's space group, then of its cyclic subgroups, the largest first."""
    import spglib

    one = (np.eye(3, dtype=int), np.zeros(3))
    cell: Any = (host.cell, host.frac_coords, host.numbers)
    found = spglib.get_symmetry(cell, symprec=0.1)
    if found is None:
        yield [one]
        return
    all_of_it = list(zip(found["rotations"], found["translations"], strict=True))
    yield all_of_it
    cyclic: dict[frozenset, list] = {}
    for rotation, shift in all_of_it:
        group, (turn, move) = [one], (rotation, shift)
        while len(group) < 48 and not (
            (turn == one[0]).all() and np.abs(move - np.round(move)).max() < 1e-3
        ):
            group.append((turn, move))
            turn, move = rotation @ turn, rotation @ move + shift
        if len(group) < len(all_of_it):
            cyclic.setdefault(frozenset(t.tobytes() for t, _ in group), group)
    yield from sorted(cyclic.values(), key=len, reverse=True)


def _orbits(
    around: _Around,
    points: list[Orbit],
    operations: list[tuple[np.ndarray, np.ndarray]],
    number: int,
) -> list[Orbit]:
    """Orbits of the best points, on the special positions they are near; each once."""
    turns = np.array([turn for turn, _ in operations])
    shifts = np.array([shift for _, shift in operations])
    orbits: list[Orbit] = []
    for point in points:
        x = point.frac[0]
        images = turns @ x + shifts
        ways = images - x
        ways -= np.round(ways)
        near = np.linalg.norm(ways @ around.cell, axis=1) < MERGE
        x = x + ways[near].mean(axis=0)
        images = turns @ x + shifts
        images -= np.floor(images)
        if any(_apart(images[:1], orbit.frac, around.cell).min() < SAME for orbit in orbits):
            continue
        kept: list[np.ndarray] = []
        for image in images:
            if not kept or _apart(image[None], np.array(kept), around.cell).min() > 0.1:
                kept.append(image)
        frac = np.array(kept)
        if around.nearest(frac, frac) > _closest(number):
            orbits.append(Orbit(frac, point.score))
        if len(orbits) == ORBITS:
            break
    return orbits


def _apart(first: np.ndarray, second: np.ndarray, cell: np.ndarray) -> np.ndarray:
    ways = first[:, None] - second[None]
    return np.asarray(np.linalg.norm((ways - np.round(ways)) @ cell, axis=-1))


def _closest(number: int) -> float:
    """Angstrom that two added atoms of an element are apart at least."""
    return 1.3 + 0.6 * float(covalent_radii[number])


def _choices(
    around: _Around, orbits: list[Orbit], count: int, number: int
) -> list[tuple[float, tuple[Orbit, ...]]]:
    """Find sets of orbits of so many sites in all that keep apart, the best first."""
    found: list[tuple[float, tuple[Orbit, ...]]] = []
    clash: dict[tuple[int, int], bool] = {}

    def apart(i: int, k: int) -> bool:
        if (i, k) not in clash:
            clash[i, k] = around.nearest(orbits[i].frac, orbits[k].frac) > _closest(number)
        return clash[i, k]

    def extend(chosen: tuple[int, ...], left: int) -> None:
        if left == 0:
            sets = tuple(orbits[i] for i in chosen)
            total = sum(orbit.score * len(orbit.frac) for orbit in sets)
            found.append((total / count, sets))
            return
        for i in range(chosen[-1] + 1 if chosen else 0, len(orbits)):
            if len(found) >= CHOICES:
                return
            if len(orbits[i].frac) <= left and all(apart(k, i) for k in chosen):
                extend((*chosen, i), left - len(orbits[i].frac))

    extend((), count)
    return sorted(found, key=lambda item: -item[0])
