"""Numbers of atoms or formula units: one, a range or a list; as text and back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from numbers import Integral
from typing import Any

Counts = int | tuple[int, int] | frozenset[int]

_FORMS = "a number (12), a range (4-12, or a pair) or a list of allowed numbers (4|6|8)"


def read_counts(value: Any, name: str) -> Counts | None:
    """Bring a count to one form: an int, a ``(low, high)`` range, or a set of allowed numbers.

    Parameters
    ----------
    value : int, tuple, list, set, str or None
        A tuple is a range, ends included; a list or a set holds the allowed numbers; text is
        ``"12"``, ``"4-12"`` or ``"4|6|8"``.
    name : str
        What is counted, for errors.

    Raises
    ------
    TypeError
        If the type is another.
    ValueError
        If a number is not positive, or the range or the list is empty.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = _parse(value, name)
    single = isinstance(value, Integral)
    if not single and not isinstance(value, tuple | list | set | frozenset):
        raise TypeError(f"{name} must be {_FORMS}, got {value!r}")
    values = [value] if single else list(value)
    if any(isinstance(v, bool) or not isinstance(v, Integral) for v in values):
        raise TypeError(f"{name} must be {_FORMS}, got {value!r}")
    numbers = [int(v) for v in values]
    if not numbers:
        raise ValueError(f"{name} must be {_FORMS}, got an empty list")
    if min(numbers) < 1:
        raise ValueError(f"{name} must be positive, got {value!r}")
    if isinstance(value, tuple):
        if len(numbers) != 2 or numbers[0] > numbers[1]:
            raise ValueError(f"a range of {name} must be (low, high), got {value!r}")
        return numbers[0] if numbers[0] == numbers[1] else (numbers[0], numbers[1])
    return numbers[0] if len(set(numbers)) == 1 else frozenset(numbers)


def _parse(text: str, name: str) -> int | tuple[int, int] | list[int]:
    text = text.strip()
    if re.fullmatch(r"\d+", text):
        return int(text)
    if match := re.fullmatch(r"(\d+)\s*-\s*(\d+)", text):
        return int(match[1]), int(match[2])
    if re.fullmatch(r"\d+(\s*\|\s*\d+)+", text):
        return [int(part) for part in text.split("|")]
    raise ValueError(f"{name} must be {_FORMS}, got {text!r}")


def write_counts(counts: Counts) -> str:
    """Write counts as :func:`read_counts` reads them."""
    if isinstance(counts, tuple):
        return f"{counts[0]}-{counts[1]}"
    if isinstance(counts, frozenset):
        return "|".join(str(count) for count in sorted(counts))
    return str(counts)


def allows(counts: Counts | None, number: int) -> bool:
    """Whether a number is among the allowed ones; None allows all."""
    if counts is None:
        return True
    if isinstance(counts, tuple):
        return counts[0] <= number <= counts[1]
    return number in counts if isinstance(counts, frozenset) else number == counts


def runs(numbers: Collection[int] | Iterable[int]) -> str:
    """Write numbers with their gaps: ``"3-27, 29"``."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts) or "none"
