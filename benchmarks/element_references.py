"""Energies of the elements by a force field: the tables that formation energies are made with.

Each element's lowest phase after relaxation, of: its structure at room pressure, the close-packed
ones (fcc, bcc, hcp, dhcp) at the same volume for metals, and the elements among the known crystals
of the package and those given.

    python benchmarks/element_references.py chgnet --data crystals_large.csv.gz
    python benchmarks/element_references.py chgnet --compare Li O Fe

``--compare`` writes nothing: it tells how far energies made now are from those of the package.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols, reference_states
from ase.spacegroup import crystal

import adit_model.quality
from adit_model.data.crystal_csv import load_crystal_csv
from adit_model.data.phases import known_phases
from adit_model.quality.force_fields import (
    FORCE_FIELDS,
    SUPPORTED,
    element_references,
    force_field,
)
from adit_model.quality.relax import FMAX, STEPS, RelaxationError, relax
from adit_model.systems import AtomicSystem

NONMETALS = {"H", "He", "B", "C", "N", "O", "F", "Ne", "P", "S", "Cl", "Ar", "Se", "Br", "Kr", "I"}
NONMETALS |= {"Xe"}

SECOND_ORIGIN = (70, 227)  # groups whose coordinates below are relative to a centre of symmetry

# Structures that ASE knows by name only: number of the space group, cell, coordinates.
# Donohue, The Structures of the Elements (1974).
KNOWN = {
    "B": ("alpha", 166, (4.908, 4.908, 12.567, 90, 90, 120),
          [(0.1189, 0.2378, 0.8913), (0.1969, 0.3937, 0.0243)]),
    "C": ("graphite", 194, (2.464, 2.464, 6.711, 90, 90, 120),
          [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)]),
    "N": ("alpha", 205, (5.661, 5.661, 5.661, 90, 90, 90), [(0.0561, 0.0561, 0.0561)]),
    "O": ("alpha", 12, (5.403, 3.429, 5.086, 90, 132.53, 90), [(0.047, 0.0, 0.147)]),
    "P": ("black", 64, (3.314, 10.478, 4.376, 90, 90, 90), [(0, 0.1017, 0.0806)]),
    "S": ("alpha", 70, (10.4646, 12.866, 24.486, 90, 90, 90),
          [(0.8558, 0.9525, 0.9515), (0.7844, 0.0301, 0.0762), (0.7071, 0.9795, 0.0040),
           (0.7861, 0.9073, 0.1290)]),
    "Cl": ("molecular", 64, (6.145, 4.395, 8.154, 90, 90, 90), [(0, 0.13, 0.10)]),
    "Mn": ("alpha", 217, (8.911, 8.911, 8.911, 90, 90, 90),
           [(0, 0, 0), (0.316, 0.316, 0.316), (0.356, 0.356, 0.034), (0.089, 0.089, 0.282)]),
    "Ga": ("alpha", 64, (4.519, 7.658, 4.526, 90, 90, 90), [(0, 0.1549, 0.0810)]),
    "Se": ("trigonal", 152, (4.366, 4.366, 4.954, 90, 90, 120), [(0.2254, 0, 1 / 3)]),
    "Br": ("molecular", 64, (6.737, 4.548, 8.761, 90, 90, 90), [(0, 0.135, 0.110)]),
    "Te": ("trigonal", 152, (4.457, 4.457, 5.929, 90, 90, 120), [(0.2636, 0, 1 / 3)]),
    "I": ("molecular", 64, (7.136, 4.686, 9.784, 90, 90, 90), [(0, 0.1543, 0.1174)]),
    "Sn": ("alpha", 227, (6.489, 6.489, 6.489, 90, 90, 90), [(0.125, 0.125, 0.125)]),
    "Pa": ("alpha", 139, (3.92, 3.92, 3.24, 90, 90, 90), [(0, 0, 0)]),
    "U": ("alpha", 63, (2.854, 5.869, 4.955, 90, 90, 90), [(0, 0.1025, 0.25)]),
    "Np": ("alpha", 62, (6.663, 4.723, 4.887, 90, 90, 90),
           [(0.036, 0.25, 0.208), (0.319, 0.25, 0.842)]),
    "In": ("tetragonal", 139, (3.25, 3.25, 4.95, 90, 90, 90), [(0, 0, 0)]),
    "F": ("molecular", 64, (5.50, 3.28, 7.28, 90, 90, 90), [(0, 0.150, 0.070)]),
    "Sm": ("nine layers", 166, (3.621, 3.621, 26.25, 90, 90, 120), [(0, 0, 0), (0, 0, 0.222)]),
    "Pm": ("dhcp", 194, (3.65, 3.65, 11.65, 90, 90, 120), [(0, 0, 0), (1 / 3, 2 / 3, 0.25)]),
    "Pu": ("fcc", 225, (4.64, 4.64, 4.64, 90, 90, 90), [(0, 0, 0)]),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(FORCE_FIELDS))
    parser.add_argument("--data", nargs="*", default=[], type=Path, help="CDVAE-format CSV files")
    parser.add_argument("--out", type=Path, default=Path(adit_model.quality.__path__[0]))
    parser.add_argument("--compare", nargs="+", choices=chemical_symbols, metavar="SYMBOL")
    args = parser.parse_args()
    among_data = elements_of(args.data)
    table = {}
    for symbol in args.compare or [chemical_symbols[number] for number in sorted(SUPPORTED)]:
        found = [*phases(symbol), *among_data.get(symbol, [])]
        relaxed = []
        for label, system in found:
            try:
                relaxed.append((relax(system, args.name), label))
            except (RelaxationError, ValueError) as error:
                print(f"  {symbol} {label}: {error}")
        best, label = min(relaxed, key=lambda pair: pair[0].energy_final)
        table[symbol] = {
            "energy_per_atom": round(best.energy_final, 5),
            "phase": label,
            "converged": best.converged,
        }
        others = ", ".join(
            f"{name} {r.energy_final - best.energy_final:+.3f}" for r, name in relaxed
        )
        print(f"{symbol}: {best.energy_final:.4f} eV/atom, {label} ({others})", flush=True)
    if args.compare:
        packaged = element_references(args.name).energies
        changes = {s: 1000 * (table[s]["energy_per_atom"] - packaged[s]) for s in table}
        print("meV/atom:", ", ".join(f"{s} {change:+.2f}" for s, change in changes.items()))
        return
    chosen = force_field(args.name)
    document = {
        "model": chosen.label,
        "package": f"{chosen.package} {version(chosen.package)}",
        "scale": chosen.scale,
        "unit": "eV/atom",
        "made": f"benchmarks/element_references.py {args.name}, BFGS to {FMAX} eV/angstrom, "
        f"at most {STEPS} steps; lowest of the phases tried",
        "data": ["known crystals of the package", *(path.name for path in args.data)],
        "elements": table,
    }
    path = args.out / f"elements_{args.name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")


def elements_of(paths: list[Path]) -> dict[str, list[tuple[str, AtomicSystem]]]:
    """Crystals of one element among the known ones and data, at most 32 atoms."""
    known = known_phases()
    single = [i for i, names in enumerate(known.chemical_systems) if "-" not in names]
    sources = [known.dataset(single), *(load_crystal_csv(path, progress=False) for path in paths)]
    found: dict[str, list[tuple[str, AtomicSystem]]] = {}
    for system in itertools.chain.from_iterable(sources):
        if len(set(system.numbers.tolist())) == 1 and len(system) <= 32:
            symbol = chemical_symbols[system.numbers[0]]
            found.setdefault(symbol, []).append((str(system.info["id"]), system))
    return found


def phases(symbol: str) -> list[tuple[str, AtomicSystem]]:
    """Structures to try."""
    found = [(label, AtomicSystem.from_atoms(atoms)) for label, atoms in known(symbol)]
    if symbol not in NONMETALS:
        volume = found[0][1].volume / len(found[0][1])
        for label, atoms in packed(symbol, volume):
            found.append((f"{label} at this volume", AtomicSystem.from_atoms(atoms)))
    return found


def known(symbol: str) -> Iterator[tuple[str, Atoms]]:
    """Structures at room pressure, of the table above or of ASE."""
    if symbol in KNOWN:
        label, group, cell, basis = KNOWN[symbol]
        yield label, build(symbol, basis, group, cell)
    if symbol == "H":
        hexagonal = bulk("Mg", "hcp", a=3.78, c=6.16)
        atoms = Atoms(cell=hexagonal.cell, pbc=True)
        for x, y, z in hexagonal.positions:
            atoms += Atoms("H2", [[x, y, z + 0.37], [x, y, z - 0.37]])
        yield "molecular hcp", atoms
    elif symbol == "He":
        yield "hcp", bulk("He", "hcp", a=3.53, c=5.69)
    elif symbol == "Sn":
        yield "white", build("Sn", [(0, 0, 0)], 141, (5.82, 5.82, 3.18, 90, 90, 90))
    elif symbol not in KNOWN or symbol == "C":
        state = reference_states[chemical_symbols.index(symbol)]
        yield str(state["symmetry"]), bulk(symbol)


def build(symbol: str, basis: list, group: int, cell: tuple[float, ...]) -> Atoms:
    """Primitive cell of a structure."""
    setting = 2 if group in SECOND_ORIGIN else 1
    return crystal(
        [symbol] * len(basis),
        basis,
        spacegroup=group,
        setting=setting,
        cellpar=cell,
        primitive_cell=True,
    )


def packed(symbol: str, volume: float) -> Iterator[tuple[str, Atoms]]:
    """Close-packed structures of a volume per atom in cubic angstrom."""
    yield "fcc", bulk(symbol, "fcc", a=(4 * volume) ** (1 / 3))
    yield "bcc", bulk(symbol, "bcc", a=(2 * volume) ** (1 / 3))
    a = (volume * np.sqrt(2)) ** (1 / 3)
    c = np.sqrt(8 / 3) * a
    yield "hcp", bulk(symbol, "hcp", a=a, c=c)
    cellpar = (a, a, 2 * c, 90, 90, 120)
    yield "dhcp", build(symbol, [(0, 0, 0), (1 / 3, 2 / 3, 0.25)], 194, cellpar)


if __name__ == "__main__":
    main()
