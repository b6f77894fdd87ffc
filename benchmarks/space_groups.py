"""How often crystals have the space group that was asked for, told alone and imposed.

    python benchmarks/space_groups.py --checkpoint mini-2 -n 32

Prints a table: of n samples for each space group, how many are in it by spglib at 0.01 and at 0.1
angstrom as generated, how many have a higher group at 0.1, how many are in it once they are
symmetrised as ``adit evaluate`` counts it, and how many keep their atoms apart (0.7 times the sum
of the covalent radii); below, the same of crystals of which nothing was asked.
"""

import argparse

from adit_model.model import ADiT
from adit_model.quality.conditions import symmetrised_into
from adit_model.quality.crystals import composition, space_group, strict, structural_fault
from adit_model.quality.plausible import plausible
from adit_model.sampling.sample import Sample

GROUPS = "225,221,194,62,139,166,12,14,63,227"


def reached(sample: Sample, tolerance: float) -> int:
    try:
        return 0 if sample.system is None else space_group(sample.system, tolerance)
    except ValueError:  # spglib finds none
        return 0


def row(samples: list[Sample], group: int | None) -> str:
    systems = [s.system for s in samples if s.system is not None]
    exact, loose = ([reached(s, tolerance) for s in samples] for tolerance in (0.01, 0.1))
    valid = [structural_fault(s) is None and composition(s)["compositional"] for s in systems]
    cells = [sum(valid), sum(strict(s)["separated"] for s in systems)]
    if group is None:
        cells.append(sum(g <= 2 for g in loose))
    else:
        higher = sum(a == group != b for a, b in zip(exact, loose, strict=True))
        moved = [symmetrised_into(s, group) for s in systems]
        symmetrised = sum(s is not None and plausible(s).plausible is True for s in moved)
        cells += [exact.count(group), loose.count(group), higher, symmetrised]
    cells.append(round(sum(len(set(s.numbers)) for s in systems) / max(1, len(systems)), 1))
    return " | ".join(map(str, cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("--groups", default=GROUPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise-scale", type=float)
    args = parser.parse_args()
    model = ADiT.load(args.checkpoint)
    options = {"seed": args.seed, "noise_scale": args.noise_scale, "progress": False}
    head = "asked | symmetry | valid | apart | at 0.01 | at 0.1 | higher at 0.1"
    print(f"| {head} | symmetrised | elements |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for group in map(int, args.groups.split(",")):
        for symmetry in ("free", "asked"):
            samples = model.sample(args.n, f"spacegroup={group}", symmetry=symmetry, **options)
            print(f"| {group} | {symmetry} | {row(samples, group)} |", flush=True)
    print("\n| asked | symmetry | valid | apart | triclinic | elements |")
    print("|---|---|---:|---:|---:|---:|")
    for symmetry in ("free", "known"):
        samples = model.sample(args.n, "crystal", symmetry=symmetry, **options)
        print(f"| nothing | {symmetry} | {row(samples, None)} |", flush=True)


if __name__ == "__main__":
    main()
