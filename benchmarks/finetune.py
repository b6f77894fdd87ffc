"""How fast ``adit finetune`` learns structure types: cubic perovskites and half-Heusler phases.

    python benchmarks/finetune.py --structures 50 --folder runs/types [--steps 100]

Makes CIF files with elements and lattice constants by covalent radii, fine-tunes the default
weights on them by the command line's defaults, samples crystals before and after, and counts
those of either structure type (pymatgen's matcher, species left out).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from itertools import product
from pathlib import Path

from ase.data import atomic_numbers, covalent_radii
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from adit_model.cli.main import main as adit
from adit_model.model import ADiT

# symbols of each site, fractional coordinates, and the sum of radii that makes the cell's edge
PEROVSKITE = (
    ("Na K Rb Cs Ca Sr Ba La", "Ti Zr Hf Sn Mn Fe Mg Nb", "O F Cl Br"),
    [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
)
HALF_HEUSLER = (
    ("Ti Zr Hf Sc Y Nb V La", "Ni Co Pd Pt Rh Fe Cu Au", "Sn Sb Bi Ge Si As"),
    [(0.5, 0.5, 0.5), (0.25, 0.25, 0.25), (0, 0, 0)],
)


def structures(number: int, seed: int = 0) -> list[Structure]:
    """Crystals of both types in turn; after all combinations of elements other lattice constants.

    Their lattices scatter by 2 %.
    """
    draw = random.Random(seed)
    made = []
    for k, (sites, coords) in enumerate((PEROVSKITE, HALF_HEUSLER)):
        combinations = list(product(*(group.split() for group in sites)))
        draw.shuffle(combinations)
        for i in range((number + 1 - k) // 2):
            symbols = combinations[i % len(combinations)]
            a, b, c = (covalent_radii[atomic_numbers[s]] for s in symbols)
            scale = draw.gauss(1.0, 0.02)
            if k == 0:
                lattice = Lattice.cubic(2 * max(b + c, (a + c) / 2**0.5) * scale)
                symbols = (*symbols, symbols[2], symbols[2])
            else:
                edge = 4 / 3**0.5 * ((a + c) / 2 + b) * scale
                half = edge / 2
                lattice = Lattice([[0, half, half], [half, 0, half], [half, half, 0]])
            made.append(Structure(lattice, symbols, coords))
    return made


def shares(model: ADiT, number: int) -> dict[str, float]:
    """Share of the crystals that a model makes which are of each type."""
    matcher = StructureMatcher()
    types = dict(zip(("perovskite", "half-Heusler"), structures(2), strict=True))
    found = dict.fromkeys(types, 0)
    for sample in model.sample(number, domain="crystal", seed=1, progress=False):
        if sample.system is not None:
            crystal = sample.system.to_structure()
            for name, kind in types.items():
                found[name] += bool(matcher.fit_anonymous(crystal, kind))
    return {name: count / number for name, count in found.items()}


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=50)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    cifs = args.folder / "cifs"
    cifs.mkdir(parents=True)
    for i, structure in enumerate(structures(args.structures)):
        structure.to(str(cifs / f"{i:04d}.cif"))
    given = {"--steps": args.steps, "--learning-rate": args.rate, "--batch-size": args.batch}
    options = [text for k, v in given.items() if v is not None for text in (k, str(v))]
    began, cpu = time.perf_counter(), time.process_time()
    run = args.folder / "run"
    assert adit(["finetune", str(cifs), "--out", str(run), "--quiet", *options]) == 0
    seconds, core = time.perf_counter() - began, time.process_time() - cpu
    result = {
        "structures": args.structures,
        "seconds": round(seconds),
        "core_seconds": round(core),
        "before": shares(ADiT.load("default"), args.samples),
        "after": shares(ADiT.load(run / "denoiser.safetensors"), args.samples),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
