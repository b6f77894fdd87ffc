"""Energies of crystals in the evaluation: relaxation, energy above hull, what is stable.

*Stable*: relaxed within the steps, at most 0 eV/atom above the hull; *metastable*: at most 0.1
eV/atom. *S.U.N.*: stable, unique and novel; *M.S.U.N.*: metastable, unique and novel. Unique and
novel are those of the relaxed crystals, by pymatgen's StructureMatcher as elsewhere in the package;
every rate is a share of all samples, valid or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from adit_model.quality.cells import CellStore, fingerprint
from adit_model.quality.energy_hull import amounts, check_hull
from adit_model.quality.force_fields import FORCE_FIELDS, element_references, force_field
from adit_model.quality.hull import FAR_BELOW, METASTABLE, Hull, check_formation_energy
from adit_model.quality.measures import FAILED, Measure
from adit_model.quality.relax import RelaxationError, relax
from adit_model.quality.rows import Options, Row, dataset_hash
from adit_model.quality.sources import Entry, Reference
from adit_model.quality.summary import Row as AnyRow
from adit_model.quality.summary import by_size
from adit_model.systems import CRYSTAL, AtomicSystem

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


def choose_energies(names: Sequence[str], hull: Collection[Any] = ()) -> tuple[Measure, ...]:
    """Return the relaxations to take, after a check of all that can be checked before.

    Parameters
    ----------
    names : sequence of str
        Force fields.
    hull : collection
        Sources of the hull; see :func:`~adit_model.quality.energy_hull.make_hull`.

    Raises
    ------
    ValueError
        If there is no such force field, or the hull is none for it.
    FileNotFoundError
        If a file of the hull is missing.
    """
    if len(hull) and not names:
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
    systems = {row["index"]: entries[row["index"]].system for row in rows}
    for name, hull in hulls.items():
        relaxed: dict[int, AtomicSystem] = {}
        for row in rows:
            found = row.pop(f"{name}_relaxed", None)
            system = systems[row["index"]]
            if found is not None and system is not None:
                cell, positions = found
                relaxed[row["index"]] = AtomicSystem(
                    system.numbers, np.array(positions), np.array(cell)
                )
                _above_hull(row, name, system, hull)
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
    if last.energy_above_hull is None:
        reason = f"{FAILED}{last.reason}"
        row.update(dict.fromkeys([f"{name}_{column}" for column in DERIVED[1:]], reason))
        return
    row[f"{name}_above_hull_initial"] = first.energy_above_hull
    row[f"{name}_above_hull"] = last.energy_above_hull
    row[f"{name}_competing"] = " + ".join(last.competing)
    converged = row[f"{name}_converged"] is True
    row[f"{name}_stable"] = converged and last.energy_above_hull <= 0
    row[f"{name}_metastable"] = converged and last.energy_above_hull <= METASTABLE


def _compare(
    rows: list[Row],
    name: str,
    relaxed: Mapping[int, AtomicSystem],
    reference: Reference | None,
    options: Options,
) -> None:
    """Judge the relaxed metastable crystals; of equal ones the lowest is the unique one."""
    from adit_model.quality.crystals import judge_novel, judge_unique

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
        ``compounds``), ``trust`` (of how many energies above hull are ``elements_only``, no known
        compound competing, and ``far_below`` the hull), ``rates``, ``by_num_atoms`` and
        ``numbers`` (``count``, ``median``, ``mean``).
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
            "trust": _trust(crystals, name),
            "rates": _rates(crystals, name, has_reference),
            "by_num_atoms": {
                label: {"count": len(part), "rates": _rates(part, name, has_reference)}
                for label, part in by_size(crystals).items()
            },
            "numbers": numbers,
        }
    return result


def _trust(rows: Sequence[AnyRow], name: str) -> dict[str, int]:
    """Count the energies above hull that are so more for want of known phases than by nature."""
    from ase.data import chemical_symbols

    above = [(row, row.get(f"{name}_above_hull")) for row in rows]
    known = [(row[f"{name}_competing"].split(" + "), e) for row, e in above if isinstance(e, float)]
    return {
        "of": len(known),
        "elements_only": sum(
            len(phases) > 1 and set(phases) <= set(chemical_symbols) for phases, _ in known
        ),
        "far_below": sum(energy < FAR_BELOW for _, energy in known),
    }


def _rates(rows: Sequence[AnyRow], name: str, has_reference: bool) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for key, _, columns in RATES:
        if not rows or ("novel" in columns and not has_reference):
            rates[key] = None
            continue
        passed = sum(all(row.get(f"{name}_{c}") is True for c in columns) for row in rows)
        rates[key] = {"passed": passed, "of": len(rows), "share": passed / len(rows)}
    return rates
