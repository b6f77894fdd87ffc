"""Relaxations of many crystals at once on a GPU, by atomate2's TorchSim (Python 3.12 or newer)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jobflow import Maker
from pymatgen.core import Structure

logger = logging.getLogger(__name__)

FORCE_TOL = 0.1  # eV/angstrom, TorchSim's own if none is given
SLACK = 1.05  # energies and forces of the end are computed once more, in single precision


def runs_torchsim(maker: Maker) -> bool:
    """Whether a Maker relaxes a list of structures in one batch of TorchSim."""
    names = {(cls.__module__, cls.__name__) for cls in type(maker).__mro__}
    return ("atomate2.torchsim.core", "TorchSimOptimizeMaker") in names


def relax_batch(maker: Any, structures: Sequence[Structure]) -> list[dict[str, Any]]:
    """Relax structures in one batch; if it fails, one by one.

    Parameters
    ----------
    maker : TorchSimOptimizeMaker
        Of atomate2.
    structures : sequence of Structure
        What to relax.

    Returns
    -------
    list of dict
        As :func:`adit_atomate.discovery.calculate.calculate_chunk`.
    """
    try:
        return _relax(maker, structures)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if len(structures) > 1:
        logger.warning("a batch of %s failed: %s; one by one", len(structures), reason)
        return [part for structure in structures for part in relax_batch(maker, [structure])]
    logger.warning("%s of %s failed: %s", maker.name, structures[0].formula, reason)
    return [{"document": None, "reason": reason, "seconds": None}]


def _relax(maker: Any, structures: Sequence[Structure]) -> list[dict[str, Any]]:
    from torch_sim.optimizers.cell_filters import CellFilter

    init = dict(maker.init_kwargs or {})
    if isinstance(init.get("cell_filter"), str):  # as JSON keeps it, which TorchSim does not take
        init["cell_filter"] = CellFilter(init["cell_filter"])
    maker = replace(maker, init_kwargs=init)
    document = type(maker).make.original(maker, list(structures)).output
    found = document.calcs_reversed[0].output
    parts = []
    for i, (structure, energy) in enumerate(zip(document.structures, found.energies, strict=True)):
        forces = np.array(found.all_forces[i], dtype=float)
        stress = None if found.stress is None else np.array(found.stress[i], dtype=float)
        read = {
            "output": {"structure": structure, "energy": energy, "forces": forces.tolist()},
            "converged": _converged(maker, forces, stress, structure.volume),
            "forcefield_name": _name(maker),
            "dir_name": document.dir_name,
        }
        seconds = document.time_elapsed / len(structures)
        parts.append({"document": read, "reason": None, "seconds": seconds})
    return parts


def _converged(maker: Any, forces: np.ndarray, stress: np.ndarray | None, volume: float) -> bool:
    """Whether the forces are below the Maker's limit: TorchSim's document does not say."""
    if not np.isfinite(forces).all():
        return False
    if maker.convergence_fn != "force":
        return True
    asked = maker.convergence_fn_kwargs or {}
    largest = np.linalg.norm(forces, axis=1).max()
    if asked.get("include_cell_forces") and stress is not None:
        pressure = maker.init_kwargs.get("scalar_pressure", 0.0) * np.eye(3)
        on_cell = volume * (stress + pressure) / len(forces)
        largest = max(largest, np.linalg.norm(on_cell, axis=1).max())
    return bool(largest < SLACK * asked.get("force_tol", FORCE_TOL))


def _name(maker: Any) -> str:
    """Name of the force field, for SevenNet as atomate2's other Makers call it."""
    model = str(maker.model_type)
    return "SevenNet" if model == "SevenNetModel" else f"{model} {maker.model_path}"
