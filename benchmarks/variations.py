"""Measure what variations of rutile keep: its structure type, its composition.

python benchmarks/variations.py --strength 0.2 0.25 0.3 0.35
"""

from __future__ import annotations

import argparse
import warnings

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from adit_model.model import ADiT
from adit_model.sampling.explore import variations

RUTILE = Structure.from_spacegroup(
    136, Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--strength", type=float, nargs="+", default=[0.2, 0.25, 0.3, 0.35])
    parser.add_argument("-n", type=int, default=12, help="variations of each (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--symmetry", default="free", help="free or found (default %(default)s)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of pymatgen
    model, matcher = ADiT.load(args.checkpoint, device="cpu"), StructureMatcher()
    print(f"{args.checkpoint} ({model.checkpoint_hash[:12]}), symmetry {args.symmetry}\n")
    print("| strength | rutile type | other compositions than TiO2 |\n|---|---|---|")
    for strength in args.strength:
        found = variations(
            model,
            RUTILE,
            args.n,
            strength=strength,
            seed=args.seed,
            symmetry=args.symmetry,
            progress=False,
        )
        crystals = [sample.system.to_structure() for sample in found if sample.system]
        kept = sum(matcher.fit_anonymous(RUTILE, crystal) for crystal in crystals)
        others = {s.system.formula for s in found if s.system} - {"TiO2", "Ti2O4"}
        print(f"| {strength:g} | {kept} of {args.n} | {', '.join(sorted(others))} |", flush=True)


if __name__ == "__main__":
    main()
