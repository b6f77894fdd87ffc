"""How far a partial hull is from the true one: known crystals against a hull without them.

Run from the repository root, for instance

    python benchmarks/partial_hull.py --data DIR

where DIR holds ``crystals_*.csv.gz``. Each file fixes the true hull at its compositions. The
crystals of crystals_test are placed above the hull of the other files, which share no composition
with it, by the energies of the files: no force field is involved. Their true energies above hull
are in the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from adit_model.data.crystal_csv import load_crystal_table
from adit_model.quality.hull import (
    ENERGY_COLUMN,
    FAR_BELOW,
    HULL_COLUMN,
    METASTABLE,
    OLDER_SOURCES,
    Hull,
)

ON_HULL = 0.001  # eV/atom


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    files = {n: options.data / f"crystals_{n}.csv.gz" for n in ("train", "val", "test", "large")}
    hull = Hull.from_csv([files[name] for name in ("train", "val", "large")])
    table = load_crystal_table(files["test"])
    table = table[~table["source"].isin(OLDER_SOURCES)].dropna(subset=[ENERGY_COLUMN, HULL_COLUMN])
    found = [hull.above(f, e) for f, e in zip(table["formula"], table[ENERGY_COLUMN], strict=True)]
    answered = [i for i, result in enumerate(found) if result.energy_above_hull is not None]
    partial = np.array([found[i].energy_above_hull for i in answered])
    true = table[HULL_COLUMN].to_numpy()[answered]
    off = true > ON_HULL
    for what, among, above in (
        ("crystals", np.ones_like(off), None),
        ("off the true hull, median eV/atom", off, true),
        ("the same by the partial hull, median eV/atom", off, partial),
        ("off the true hull, stable by the partial one", off, partial <= 0),
        ("metastable by the true hull", np.ones_like(off), true <= METASTABLE),
        ("metastable by the partial hull", np.ones_like(off), partial <= METASTABLE),
        (f"below {FAR_BELOW} eV/atom by the partial hull", np.ones_like(off), partial < FAR_BELOW),
    ):
        if above is None:
            print(f"{what}: {among.sum()}")
        elif above.dtype == bool:
            print(f"{what}: {(above & among).sum()}/{among.sum()} = {above[among].mean():.1%}")
        else:
            print(f"{what}: {np.median(above[among]):.3f}")


if __name__ == "__main__":
    main()
