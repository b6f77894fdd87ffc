"""Changes to finished flows: which jobs run on a GPU and which on CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, TypeVar

from jobflow import Flow, Job, Maker

from adit_atomate.generate import ADiTGenerateMaker
from adit_atomate.training.stages import ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker

FlowOrJob = TypeVar("FlowOrJob", Flow, Job)

# What jobflow-remote (first three) and FireWorks read from a job's manager_config.
WORKER_KEYS = ("worker", "resources", "exec_config", "_fworker", "_category", "_queueadapter")
GPU_JOBS: tuple[type[Maker] | str, ...] = (
    ADiTGenerateMaker,
    ADiTTrainAutoencoderMaker,
    ADiTTrainDenoiserMaker,
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
        What its queue is asked for; by default what the configuration says.
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
    gpu_jobs: Sequence[type[Maker] | str] = GPU_JOBS,
) -> FlowOrJob:
    """Send generation and training to a GPU worker and everything else to a CPU worker.

    This holds for jobs that other jobs make while they run, too: each job goes where it belongs,
    not where the one that made it ran, which ``jobflow_remote.set_run_config`` leaves to jobflow.
    Call it on the finished flow, for either manager; an earlier assignment is replaced, other
    entries of the jobs' ``manager_config`` stay and are handed down.

    Parameters
    ----------
    flow : Flow or Job
        Is changed in place.
    gpu, cpu : str or dict
        A name, which is jobflow-remote's worker and FireWorks' category; or
        :func:`remote_worker` or :func:`fireworks_worker`, which can say more.
    gpu_jobs : sequence of Maker classes and str
        Which jobs go to the GPU: those of a Maker, or with a part of their name. For force fields
        on the GPU as well: ``(*GPU_JOBS, ForceFieldRelaxMaker)``.

    Returns
    -------
    Flow or Job
        The same one.

    Raises
    ------
    ValueError, TypeError
        If a worker has no name, or an entry of ``gpu_jobs`` is not of these kinds.

    Examples
    --------
    >>> from adit_atomate import ADiTGenerateMaker
    >>> job = assign_workers(ADiTGenerateMaker().make(n=8), gpu="a100", cpu="cpu")
    >>> job.config.manager_config
    {'worker': 'a100', '_category': 'a100'}
    """
    workers = {"gpu": _manager_config("gpu", gpu), "cpu": _manager_config("cpu", cpu)}
    filters = [selector for entry in gpu_jobs for selector in _filters(entry)]
    for job in [flow] if isinstance(flow, Job) else [made for made, _ in flow.iterflow()]:
        kept = {k: v for k, v in job.config.manager_config.items() if k not in WORKER_KEYS}
        _update(job, {**kept, **workers["cpu"]})
        for selector in filters:
            _update(job, {**kept, **workers["gpu"]}, **selector)
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


def _filters(entry: type[Maker] | str) -> Iterator[dict[str, Any]]:
    """Arguments of ``update_config`` that select the jobs of one entry."""
    if isinstance(entry, str) and entry:
        yield {"name_filter": entry}
    elif isinstance(entry, type) and issubclass(entry, Maker):
        functions = list(_job_functions(entry))
        if not functions:
            raise ValueError(
                f"{entry.__name__} makes no job of its own: name the Makers of its jobs in gpu_jobs"
            )
        for function in functions:
            yield {"function_filter": function}
    else:
        raise TypeError(f"gpu_jobs takes Maker classes and parts of job names, got {entry!r}")


def _job_functions(maker: type[Maker]) -> Iterator[Callable]:
    """Methods under jobflow's ``@job``, which keeps the original function."""
    for name in dir(maker):
        method = getattr(maker, name, None)
        if callable(method) and hasattr(method, "original"):
            yield method
