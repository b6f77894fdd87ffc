"""Makers of jobs that predict structures of a formula, and that complete partial structures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jobflow import Job, JobConfig, Maker, OutputReference, job

from adit_atomate.documents import ADiTCheckpoint, ADiTPredictDoc
from adit_atomate.settings import ADiTSettings
from adit_model.checkpoint import BUNDLED, read_known, resolve_checkpoint
from adit_model.conditions.condition import Condition
from adit_model.files import package_versions
from adit_model.prediction.candidates import BESIDE, MOVED, SYMMETRY
from adit_model.prediction.complete import Completion, Task, read_add, task
from adit_model.prediction.predict import Prediction, Question, formula_condition, question

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Molecule, Structure

    from adit_model.model import ADiT

PREDICT_DATA = [["output", "structures"], ["output", "beside"], ["output", "rows"]]


@dataclass
class _Sampling(Maker):
    """What both Makers take of the sampler."""

    name: str = "ADiT"
    checkpoint: str = field(default_factory=lambda: ADiTSettings().CHECKPOINT)
    seed: int = 0
    num_steps: int | None = None
    solver: str | None = None
    guidance_scale: float | str | dict[str, float] | None = None
    noise_scale: float | str | dict[str, float] | None = None
    symmetry: str | None = None
    device: str = "auto"
    batch_atoms: int | None = None
    workers: int | None = None

    def _options(self) -> dict[str, Any]:
        names = ("seed", "num_steps", "solver", "guidance_scale", "noise_scale", "symmetry")
        return {name: getattr(self, name) for name in names}

    def _anywhere(self) -> Any:
        """Return the Maker with the absolute path of its checkpoint: jobs run in other folders."""
        if self.checkpoint in BUNDLED:
            return self
        return replace(self, checkpoint=str(resolve_checkpoint(self.checkpoint).resolve()))

    def _load(self) -> tuple[ADiT, dict[str, Any]]:
        from adit_model.model import ADiT

        settings = ADiTSettings()
        device = settings.DEVICE if self.device == "auto" else self.device
        return ADiT.load(self.checkpoint, device=device), {
            "workers": self.workers or settings.SAMPLE_WORKERS,
            "batch_atoms": self.batch_atoms or settings.BATCH_ATOMS,
            "progress": False,
        }

    def _document(self, model: ADiT, found: Prediction | Completion) -> ADiTPredictDoc:
        more: dict[str, Any] = {}
        if isinstance(found, Prediction):
            beside = [candidate.system.to_pymatgen() for candidate in found.beside]
            more = {"beside": beside, "found": found.found}
        return ADiTPredictDoc(
            structures=[c.system.to_pymatgen() for c in found.candidates],
            rows=found.rows(),
            dropped={str(index): reason for index, reason in found.dropped.items()},
            summary=found.summary(),
            asked=(found.question if isinstance(found, Prediction) else found.task).as_dict(),
            checkpoint=ADiTCheckpoint(
                name=self.checkpoint,
                hash=model.checkpoint_hash,
                licence=model.metadata.get("licence"),
            ),
            versions=package_versions(),
            **more,
        )


@dataclass
class ADiTPredictMaker(_Sampling):
    """Predict structures of a formula: generate, screen, relax, join, rank, symmetrise.

    Half of the candidates of a crystal are structure types of known crystals with near elements,
    and the known crystals of the composition stand beside. A molecule's formula gives
    constitutional isomers. For relaxations and calculations in jobs of their own, see
    :class:`~adit_atomate.discovery.flow.ADiTDiscoveryMaker` with a ``condition``.

    Parameters
    ----------
    name : str
        Name of the jobs.
    checkpoint, seed, num_steps, solver, guidance_scale, noise_scale, symmetry
        See :class:`~adit_atomate.generate.ADiTGenerateMaker`.
    device, batch_atoms, workers
        See :class:`~adit_atomate.generate.ADiTGenerateMaker`.
    candidates : int
        Structures to take.
    relax : str or None
        ``"chgnet"`` or ``"sevennet"`` for crystals, ``"xtb"`` for molecules, ``"none"``; None
        takes the first of the domain.
    domain : str or None
        Where the formula allows both: by default a molecule if it holds carbon or hydrogen.
    known : int
        Known crystals beside the candidates.
    types : int or None
        How many of the candidates are structure types; None: half of them.
    symmetry_tolerance, most_moved : float
        Of symmetrising, in angstrom: what counts as equivalent (0 leaves all as it is), and how
        far an atom may be moved.

    Examples
    --------
    >>> from adit_atomate import ADiTPredictMaker
    >>> job = ADiTPredictMaker(candidates=40, relax="none").make("TiO2")
    >>> job.name
    'ADiT predict'
    """

    name: str = "ADiT predict"
    candidates: int = 20
    relax: str | None = None
    domain: str | None = None
    known: int = BESIDE
    types: int | None = None
    symmetry_tolerance: float = SYMMETRY
    most_moved: float = MOVED

    def make(self, formula: str | Condition) -> Job:
        """Make a job that predicts the structures of a formula.

        Parameters
        ----------
        formula : str or Condition
            ``"LiMn3O4"``, ``"TiO2, units=2"``, or any condition with a formula.

        Returns
        -------
        Job
            Its output is an :class:`~adit_atomate.documents.ADiTPredictDoc`.

        Raises
        ------
        ValueError, TypeError
            If the weights cannot make it, or a field of the Maker is out of range.
        """
        condition = formula_condition(formula)
        maker = self._anywhere()
        replace(maker, relax="none")._question(condition)  # what relaxes is where the job runs
        return maker._predict(str(condition))

    @job(
        output_schema=ADiTPredictDoc,
        config=JobConfig(expose_store=True),
        data=PREDICT_DATA,
    )
    def _predict(self, formula: str) -> ADiTPredictDoc:
        from adit_model.prediction.predict import predict

        asked = self._question(formula_condition(formula))
        model, how = self._load()
        return self._document(model, predict(model, asked, **how))

    def _question(self, condition: Condition) -> Question:
        if self.domain is not None:
            condition = replace(condition, domain=self.domain)
        return question(
            *read_known(resolve_checkpoint(self.checkpoint)),
            condition,
            self.candidates,
            engine=self.relax,
            beside=self.known,
            tolerance=self.symmetry_tolerance,
            most=self.most_moved,
            types=self.types,
            **self._options(),
        )


@dataclass
class ADiTCompleteMaker(_Sampling):
    """Add atoms to a crystal or molecule whose own atoms and cell are fixed.

    Parameters
    ----------
    name : str
        Name of the jobs.
    checkpoint, seed, num_steps, solver, guidance_scale, noise_scale, symmetry
        See :class:`~adit_atomate.generate.ADiTGenerateMaker`.
    device, batch_atoms, workers
        See :class:`~adit_atomate.generate.ADiTGenerateMaker`.
    add : dict, str or int
        ``{"Li": 2}``, ``"Li2"``, or a number of atoms whose elements are free.
    candidates : int
        Structures to generate.
    fixed : list, str or None
        Which atoms of the host are fixed: indices, a mask, or elements; None fixes all.
    relax : str or None
        What relaxes the added atoms, and then all: as of :class:`ADiTPredictMaker`;
        ``"none"`` keeps the host as it was.

    Examples
    --------
    >>> from adit_atomate import ADiTCompleteMaker
    >>> maker = ADiTCompleteMaker(add={"Li": 1}, candidates=5)
    >>> maker.name
    'ADiT complete'
    """

    name: str = "ADiT complete"
    add: Any = None
    candidates: int = 10
    fixed: Any = None
    relax: str | None = "none"

    def make(self, structure: Structure | Molecule | Atoms | OutputReference) -> Job:
        """Make a job that completes a structure.

        Parameters
        ----------
        structure : Structure, Molecule, ase.Atoms or OutputReference
            The host.

        Returns
        -------
        Job
            Its output is an :class:`~adit_atomate.documents.ADiTPredictDoc`.

        Raises
        ------
        ValueError, TypeError
            If the host cannot be completed, or a field of the Maker is out of range.
        """
        from adit_atomate.training.data import storable

        maker = self._anywhere()
        read_add(self.add)
        structure = storable(structure)
        if not isinstance(structure, OutputReference):
            replace(maker, relax="none")._task(structure)
        return maker._complete(structure)

    @job(
        output_schema=ADiTPredictDoc,
        config=JobConfig(expose_store=True),
        data=PREDICT_DATA,
    )
    def _complete(self, structure: Structure | Molecule) -> ADiTPredictDoc:
        from adit_model.prediction.complete import complete

        asked = self._task(structure)
        model, how = self._load()
        return self._document(model, complete(model, asked, **how))

    def _task(self, structure: Structure | Molecule) -> Task:
        return task(
            *read_known(resolve_checkpoint(self.checkpoint)),
            structure,
            self.add,
            self.candidates,
            fixed=self.fixed,
            engine=self.relax,
            **self._options(),
        )
