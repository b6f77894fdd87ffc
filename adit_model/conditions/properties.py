"""Properties by name: band gap, energy above the hull, whatever the weights have learned."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from adit_model.conditions.kind import Asked, Kind, Knows
from adit_model.systems import AtomicSystem

Value = float | tuple[float, float]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


def property_name(name: str) -> str:
    """Write the name of a column as conditions write it: ``"K VRH (GPa)"`` is ``"k_vrh_gpa"``.

    Small letters, digits and ``_``; empty if it holds none of these.
    """
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")


def read_value(value: Any, name: str) -> Value:
    """Read a number or a ``(low, high)`` range, or their text, ``"1.5"`` or ``"1-2"``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(value, str):
        text = value.strip()
        match = re.fullmatch(rf"({_NUMBER})(?:\s*-\s*({_NUMBER}))?", text)
        if match is None:
            raise ValueError(f"{name} must be a number (1.5) or a range (1-2), got {value!r}")
        value = float(match[1]) if match[2] is None else (float(match[1]), float(match[2]))
    if isinstance(value, tuple | list) and len(value) == 2:
        low, high = (_finite(v, name) for v in value)
        if low > high:
            raise ValueError(f"a range of {name} must be (low, high), got {value!r}")
        return low if low == high else (low, high)
    return _finite(value, name)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number or a (low, high) range, got {value!r}")
    if not abs(value) < float("inf"):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return float(value) + 0.0  # no negative zero


def number_text(number: float) -> str:
    """Write a number so that it reads back the same."""
    return repr(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


class Properties(Kind):
    """Properties: asked for. Units and known ranges are those of the checkpoint."""

    name = "properties"

    def read(self, value: Any) -> tuple[tuple[str, Value], ...] | None:
        """``{"band_gap": 1.5, "energy_above_hull": (0, 0.05)}``, in alphabetical order."""
        if not value:
            return None
        pairs = dict(value).items() if not isinstance(value, Mapping) else value.items()
        for name, _ in pairs:
            if not property_name(name):
                raise ValueError(f"{name!r} is no property name: use letters, digits and _")
        return tuple(sorted((property_name(k), read_value(v, str(k))) for k, v in pairs))

    def write(self, value: tuple[tuple[str, Value], ...]) -> list[str]:
        """``["band_gap=1.5"]``."""
        return [
            f"{name}={'-'.join(number_text(x) for x in (v if isinstance(v, tuple) else (v,)))}"
            for name, v in value
        ]

    def holds(self, value: tuple[tuple[str, Value], ...], system: AtomicSystem) -> None:
        """Not told by the structure alone."""
        return None

    def held(
        self,
        value: tuple[tuple[str, Value], ...],
        estimates: Mapping[str, float],
        known: Knows,
    ) -> dict[str, bool]:
        """Whether each property that the weights estimate is as asked, within their mean error.

        Parameters
        ----------
        value : tuple
            Of the condition: a number, or a range, for each name.
        estimates : mapping
            Of the structure; without one there are none, and nothing holds.
        known : Known
            Has the errors.
        """
        found = {}
        for name, wanted in value:
            error = known.properties[name].error
            if error is not None:
                low, high = wanted if isinstance(wanted, tuple) else (wanted, wanted)
                there = estimates.get(name, math.nan)
                found[name] = low - error <= there <= high + error
        return found

    def refusal(self, condition: Asked, domain: str, known: Knows) -> str | None:
        """Properties that the weights were not told in training, or of the other domain alone."""
        names = ", ".join(f"{k} ({v})" for k, v in sorted(known.properties.items())) or "none"
        for name, _ in condition.properties or ():
            if name not in known.properties:
                close = get_close_matches(name, known.properties, 1)
                hint = f"did you mean {close[0]}? " if close else ""
                return f"these weights know no property {name!r}; {hint}they know {names}"
            if domain not in known.properties[name].domains:
                kinds = " and ".join(f"{d}s" for d in known.properties[name].domains)
                return f"these weights know {name} of {kinds} alone"
        return None

    def caution(self, condition: Asked, known: Knows) -> str | None:
        """Values outside those of the training data."""
        outside = []
        for name, value in condition.properties or ():
            low, high = value if isinstance(value, tuple) else (value, value)
            seen = known.properties[name]
            if low < seen.min or high > seen.max:
                (text,) = self.write(((name, value),))
                outside.append(f"{text} is outside the training data, which have {seen}")
        return "; ".join(outside) or None
