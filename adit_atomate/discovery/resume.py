"""Go on with a discovery that was cut off while it ran locally.

``run_locally`` itself cannot go on with a flow. The first job of a discovery has in its metadata,
which the job store keeps, what made the flow; so the flow can be made again, and what the store
has is not done again. FireWorks and jobflow-remote go on by themselves.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, cast

from jobflow import Flow, Job, Maker, Response, run_locally
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure

if TYPE_CHECKING:
    from jobflow import JobStore

    from adit_atomate.discovery.documents import ADiTDiscoveryDoc

METADATA = "adit_discovery"


def resumable(flow: Flow, maker: Maker, n: int | None) -> Flow:
    """Note in the metadata of a flow's first job what :func:`resume` needs to make it again."""
    jobs = _jobs(flow)
    jobs[0].metadata[METADATA] = {
        "maker": json.loads(json.dumps(maker, cls=MontyEncoder)),
        "n": n,
        "uuids": [job.uuid for job in jobs],
    }
    return flow


def resume(store: JobStore, uuid: str | None = None, **options: Any) -> ADiTDiscoveryDoc:
    """Go on with a local discovery flow from what its job store has; the result is the same.

    Jobs that finished are not run again: generation, comparisons, and each relaxation job of
    ``chunk_size`` structures. Jobs of a relaxation or DFT Maker that makes flows are.

    Parameters
    ----------
    store : JobStore
        Where the flow that was cut off kept its results.
    uuid : str, optional
        Of the flow's first job (``ADiT generate``, or the first of several); by default the latest.
    **options
        Of :func:`jobflow.run_locally`.

    Returns
    -------
    ADiTDiscoveryDoc
        The output of the flow.

    Raises
    ------
    ValueError
        If the store has no first job of a discovery, or not the structures that were given to it:
        then nothing is there to go on from.
    RuntimeError
        If the flow does not end now either.

    Examples
    --------
    >>> from adit_atomate import resume
    >>> document = resume(SETTINGS.JOB_STORE)  # doctest: +SKIP
    """
    store.connect()
    found = {"uuid": uuid} if uuid else {f"metadata.{METADATA}": {"$exists": True}}
    documents = list(store.query(found, properties=["uuid", "metadata", "completed_at"]))
    documents = [d for d in documents if METADATA in (d.get("metadata") or {})]
    if not documents:
        which = f"job {uuid} that starts a discovery" if uuid else "discovery to go on with"
        raise ValueError(f"the job store has no {which}: make a flow and run it")
    first = max(documents, key=lambda document: document["completed_at"])
    made = first["metadata"][METADATA]
    if made["n"] is None and not _is_kept(store, first["uuid"], 1):
        raise ValueError(
            f"the store has not the structures of job {first['uuid']}, which was killed as it "
            "stored them: make the flow again and run it"
        )
    flow = _again(made)
    for job in _jobs(flow):
        _skip_if_done(job)
    run_locally(flow, store=store, **options)
    try:
        output = store.get_output(flow.output.uuid, load=True)
    except ValueError as error:
        raise RuntimeError(f"the discovery did not end: {error}") from error
    return MontyDecoder().process_decoded(output)


def _again(made: dict[str, Any]) -> Flow:
    """Make the flow once more, with the uuids that its jobs had."""
    maker: Any = MontyDecoder().process_decoded(made["maker"])
    given = None
    if made["n"] is None:  # of no matter: the store has what the first job was given
        given = [Structure(Lattice.cubic(1.0), ["H"], [[0, 0, 0]])]
    flow = maker.make(n=made["n"], structures=given)
    text = json.dumps(flow, cls=MontyEncoder)
    for new, old in zip((job.uuid for job in _jobs(flow)), made["uuids"], strict=True):
        text = text.replace(new, old)
    return json.loads(text, cls=MontyDecoder)


def _jobs(flow: Flow | Job) -> list[Job]:
    """All jobs of a flow, in the order in which they were put into it."""
    if isinstance(flow, Job):
        return [flow]
    return [job for part in flow.jobs for job in _jobs(part)]


def _skip_if_done(job: Job) -> None:
    """Let a job, and those it goes on with, return at once if the store has its output."""
    run = job.run

    @functools.wraps(run)
    def run_or_skip(store: JobStore, *args: Any, **kwargs: Any) -> Response:
        if _is_kept(store, job.uuid, job.index):
            return Response()
        response = run(store, *args, **kwargs)
        for more in (response.replace, response.detour, response.addition):
            for child in [] if more is None else _jobs(cast(Flow, more)):
                _skip_if_done(child)
        return response

    job.run = run_or_skip  # type: ignore[method-assign]


def _is_kept(store: JobStore, uuid: str, index: int) -> bool:
    """Whether a store has the output of a job, with the data that jobflow stores after it."""
    try:
        kept = store.query_one({"uuid": uuid, "index": index}, properties=["output"], load=True)
    except KeyError:  # the job was killed between the two
        return False
    return kept is not None and kept.get("output") is not None
