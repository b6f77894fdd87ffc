"""Folders that jobs write to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
