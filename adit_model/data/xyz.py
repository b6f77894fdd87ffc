"""Read plain and extended XYZ text frame by frame, so that a bad frame costs only itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TextIO

import numpy as np

from adit_model.canonical import MAX_ATOMS
from adit_model.systems import MAX_ATOMIC_NUMBER, lowest_multiplicity, warn_isotopes

_PROPERTIES = re.compile(r"Properties\s*=\s*[\"']?([^\s\"']+)", re.IGNORECASE)
_EXPONENT = re.compile(r"(?<=[\d.])(?:[dD]|\*\^)(?=[+-]?\d)")  # of Fortran and Mathematica
_LABEL = re.compile(r"([A-Za-z]{1,3})(?:[\d_+\-.].*)?$")  # "C1", "Fe2+", "O_w"
_CHARGE = re.compile(r"\b(?:total[ _])?charge\s*[=:]?\s*([+-]?\d+)(?![\d.])", re.IGNORECASE)
_PAIR = re.compile(r"\s*([+-]\d\d?|\d)(?:\s+|\s*,\s*)([1-9])\s*")  # "-1 1": of many programs
MAX_COLUMNS = 1000  # of one property of the atoms
ISOTOPES = {"D": "H", "T": "H", "2H": "H", "3H": "H"}


def xyz_frames(file: TextIO) -> Iterator[tuple[str, str]]:
    """Cut a file into frames by their atom counts; a last ``("", reason)`` says why it stopped."""
    number = 0
    while head := file.readline():
        number += 1
        if not head.strip():
            continue
        try:
            count = int(head)
        except ValueError:
            count = 0
        if count < 1:
            reason = f"expected a number of atoms, got {head.strip()[:40]!r}; the rest is not read"
            yield "", f"line {number}: {reason}"
            return
        lines = list(islice(file, count + 1))
        if len(lines) < count + 1:
            found = max(len(lines) - 1, 0)
            yield "", f"line {number}: {count} atoms announced, the file ends after {found}"
            return
        number += len(lines)
        if lines[0].startswith("gdb "):  # a file of QM9: frequencies, SMILES and InChI follow
            number += len(list(islice(file, 3)))
        if count > MAX_ATOMS:
            yield "", f"{count} atoms, at most {MAX_ATOMS} are read"
        else:
            yield head + "".join(lines), ""


def plain_frame(frame: str) -> str:
    """Write the atoms of a frame as every reader takes them: symbols, and exponents with E.

    Atomic numbers, labels (``C1``, ``CL``) and isotopes become symbols, ``1.0D-1`` becomes
    ``1.0E-1``, and so does ``1.0*^-1`` of the files of QM9.

    Raises
    ------
    ValueError
        If a row holds no element; the text names it.
    """
    head, comment, *rows = frame.splitlines()
    column, is_number = species_column(comment)
    if column is None:
        return frame
    for i, row in enumerate(rows):
        words = _EXPONENT.sub("E", row).split()
        if len(words) > column:
            symbol = symbol_of(words[column], f"row {i + 3}")
            words[column] = words[column] if is_number else symbol
        rows[i] = " ".join(words)
    return "\n".join([head, comment, *rows]) + "\n"


def species_column(comment: str) -> tuple[int | None, bool]:
    """Find the column of symbols or atomic numbers, and whether it is one of numbers.

    The column is None if ``Properties`` of the comment name none.

    Raises
    ------
    ValueError
        If a property has more columns than any file.
    """
    match = _PROPERTIES.search(comment)
    if match is None:
        return 0, False
    words = match[1].split(":")
    for count in words[2::3]:
        if count.isdigit() and int(count[:9]) > MAX_COLUMNS:
            raise ValueError(f"Properties announces {count[:20]} columns: at most {MAX_COLUMNS}")
    column = 0
    for name, count in zip(words[::3], words[2::3], strict=False):
        if name.lower() in ("species", "symbols", "element", "z", "numbers"):
            return column, name.lower() in ("z", "numbers")
        column += int(count) if count.isdigit() else 1
    return None, False


def comment_charge(frame: str) -> int | None:
    """Charge that a comment line tells, ``charge=-1``, ``charge: +1``; None if it does not."""
    match = _CHARGE.search(frame.split("\n", 2)[1])
    return None if match is None else int(match[1])


def charge_and_multiplicity(comment: str, numbers: np.ndarray) -> dict[str, int]:
    """Read a comment line of two whole numbers alone, charge and spin multiplicity: ``-1 1``.

    Empty if it is another one, or if the atoms cannot have these two, as with numbers of frames.
    """
    match = _PAIR.fullmatch(comment)
    if match is None:
        return {}
    charge, multiplicity = int(match[1]), int(match[2])
    unpaired, electrons = multiplicity - 1, int(numbers.sum()) - charge
    if electrons < max(unpaired, 1) or (electrons - unpaired) % 2:
        return {}
    if multiplicity == lowest_multiplicity(numbers, charge):
        return {"charge": charge}
    return {"charge": charge, "spin_multiplicity": multiplicity}


def symbol_of(text: str, where: str) -> str:
    """Symbol of an element given by symbol, label or atomic number.

    Raises
    ------
    ValueError
        If it is none, such as a ghost atom; the text says where it stands.
    """
    from ase.data import atomic_numbers, chemical_symbols

    if text in ISOTOPES:
        warn_isotopes()
        return ISOTOPES[text]
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_ATOMIC_NUMBER:
        return chemical_symbols[int(text)]
    match = _LABEL.match(text)
    name = "" if match is None else match[1].capitalize()
    if atomic_numbers.get(name, 0) > 0 and (len(name) < 3):
        return name
    raise ValueError(
        f"{where}: {text[:20]!r} is no element; ghost and dummy atoms have no place in a structure"
    )
