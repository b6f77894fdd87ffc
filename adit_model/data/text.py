"""Open files of text as people have them: packed, with a byte order mark, in UTF-16."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import Any, BinaryIO, TextIO

PACKINGS = (".gz", ".bz2", ".xz")
UNPACKING = (zlib.error, lzma.LZMAError)  # what damaged ones raise beside OSError and EOFError
MAX_TEXT = 1 << 28  # characters of a file that is read at once


def inner_name(path: Path) -> str:
    """Name of a file in small letters, without the ending of its packing."""
    name = path.name.lower()
    return name.removesuffix(next((end for end in PACKINGS if name.endswith(end)), ""))


def open_binary(path: Path) -> BinaryIO:
    """Open a file, also one packed by gzip, bzip2 or xz.

    Raises
    ------
    ValueError
        If it was made to unpack to far more than it seems.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        with open(path, "rb") as packed:
            packed.seek(-min(4, path.stat().st_size), 2)
            check_packing(str(path), path.stat().st_size, int.from_bytes(packed.read(4), "little"))
    opener: Any = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(suffix, open)
    return opener(path, "rb")


def text_encoding(path: Path) -> str:
    """Tell the encoding of a text, UTF-16 or UTF-8, by its byte order mark."""
    with open_binary(path) as file:
        head = file.read(2)
    return "utf-16" if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def open_text(path: Path) -> TextIO:
    """Open a text file, packed or not; what is no text becomes a mark of replacement."""
    encoding = text_encoding(path)
    return io.TextIOWrapper(open_binary(path), encoding=encoding, errors="replace")


def read_text(path: Path) -> str:
    """Read a whole text file, packed or not.

    Raises
    ------
    ValueError
        If it is longer than :data:`MAX_TEXT`.
    """
    with open_text(path) as file:
        text = file.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        raise ValueError(f"{path} is too large, {MAX_TEXT} characters and more: divide it")
    return text


def check_packing(name: str, packed: int, unpacked: int) -> None:
    """Refuse what unpacks to over 100 MB and 300 times its size, as no file of structures does."""
    if unpacked > max(100 << 20, 300 * packed):
        raise ValueError(
            f"{name} has {packed} bytes and would unpack to {unpacked}: damaged, and not unpacked"
        )
