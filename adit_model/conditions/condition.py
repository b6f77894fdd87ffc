"""What is asked of a structure before it exists: :class:`Condition`, its text and its checks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from monty.json import MSONable

from adit_model.conditions.atoms import (
    SYMBOLS,
    Elements,
    Formula,
    FormulaUnits,
    NumAtoms,
    composition_of,
)
from adit_model.conditions.counts import Counts, allows
from adit_model.conditions.crystal import Cell, SpaceGroup
from adit_model.conditions.kind import Kind
from adit_model.conditions.partial import FixedAtoms, Site
from adit_model.conditions.properties import Properties, Value, property_name
from adit_model.formulas import chemical_formula
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE, AtomicSystem

BOTH = "both"


class Domain(Kind):
    """Crystal or molecule: exact. Free: whatever the weights know and the rest allows."""

    name = "domain"
    keys = ("domain",)

    def read(self, value: Any) -> str | None:
        """``"crystal"``, ``"molecule"``; ``"both"`` and None leave it free."""
        if value is None or value == BOTH:
            return None
        if value not in DOMAINS:
            raise ValueError(f"domain must be one of crystal, molecule, both, got {value!r}")
        return str(value)

    def write(self, value: str) -> list[str]:
        """``["crystal"]``."""
        return [value]

    def holds(self, value: str, system: AtomicSystem) -> bool:
        """Whether the system is of it."""
        return system.domain == value


# In the order of the text form. A new kind is one class in a file of its own, and a line here.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Domain(),
        Elements(),
        Formula(),
        NumAtoms(),
        FormulaUnits(),
        SpaceGroup(),
        Properties(),
        Cell(),
        FixedAtoms(),
    )
}
_KEYS = {key: kind for kind in KINDS.values() for key in kind.keys}
PROPERTY = "property:"  # before the name of a property, which may then be one of the keys
_SYSTEM = re.compile(r"[A-Za-z]+(\s*-\s*[A-Za-z]+)*")


def read_property_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of properties to learn, as conditions write them.

    Raises
    ------
    ValueError
        If one is no name, is given twice, or means something else in a condition.
    """
    if isinstance(names, str):
        raise ValueError(f"properties must be a list of names, got {names!r}")
    found: list[str] = []
    for name in names:
        text = property_name(name)
        if text in {*_KEYS, *KINDS, *DOMAINS, BOTH}:
            raise ValueError(
                f"a property cannot be named {name!r}: '{text}=' means something else in a "
                "condition; rename the column"
            )
        if not text or text in found:
            why = "is given twice" if text else "is no name: use letters, digits and _"
            raise ValueError(f"the property {name!r} {why}")
        found.append(text)
    return tuple(found)


@dataclass(frozen=True, repr=False)
class Condition(MSONable):
    """What is known of a structure before it exists; every part may be left free.

    Parts take the forms below or their text; each has one stored form, so that equal conditions
    are equal. The text form of the whole, ``"Li-P-S, atoms=4-12"``, is ``str(condition)``, and
    :meth:`from_text` reads it back.

    Parameters
    ----------
    domain : str or None
        ``"crystal"`` or ``"molecule"``; ``"both"`` is free.
    num_atoms : int, tuple, list, str or None
        A number, a ``(low, high)`` range, or a list of allowed numbers.
    elements : sequence of str, str or None
        Chemical system, ``"Li-P-S"``: no others ever, all of them if it can be.
    formula : str, mapping or None
        Composition of a formula unit, ``"LiMn3O4"``: exact.
    formula_units : int, tuple, list, str or None
        Formula units in the cell, as ``num_atoms``; free: drawn. A molecule is one.
    space_group : int, str or None
        Number or short symbol.
    properties : mapping or None
        Numbers or ``(low, high)`` ranges by name, in the units of the checkpoint.
    cell : sequence of float, array, str or None
        a, b, c (angstrom), alpha, beta, gamma (degrees), or three vectors as rows (angstrom).
    atoms : sequence or None
        Fixed sites ``(symbol, x, y, z)``, fractional in a crystal, in angstrom in a molecule.

    Raises
    ------
    ValueError, TypeError
        If a part is unknown or out of range (the text lists what is known), or parts contradict
        each other.

    Examples
    --------
    >>> str(Condition(elements=["S", "Li", "P"], num_atoms=(4, 12)))
    'Li-P-S, atoms=4-12'
    >>> Condition.from_text("LiMn3O4, units=2").formula_units
    2
    """

    domain: str | None = None
    num_atoms: Counts | Any = None
    elements: tuple[str, ...] | Any = None
    formula: str | Any = None
    formula_units: Counts | Any = None
    space_group: int | Any = None
    properties: tuple[tuple[str, Value], ...] | Any = None
    cell: tuple[float, ...] | Any = None
    atoms: tuple[Site, ...] | Any = None

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            object.__setattr__(self, name, kind.read(getattr(self, name)))
        for kind in KINDS.values():
            reason = kind.contradiction(self)
            if reason is not None:
                raise ValueError(f"'{self}' contradicts itself: {reason}")

    @property
    def asked(self) -> dict[str, Any]:
        """Parts that are not free, by name."""
        found = {name: getattr(self, name) for name in KINDS}
        return {name: value for name, value in found.items() if value is not None}

    def __bool__(self) -> bool:
        return bool(self.asked)

    def __str__(self) -> str:
        parts = []
        for name, value in self.asked.items():
            for part in KINDS[name].write(value):
                clash = name == "properties" and part.partition("=")[0] in _KEYS
                parts.append(f"{PROPERTY}{part}" if clash else part)
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"Condition({str(self)!r})"

    @classmethod
    def from_text(cls, text: str) -> Condition:
        """Read the text form: parts between commas.

        A part is a domain (``crystal``), a chemical system (``Li-P-S``), a formula (``LiMn3O4``)
        or ``KEY=VALUE`` with the keys ``atoms``, ``units``, ``spacegroup``, ``cell``, ``fixed``,
        ``elements``, ``formula``, ``domain`` or the name of a property (``property:NAME`` where
        that is one of the keys).

        Raises
        ------
        ValueError
            If a part is none of these, or one is given twice.
        """
        values: dict[str, Any] = {}
        properties: dict[str, str] = {}
        parts = [part.strip() for part in text.split(",")]
        for part in parts if text.strip() else []:
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if equals and key not in _KEYS:
                key = key.removeprefix(PROPERTY)
                if not re.match(r"[+-.\d]", value):
                    raise ValueError(
                        f"unknown key {key!r} in {text!r}, known: {', '.join(_KEYS)}; "
                        "a property is written NAME=NUMBER"
                    )
                if key in properties:
                    raise ValueError(f"{text!r} says {key} twice")
                properties[key] = value
                continue
            name, value = (_KEYS[key].name, value) if equals else (_what(part, text), part)
            if name in values:
                raise ValueError(f"{text!r} says {name} twice")
            values[name] = value
        return cls(**values, properties=properties or None)

    def as_dict(self) -> dict[str, Any]:
        """Return the parts that are not free as JSON."""
        result: dict[str, Any] = {
            "@module": type(self).__module__,
            "@class": type(self).__name__,
        }
        for name, value in self.asked.items():
            if name in ("num_atoms", "formula_units") and not isinstance(value, int):
                value = KINDS[name].write(value)[0].partition("=")[2]
            elif name == "properties":
                value = {k: list(v) if isinstance(v, tuple) else v for k, v in value}
            elif isinstance(value, tuple):
                value = [list(v) if isinstance(v, tuple) else v for v in value]
            result[name] = value
        return result

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Condition:
        """Read what :meth:`as_dict` wrote, or parts by name.

        Raises
        ------
        ValueError
            If a name is unknown.
        """
        values = {k: v for k, v in d.items() if not k.startswith("@")}
        unknown = sorted(set(values) - set(KINDS))
        if unknown:
            raise ValueError(f"unknown condition {unknown[0]!r}, known: {', '.join(KINDS)}")
        return cls(**values)

    @classmethod
    def completing(cls, structure: Any, add: Mapping[str, int] | int) -> Condition:
        """Ask for a known structure with atoms added: its sites and its cell are fixed.

        Parameters
        ----------
        structure : AtomicSystem, pymatgen Structure or Molecule, ase.Atoms
            What is there already.
        add : mapping or int
            Atoms to add of each element, ``{"Li": 2}``; a number leaves the elements free.
        """
        from ase.data import chemical_symbols

        system = AtomicSystem.from_any(structure)
        symbols = [chemical_symbols[z] for z in system.numbers]
        coordinates = system.positions if system.cell is None else system.frac_coords
        sites = [(s, *xyz) for s, xyz in zip(symbols, coordinates.tolist(), strict=True)]
        rest: dict[str, Any] = {}
        if isinstance(add, int):
            rest["num_atoms"] = len(system) + add
        else:
            total = {s: symbols.count(s) + add.get(s, 0) for s in {*symbols, *add}}
            rest.update(formula=chemical_formula(total), formula_units=1)
        return cls(domain=system.domain, cell=system.cell, atoms=sites, **rest)

    def holds(self, system: AtomicSystem | None) -> dict[str, bool]:
        """Whether a structure is as asked, for each part that the structure alone tells.

        Without a structure nothing is.
        """
        if system is None:
            return {name: False for name in self.asked if name != "properties"}
        found = {name: KINDS[name].holds(value, system) for name, value in self.asked.items()}
        if self.formula is not None and self.formula_units is not None:
            unit = sum(composition_of(self.formula).values())
            found["formula_units"] = bool(found["formula"]) and allows(
                self.formula_units, len(system) // unit
            )
        return {name: held for name, held in found.items() if held is not None}


def _what(part: str, text: str) -> str:
    """Which field a part without a key belongs to."""
    if part in (CRYSTAL, MOLECULE, BOTH):
        return "domain"
    if _SYSTEM.fullmatch(part) and (part in SYMBOLS or "-" in part):
        return "elements"
    if re.fullmatch(r"[A-Z][A-Za-z0-9() ]*", part):
        return "formula"
    raise ValueError(
        f"{part!r} in {text!r} is no condition: write crystal or molecule, a chemical system "
        f"(Li-P-S), a formula (LiMn3O4) or KEY=VALUE with one of {', '.join(_KEYS)} or a property"
    )


def as_condition(
    value: Condition | str | Mapping[str, Any] | None = None, **parts: Any
) -> Condition:
    """Build a condition from its text, a mapping, or itself, and parts by name.

    Parameters
    ----------
    value : Condition, str, mapping or None
        None asks for nothing.
    **parts
        Fields of :class:`Condition` to add; None adds nothing.

    Raises
    ------
    ValueError, TypeError
        If it is no condition, or says otherwise than a part.
    """
    if value is None:
        condition = Condition()
    elif isinstance(value, Condition):
        condition = value
    elif isinstance(value, str):
        condition = Condition.from_text(value)
    elif isinstance(value, Mapping):
        condition = Condition.from_dict(value)
    else:
        raise TypeError(
            "a condition is text such as 'Li-P-S, atoms=4-12', a Condition or a mapping, "
            f"got {value!r}"
        )
    added = {}
    for name, given in parts.items():
        read, said = KINDS[name].read(given), getattr(condition, name)
        if name == "properties" and read and said and not dict(read).keys() & dict(said).keys():
            read, said = (*said, *read), None
        if read is not None and said is not None and said != read:
            raise ValueError(f"the condition '{condition}' and {name}={given!r} contradict")
        if read is not None:
            added[name] = read
    return replace(condition, **added) if added else condition
