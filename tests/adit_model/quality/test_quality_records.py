from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase.build import bulk, molecule

from adit_model.conditions.condition import Condition
from adit_model.quality.records import (
    DomainCounts,
    check_systems,
    count_records,
    record_samples,
)
from adit_model.sampling.sample import Sample
from adit_model.systems import AtomicSystem


def sample(index: int, system: AtomicSystem, reason: str | None = None) -> Sample:
    kept = system if reason is None else None
    decoded = {"numbers": system.numbers}
    return Sample(index, 0, system.domain, len(system), kept, reason, decoded)


def rock_salt(a: float) -> AtomicSystem:
    return AtomicSystem.from_atoms(bulk("NaCl", "rocksalt", a=a))


def two_waters() -> AtomicSystem:
    water = molecule("H2O")
    far = water.copy()
    far.translate([8, 0, 0])
    return AtomicSystem.from_atoms(water + far)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [
        sample(0, rock_salt(5.64)),
        sample(1, AtomicSystem.from_atoms(molecule("CH3CH2OH"))),
        sample(2, rock_salt(0.98)),
        sample(3, two_waters()),
        sample(4, rock_salt(5.64), "angles too small"),
        sample(5, AtomicSystem.from_atoms(bulk("NaCl", "cesiumchloride", a=4) * (2, 1, 1))),
        sample(6, AtomicSystem(np.array([11, 11, 17]), np.eye(3) * 3, np.eye(3) * 6)),
    ]


@pytest.fixture(scope="module")
def records(samples):
    return record_samples(samples)


def test_each_sample_is_judged_by_its_domain(records):
    salt, ethanol, dense, waters, undecoded, twice, charged = records
    assert (salt.plausible, salt.smact_valid, salt.structural, salt.compositional) == (True,) * 4
    assert salt.reason is None
    assert salt.bonded is salt.smiles is None
    assert (ethanol.plausible, ethanol.smiles, ethanol.closed_shell) == (True, "CCO", True)
    assert ethanol.structural is ethanol.compositional is ethanol.smact_valid is None
    assert (dense.plausible, dense.structural, dense.compositional) == (False, False, True)
    assert "cubic angstrom an atom" in dense.reason
    assert (waters.plausible, waters.bonded, waters.connected) == (False, True, False)
    assert "two pieces" in waters.reason
    assert (undecoded.decoded, undecoded.plausible) == (False, False)
    assert undecoded.reason == "angles too small"
    assert undecoded.structural is undecoded.compositional is None
    assert (twice.formula, twice.num_atoms, twice.plausible) == (salt.formula, 4, True)
    assert (charged.structural, charged.compositional, charged.smact_valid) == (True, False, False)
    assert charged.reason is None and charged.plausible  # what SMACT finds is no reason


def test_order_and_names_are_kept(samples):
    records = record_samples(samples[::-1], check=False)
    assert [record.index for record in records] == [6, 5, 4, 3, 2, 1, 0]
    assert [record.domain for record in records] == [s.domain for s in samples[::-1]]


def test_without_checks_only_what_is_missing_is_not_plausible(samples):
    records = record_samples(samples, check=False)
    assert [record.plausible for record in records] == [None] * 4 + [False] + [None] * 2
    counts = count_records(records)
    assert counts["crystal"] == DomainCounts(requested=5, decoded=4, plausible=None)
    assert str(counts["crystal"]) == "5 requested, 4 decoded, not checked"


def test_what_was_asked_goes_along(samples):
    asked = Condition.from_text("crystal, atoms=2")
    held = dataclasses.replace(samples[0], condition=asked, holds={"atoms": True})
    (record,) = record_samples([held], check=False)
    assert (record.condition, record.holds) == (str(asked), {"atoms": True})
    assert record_samples(samples[:1], check=False)[0].holds == {}


def test_the_document_of_a_sample_is_its_record(records):
    from adit_atomate.documents import ADiTSampleRecord

    document = ADiTSampleRecord(**records[1].model_dump(), structure_index=0)
    assert {name: getattr(document, name) for name in type(records[1]).model_fields} == dict(
        records[1]
    )


def test_checks_of_many_processes_and_out_of_time(samples):
    systems = [sample.system for sample in samples if sample.system is not None]
    verdicts = check_systems(systems, workers=2)
    assert [verdict.plausible for verdict in verdicts] == [True, True, False, False, True, True]
    numbers = np.array([24, 25, 26, 44, 53, 7] + [16] * 50)  # SMACT tries for seconds
    positions = 3.0 * np.array(list(np.ndindex(4, 4, 4)))[: len(numbers)]
    slow = AtomicSystem(numbers, positions, 12 * np.eye(3))
    (verdict,) = check_systems([slow], time_limit=0.5)
    assert (verdict.smact_valid, verdict.structural, verdict.compositional) == (False, True, False)


def test_counts(samples, records):
    counts = count_records(records)
    assert counts["crystal"] == DomainCounts(requested=5, decoded=4, plausible=3)
    assert counts["molecule"] == DomainCounts(requested=2, decoded=2, plausible=1)
    assert str(counts["molecule"]) == "2 requested, 2 decoded, 1 plausible (50.0 %)"
    assert list(count_records(records[1:2])) == ["molecule"]


def test_nothing_to_record():
    assert record_samples([]) == []
    assert count_records([]) == {}
