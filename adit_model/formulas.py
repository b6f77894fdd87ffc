"""Chemical formulas as chemists write them: one convention for files, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache


def chemical_formula(counts: Mapping[str, float], reduce: bool = False) -> str:
    """Write a formula: ``SiO2``, ``YB4``, ``PdTe2``, ``NH3``, ``C2H6O``.

    Elements stand in the order of IUPAC's Table VI (Nomenclature of Inorganic Chemistry, 2005),
    the electropositive ones first. Carbon with hydrogen, and no metal, is written in Hill's
    order: C, H, then the others by their symbols. No brackets, so that a formula can be a name of
    a file.

    Parameters
    ----------
    counts : mapping
        Atoms of each element by its symbol; zeros are left away.
    reduce : bool
        Divide by the greatest common divisor, as for a crystal.
    """
    found = {symbol: int(count) for symbol, count in counts.items() if count}
    divisor = math.gcd(*found.values()) if reduce and found else 1
    if {"C", "H"} <= found.keys() and not any(_is_metal(symbol) for symbol in found):
        order = sorted(found, key=lambda symbol: ({"C": 0, "H": 1}.get(symbol, 2), symbol))
    else:
        order = sorted(found, key=lambda symbol: (_place(symbol), symbol))
    return "".join(
        symbol + (str(found[symbol] // divisor) if found[symbol] > divisor else "")
        for symbol in order
    )


@cache
def _place(symbol: str) -> float:
    """Place in IUPAC's order; what is not in it comes first."""
    from pymatgen.core import Element

    try:
        return float(Element(symbol).iupac_ordering)
    except (KeyError, ValueError):
        return -1.0


@cache
def _is_metal(symbol: str) -> bool:
    from pymatgen.core import Element

    return Element.is_valid_symbol(symbol) and bool(Element(symbol).is_metal)
