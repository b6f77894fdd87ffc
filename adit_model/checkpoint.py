"""One safetensors file with JSON metadata: all that sampling needs, and nothing that runs code.

Format 2 holds the weights, the orders of elements of the training molecules as three integer
tensors (``element_orders.*``), and metadata: ``config``, ``known`` (what the weights can be told,
:class:`~adit_model.conditions.known.Known`), ``licence``, hashes, and what training and evaluation
noted. Format 1, which had the orders as text in the metadata, is converted as it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.data import atomic_numbers

from adit_model.conditions.atoms import ElementOrders
from adit_model.conditions.known import Known
from adit_model.config import ModelConfig
from adit_model.files import atomic_path, write_atomic
from adit_model.systems import MOLECULE

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 2
METADATA_KEY = "adit"
REQUIRED = ("config", "known", "hash", "licence", "metadata_hash")
ORDERS = "element_orders."
LARGEST_HEADER = 32_000_000  # bytes
DEEPEST = 200  # levels of the metadata
BUNDLED = {
    "default": "mini-2.safetensors",
    "mini": "mini.safetensors",
    "mini-2": "mini-2.safetensors",
}
DIRECTORY_VARIABLE = "ADIT_CHECKPOINT_DIR"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MALFORMED = (  # what reading a strange value raises: LookupError has KeyError and IndexError
    *(ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError),
)


class CheckpointError(ValueError):
    """A checkpoint file cannot be used; the text says why and what to do."""


def resolve_checkpoint(name_or_path: str | Path) -> Path:
    """Return the file of a registered name or a path.

    Parameters
    ----------
    name_or_path : str or Path
        ``"default"``, another bundled name, a name given to :func:`register_checkpoint`, or the
        path of a ``.safetensors`` file.

    Raises
    ------
    CheckpointError
        If it is neither.
    """
    name = str(name_or_path)
    if name in BUNDLED:
        path = Path(str(resources.files("adit_model") / "weights" / BUNDLED[name]))
        if not path.is_file():
            raise CheckpointError(
                f"the bundled weights {path.name} are missing from this installation: "
                "install adit-atomate again"
            )
        return path
    path = Path(name).expanduser()
    if path.is_file():
        return path
    registered = registered_checkpoints()
    if name in registered:
        return registered[name]
    raise CheckpointError(
        f"no checkpoint {name!r}: neither a file nor one of the names "
        f"{', '.join(sorted({*BUNDLED, *registered}))}"
    )


def checkpoint_dir() -> Path:
    """Find the directory of registered checkpoints.

    It is ``ADIT_CHECKPOINT_DIR``, else ``~/.adit/checkpoints``.
    """
    return Path(os.environ.get(DIRECTORY_VARIABLE) or "~/.adit/checkpoints").expanduser()


def registered_checkpoints() -> dict[str, Path]:
    """Files of the registered checkpoints by name."""
    return {path.stem: path for path in sorted(checkpoint_dir().glob("*.safetensors"))}


def register_checkpoint(path: str | Path, name: str) -> Path:
    """Keep a copy of a checkpoint under a name that all Makers and commands know.

    Parameters
    ----------
    path : str or Path
        Checkpoint file.
    name : str
        Letters, digits, ``.``, ``_`` and ``-``.

    Returns
    -------
    Path
        The copy, in :func:`checkpoint_dir`.

    Raises
    ------
    CheckpointError
        If the name cannot be used, belongs to another checkpoint, or the file is no checkpoint.
    """
    if not _NAME.fullmatch(name) or name in BUNDLED or name.endswith(".safetensors"):
        raise CheckpointError(
            f"{name!r} cannot name a checkpoint: use letters, digits, '.', '_' and '-', and none "
            f"of {', '.join(sorted(BUNDLED))}"
        )
    wanted = read_metadata(path)["hash"]
    target = checkpoint_dir() / f"{name}.safetensors"
    if target.is_file():
        if read_metadata(target)["hash"] == wanted:
            return target
        raise CheckpointError(f"{target} is another checkpoint: remove it or choose another name")
    with atomic_path(target) as partial:
        shutil.copyfile(path, partial)
    return target


def write_checkpoint(
    path: str | Path,
    weights: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    orders: ElementOrders | None = None,
) -> str:
    """Write weights and metadata to one file, atomically.

    Parameters
    ----------
    path : str or Path
        Target.
    weights : mapping
        Name to tensor, as ``state_dict`` gives them.
    metadata : mapping
        JSON-able, with ``config`` and ``known``; ``format_version`` and the hashes are filled in.
    orders : ElementOrders, optional
        Orders of elements of the training molecules.

    Returns
    -------
    str
        The content hash.
    """
    import torch
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    arrays = orders.to_arrays() if orders is not None and orders.histogram else {}
    tables = {ORDERS + name: torch.from_numpy(array) for name, array in arrays.items()}
    content = json.loads(json.dumps(dict(metadata)))  # as a reader finds it, keys as text
    content["format_version"] = FORMAT_VERSION
    content["hash"] = content_hash(plain, content["config"])
    content["orders_hash"] = content_hash(tables, {}) if tables else None
    content["metadata_hash"] = metadata_hash(content)
    text = json.dumps(content, sort_keys=True)
    write_atomic(path, save({**plain, **tables}, {METADATA_KEY: text}), durable=True)
    return str(content["hash"])


def read_header(path: str | Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Read the shapes of a checkpoint's tensors and its metadata, as they stand in the file.

    Raises
    ------
    CheckpointError
        As :func:`read_metadata`.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little") if size >= 8 else 0
        if not 2 <= length <= LARGEST_HEADER:
            raise CheckpointError(
                f"{path} is no safetensors file: it starts with no header (checkpoints of other "
                "kinds, .ckpt or .pt, cannot be loaded)"
            )
        if length + 8 > size:
            raise CheckpointError(_cut_off(path, length + 8, size))
        raw = file.read(length)
    try:
        header = json.loads(raw)
        text = (header.pop("__metadata__", None) or {}).get(METADATA_KEY)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
    except MALFORMED as error:
        raise CheckpointError(f"{path} is no safetensors file: its header is not valid") from error
    expected = 8 + length + max(ends, default=0)
    if size < expected:
        raise CheckpointError(_cut_off(path, expected, size))
    if text is None:
        raise CheckpointError(
            f"{path} is a safetensors file, but not a checkpoint of ADiT: "
            f"its metadata have no {METADATA_KEY!r}"
        )
    try:
        metadata = json.loads(text)
        version = int(metadata["format_version"])
        _check_depth(metadata)
    except MALFORMED as error:
        raise CheckpointError(f"{path} has unreadable metadata") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version}, this version of adit-atomate reads up to "
            f"{FORMAT_VERSION}: update adit-atomate"
        )
    required = [{1: {"known": "statistics"}}.get(version, {}).get(key, key) for key in REQUIRED]
    if missing := [key for key in required if key not in metadata]:
        raise CheckpointError(f"{path} lacks the metadata {', '.join(missing)}")
    if metadata["metadata_hash"] != metadata_hash(metadata):
        raise CheckpointError(
            f"{path} is damaged: its metadata do not match their hash; copy or download it again"
        )
    return shapes, metadata


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint without its tensors and without torch.

    Raises
    ------
    CheckpointError
        If the file is no safetensors file, is cut off, is no checkpoint of this package, has a
        newer format, or if the metadata do not match their hash.
    """
    return _with_known(Path(path), read_header(path)[1])[0]


def read_known(path: str | Path) -> tuple[Known, ModelConfig]:
    """Read what a checkpoint can be told and its configuration, without tensors and torch.

    Raises
    ------
    CheckpointError
        As :func:`read_metadata`, or if something in it is out of range.
    """
    return known_of(path, read_metadata(path))


def known_of(path: str | Path, metadata: Mapping[str, Any]) -> tuple[Known, ModelConfig]:
    """Read the same from metadata; errors as of :func:`read_known`."""
    try:
        config = ModelConfig.from_dict(metadata["config"])
    except MALFORMED as error:
        raise CheckpointError(f"{path} has an unknown configuration: {error}") from error
    try:
        return Known.of_checkpoint(metadata["config"], metadata["known"]), config
    except MALFORMED as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def read_checkpoint(
    path: str | Path,
) -> tuple[dict[str, Tensor], dict[str, Any], ElementOrders]:
    """Read weights, metadata and the orders of elements; nothing is ever unpickled.

    Raises
    ------
    CheckpointError
        As :func:`read_metadata`, or if the content does not match its hash.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    metadata, histogram = _with_known(path, read_header(path)[1])
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    tables = {name: tensors.pop(name) for name in list(tensors) if name.startswith(ORDERS)}
    pairs = [(content_hash(tensors, metadata["config"]), metadata["hash"])]
    if tables or metadata.get("orders_hash"):
        pairs.append((content_hash(tables, {}), metadata.get("orders_hash")))
    for found, said in pairs:
        if found != said:
            raise CheckpointError(
                f"{path} is damaged: its content has hash {found[:12]}, its metadata say "
                f"{str(said)[:12]}; copy or download it again"
            )
    arrays = {name: table.numpy() for name, table in tables.items()}
    return tensors, metadata, _orders(path, arrays, histogram)


def _with_known(path: Path, metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """Bring metadata into format 2; the second is the text of the orders in format 1."""
    if "known" in metadata:
        return metadata, {}
    statistics = metadata.pop("statistics")
    try:
        histogram = dict(statistics.get("element_orders", {}).get(MOLECULE, {}))
        metadata["known"] = {"sizes": statistics.get("sizes", {})}
        if histogram:
            held = set(re.findall("[A-Z][a-z]?", " ".join(histogram)))
            metadata["known"]["elements"] = {MOLECULE: sorted(atomic_numbers[s] for s in held)}
    except MALFORMED as error:
        raise CheckpointError(f"{path} has unreadable statistics") from error
    return metadata, histogram


def _orders(path: Path, arrays: Mapping[str, Any], histogram: Mapping[str, int]) -> ElementOrders:
    try:
        if not arrays:
            return ElementOrders(histogram)
        return ElementOrders.from_arrays(**{k.removeprefix(ORDERS): v for k, v in arrays.items()})
    except MALFORMED as error:
        raise CheckpointError(f"{path} has unreadable orders of elements: {error}") from error


def _check_depth(content: Any) -> None:
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"metadata are nested more than {DEEPEST} levels deep")
        level = [
            value
            for item in level
            if isinstance(item, dict | list)
            for value in (item.values() if isinstance(item, dict) else item)
        ]


def content_hash(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """SHA-256 over the config and all tensors: names, types, shapes and bytes."""
    import torch

    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def metadata_hash(metadata: Mapping[str, Any]) -> str:
    """SHA-256 over all metadata but this hash itself: statistics and provenance too."""
    rest = {key: value for key, value in metadata.items() if key != "metadata_hash"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _cut_off(path: Path, expected: int, size: int) -> str:
    return f"{path} is cut off: {size} bytes of at least {expected}; copy or download it again"
