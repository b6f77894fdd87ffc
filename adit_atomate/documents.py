"""Task documents of the plugin's jobs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from pymatgen.core import Molecule, Structure

from adit_model.quality.records import DomainCounts, SampleRecord
from adit_model.sampling.request import Request


class ADiTSampleRecord(SampleRecord):
    """What became of one sample."""

    structure_index: int | None = Field(
        None,
        description="Place of the sample in `structures` of the document; None if it could not be "
        "decoded.",
    )


class ADiTCheckpoint(BaseModel):
    """The weights that were used."""

    name: str = Field(description="Checkpoint name or path.")
    hash: str = Field(description="SHA-256 of configuration and weights.")
    licence: str | None = Field(None, description="Licence of the weights, if they name one.")


class ADiTTimings(BaseModel):
    """Wall-clock time of each part of a job."""

    load: float = Field(description="Import and loading of the checkpoint, in seconds.")
    sample: float = Field(description="Sampling, in seconds.")
    check: float = Field(description="Checks, in seconds.")


class ADiTRate(BaseModel):
    """A share of structures."""

    passed: int = Field(description="Structures that pass.")
    of: int = Field(description="Structures that it is a share of.")
    share: float = Field(description="Their quotient, 0 to 1.")


class ADiTGenerateDoc(BaseModel):
    """Result of :class:`~adit_atomate.generate.ADiTGenerateMaker`.

    ``structures`` and ``samples`` are kept in the job store's additional store ``data``.
    ``crystals`` and ``molecules`` are properties, so each structure is stored once; in references
    they serve as fields do.
    """

    structures: list[Structure | Molecule] = Field(
        description="All samples that could be decoded, in order of their index, plausible or not; "
        "coordinates in angstrom."
    )
    samples: list[ADiTSampleRecord] = Field(
        description="One record for each sample asked for, in order of the index."
    )
    counts: dict[str, DomainCounts] = Field(description="Counts for each domain.")
    holds: dict[str, ADiTRate] = Field(
        default_factory=dict,
        description="Of what was asked, how often a sample holds it: by part of the condition, "
        "'elements within' (no other elements), 'space_group symmetrised' (in it and plausible "
        "once moved onto its symmetry), 'all', 'all and plausible'.",
    )
    tried: int | None = Field(
        None, description="Samples drawn; more than asked for with `only_holding`."
    )
    request: Request = Field(
        description="What was asked for, with the checkpoint's sampling defaults filled in: `n`, "
        "`condition` as text (or one for each sample), `seed`, `first_index`, `sampling`, "
        "`random_rotation`. With the weights it determines the samples."
    )
    checkpoint: ADiTCheckpoint = Field(description="The weights that were used.")
    timings: ADiTTimings = Field(description="Wall-clock times in seconds.")
    device: str = Field(description="Device the model ran on, as torch names it.")
    versions: dict[str, str] = Field(
        description="Versions of adit-atomate, of Python and of the packages results depend on."
    )

    @property
    def crystals(self) -> list[Structure]:
        """The crystals among ``structures``."""
        return [s for s in self.structures if isinstance(s, Structure)]

    @property
    def molecules(self) -> list[Molecule]:
        """The molecules among ``structures``, charge 0, singlet or doublet."""
        return [s for s in self.structures if isinstance(s, Molecule)]


class ADiTCandidateRow(BaseModel):
    """One candidate, or a known crystal beside the candidates."""

    rank: int | None = Field(description="Place among the candidates; None for a known crystal.")
    source: str = Field(description="'generated', or which known crystal it is or was made from.")
    formula: str = Field(description="Reduced formula (crystal) or full formula (molecule).")
    num_atoms: int = Field(description="Atoms in the cell or molecule.")
    energy_per_atom: float | None = Field(description="Relaxed energy in eV/atom.")
    above_lowest: float | None = Field(description="Above the lowest of all rows, in eV/atom.")
    space_group: int | None = Field(description="Number of the space group of a crystal.")
    smiles: str | None = Field(description="Canonical SMILES of a molecule.")
    known: str | None = Field(description="Id of the known crystal or molecule that is the same.")
    samples: int = Field(description="Samples that became this structure.")
    index: int | None = Field(description="Index of the sample.")
    converged: bool | None = Field(description="Whether the relaxation converged.")
    rmsd: float | None = Field(description="Displacement on relaxation, in angstrom.")
    moved: float | None = Field(
        description="Largest move of an atom in angstrom when it was symmetrised; None if not."
    )


class ADiTPredictDoc(BaseModel):
    """Result of :class:`~adit_atomate.predict.ADiTPredictMaker` and ``ADiTCompleteMaker``.

    ``structures``, ``beside`` and ``rows`` are kept in the additional store ``data``.
    """

    structures: list[Structure | Molecule] = Field(
        description="Different candidates, the lowest in energy first; coordinates in angstrom. "
        "Completions begin with the atoms of the host, in its order."
    )
    beside: list[Structure] = Field(
        default_factory=list, description="Known crystals of the composition."
    )
    rows: list[ADiTCandidateRow] = Field(description="The table: candidates and known crystals.")
    found: dict[str, int | None] = Field(
        default_factory=dict,
        description="Rank of the candidate that is a known crystal, by the crystal's id; None if "
        "none is.",
    )
    dropped: dict[str, str] = Field(
        description="Why a sample or structure type is no candidate, by its index."
    )
    summary: str = Field(description="The result in a few lines.")
    asked: dict[str, Any] = Field(description="What was asked for, filled in.")
    checkpoint: ADiTCheckpoint = Field(description="The weights that were used.")
    versions: dict[str, str] = Field(
        description="Versions of adit-atomate, of Python and of the packages results depend on."
    )


class ADiTNumber(BaseModel):
    """A number of many structures."""

    count: int = Field(description="Structures that have it.")
    median: float | None = Field(None, description="None if there is none.")
    mean: float | None = Field(None, description="None if there is none.")


class ADiTHull(BaseModel):
    """The hull that energies above it are of."""

    source: str = Field(description="Where the known phases come from.")
    complete: bool = Field(
        description="Whether it holds all that the source knows. If not, the true energy "
        "above hull is higher, and the true rate of stable crystals is lower."
    )
    compounds: int = Field(description="Known compounds in it.")


class ADiTHullTrust(BaseModel):
    """What the hull knows of these crystals."""

    of: int = Field(description="Crystals with a formation energy.")
    stable: int = Field(description="Those -0.1 to 0 eV/atom above the hull, converged or not.")
    metastable: int = Field(description="Those above 0, to 0.1 eV/atom above the hull.")
    unstable: int = Field(description="Those more than 0.1 eV/atom above the hull or the elements.")
    unknown: int = Field(
        description="Those of which the hull says nothing: no known compound competes, or lower."
    )
    elements_only: int = Field(
        description="Those that compete with pure elements only: the hull knows no compound near "
        "their composition, and there is no energy above hull."
    )
    far_below: int = Field(
        description="Those more than 0.1 eV/atom below the hull, which tells of missing phases."
    )
    competitors_known: int = Field(
        description="Those of which the hull knows a compound of the same composition, or of each "
        "pair of elements."
    )


class ADiTEnergies(BaseModel):
    """What relaxation by a force field found."""

    model: str = Field(description="The force field and its version.")
    scale: str = Field(description="Energy scale: functional and corrections, or force field.")
    hull: ADiTHull = Field(description="The hull.")
    trust: ADiTHullTrust = Field(description="How far the hull is to be trusted here.")
    null: dict[str, Any] | None = Field(
        None,
        description="The null model of a partial hull: of real compounds (`of`), put a known "
        "distance above it, how many pass for metastable (`passed`, by distance in eV/atom), "
        "though none is.",
    )
    rates: dict[str, ADiTRate | None] = Field(
        description="'converged', 'stable' (-0.1 to 0 eV/atom above the hull), 'metastable' (to "
        "0.1), 'sun' and 'msun' (besides unique and novel; None without a reference): shares "
        "of all crystals, valid or not; a relaxation that failed counts as not passed."
    )
    numbers: dict[str, ADiTNumber] = Field(
        description="'above_hull_initial', 'above_hull', 'formation_energy' (eV/atom), 'rmsd' on "
        "relaxation (angstrom), 'relax_steps'."
    )


class ADiTEvaluateDoc(BaseModel):
    """Result of :class:`~adit_atomate.evaluate.ADiTEvaluateMaker`.

    ``rows`` is kept in the job store's additional store ``data``.
    """

    counts: dict[str, DomainCounts] = Field(description="Counts for each domain.")
    rates: dict[str, dict[str, ADiTRate | None]] = Field(
        description="For each domain the rates of the report, by name; None for those that were "
        "not asked for or have nothing to be a share of."
    )
    energies: dict[str, ADiTEnergies] = Field(
        default_factory=dict,
        description="For each force field that was asked for, what it found of the crystals.",
    )
    rows: list[dict[str, Any]] = Field(
        description="One row for each structure, as in rows.csv: a cell is a value, None where "
        "it does not apply, or a text that says why there is no answer."
    )
    summary: dict[str, Any] = Field(
        description="All rates, also by number of atoms, means, distances to the reference, "
        "failed cells and versions of packages, as in summary.json."
    )
    report: str = Field(description="The report, in Markdown.")
    folder: str = Field(
        description="Where the files are, on the machine that the job ran on; with the same "
        "folder, a job that was cut off goes on from there."
    )
    seconds: float = Field(description="Wall-clock time of the evaluation.")
