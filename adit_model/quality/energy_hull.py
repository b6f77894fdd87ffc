"""The hull that energies by a force field are compared to, all on the force field's own scale."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.quality.cells import measure_systems
from adit_model.quality.force_fields import ForceField, element_references, force_field
from adit_model.quality.hull import MATERIALS_PROJECT, MP2020, OLDER_SOURCES, Hull
from adit_model.quality.measures import Measure
from adit_model.quality.relax import single_point
from adit_model.quality.rows import Options
from adit_model.systems import CRYSTAL, AtomicSystem

HULL_MARGIN = 0.02  # eV/atom, of the known phases that make a force field's own hull


def energy_chgnet(system: AtomicSystem) -> dict[str, Any]:
    """Energy by CHGNet, as it is."""
    return {"energy": single_point(system, "chgnet")}


def energy_sevennet(system: AtomicSystem) -> dict[str, Any]:
    """Energy by SevenNet-0, as it is."""
    return {"energy": single_point(system, "sevennet")}


def check_hull(name: str, sources: Collection[Any], *, alone: bool = True) -> None:
    """Check that sources can be the hull of a force field, before any work; nothing is read.

    Parameters
    ----------
    name : str
        The force field.
    sources : collection
        See :func:`make_hull`.
    alone : bool
        Whether it is the only force field, so that entries can be on its scale.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If they cannot.
    """
    if isinstance(sources, str):
        raise TypeError(f"hull must be a list, got {sources!r}")
    found = force_field(name)
    kinds = {_kind(source) for source in sources}
    if len(kinds) > 1:
        raise ValueError(f"a hull is of one kind of sources, not of both: got {sorted(kinds)}")
    if kinds == {"the Materials Project"} and found.scale != MP2020:
        raise ValueError(
            f"energies of the Materials Project are {MP2020}, those of {found.label} are "
            f"not: give CSV files with structures, of which {found.label} makes its own hull"
        )
    if kinds == {"entries"} and not alone:
        raise ValueError("computed entries are on the energy scale of one force field, not of two")
    if kinds == {"CSV files"}:
        for path in sources:
            if not Path(path).expanduser().is_file():
                raise FileNotFoundError(f"there is no file {path} to build the hull from")


def _kind(source: Any) -> str:
    if isinstance(source, str | Path):
        return "the Materials Project" if str(source) in MATERIALS_PROJECT else "CSV files"
    if hasattr(source, "energy_per_atom"):
        return "entries"
    raise TypeError(f"a hull is made of paths, 'mp' or computed entries, got {source!r}")


def make_hull(
    name: str, sources: Sequence[Any], systems: Sequence[AtomicSystem], options: Options
) -> Hull:
    """Build a hull on the energy scale of a force field.

    Parameters
    ----------
    name : str
        The force field.
    sources : sequence
        CSV files; or ``"mp"`` alone, for the Materials Project; or computed entries, elements
        among them, on the scale of the force field; or nothing, for elements only.
    systems : sequence of AtomicSystem
        What is to be compared, for the chemical systems to compute.
    options : Options
        How to run.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, DownloadError
        As :func:`check_hull` and the constructors of :class:`~adit_model.quality.hull.Hull`.
    """
    check_hull(name, sources)
    found = force_field(name)
    if not sources:
        return Hull.of_elements(scale=found.scale)
    kind = _kind(sources[0])
    if kind == "the Materials Project":
        return Hull.from_materials_project()
    if kind == "entries":
        return Hull.from_entries(sources, scale=found.scale)
    paths = [Path(path).expanduser() for path in sources]
    hull = Hull.from_csv(paths)
    return hull if hull.scale == found.scale else _own_hull(found, paths, systems, options)


def _own_hull(
    found: ForceField,
    sources: Sequence[Path],
    systems: Sequence[AtomicSystem],
    options: Options,
) -> Hull:
    """Compute known phases near the hull by the force field, in the systems that are asked for."""
    references = element_references(found.name)
    wanted = {frozenset(system.numbers.tolist()) for system in systems}
    phases: dict[str, float] = {}
    known = [system for path in sources for system in _near_hull(path, wanted)]
    measure = Measure(
        f"energy-{found.name}",
        CRYSTAL,
        ("energy",),
        {"chgnet": energy_chgnet, "sevennet": energy_sevennet}[found.name],
        time_limit=120.0,
        package=found.package,
    )
    cells = measure_systems(
        known,
        [measure],
        options.store,
        workers=options.workers,
        progress=options.title(f"hull of {found.name}"),
    )
    computed = 0
    for system, cell in zip(known, cells, strict=True):
        if isinstance(cell["energy"], float):
            computed += 1
            energy = references.formation_energy(amounts(system), cell["energy"])
            phases[system.formula] = min(energy, phases.get(system.formula, energy))
    names = ", ".join(path.name for path in sources)
    return Hull(
        phases,
        references.energies,
        scale=found.scale,
        source=f"{found.label} of {computed} structures at most {HULL_MARGIN} eV/atom above the "
        f"hull in {names} (partial)",
        references=references.energies,
    )


def _near_hull(path: Path, wanted: set[frozenset[int]]) -> list[AtomicSystem]:
    from adit_model.data.crystal_csv import load_crystal_csv, load_crystal_table

    table = load_crystal_table(path)
    table = table[table["e_above_hull"] <= HULL_MARGIN]
    if "source" in table:
        table = table[~table["source"].isin(OLDER_SOURCES)]
    ids = set(table.index)
    within: dict[frozenset[int], bool] = {}
    found = []
    for system in load_crystal_csv(path, progress=False):
        elements = frozenset(system.numbers.tolist())
        if elements not in within:
            within[elements] = len(elements) > 1 and any(elements <= asked for asked in wanted)
        if within[elements] and str(system.info["id"]) in ids:
            found.append(system)
    return found


def amounts(system: AtomicSystem) -> dict[str, int]:
    """Count the atoms of each element, by symbol."""
    from ase.data import chemical_symbols

    numbers, counts = np.unique(system.numbers, return_counts=True)
    return {chemical_symbols[n]: int(k) for n, k in zip(numbers, counts, strict=True)}
