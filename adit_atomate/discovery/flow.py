"""Flows: from generation to relaxed, ranked candidates and their DFT results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from jobflow import CURRENT_JOB, Flow, Job, JobConfig, Maker, OutputReference, job
from pymatgen.core import Molecule, Structure

from adit_atomate.discovery.choose import ADiTDFTStageMaker, choose_candidates
from adit_atomate.discovery.documents import ADiTGivenDoc
from adit_atomate.discovery.rank import ADiTHullMaker, ADiTStrainMaker
from adit_atomate.discovery.relax import ADiTRelaxStageMaker, chgnet_relax_maker, xtb_relax_maker
from adit_atomate.discovery.resume import resumable
from adit_atomate.discovery.stages import (
    ADiTNoveltyMaker,
    ADiTScreenMaker,
    ADiTUniquenessMaker,
    given_samples,
)
from adit_atomate.generate import GENERATE_DATA, ADiTGenerateMaker
from adit_atomate.stores import check_job_store
from adit_model.data.phases import without_none


@dataclass
class ADiTDiscoveryMaker(Maker):
    """Generate crystals, and find those worth a calculation.

    generate -> plausible -> unique -> novel -> relax -> unique and novel again -> energy above
    hull -> the best -> DFT. Each stage can be given another Maker, or None to leave it out. The
    output is an ``ADiTDiscoveryDoc`` that tells of each sample what became of it, and ranks the
    candidates.

    Parameters
    ----------
    name : str
        Name of the flows.
    generate_maker : Maker or None
        Makes the structures; None if they are given.
    screen_maker, uniqueness_maker, novelty_maker : Maker or None
        Stages as ``discovery.stages`` describes them. Novelty is left out, too, if its Maker's
        reference is None or ``"none"``; by default it is the known crystals of the package.
    relax_maker : Maker or None
        Relaxes a structure: any relaxation Maker or flow Maker of atomate2, or an
        :class:`~adit_atomate.discovery.relax.ADiTRelaxStageMaker`, which has limits of time and
        memory, symmetry and pressure as options.
    rank_maker : Maker or None
        Fills in the scores that candidates are ranked by.
    dft_maker : Maker or None
        Makes a job or flow of one structure: any Maker of atomate2 with ``make(structure)`` whose
        output is a task document, such as VASP's ``DoubleRelaxMaker`` or one of ABINIT or CP2K.
    condition : str or Condition or None
        What is asked of each structure, ``"Li-P-S, atoms=4-12"``: given to ``generate_maker``.
    keep : int or None
        How many candidates to keep; None keeps all.
    chunk_size : int
        Structures in each relaxation job, for Makers that run an ASE calculator.
    compare_relaxed : bool
        Compare the structures to each other and to the reference once more after the relaxation.

    Examples
    --------
    >>> from adit_atomate import ADiTDiscoveryMaker
    >>> flow = ADiTDiscoveryMaker(keep=5).make(n=20)  # doctest: +SKIP
    """

    name: str = "ADiT discovery"
    generate_maker: Maker | None = field(
        default_factory=lambda: ADiTGenerateMaker(domain="crystal")
    )
    screen_maker: Maker | None = field(default_factory=ADiTScreenMaker)
    uniqueness_maker: Maker | None = field(default_factory=ADiTUniquenessMaker)
    novelty_maker: Maker | None = field(default_factory=ADiTNoveltyMaker)
    relax_maker: Maker | None = field(default_factory=chgnet_relax_maker)
    rank_maker: Maker | None = field(default_factory=ADiTHullMaker)
    dft_maker: Maker | None = None
    condition: Any = None
    keep: int | None = 10
    chunk_size: int = 20
    compare_relaxed: bool = True

    def make(
        self,
        n: int | None = None,
        structures: list[Structure | Molecule] | OutputReference | None = None,
    ) -> Flow:
        """Make a flow that generates n structures, or starts from given ones.

        Parameters
        ----------
        n : int, optional
            How many samples.
        structures : list of Structure or Molecule, or OutputReference, optional
            Given instead of n; nothing is generated.

        Raises
        ------
        ValueError, TypeError
            If not one of n and structures is given, or a field of a Maker is out of range.
        FileNotFoundError
            If a file that a stage needs is missing.
        """
        if self.condition is not None:
            return self._with_condition().make(n, structures)
        self._check(n, structures)
        first: Job | Flow
        if structures is None:
            assert self.generate_maker is not None
            first = self.generate_maker.make(n)
        else:
            first = take_structures(structures)
        sources = first.output if isinstance(first.output, list) else [first.output]
        shapes = [source.structures for source in sources]
        samples: Any = [source.samples for source in sources]
        stages: list[Job | Flow] = []
        outputs: dict[str, Any] = {}

        def add(stage: str, maker: Maker | None, after: str = "") -> None:
            nonlocal shapes, samples
            if maker is None:
                return
            if isinstance(maker, ADiTNoveltyMaker) and not without_none(maker.reference):
                return
            made = maker.make(shapes, samples)
            if after:
                made.append_name(after)
            stages.append(made)
            outputs[stage] = made.output
            samples = made.output.samples
            if stage == "relaxation":
                shapes = [made.output.structures]

        add("screening", self.screen_maker)
        add("uniqueness", self.uniqueness_maker)
        add("novelty", self.novelty_maker)
        if self.relax_maker is not None:
            relax = self.relax_maker
            if not isinstance(relax, ADiTRelaxStageMaker):
                relax = ADiTRelaxStageMaker(relax_maker=relax, chunk_size=self.chunk_size)
            add("relaxation", relax)
            if self.compare_relaxed:
                add("uniqueness, relaxed", self.uniqueness_maker, " relaxed")
                add("novelty, relaxed", self.novelty_maker, " relaxed")
        add("ranking", self.rank_maker)
        finish = choose_candidates(
            sources=[_provenance(source, structures is None) for source in sources],
            generated=[source.structures for source in sources],
            structures=shapes,
            samples=samples,
            stages={
                stage: {
                    "uuid": output.uuid,
                    "timing": output.timing,
                    "details": output.details,
                }
                for stage, output in outputs.items()
            },
            keep=self.keep,
        )
        stages.append(finish)
        if self.dft_maker is not None:
            stages.append(ADiTDFTStageMaker(dft_maker=self.dft_maker).make(finish.output))
        return resumable(Flow([first, *stages], output=stages[-1].output, name=self.name), self, n)

    def _with_condition(self) -> ADiTDiscoveryMaker:
        """Hand the condition to the Maker that generates."""
        generate: Any = self.generate_maker
        if not hasattr(generate, "condition") or generate.condition is not None:
            raise ValueError(
                f"condition {str(self.condition)!r} needs a generate_maker that takes one and has "
                f"none yet, got {generate!r}"
            )
        generate = replace(generate, condition=self.condition)
        return replace(self, generate_maker=generate, condition=None)

    def _check(self, n: int | None, structures: Any) -> None:
        for part in fields(self):
            maker = getattr(self, part.name)
            if part.name.endswith("_maker") and not isinstance(maker, Maker | None):
                raise TypeError(f"{part.name} must be a Maker or None, got {maker!r}")
        if (n is None) == (structures is None):
            raise ValueError("give either n, to generate, or structures, to start from them")
        if structures is not None and not isinstance(structures, OutputReference):
            if not structures:
                raise ValueError("structures is empty")
            wrong = [s for s in structures if not isinstance(s, Structure | Molecule)]
            if wrong:
                raise TypeError(
                    "structures must hold pymatgen Structures or Molecules, "
                    f"got {type(wrong[0]).__name__}"
                )
        if n is not None and self.generate_maker is None:
            raise ValueError("generate_maker is None: give structures instead of n")
        if self.keep is not None and (isinstance(self.keep, bool) or self.keep < 1):
            raise ValueError(f"keep must be a positive integer or None, got {self.keep!r}")
        generate = self.generate_maker
        own = isinstance(generate, ADiTGenerateMaker) and len(generate.domains()) > 1
        if n is not None and own:
            raise ValueError(
                "a discovery flow is of one domain: give generate_maker "
                "domain='crystal' or domain='molecule'"
            )


@dataclass
class ADiTMoleculeDiscoveryMaker(ADiTDiscoveryMaker):
    """Generate molecules, and find those worth a calculation.

    As :class:`ADiTDiscoveryMaker`, with GFN2-xTB for the relaxation and a ranking by strain energy:
    the energy per atom that the relaxation released.
    """

    name: str = "ADiT molecule discovery"
    generate_maker: Maker | None = field(
        default_factory=lambda: ADiTGenerateMaker(domain="molecule")
    )
    relax_maker: Maker | None = field(default_factory=xtb_relax_maker)
    rank_maker: Maker | None = field(default_factory=ADiTStrainMaker)


def _provenance(source: Any, generated: bool) -> dict[str, Any]:
    names = ("request", "checkpoint", "timings") if generated else ()
    return {"uuid": source.uuid, **{name: getattr(source, name) for name in names}}


@job(
    name="ADiT given structures",
    output_schema=ADiTGivenDoc,
    data=GENERATE_DATA,
    config=JobConfig(expose_store=True),
)
def take_structures(structures: Sequence[Structure | Molecule]) -> ADiTGivenDoc:
    """Start a discovery flow from given structures.

    Parameters
    ----------
    structures : list of Structure or Molecule
        In any order; disordered ones are recorded as not decoded.
    """
    if CURRENT_JOB.store is not None:
        check_job_store(CURRENT_JOB.store)
    return ADiTGivenDoc(structures=list(structures), samples=given_samples(structures))
