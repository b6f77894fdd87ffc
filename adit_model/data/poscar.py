"""Read the text of a POSCAR, also of VASP 4."""

from __future__ import annotations

import io
import re
import warnings

from adit_model.canonical import MAX_ATOMS
from adit_model.data.xyz import symbol_of
from adit_model.systems import AtomicSystem

_NUMBERS = re.compile(r"[^\n]*\n\s*[-+\d.eE ]+\n(?:\s*[-+]?[\d.]\S*\s+\S+\s+\S+[ \t]*\n){3}")


def is_poscar(text: str) -> bool:
    """Whether a text begins as a POSCAR: a comment, a scale, three vectors."""
    return _NUMBERS.match(text[:1000].replace("\r", "")) is not None


def read_poscar(text: str) -> AtomicSystem:
    """Read the crystal of a POSCAR.

    Raises
    ------
    ValueError
        If the text is none, or has no symbols.
    """
    from ase.io.vasp import read_vasp

    text = poscar_text(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return AtomicSystem.from_atoms(read_vasp(io.StringIO(text)))
    except Exception as error:  # the reader of ASE raises any type on malformed text
        raise ValueError(f"{type(error).__name__}: {error}") from error


def poscar_text(text: str) -> str:
    """Bring a POSCAR into the form of VASP 5, symbols in line 6.

    A file of VASP 4 has none there; they are taken from the comment if that holds one symbol for
    each number of atoms and nothing else.

    Raises
    ------
    ValueError
        If the file has no symbols, or too many atoms.
    """
    from ase.data import atomic_numbers

    lines = text.splitlines()
    if len(lines) < 7:
        raise ValueError(f"a POSCAR of {len(lines)} lines ends before its atoms")
    words = lines[5].split()
    if words and all(word.isdigit() for word in words):
        names = lines[0].split()
        if len(names) != len(words) or not all(name in atomic_numbers for name in names):
            raise ValueError(
                f"line 6 lacks the symbols of the elements, it is {lines[5].strip()[:40]!r} (as "
                "in VASP 4): write them, such as 'Fe O', in a line of their own before it"
            )
        lines.insert(5, lines[0])
    names = [re.split("[_/]", symbol)[0] for symbol in lines[5].split("!")[0].split()]
    lines[5] = " ".join(symbol_of(name, "line 6") for name in names)
    counts = [int(word[:9]) for word in lines[6].split() if word.isdigit()]
    if sum(counts) > MAX_ATOMS:
        raise ValueError(f"line 7 counts {sum(counts)} atoms, at most {MAX_ATOMS} are read")
    return "\n".join(lines) + "\n"
