"""Changes to finished flows: which jobs run on a GPU and which on CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from jobflow import Flow, Job, Maker

from adit_atomate.discovery.calculate import calculate_chunk, join_results, read_chunk
from adit_atomate.discovery.choose import ADiTDFTStageMaker, add_results, choose_candidates
from adit_atomate.discovery.flow import take_structures
from adit_atomate.discovery.rank import ADiTHullMaker, ADiTStrainMaker
from adit_atomate.discovery.relax import ADiTRelaxStageMaker
from adit_atomate.discovery.stages import ADiTNoveltyMaker, ADiTScreenMaker, ADiTUniquenessMaker
from adit_atomate.generate import ADiTGenerateMaker
from adit_atomate.training.stages import ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker

FlowOrJob = TypeVar("FlowOrJob", Flow, Job)

# What jobflow-remote (first three) and FireWorks read from a job's manager_config.
WORKER_KEYS = ("worker", "resources", "exec_config", "_fworker", "_category", "_queueadapter")
Jobs = type[Maker] | Callable | str
GPU_JOBS: tuple[Jobs, ...] = (
    ADiTGenerateMaker,
    ADiTTrainAutoencoderMaker,
    ADiTTrainDenoiserMaker,
)
# Relaxations of a discovery by a force field or xTB, many structures in a job
RELAX_JOBS: tuple[Jobs, ...] = (calculate_chunk,)
# Jobs of one core and seconds to minutes: checks, comparisons, ranking, reading results
LIGHT_JOBS: tuple[Jobs, ...] = (
    *(ADiTScreenMaker, ADiTUniquenessMaker, ADiTNoveltyMaker, ADiTHullMaker, ADiTStrainMaker),
    *(ADiTRelaxStageMaker, ADiTDFTStageMaker),
    *(choose_candidates, add_results, read_chunk, join_results, take_structures, "store_inputs"),
)


def remote_worker(
    name: str,
    resources: dict[str, Any] | Any | None = None,
    exec_config: str | Any | None = None,
) -> dict[str, Any]:
    """Describe where jobs are to run with jobflow-remote.

    Parameters
    ----------
    name : str
        A worker of the project's configuration.
    resources : dict or qtoolkit.core.data_objects.QResources, optional
        What its queue is asked for; by default what the configuration says. jobflow-remote puts
        them in place of all that the configuration says: repeat account, cores and time.
    exec_config : str or jobflow_remote.config.base.ExecutionConfig, optional
        Modules and commands before each job; by default what the configuration says.

    Returns
    -------
    dict
        For ``gpu`` and ``cpu`` of :func:`assign_workers`.
    """
    config = {"worker": name, "resources": resources, "exec_config": exec_config}
    return {key: value for key, value in config.items() if value is not None}


def fireworks_worker(
    category: str | None = None,
    *,
    fworker: str | None = None,
    queue: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe where jobs are to run with FireWorks.

    Parameters
    ----------
    category : str, optional
        Jobs run on workers with this ``category`` in their ``my_fworker.yaml``.
    fworker : str, optional
        Jobs run on the worker of this ``name``.
    queue : dict, optional
        Values for the worker's ``my_qadapter.yaml``, as ``{"queue": "gpu", "walltime":
        "02:00:00"}``; FireWorks takes them in reservation mode (``qlaunch -r``).

    Returns
    -------
    dict
        For ``gpu`` and ``cpu`` of :func:`assign_workers`.

    Raises
    ------
    ValueError
        If neither a category nor a worker is named.
    """
    if category is None and fworker is None:
        raise ValueError("name a category or an fworker: without, any worker takes the jobs")
    config = {"_category": category, "_fworker": fworker, "_queueadapter": queue}
    return {key: value for key, value in config.items() if value is not None}


def assign_workers(
    flow: FlowOrJob,
    *,
    gpu: str | dict[str, Any],
    cpu: str | dict[str, Any],
    light: str | dict[str, Any] | None = None,
    gpu_jobs: Sequence[Jobs] = GPU_JOBS,
    light_jobs: Sequence[Jobs] = LIGHT_JOBS,
) -> FlowOrJob:
    """Send generation and training to a GPU worker, and other jobs to a CPU or a light worker.

    This holds for jobs that other jobs make while they run, too: each job goes where it belongs,
    not where the one that made it ran, which ``jobflow_remote.set_run_config`` leaves to jobflow.
    Call it on the finished flow, for either manager; an earlier assignment is replaced, other
    entries of the jobs' ``manager_config`` stay and are handed down.

    Parameters
    ----------
    flow : Flow or Job
        Is changed in place.
    gpu, cpu, light : str or dict
        A name, which is jobflow-remote's worker and FireWorks' category; or
        :func:`remote_worker` or :func:`fireworks_worker`, which can say more. Without ``light``
        light jobs go to ``cpu``.
    gpu_jobs, light_jobs : sequence of Maker classes, job functions and str
        Which jobs go to these: those of a Maker, of a function, or with a part of their name. For
        relaxations of a discovery on the GPU as well: ``(*GPU_JOBS, *RELAX_JOBS)``.

    Returns
    -------
    Flow or Job
        The same one.

    Raises
    ------
    ValueError, TypeError
        If a worker has no name, or an entry of ``gpu_jobs`` or ``light_jobs`` is not of these
        kinds.

    Examples
    --------
    >>> from adit_atomate import ADiTGenerateMaker
    >>> job = assign_workers(ADiTGenerateMaker().make(n=8), gpu="a100", cpu="cpu")
    >>> job.config.manager_config
    {'worker': 'a100', '_category': 'a100'}
    """
    usual = _manager_config("cpu", cpu)
    chosen = [(_manager_config("gpu", gpu), list(_all_filters("gpu_jobs", gpu_jobs)))]
    if light is not None:  # first: what is in both lists goes to the GPU
        named = list(_all_filters("light_jobs", light_jobs))
        chosen.insert(0, (_manager_config("light", light), named))
    for job in [flow] if isinstance(flow, Job) else [made for made, _ in flow.iterflow()]:
        kept = {k: v for k, v in job.config.manager_config.items() if k not in WORKER_KEYS}
        _update(job, {**kept, **usual})
        for worker, filters in chosen:
            for selector in filters:
                _update(job, {**kept, **worker}, **selector)
    return flow


def _update(job: Job, manager_config: dict[str, Any], **selector: Any) -> None:
    job.update_config(
        {
            "manager_config": deepcopy(manager_config),
            # Otherwise jobs made at run time get the configuration of the job that made them.
            "pass_manager_config": False,
            "response_manager_config": {},
        },
        dynamic=True,
        **selector,
    )


def _manager_config(argument: str, worker: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(worker, str) and worker:
        return {"worker": worker, "_category": worker}
    if isinstance(worker, dict) and {"worker", "_category", "_fworker"} & worker.keys():
        return worker
    raise ValueError(
        f"{argument} must be the name of a worker, remote_worker(...) or fireworks_worker(...), "
        f"got {worker!r}"
    )


def _all_filters(name: str, entries: Sequence[Jobs]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield from _filters(entry, name)


def _filters(entry: Jobs, name: str = "gpu_jobs") -> Iterator[dict[str, Any]]:
    """Arguments of ``update_config`` that select the jobs of one entry."""
    if isinstance(entry, str) and entry:
        yield {"name_filter": entry}
    elif isinstance(entry, type) and issubclass(entry, Maker):
        functions = list(_job_functions(entry))
        if not functions:
            raise ValueError(
                f"{entry.__name__} makes no job of its own: name the Makers of its jobs in {name}"
            )
        for function in functions:
            yield {"function_filter": function}
    elif callable(entry) and hasattr(entry, "original"):
        yield {"function_filter": entry}
    else:
        raise TypeError(
            f"{name} takes Maker classes, job functions and parts of job names, got {entry!r}"
        )


def _job_functions(maker: type[Maker]) -> Iterator[Callable]:
    """Methods under jobflow's ``@job``, which keeps the original function."""
    for name in dir(maker):
        method = getattr(maker, name, None)
        if callable(method) and hasattr(method, "original"):
            yield method
