"""Ask for molecules with a property of QM9, and see whether they have it.

Run from the repository root, for instance

    python benchmarks/molecule_properties.py --checkpoint mini-2 --number 100 --guidance 1 2

Each sample is asked for the value and the number of atoms of a molecule of QM9's test part. What it
has is judged by an oracle, kernel ridge regression on histograms of distances, fitted to molecules
of the validation part, which the generator has not seen; and by GFN2-xTB, mapped to B3LYP by a line
through real molecules. The oracle of EDM (Hoogeboom et al. 2022, arXiv 2203.17003) is trained on
the half of QM9's training part that its generator does not see; this generator saw all of it, and
this oracle is another, so these figures do not compare with published ones.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from adit_model.data import load_source
from adit_model.data.dataset import AtomicDataset
from adit_model.files import write_atomic
from adit_model.model import ADiT
from adit_model.quality.tables import table
from adit_model.systems import AtomicSystem

PROPERTIES = {
    "gap": ("meV", 1000.0),
    "homo": ("meV", 1000.0),
    "lumo": ("meV", 1000.0),
    "mu": ("D", 1.0),
    "alpha": ("bohr^3", 1.0),
    "cv": ("cal/mol/K", 1.0),
}
XTB = ("gap", "homo", "lumo", "mu")
ELEMENTS = (1, 6, 7, 8, 9)
PAIRS = list(combinations_with_replacement(ELEMENTS, 2))
DISTANCES = np.arange(0.8, 5.0, 0.15)  # angstrom
WIDTH = 0.12  # angstrom
BOHR, HARTREE, DEBYE = 0.529177210903, 27.211386245988, 2.541746473


def describe(system: AtomicSystem) -> np.ndarray:
    """Count elements, and the distances of each pair of elements in smooth histograms."""
    counts = [(system.numbers == z).sum() for z in ELEMENTS]
    first, second = np.triu_indices(len(system), 1)
    away = np.linalg.norm(system.positions[first] - system.positions[second], axis=1)
    pairs = np.sort(np.stack([system.numbers[first], system.numbers[second]], axis=1), axis=1)
    bumps = np.exp(-0.5 * ((away[:, None] - DISTANCES) / WIDTH) ** 2)
    parts = [bumps[(pairs == pair).all(axis=1)].sum(axis=0) for pair in PAIRS]
    return np.concatenate([counts, *parts])


class Oracle:
    """Kernel ridge regression (Laplacian kernel) of all properties from :func:`describe`."""

    def __init__(self, systems: Sequence[AtomicSystem], values: np.ndarray) -> None:
        self.points = np.stack([describe(s) for s in systems])
        self.scale = self.points.std(axis=0) + 0.3
        self.points = self.points / self.scale
        self.mean, self.std = values.mean(axis=0), values.std(axis=0)
        held = len(systems) // 5
        best = (np.inf, 0.0, 0.0)
        for width in (30.0, 100.0, 300.0):
            kernel = self._kernel(self.points, width)
            for noise in (1e-4, 1e-2):
                left = kernel[held:, held:] + noise * np.eye(len(systems) - held)
                guess = kernel[:held, held:] @ np.linalg.solve(left, self._unit(values[held:]))
                error = float(np.abs(guess - self._unit(values[:held])).mean())
                best = min(best, (error, width, noise))
        _, self.width, noise = best
        kernel = self._kernel(self.points, self.width) + noise * np.eye(len(systems))
        self.weights = np.linalg.solve(kernel, self._unit(values))

    def _unit(self, values: np.ndarray) -> np.ndarray:
        return (values - self.mean) / self.std

    def _kernel(self, points: np.ndarray, width: float) -> np.ndarray:
        from scipy.spatial.distance import cdist

        return np.exp(-cdist(points, self.points, "cityblock") / width)

    def __call__(self, systems: Sequence[AtomicSystem]) -> np.ndarray:
        """Properties of molecules, shape (M, 6)."""
        points = np.stack([describe(s) for s in systems]) / self.scale
        return self._kernel(points, self.width) @ self.weights * self.std + self.mean


def xtb_properties(system: AtomicSystem, lines: np.ndarray | None = None) -> np.ndarray:
    """Gap, HOMO, LUMO (eV) and dipole (debye) by GFN2-xTB; NaN where it does not converge.

    ``lines``, shape (4, 2), map them to B3LYP.
    """
    from tblite.interface import Calculator

    try:
        calculator = Calculator("GFN2-xTB", system.numbers, system.positions / BOHR)
        calculator.set("verbosity", 0)
        result = calculator.singlepoint()
    except RuntimeError:
        return np.full(len(XTB), np.nan)
    energies = np.asarray(result.get("orbital-energies")) * HARTREE
    filled = np.asarray(result.get("orbital-occupations")).round().astype(int) > 0
    homo, lumo = energies[filled].max(), energies[~filled].min()
    dipole = np.linalg.norm(result.get("dipole")) * DEBYE
    found = np.array([lumo - homo, homo, lumo, dipole])
    return found if lines is None else lines[:, 0] * found + lines[:, 1]


def fit_lines(systems: Sequence[AtomicSystem], values: np.ndarray) -> np.ndarray:
    """Lines from GFN2-xTB to B3LYP through real molecules: slope and offset, shape (4, 2)."""
    found = np.array([xtb_properties(system) for system in systems])
    places = [list(PROPERTIES).index(name) for name in XTB]
    return np.array([np.polyfit(found[:, i], values[:, p], 1) for i, p in enumerate(places)])


def values_of(data: AtomicDataset) -> np.ndarray:
    """Properties of QM9, shape (M, 6)."""
    return np.stack([data.labels[name] for name in PROPERTIES], axis=1).astype(np.float64)


def draw(spec: str, number: int, seed: int) -> AtomicDataset:
    """Molecules of a part of QM9, drawn at random."""
    data = load_source(spec, progress=False)
    return data.subset(np.random.default_rng(seed).permutation(len(data))[:number])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="mini-2")
    parser.add_argument("--number", type=int, default=100, help="samples of each property")
    parser.add_argument("--properties", nargs="+", default=list(PROPERTIES), choices=PROPERTIES)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0])
    parser.add_argument("--train", type=int, default=4000, help="molecules of the oracle")
    parser.add_argument("--held-out", type=int, default=300, help="real molecules, for both errors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    args = parser.parse_args(arguments)

    fitted = draw("qm9:val", args.train, args.seed)
    oracle = Oracle(list(fitted), values_of(fitted))
    real = draw("qm9:test", max(args.held_out, args.number), args.seed)
    truth = values_of(real)
    some = list(real)[: args.held_out]
    lines = fit_lines(some, truth[: args.held_out])
    judges = {
        "oracle": oracle,
        "GFN2-xTB": lambda systems: np.array([xtb_properties(s, lines) for s in systems]),
    }
    names, rows = list(PROPERTIES), {judge: {} for judge in judges}

    def note(judge: str, row: str, name: str, found: np.ndarray, wanted: np.ndarray) -> None:
        error = PROPERTIES[name][1] * np.nanmean(np.abs(found - wanted))
        both = np.isfinite(found)
        alike = np.corrcoef(found[both], wanted[both])[0, 1]
        rows[judge].setdefault(row, {})[name] = f"{error:.3g} ({alike:.2f})"

    shuffled = np.random.default_rng(args.seed).permutation(truth)
    means = np.array([values_of(fitted)[fitted.sizes == k].mean(axis=0) for k in real.sizes])
    for judge, values in judges.items():
        measured = values(some)
        for name in args.properties if judge == "oracle" else set(args.properties) & set(XTB):
            i, place = names.index(name), (names if judge == "oracle" else XTB).index(name)
            note(judge, "random values", name, shuffled[:, i], truth[:, i])
            note(judge, "number of atoms alone", name, means[:, i], truth[:, i])
            note(judge, "real molecules", name, measured[:, place], truth[: args.held_out, i])

    model = ADiT.load(args.checkpoint)
    wanted, sizes = truth[: args.number], real.sizes[: args.number]

    def sample(row: str, asked: Sequence[str], **options: float) -> None:
        """Sample once, and judge all properties or the one that was asked for."""
        told = asked[0] if len(asked) == 1 and options else None
        conditions = [
            f"molecule, atoms={k}" + (f", {told}={v[names.index(told)]:.6g}" if told else "")
            for k, v in zip(sizes, wanted, strict=True)
        ]
        samples = model.sample(args.number, conditions, seed=args.seed, **options)
        kept = [j for j, s in enumerate(samples) if s.system is not None]
        for judge, values in judges.items():
            measured = values([samples[j].system for j in kept])
            for name in asked if judge == "oracle" else set(asked) & set(XTB):
                place = (names if judge == "oracle" else XTB).index(name)
                goal = wanted[kept, names.index(name)]
                note(judge, row, name, measured[:, place], goal)

    sample("nothing told", args.properties)
    for scale in args.guidance:
        for name in args.properties:
            sample(f"asked, guidance {scale:g}", [name], guidance_scale=scale)

    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "benchmarks/molecule_properties.py", *given])
    text = ["# Properties of molecules asked for", "", "```", command, "```", ""]
    text += [
        f"Checkpoint {args.checkpoint}, hash `{model.checkpoint_hash[:12]}`: {args.number} samples "
        "a line and property. Mean absolute error, and in brackets the correlation, of what was "
        "asked and what is there by the judge.",
        "",
    ]
    for judge, found in rows.items():
        columns = [n for n in args.properties if judge == "oracle" or n in XTB]
        header = [f"by {judge}", *(f"{n} ({PROPERTIES[n][0]})" for n in columns)]
        body = [[row, *(line.get(n, "-") for n in columns)] for row, line in found.items()]
        text += table(header, body)
    text += [" ".join(part.split()) for part in (__doc__ or "").split("\n\n")[-1:]]
    print("\n".join(text))
    if args.out is not None:
        write_atomic(args.out, "\n".join(text))


if __name__ == "__main__":
    main()
