"""Energy above the convex hull: of formation energies, on one energy scale, with its reason.

The hull is pymatgen's ``PhaseDiagram`` of each chemical system that is asked for (Ong et al., Chem.
Mater. 20, 1798, 2008). A hull that lacks phases is too high, and flatters: the true energy above
hull is higher. So each answer says what the hull knows of the chemical system, what
competes with nothing but the elements has no energy above hull, and :meth:`Hull.null_rates` says
how often real compounds, made worse, would pass.
"""

from __future__ import annotations

import logging
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adit_model.data.phases import is_known, known_splits, known_table, reduced_formula
from adit_model.formulas import chemical_formula

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pymatgen.analysis.phase_diagram import PhaseDiagram
    from pymatgen.core import Composition

logger = logging.getLogger(__name__)

# PBE and PBE+U energies with the corrections of Wang et al., Sci. Rep. 11, 15496 (2021).
MP2020 = "MP2020-corrected PBE"
# Sources of the CSV files with the Materials Project's older corrections: up to 0.4 eV/atom away
# from MP2020 in bromides, iodides, selenides and tellurides.
OLDER_SOURCES = frozenset({"flla-2015"})
FORMULA_COLUMNS = ("formula", "pretty_formula", "full_formula")
ENERGY_COLUMN, HULL_COLUMN = "formation_energy_per_atom", "e_above_hull"
MATERIALS_PROJECT = ("mp", "materials-project")  # names of the whole hull, asked for there
ELEMENTS_ONLY = "elements only, no compound known"  # source of such a hull
METASTABLE = 0.1  # eV/atom above the hull, at most
# eV/atom, several times the error of force fields on formation energies: what lies lower tells of
# missing phases or of a failing force field
FAR_BELOW = -0.1
Stability = Literal["stable", "metastable", "unstable", "unknown"]
STABILITIES: tuple[Stability, ...] = ("stable", "metastable", "unstable", "unknown")
# eV/atom; no crystal of the Materials Project lies below -4.5 (ErF3 in crystals_train), so what a
# force field puts below this has left what it was trained on
LOWEST_FORMATION_ENERGY = -6.0
SYSTEMS_AT_ONCE = 50  # chemical systems in one question to the Materials Project
MAX_ELEMENTS = 8  # above, a query asks for every stable entry rather than for all subsystems
NULL_WORSE = (0.15, 0.2, 0.3)  # eV/atom above the hull: none of these is metastable
NULL_NUMBER = 500  # compounds, which give a share to about 2 points
_SMALL = 1e-6  # share of a phase in a mixture that does not count
_DIGITS = 8  # of energies in eV/atom, what the hull is good for


def check_formation_energy(energy: float) -> None:
    """Refuse a formation energy, in eV/atom, that a compound cannot have.

    Raises
    ------
    ValueError
        If it is below :data:`LOWEST_FORMATION_ENERGY`.
    """
    if energy < LOWEST_FORMATION_ENERGY:
        raise ValueError(
            f"a formation energy of {energy:.1f} eV/atom, lower than any compound has: the force "
            "field fails here"
        )


@dataclass(frozen=True)
class HullResult:
    """Where a structure lies relative to a hull.

    Parameters
    ----------
    energy_above_hull : float or None
        In eV/atom, negative below the hull; None if there is no answer, as where it competes with
        the elements only and neither the hull is complete nor a compound of its composition known.
    reason : str or None
        Why there is no answer.
    source : str
        Where the hull comes from.
    complete : bool
        Whether the hull holds all that its source knows of the chemical system. If not, the true
        hull may lie lower, and the true energy above hull may be higher.
    competing : list of str
        Formulas of the phases that the composition decomposes into.
    known_phases : int
        Compounds that the hull knows within the chemical system, of all or some of its elements.
    competitors_known : bool
        Whether what is likely to compete is there: the hull is complete, or it holds a compound of
        the same composition, or one of each pair of the elements.
    stability : str
        ``"stable"``: -0.1 to 0 eV/atom above the hull; ``"metastable"``: to 0.1; ``"unstable"``:
        more, or more than 0.1 eV/atom above the elements, which no missing phase can mend;
        ``"unknown"``: no answer, or more than 0.1 eV/atom below the hull.
    """

    energy_above_hull: float | None
    reason: str | None
    source: str
    complete: bool
    competing: list[str] = field(default_factory=list)
    known_phases: int = 0
    competitors_known: bool = False
    stability: Stability = "unknown"


def stability_of(above_hull: float | None, formation_energy: float) -> Stability:
    """Name the stability, see :class:`HullResult`.

    Parameters
    ----------
    above_hull : float or None
        Energy above hull in eV/atom; None if the elements alone compete.
    formation_energy : float
        In eV/atom.
    """
    if above_hull is None:
        return "unstable" if formation_energy > METASTABLE else "unknown"
    if above_hull < FAR_BELOW:
        return "unknown"
    if above_hull <= 0:
        return "stable"
    return "metastable" if above_hull <= METASTABLE else "unstable"


def rank_key(score: float | None, stability: str | None) -> tuple[int, float]:
    """Return what to sort by: the score, lowest first.

    Those of unknown stability come after those with a score of at most 0.1 eV/atom and before the
    rest, unstable ones after them, those without a score last.
    """
    if score is None:
        return 3, 0.0
    if stability == "unknown":
        return 1, score
    return (0 if score <= METASTABLE else 2), score


class Hull:
    """Known phases by their formation energies; pure elements lie at zero.

    Parameters
    ----------
    phases : mapping
        From a formula to a formation energy in eV/atom.
    elements : iterable of str
        Symbols of the elements whose reference energy is known.
    scale : str
        Energy scale: functional and corrections, or the force field. Energies of different scales
        are never compared; an empty text says nothing and refuses nothing.
    source : str
        Where the phases come from.
    complete : bool
        Whether these are all phases of every chemical system of ``elements``.
    """

    def __init__(
        self,
        phases: Mapping[str, float],
        elements: Iterable[str],
        *,
        scale: str,
        source: str,
        complete: bool = False,
    ) -> None:
        self.elements = frozenset(elements)
        self.scale, self.source, self.complete = scale, source, complete
        self._systems: dict[frozenset[str], dict[str, float]] = defaultdict(dict)
        self._diagrams: dict[frozenset[str], PhaseDiagram] = {}
        self._null: dict[tuple, dict[str, Any]] = {}
        for name, energy in phases.items():
            symbols = frozenset(element.symbol for element in _composition(name))
            if symbols <= self.elements and len(symbols) > 1:
                self._systems[symbols][name] = float(energy)

    def __len__(self) -> int:
        return sum(map(len, self._systems.values()))

    def __repr__(self) -> str:
        return f"Hull({len(self)} compounds, {len(self.elements)} elements, {self.source})"

    @classmethod
    def from_csv(cls, paths: str | Path | Sequence[str | Path]) -> Hull:
        """Build the part of the true hull that files of crystals, or the known phases, give away.

        An entry with a known formation energy and energy above hull fixes the true hull at its
        composition: their difference. One without the latter is a phase like any other. What lies
        between is not known, so the hull is partial. All elements lie at zero.

        Parameters
        ----------
        paths : path or sequence of paths
            CSV files in the CDVAE format with ``formation_energy_per_atom`` (eV/atom),
            MP2020-corrected, and ``e_above_hull`` (eV/atom), if there is such a column. The
            composition is that of the column ``formula`` (or ``pretty_formula``) or else of the
            structure. Rows whose ``source`` is known to have older corrections are left out.
            ``"known"``, ``"known:train"`` and so on are the phases of the package; see
            :mod:`adit_model.data.phases`.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file is missing, is no such file, or has no row with an energy.
        """
        paths = [paths] if isinstance(paths, str | Path) else list(paths)
        if not paths:
            raise ValueError("a hull from CSV files needs one file at least")
        if all(map(is_known, paths)):
            return _known_hull(tuple(map(str, paths)))
        return cls._of_points(paths)

    @classmethod
    def _of_points(cls, paths: Sequence[str | Path]) -> Hull:
        phases: dict[str, float] = {}
        for path in paths:
            for formula, energy in zip(*_hull_points(path), strict=True):
                phases[formula] = min(float(energy), phases.get(formula, math.inf))
        if not phases:
            raise ValueError(f"no row of {[str(path) for path in paths]} has a formation energy")
        names = ", ".join(phases_name(path) for path in paths)
        return cls(phases, _all_elements(), scale=MP2020, source=f"{names} (partial)")

    @classmethod
    def from_entries(
        cls, entries: Iterable[Any], *, scale: str = "", complete: bool = False
    ) -> Hull:
        """Build a hull of computed entries, all on one energy scale.

        Parameters
        ----------
        entries : iterable of ComputedEntry
            Anything with ``composition`` and ``energy_per_atom`` (eV), elements among them: the
            lowest entry of an element is its reference. Compounds of others are left out.
        scale : str
            Name of the energy scale, if it is to be checked.
        complete : bool
            Whether the entries are all that is known of their chemical systems.

        Raises
        ------
        ValueError
            If there is no entry of an element.
        """
        lowest: dict[str, float] = {}
        for entry in entries:
            name = reduced_formula(entry.composition)
            lowest[name] = min(float(entry.energy_per_atom), lowest.get(name, math.inf))
        shares: dict[str, dict[str, float]] = {
            name: _composition(name).fractional_composition.as_dict() for name in lowest
        }
        references = {
            next(iter(part)): lowest[name] for name, part in shares.items() if len(part) == 1
        }
        if not references:
            raise ValueError("no entry is a pure element, so there is no reference energy")
        phases = {
            name: energy - sum(share * references[symbol] for symbol, share in shares[name].items())
            for name, energy in lowest.items()
            if shares[name].keys() <= references.keys()
        }
        return cls(
            phases,
            references,
            scale=scale,
            source=f"{len(lowest)} compositions of entries",
            complete=complete,
        )

    @classmethod
    def from_materials_project(
        cls,
        chemsys: str | Iterable[str] | None = None,
        api_key: str | None = None,
        **options: Any,
    ) -> Hull:
        """Fetch the stable phases of chemical systems: their whole hull, MP2020-corrected.

        Asks for PBE and PBE+U only (``GGA_GGA+U``), since the server's default mixes in r2SCAN.

        Parameters
        ----------
        chemsys : str or iterable of str, optional
            Systems such as ``"Li-Fe-O"``; everything within them is fetched. By default all.
        api_key : str, optional
            By default the environment variable ``MP_API_KEY`` or ``PMG_MAPI_KEY``.
        **options
            As of :func:`~adit_model.data.materials_project.query_materials_project`.

        Raises
        ------
        DownloadError
            If no key is set, or the server cannot be reached, refuses, or knows no such system.
        """
        from adit_model.data.http import DownloadError
        from adit_model.data.materials_project import query_materials_project

        chemsys = [chemsys] if isinstance(chemsys, str) else chemsys
        systems = None if chemsys is None else _subsystems(chemsys)
        query = {"thermo_types": "GGA_GGA+U", "is_stable": "true"}
        fields = ("material_id", "formula_pretty", ENERGY_COLUMN)
        queries = [query]
        if systems is not None:
            parts = range(0, len(systems), SYSTEMS_AT_ONCE)
            queries = [
                query | {"chemsys": ",".join(systems[i : i + SYSTEMS_AT_ONCE])} for i in parts
            ]
        phases: dict[str, float] = {}
        for part in queries:
            for document in query_materials_project(
                "materials/thermo", part, fields, api_key=api_key, **options
            ):
                if document.get(ENERGY_COLUMN) is not None:
                    name = reduced_formula(document["formula_pretty"])
                    energy = float(document[ENERGY_COLUMN])
                    phases[name] = min(energy, phases.get(name, math.inf))
        pure = [_composition(name) for name in phases]
        elements = {element.symbol for part in pure for element in part if len(part) == 1}
        if not elements:
            raise DownloadError(f"the Materials Project has no stable phase of {systems}")
        return cls(
            phases, elements, scale=MP2020, source="Materials Project (GGA_GGA+U)", complete=True
        )

    @classmethod
    def of_elements(cls, scale: str = "") -> Hull:
        """Make a hull without compounds: no compound has an energy above it."""
        return cls({}, _all_elements(), scale=scale, source=ELEMENTS_ONLY)

    def above(
        self,
        composition: Composition | Mapping[str, float] | str,
        formation_energy_per_atom: float,
        *,
        scale: str = "",
    ) -> HullResult:
        """Find how far above the hull a structure lies.

        Parameters
        ----------
        composition : Composition, mapping or str
            Of the structure.
        formation_energy_per_atom : float
            In eV/atom, relative to the elements on the hull's own scale.
        scale : str
            Scale of the energy, if it is to be checked.

        Raises
        ------
        ValueError
            If both scales are named and differ.
        """
        check_scale(self.scale, scale)
        try:
            given = _composition(composition)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return self._no_answer(f"{composition!r} is no composition: {error}")
        symbols = frozenset(element.symbol for element in given)
        if missing := sorted(symbols - self.elements):
            return self._no_answer(f"no reference energy of {', '.join(missing)} in this hull")
        if not math.isfinite(formation_energy_per_atom):
            return self._no_answer(f"the energy is {formation_energy_per_atom}")
        if symbols not in self._diagrams:
            self._diagrams[symbols] = self._diagram(symbols)
        energy = float(formation_energy_per_atom)
        within = self._within(symbols)
        system = "-".join(sorted(symbols))
        same = len(symbols) == 1 or reduced_formula(given) in within.get(symbols, {})
        above, competing = self._place(
            self._diagrams[symbols], given, energy, same or self.complete
        )
        return HullResult(
            above,
            None if above is not None else f"no known compound of {system} competes, only elements",
            self.source,
            self.complete,
            competing,
            sum(map(len, within.values())),
            self.complete
            or same
            or all(frozenset(pair) in within for pair in combinations(symbols, 2)),
            stability_of(above, energy),
        )

    def _place(
        self,
        diagram: PhaseDiagram,
        composition: Composition,
        energy: float,
        elements_suffice: bool = False,
    ) -> tuple[float | None, list[str]]:
        """Energy above a diagram, None if elements alone compete and may not; what competes."""
        mixture = diagram.get_decomposition(composition)
        phases = [entry for entry, share in mixture.items() if share > _SMALL]
        competing = sorted(
            chemical_formula(phase.composition.get_el_amt_dict(), reduce=True) for phase in phases
        )
        if not elements_suffice and all(phase.is_element for phase in phases):
            return None, competing
        above = energy - float(diagram.get_hull_energy_per_atom(composition))
        return round(above, _DIGITS) + 0.0, competing

    def _within(self, symbols: frozenset[str]) -> dict[frozenset[str], dict[str, float]]:
        """Compounds by their elements, of those that are all among ``symbols``."""
        return {system: found for system, found in self._systems.items() if system <= symbols}

    def _no_answer(self, reason: str) -> HullResult:
        return HullResult(None, reason, self.source, self.complete)

    def _diagram(self, symbols: frozenset[str], without: str | None = None) -> PhaseDiagram:
        """Diagram of all phases within a chemical system, but for one compound."""
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

        entries = [PDEntry(_composition(symbol), 0.0, name=symbol) for symbol in sorted(symbols)]
        for members in self._within(symbols).values():
            for name, energy in members.items():
                if name != without:
                    composition = _composition(name)
                    entries.append(PDEntry(composition, energy * composition.num_atoms, name=name))
        return PhaseDiagram(entries)

    def null_rates(
        self,
        worse: Sequence[float] = NULL_WORSE,
        threshold: float = METASTABLE,
        number: int = NULL_NUMBER,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Share of real compounds, made worse than any metastable one, that the hull lets pass.

        Each compound of the hull is put a known distance above it, and judged by the hull without
        that compound, as a new composition is. By a hull that lacks nothing, none would pass.

        Parameters
        ----------
        worse : sequence of float
            Distances above the hull in eV/atom.
        threshold : float
            What passes, in eV/atom above the hull; what is ``"unknown"`` does not.
        number : int
            Compounds, drawn at random; all if there are not more.
        seed : int
            Of the draw.

        Returns
        -------
        dict
            ``threshold``, ``of`` (compounds), ``passed`` and ``unknown``: from each distance to a
            number.
        """
        key = (tuple(worse), threshold, number, seed)
        if key not in self._null:
            self._null[key] = self._null_rates(*key)
        return deepcopy(self._null[key])

    def _null_rates(
        self, worse: Sequence[float], threshold: float, number: int, seed: int
    ) -> dict[str, Any]:
        compounds = [
            (symbols, name, energy)
            for symbols, members in self._systems.items()
            for name, energy in members.items()
        ]
        drawn = random.Random(seed).sample(
            sorted(compounds, key=lambda c: c[1]), min(number, len(self))
        )
        passed = dict.fromkeys((f"{more:g}" for more in worse), 0)
        unknown = dict.fromkeys(passed, 0)
        for symbols, name, energy in drawn:
            diagram, composition = self._diagram(symbols, name), _composition(name)
            for more in worse:
                above, _ = self._place(diagram, composition, energy + more)
                if stability_of(above, energy + more) == "unknown":
                    unknown[f"{more:g}"] += 1
                elif above is not None and above <= threshold:
                    passed[f"{more:g}"] += 1
        return {"threshold": threshold, "of": len(drawn), "passed": passed, "unknown": unknown}


def check_scale(hull: str, energies: str) -> None:
    """Refuse to compare energies of two scales.

    Raises
    ------
    ValueError
        If both are named and differ.
    """
    if hull and energies and hull != energies:
        raise ValueError(
            f"the hull is of {hull} energies, the structures' are {energies}: they cannot be "
            "compared. Build a hull of energies of the same kind"
        )


def _composition(given: Composition | Mapping[str, float] | str) -> Composition:
    from pymatgen.core import Composition

    composition = Composition(given).element_composition
    if not composition:
        raise ValueError("it is empty")
    return composition


@lru_cache(maxsize=4)
def _known_hull(sources: tuple[str, ...]) -> Hull:
    """Hull of the known phases, made once in a process."""
    return Hull._of_points(sources)


def _all_elements() -> set[str]:
    from pymatgen.core import Element

    return {element.symbol for element in Element}


def phases_name(source: str | Path) -> str:
    """Name a source of known phases in a report."""
    if not is_known(source):
        return Path(source).name
    splits = str(source).partition(":")[2]
    return f"known phases ({splits})" if splits else "known phases"


def load_phases_table(source: str | Path) -> pd.DataFrame:
    """Read the table of a CSV file or of the known phases, without older corrections.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file or split, or it has no formation energies.
    """
    from adit_model.data.crystal_csv import load_crystal_table

    table = known_table(known_splits(source)) if is_known(source) else load_crystal_table(source)
    if ENERGY_COLUMN not in table:
        raise ValueError(
            f"{source} fixes no hull: it lacks {ENERGY_COLUMN}, it has {list(table.columns)}"
        )
    if "source" in table:
        is_older = table["source"].isin(OLDER_SOURCES)
        if is_older.any():
            logger.info(
                "left out %d entries whose corrections are older than MP2020", is_older.sum()
            )
        table = table[~is_older]
    return table


def _hull_points(source: str | Path) -> tuple[list[str], np.ndarray]:
    """Reduced formulas, and energies in eV/atom that the hull has there at most."""
    table = load_phases_table(source).dropna(subset=[ENERGY_COLUMN])
    column = next((name for name in FORMULA_COLUMNS if name in table), None)
    if column is not None:
        formulas = table[column]
    else:
        from adit_model.data.crystal_csv import load_crystal_csv

        systems = load_crystal_csv(source, progress=False)
        formulas = table.index.map({s.info["id"]: s.formula for s in systems}).to_series()
    energies = table[ENERGY_COLUMN].to_numpy(float)
    if HULL_COLUMN in table:
        energies = energies - table[HULL_COLUMN].fillna(0.0).to_numpy(float)
    has = formulas.notna().to_numpy()
    return [reduced_formula(formula) for formula in formulas[has]], energies[has]


def _subsystems(systems: Iterable[str]) -> list[str]:
    """Systems and all that lie within them, each once, elements first."""
    found: set[tuple[str, ...]] = set()
    for system in systems:
        symbols = sorted({symbol.strip() for symbol in system.split("-") if symbol.strip()})
        if not 1 <= len(symbols) <= MAX_ELEMENTS:
            raise ValueError(
                f"a chemical system has 1 to {MAX_ELEMENTS} elements joined by '-', got {system!r}"
            )
        for n in range(1, len(symbols) + 1):
            found.update(combinations(symbols, n))
    return ["-".join(symbols) for symbols in sorted(found, key=lambda s: (len(s), s))]
