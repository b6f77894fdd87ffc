"""Any Maker on many structures: one that raises, diverges or is lost costs no other.

Makers that run an ASE calculator take many structures in one job, which loads the model once and
notes what each structure raises (a list handed to such a Maker itself ends with its first
exception); so does TorchSim, all at once. Other Makers get one job or flow for each structure. The
structures of a job that is lost (its process was killed, its output could not be stored) are tried
again one by one.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, cast
from uuid import UUID, uuid4, uuid5

from jobflow import CURRENT_JOB, Flow, Job, JobConfig, Maker, OnMissing, Response, job
from monty.json import jsanitize
from pymatgen.core import Molecule, Structure

from adit_atomate.discovery.documents import ADiTCalculation, ADiTResult
from adit_atomate.discovery.torchsim import relax_batch, runs_torchsim
from adit_atomate.task_documents import FAILED, no_output, read_calculation
from adit_model.quality.pool import run_isolated

logger = logging.getLogger(__name__)

ASE_DATA = ["trajectory", "ionic_steps"]
ANY_INPUT = JobConfig(on_missing_references=OnMissing.NONE)


def warn_if_missing(maker: Maker, field: str) -> None:
    """Warn if what a Maker runs is not installed here: it has to be where its jobs run.

    Parameters
    ----------
    maker : Maker
        Of atomate2 or like it.
    field : str
        Where it was given, for the message.
    """
    if missing := _missing(maker):
        logger.warning("%s: %s, here or where its jobs run", field, missing)


def _missing(maker: Maker) -> str | None:
    """Say what a Maker's engine lacks, for the engines that have an extra of this package."""
    from atomate2.ase.jobs import GFNxTBRelaxMaker

    from adit_model.quality.force_fields import FORCE_FIELDS

    module, extra = "tblite", "xtb"
    if not isinstance(maker, GFNxTBRelaxMaker):
        found = FORCE_FIELDS.get((_force_field(maker) or "").lower())
        if found is None:
            return None
        module, extra = found.module, found.name
    if find_spec(module) is not None:
        return None
    return f"{maker.name} needs {module}: pip install 'adit-atomate[{extra}]'"


def _force_field(maker: Maker) -> str | None:
    """Atomate2's name of a Maker's force field, None if it runs none of those."""
    if runs_torchsim(maker):
        return "SevenNet" if str(maker.model_type) == "SevenNetModel" else None  # type: ignore
    meta = getattr(maker, "calculator_meta", None)
    return str(meta.name) if meta is not None and type(meta).__name__ == "MLFF" else None


def _other_weights(maker: Maker) -> str | None:
    """Weights that a force field was given in place of atomate2's, by which its energies differ."""
    if _force_field(maker) is None:
        return None
    if runs_torchsim(maker):
        weights = str(maker.model_path)  # type: ignore[attr-defined]
        return weights if weights != "7net-0" else None
    own, usual = (m.calculator_kwargs for m in (maker, replace(maker, calculator_kwargs={})))  # type: ignore
    return str(own["model"]) if own.get("model") != usual.get("model") else None


def unknown_elements(maker: Maker, symbols: set[str]) -> list[str]:
    """Return those of the elements that a Maker's force field is known not to know."""
    from ase.data import atomic_numbers

    from adit_model.quality.force_fields import SUPPORTED

    if _force_field(maker) not in ("CHGNet", "SevenNet"):
        return []
    return sorted(symbol for symbol in symbols if atomic_numbers.get(symbol) not in SUPPORTED)


def runs_ase(maker: Maker) -> bool:
    """Whether a Maker runs an ASE calculator in the job's own process."""
    from atomate2.ase.jobs import AseMaker

    return isinstance(maker, AseMaker) and hasattr(type(maker).make, "original")


def takes_many(maker: Maker) -> bool:
    """Whether one job of a Maker takes many structures."""
    return runs_ase(maker) or runs_torchsim(maker)


def start_each(
    maker: Maker,
    structures: Sequence[Structure | Molecule],
    chunk_size: int,
    limits: dict[str, float | None] | None = None,
) -> Response:
    """Go on with jobs that run a Maker on each structure; :func:`end_each` reads what they give.

    Parameters
    ----------
    maker : Maker
        Makes a job or flow of one structure.
    structures : sequence of Structure or Molecule
        What to calculate.
    chunk_size : int
        Structures in each job, for Makers that :func:`takes_many`.
    limits : dict, optional
        ``time_limit`` and ``memory_limit`` of :func:`calculate_chunk`.
    """
    jobs, results = _run_each(maker, structures, chunk_size, maker.name, limits)
    output = {"started": time.time(), "results": results}
    if not jobs:
        return Response(output=output)
    return Response(replace=Flow(jobs, output=output, name=maker.name))


def end_each(fanned: dict[str, Any] | None, number: int) -> tuple[float, list[ADiTResult]]:
    """Say when calculations began, and give the result of each, in order of the structures.

    Parameters
    ----------
    fanned : dict or None
        Output of the job that went on by :func:`start_each`.
    number : int
        How many structures it started with.
    """
    if fanned is None:
        reason = "its calculation was never started: the log of the fan out job says why"
        lost = ADiTResult(calculation=ADiTCalculation(state=FAILED, reason=reason))
        return time.time(), [lost.model_copy(deep=True) for _ in range(number)]
    found: list[ADiTResult] = []
    for size, results in fanned["results"]:
        lost = ADiTResult(calculation=ADiTCalculation(state=FAILED, reason=no_output(None)))
        found += results or [lost.model_copy(deep=True) for _ in range(size)]
    return fanned["started"], found


def _run_each(
    maker: Maker,
    structures: Sequence[Any],
    chunk_size: int,
    label: str,
    limits: dict[str, float | None] | None,
) -> tuple[list[Job | Flow], list[tuple[int, Any]]]:
    """Jobs that calculate and read, and for each chunk its size and a reference to its results."""
    size = chunk_size if takes_many(maker) else 1
    chunks = [list(structures[i : i + size]) for i in range(0, len(structures), size)]
    jobs: list[Job | Flow] = []
    results: list[tuple[int, Any]] = []
    for i, chunk in enumerate(chunks, 1):
        part = f"{i}/{len(chunks)}"
        run: Job | Flow
        if takes_many(maker):
            run = calculate_chunk(maker, chunk, **(limits or {}))
            run.name = f"{label} {part}"
        else:
            run = maker.make(chunk[0])
            run.append_name(f" {part}", dynamic=False)
        if isinstance(run, Job):  # the same when the fan out is run again
            run.set_uuid(_uuid(f"{label} {part}"))
        uuid = run.uuid if isinstance(run, Job) else list(run.iterflow())[-1][0].uuid
        read = read_chunk(maker, chunk, run.output, uuid, limits)
        read.name = f"{label} read {part}"
        read.set_uuid(_uuid(read.name))
        jobs += [run, read]
        results.append((len(chunk), read.output))
    return jobs, results


def _uuid(name: str) -> str:
    """Uuid of a job that the running job goes on with: a function of that job and the name."""
    return str(uuid5(UUID(CURRENT_JOB.job.uuid), name)) if CURRENT_JOB.job else str(uuid4())


# jobflow-remote hands the failed job before a retry on as its parent.
@job(data=ASE_DATA, config=ANY_INPUT)
def calculate_chunk(
    maker: Maker,
    structures: list[Structure | Molecule],
    time_limit: float | None = None,
    memory_limit: float | None = None,
) -> list[dict[str, Any]]:
    """Run an ASE Maker on many structures, in a process that may be stopped; or TorchSim on all.

    The process loads the model once. One that is stopped at a limit, or ends for another reason,
    costs the structure it was at; another process goes on with the next.

    Parameters
    ----------
    maker : Maker
        Of an ASE calculator, or of TorchSim, which knows no limits.
    structures : list of Structure or Molecule
        What to calculate.
    time_limit, memory_limit : float or None
        Seconds for each structure, and gigabytes; with neither all is done in this process.

    Returns
    -------
    list of dict
        ``document``, None where there is none, with the ``reason``; ``seconds``.
    """
    if runs_torchsim(maker):
        return relax_batch(maker, cast(list[Structure], structures))
    calculate = _Calculation(maker)
    if time_limit is None and memory_limit is None:
        return [calculate(structure) for structure in structures]
    started = time.perf_counter()
    try:
        outcomes = run_isolated(
            functools.partial(_send, calculate),
            structures,
            time_limit=time_limit or threading.TIMEOUT_MAX,
            memory_limit=memory_limit,
            threads=None,
        )
    except ValueError as error:  # a Maker of a notebook or script
        logger.warning("%s runs without limits: %s", maker.name, error)
        return [calculate(structure) for structure in structures]
    results = []
    for structure, outcome in zip(structures, outcomes, strict=True):
        if outcome.reason is not None:
            reason = f"stopped: {outcome.reason}"
            logger.warning("%s of %s %s", maker.name, structure.formula, reason)
            seconds = time_limit if outcome.timed_out else None
            results.append({"document": None, "reason": reason, "seconds": seconds})
        else:
            results.append(outcome.value)
    logger.info(
        "%s: %s structures in %.0f s", maker.name, len(results), time.perf_counter() - started
    )
    return results


def _send(calculate: _Calculation, structure: Structure | Molecule) -> dict[str, Any]:
    """Calculate, and make the document what a job store keeps: a calculator does not pickle."""
    found = calculate(structure)
    return jsanitize(found, strict=True, enum_values=True, allow_bson=True)


class _Calculation:
    """What a process does with each structure; it keeps the Maker, and so the loaded model."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker

    def __call__(self, structure: Structure | Molecule) -> dict[str, Any]:
        maker = self.maker
        started = time.perf_counter()
        document = reason = None
        try:
            mine = for_molecule(maker, structure) if isinstance(structure, Molecule) else maker
            document = type(mine).make.original(mine, structure)  # type: ignore[attr-defined]
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, ImportError):
                reason = _missing(maker) or reason
            logger.warning("%s of %s failed: %s", maker.name, structure.formula, reason)
            # Nothing of a failure is carried over to the next.
            self.maker = cast(Maker, type(maker).from_dict(maker.as_dict()))
        seconds = time.perf_counter() - started
        return {"document": document, "reason": reason, "seconds": seconds}


def for_molecule(maker: Maker, molecule: Molecule) -> Maker:
    """Give a GFN-xTB Maker the charge and spin of a molecule, unless it sets them itself.

    atomate2 passes neither on, so that every molecule would be neutral and closed-shell.
    """
    from atomate2.ase.jobs import GFNxTBRelaxMaker

    if not isinstance(maker, GFNxTBRelaxMaker):
        return maker
    given = {key: value for key, value in maker.calculator_kwargs.items() if value is not None}
    own = {"charge": int(molecule.charge), "multiplicity": int(molecule.spin_multiplicity)}
    return replace(maker, calculator_kwargs={**own, **given})


@job(data=[["output"]], config=ANY_INPUT)
def read_chunk(
    maker: Maker,
    structures: list[Structure | Molecule],
    output: Any,
    uuid: str,
    limits: dict[str, float | None] | None = None,
) -> Any:
    """Read the results of a chunk; if it was lost, try its structures one by one.

    Parameters
    ----------
    maker : Maker
        What calculated.
    structures : list of Structure or Molecule
        Of the chunk.
    output : list of dict or object
        Output of :func:`calculate_chunk`; of other Makers, that of the job of one structure.
    uuid : str
        Of the job that calculated.
    limits : dict, optional
        Of :func:`calculate_chunk`.

    Returns
    -------
    list of ADiTResult
        One for each structure.
    """
    if output is None and len(structures) > 1:
        label = f"{maker.name} again"
        logger.warning("%s left no output: its structures are tried one by one", uuid)
        jobs, results = _run_each(maker, structures, 1, label, limits)
        join = join_results([reference for _, reference in results])
        join.name = f"{label} join"
        return Response(replace=Flow([*jobs, join], output=join.output, name=label))
    if output is None or not takes_many(maker):
        output = [{"document": output, "reason": None, "seconds": None}]
    read: list[ADiTResult] = []
    for part, structure in zip(output, structures, strict=True):
        if part["reason"] is not None:
            failed = ADiTCalculation(state=FAILED, reason=part["reason"], uuid=uuid)
            result = ADiTResult(calculation=failed)
        else:
            result = read_calculation(part["document"], structure, uuid)
        result.calculation.seconds = part["seconds"] or result.calculation.seconds
        if result.calculation.calculator and (weights := _other_weights(maker)):
            result.calculation.calculator += f" {weights}"
        read.append(result)
    return read


@job(data=[["output"]], config=ANY_INPUT)
def join_results(parts: list[list[ADiTResult] | None]) -> list[ADiTResult]:
    """Join lists of one result; what was lost once more has failed."""
    _, results = end_each({"started": 0.0, "results": [(1, part) for part in parts]}, len(parts))
    return results
