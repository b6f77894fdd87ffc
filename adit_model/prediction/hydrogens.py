"""Hydrogens of a molecule that lacks them, by bond lengths and valences: no network is asked."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii

from adit_model.systems import AtomicSystem

VALENCES = {5: 3, 6: 4, 7: 3, 8: 2, 9: 1, 14: 4, 15: 3, 16: 2, 17: 1, 35: 1, 53: 1}
BONDED = 1.25  # of the covalent radii
STRAIGHT = -0.9  # cosine of the angle at an atom with two double bonds or a triple one
SHORTER = (1.0, 0.87, 0.78)  # lengths of single, double and triple bonds in covalent radii


def hydrogens(host: AtomicSystem, count: int, n: int) -> list[AtomicSystem]:
    """Add hydrogens to a neutral molecule in at most n ways that saturate it, the best first.

    The orders of the bonds are those that come nearest to their lengths and leave as many free
    valences as there are hydrogens; RDKit places these.

    Parameters
    ----------
    host : AtomicSystem
        A molecule; hydrogens that it has take up a valence.
    count : int
        Hydrogens to add.
    n : int
        How many ways: other orders of the bonds.

    Returns
    -------
    list of AtomicSystem
        The atoms of the host first. Empty if no orders of the bonds fit, as in what has charged
        atoms, or an element whose valence is not fixed.
    """
    valences = np.array([{**VALENCES, 1: 1}.get(z, 0) for z in host.numbers.tolist()])
    first, second = np.triu_indices(len(host), 1)
    radii = covalent_radii[host.numbers[first]] + covalent_radii[host.numbers[second]]
    lengths = np.linalg.norm(host.positions[first] - host.positions[second], axis=1) / radii
    near = lengths < BONDED
    first, second, lengths = first[near], second[near], lengths[near]
    twice = int(valences.sum()) - count  # of all bonds
    if host.charge or not valences.all() or twice < 0 or twice % 2:
        return []
    found = []
    straight = np.full(len(host), True)  # ends, too: no more than one double bond elsewhere
    for i in range(len(host)):
        ways = host.positions[np.r_[second[first == i], first[second == i]]] - host.positions[i]
        ways = ways / np.linalg.norm(ways, axis=1, keepdims=True)
        straight[i] = len(ways) < 2 or (len(ways) == 2 and ways[0] @ ways[1] < STRAIGHT)
    extra = np.where(straight, 2, 1)
    for orders in _orders(valences, extra, (first, second), lengths, twice // 2, n):
        bonds = list(zip(first.tolist(), second.tolist(), orders.tolist(), strict=True))
        positions = _placed(host, valences, bonds)
        numbers = np.append(host.numbers, np.ones(len(positions) - len(host), dtype=int))
        found.append(AtomicSystem(numbers, np.vstack([host.positions, positions[len(host) :]])))
    return found


def _orders(
    valences: np.ndarray,
    extra: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    lengths: np.ndarray,
    total: int,
    n: int,
) -> list[np.ndarray]:
    """Find orders of bonds, shape (B,), by integer programs: the best, then without it, and on."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    bonds = len(lengths)
    if bonds == 0:
        return [np.zeros(0, dtype=int)] if total == 0 else []
    # a variable is 1 if a bond is of an order: single ones of all bonds, then double and triple
    costs = np.abs(lengths[None] - np.array(SHORTER)[:, None]).ravel()
    at = np.zeros((len(valences), bonds))
    at[pairs[0], np.arange(bonds)] = at[pairs[1], np.arange(bonds)] = 1
    limits = [
        LinearConstraint(np.hstack([np.eye(bonds)] * 3), 1, 1),
        LinearConstraint(np.hstack([at, 2 * at, 3 * at]), 0, valences),
        LinearConstraint(np.hstack([0 * at, at, 2 * at]), 0, extra),
        LinearConstraint(np.repeat([1.0, 2.0, 3.0], bonds)[None], total, total),
    ]
    found: list[np.ndarray] = []
    while len(found) < n:
        best = milp(costs, integrality=1, bounds=Bounds(0, 1), constraints=limits)
        if best.x is None:
            break
        chosen = best.x.round()
        found.append(chosen.reshape(3, bonds).argmax(axis=0) + 1)
        limits.append(LinearConstraint(chosen[None], 0, bonds - 1))
    return found


def _placed(
    host: AtomicSystem, valences: np.ndarray, bonds: list[tuple[int, int, int]]
) -> np.ndarray:
    """Positions of the host and of the hydrogens that fill its valences, shape (M, 3)."""
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    left = valences.copy()
    mol, conformer = Chem.RWMol(), Chem.Conformer(len(host))
    for i, (number, xyz) in enumerate(zip(host.numbers, host.positions, strict=True)):
        mol.AddAtom(Chem.Atom(int(number)))
        conformer.SetAtomPosition(i, Point3D(*map(float, xyz)))
    for i, k, order in bonds:
        mol.AddBond(i, k, Chem.BondType.values[order])
        left[[i, k]] -= order
    for atom, free in zip(mol.GetAtoms(), left.tolist(), strict=True):
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(free)
    mol.AddConformer(conformer)
    Chem.SanitizeMol(mol)
    return np.asarray(Chem.AddHs(mol, addCoords=True).GetConformer().GetPositions())
