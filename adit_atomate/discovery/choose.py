"""The last stages of the discovery flow: choose the candidates, calculate them, tell of all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobflow import Flow, Job, JobConfig, Maker, OnMissing, Response, job
from pymatgen.core import Molecule, Structure

from adit_atomate.discovery.documents import (
    KEPT,
    NOT_AMONG_THE_BEST,
    NOT_DECODED,
    ADiTCalculation,
    ADiTCandidateDoc,
    ADiTCrystalCandidateDoc,
    ADiTDiscoveryDoc,
    ADiTMoleculeCandidateDoc,
    ADiTRankingRow,
    ADiTSampleFate,
    ADiTStageTiming,
)
from adit_atomate.discovery.engines import check_engine
from adit_atomate.discovery.rank import rank
from adit_atomate.discovery.relax import ASE_DATA, attempt, runs_ase
from adit_atomate.discovery.stages import flatten, open_samples, pending, structure_of
from adit_atomate.task_documents import (
    FAILED,
    SUCCESSFUL,
    final_structure,
    last_document,
    read_calculation,
)

DISCOVERY_DATA = [["output", "samples"], ["output", "candidates"]]
ANY_INPUT = JobConfig(on_missing_references=OnMissing.NONE)
FUNNEL = {  # what is left after a stage
    "validity": "valid",
    "uniqueness": "unique",
    "novelty": "novel",
    "relaxation": "relaxed",
    "uniqueness, relaxed": "unique, relaxed",
    "novelty, relaxed": "novel, relaxed",
}
DFT = "DFT"


@job(name="ADiT candidates", output_schema=ADiTDiscoveryDoc, data=DISCOVERY_DATA)
def choose_candidates(
    sources: list[dict[str, Any]],
    generated: list[Any],
    structures: list[Any],
    samples: list[Any],
    stages: dict[str, dict[str, Any]],
    keep: int | None,
) -> ADiTDiscoveryDoc:
    """Rank the samples that came through all stages, keep the best, and count the others.

    Parameters
    ----------
    sources : list of dict
        Of each generating job: ``uuid``; ``settings``, ``checkpoint``, ``checkpoint_hash`` and
        ``timings`` unless the structures were given.
    generated, structures, samples : list
        The structures as generated and as they are now, and the samples; see
        :mod:`adit_atomate.discovery.stages`.
    stages : dict
        Of each stage: ``uuid``, ``timing``, ``details``.
    keep : int or None
        How many candidates; None keeps all.
    """
    started = time.time()
    first, last = flatten(generated), flatten(structures)
    opened = open_samples(samples)
    uuids = {stage: values["uuid"] for stage, values in stages.items()}
    for sample in opened:
        sample.candidate_id = f"{sources[0]['uuid']}-{sample.index}"
        sample.job_uuids = {"generate": sources[0]["uuid"], **uuids, **sample.job_uuids}
    ranked = rank(pending(opened))
    for place, sample in enumerate(ranked, 1):
        sample.rank = place
        if keep is None or place <= keep:
            sample.fate = KEPT
        else:
            sample.fate = NOT_AMONG_THE_BEST
            sample.reason = f"rank {place} of {len(ranked)}, {keep} are kept"
    kept = [sample for sample in ranked if sample.fate == KEPT]
    provenance = _provenance(sources[0])
    candidates = [
        _candidate(s, structure_of(s, first), structure_of(s, last), provenance) for s in kept
    ]
    timings = _timings(sources, stages, len(opened))
    timings.append(
        ADiTStageTiming(
            stage="candidates",
            started_at=started,
            seconds=time.time() - started,
            num_in=len(ranked),
            num_out=len(kept),
        )
    )
    domains = {sample.domain for sample in opened}
    document = ADiTDiscoveryDoc(
        n=len(opened),
        domain=" and ".join(sorted(domains)),
        funnel=_funnel(opened, timings),
        fates=dict(Counter(sample.fate for sample in opened)),
        ranking=[_row(candidate) for candidate in candidates],
        candidates=candidates,
        samples=sorted(opened, key=lambda sample: sample.index),
        timings=timings,
        seconds=_seconds(timings),
        details={stage: values["details"] for stage, values in stages.items()},
        stage_uuids={"generation": sources[0]["uuid"], **uuids},
    )
    print(document.summary(), flush=True)
    return document


def _provenance(source: Mapping[str, Any]) -> dict[str, Any]:
    settings = source.get("settings")
    seed = settings.get("seed") if isinstance(settings, dict) else getattr(settings, "seed", None)
    return {
        "seed": seed,
        "checkpoint": source.get("checkpoint"),
        "checkpoint_hash": source.get("checkpoint_hash"),
    }


def _candidate(
    sample: ADiTSampleFate,
    generated: Structure | Molecule,
    relaxed: Structure | Molecule,
    provenance: Mapping[str, Any],
) -> ADiTCrystalCandidateDoc | ADiTMoleculeCandidateDoc:
    values = {**sample.model_dump(), **provenance, "generated": generated}
    if isinstance(relaxed, Molecule):
        return ADiTMoleculeCandidateDoc.from_molecule(relaxed, molecule=relaxed, **values)
    return ADiTCrystalCandidateDoc.from_structure(relaxed, structure=relaxed, **values)


def _row(candidate: ADiTCandidateDoc) -> ADiTRankingRow:
    names = set(ADiTRankingRow.model_fields) - {"dft_state"}
    values = {name: getattr(candidate, name) for name in names}
    return ADiTRankingRow(**values, dft_state=candidate.dft and candidate.dft.state)


def _timings(
    sources: Sequence[Mapping[str, Any]], stages: Mapping[str, Mapping[str, Any]], n: int
) -> list[ADiTStageTiming]:
    timings = []
    for stage, values in stages.items():
        timing = values["timing"]
        content = timing if isinstance(timing, dict) else timing.model_dump()
        content = {key: value for key, value in content.items() if not key.startswith("@")}
        timings.append(ADiTStageTiming(**{**content, "stage": stage}))
    parts = [source["timings"] for source in sources if source.get("timings")]
    if parts:
        dumped = [part if isinstance(part, dict) else part.model_dump() for part in parts]
        seconds = sum(part[name] for part in dumped for name in ("load", "sample", "check"))
        began = timings[0].started_at if timings else time.time()
        timings.insert(
            0,
            ADiTStageTiming(
                stage="generation",
                started_at=began - seconds,
                seconds=seconds,
                num_in=n,
                num_out=n,
            ),
        )
    return timings


def _seconds(timings: Sequence[ADiTStageTiming]) -> float:
    return timings[-1].started_at + timings[-1].seconds - timings[0].started_at


def _funnel(
    samples: Sequence[ADiTSampleFate], timings: Sequence[ADiTStageTiming]
) -> dict[str, int | None]:
    left = {timing.stage: timing.num_out for timing in timings}
    lost = sum(sample.fate == NOT_DECODED for sample in samples)
    funnel: dict[str, int | None] = {"samples": len(samples), "decoded": len(samples) - lost}
    funnel |= {label: left.get(stage) for stage, label in FUNNEL.items()}
    funnel["kept"] = sum(sample.fate == KEPT for sample in samples)
    funnel[DFT] = None
    return funnel


@dataclass
class ADiTDFTStageMaker(Maker):
    """Calculate each candidate with any Maker; what fails is recorded and loses no other.

    Parameters
    ----------
    name : str
        Name of the jobs.
    dft_maker : Maker or None
        Makes a job or flow of one structure whose output is a task document.
    """

    name: str = "ADiT DFT"
    dft_maker: Maker | None = None

    def make(self, discovery: Any) -> Flow:
        """Make a flow that calculates the candidates of a discovery.

        Parameters
        ----------
        discovery : ADiTDiscoveryDoc or OutputReference
            What has the candidates.

        Raises
        ------
        ValueError
            If there is no Maker.
        ImportError
            If its engine is not installed.
        """
        if self.dft_maker is None:
            raise ValueError("dft_maker is None: there is nothing to calculate with")
        check_engine(self.dft_maker, "dft_maker")
        start = self.fan_out(discovery.candidates)
        collect = add_results(discovery, start.output)
        start.name = f"{self.name} (fan out)"
        collect.name = f"{self.name} (collect)"
        return Flow([start, collect], output=collect.output, name=self.name)

    @job
    def fan_out(self, candidates: list[Any]) -> Response:
        """Start a calculation for each candidate."""
        started = time.time()
        maker = self.dft_maker
        assert maker is not None
        jobs: list[Job | Flow] = []
        outputs = []
        for i, candidate in enumerate(candidates, 1):
            structure = _latest(candidate)
            guarded = runs_ase(maker)
            run = calculate(maker, structure) if guarded else maker.make(structure)
            if guarded:
                run.name = maker.name
            run.append_name(f" {i}/{len(candidates)}", dynamic=False)
            uuid = run.uuid if isinstance(run, Job) else list(run.iterflow())[-1][0].uuid
            finish = finish_candidate(candidate, run.output, uuid)
            finish.name = f"ADiT candidate {i}/{len(candidates)}"
            jobs += [run, finish]
            outputs.append(finish.output)
        output = {"started": started, "candidates": outputs}
        if not jobs:
            return Response(output=output)
        return Response(replace=Flow(jobs, output=output, name=self.name))


def _latest(candidate: ADiTCandidateDoc) -> Structure | Molecule:
    if isinstance(candidate, ADiTMoleculeCandidateDoc):
        return candidate.molecule
    assert isinstance(candidate, ADiTCrystalCandidateDoc)
    return candidate.structure


@job(data=ASE_DATA)
def calculate(maker: Maker, structure: Structure | Molecule) -> Any:
    """Run an ASE Maker in this process.

    Returns
    -------
    object
        Its task document, or a failed ``ADiTCalculation`` with the
        reason.
    """
    result = attempt(maker, structure)
    if result["document"] is None:
        return ADiTCalculation(state=FAILED, reason=result["reason"])
    return result["document"]


@job(config=ANY_INPUT)
def finish_candidate(candidate: ADiTCandidateDoc, output: Any, uuid: str) -> ADiTCandidateDoc:
    """Note the result of a calculation on its candidate: a document of its own."""
    if isinstance(output, ADiTCalculation):
        candidate.dft = output.model_copy(update={"uuid": uuid})
    else:
        candidate.dft = read_calculation(output, uuid)
        structure = None if output is None else final_structure(last_document(output))
        if isinstance(structure, Structure) and isinstance(candidate, ADiTCrystalCandidateDoc):
            candidate.dft_structure = structure
        if isinstance(structure, Molecule) and isinstance(candidate, ADiTMoleculeCandidateDoc):
            candidate.dft_molecule = structure
    candidate.job_uuids["dft"] = uuid
    return candidate


@job(output_schema=ADiTDiscoveryDoc, data=DISCOVERY_DATA, config=ANY_INPUT)
def add_results(discovery: ADiTDiscoveryDoc, fanned: dict[str, Any] | None) -> ADiTDiscoveryDoc:
    """Put the calculated candidates into the document of their discovery."""
    fanned = fanned or {"started": time.time(), "candidates": []}
    done = {c.candidate_id: c for c in fanned["candidates"] if c is not None}
    candidates = []
    for candidate in discovery.candidates:
        finished = done.get(candidate.candidate_id)
        if finished is None:
            lost = ADiTCalculation(state=FAILED, reason="its calculation was lost: see the log")
            finished = candidate.model_copy(update={"dft": lost})
        candidates.append(finished)
    successful = sum(c.dft is not None and c.dft.state == SUCCESSFUL for c in candidates)
    timing = ADiTStageTiming(
        stage=DFT,
        started_at=fanned["started"],
        seconds=time.time() - fanned["started"],
        num_in=len(candidates),
        num_out=successful,
    )
    timings = [*discovery.timings, timing]
    document = discovery.model_copy(
        update={
            "candidates": candidates,
            "ranking": [_row(candidate) for candidate in candidates],
            "timings": timings,
            "seconds": _seconds(timings),
            "funnel": {**discovery.funnel, DFT: successful},
        }
    )
    print(document.summary(), flush=True)
    return document
