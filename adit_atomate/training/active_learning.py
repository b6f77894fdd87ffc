"""The closed loop: discover, relax or calculate, learn from it, and discover again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobflow import Flow, Maker, Response, job
from pydantic import BaseModel, Field

from adit_atomate.discovery.flow import ADiTDiscoveryMaker
from adit_atomate.paths import absolute_checkpoint, run_folder
from adit_atomate.training.data import ADiTDataMaker
from adit_atomate.training.documents import ADiTTrainedCheckpoint
from adit_atomate.training.flows import ADiTFineTuneMaker
from adit_atomate.training.stages import absolute_sources


class ADiTRoundDoc(BaseModel):
    """Yield of one round of the loop."""

    round: int = Field(description="Number of the round, from 1.")
    checkpoint: ADiTTrainedCheckpoint = Field(description="Weights that it sampled from.")
    n: int = Field(description="Samples that were asked for.")
    valid: int | None = Field(description="Valid samples; None if that was not checked.")
    unique: int | None = Field(description="Valid samples that repeat no other; None likewise.")
    novel: int | None = Field(
        description="Valid, unique samples that the reference lacks; None likewise."
    )
    below_hull: int | None = Field(
        description="Of these (as far as checked) those with an energy above hull of at most "
        "`hull_threshold`; None if there is no hull or no threshold."
    )
    hull_threshold: float | None = Field(None, description="In eV/atom.")
    candidates: int = Field(description="Candidates the discovery kept.")
    added: int = Field(description="Candidates that were added to the training data.")
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
        Largest energy above hull, in eV/atom, of candidates that are learned from; None takes all
        candidates.
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
        ValueError
            If a field of the Maker is out of range, or nothing generates.
        """
        for name in ("rounds", "n"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)}")
        generate = self.discovery_maker.generate_maker
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
        flow.append_name(f" (round {number})")
        return flow

    @job  # no schema: a job replaced by a flow stores a reference
    def _round(self, checkpoint: str, sources: list[Any], done: list[Any]) -> Response:
        number = len(done) + 1
        discovery = self._discover(checkpoint, number)
        collected = collect_round(
            discovery.output, discovery.output.uuid, number, checkpoint, self.hull_threshold
        )
        learned = self._learn(collected.output, checkpoint, sources, done)
        collected.name = f"ADiT yield (round {number})"
        learned.name = f"ADiT learn (round {number})"
        flow = Flow([discovery, collected, learned], output=learned.output)
        return Response(replace=flow)

    @job  # no schema: a job replaced by a flow stores a reference
    def _learn(
        self, found: Any, checkpoint: str, sources: list[Any], done: list[Any]
    ) -> ADiTActiveLearningDoc | Response:
        from adit_atomate.training.documents import plain

        found = ADiTRoundDoc(**plain(found))
        if found.data is not None:
            sources = [*sources, found.data]
        if not sources:
            return self._go_on(checkpoint, sources, [*done, found])
        flow = self.fine_tune_maker.make(sources, checkpoint)
        flow.append_name(f" (round {found.round})")
        after = self._after(found, flow.output.checkpoint, sources, done)
        after.name = f"ADiT round {found.round}"
        return Response(replace=Flow([flow, after], output=after.output))

    @job  # no schema: a job replaced by a flow stores a reference
    def _after(
        self, found: Any, trained: Any, sources: list[Any], done: list[Any]
    ) -> ADiTActiveLearningDoc | Response:
        from adit_atomate.training.documents import plain

        kept = ADiTTrainedCheckpoint(**plain(trained))
        found = ADiTRoundDoc(**{**plain(found), "trained": kept})
        return self._go_on(kept.path, sources, [*done, found])

    def _go_on(
        self, checkpoint: str, sources: list[Any], done: list[Any]
    ) -> ADiTActiveLearningDoc | Response:
        from adit_atomate.training.documents import describe_checkpoint, plain

        if len(done) < self.rounds:
            following = self._round(checkpoint, sources, done)
            return Response(replace=Flow([following], output=following.output))
        return ADiTActiveLearningDoc(
            rounds=[ADiTRoundDoc(**plain(document)) for document in done],
            checkpoint=describe_checkpoint(checkpoint),
        )


@job(output_schema=ADiTRoundDoc)
def collect_round(
    discovery: Any, uuid: str, number: int, checkpoint: str, hull_threshold: float | None
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
    from adit_atomate.training.documents import describe_checkpoint, plain
    from adit_atomate.training.store_data import from_documents

    content = plain(discovery)
    samples = [plain(sample) for sample in content["samples"]]
    chosen = []
    for candidate in content["candidates"]:
        candidate = plain(candidate)
        energy = candidate["energy_above_hull"]
        if hull_threshold is None or (energy is not None and energy <= hull_threshold):
            chosen.append(_structure(candidate))
    path = None
    if chosen:
        file = run_folder(None, "found") / "found.npz"
        found = from_documents(chosen, name=f"round {number}")
        found.save(file)
        path = str(file)
    tests = ["valid"]
    counts = {"valid": _count(samples, tests)}
    for name in ("unique", "novel"):
        if any(sample[name] is not None for sample in samples):
            tests.append(name)
            counts[name] = _count(samples, tests)
    good = [s for s in samples if all(s[name] for name in tests)]
    below = None
    energies = [s["energy_above_hull"] for s in samples]
    if hull_threshold is not None and any(energy is not None for energy in energies):
        below = sum(
            s["energy_above_hull"] is not None and s["energy_above_hull"] <= hull_threshold
            for s in good
        )
    return ADiTRoundDoc(
        round=number,
        checkpoint=describe_checkpoint(checkpoint),
        n=content["n"],
        valid=counts["valid"],
        unique=counts.get("unique"),
        novel=counts.get("novel"),
        below_hull=below,
        hull_threshold=hull_threshold,
        candidates=len(content["candidates"]),
        added=len(chosen),
        data=path,
        discovery_uuid=uuid,
        funnel=content["funnel"],
    )


def _structure(candidate: dict[str, Any]) -> Any:
    """Take the most reliable structure of a candidate: of DFT, relaxed, or as generated."""
    keys = ("dft_structure", "dft_molecule", "structure", "molecule")
    return next(candidate[key] for key in keys if candidate.get(key) is not None)


def _count(samples: list[dict[str, Any]], names: list[str]) -> int | None:
    if all(sample[names[-1]] is None for sample in samples):
        return None
    return sum(all(sample[name] for name in names) for sample in samples)


def _absolute(source: Any) -> list[Any]:
    return list(absolute_sources([source])) if isinstance(source, str) else [source]
