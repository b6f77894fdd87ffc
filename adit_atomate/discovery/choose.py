"""The last stages of the discovery flow: choose the candidates, calculate them, tell of all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobflow import Flow, Maker, Response, job
from pymatgen.core import Molecule, Structure

from adit_atomate.discovery.calculate import ANY_INPUT, end_each, start_each, warn_if_missing
from adit_atomate.discovery.documents import (
    ADiTCandidateDoc,
    ADiTCrystalCandidateDoc,
    ADiTDiscoveryDoc,
    ADiTMoleculeCandidateDoc,
    ADiTNearHull,
    ADiTRankingRow,
    ADiTResult,
    ADiTSampleFate,
    ADiTStageTiming,
)
from adit_atomate.discovery.rank import rank
from adit_atomate.discovery.stages import flatten, open_samples, pending, structure_of
from adit_atomate.task_documents import SUCCESSFUL

DISCOVERY_DATA = [["output", "samples"], ["output", "candidates"]]
FUNNEL = {  # what is left after a stage
    "screening": "plausible",
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
        Of each generating job: ``uuid``; ``request``, ``checkpoint`` and ``timings`` unless the
        structures were given.
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
    uuids = {
        "generate": sources[0]["uuid"],
        **{stage: values["uuid"] for stage, values in stages.items()},
    }
    for sample in opened:
        sample.candidate_id = f"{sources[0]['uuid']}-{sample.index}"
        sample.job_uuids = {**uuids, **sample.job_uuids}
    ranked = rank(pending(opened))
    kept = ranked[:keep]
    for place, sample in enumerate(ranked, 1):
        sample.rank, sample.fate = place, "kept"
        if place > len(kept):
            sample.fate = "not among the best"
            sample.reason = f"rank {place} of {len(ranked)}, {keep} are kept"
    candidates = [
        _candidate(s, structure_of(s, first), structure_of(s, last), sources[0]) for s in kept
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
    null = stages["ranking"]["details"].get("null") if "ranking" in stages else None
    document = ADiTDiscoveryDoc(
        n=len(opened),
        domain=" and ".join(sorted({sample.domain for sample in opened})),
        funnel=_funnel(opened, timings),
        fates=dict(Counter(sample.fate for sample in opened)),
        near_hull=ADiTNearHull.of_samples(opened, null=null),
        ranking=[_row(candidate) for candidate in candidates],
        candidates=candidates,
        samples=sorted(opened, key=lambda sample: sample.index),
        timings=timings,
        seconds=_seconds(timings),
        details={stage: values["details"] for stage, values in stages.items()},
        stage_uuids=uuids,
    )
    print(document.summary(), flush=True)
    return document


def _candidate(
    sample: ADiTSampleFate,
    generated: Structure | Molecule,
    relaxed: Structure | Molecule,
    source: Mapping[str, Any],
) -> ADiTCrystalCandidateDoc | ADiTMoleculeCandidateDoc:
    values = {**sample.model_dump(), "generated": generated}
    if "checkpoint" in source:
        values["checkpoint"] = source["checkpoint"].name
        values["checkpoint_hash"] = source["checkpoint"].hash
        values["seed"] = source["request"].seed
    if isinstance(relaxed, Molecule):
        return ADiTMoleculeCandidateDoc.from_molecule(relaxed, molecule=relaxed, **values)
    return ADiTCrystalCandidateDoc.from_structure(relaxed, structure=relaxed, **values)


def _row(candidate: ADiTCandidateDoc) -> ADiTRankingRow:
    state = candidate.dft and candidate.dft.state
    return ADiTRankingRow(**{**candidate.model_dump(), "dft_state": state})


def _timings(
    sources: Sequence[Mapping[str, Any]], stages: Mapping[str, Mapping[str, Any]], n: int
) -> list[ADiTStageTiming]:
    timings = [
        values["timing"].model_copy(update={"stage": stage}) for stage, values in stages.items()
    ]
    parts = [source["timings"] for source in sources if "timings" in source]
    if parts:
        seconds = sum(part.load + part.sample + part.check for part in parts)
        began = timings[0].started_at if timings else time.time()
        generation = ADiTStageTiming(
            stage="generation", started_at=began - seconds, seconds=seconds, num_in=n, num_out=n
        )
        timings.insert(0, generation)
    return timings


def _seconds(timings: Sequence[ADiTStageTiming]) -> float:
    return timings[-1].started_at + timings[-1].seconds - timings[0].started_at


def _funnel(
    samples: Sequence[ADiTSampleFate], timings: Sequence[ADiTStageTiming]
) -> dict[str, int | None]:
    left = {timing.stage: timing.num_out for timing in timings}
    decoded = sum(sample.fate != "not decoded" for sample in samples)
    return {
        "samples": len(samples),
        "decoded": decoded,
        **{label: left.get(stage) for stage, label in FUNNEL.items()},
        "kept": sum(sample.fate == "kept" for sample in samples),
        DFT: None,
    }


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
        """
        if self.dft_maker is None:
            raise ValueError("dft_maker is None: there is nothing to calculate with")
        warn_if_missing(self.dft_maker, "dft_maker")
        start = self.fan_out(discovery.candidates)
        collect = add_results(discovery, start.output)
        start.name, collect.name = f"{self.name} fan out", f"{self.name} collect"
        return Flow([start, collect], output=collect.output, name=self.name)

    @job
    def fan_out(self, candidates: list[Any]) -> Response:
        """Start a calculation for each candidate."""
        assert self.dft_maker is not None
        return start_each(self.dft_maker, [_latest(c) for c in candidates], 1)


def _latest(candidate: ADiTCandidateDoc) -> Structure | Molecule:
    if isinstance(candidate, ADiTMoleculeCandidateDoc):
        return candidate.molecule
    assert isinstance(candidate, ADiTCrystalCandidateDoc)
    return candidate.structure


def _add_result(candidate: ADiTCandidateDoc, result: ADiTResult) -> None:
    """Note the result of a calculation on its candidate."""
    candidate.dft = result.calculation
    if result.calculation.uuid:
        candidate.job_uuids["dft"] = result.calculation.uuid
    if isinstance(candidate, ADiTCrystalCandidateDoc) and isinstance(result.structure, Structure):
        candidate.dft_structure = result.structure
    if isinstance(candidate, ADiTMoleculeCandidateDoc) and isinstance(result.structure, Molecule):
        candidate.dft_molecule = result.structure


@job(output_schema=ADiTDiscoveryDoc, data=DISCOVERY_DATA, config=ANY_INPUT)
def add_results(discovery: ADiTDiscoveryDoc, fanned: dict[str, Any] | None) -> ADiTDiscoveryDoc:
    """Put the results of the calculations into the document of their discovery."""
    candidates = discovery.candidates
    started, results = end_each(fanned, len(candidates))
    for candidate, result in zip(candidates, results, strict=True):
        _add_result(candidate, result)
    successful = sum(result.calculation.state == SUCCESSFUL for result in results)
    timing = ADiTStageTiming(
        stage=DFT,
        started_at=started,
        seconds=time.time() - started,
        num_in=len(candidates),
        num_out=successful,
    )
    discovery.ranking = [_row(candidate) for candidate in candidates]
    discovery.timings.append(timing)
    discovery.seconds = _seconds(discovery.timings)
    discovery.funnel[DFT] = successful
    print(discovery.summary(), flush=True)
    return discovery
