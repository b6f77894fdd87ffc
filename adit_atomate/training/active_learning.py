"""The closed loop: discover, relax or calculate, learn from it, and discover again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobflow import Flow, Maker, Response, job
from pydantic import BaseModel, Field

from adit_atomate.discovery.documents import ADiTCandidateDoc, ADiTDiscoveryDoc, ADiTNearHull
from adit_atomate.discovery.flow import ADiTDiscoveryMaker
from adit_atomate.paths import absolute_checkpoint, run_folder
from adit_atomate.settings import check_fields
from adit_atomate.training.data import ADiTDataMaker
from adit_atomate.training.documents import ADiTTrainedCheckpoint
from adit_atomate.training.flows import ADiTFineTuneMaker
from adit_atomate.training.stages import absolute_sources


class ADiTRoundDoc(BaseModel):
    """Yield of one round of the loop."""

    round: int = Field(description="Number of the round, from 1.")
    checkpoint: ADiTTrainedCheckpoint = Field(description="Weights that it sampled from.")
    n: int = Field(description="Samples that were asked for.")
    plausible: int | None = Field(description="Plausible samples; None if that was not checked.")
    unique: int | None = Field(description="Valid samples that repeat no other; None likewise.")
    novel: int | None = Field(
        description="Valid, unique samples that the reference lacks; None likewise."
    )
    near_hull: ADiTNearHull | None = Field(
        description="Of these (as far as checked) those near the hull, and what that number is "
        "worth; None if there is no energy above hull or no threshold."
    )
    candidates: int = Field(description="Candidates the discovery kept.")
    added: int = Field(description="Candidates that were added to the training data.")
    left_out: dict[str, int] = Field(
        description="Candidates that were not added, by the reason why not."
    )
    data: str | None = Field(None, description="Array file of these; None if there are none.")
    discovery_uuid: str = Field(description="Uuid of the job with the discovery's document.")
    funnel: dict[str, int | None] = Field(description="How many samples passed each stage.")
    trained: ADiTTrainedCheckpoint | None = Field(
        None, description="Weights after the round; None if nothing was there to learn."
    )


class ADiTActiveLearningDoc(BaseModel):
    """Result of :class:`ADiTActiveLearningMaker`."""

    rounds: list[ADiTRoundDoc] = Field(description="Yield of each round.")
    checkpoint: ADiTTrainedCheckpoint = Field(description="Weights after the last round.")


def learn_maker() -> ADiTFineTuneMaker:
    """Return a fine-tuning flow that holds nothing out: a round gives few structures."""
    return ADiTFineTuneMaker(data_maker=ADiTDataMaker(options={"validation_fraction": 0.0}))


@dataclass
class ADiTActiveLearningMaker(Maker):
    """Discover, add the best to the data, fine-tune, and discover with the new weights.

    Parameters
    ----------
    name : str
        Name of the flow.
    discovery_maker : ADiTDiscoveryMaker
        Generates, relaxes and ranks; with ``dft_maker`` its results are what is learned from.
    fine_tune_maker : ADiTFineTuneMaker
        Learns. Its ``data_maker`` should name earlier data under ``replay``, so that the model
        does not forget them.
    rounds : int
        How many.
    n : int
        Samples of each round. Round i takes the seed of ``generate_maker`` plus i - 1.
    hull_threshold : float or None
        Largest energy above hull, in eV/atom, of candidates that are learned from; those of
        unknown stability are not. None takes all candidates.
    """

    name: str = "ADiT active learning"
    discovery_maker: ADiTDiscoveryMaker = field(default_factory=ADiTDiscoveryMaker)
    fine_tune_maker: ADiTFineTuneMaker = field(default_factory=learn_maker)
    rounds: int = 3
    n: int = 100
    hull_threshold: float | None = 0.1

    def make(self, sources: Sequence[Any] = ()) -> Flow:
        """Make a flow of all rounds.

        Parameters
        ----------
        sources : sequence
            Data that are learned from in each round beside those that were found.

        Returns
        -------
        Flow
            Its output is an :class:`ADiTActiveLearningDoc`.

        Raises
        ------
        ValueError, TypeError
            If a field of the Maker is wrong, or nothing generates.
        """
        check_fields(self, discovery_maker=Maker, fine_tune_maker=ADiTFineTuneMaker)
        for name in ("rounds", "n"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)}")
        generate = getattr(self.discovery_maker, "generate_maker", None)
        if generate is None or not hasattr(generate, "checkpoint"):
            raise ValueError("discovery_maker.generate_maker must be a Maker with a checkpoint")
        checkpoint = absolute_checkpoint(self.fine_tune_maker.checkpoint)
        self._discover(checkpoint, 1)  # says what is wrong before any work
        plain = [s for source in sources for s in _absolute(source)]
        first = self._round(checkpoint, plain, [])
        return Flow([first], output=first.output, name=self.name)

    def _discover(self, checkpoint: str, number: int) -> Flow:
        generate: Any = self.discovery_maker.generate_maker
        options = {"checkpoint": checkpoint}
        if hasattr(generate, "seed"):
            options["seed"] = generate.seed + number - 1
        maker = replace(self.discovery_maker, generate_maker=replace(generate, **options))
        flow = maker.make(self.n)
        flow.append_name(f" round {number}")
        return flow

    @job  # no schema: a job replaced by a flow stores a reference
    def _round(self, checkpoint: str, sources: list[Any], done: list[ADiTRoundDoc]) -> Response:
        number = len(done) + 1
        discovery = self._discover(checkpoint, number)
        collected = collect_round(
            discovery.output, discovery.output.uuid, number, checkpoint, self.hull_threshold
        )
        learned = self._learn(collected.output, checkpoint, sources, done)
        collected.name = f"ADiT yield round {number}"
        learned.name = f"ADiT learn round {number}"
        flow = Flow([discovery, collected, learned], output=learned.output)
        return Response(replace=flow)

    @job  # no schema: a job replaced by a flow stores a reference
    def _learn(
        self, found: ADiTRoundDoc, checkpoint: str, sources: list[Any], done: list[ADiTRoundDoc]
    ) -> ADiTActiveLearningDoc | Response:
        if found.data is not None:
            sources = [*sources, found.data]
        if not sources:
            return self._go_on(checkpoint, sources, [*done, found])
        flow = self.fine_tune_maker.make(sources, checkpoint)
        flow.append_name(f" round {found.round}")
        after = self._after(found, flow.output.checkpoint, sources, done)
        after.name = f"ADiT round {found.round}"
        return Response(replace=Flow([flow, after], output=after.output))

    @job  # no schema: a job replaced by a flow stores a reference
    def _after(
        self,
        found: ADiTRoundDoc,
        trained: ADiTTrainedCheckpoint,
        sources: list[Any],
        done: list[ADiTRoundDoc],
    ) -> ADiTActiveLearningDoc | Response:
        found.trained = trained
        return self._go_on(trained.path, sources, [*done, found])

    def _go_on(
        self, checkpoint: str, sources: list[Any], done: list[ADiTRoundDoc]
    ) -> ADiTActiveLearningDoc | Response:
        from adit_atomate.training.documents import describe_checkpoint

        if len(done) < self.rounds:
            following = self._round(checkpoint, sources, done)
            return Response(replace=Flow([following], output=following.output))
        return ADiTActiveLearningDoc(rounds=done, checkpoint=describe_checkpoint(checkpoint))


@job(output_schema=ADiTRoundDoc)
def collect_round(
    discovery: ADiTDiscoveryDoc,
    uuid: str,
    number: int,
    checkpoint: str,
    hull_threshold: float | None,
) -> ADiTRoundDoc:
    """Count what a discovery yielded, and write the candidates to learn from.

    Parameters
    ----------
    discovery : ADiTDiscoveryDoc
        Its document.
    uuid : str
        Of the job that made it.
    number : int
        Of the round.
    checkpoint : str
        Weights it sampled from.
    hull_threshold : float or None
        Largest energy above hull of candidates to learn from, in eV/atom.
    """
    from adit_atomate.training.documents import describe_checkpoint
    from adit_atomate.training.sources import from_documents

    reasons = [_reason_against(candidate, hull_threshold) for candidate in discovery.candidates]
    chosen = [
        _structure(candidate)
        for candidate, reason in zip(discovery.candidates, reasons, strict=True)
        if reason is None
    ]
    path = None
    if chosen:
        path = run_folder(None, "found") / "found.npz"
        from_documents(chosen, name=f"round {number}").save(path)
    decoded = samples = [sample for sample in discovery.samples if sample.decoded]
    counts: dict[str, int | None] = {}
    for name in (
        "plausible",
        "unique",
        "novel",
    ):  # each of those before, as far as they were checked
        asked = any(getattr(sample, name) is not None for sample in decoded)
        samples = [s for s in samples if getattr(s, name)] if asked else samples
        counts[name] = len(samples) if asked else None
    near_hull = None
    if hull_threshold is not None:
        null = discovery.near_hull.null if discovery.near_hull else None
        near_hull = ADiTNearHull.of_samples(samples, hull_threshold, null)
    return ADiTRoundDoc(
        round=number,
        checkpoint=describe_checkpoint(checkpoint),
        n=discovery.n,
        **counts,
        near_hull=near_hull,
        candidates=len(discovery.candidates),
        added=len(chosen),
        left_out=dict(Counter(reason for reason in reasons if reason is not None)),
        data=None if path is None else str(path),
        discovery_uuid=uuid,
        funnel=discovery.funnel,
    )


def _reason_against(candidate: ADiTCandidateDoc, hull_threshold: float | None) -> str | None:
    """Say why a candidate is not to be learned from, None if it is."""
    if hull_threshold is None:
        return None
    if candidate.stability == "unknown":
        return "stability unknown: no known compound competes, or it lies far below the hull"
    if candidate.energy_above_hull is None:
        return "no energy above hull"
    if candidate.energy_above_hull > hull_threshold:
        return f"more than {hull_threshold:g} eV/atom above the hull"
    return None


def _structure(candidate: ADiTCandidateDoc) -> Any:
    """Take the most reliable structure of a candidate: of DFT, relaxed, or as generated."""
    names = ("dft_structure", "dft_molecule", "structure", "molecule")
    found = (getattr(candidate, name, None) for name in names)
    return next(structure for structure in found if structure is not None)


def _absolute(source: Any) -> list[Any]:
    return list(absolute_sources([source])) if isinstance(source, str) else [source]
