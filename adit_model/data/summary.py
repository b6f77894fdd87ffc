"""What a data set holds, as text; and the body of ``adit data``."""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from adit_model.data.dataset import AtomicDataset
from adit_model.data.sources import HELP, load_source

BAR_WIDTH = 40
MAX_BINS = 15
MAX_ELEMENTS = 20
MAX_REASONS = 5


def summarise(dataset: AtomicDataset) -> str:
    """Describe a data set: counts, sizes, elements, and what was skipped.

    Parameters
    ----------
    dataset : AtomicDataset
        Any data set.

    Returns
    -------
    str
        Several lines of plain text.
    """
    periodic = int(dataset.periodic.sum())
    sizes = dataset.sizes
    lines = [
        f"{dataset.name or 'data set'}: {len(dataset):,} systems "
        f"({periodic:,} crystals, {len(dataset) - periodic:,} molecules), "
        f"{len(dataset.numbers):,} atoms",
        f"atoms per system: {sizes.min()} to {sizes.max()}, mean {sizes.mean():.2f}",
        *_size_histogram(sizes),
        *_element_table(dataset),
        *_skip_table(dataset.skipped),
    ]
    return "\n".join(lines)


def element_counts(dataset: AtomicDataset) -> dict[int, tuple[int, int]]:
    """Count atoms and systems by element.

    Returns
    -------
    dict
        Atomic number to (atoms, systems that hold it), ascending.
    """
    system = np.repeat(np.arange(len(dataset)), dataset.sizes)
    pairs = np.unique(np.stack([dataset.numbers.astype(np.int64), system]), axis=1)
    atoms = np.bincount(dataset.numbers)
    systems = np.bincount(pairs[0], minlength=len(atoms))
    return {int(z): (int(atoms[z]), int(systems[z])) for z in np.flatnonzero(atoms)}


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit data`` to a parser; :func:`data_command` is its body."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "Load structures, say what they are, and write them as one array file."
    parser.epilog = f"sources:\n{HELP}"
    parser.add_argument("spec", metavar="SOURCE", help="a data set, file or folder; see below")
    parser.add_argument("--out", type=Path, metavar="FILE.npz", help="write the array file")
    parser.add_argument("--max-atoms", type=int, metavar="N", help="leave out larger systems")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="parsing processes")
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="default: ~/.cache/adit")
    parser.add_argument("--add-hydrogens", action="store_true", help="to drawn molecules (SDF)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def data_command(args: argparse.Namespace) -> int:
    """Load, print :func:`summarise`, and write ``--out`` if given.

    Parameters
    ----------
    args : argparse.Namespace
        As made by a parser that :func:`add_data_arguments` was called on.

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    FileNotFoundError, ValueError, DownloadError
        As :func:`~adit_model.data.sources.load_source`; or if ``--out`` does not end in ``.npz``
        or cannot be written.
    """
    if args.out is not None and args.out.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, got {args.out}")
    if args.out is not None:
        folder = next(path for path in args.out.absolute().parents if path.exists())
        if args.out.is_dir():
            raise ValueError(f"--out {args.out} is a folder: give the name of a file")
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError(f"--out {args.out} cannot be written: {folder} is no writable folder")
    dataset = load_source(
        args.spec,
        max_atoms=args.max_atoms,
        cache_dir=args.cache_dir,
        workers=args.workers,
        progress=not args.quiet,
        add_hydrogens=args.add_hydrogens,
    )
    print(summarise(dataset))
    if args.out is not None:
        dataset.save(args.out)
        print(f"written to {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _size_histogram(sizes: np.ndarray) -> list[str]:
    low, high = int(sizes.min()), int(sizes.max())
    width = -(-(high - low + 1) // MAX_BINS)
    counts = np.bincount((sizes - low) // width)
    lines = []
    for i, count in enumerate(counts.tolist()):
        start = low + i * width
        end = min(start + width - 1, high)
        label = f"{start}" if width == 1 else f"{start}-{end}"
        bar = "#" * int(np.ceil(BAR_WIDTH * count / counts.max()))
        lines.append(f"  {label:>9} {count:>9,} {bar}".rstrip())
    return lines


def _element_table(dataset: AtomicDataset) -> list[str]:
    from ase.data import chemical_symbols

    counts = element_counts(dataset)
    ranked = sorted(counts, key=lambda z: (-counts[z][0], z))
    lines = [f"elements: {len(counts)}"]
    for z in ranked[:MAX_ELEMENTS]:
        atoms, systems = counts[z]
        share = 100 * systems / len(dataset)
        lines.append(f"  {chemical_symbols[z]:>9} {atoms:>9,} atoms, in {share:.1f} % of systems")
    if len(ranked) > MAX_ELEMENTS:
        rest = " ".join(chemical_symbols[z] for z in ranked[MAX_ELEMENTS:])
        lines.append(f"  fewer of: {rest}")
    return lines


def _skip_table(skipped: list[tuple[str, str]]) -> list[str]:
    if not skipped:
        return ["skipped: 0"]
    # Reasons that differ in numbers only are one kind.
    kinds = Counter(re.sub(r"-?\d+(\.\d+)?", "#", reason) for _, reason in skipped)
    examples: dict[str, tuple[str, str]] = {}
    for name, reason in skipped:
        examples.setdefault(re.sub(r"-?\d+(\.\d+)?", "#", reason), (name, reason))
    lines = [f"skipped: {len(skipped):,}"]
    for kind, count in kinds.most_common(MAX_REASONS):
        name, reason = examples[kind]
        lines.append(f"  {count:>9,} like {name}: {reason}")
    if len(kinds) > MAX_REASONS:
        lines.append(f"  and {len(kinds) - MAX_REASONS} other reasons")
    return lines
