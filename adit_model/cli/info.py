"""``adit info``: what a checkpoint says of itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit info``; :func:`info_command` is its body."""
    parser.add_argument(
        "checkpoint", nargs="?", default="default", metavar="NAME|FILE", help="default: bundled"
    )
    parser.add_argument("--json", action="store_true", help="print all metadata as JSON")


def info_command(args: argparse.Namespace) -> int:
    """Print the metadata of a checkpoint, without loading its weights into a model.

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint or it cannot be used.
    """
    from adit_model.checkpoint import read_metadata, resolve_checkpoint

    path = resolve_checkpoint(args.checkpoint)
    metadata = read_metadata(path)
    if args.json:
        print(json.dumps(metadata, indent=2, sort_keys=True))
    else:
        print(describe_checkpoint(path, metadata))
    return 0


def describe_checkpoint(path: Path, metadata: dict[str, Any]) -> str:
    """Describe a checkpoint in YAML, atom-count histograms in one line each.

    Parameters
    ----------
    path : Path
        Its file.
    metadata : dict
        From :func:`adit_model.checkpoint.read_metadata`.
    """
    import yaml

    rest = dict(metadata)
    top = {
        "file": str(path),
        "size_mb": round(path.stat().st_size / 1e6, 2),
        "parameters": count_parameters(path),
        "hash": rest.pop("hash"),
        "licence": rest.pop("licence"),
        "format_version": rest.pop("format_version"),
    }
    statistics = dict(rest.pop("statistics"))
    if "sizes" in statistics:
        statistics["sizes"] = {
            domain: _histogram_line(sizes) for domain, sizes in statistics["sizes"].items()
        }
    for domain, orders in statistics.pop("element_orders", {}).items():
        statistics[f"{domain}_element_orders"] = len(orders)
    config = rest.pop("config")
    return yaml.safe_dump(
        {**top, **rest, "statistics": statistics, "config": config}, sort_keys=False, width=100
    ).rstrip()


def count_parameters(path: Path) -> dict[str, int]:
    """Numbers in the tensors of each part of a checkpoint, from the file's header alone."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    counts: dict[str, int] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            part = name.partition(".")[0]
            size = 1
            for length in tensor["shape"]:
                size *= length
            counts[part] = counts.get(part, 0) + size
    return counts


def _histogram_line(sizes: dict[str, int]) -> str:
    if not sizes:
        return "none"
    counts = {int(size): int(count) for size, count in sizes.items()}
    total = sum(counts.values())
    mean = sum(size * count for size, count in counts.items()) / total
    return f"{total} systems of {min(counts)} to {max(counts)} atoms, {mean:.2f} on average"
