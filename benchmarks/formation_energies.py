"""Formation energies by a force field and its own elements against those of a CSV file.

python benchmarks/formation_energies.py chgnet --data crystals_test.csv.gz --number 200
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from adit_model.data.crystal_csv import load_crystal_csv, load_crystal_table
from adit_model.quality.force_fields import FORCE_FIELDS, element_references
from adit_model.quality.hull import OLDER_SOURCES
from adit_model.quality.relax import single_point

# Anions that MP2020 corrects (Wang et al. 2021, table 2).
CORRECTED = frozenset(["O", "S", "F", "Cl", "Br", "I", "N", "Se", "Si", "Sb", "Te", "H"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(FORCE_FIELDS))
    parser.add_argument("--data", type=Path, required=True, help="CDVAE-format CSV file")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--max-atoms", type=int, default=20)
    args = parser.parse_args()
    table = load_crystal_table(args.data).dropna(subset=["formation_energy_per_atom"])
    table = table[~table["source"].isin(OLDER_SOURCES)]
    known = dict(zip(table.index, table["formation_energy_per_atom"], strict=True))
    systems = [
        system
        for system in load_crystal_csv(args.data, progress=False)
        if str(system.info["id"]) in known and len(system) <= args.max_atoms
    ]
    references = element_references(args.name)
    order = np.random.RandomState(0).permutation(len(systems))[: args.number]
    errors, groups = [], []
    for system in (systems[i] for i in order):
        symbols = [chemical_symbols[number] for number in system.numbers]
        amounts = {symbol: symbols.count(symbol) for symbol in symbols}
        energy = references.formation_energy(amounts, single_point(system, args.name))
        errors.append(energy - known[str(system.info["id"])])
        groups.append(_group(amounts.keys()))
    errors_array, groups_array = np.array(errors), np.array(groups)
    print(f"{references.label}, eV/atom: force field less file")
    for label in ("all", "O", "F", "other corrected anion", "none corrected"):
        part = errors_array if label == "all" else errors_array[groups_array == label]
        if len(part):
            print(
                f"{label:22} {len(part):4} crystals  mean absolute {np.abs(part).mean():.3f}  "
                f"median absolute {np.median(np.abs(part)):.3f}  mean {part.mean():+.3f}"
            )


def _group(symbols: Collection[str]) -> str:
    for anion in ("O", "F"):
        if anion in symbols:
            return anion
    return "other corrected anion" if CORRECTED & set(symbols) else "none corrected"


if __name__ == "__main__":
    main()
