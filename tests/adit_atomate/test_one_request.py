"""The same request is the same samples, whoever asks."""

import json

import numpy as np
import pytest
from jobflow import run_locally

from adit_atomate import ADiTGenerateMaker, ADiTGenerateShardsMaker
from adit_model import ADiT
from adit_model.cli.main import main
from adit_model.conditions.condition import Condition
from adit_model.notebook.sampler import ADiTSampler
from adit_model.sampling.request import Request

TEXT = "crystal, atoms=4-12"


@pytest.fixture(scope="module")
def samples():
    model = ADiT.load("default", device="cpu")
    made = model.sample(40, TEXT, seed=5, num_steps=2, progress=False)
    assert [s.index for s in made if s.system is None] == []
    return made


def same(samples, systems):
    assert len(samples) == len(systems)
    for sample, (numbers, positions, cell) in zip(samples, systems, strict=True):
        np.testing.assert_array_equal(sample.system.numbers, numbers)
        np.testing.assert_allclose(sample.system.positions, positions, atol=1e-8)
        np.testing.assert_allclose(sample.system.cell, cell, atol=1e-8)


def test_object_and_short_forms(samples):
    model = ADiT.load("default", device="cpu")
    condition = Condition(domain="crystal", num_atoms=(4, 12))
    requests = [
        Request(40, condition, 5, sampling={"num_steps": 2}),
        Request.of(40, domain="crystal", num_atoms=(4, 12), seed=5, num_steps=2),
    ]
    assert requests[0] == requests[1]
    again = model.sample(requests[0], progress=False)
    same(samples, [(s.system.numbers, s.system.positions, s.system.cell) for s in again])
    assert [s.condition for s in again] == [condition] * 40
    assert all(s.holds == {"domain": True, "num_atoms": True} for s in again)


def test_makers(samples, job_store):
    maker = ADiTGenerateMaker(
        condition=TEXT, seed=5, num_steps=2, check_validity=False, device="cpu"
    )
    job = maker.make(n=40)
    responses = run_locally(job, store=job_store, ensure_success=True)
    structures = responses[job.uuid][1].output.structures
    same(samples, [(s.atomic_numbers, s.cart_coords, s.lattice.matrix) for s in structures])
    flow = ADiTGenerateShardsMaker(generate_maker=maker, samples_per_job=15).make(n=40)
    responses = run_locally(flow, store=job_store, ensure_success=True)
    structures = [s for job in flow.jobs for s in responses[job.uuid][1].output.structures]
    same(samples, [(s.atomic_numbers, s.cart_coords, s.lattice.matrix) for s in structures])


def test_command_line(samples, tmp_path):
    import ase.io

    options = ["--condition", TEXT, "--seed", "5", "--num-steps", "2", "--device", "cpu"]
    out = tmp_path / "out"
    quiet = ["--no-check", "--quiet", "--out", str(out)]
    assert main(["generate", "-n", "40", *options, *quiet]) == 0
    made = ase.io.read(out / "samples.extxyz", index=":")
    same(samples, [(a.numbers, a.positions, a.cell.array) for a in made])
    run = json.loads((out / "run.json").read_text())
    assert Request.from_dict(run["request"]).condition == samples[0].condition
    assert {atoms.info["condition"] for atoms in made} == {TEXT}


def test_notebook(samples):
    sampler = ADiTSampler(seed=5, num_steps=2, device="cpu", check=False, progress=False)
    made = sampler.sample(40, TEXT)
    same(samples, [(a.numbers, a.positions, a.cell.array) for a in made])
    streamed = sorted(sampler.iter_sample(40, TEXT, first_index=0), key=lambda a: a.info["index"])
    same(samples, [(a.numbers, a.positions, a.cell.array) for a in streamed])
