"""Energy above the convex hull: of formation energies, on one energy scale, with its reason.

The hull is pymatgen's ``PhaseDiagram`` of each chemical system that is asked for (Ong et al., Chem.
Mater. 20, 1798, 2008). A hull that lacks phases is too high, and flatters: :meth:`Hull.null_rates`
says by how much.
"""

from __future__ import annotations

import logging
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model.data.phases import reduced_formula

if TYPE_CHECKING:
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
ELEMENTS_ONLY = "elements only, no compound known (formation energy)"  # source of such a hull
METASTABLE = 0.1  # eV/atom above the hull, at most
FAR_BELOW = -0.1  # eV/atom, several times the error of force fields on formation energies
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
        In eV/atom, negative below the hull; None if there is no answer.
    reason : str or None
        Why there is no answer.
    source : str
        Where the hull comes from.
    complete : bool
        Whether the hull holds all that its source knows of the chemical system. If not, the true
        hull may lie lower, and the energy is a lower bound on the true energy above hull.
    competing : list of str
        Formulas of the phases that the composition decomposes into.
    """

    energy_above_hull: float | None
    reason: str | None
    source: str
    complete: bool
    competing: list[str] = field(default_factory=list)


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
        """Build the part of the true hull that CSV files of crystals give away.

        An entry with a known formation energy and energy above hull fixes the true hull at its
        composition: their difference. What lies between is not known, so the hull is partial.

        Parameters
        ----------
        paths : path or sequence of paths
            Files in the CDVAE format with ``formula`` (or ``pretty_formula``),
            ``formation_energy_per_atom`` and ``e_above_hull`` (eV/atom), MP2020-corrected. Rows
            whose ``source`` is known to have older corrections are left out.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file is missing, is no such file, or has no row with both energies.
        """
        from adit_model.data.crystal_csv import load_crystal_table

        paths = [paths] if isinstance(paths, str | Path) else list(paths)
        if not paths:
            raise ValueError("a hull from CSV files needs one file at least")
        phases: dict[str, float] = {}
        older = 0
        for path in paths:
            table = load_crystal_table(path)
            column = next((name for name in FORMULA_COLUMNS if name in table), None)
            missing = [name for name in (ENERGY_COLUMN, HULL_COLUMN) if name not in table]
            if column is None or missing:
                raise ValueError(
                    f"{path} fixes no hull: it lacks {missing or FORMULA_COLUMNS[0]}, "
                    f"it has {list(table.columns)}"
                )
            table = table.dropna(subset=[column, ENERGY_COLUMN, HULL_COLUMN])
            if "source" in table:
                is_older = table["source"].isin(OLDER_SOURCES)
                older += int(is_older.sum())
                table = table[~is_older]
            energies = table[ENERGY_COLUMN] - table[HULL_COLUMN]
            for formula, energy in zip(table[column], energies, strict=True):
                name = reduced_formula(formula)
                phases[name] = min(float(energy), phases.get(name, math.inf))
        if not phases:
            raise ValueError(f"no row of {[str(path) for path in paths]} has both energies")
        if older:
            logger.info("left out %d entries whose corrections are older than MP2020", older)
        elements = {element.symbol for name in phases for element in _composition(name)}
        names = ", ".join(Path(path).name for path in paths)
        return cls(phases, elements, scale=MP2020, source=f"{names} (partial)")

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
        """Make a hull of the elements alone: the energy above it is the formation energy.

        A stand-in where nothing is known: any compound that really exists would lower it.
        """
        from pymatgen.core import Element

        return cls(
            {},
            {element.symbol for element in Element},
            scale=scale,
            source=ELEMENTS_ONLY,
        )

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
        diagram = self._diagrams[symbols]
        energy = diagram.get_hull_energy_per_atom(given)
        above = round(float(formation_energy_per_atom - energy), _DIGITS) + 0.0
        mixture = diagram.get_decomposition(given)
        phases = (entry for entry, share in mixture.items() if share > _SMALL)
        competing = sorted(str(getattr(phase, "name", "")) for phase in phases)
        return HullResult(above, None, self.source, self.complete, competing)

    def _no_answer(self, reason: str) -> HullResult:
        return HullResult(None, reason, self.source, self.complete)

    def _diagram(self, symbols: frozenset[str], without: str | None = None) -> PhaseDiagram:
        """Diagram of all phases within a chemical system, but for one compound."""
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

        entries = [PDEntry(_composition(symbol), 0.0, name=symbol) for symbol in sorted(symbols)]
        for system, members in self._systems.items():
            if system <= symbols:
                for name, energy in members.items():
                    if name != without:
                        composition = _composition(name)
                        total = energy * composition.num_atoms
                        entries.append(PDEntry(composition, total, name=name))
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
        that compound, as a new composition is. By a hull that lacks nothing, none would pass; with
        known phases of 1,401 crystals kept out altogether the shares are within 4 points of these.

        Parameters
        ----------
        worse : sequence of float
            Distances above the hull in eV/atom.
        threshold : float
            What passes, in eV/atom above the hull.
        number : int
            Compounds, drawn at random; all if there are not more.
        seed : int
            Of the draw.

        Returns
        -------
        dict
            ``threshold``, ``of`` (compounds) and ``passed``: from each distance to a number.
        """
        compounds = [
            (symbols, name, energy)
            for symbols, members in self._systems.items()
            for name, energy in members.items()
        ]
        drawn = random.Random(seed).sample(
            sorted(compounds, key=lambda c: c[1]), min(number, len(self))
        )
        passed = dict.fromkeys((f"{more:g}" for more in worse), 0)
        for symbols, name, energy in drawn:
            diagram = self._diagram(symbols, name)
            higher = float(diagram.get_hull_energy_per_atom(_composition(name)) - energy)
            for more in worse:  # the hull without the compound is higher
                passed[f"{more:g}"] += more - higher <= threshold
        return {"threshold": threshold, "of": len(drawn), "passed": passed}


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


def _subsystems(systems: Iterable[str]) -> list[str]:
    """Systems and all that lie within them, each once, elements first."""
    from itertools import combinations

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
