"""Structures out of the task documents of each code, made by atomate2's and emmet's own schemas."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime

import numpy as np
import pytest
from maggma.stores import MemoryStore
from monty.json import jsanitize
from pymatgen.core import Lattice, Molecule, Structure

from adit_atomate import from_store
from adit_model.data import load_structures

START = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.3), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
END = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
WATER = Molecule("OHH", [[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
BENT = Molecule("OHH", [[0, 0, 0.10], [0, 0.80, -0.50], [0, -0.80, -0.50]])

# module, document, its part for results, and what that part holds of a relaxation
CRYSTALS = {
    "VASP": ("emmet.core.tasks", "TaskDoc", "OutputDoc", "energy_per_atom"),
    "CP2K": ("atomate2.cp2k.schemas.task", "TaskDocument", "OutputSummary", "energy_per_atom"),
    "ABINIT": ("atomate2.abinit.schemas.task", "AbinitTaskDoc", "OutputDoc", "energy_per_atom"),
}


def store_of(*documents) -> MemoryStore:
    """A store with documents as jobflow writes them."""
    store = MemoryStore(key="uuid")
    store.connect()
    for i, document in enumerate(documents):
        store.update(
            {
                "uuid": f"job-{i}",
                "index": 1,
                "name": "relax",
                "completed_at": datetime.now(UTC).isoformat(),
                "output": jsanitize(document, strict=True, enum_values=True),
            },
            key=["uuid", "index"],
        )
    return store


def crystal_document(code: str, state: str):
    module, name, part, energy = CRYSTALS[code]
    schemas = pytest.importorskip(module, reason=f"atomate2's part for {code} is not installed")
    output = getattr(schemas, part)(structure=END, **{energy: -6.0})
    return getattr(schemas, name)(structure=START, output=output, state=state)


@pytest.mark.parametrize("code", CRYSTALS)
def test_relaxed_crystals(code):
    good, bad = crystal_document(code, "successful"), crystal_document(code, "failed")
    found = from_store(store_of(good, bad), properties={"energy": "output.energy_per_atom"})
    (system,) = found.dataset
    assert len(system) == 2  # the primitive cell
    (same,) = load_structures([END], progress=False)
    np.testing.assert_array_equal(system.numbers, same.numbers)
    np.testing.assert_allclose(system.positions, same.positions, atol=1e-6)
    assert system.to_structure().volume == pytest.approx(
        4.2**3 / 4
    )  # of the output, not of the input
    assert found.properties == {"job-0": {"energy": -6.0}}
    assert [reason for _, reason in found.dataset.skipped] == ["its state is failed"]


def test_relaxed_molecules_of_qchem():
    schemas = importlib.import_module("emmet.core.qc_tasks")
    output = schemas.OutputDoc(initial_molecule=BENT, optimized_molecule=WATER, final_energy=-76.4)
    document = schemas.TaskDoc(output=output, state="successful")
    found = from_store(store_of(document), properties=["output.final_energy"])
    (system,) = found.dataset
    distances = system.to_molecule().distance_matrix
    assert sorted(distances[distances > 0])[0] == pytest.approx(WATER.get_distance(0, 1), abs=1e-4)
    assert found.properties["job-0"] == {"output.final_energy": -76.4}
