"""``adit info``: what a checkpoint says of itself."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit info``; :func:`info_command` is its body."""
    parser.add_argument(
        "checkpoint", nargs="?", default="default", metavar="NAME|FILE", help="default: bundled"
    )
    parser.add_argument("--full", action="store_true", help="ranges of properties, all metadata")
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
        if args.full:
            if ranges := property_ranges(path, metadata):
                print(f"\nranges of the properties in the training data\n{ranges}")
            print("\n" + yaml_of(metadata))
    return 0


def describe_checkpoint(path: Path, metadata: dict[str, Any]) -> str:
    """Describe a checkpoint in twelve lines.

    Parameters
    ----------
    path : Path
        Its file.
    metadata : dict
        From :func:`adit_model.checkpoint.read_metadata`.
    """
    from adit_model.checkpoint import known_of
    from adit_model.systems import CRYSTAL, MOLECULE

    known, config = known_of(path, metadata)[0], metadata["config"]
    training = metadata.get("training") or {}
    listed = metadata["known"].get("elements", {})
    places = config["autoencoder"]["num_elements"] - 1
    elements = [
        f"{d}s {_element_line(listed[d])}" if d in listed else f"{d}s not listed, at most {places}"
        for d in known.domains
    ]
    exact = ["domain", "number of atoms", "elements", "formula"]  # imposed, learned or not
    exact += ["cell", "fixed atoms"] if CRYSTAL in known.domains else []
    exact += ["space group"] if "space_group" in known.learned else []
    sampling = config["sampling"]
    costs = [
        f"{training[k]} {k.replace('_', ' ')}" for k in ("core_hours", "gpu_hours") if k in training
    ]
    made = (metadata.get("metrics") or {}).get("generated") or {}
    quality = [
        f"{found['valid']} of {found['count']} {domain} valid"
        if "valid" in found
        else f"{found.get('unique')} of {found['count']} {domain} unique"
        for domain, found in made.items()
        if isinstance(found, dict) and "count" in found
    ]
    parts = [f"{name} {count:,} numbers" for name, count in count_parameters(path).items()]
    lines = {
        "file": f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, hash {metadata['hash'][:12]}",
        "trained on": (training.get("data") or {}).get("name", "not said"),
        "crystals": _histogram_line(known.sizes.get(CRYSTAL, {})),
        "molecules": _histogram_line(known.sizes.get(MOLECULE, {})),
        "elements": "; ".join(elements) or "none",
        "can be told": ", ".join(exact),
        "properties": ", ".join(known.properties) or "none",
        "sampling": f"{sampling['num_steps']} steps, {sampling['solver']}",
        "training": ", ".join([str(training.get("stage", "not said")), *costs]),
        "size": ", ".join(parts),
        "quality": ", ".join(quality) or "not measured",
        "licence": f"{metadata['licence']}; ranges of the properties and all else: --full",
    }
    return "\n".join(f"{name + ':':<13}{text}" for name, text in lines.items())


def property_ranges(path: Path, metadata: dict[str, Any]) -> str:
    """Write of each property the range and the error of its estimate, one a line."""
    from adit_model.checkpoint import known_of

    known = known_of(path, metadata)[0]
    lines = []
    for name, values in known.properties.items():
        error = values.error
        found = "not estimated" if error is None else f"estimated within {error:.2g} on average"
        lines.append(f"{name}: {values}; {found}")
    return "\n".join(lines)


def _element_line(numbers: Sequence[int]) -> str:
    """List few elements, of many how many there are and which are left out up to the heaviest."""
    from ase.data import chemical_symbols

    if len(numbers) <= 12:
        return " ".join(chemical_symbols[z] for z in numbers)
    absent = [chemical_symbols[z] for z in range(1, max(numbers)) if z not in numbers]
    without = f" without {' '.join(absent)}" if 0 < len(absent) <= 12 else ""
    return f"{len(numbers)} up to {chemical_symbols[max(numbers)]}{without}"


def yaml_of(metadata: dict[str, Any]) -> str:
    """Write all that a checkpoint says of itself as YAML."""
    import yaml

    return yaml.safe_dump(metadata, sort_keys=False, width=100).rstrip()


def count_parameters(path: Path) -> dict[str, int]:
    """Numbers in the tensors of each part of a checkpoint, from the file's header alone."""
    from adit_model.checkpoint import ORDERS, read_header

    counts: dict[str, int] = {}
    for name, shape in read_header(path)[0].items():
        if not name.startswith(ORDERS):
            part = name.partition(".")[0]
            counts[part] = counts.get(part, 0) + math.prod(shape)
    return counts


def _histogram_line(sizes: Mapping[int, int]) -> str:
    if not sizes:
        return "none"
    total = sum(sizes.values())
    mean = sum(size * count for size, count in sizes.items()) / total
    gaps = sorted(set(range(min(sizes), max(sizes))) - set(sizes))
    without = f", none of {', '.join(map(str, gaps))}" if gaps else ""
    return f"{total:,} of {min(sizes)} to {max(sizes)} atoms, {mean:.2f} on average{without}"
