"""However a generation is divided into jobs, its samples are the same."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
from jobflow import Flow, job, run_locally

from adit_atomate import ADiTGenerateMaker, ADiTGenerateShardsMaker


@pytest.fixture(scope="module")
def maker(tiny_checkpoint) -> ADiTGenerateShardsMaker:
    generate = ADiTGenerateMaker(checkpoint=str(tiny_checkpoint), check_validity=False, seed=2)
    return ADiTGenerateShardsMaker(generate_maker=generate)


def run(flow, store):
    """Records and structures of all jobs, in order."""
    responses = run_locally(flow, store=store, ensure_success=True)
    documents = [responses[made.uuid][1].output for made in flow.jobs]
    structures = [structure for document in documents for structure in document.structures]
    records = [
        record.model_dump(exclude={"structure_index"})
        for document in documents
        for record in document.samples
    ]
    return records, structures


@pytest.mark.parametrize(
    "options",
    [{}, {"solver": "ancestral", "random_rotation": True}, {"num_atoms": [2, 3, 4, 5, 8, 3, 2, 5]}],
    ids=["default", "ancestral", "listed"],
)
def test_any_number_of_jobs_gives_the_same_samples(maker, job_store, options):
    generate = replace(maker.generate_maker, **options)
    found = {}
    for samples_per_job, number in ((8, 1), (5, 2), (3, 3)):
        flow = ADiTGenerateShardsMaker("shards", generate, samples_per_job).make(n=8)
        assert len(flow.jobs) == number
        found[number] = run(flow, job_store)
    records, structures = found[1]
    assert [record["index"] for record in records] == list(range(8))
    assert [record["domain"] for record in records] == ["crystal", "molecule"] * 4
    assert structures
    for number in (2, 3):
        assert found[number][0] == records
        assert len(found[number][1]) == len(structures)
        for ours, theirs in zip(found[number][1], structures, strict=True):
            np.testing.assert_array_equal(ours.cart_coords, theirs.cart_coords)
            np.testing.assert_array_equal(ours.atomic_numbers, theirs.atomic_numbers)
            assert ours.properties == theirs.properties
            if hasattr(ours, "lattice"):
                np.testing.assert_array_equal(ours.lattice.matrix, theirs.lattice.matrix)


def test_flows_can_go_on_where_another_ended(maker, job_store):
    records, _ = run(replace(maker, samples_per_job=6).make(n=6), job_store)
    rest, _ = run(replace(maker, samples_per_job=2).make(n=3, first_index=3), job_store)
    assert rest == records[3:]


def test_output_lists_the_jobs_for_others(maker, job_store):
    @job(name="count")
    def count(lists):
        return [len(structures) for structures in lists]

    shards = replace(maker, samples_per_job=2).make(n=5)
    counting = count([shard.structures for shard in shards.output])
    responses = run_locally(Flow([shards, counting]), store=job_store, ensure_success=True)
    expected = [len(responses[made.uuid][1].output.structures) for made in shards.jobs]
    assert responses[counting.uuid][1].output == expected
    assert len(expected) == 3


def test_documents_say_which_part_they_are(maker, job_store):
    flow = replace(maker, samples_per_job=2).make(n=5)
    assert [made.name for made in flow.jobs] == [f"ADiT generate {i}/3" for i in (1, 2, 3)]
    responses = run_locally(flow, store=job_store, ensure_success=True)
    requests = [responses[made.uuid][1].output.request for made in flow.jobs]
    assert [(r.first_index, r.n) for r in requests] == [(0, 2), (2, 2), (4, 1)]


@pytest.mark.parametrize(
    ("n", "samples_per_job", "options", "message"),
    [
        (0, 2, {}, "n must be a positive integer, got 0"),
        (4, 0, {}, "samples_per_job must be a positive integer, got 0"),
        (4, 2.0, {}, "samples_per_job must be a positive integer, got 2.0"),
        (4, 2, {"num_atoms": [2, 3]}, "num_atoms lists 2 atom counts for 4 samples"),
        (4, 2, {"domain": "protein"}, "domain must be one of"),
    ],
)
def test_bad_arguments_make_no_flow(maker, n, samples_per_job, options, message):
    generate = replace(maker.generate_maker, **options)
    with pytest.raises((ValueError, TypeError), match=message):
        ADiTGenerateShardsMaker("shards", generate, samples_per_job).make(n=n)


def test_settings_of_the_jobs_can_be_updated(maker):
    changed = maker.update_kwargs({"seed": 7}, class_filter=ADiTGenerateMaker)
    assert changed.generate_maker.seed == 7
    assert ADiTGenerateShardsMaker.from_dict(changed.as_dict()) == changed


def test_every_option_is_documented():
    for option in fields(ADiTGenerateShardsMaker):
        assert option.name in ADiTGenerateShardsMaker.__doc__


def test_jobs_that_draw_on_have_indices_of_their_own(maker, job_store):
    options = {"check_validity": True, "condition": "crystal, atoms=2", "max_tries": 2}
    generate = replace(maker.generate_maker, only_holding=True, **options)
    flow = ADiTGenerateShardsMaker("shards", generate, 1).make(n=2, first_index=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer may hold
        responses = run_locally(flow, store=job_store, ensure_success=True)
    documents = [responses[made.uuid][1].output for made in flow.jobs]
    assert [document.request.first_index for document in documents] == [1, 3]
    for document in documents:
        assert len(document.samples) == len(document.structures) <= 1
        assert len(document.samples) <= document.tried <= 2
        assert all(record.plausible and record.holds["num_atoms"] for record in document.samples)
        assert all(rate.share == 1 for rate in document.holds.values())
    with pytest.raises(ValueError, match="only_holding asks for plausible samples"):
        replace(generate, check_validity=False).make(n=1)
