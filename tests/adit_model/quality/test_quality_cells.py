import dataclasses

import measure_functions
import numpy as np
import pytest

from adit_model.quality.cells import CellStore, fingerprint, measure_systems
from adit_model.quality.measures import MEASURES, MORE_MEASURES, Measure
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE, AtomicSystem

SIZE = Measure("size", "molecule", ("size", "twice"), measure_functions.size, chunk=3)
TROUBLE = Measure(
    "trouble", "molecule", ("fine",), measure_functions.trouble, time_limit=3.0, decides=True
)
GEOMETRY = next(measure for measure in MEASURES if measure.name == "graph")


def chain(length, step=1.5):
    return AtomicSystem(np.full(length, 6), step * np.eye(length, 3) + np.arange(length)[:, None])


@pytest.fixture
def store(tmp_path):
    return CellStore(tmp_path / "cells")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_measure_that_raises_hangs_or_dies_loses_its_own_cell_only(store, workers):
    systems = [chain(n) for n in (1, 2, 6, 4, 5)]
    rows = measure_systems(systems, (TROUBLE, SIZE), store, workers=workers)
    assert [row["size"] for row in rows] == [1, 2, 6, 4, 5]
    assert rows[0]["fine"] is rows[4]["fine"] is True
    assert rows[1]["fine"] == "failed: ArithmeticError: two atoms"
    assert rows[2]["fine"] == "failed: no result within 3 s"
    assert rows[3]["fine"].startswith("failed: the worker process ended with signal 9")
    assert rows[1]["reason"] == "trouble failed: ArithmeticError: two atoms"
    assert rows[0]["reason"] is None


def test_finished_chunks_are_not_measured_again(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MEASURED", str(tmp_path / "measured"))

    def new_calls(systems, measures=(SIZE,)):
        (tmp_path / "measured").write_text("")
        rows = measure_systems(systems, measures, store)
        assert [row["twice"] for row in rows] == [2 * len(system) for system in systems]
        # one call for each worker that starts warms it up, on water
        return [int(n) for n in (tmp_path / "measured").read_text().split()]

    systems = [chain(n) for n in range(4, 12)]
    assert new_calls(systems[:6]) == [3, 4, 5, 6, 3, 7, 8, 9]
    assert new_calls(systems) == [3, 10, 11]
    assert new_calls(systems) == []
    changed = [chain(4, 1.6), *systems[1:]]
    assert new_calls(changed) == [3, 4, 5, 6]
    assert new_calls(systems, (dataclasses.replace(SIZE, revision=2),)) != []
    assert new_calls(systems, (SIZE, GEOMETRY)) == []  # another measure leaves this one alone


def test_what_ran_out_of_time_is_measured_again(store, monkeypatch, tmp_path):
    monkeypatch.setenv("MEASURED", str(tmp_path / "measured"))
    slow = dataclasses.replace(TROUBLE, function=measure_functions.slow_once, time_limit=0.5)
    systems = [chain(n) for n in (1, 2, 6)]
    first = measure_systems(systems, (slow,), store)
    assert [row["fine"] for row in first] == [
        True, "failed: ArithmeticError: two atoms", "failed: no result within 0.5 s"
    ]  # fmt: skip
    second = measure_systems(systems, (slow,), store)
    assert [row["fine"] for row in second] == [True, first[1]["fine"], True]
    assert second[2]["reason"] is None
    assert (tmp_path / "measured").read_text().split() == ["1", "2", "6", "6"]


def test_verdicts_are_kept_unless_one_ran_out_of_time(store):
    answers = iter([[0, "no result within 30 s"], [0, "ValueError: x"], [0, 1]])
    for expected in ("no result within 30 s", "ValueError: x", "ValueError: x"):
        assert store.verdicts("key", lambda: next(answers)) == [0, expected]


def test_a_kept_file_that_is_cut_off_is_measured_again(store):
    systems = [chain(2), chain(3)]
    first = measure_systems(systems, (SIZE,), store)
    (kept,) = store.folder.glob("*.json")
    kept.write_text(kept.read_text()[:-5])
    assert measure_systems(systems, (SIZE,), store) == first
    assert not list(store.folder.glob("*.partial"))


def test_the_fingerprint_is_of_elements_coordinates_cell_and_order():
    cell = np.diag([3.0, 4.0, 5.0])
    base = AtomicSystem(np.array([6, 7]), np.eye(2, 3), cell)
    others = [
        AtomicSystem(np.array([6, 8]), np.eye(2, 3), cell),
        AtomicSystem(np.array([6, 7]), np.eye(2, 3) + 1e-9, cell),
        AtomicSystem(np.array([6, 7]), np.eye(2, 3), 1.001 * cell),
        AtomicSystem(np.array([6, 7]), np.eye(2, 3)),
    ]
    prints = [fingerprint([system]) for system in (base, *others)]
    assert len(set(prints)) == 5
    assert fingerprint([base, others[0]]) != fingerprint([others[0], base])
    named = AtomicSystem(base.numbers, base.positions, base.cell, {"id": "another name"})
    assert fingerprint([named]) == prints[0]


def test_a_package_that_is_not_installed_is_the_reason_in_every_cell(store):
    absent = dataclasses.replace(SIZE, package="absent-package", module="absent_module")
    (row,) = measure_systems([chain(3)], (absent,), store)
    assert row["size"] == row["twice"]
    assert row["size"].startswith("not available: absent-package is not installed (pip install")
    assert not store.folder.exists()


def test_measures_have_names_and_columns_of_their_own():
    for domain in DOMAINS:
        measures = [m for m in MEASURES + MORE_MEASURES if m.domain == domain]
        names = [measure.name for measure in measures]
        columns = [column for measure in measures for column in measure.columns]
        assert names and len(set(names)) == len(names)
        assert len(set(columns)) == len(columns)
    both = {m.name for m in MEASURES if m.domain == CRYSTAL}
    assert both & {m.name for m in MEASURES if m.domain == MOLECULE} == {"plausible"}
