"""Writing files whole or not at all, folders for results, versions of packages."""

from __future__ import annotations

import os
import platform
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RECORDED = ("adit-atomate", "torch", "lightning", "numpy", "pymatgen", "rdkit", "smact")


@contextmanager
def atomic_path(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Give the body another file to write, which takes the place of ``path`` when it ends well.

    Readers see the old file or the new one, never a part. The other file lies beside it under a
    name of its own, so that processes that write the same file do not meet; if the body fails it
    is removed.

    Parameters
    ----------
    path : str or Path
        Target; its folder is made.
    durable : bool
        Wait until the disk has it, so that a loss of power cannot take old and new file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        if durable:
            _to_disk(partial)
        partial.replace(path)
        if durable:
            _to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path: str | Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a text (UTF-8) or bytes to a file, whole or not at all; see :func:`atomic_path`."""
    with atomic_path(path, durable=durable) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def csv_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make a row of a table safe to open: no formulas of spreadsheets, no signs that steer.

    Text that begins with ``=``, ``+``, ``-`` or ``@`` and is no number gets an apostrophe before
    it; control characters become ``?``.
    """
    return {name: csv_cell(value) for name, value in row.items()}


def csv_cell(value: Any) -> Any:
    """Make one value of a table safe; see :func:`csv_row`."""
    if not isinstance(value, str):
        return value
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in value)
    if not text.startswith(("=", "+", "-", "@")):
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text
    return text


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of packages; ``"not installed"`` where one is not.

    Without names they are those that samples, their checks and training depend on.
    """
    found = {"python": platform.python_version()}
    for package in packages or RECORDED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Make a folder for the results of the body, and check before it that it can be written.

    If the body fails and leaves nothing in it, the folder and the parents that were made with it
    are taken away again.

    Parameters
    ----------
    folder : Path
        May exist.

    Raises
    ------
    OSError
        If it cannot be made or written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):  # it holds something, or was not made
                path.rmdir()
        raise
