"""Writing files whole or not at all, folders for results, versions of packages."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SETTINGS = "run.json"  # of a run, with the names of the files it wrote
READY, REPLACED = ".results", "replaced.json"  # complete results on their way, and what goes
UNFINISHED = "unfinished.extxyz"  # samples of a run that has not ended
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
def output_folder(folder: Path, alone: bool = False) -> Iterator[None]:
    """Make a folder for the results of the body, and check before it that it can be written.

    If the body fails and leaves nothing in it, the folder and the parents that were made with it
    are taken away again.

    Parameters
    ----------
    folder : Path
        May exist.
    alone : bool
        Hold its lock meanwhile, see :func:`only_run`.

    Raises
    ------
    OSError
        If it cannot be made or written.
    ValueError
        If it shall be alone and is not.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        with only_run(folder) if alone else nullcontext():
            yield
    except BaseException:
        for path in made:
            with suppress(OSError):  # it holds something, or was not made
                path.rmdir()
        raise


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which needs no file; the system frees that of a killed process.

    Raises
    ------
    ValueError
        If another process holds it.
    """
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run writes to {folder}: wait for its end, or choose another folder"
            ) from None
        except OSError:  # a file system without such locks
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def new_results(folder: Path, later: Sequence[str] = ()) -> Iterator[Path]:
    """Give the body a folder to write results to, which then take the place of an earlier run's.

    Of the earlier run all goes that its ``run.json`` lists, and nothing else. Killed at any moment,
    the folder has the old results, or those that :func:`finish_results` puts in place.

    Parameters
    ----------
    folder : Path
        An existing folder, whose lock is held.
    later : sequence of str
        Files that the run will write after that.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    finish_results(folder)
    for left in folder.glob(f"{READY}-*"):
        shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f"{READY}-", dir=folder))
    try:
        yield staging
        files = [str(p.relative_to(staging)) for p in sorted(staging.rglob("*")) if p.is_file()]
        run = json.loads((staging / SETTINGS).read_text()) | {"files": [*files, *later]}
        (staging / SETTINGS).write_text(json.dumps(run, indent=2) + "\n")
        replaced = [name for name in listed_results(folder) if name not in files]
        (staging / REPLACED).write_text(json.dumps(replaced))
        staging.rename(folder / READY)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    finish_results(folder)


def finish_results(folder: Path) -> None:
    """Put complete results in place where a run was killed as it did so; else do nothing.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    ready = folder / READY
    if not ready.is_dir():
        return
    for name in _names(ready / REPLACED):
        (folder / name).unlink(missing_ok=True)
    for path in sorted(ready.rglob("*")):
        if path.is_file() and path.name != REPLACED:
            target = folder / path.relative_to(ready)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
    shutil.rmtree(ready)


def listed_results(folder: Path) -> list[str]:
    """Names of the files that the last run into a folder wrote, by its ``run.json``."""
    return _names(folder / SETTINGS)


def _names(path: Path) -> list[str]:
    """Read a list of names, none of which leads out of the folder."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return []
    found = found.get("files") if isinstance(found, dict) else found
    names = [name for name in found or () if isinstance(name, str)]
    parts = {name: Path(name).parts for name in names}
    return [n for n in names if ".." not in parts[n] and not Path(n).is_absolute() and parts[n]]
