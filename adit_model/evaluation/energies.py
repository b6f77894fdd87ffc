"""Energies of crystals in the evaluation: relaxation, energy above hull, what is stable.

*Stable*: relaxed, at most 0 eV/atom above the hull; *metastable*: at most 0.1 eV/atom. *S.U.N.*:
stable, unique and novel; *M.S.U.N.*: metastable, unique and novel. Unique and novel are those of
the relaxed crystals, by pymatgen's StructureMatcher as elsewhere in the package; every rate is a
share of all samples, valid or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from adit_model.evaluation.cells import CellStore, fingerprint, measure_systems
from adit_model.evaluation.force_fields import (
    FORCE_FIELDS,
    ForceField,
    element_references,
    force_field,
)
from adit_model.evaluation.hull import OLDER_SOURCES, Hull
from adit_model.evaluation.measures import FAILED, Measure
from adit_model.evaluation.relax import RelaxationError, relax, single_point
from adit_model.evaluation.rows import Options, Row, dataset_hash
from adit_model.evaluation.sources import Entry, Reference
from adit_model.evaluation.summary import Row as AnyRow
from adit_model.evaluation.summary import by_size
from adit_model.systems import CRYSTAL, AtomicSystem

METASTABLE = 0.1  # eV/atom
HULL_MARGIN = 0.02  # eV/atom, of the known phases that make a force field's own hull
MATERIALS_PROJECT = "mp"
TIME_LIMIT = 900.0  # seconds for a relaxation; 500 steps of 20 atoms take about 200
RELAX_CHUNK = 20  # each start of a worker loads the force field again
MEASURED = ("energy_initial", "energy", "relax_steps", "converged", "rmsd")
DERIVED = (
    "formation_energy",
    "above_hull_initial",
    "above_hull",
    "competing",
    "stable",
    "metastable",
    "unique",
    "novel",
)
RATES = (
    ("converged", "relaxation converged", ("converged",)),
    ("stable", "stable", ("stable",)),
    ("metastable", "metastable", ("metastable",)),
    ("sun", "S.U.N.", ("stable", "unique", "novel")),
    ("msun", "M.S.U.N.", ("metastable", "unique", "novel")),
)
NUMBERS = (
    ("above_hull_initial", "energy above hull as generated (eV/atom)"),
    ("above_hull", "energy above hull, relaxed (eV/atom)"),
    ("formation_energy", "formation energy, relaxed (eV/atom)"),
    ("rmsd", "RMSD on relaxation (angstrom)"),
    ("relax_steps", "steps"),
)


def relax_chgnet(system: AtomicSystem) -> dict[str, Any]:
    """Relax by CHGNet."""
    return _relax("chgnet", system)


def relax_sevennet(system: AtomicSystem) -> dict[str, Any]:
    """Relax by SevenNet-0."""
    return _relax("sevennet", system)


def energy_chgnet(system: AtomicSystem) -> dict[str, Any]:
    """Energy by CHGNet, as it is."""
    return {"energy": single_point(system, "chgnet")}


def energy_sevennet(system: AtomicSystem) -> dict[str, Any]:
    """Energy by SevenNet-0, as it is."""
    return {"energy": single_point(system, "sevennet")}


def _relax(name: str, system: AtomicSystem) -> dict[str, Any]:
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
        {"chgnet": relax_chgnet, "sevennet": relax_sevennet}[name],
        time_limit=TIME_LIMIT,
        package=found.package,
        module=found.module,
        extra=name,
        chunk=RELAX_CHUNK,
    )


def energy_names(measures: Sequence[Measure]) -> list[str]:
    """Force fields whose relaxation is among the measures, and which are installed."""
    asked = {measure.name for measure in measures if measure.missing is None}
    return [name for name in FORCE_FIELDS if f"relax-{name}" in asked]


def make_hull(
    name: str, sources: Sequence[str | Path], systems: Sequence[AtomicSystem], options: Options
) -> Hull:
    """Build a hull on the energy scale of a force field.

    Parameters
    ----------
    name : str
        The force field.
    sources : sequence of str or Path
        CSV files; or ``"mp"`` alone, for the Materials Project; or nothing, for elements only.
    systems : sequence of AtomicSystem
        What is to be compared, for the chemical systems to fetch or to compute.
    options : Options
        How to run.

    Raises
    ------
    ValueError, FileNotFoundError, DownloadError
        As the constructors of :class:`~adit_model.evaluation.hull.Hull`; or if the energies of the
        source are on another scale and it has no structures.
    """
    found = force_field(name)
    if not sources:
        return Hull.of_elements(scale=found.scale)
    if MATERIALS_PROJECT in map(str, sources):
        if len(sources) > 1:
            raise ValueError("the hull is of the Materials Project or of CSV files, not of both")
        hull = Hull.from_materials_project()
        if hull.scale != found.scale:
            raise ValueError(
                f"energies of the Materials Project are {hull.scale}, those of {found.label} are "
                f"not: give CSV files with structures, of which {found.label} makes its own hull"
            )
        return hull
    hull = Hull.from_csv(sources)
    return hull if hull.scale == found.scale else _own_hull(found, sources, systems, options)


def _own_hull(
    found: ForceField,
    sources: Sequence[str | Path],
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
            energy = references.formation_energy(_amounts(system), cell["energy"])
            phases[system.formula] = min(energy, phases.get(system.formula, energy))
    names = ", ".join(Path(path).name for path in sources)
    return Hull(
        phases,
        references.energies,
        scale=found.scale,
        source=f"{found.label} of {computed} structures at most {HULL_MARGIN} eV/atom above the "
        f"hull in {names} (partial)",
        references=references.energies,
    )


def _near_hull(path: str | Path, wanted: set[frozenset[int]]) -> list[AtomicSystem]:
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


def fill_energies(
    rows: list[Row],
    entries: Sequence[Entry],
    reference: Reference | None,
    options: Options,
    sources: Sequence[str | Path] = (),
    folder: Path | None = None,
) -> dict[str, Hull]:
    """Fill the columns that need a hull or the other rows.

    Parameters
    ----------
    rows : list of dict
        From :func:`~adit_model.evaluation.rows.make_rows`; changed in place.
    entries : sequence of Entry
        Of the rows.
    reference : Reference, optional
        Known structures; without, nothing is said about novelty.
    options : Options
        How to run.
    sources : sequence of str or Path
        Of the hull; see :func:`make_hull`.
    folder : Path, optional
        Where to write the relaxed crystals, ``relaxed_NAME.extxyz`` with the row's index.

    Returns
    -------
    dict
        From each force field to its hull.
    """
    systems = {row["index"]: entries[row["index"]].system for row in rows}
    crystals = [s for s in systems.values() if s is not None and s.is_periodic]
    hulls = {}
    for name in energy_names(options.measures):
        hulls[name] = make_hull(name, sources, crystals, options)
        relaxed: dict[int, AtomicSystem] = {}
        for row in rows:
            found = row.pop(f"{name}_relaxed", None)
            system = systems[row["index"]]
            if found is not None and system is not None:
                cell, positions = found
                relaxed[row["index"]] = AtomicSystem(
                    system.numbers, np.array(positions), np.array(cell)
                )
                _above_hull(row, name, system, hulls[name])
        _compare(rows, name, relaxed, reference, options)
        if folder is not None and relaxed:
            _write(folder / f"relaxed_{name}.extxyz", rows, name, relaxed)
    return hulls


def _amounts(system: AtomicSystem) -> dict[str, int]:
    from ase.data import chemical_symbols

    numbers, counts = np.unique(system.numbers, return_counts=True)
    return {chemical_symbols[n]: int(k) for n, k in zip(numbers, counts, strict=True)}


def _above_hull(row: Row, name: str, system: AtomicSystem, hull: Hull) -> None:
    references = element_references(name)
    amounts = _amounts(system)
    try:
        before, after = (
            references.formation_energy(amounts, row[f"{name}_{column}"])
            for column in ("energy_initial", "energy")
        )
    except ValueError as error:
        row.update(dict.fromkeys([f"{name}_{column}" for column in DERIVED], f"{FAILED}{error}"))
        return
    row[f"{name}_formation_energy"] = after
    first = hull.above(amounts, before, scale=references.scale)
    last = hull.above(amounts, after, scale=references.scale)
    if last.energy_above_hull is None:
        reason = f"{FAILED}{last.reason}"
        row.update(dict.fromkeys([f"{name}_{column}" for column in DERIVED[1:]], reason))
        return
    row[f"{name}_above_hull_initial"] = first.energy_above_hull
    row[f"{name}_above_hull"] = last.energy_above_hull
    row[f"{name}_competing"] = " + ".join(last.competing)
    row[f"{name}_stable"] = last.energy_above_hull <= 0
    row[f"{name}_metastable"] = last.energy_above_hull <= METASTABLE


def _compare(
    rows: list[Row],
    name: str,
    relaxed: Mapping[int, AtomicSystem],
    reference: Reference | None,
    options: Options,
) -> None:
    """Judge the relaxed metastable crystals; of equal ones the lowest is the unique one."""
    from adit_model.metrics.crystals import judge_novel, judge_unique

    by_index = {row["index"]: row for row in rows}
    chosen = [i for i in relaxed if by_index[i].get(f"{name}_metastable") is True]
    chosen.sort(key=lambda i: by_index[i][f"{name}_above_hull"])
    if not chosen:
        return
    crystals = [relaxed[i] for i in chosen]
    settings: dict[str, Any] = {"workers": options.workers, "progress": options.progress}
    verdicts = {f"{name}_unique": _kept(
        options.store,
        f"unique {fingerprint(crystals)}",
        lambda: judge_unique(crystals, **settings),
    )}  # fmt: skip
    if reference is not None and (known := reference.crystals) is not None:
        verdicts[f"{name}_novel"] = _kept(
            options.store,
            f"novel {dataset_hash(reference)} {fingerprint(crystals)}",
            lambda: judge_novel(crystals, known, **settings),
        )
    for column, answers in verdicts.items():
        for i, answer in zip(chosen, answers, strict=True):
            by_index[i][column] = answer if isinstance(answer, bool) else f"{FAILED}{answer}"


def _kept(store: CellStore, key: str, judge: Any) -> list[bool | str]:
    verdicts = store.read(key)
    if verdicts is None:
        verdicts = judge()
        store.write(key, verdicts)
    return verdicts


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
        What that returned.
    has_reference : bool
        Whether novelty was judged.

    Returns
    -------
    dict
        For each force field ``model``, ``scale``, ``hull`` (``source``, ``complete``,
        ``compounds``), ``rates``, ``by_num_atoms`` and ``numbers`` (``count``,
        ``median``, ``mean``).
    """
    crystals = [row for row in rows if row["domain"] == CRYSTAL]
    result = {}
    for name, hull in hulls.items():
        numbers = {}
        for column, _ in NUMBERS:
            values = [row.get(f"{name}_{column}") for row in crystals]
            known = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            numbers[column] = {"count": len(known)} | (
                {"median": median(known), "mean": mean(known)} if known else {}
            )
        result[name] = {
            "model": force_field(name).label,
            "scale": force_field(name).scale,
            "hull": {"source": hull.source, "complete": hull.complete, "compounds": len(hull)},
            "rates": _rates(crystals, name, has_reference),
            "by_num_atoms": {
                label: {"count": len(part), "rates": _rates(part, name, has_reference)}
                for label, part in by_size(crystals).items()
            },
            "numbers": numbers,
        }
    return result


def _rates(rows: Sequence[AnyRow], name: str, has_reference: bool) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for key, _, columns in RATES:
        if not rows or ("novel" in columns and not has_reference):
            rates[key] = None
            continue
        passed = sum(all(row.get(f"{name}_{c}") is True for c in columns) for row in rows)
        rates[key] = {"passed": passed, "of": len(rows), "share": passed / len(rows)}
    return rates
