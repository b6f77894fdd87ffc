"""One safetensors file with JSON metadata: all that sampling needs, and nothing that runs code."""

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

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
METADATA_KEY = "adit"
REQUIRED = ("format_version", "config", "statistics", "hash", "licence", "metadata_hash")
BUNDLED = {"default": "mini.safetensors", "mini": "mini.safetensors"}
DIRECTORY_VARIABLE = "ADIT_CHECKPOINT_DIR"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(path, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def write_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> str:
    """Write tensors and metadata to one file, atomically.

    Parameters
    ----------
    path : str or Path
        Target.
    tensors : mapping
        Name to tensor, as ``state_dict`` gives them.
    metadata : mapping
        JSON-able; ``format_version`` and both hashes are filled in.

    Returns
    -------
    str
        The content hash.
    """
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    content = json.loads(json.dumps(dict(metadata)))  # as a reader finds it, keys as text
    content["format_version"] = FORMAT_VERSION
    content["hash"] = content_hash(plain, content["config"])
    content["metadata_hash"] = metadata_hash(content)
    text = json.dumps(content, sort_keys=True)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(save(plain, {METADATA_KEY: text}))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return str(content["hash"])


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint without its tensors and without torch.

    Raises
    ------
    CheckpointError
        If the file is no safetensors file, is cut off, is no checkpoint of this package, has a
        newer format, or if the metadata do not match their hash.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little") if size >= 8 else 0
        if not 2 <= length <= 100_000_000:
            raise CheckpointError(
                f"{path} is no safetensors file: it starts with no header (checkpoints of other "
                "kinds, .ckpt or .pt, cannot be loaded)"
            )
        if length + 8 > size:
            raise CheckpointError(_cut_off(path, length + 8, size))
        raw = file.read(length)
    try:
        header = json.loads(raw)
        texts = header.pop("__metadata__", None) or {}
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
        text = texts.get(METADATA_KEY)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
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
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} has unreadable metadata") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version}, this version of adit-atomate reads up to "
            f"{FORMAT_VERSION}: update adit-atomate"
        )
    missing = [key for key in REQUIRED if key not in metadata]
    if missing:
        raise CheckpointError(f"{path} lacks the metadata {', '.join(missing)}")
    if metadata["metadata_hash"] != metadata_hash(metadata):
        raise CheckpointError(
            f"{path} is damaged: its metadata do not match their hash; copy or download it again"
        )
    return metadata


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata; nothing is ever unpickled.

    Raises
    ------
    CheckpointError
        As :func:`read_metadata`, or if the content does not match its hash.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = read_metadata(path)
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    found = content_hash(tensors, metadata["config"])
    if found != metadata["hash"]:
        raise CheckpointError(
            f"{path} is damaged: its content has hash {found[:12]}, its metadata say "
            f"{str(metadata['hash'])[:12]}; copy or download it again"
        )
    return tensors, metadata


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
