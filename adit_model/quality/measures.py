"""What is measured of each structure: functions of one system, and the columns they fill.

A new measure is one more :class:`Measure` in the tuple given to
:func:`~adit_model.quality.cells.measure_systems`: rows, cache and failed cells follow.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adit_model.files import package_versions
from adit_model.quality import coverage, crystals, molecule_geometry, molecules, plausible, relax
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE, AtomicSystem

NOT_INSTALLED = "not available: "
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


# The verdict that users see, of crystals and of molecules
PLAUSIBLE = tuple(
    Measure("plausible", domain, ("plausible", "plausible_reason"), plausible.plausibility)
    for domain in DOMAINS
)
# What decides on validity in the sense of the literature
VALIDITY = (
    Measure(
        "geometry",
        CRYSTAL,
        ("structural", "min_distance", "min_distance_ratio"),
        crystals.geometry,
        decides=True,
    ),
    Measure("composition", CRYSTAL, ("compositional",), crystals.composition, decides=True),
    Measure(
        "bonds",
        MOLECULE,
        ("bonded", "connected", "closed_shell", "smiles"),
        molecules.bonds,
        decides=True,
        revision=2,
    ),
)
GEOMETRY, COMPOSITION, BONDS = VALIDITY
STRICT = Measure(
    "strict",
    CRYSTAL,
    ("strict", "neutral", "separated", "dense", "sane_lattice", "strict_reason"),
    crystals.strict,
)
PROPERTIES = Measure(
    "properties",
    CRYSTAL,
    ("density", "volume_per_atom", "num_elements", "metals_only"),
    crystals.properties,
    describes=True,
    revision=2,
)
SYMMETRY = Measure(
    "symmetry",
    CRYSTAL,
    ("space_group", "triclinic"),
    crystals.symmetry,
    describes=True,
    revision=2,
)
STABILITY = Measure("stability", MOLECULE, ("stable_atoms", "stable"), molecule_geometry.stability)
MEASURES = (
    *PLAUSIBLE,
    GEOMETRY,
    COMPOSITION,
    STRICT,
    PROPERTIES,
    SYMMETRY,
    BONDS,
    Measure("fragment", MOLECULE, ("fragment_valid", "fragment_smiles"), molecules.fragment),
    Measure(
        "open-babel",
        MOLECULE,
        ("open_babel_valid", "open_babel_whole", "open_babel_smiles"),
        molecules.open_babel,
        package="openbabel-wheel",
        module="openbabel",
    ),
    STABILITY,
    Measure(
        "graph",
        MOLECULE,
        ("num_bonds", "num_rings", "num_fragments"),
        molecule_geometry.graph,
        describes=True,
    ),
    Measure(
        "posebusters",
        MOLECULE,
        (*(f"pb_{name}" for name in molecules.POSEBUSTERS_CHECKS), "pb_all"),
        molecules.posebusters,
        time_limit=60.0,
        package="posebusters",
        module="posebusters",
    ),
)
# taken only when asked for
MORE_MEASURES = (
    Measure(
        "coverage",
        CRYSTAL,
        ("fingerprint",),
        coverage.fingerprint,
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
        relax.strain,
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
    usual, more = (
        list(dict.fromkeys(measure.name for measure in group))  # one may be of both domains
        for group in (MEASURES, MORE_MEASURES)
    )
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
