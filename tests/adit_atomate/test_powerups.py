"""Each job goes to its worker, also the jobs that appear while a flow runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from jobflow import Flow, Maker, Response, job
from monty.json import MontyDecoder

from adit_atomate import ADiTGenerateMaker
from adit_atomate.powerups import (
    GPU_JOBS,
    _filters,
    assign_workers,
    fireworks_worker,
    remote_worker,
)


@dataclass
class AddMaker(Maker):
    """Two jobs that a CPU does."""

    name: str = "add"

    @job
    def make(self, value):
        return value + 1


@dataclass
class OwnGenerateMaker(ADiTGenerateMaker):
    """As a user would extend it."""

    name: str = "my own"


@dataclass
class OuterMaker(Maker):
    """A flow Maker, without a job of its own."""

    name: str = "outer"

    def make(self, value):
        return Flow([AddMaker().make(value)])


@job
def fan_out(depth, maker):
    """Make generations and additions, and the same once more."""
    jobs = [maker.make(n=1), AddMaker().make(1)]
    if depth > 1:
        jobs.append(fan_out(depth - 1, maker))
    return Response(replace=Flow(jobs, output=jobs[1].output))


@pytest.fixture(scope="module")
def maker(tiny_checkpoint) -> ADiTGenerateMaker:
    return ADiTGenerateMaker(checkpoint=str(tiny_checkpoint), check_validity=False)


def through_json(made):
    return MontyDecoder().process_decoded(json.loads(json.dumps(made.as_dict())))


def assigned(made, store):
    """(name, manager_config) of a job and of all jobs that follow from running it."""
    made = through_json(made)  # as a manager keeps it
    found = [(made.name, made.config.manager_config)]
    if made.name == "fan_out":
        for child in made.run(store).replace.jobs:
            found += assigned(child, store)
    return found


def test_jobs_of_a_flow(maker):
    jobs = [maker.make(n=1), AddMaker().make(1), fan_out(1, maker)]
    flow = Flow([Flow(jobs[:2]), jobs[2]])
    assert assign_workers(flow, gpu="a100", cpu="small") is flow
    names = [made.config.manager_config["worker"] for made in jobs]
    assert names == ["a100", "small", "small"]
    assert jobs[0].config.manager_config["_category"] == "a100"
    assert jobs[0].config.expose_store  # the rest of the configuration stays


def test_training_goes_to_the_gpu():
    from adit_atomate.training.stages import ADiTTrainDenoiserMaker

    functions = [f["function_filter"] for entry in GPU_JOBS for f in _filters(entry)]
    assert ADiTTrainDenoiserMaker._train in functions


def test_jobs_that_appear_later_go_to_their_own_worker(maker, job_store):
    made = fan_out(3, maker)
    assign_workers(made, gpu="a100", cpu="small")
    found = assigned(made, job_store)
    assert len(found) == 1 + 4 + 4 + 3  # jobflow adds one that stores the output
    assert sum(name == "ADiT generate" for name, _ in found) == 3
    for name, config in found:
        assert config["worker"] == ("a100" if name == "ADiT generate" else "small"), name


def test_without_the_assignment_they_would_follow_their_maker(maker, job_store):
    """What jobflow does by itself, and why the assignment switches that off."""
    made = fan_out(1, maker)
    made.config.manager_config = {"worker": "small"}
    assert {config["worker"] for _, config in assigned(made, job_store)} == {"small"}


def test_other_entries_stay_and_are_handed_down(maker, job_store):
    made = fan_out(1, maker)
    made.config.manager_config = {"priority": 3, "worker": "old", "_queueadapter": {"queue": "q"}}
    assign_workers(made, gpu="a100", cpu="small")
    assign_workers(made, gpu=remote_worker("h100"), cpu=remote_worker("small"))
    for name, config in assigned(made, job_store):
        expected = "h100" if name == "ADiT generate" else "small"
        assert config == {"priority": 3, "worker": expected}


def test_subclasses_and_names(maker):
    own = OwnGenerateMaker.from_dict({**maker.as_dict(), "name": "my own"})
    jobs = [own.make(n=1), replace(maker, name="renamed").make(n=1), AddMaker().make(1)]
    assign_workers(Flow(jobs), gpu="g", cpu="c")
    assert [made.config.manager_config["worker"] for made in jobs] == ["g", "g", "c"]
    assign_workers(jobs[2], gpu="g", cpu="c", gpu_jobs=["ad"])
    assert jobs[2].config.manager_config["worker"] == "g"
    assign_workers(jobs[2], gpu="g2", cpu="c", gpu_jobs=(*GPU_JOBS, AddMaker))
    assert jobs[2].config.manager_config["worker"] == "g2"


@pytest.mark.slow
def test_force_fields_can_go_to_the_gpu(maker):
    from atomate2.forcefields.jobs import ForceFieldRelaxMaker

    relax = ForceFieldRelaxMaker(force_field_name="CHGNet").make([])
    assign_workers(relax, gpu="g", cpu="c")
    assert relax.config.manager_config["worker"] == "c"
    assign_workers(relax, gpu="g", cpu="c", gpu_jobs=(*GPU_JOBS, ForceFieldRelaxMaker))
    assert relax.config.manager_config["worker"] == "g"


def test_workers_of_jobflow_remote(maker):
    """jobflow-remote reads worker and resources as its own set_run_config writes them."""
    pytest.importorskip("jobflow_remote")
    from jobflow_remote import set_run_config
    from jobflow_remote.jobs.data import get_initial_job_doc_dict
    from qtoolkit.core.data_objects import QResources

    resources = QResources(queue_name="gpu", processes=1, gpus_per_job=1, time_limit=3600)
    ours, theirs = maker.make(n=1), maker.make(n=1)
    assign_workers(ours, gpu=remote_worker("g", resources, "cuda"), cpu="c")
    set_run_config(theirs, worker="g", resources=resources, exec_config="cuda")
    assert ours.config.manager_config == theirs.config.manager_config
    document = get_initial_job_doc_dict(
        through_json(ours), [], "1", worker="other", exec_config=None, resources={}, priority=0
    )
    assert document["worker"] == "g"
    assert document["exec_config"] == "cuda"
    assert document["resources"]["gpus_per_job"] == 1


def test_workers_of_fireworks(maker, job_store):
    pytest.importorskip("fireworks")
    from fireworks import FWorker
    from jobflow.managers.fireworks import flow_to_workflow

    queue = {"queue": "gpu", "walltime": "02:00:00"}
    generate, add = maker.make(n=1), AddMaker().make(1)
    flow = Flow([generate, add])
    assign_workers(flow, gpu=fireworks_worker("gpu", queue=queue), cpu=fireworks_worker("cpu"))
    specs = {firework.name: firework.spec for firework in flow_to_workflow(flow, job_store).fws}
    assert specs["ADiT generate"]["_queueadapter"] == queue
    assert FWorker(category="gpu").query["spec._category"] == specs["ADiT generate"]["_category"]
    assert specs["add"]["_category"] == "cpu"
    assert "_queueadapter" not in specs["add"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpu": ""}, "gpu must be the name of a worker"),
        ({"cpu": {"resources": {}}}, "cpu must be the name of a worker"),
        (
            {"gpu_jobs": [3]},
            "gpu_jobs takes Maker classes, job functions and parts of job names, got 3",
        ),
        ({"gpu_jobs": [""]}, "gpu_jobs takes"),
        ({"gpu_jobs": [OuterMaker]}, "OuterMaker makes no job of its own"),
    ],
)
def test_bad_arguments_change_nothing(arguments, message):
    made = AddMaker().make(1)
    with pytest.raises((ValueError, TypeError), match=message):
        assign_workers(made, **{"gpu": "g", "cpu": "c", **arguments})
    assert made.config.manager_config == {}


def test_a_fireworks_worker_needs_a_name():
    with pytest.raises(ValueError, match="name a category or an fworker"):
        fireworks_worker(queue={"queue": "gpu"})


def test_light_jobs_and_relaxations_have_workers_of_their_own():
    from adit_atomate.discovery.calculate import calculate_chunk, read_chunk
    from adit_atomate.discovery.stages import ADiTNoveltyMaker, ADiTScreenMaker
    from adit_atomate.powerups import RELAX_JOBS

    def jobs():
        return [
            ADiTScreenMaker().make([], None),
            ADiTNoveltyMaker(reference="known").make([], None),
            read_chunk(AddMaker(), [], None, ""),
            calculate_chunk(AddMaker(), []),
            AddMaker().make(1),
        ]

    def workers(made):
        return [job.config.manager_config["worker"] for job in made]

    flow = assign_workers(Flow(jobs()), gpu="g", cpu="c", light="l")
    assert workers(flow.jobs) == ["l", "l", "l", "c", "c"]
    flow = assign_workers(Flow(jobs()), gpu="g", cpu="c", light="l", gpu_jobs=RELAX_JOBS)
    assert workers(flow.jobs) == ["l", "l", "l", "g", "c"]
    assert set(workers(assign_workers(Flow(jobs()), gpu="g", cpu="c").jobs)) == {"c"}
    with pytest.raises(ValueError, match="light must be the name of a worker"):
        assign_workers(AddMaker().make(1), gpu="g", cpu="c", light="")
