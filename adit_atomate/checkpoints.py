"""Checkpoints as arguments of jobs."""

from __future__ import annotations

from typing import overload

from jobflow import OutputReference

from adit_model.checkpoint import BUNDLED, resolve_checkpoint


@overload
def absolute_checkpoint(name: None) -> None: ...
@overload
def absolute_checkpoint(name: str) -> str: ...
@overload
def absolute_checkpoint(name: OutputReference) -> OutputReference: ...
@overload
def absolute_checkpoint(
    name: str | OutputReference | None,
) -> str | OutputReference | None: ...
def absolute_checkpoint(name: str | OutputReference | None) -> str | OutputReference | None:
    """Give a checkpoint its absolute path; bundled names and references stay as they are.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    """
    if name is None or isinstance(name, OutputReference):
        return name
    path = resolve_checkpoint(name)
    return name if name in BUNDLED else str(path.resolve())
