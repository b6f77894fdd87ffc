"""Measure many structures: each in a process that may die, in chunks that are kept on disk."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.files import write_atomic
from adit_model.quality.measures import Measure
from adit_model.quality.pool import FAILED, LATE, Outcome, run_isolated
from adit_model.systems import AtomicSystem


class CellStore:
    """Results as JSON files under a folder, each named by a hash of what it depends on.

    What ran out of time is no result: it is kept as None and measured again by the next run.

    Parameters
    ----------
    folder : Path or None
        Made when first written to; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def read(self, key: str) -> Any:
        """Return what was kept under ``key``; None if nothing was, or it cannot be read."""
        try:
            return None if self.folder is None else json.loads(self._path(key).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def write(self, key: str, value: Any) -> None:
        """Keep ``value`` under ``key``, whole or not at all.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(key), json.dumps(value, default=_plain))

    def verdicts(self, key: str, judge: Callable[[], list[Any]]) -> list[Any]:
        """Return what was kept under ``key``, or judge and keep it if nothing ran out of time."""
        kept = self.read(key)
        if kept is None:
            kept = judge()
            if not any(isinstance(verdict, str) and LATE in verdict for verdict in kept):
                self.write(key, kept)
        return kept

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a cell must be plain, got {type(value).__name__}")


def fingerprint(systems: Iterable[AtomicSystem]) -> str:
    """Hash of elements, coordinates, cells and charges, in order."""
    digest = hashlib.sha256()
    for system in systems:
        digest.update(f"{len(system)} {system.domain}".encode())
        digest.update(system.numbers.astype("<i8").tobytes())
        digest.update(system.positions.astype("<f8").tobytes())
        if system.cell is not None:
            digest.update(system.cell.astype("<f8").tobytes())
        if system.charge:
            digest.update(f"charge {system.charge}".encode())
    return digest.hexdigest()


def measure_systems(
    systems: Sequence[AtomicSystem],
    measures: Sequence[Measure],
    store: CellStore | None = None,
    *,
    workers: int = 1,
    time_limit: float | None = None,
    progress: str | None = None,
) -> list[dict[str, Any]]:
    """Take measures of systems of one domain.

    Parameters
    ----------
    systems : sequence of AtomicSystem
        All crystals or all molecules, as the measures ask for.
    measures : sequence of Measure
        What to take.
    store : CellStore, optional
        Finished chunks are kept here and used again for the same systems and measures.
    workers : int
        Worker processes.
    time_limit : float, optional
        Seconds for one structure, in place of the measures' own.
    progress : str, optional
        Title of the progress bars; none without it.

    Returns
    -------
    list of dict
        For each system the results of all measures. A measure that raised, hung or crashed has
        a text with the reason in each of its columns.
    """
    store = store or CellStore()
    results: list[dict[str, Any]] = [{"reason": []} for _ in systems]
    for size in sorted({measure.chunk for measure in measures}, reverse=True):
        group = [measure for measure in measures if measure.chunk == size]
        for start in range(0, len(systems), size):
            chunk = systems[start : start + size]
            title = progress and f"{progress} {start + 1}-{start + len(chunk)} of {len(systems)}"
            found = _measure_chunk(chunk, group, store, workers, time_limit, title)
            for i in range(len(chunk)):
                for measure in group:
                    cells = dict(found[measure.name][i])
                    reason = cells.pop("reason", None)
                    results[start + i]["reason"] += [reason] if reason else []
                    results[start + i].update(cells)
    for result in results:
        result["reason"] = "; ".join(result["reason"]) or None
    return results


def _measure_chunk(
    chunk: Sequence[AtomicSystem],
    measures: Sequence[Measure],
    store: CellStore,
    workers: int,
    time_limit: float | None,
    title: str | None,
) -> dict[str, list[dict[str, Any]]]:
    systems_hash = fingerprint(chunk)
    keys = {measure.name: f"{measure.identity} {systems_hash}" for measure in measures}
    found: dict[str, list[Any]] = {}
    todo: list[tuple[Measure, int]] = []
    for measure in measures:
        if measure.missing:
            found[measure.name] = [dict.fromkeys(measure.columns, measure.missing)] * len(chunk)
            continue
        found[measure.name] = store.read(keys[measure.name]) or [None] * len(chunk)
        todo += [(measure, i) for i, kept in enumerate(found[measure.name]) if kept is None]
    if not todo:
        return found
    taken = {measure.name: measure for measure, _ in todo}
    outcomes = run_isolated(
        _apply,
        [(measure.function, chunk[i]) for measure, i in todo],
        time_limit=[time_limit or measure.time_limit for measure, _ in todo],
        workers=workers,
        prepare=functools.partial(
            _warm_up, [measure.function for measure in taken.values()], chunk[0].is_periodic
        ),
        progress=title,
    )
    late: list[tuple[Measure, int, Outcome]] = []
    for (measure, i), outcome in zip(todo, outcomes, strict=True):
        if outcome.timed_out:
            late.append((measure, i, outcome))
        else:
            found[measure.name][i] = _cells(measure, outcome)
    for name in taken:
        store.write(keys[name], found[name])
    for measure, i, outcome in late:  # told, and not kept
        found[measure.name][i] = _cells(measure, outcome)
    return found


def _cells(measure: Measure, outcome: Outcome) -> dict[str, Any]:
    if outcome.reason is None:
        return outcome.value
    return {
        **dict.fromkeys(measure.columns, f"{FAILED}{outcome.reason}"),
        "reason": f"{measure.name} {FAILED}{outcome.reason}" if measure.decides else None,
    }


def _apply(item: tuple[Callable[[AtomicSystem], dict[str, Any]], AtomicSystem]) -> dict[str, Any]:
    function, system = item
    return function(system)


def _warm_up(functions: Sequence[Callable[[AtomicSystem], object]], periodic: bool) -> None:
    """Call each function once on a sound structure: slow imports are not on its time limit."""
    if periodic:
        example = AtomicSystem(np.array([11, 17]), np.array([[0, 0, 0], [2, 2, 2]]), 4 * np.eye(3))
    else:
        water = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]
        example = AtomicSystem(np.array([8, 1, 1]), np.array(water))
    for function in functions:
        with contextlib.suppress(Exception):  # each structure will have it as its reason
            function(example)
