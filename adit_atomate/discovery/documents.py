"""Documents of the discovery flow: what became of each sample, and the candidates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from emmet.core.structure import MoleculeMetadata, StructureMetadata
from pydantic import BaseModel, Field
from pymatgen.core import Molecule, Structure

from adit_atomate.documents import ADiTSampleRecord
from adit_model.quality.hull import ELEMENTS_ONLY, METASTABLE, STABILITIES, Stability

Fate = Literal[
    "pending",
    "not decoded",
    "not plausible",
    "duplicate",
    "known",
    "not relaxed",
    "not among the best",
    "kept",
]


class ADiTCalculation(BaseModel):
    """A relaxation or other calculation of one structure, whatever code made it."""

    state: str = Field(description="'successful' or 'failed'.")
    reason: str | None = Field(None, description="Why it failed.")
    energy: float | None = Field(None, description="Final total energy, in eV.")
    energy_per_atom: float | None = Field(None, description="Final energy, in eV/atom.")
    uuid: str | None = Field(
        None, description="Uuid of the job (of a flow: its last one) whose output this is."
    )
    dir_name: str | None = Field(None, description="Folder of the calculation, if it says so.")
    calculator: str | None = Field(None, description="What calculated, as its document names it.")
    calculator_version: str | None = Field(None, description="Version of that, if known.")
    initial_energy: float | None = Field(
        None, description="Total energy of the structure as it was given, in eV."
    )
    energy_change_per_atom: float | None = Field(
        None, description="Final minus initial energy, in eV/atom; negative if it went downhill."
    )
    num_steps: int | None = Field(None, description="Ionic steps.")
    max_force: float | None = Field(
        None, description="Largest force on an atom at the end, in eV/angstrom."
    )
    rmsd: float | None = Field(
        None,
        description="Root-mean-square displacement of the atoms, in angstrom. Crystals: of the "
        "fractional coordinates, common shift removed, in the mean of both cells. Molecules: after "
        "the best rigid motion.",
    )
    volume_change: float | None = Field(
        None, description="Crystals: relative change of the cell volume, 0.1 is 10 % larger."
    )
    seconds: float | None = Field(None, description="Wall-clock time, in seconds.")


class ADiTResult(BaseModel):
    """A calculation and the structure it led to."""

    calculation: ADiTCalculation = Field(description="What was calculated.")
    structure: Structure | Molecule | None = Field(
        None, description="None unless the calculation was successful; in angstrom."
    )


class ADiTSampleFate(ADiTSampleRecord):
    """What became of one sample on its way through the stages."""

    candidate_id: str | None = Field(
        None, description="Unique name: uuid of the first job of the flow, and the index."
    )
    fate: Fate = Field(
        "pending", description="Where its way ended; 'kept' for the candidates. `reason` says why."
    )
    part: int = Field(0, description="Which of the generating jobs made it, from 0.")
    notes: list[str] = Field(
        default_factory=list, description="Remarks, such as a comparison that took too long."
    )
    unique: bool | None = Field(
        None,
        description="Whether it is the first of its kind in the run; None: not asked, or "
        "the comparison failed.",
    )
    duplicate_of: int | None = Field(None, description="Index of the sample it repeats.")
    novel: bool | None = Field(
        None,
        description="Whether the reference lacks it; None: not asked, or the comparison failed.",
    )
    nearest_known: str | None = Field(
        None, description="Id of the nearest matching structure of the reference, if one matches."
    )
    nearest_known_distance: float | None = Field(
        None,
        description="Crystals: RMS distance to it, in units of (volume per atom)^(1/3), as "
        "pymatgen's structure matcher gives it.",
    )
    symmetrised: str | None = Field(
        None,
        description="Crystals: the space group that its atoms and cell were moved onto before the "
        "relaxation; None if they were not.",
    )
    symmetrised_move: float | None = Field(
        None, description="How far an atom was moved for that, at most, in angstrom."
    )
    relaxation: ADiTCalculation | None = Field(None, description="Its relaxation.")
    relaxed_smiles: str | None = Field(
        None, description="Molecules: canonical SMILES of the relaxed geometry."
    )
    formation_energy_per_atom: float | None = Field(
        None, description="Crystals: formation energy from the elements, in eV/atom."
    )
    energy_above_hull: float | None = Field(
        None,
        description="Crystals: energy above the convex hull, in eV/atom; negative if below. None "
        "where no known compound competes.",
    )
    hull_source: str | None = Field(None, description="What the hull was built from.")
    hull_complete: bool | None = Field(
        None,
        description="Whether the hull covers all subsystems; if not, the true energy "
        "above hull may be higher.",
    )
    hull_reason: str | None = Field(None, description="Why there is no energy above hull.")
    competing_phases: list[str] | None = Field(
        None, description="Formulas of the phases it would decompose to."
    )
    known_phases: int | None = Field(
        None, description="Compounds that the hull knows within its chemical system."
    )
    competitors_known: bool | None = Field(
        None,
        description="Whether what is likely to compete is known: the hull is complete, or has a "
        "compound of the same composition, or one of each pair of its elements.",
    )
    stability: Stability | None = Field(
        None,
        description="Crystals: 'stable' (-0.1 to 0 eV/atom above the hull), 'metastable' (to 0.1), "
        "'unstable' (more, or so far above the elements), 'unknown' (no known compound competes, "
        "or lower than -0.1).",
    )
    strain_energy_per_atom: float | None = Field(
        None, description="Molecules: energy the relaxation released, in eV/atom."
    )
    score: float | None = Field(
        None,
        description="What the ranking sorts by, lowest first, in eV/atom: energy above hull, or "
        "formation energy where no known compound competes (crystals); strain energy (molecules).",
    )
    rank: int | None = Field(None, description="Place in the ranking, from 1.")
    job_uuids: dict[str, str] = Field(
        default_factory=dict, description="Uuids of the jobs it went through, by stage."
    )


class ADiTCandidateDoc(ADiTSampleFate):
    """A kept sample, with its structure and provenance; see its two subclasses."""

    seed: int | None = Field(None, description="Seed of the generation; with `index` it names it.")
    checkpoint: str | None = Field(None, description="Name or path of the weights.")
    checkpoint_hash: str | None = Field(None, description="SHA-256 of the weights.")
    dft: ADiTCalculation | None = Field(None, description="Its DFT result, if one was asked for.")


class ADiTCrystalCandidateDoc(StructureMetadata, ADiTCandidateDoc):
    """A kept crystal."""

    structure: Structure = Field(description="As relaxed; as generated, if nothing relaxed it.")
    generated: Structure = Field(description="As generated.")
    dft_structure: Structure | None = Field(None, description="As the DFT calculation left it.")


class ADiTMoleculeCandidateDoc(MoleculeMetadata, ADiTCandidateDoc):
    """A kept molecule."""

    molecule: Molecule = Field(description="As relaxed; as generated, if nothing relaxed it.")
    generated: Molecule = Field(description="As generated.")
    dft_molecule: Molecule | None = Field(None, description="As the DFT calculation left it.")


class ADiTStageTiming(BaseModel):
    """One stage of the flow."""

    stage: str = Field(description="Name of the stage.")
    started_at: float = Field(description="Start, in seconds since 1970 (Unix time).")
    seconds: float = Field(
        description="Wall-clock time from the start of the stage's first job to the end of its "
        "last, in seconds; waiting in a queue between them counts."
    )
    num_in: int = Field(description="Samples that came in.")
    num_out: int = Field(description="Samples that went on.")


class ADiTStageDoc(BaseModel):
    """Result of one stage of the discovery flow.

    ``samples`` and ``structures`` are kept in the job store's additional store ``data``.
    """

    timing: ADiTStageTiming = Field(description="How long it took, how many went on.")
    samples: list[ADiTSampleFate] = Field(description="All samples, those that ended here too.")
    structures: list[Structure | Molecule | None] | None = Field(
        None,
        description="New structures, in the places that `structure_index` gives; coordinates in "
        "angstrom. None for a stage that makes none.",
    )
    details: dict[str, Any] = Field(
        default_factory=dict, description="What the stage compared to, and with which settings."
    )


class ADiTGivenDoc(BaseModel):
    """Structures a discovery flow was given instead of generating them."""

    structures: list[Structure | Molecule] = Field(description="The structures, as given.")
    samples: list[ADiTSampleRecord] = Field(description="One record for each.")


class ADiTRankingRow(BaseModel):
    """One line of the ranking."""

    rank: int = Field(description="Place, from 1.")
    candidate_id: str = Field(description="Unique name of the candidate.")
    index: int = Field(description="Number of the sample.")
    formula: str = Field(description="Reduced formula (crystal) or full formula (molecule).")
    score: float | None = Field(description="What the ranking sorts by, in eV/atom.")
    energy_above_hull: float | None = Field(None, description="In eV/atom.")
    stability: Stability | None = Field(None, description="By the energy above hull.")
    known_phases: int | None = Field(None, description="Known compounds in its system.")
    strain_energy_per_atom: float | None = Field(None, description="In eV/atom.")
    novel: bool | None = Field(None, description="Whether the reference lacks it.")
    dft_state: str | None = Field(None, description="State of its DFT calculation.")


class ADiTNearHull(BaseModel):
    """How many crystals lie near the convex hull, and what that number is worth."""

    threshold: float = Field(description="Largest energy above hull that counts, in eV/atom.")
    count: int = Field(description="Crystals at most that far above the hull, unknown ones apart.")
    stability: dict[str, int] = Field(
        default_factory=dict, description="How many are stable, metastable, unstable, unknown."
    )
    competitors_known: int = Field(
        0, description="Crystals of which the hull knows what is likely to compete."
    )
    of: int = Field(description="Crystals with a formation energy.")
    bound: Literal["exact", "upper bound", "unknown"] = Field(
        description="'exact': the hull has all known phases; 'upper bound': it has some, and the "
        "others can only lower it, so that of those that it judges no more are so near; 'unknown': "
        "it has no compound."
    )
    hull: str = Field(description="What the hull was built from.")
    null: dict[str, Any] | None = Field(
        None,
        description="The null model of a partial hull: of real compounds (`of`) that are put a "
        "known distance above it, how many pass the same threshold (`passed`, by distance in "
        "eV/atom), though none is metastable.",
    )

    @classmethod
    def of_samples(
        cls,
        samples: Iterable[ADiTSampleFate],
        threshold: float = METASTABLE,
        null: dict[str, Any] | None = None,
    ) -> ADiTNearHull | None:
        """Count, None if no sample has a formation energy."""
        found = [s for s in samples if s.stability is not None]
        if not found:
            return None
        trusted = [s.energy_above_hull for s in found if s.stability != "unknown"]
        source = found[0].hull_source or ""
        bound: Literal["exact", "upper bound", "unknown"] = "upper bound"
        if found[0].hull_complete:
            bound = "exact"
        elif source == ELEMENTS_ONLY:
            bound = "unknown"
        labels = [s.stability for s in found]
        return cls(
            threshold=threshold,
            count=sum(energy is not None and energy <= threshold for energy in trusted),
            stability={label: labels.count(label) for label in STABILITIES},
            competitors_known=sum(bool(s.competitors_known) for s in found),
            of=len(found),
            bound=bound,
            hull=source,
            null=null if null and null["threshold"] == threshold else None,
        )

    def __str__(self) -> str:
        labels = ", ".join(f"{count} {label}" for label, count in self.stability.items())
        text = (
            f"at most {self.threshold:g} eV/atom above the hull: {self.count} of {self.of} "
            f"({self.bound}; {labels}; hull: {self.hull})"
        )
        if self.null is not None:
            shares = [
                f"{number} of {self.null['of']} at {distance}"
                for distance, number in self.null["passed"].items()
            ]
            text += f"\n  real compounds put that far above it that pass too: {', '.join(shares)}"
        return text


class ADiTDiscoveryDoc(BaseModel):
    """Result of a discovery flow: all samples with their fates, and the ranked candidates.

    ``samples`` and ``candidates`` are kept in the job store's additional store ``data``.
    """

    n: int = Field(description="Samples the flow started with.")
    domain: str = Field(description="'crystal' or 'molecule'.")
    funnel: dict[str, int | None] = Field(
        description="Samples left after each stage; None for a stage that was not asked for."
    )
    fates: dict[str, int] = Field(description="How many samples had which fate; they add up to n.")
    near_hull: ADiTNearHull | None = Field(
        None, description="Crystals near the hull; None if none has an energy above it."
    )
    ranking: list[ADiTRankingRow] = Field(description="The candidates, best first, in short.")
    candidates: list[ADiTCrystalCandidateDoc | ADiTMoleculeCandidateDoc] = Field(
        description="The candidates, best first, with structures and provenance."
    )
    samples: list[ADiTSampleFate] = Field(description="All samples, in order of their index.")
    timings: list[ADiTStageTiming] = Field(description="Wall-clock times of the stages.")
    seconds: float = Field(description="Time from the start of the flow to its end, in seconds.")
    details: dict[str, dict[str, Any]] = Field(
        description="By stage, what it compared to and with which settings."
    )
    stage_uuids: dict[str, str] = Field(description="Uuids of the first job of each stage.")

    def summary(self) -> str:
        """Return the funnel, the fates and the stage timings as text."""
        width = max(len(name) for name in [*self.funnel, *self.fates, "among the stages"])
        lines = [f"discovery of {self.domain}s: {self.n} samples in {self.seconds:.1f} s"]
        lines += [
            f"  {name:<{width}} {'not asked' if count is None else count:>9}"
            for name, count in self.funnel.items()
        ]
        lines += ["fates:", *(f"  {name:<{width}} {n:>9}" for name, n in self.fates.items())]
        lines += [str(self.near_hull)] if self.near_hull else []
        lines += ["stages:"]
        lines += [
            f"  {timing.stage:<{width}} {timing.seconds:>8.1f} s  "
            f"({timing.num_in} in, {timing.num_out} out)"
            for timing in self.timings
        ]
        return "\n".join(lines)
