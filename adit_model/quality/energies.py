"""Energies of crystals in the evaluation: relaxation, energy above hull, what is stable.

*Stable*: relaxed within the steps, at most 0 eV/atom above the hull; *metastable*: at most 0.1
eV/atom. What competes with the elements only, or lies more than 0.1 eV/atom below the hull, is
neither: its stability is unknown. *S.U.N.*: stable, unique and novel; *M.S.U.N.*: metastable,
unique and novel. Unique and novel are those of the relaxed crystals, see
:mod:`adit_model.quality.matching`; every rate is a share of all samples, valid or not.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.data.dataset import AtomicDataset
from adit_model.data.phases import KNOWN, is_known, known_phases, known_splits
from adit_model.quality.cells import measure_systems
from adit_model.quality.crystals import amounts
from adit_model.quality.entries import Entry, Reference
from adit_model.quality.force_fields import FORCE_FIELDS, element_references, force_field
from adit_model.quality.hull import (
    FAR_BELOW,
    HULL_COLUMN,
    MATERIALS_PROJECT,
    METASTABLE,
    MP2020,
    STABILITIES,
    Hull,
    check_formation_energy,
    load_phases_table,
    phases_name,
)
from adit_model.quality.measures import Measure
from adit_model.quality.pool import FAILED
from adit_model.quality.relax import RelaxationError, relax, single_point
from adit_model.quality.rows import Options, Row, compare_crystals
from adit_model.quality.summary import by_size
from adit_model.quality.tables import spread, tally
from adit_model.systems import CRYSTAL, AtomicSystem

TIME_LIMIT = 900.0  # seconds for a relaxation; 500 steps of 20 atoms take about 200
RELAX_CHUNK = 20  # each start of a worker loads the force field again
HULL_MARGIN = 0.02  # eV/atom, of the known phases that make a force field's own hull
MEASURED = ("energy_initial", "energy", "relax_steps", "converged", "rmsd")
DERIVED = (
    "formation_energy",
    "above_hull_initial",
    "above_hull",
    "competing",
    "known_phases",
    "competitors_known",
    "stability",
    "stable",
    "metastable",
    "unique",
    "novel",
)
# (name, label, columns that have to be true, what passes)
RATES = (
    (
        "converged",
        "relaxation converged",
        ("converged",),
        "forces below 0.05 eV/angstrom within 500 steps, no collapse",
    ),
    (
        "stable",
        "stable",
        ("stable",),
        f"converged, {FAR_BELOW} to 0 eV/atom above the hull, against a known compound",
    ),
    (
        "metastable",
        "metastable",
        ("metastable",),
        f"converged, {FAR_BELOW} to {METASTABLE} eV/atom above the hull; stable ones included",
    ),
    (
        "sun",
        "S.U.N.",
        ("stable", "unique", "novel"),
        "stable, and after relaxation unique and novel",
    ),
    (
        "msun",
        "M.S.U.N.",
        ("metastable", "unique", "novel"),
        "metastable, and after relaxation unique and novel",
    ),
)
NUMBERS = (
    ("above_hull_initial", "energy above hull as generated (eV/atom)"),
    ("above_hull", "energy above hull, relaxed (eV/atom)"),
    ("formation_energy", "formation energy, relaxed (eV/atom)"),
    ("rmsd", "RMSD on relaxation (angstrom)"),
    ("relax_steps", "steps"),
)


def _relaxed(name: str, system: AtomicSystem) -> dict[str, Any]:
    try:
        found = relax(system, name)
    except RelaxationError as error:
        return dict.fromkeys(_columns(name), f"{FAILED}{error}")
    assert found.system.cell is not None
    return {
        f"{name}_energy_initial": found.energy_initial,
        f"{name}_energy": found.energy_final,
        f"{name}_relax_steps": found.steps,
        f"{name}_converged": found.converged,
        f"{name}_rmsd": found.rmsd,
        f"{name}_relaxed": [found.system.cell.tolist(), found.system.positions.tolist()],
    }


def _as_it_is(name: str, system: AtomicSystem) -> dict[str, Any]:
    return {"energy": single_point(system, name)}


def _columns(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{column}" for column in MEASURED + DERIVED)


def energy_measure(name: str) -> Measure:
    """Relaxation by a force field as a measure; what needs the hull is filled in afterwards.

    Raises
    ------
    ValueError
        If there is no such force field.
    """
    found = force_field(name)
    return Measure(
        f"relax-{name}",
        CRYSTAL,
        _columns(name),
        functools.partial(_relaxed, name),
        time_limit=TIME_LIMIT,
        package=found.package,
        module=found.module,
        extra=name,
        chunk=RELAX_CHUNK,
        revision=3,
    )


def choose_energies(names: Sequence[str], hull: Collection[Any] = ()) -> tuple[Measure, ...]:
    """Return the relaxations to take, after a check of all that can be checked before.

    Parameters
    ----------
    names : sequence of str
        Force fields.
    hull : collection
        Sources of the hull; see :func:`make_hull`.

    Raises
    ------
    ValueError
        If there is no such force field, or the hull is none for it.
    FileNotFoundError
        If a file of the hull is missing.
    """
    if not names and any(source != KNOWN for source in hull):
        raise ValueError("a hull is of use with energies only")
    measures = tuple(energy_measure(name) for name in dict.fromkeys(names))
    for name in names:
        check_hull(name, hull, alone=len(measures) == 1)
    return measures


def require_installed(measures: Sequence[Measure]) -> None:
    """Raise ``ValueError``, with the way to install it, if a measure's package is not there."""
    for measure in measures:
        if measure.missing:
            raise ValueError(measure.missing)


def energy_names(measures: Sequence[Measure]) -> list[str]:
    """Force fields whose relaxation is among the measures, and which are installed."""
    asked = {measure.name for measure in measures if measure.missing is None}
    return [name for name in FORCE_FIELDS if f"relax-{name}" in asked]


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
            if is_known(path):
                known_splits(path)
            elif not Path(path).expanduser().is_file():
                raise FileNotFoundError(f"there is no file {path} to build the hull from")


def _kind(source: Any) -> str:
    if isinstance(source, str | Path):
        return "the Materials Project" if str(source) in MATERIALS_PROJECT else "CSV files"
    if hasattr(source, "energy_per_atom"):
        return "entries"
    raise TypeError(f"a hull is made of paths, 'known', 'mp' or computed entries, got {source!r}")


def make_hull(
    name: str, sources: Sequence[Any], systems: Sequence[AtomicSystem], options: Options
) -> Hull:
    """Build a hull on the energy scale of a force field.

    Parameters
    ----------
    name : str
        The force field.
    sources : sequence
        CSV files and ``"known"``, the phases of the package; or ``"mp"`` alone, for the Materials
        Project; or computed entries, elements among them, on the scale of the force field; or
        nothing, and no compound has an energy above hull.
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
    paths = [path if is_known(path) else Path(path).expanduser() for path in sources]
    if found.scale == MP2020:
        return Hull.from_csv(paths)
    return _own_hull(name, paths, systems, options)


def _own_hull(
    name: str, sources: Sequence[str | Path], systems: Sequence[AtomicSystem], options: Options
) -> Hull:
    """Compute known phases near the hull by the force field, in the systems that are asked for."""
    found, references = force_field(name), element_references(name)
    wanted = {frozenset(system.numbers.tolist()) for system in systems}
    phases: dict[str, float] = {}
    known = [system for path in sources for system in _near_hull(path, wanted)]
    measure = Measure(
        f"energy-{name}",
        CRYSTAL,
        ("energy",),
        functools.partial(_as_it_is, name),
        time_limit=120.0,
        package=found.package,
    )
    cells = measure_systems(
        known,
        [measure],
        options.store,
        workers=options.workers,
        progress=options.title(f"hull of {name}"),
    )
    computed = 0
    for system, cell in zip(known, cells, strict=True):
        if isinstance(cell["energy"], float):
            computed += 1
            energy = references.formation_energy(amounts(system), cell["energy"])
            phases[system.formula] = min(energy, phases.get(system.formula, energy))
    names = ", ".join(phases_name(path) for path in sources)
    return Hull(
        phases,
        references.energies,
        scale=found.scale,
        source=f"{found.label} of {computed} structures at most {HULL_MARGIN} eV/atom above the "
        f"hull in {names} (partial)",
    )


def _near_hull(source: str | Path, wanted: set[frozenset[int]]) -> list[AtomicSystem]:
    """Known compounds near the hull, within chemical systems that are asked for."""
    table = load_phases_table(source)
    if HULL_COLUMN in table:
        table = table[table[HULL_COLUMN] <= HULL_MARGIN]
    ids = set(table.index)
    within: dict[frozenset[int], bool] = {}
    found = []
    for system in _crystals(source):
        elements = frozenset(system.numbers.tolist())
        if elements not in within:
            within[elements] = len(elements) > 1 and any(elements <= asked for asked in wanted)
        if within[elements] and str(system.info["id"]) in ids:
            found.append(system)
    return found


def _crystals(source: str | Path) -> AtomicDataset:
    if is_known(source):
        phases = known_phases()
        return phases.dataset(phases.select(known_splits(source)))
    from adit_model.data.crystal_csv import load_crystal_csv

    return load_crystal_csv(source, progress=False)


def fill_energies(
    rows: list[Row],
    entries: Sequence[Entry],
    reference: Reference | None,
    options: Options,
    hulls: Mapping[str, Hull],
    folder: Path | None = None,
) -> None:
    """Fill the columns that need a hull or the other rows.

    Parameters
    ----------
    rows : list of dict
        From :func:`~adit_model.quality.rows.make_rows`; changed in place.
    entries : sequence of Entry
        Of the rows.
    reference : Reference, optional
        Known structures; without, nothing is said about novelty.
    options : Options
        How to run.
    hulls : mapping
        From each force field to its hull.
    folder : Path, optional
        Where to write the relaxed crystals, ``relaxed_NAME.extxyz`` with the row's index.
    """
    for name, hull in hulls.items():
        relaxed: dict[int, AtomicSystem] = {}
        for row, entry in zip(rows, entries, strict=True):
            found = row.pop(f"{name}_relaxed", None)
            if found is not None and entry.system is not None:
                cell, positions = found
                numbers = entry.system.numbers
                relaxed[row["index"]] = AtomicSystem(numbers, np.array(positions), np.array(cell))
                _above_hull(row, name, entry.system, hull)
        _compare(rows, name, relaxed, reference, options)
        if folder is not None and relaxed:
            _write(folder / f"relaxed_{name}.extxyz", rows, name, relaxed)


def _above_hull(row: Row, name: str, system: AtomicSystem, hull: Hull) -> None:
    references = element_references(name)
    composition = amounts(system)
    try:
        before, after = (
            references.formation_energy(composition, row[f"{name}_{column}"])
            for column in ("energy_initial", "energy")
        )
        check_formation_energy(after)
    except ValueError as error:
        row.update(dict.fromkeys([f"{name}_{column}" for column in DERIVED], f"{FAILED}{error}"))
        return
    row[f"{name}_formation_energy"] = after
    first = hull.above(composition, before, scale=references.scale)
    last = hull.above(composition, after, scale=references.scale)
    reason = None if last.reason is None else f"{FAILED}{last.reason}"
    converged = row[f"{name}_converged"] is True
    found = {
        "above_hull_initial": reason or first.energy_above_hull,
        "above_hull": reason or last.energy_above_hull,
        "competing": " + ".join(last.competing) or reason,
        "known_phases": last.known_phases,
        "competitors_known": last.competitors_known,
        "stability": last.stability,
        "stable": converged and last.stability == "stable",
        "metastable": converged and last.stability in ("stable", "metastable"),
    }
    row.update({f"{name}_{column}": value for column, value in found.items()})


def _compare(
    rows: list[Row],
    name: str,
    relaxed: Mapping[int, AtomicSystem],
    reference: Reference | None,
    options: Options,
) -> None:
    """Judge the relaxed metastable crystals; of equal ones the lowest is the unique one."""
    by_index = {row["index"]: row for row in rows}
    chosen = [i for i in relaxed if by_index[i].get(f"{name}_metastable") is True]
    chosen.sort(key=lambda i: by_index[i][f"{name}_above_hull"])
    if chosen:
        crystals = [relaxed[i] for i in chosen]
        mine = [by_index[i] for i in chosen]
        compare_crystals(mine, crystals, reference, options, prefix=f"{name}_")


def _write(path: Path, rows: Sequence[Row], name: str, relaxed: Mapping[int, AtomicSystem]) -> None:
    import ase.io

    frames = []
    for row in rows:
        if row["index"] in relaxed:
            atoms = relaxed[row["index"]].to_atoms()
            above = row.get(f"{name}_above_hull")
            atoms.info = {"index": row["index"], "energy_per_atom": row[f"{name}_energy"]}
            atoms.info |= {"energy_above_hull": above} if isinstance(above, float) else {}
            frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


def summarise_energies(
    rows: Sequence[Row], hulls: Mapping[str, Hull], has_reference: bool
) -> dict[str, Any]:
    """Rates and medians of the crystals among rows, for each force field.

    Parameters
    ----------
    rows : sequence of dict
        Filled by :func:`fill_energies`.
    hulls : mapping
        From each force field to its hull.
    has_reference : bool
        Whether novelty was judged.

    Returns
    -------
    dict
        For each force field ``model``, ``scale``, ``hull`` (``source``, ``complete``,
        ``compounds``), ``trust`` (how many of the crystals with a formation energy have which
        stability, compete with ``elements_only``, lie ``far_below`` the hull, have all
        ``competitors_known``), ``null`` (of an incomplete hull with
        compounds, see :meth:`~adit_model.quality.hull.Hull.null_rates`), ``rates``,
        ``by_num_atoms`` and ``numbers`` (``count``, ``median``, ``mean``).
    """
    crystals = [row for row in rows if row["domain"] == CRYSTAL]
    result = {}
    for name, hull in hulls.items():
        result[name] = {
            "model": force_field(name).label,
            "scale": force_field(name).scale,
            "hull": {"source": hull.source, "complete": hull.complete, "compounds": len(hull)},
            "trust": _trust(crystals, name),
            "null": hull.null_rates() if len(hull) and not hull.complete else None,
            "rates": _rates(crystals, name, has_reference),
            "by_num_atoms": {
                label: {"count": len(part), "rates": _rates(part, name, has_reference)}
                for label, part in by_size(crystals).items()
            },
            "numbers": {
                column: spread([row.get(f"{name}_{column}") for row in crystals])
                for column, _ in NUMBERS
            },
        }
    return result


def _trust(rows: Sequence[Row], name: str) -> dict[str, int]:
    """Count how the crystals with a formation energy stand to what the hull knows."""
    from ase.data import chemical_symbols

    judged = [row for row in rows if row.get(f"{name}_stability") in STABILITIES]
    labels = [row[f"{name}_stability"] for row in judged]
    above = [row[f"{name}_above_hull"] for row in judged]
    competing = [set(str(row[f"{name}_competing"]).split(" + ")) for row in judged]
    return {
        "of": len(judged),
        **{label: labels.count(label) for label in STABILITIES},
        "elements_only": sum(len(c) > 1 and c <= set(chemical_symbols) for c in competing),
        "far_below": sum(isinstance(energy, float) and energy < FAR_BELOW for energy in above),
        "competitors_known": sum(row[f"{name}_competitors_known"] for row in judged),
    }


def _rates(rows: Sequence[Mapping[str, Any]], name: str, has_reference: bool) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for key, _, columns, _ in RATES:
        if not rows or ("novel" in columns and not has_reference):
            rates[key] = None
            continue
        passed = sum(all(row.get(f"{name}_{c}") is True for c in columns) for row in rows)
        rates[key] = tally(passed, len(rows))
    return rates
