"""Crystals of two atoms."""

from __future__ import annotations

import numpy as np

from adit_model.systems import AtomicSystem


def rocksalt(a: float = 5.64, noise: float = 0.0, seed: int = 0) -> AtomicSystem:
    cell = 0.5 * a * (np.ones((3, 3)) - np.eye(3))
    frac = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    moved = np.random.default_rng(seed).normal(0, noise, (2, 3)) if noise else 0.0
    return AtomicSystem(np.array([11, 17]), frac @ cell + moved, cell)


def caesium_chloride(a: float = 3.5) -> AtomicSystem:
    return AtomicSystem(np.array([11, 17]), np.array([[0, 0, 0], [a / 2] * 3]), a * np.eye(3))
