"""What is measured of each structure: functions of one system, and the columns they fill.

A new measure (an energy, say) is one more :class:`Measure` in the tuple given to
:func:`~adit_model.quality.cells.measure_systems`: rows, cache and failed cells follow.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adit_model.files import package_versions
from adit_model.quality.coverage import fingerprint_crystal
from adit_model.quality.crystal_properties import (
    check_strictly,
    mass_density,
    min_distance_ratio,
    space_group,
)
from adit_model.quality.crystals import (
    composition_fault,
    min_distance,
    reduced_composition,
    structural_fault,
)
from adit_model.quality.molecule_geometry import check_stability, neighbor_graph
from adit_model.quality.molecule_routes import (
    POSEBUSTERS_CHECKS,
    bust,
    largest_fragment,
    largest_fragment_open_babel,
)
from adit_model.quality.molecule_strain import relaxation_strain
from adit_model.quality.molecules import check_molecule
from adit_model.systems import CRYSTAL, MOLECULE, AtomicSystem

NOT_INSTALLED = "not available: "
FAILED = "failed: "
CHUNK = 250  # structures measured between two visits to the disk


@dataclass(frozen=True)
class Measure:
    """One function of a structure.

    Parameters
    ----------
    name : str
        What it is called on the command line.
    domain : str
        ``"crystal"`` or ``"molecule"``.
    columns : tuple of str
        Keys of its result that are cells of the table. Others are kept for distributions.
    function : callable
        Takes a system, returns a dict of plain values; importable by name. The key ``"reason"``
        says why the structure is not valid.
    time_limit : float
        Seconds for one structure.
    package, module : str or None
        What has to be installed beyond the package's own dependencies, as pip and as Python call
        it.
    describes : bool
        Whether it is taken of the reference too, to compare distributions.
    decides : bool
        Whether the structure's validity depends on it, so that its failure is a reason.
    extra : str
        The extra of this package that brings it.
    chunk : int
        Structures measured between two visits to the disk: what a killed run can lose.
    revision : int
        Raised when the function changes, so that kept results are not used again.
    """

    name: str
    domain: str
    columns: tuple[str, ...]
    function: Callable[[AtomicSystem], dict[str, Any]]
    time_limit: float = 10.0
    package: str | None = None
    module: str | None = None
    describes: bool = False
    decides: bool = False
    extra: str = "evaluate"
    chunk: int = CHUNK
    revision: int = 1

    @property
    def missing(self) -> str | None:
        """Why it cannot be taken here; None if it can."""
        if self.module is None or importlib.util.find_spec(self.module) is not None:
            return None
        return (
            f"{NOT_INSTALLED}{self.package} is not installed "
            f"(pip install 'adit-atomate[{self.extra}]')"
        )

    @property
    def identity(self) -> str:
        """Text that changes when results would: name, revision, version of the package."""
        packages = ("rdkit" if self.domain == MOLECULE else "smact", self.package)
        versions = package_versions(*(name for name in packages if name))
        del versions["python"]
        return " ".join([self.name, str(self.revision), *(f"{k} {v}" for k, v in versions.items())])


def crystal_geometry(system: AtomicSystem) -> dict[str, Any]:
    """Check the structure; shortest distance in angstrom and of the covalent radii."""
    fault = structural_fault(system)
    distances: tuple[float | str, float | str]
    try:
        distances = min_distance(system), min_distance_ratio(system)
    except RuntimeError as error:
        distances = (f"{FAILED}{error}",) * 2
    return {
        "structural": fault is None,
        "min_distance": distances[0],
        "min_distance_ratio": distances[1],
        "reason": fault,
    }


def crystal_composition(system: AtomicSystem) -> dict[str, Any]:
    """Check the composition."""
    fault = composition_fault(reduced_composition(system))
    return {"compositional": fault is None, "reason": fault}


def crystal_strict(system: AtomicSystem) -> dict[str, Any]:
    """Take the strict set apart."""
    check = check_strictly(system)
    return {
        "strict": check.passed,
        "neutral": check.neutral,
        "separated": check.separated,
        "dense": check.dense,
        "sane_lattice": check.lattice,
        "strict_reason": check.reason,
    }


def crystal_properties(system: AtomicSystem) -> dict[str, Any]:
    """Take density, volume per atom and number of elements."""
    return {
        "density": mass_density(system),
        "volume_per_atom": system.volume / len(system),
        "num_elements": len(set(system.numbers.tolist())),
    }


def crystal_symmetry(system: AtomicSystem) -> dict[str, Any]:
    """Find the space group number."""
    return {"space_group": space_group(system)}


def crystal_fingerprint(system: AtomicSystem) -> dict[str, Any]:
    """Take the fingerprints that coverage is made of."""
    fingerprint = fingerprint_crystal(system)
    return {
        "fingerprint": True,
        "sites": fingerprint.sites,
        "composition_features": fingerprint.composition,
    }


def molecule_bonds(system: AtomicSystem) -> dict[str, Any]:
    """Check validity by RDKit's ``DetermineBonds``."""
    check = check_molecule(system)
    return {
        "bonded": check.bonded,
        "connected": check.connected,
        "closed_shell": check.closed_shell,
        "smiles": check.smiles,
        "reason": check.reason,
    }


def molecule_fragment(system: AtomicSystem) -> dict[str, Any]:
    """Check the largest fragment, RDKit alone."""
    return _fragment(largest_fragment, "fragment", system)


def molecule_open_babel(system: AtomicSystem) -> dict[str, Any]:
    """Check the largest fragment, bonds by Open Babel."""
    cells = _fragment(largest_fragment_open_babel, "open_babel", system)
    return {**cells, "open_babel_whole": _is_whole(cells["open_babel_smiles"], len(system))}


def _is_whole(smiles: str | None, num_atoms: int) -> bool:
    """Whether a SMILES has so many atoms, hydrogens included, and no radical."""
    from rdkit import Chem

    mol = Chem.MolFromSmiles(smiles) if smiles else None
    if mol is None or any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
        return False
    return Chem.AddHs(mol).GetNumAtoms() == num_atoms


def _fragment(
    route: Callable[[AtomicSystem], str], name: str, system: AtomicSystem
) -> dict[str, Any]:
    try:
        return {f"{name}_valid": True, f"{name}_smiles": route(system)}
    except ValueError:
        return {f"{name}_valid": False, f"{name}_smiles": None}


def molecule_stability(system: AtomicSystem) -> dict[str, Any]:
    """Count stable atoms by EDM."""
    check = check_stability(system)
    return {"stable_atoms": check.stable_atoms, "stable": check.stable}


def molecule_graph(system: AtomicSystem) -> dict[str, Any]:
    """Find bonds, rings and angles by distance alone."""
    graph = neighbor_graph(system)
    return {
        "num_bonds": graph.num_bonds,
        "num_rings": graph.rings,
        "num_fragments": graph.fragments,
        "bond_lengths": graph.bond_lengths,
        "angles": graph.angles,
    }


def molecule_posebusters(system: AtomicSystem) -> dict[str, Any]:
    """Run PoseBusters; a text where it gives no verdict."""
    verdicts = bust(system)
    cells: dict[str, Any] = {
        f"pb_{name}": f"{FAILED}PoseBusters gives no verdict" if verdict is None else verdict
        for name, verdict in verdicts.items()
    }
    cells["pb_all"] = all(verdict for verdict in verdicts.values() if verdict is not None)
    return cells


def molecule_strain(system: AtomicSystem) -> dict[str, Any]:
    """Relax with GFN2-xTB."""
    strain = relaxation_strain(system)
    return {
        "xtb_energy_drop": strain.energy,
        "xtb_rmsd": strain.rmsd,
        "xtb_rmsd_heavy": strain.heavy_rmsd,
        "xtb_multiplicity": strain.multiplicity,
        "xtb_steps": strain.steps,
    }


CRYSTAL_MEASURES = (
    Measure(
        "geometry",
        CRYSTAL,
        ("structural", "min_distance", "min_distance_ratio"),
        crystal_geometry,
        decides=True,
    ),
    Measure("composition", CRYSTAL, ("compositional",), crystal_composition, decides=True),
    Measure(
        "strict",
        CRYSTAL,
        ("strict", "neutral", "separated", "dense", "sane_lattice", "strict_reason"),
        crystal_strict,
    ),
    Measure(
        "properties",
        CRYSTAL,
        ("density", "volume_per_atom", "num_elements"),
        crystal_properties,
        describes=True,
    ),
    Measure("symmetry", CRYSTAL, ("space_group",), crystal_symmetry, describes=True),
)
MOLECULE_MEASURES = (
    Measure(
        "bonds",
        MOLECULE,
        ("bonded", "connected", "closed_shell", "smiles"),
        molecule_bonds,
        decides=True,
    ),
    Measure("fragment", MOLECULE, ("fragment_valid", "fragment_smiles"), molecule_fragment),
    Measure(
        "open-babel",
        MOLECULE,
        ("open_babel_valid", "open_babel_whole", "open_babel_smiles"),
        molecule_open_babel,
        package="openbabel-wheel",
        module="openbabel",
    ),
    Measure("stability", MOLECULE, ("stable_atoms", "stable"), molecule_stability),
    Measure(
        "graph",
        MOLECULE,
        ("num_bonds", "num_rings", "num_fragments"),
        molecule_graph,
        describes=True,
    ),
    Measure(
        "posebusters",
        MOLECULE,
        (*(f"pb_{name}" for name in POSEBUSTERS_CHECKS), "pb_all"),
        molecule_posebusters,
        time_limit=60.0,
        package="posebusters",
        module="posebusters",
    ),
)
MEASURES = CRYSTAL_MEASURES + MOLECULE_MEASURES
# taken only when asked for
MORE_MEASURES = (
    Measure(
        "coverage",
        CRYSTAL,
        ("fingerprint",),
        crystal_fingerprint,
        time_limit=120.0,
        package="matminer",
        module="matminer",
        extra="coverage",
        describes=True,
    ),
    Measure(
        "xtb",
        MOLECULE,
        ("xtb_energy_drop", "xtb_rmsd", "xtb_rmsd_heavy", "xtb_multiplicity", "xtb_steps"),
        molecule_strain,
        time_limit=120.0,
        package="tblite",
        module="tblite",
        extra="xtb",
    ),
)


def choose_measures(skip: Sequence[str] = (), also: Sequence[str] = ()) -> tuple[Measure, ...]:
    """Return the measures to take: all but some, and some that are taken only when asked for.

    Raises
    ------
    ValueError
        If there is no measure of a name.
    """
    usual, more = ([measure.name for measure in group] for group in (MEASURES, MORE_MEASURES))
    for name in skip:
        if name not in usual:
            raise ValueError(f"cannot skip {name!r}: the measures are {', '.join(usual)}")
    for name in also:
        if name not in more:
            raise ValueError(f"cannot add {name!r}: what can be added is {', '.join(more)}")
    return tuple(
        measure
        for measure in MEASURES + MORE_MEASURES
        if (measure.name in also if measure.name in more else measure.name not in skip)
    )
