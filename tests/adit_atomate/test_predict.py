"""Makers that predict and complete: their jobs and documents."""

from __future__ import annotations

import numpy as np
import pytest
from jobflow import run_locally
from pymatgen.core import Lattice, Structure

from adit_atomate import ADiTCompleteMaker, ADiTPredictDoc, ADiTPredictMaker

SODIUM = Structure(Lattice.cubic(4.2), ["Na"] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]])


def result(job, job_store) -> ADiTPredictDoc:
    responses = run_locally(job, store=job_store, ensure_success=True)
    return responses[job.uuid][1].output


@pytest.mark.integration
def test_a_job_predicts(tiny_checkpoint, job_store, clean_dir):
    maker = ADiTPredictMaker(checkpoint=str(tiny_checkpoint), candidates=2, relax="none", known=1)
    found = result(maker.make("NaCl"), job_store)
    assert [s.reduced_formula for s in found.beside] == ["NaCl"]
    assert len(found.structures) == sum(row.rank is not None for row in found.rows)
    assert found.asked["condition"] == "crystal, NaCl"
    assert len(found.dropped) + sum(row.samples for row in found.rows) == 2


@pytest.mark.integration
def test_a_job_completes_a_structure(tiny_checkpoint, job_store, clean_dir):
    maker = ADiTCompleteMaker(checkpoint=str(tiny_checkpoint), add={"Cl": 2}, candidates=6)
    found = result(maker.make(SODIUM.to_ase_atoms()), job_store)
    assert found.asked["add"] == {"Cl": 2}
    assert len(found.dropped) + sum(row.samples for row in found.rows) == 6
    for structure in found.structures:
        assert np.abs(structure.frac_coords[:2] - SODIUM.frac_coords).max() < 1e-6


def test_mistakes_are_told_when_the_job_is_made(tiny_checkpoint):
    checkpoint = str(tiny_checkpoint)
    with pytest.raises(ValueError, match="18 atoms a unit"):
        ADiTPredictMaker(checkpoint=checkpoint).make("Na9Cl9")
    with pytest.raises(ValueError, match="needs a formula"):
        ADiTPredictMaker(checkpoint=checkpoint).make("Na-Cl")
    with pytest.raises(ValueError, match="3 atoms"):
        ADiTCompleteMaker(checkpoint=checkpoint, add="Cl").make(SODIUM)
    with pytest.raises(TypeError, match="add must be an integer"):
        ADiTCompleteMaker(checkpoint=checkpoint).make(SODIUM)
