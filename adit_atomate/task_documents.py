"""What a task document of any code of atomate2 says: energy, state, structure, steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from pymatgen.core import Molecule, Structure

from adit_atomate.discovery.documents import ADiTCalculation, ADiTResult
from adit_model.quality.relax import relaxation_fault, relaxation_rmsd
from adit_model.systems import AtomicSystem

FAILED, SUCCESSFUL = "failed", "successful"
HARTREE = 27.211386245988  # eV, CODATA 2018
# Where task documents keep what a calculation led to, in order of preference.
FINAL_PATHS = (
    ("output", "optimized_molecule"),  # Q-Chem
    ("output", "mol_or_struct"),  # ASE and force fields
    ("output", "structure"),  # VASP, CP2K, ABINIT
    ("output", "molecule"),
    ("structure",),
    ("molecule",),
    ("output", "initial_molecule"),
)


def look(document: Any, *path: str | int) -> Any:
    """Follow attributes, keys and places in lists; None where one is missing."""
    for name in path:
        if isinstance(name, int):
            filled = isinstance(document, Sequence) and len(document) > 0
            document = document[name] if filled else None
        elif isinstance(document, Mapping):
            document = document.get(name)
        else:
            document = getattr(document, name, None)
        if document is None:
            return None
    return document


def last_document(output: Any) -> Any:
    """Return the task document of an output: of several, the last one with an energy."""
    if isinstance(output, dict) and "output" not in output:
        output = list(output.values())
    if isinstance(output, list | tuple):
        return next((d for d in reversed(output) if total_energy(d) is not None), None)
    return output


def total_energy(document: Any) -> float | None:
    """Total energy in eV, None if there is none."""
    energy = look(document, "output", "energy")
    if energy is None and (hartree := look(document, "output", "final_energy")) is not None:
        energy = hartree * HARTREE  # Q-Chem
    return None if energy is None else float(energy)


def is_structure(value: Any) -> bool:
    """Whether an object is a structure or molecule of pymatgen or ASE, or one as dictionary."""
    if isinstance(value, Mapping):
        return "sites" in value and "output" not in value
    return hasattr(value, "sites") or type(value).__module__.startswith("ase.atoms")


def final_structure(document: Any) -> Structure | Molecule | None:
    """Return the last structure or molecule, as far as the document has one."""
    found = (look(document, *path) for path in FINAL_PATHS)
    value = next((value for value in found if value is not None and is_structure(value)), None)
    if isinstance(value, Mapping):
        return (Structure if "lattice" in value else Molecule).from_dict(dict(value))
    return value


def failure(document: Any) -> str | None:
    """Say why a calculation has failed by its document's own words, None if it has not."""
    state = _plain(look(document, "state"))
    # The optimizer's own verdict goes first: with a moving cell it judges other forces than those
    # on the atoms, which may then exceed the limit a little.
    if state is not None:
        failed = state.lower() not in (SUCCESSFUL, "success")
    else:
        paths = (("is_force_converged",), ("converged",), ("output", "converged"))
        failed = any(look(document, *path) is False for path in paths)
    if not failed:
        return None
    steps, force = _steps(document), _max_force(document)
    if steps is None and state is not None:
        return f"its state is {state}"
    text = "it did not converge" if steps is None else f"not converged after {steps} steps"
    return text + ("" if force is None else f" (largest force {force:.3g} eV/A)")


def read_calculation(
    output: Any, initial: Structure | Molecule, uuid: str | None = None
) -> ADiTResult:
    """Read the result of a relaxation or other calculation, and the structure it led to.

    It has failed, with the reason, if it did not converge, or led to what is no structure.

    Parameters
    ----------
    output : object
        A task document, several in a list or a dict, or None if its job failed.
    initial : Structure or Molecule
        What was calculated.
    uuid : str, optional
        Of the job.
    """
    if output is None:
        lost = ADiTCalculation(state=FAILED, reason=no_output(uuid), uuid=uuid)
        return ADiTResult(calculation=lost)
    document = last_document(output)
    final = final_structure(document)
    if isinstance(final, Molecule) and isinstance(initial, Molecule):
        final = final.copy()  # ASE's atoms carry neither charge nor spin
        final.set_charge_and_spin(initial.charge, int(initial.spin_multiplicity))
    found = _common(document, uuid)
    if found.energy is not None and found.initial_energy is not None:
        found.energy_change_per_atom = (found.energy - found.initial_energy) / len(initial)
    fault = _fault(final, initial)
    if final is not None and fault is None:
        with suppress(ValueError):  # other atoms than before
            found.rmsd = relaxation_rmsd(
                AtomicSystem.from_any(initial), AtomicSystem.from_any(final)
            )
        if isinstance(initial, Structure) and isinstance(final, Structure):
            found.volume_change = final.volume / initial.volume - 1
    if found.reason is None and fault is not None:
        found.state, found.reason = FAILED, fault
    return ADiTResult(calculation=found, structure=final if found.state == SUCCESSFUL else None)


def no_output(uuid: str | None) -> str:
    """Say what can be said of a job that left nothing."""
    return f"the job {uuid or ''} left no output: it failed or was killed, its log says why"


def _common(document: Any, uuid: str | None) -> ADiTCalculation:
    energy, structure = total_energy(document), final_structure(document)
    per_atom = look(document, "output", "energy_per_atom")
    if per_atom is None and energy is not None and structure is not None:
        per_atom = energy / len(structure)
    reason = failure(document)
    if reason is None and (energy is None or not math.isfinite(energy)):
        reason = f"the energy is {energy}"
        energy = per_atom = None
    folder = look(document, "dir_name")
    names = (look(document, "forcefield_name"), look(document, "ase_calculator_name"))
    return ADiTCalculation(
        state=SUCCESSFUL if reason is None else FAILED,
        reason=reason,
        energy=energy,
        energy_per_atom=None if per_atom is None else float(per_atom),
        uuid=uuid,
        dir_name=None if folder is None else str(folder),
        calculator=next((str(n) for n in names if n), None) or _plain(look(document, "run_type")),
        calculator_version=_plain(look(document, "forcefield_version")),
        initial_energy=_initial_energy(document),
        num_steps=_steps(document),
        max_force=_max_force(document),
        seconds=look(document, "output", "elapsed_time"),
    )


def _plain(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value))


def _steps(document: Any) -> int | None:
    steps = look(document, "output", "n_steps")
    if steps is None:
        ionic = look(document, "calcs_reversed", 0, "output", "ionic_steps")  # VASP
        steps = len(ionic) if isinstance(ionic, Sequence) else None
    return None if steps is None else int(steps)


def _max_force(document: Any) -> float | None:
    forces = look(document, "output", "forces")
    if forces is None or not len(forces):
        return None
    largest = float(np.linalg.norm(np.asarray(forces, dtype=float), axis=1).max())
    return largest if math.isfinite(largest) else None


def _initial_energy(document: Any) -> float | None:
    for run, name in ((document, "energy"), (look(document, "calcs_reversed", -1), "e_0_energy")):
        energy = look(run, "output", "ionic_steps", 0, name)
        if energy is not None:
            return float(energy)
    return None


def _fault(relaxed: Structure | Molecule | None, initial: Structure | Molecule) -> str | None:
    """Say why a relaxed structure is none, None if it is one."""
    if relaxed is None:
        return "its document holds no structure"
    if not np.isfinite(np.array(relaxed.cart_coords)).all():
        return "diverged: coordinates are not finite"
    if isinstance(relaxed, Structure) and isinstance(initial, Structure):
        systems = (AtomicSystem.from_structure(structure) for structure in (initial, relaxed))
        if fault := relaxation_fault(*systems):
            return f"diverged: {fault}"
    return None
