"""Stages of the discovery flow that rank: energy above hull, strain energy."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobflow import Job, Maker, job

from adit_atomate.discovery.documents import ADiTSampleFate, ADiTStageDoc
from adit_atomate.discovery.stages import (
    STAGE_DATA,
    close_stage,
    flatten,
    open_samples,
    pending,
    structure_of,
)
from adit_atomate.settings import ADiTSettings, check_workers
from adit_model.data.http import DownloadError
from adit_model.data.materials_project import has_key
from adit_model.data.phases import is_known, known_splits, without_none
from adit_model.quality.force_fields import ElementReferences, force_field_of, references_for
from adit_model.quality.hull import (
    FAR_BELOW,
    MATERIALS_PROJECT,
    MP2020,
    Hull,
    check_formation_energy,
    check_scale,
    rank_key,
)
from adit_model.systems import AtomicSystem

logger = logging.getLogger(__name__)

GO_ON = (
    "What was relaxed is in the job store: run this job again where there is internet "
    "(lpad rerun_fws, jf job rerun; adit_atomate.resume(store) after run_locally)"
)


@dataclass
class ADiTHullMaker(Maker):
    """Find how far crystals lie above the convex hull of known phases.

    The formation energy is that of the relaxation, from the energies of the elements as the same
    calculator gives them. A crystal without an answer (no reference energy of an element, say)
    goes on with the reason, and is ranked last. Each is named stable, metastable, unstable or
    unknown; see :class:`adit_model.quality.hull.HullResult`. Unknown ones (nothing but elements is
    known to compete, or they lie more than 0.1 eV/atom below the hull) are ranked after the stable
    and metastable ones and before the others.

    Parameters
    ----------
    name : str
        Name of the jobs.
    hull : str, list of str or None
        ``"known"``, the phases of the package, and CSV files of known phases, see
        :meth:`adit_model.quality.hull.Hull.from_csv`; or ``"mp"`` or ``"materials-project"`` to
        ask there, with an API key. By default the setting ``ADIT_HULL``, which is ``"known"``
        unless set. For SevenNet-0, whose energies are on another scale, the job computes the known
        phases near the hull by it. None or ``"none"``: no compound has an energy above hull, and
        they are ranked by their formation energy.
    element_energies : dict or None
        Energy of each element in eV/atom, as ``relax_maker`` gives it for the stable form. Known
        for CHGNet and SevenNet-0; needed for other calculators.
    scale : str
        Energy scale of these, so that it is not compared to a hull of another one; see
        :class:`adit_model.quality.hull.Hull`.
    """

    name: str = "ADiT energy above hull"
    hull: str | list[str] | None = field(default_factory=lambda: ADiTSettings().HULL)
    element_energies: dict[str, float] | None = None
    scale: str = ""

    def make(self, structures: list[Any], samples: list[Any]) -> Job:
        """Make a job that fills in formation energies, energies above hull and scores.

        Parameters
        ----------
        structures, samples : list
            See :mod:`adit_atomate.discovery.stages`.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or energies of its scale cannot be compared to.
        """
        sources = self._sources()
        if sources:
            check_scale(MP2020, self.scale)
        if len(sources) > 1 and set(sources) & set(MATERIALS_PROJECT):
            raise ValueError(f"the hull is of files or of the Materials Project, got {sources}")
        if set(sources) & set(MATERIALS_PROJECT) and not has_key():
            logger.warning(
                "the hull is asked of the Materials Project when all is relaxed: the node that "
                "runs %r needs MP_API_KEY, which is not set here, and internet",
                self.name,
            )
        for path in self._files():
            if is_known(path):
                known_splits(path)
            elif not Path(path).is_file():
                raise FileNotFoundError(f"there is no file {path} to build the hull from")
        return replace(self, hull=self._files() or sources)._make(structures, samples)

    def _sources(self) -> list[str]:
        return without_none(self.hull)

    def _files(self) -> list[str]:
        sources = self._sources()
        if set(sources) & set(MATERIALS_PROJECT):
            return []
        return [
            path if is_known(path) else str(Path(path).expanduser().resolve()) for path in sources
        ]

    @job(output_schema=ADiTStageDoc, data=STAGE_DATA)
    def _make(self, structures: list[Any], samples: list[Any]) -> ADiTStageDoc:
        started = time.time()
        flat, opened = flatten(structures), open_samples(samples)
        coming = pending(opened)
        crystals = [structure_of(sample, flat) for sample in coming]
        compositions = [crystal.composition for crystal in crystals]
        hull = self._hull(coming, crystals)
        for sample, composition in zip(coming, compositions, strict=True):
            self._place(sample, composition, hull)
        return close_stage(
            "energy above hull",
            started,
            len(coming),
            opened,
            hull=hull.source,
            complete=hull.complete,
            phases=len(hull),
            null=hull.null_rates() if len(hull) and not hull.complete else None,
        )

    def _hull(self, samples: Sequence[ADiTSampleFate], crystals: Sequence[Any]) -> Hull:
        sources, files = self._sources(), self._files()
        if not sources:
            return Hull.of_elements(self.scale)
        if not files:
            systems = sorted({crystal.composition.chemical_system for crystal in crystals})
            try:
                return Hull.from_materials_project(systems)
            except DownloadError as error:
                raise DownloadError(f"{error}. {GO_ON}") from error
        relaxed = [sample.relaxation for sample in samples if sample.relaxation is not None]
        fields = {force_field_of(relaxation.calculator) for relaxation in relaxed}
        field = fields.pop() if len(fields) == 1 and self.element_energies is None else None
        if field is None or field.scale == MP2020:
            return Hull.from_csv(files)
        from adit_model.quality.energies import make_hull
        from adit_model.quality.rows import Options

        systems = [AtomicSystem.from_structure(crystal) for crystal in crystals]
        return make_hull(field.name, files, systems, Options(workers=check_workers(len(systems))))

    def _place(self, sample: ADiTSampleFate, composition: Any, hull: Hull) -> None:
        sample.hull_source, sample.hull_complete = hull.source, hull.complete
        relaxation = sample.relaxation
        if relaxation is None or relaxation.energy_per_atom is None:
            sample.hull_reason = "it has no energy: it was not relaxed"
            return
        elements = references_for(relaxation.calculator)
        if self.element_energies is not None:
            elements = ElementReferences("element_energies", self.scale, self.element_energies)
        if elements is None:
            sample.hull_reason = (
                f"no energies of the elements by {relaxation.calculator}: give element_energies"
            )
            return
        try:
            energy = elements.formation_energy(composition, relaxation.energy_per_atom)
            sample.formation_energy_per_atom = energy
            check_formation_energy(energy)
            found = hull.above(composition, energy, scale=elements.scale)
        except ValueError as error:
            sample.hull_reason = str(error)
            return
        above = sample.energy_above_hull = found.energy_above_hull
        sample.score = energy if above is None else above
        sample.hull_reason = found.reason
        sample.competing_phases = found.competing or None
        sample.known_phases = found.known_phases
        sample.competitors_known = found.competitors_known
        sample.stability = found.stability
        if above is not None and above < FAR_BELOW:
            sample.notes.append(
                f"{-above:.2f} eV/atom below the hull: it probably lacks the phases that compete, "
                "or the force field fails, so the energy says little"
            )


@dataclass
class ADiTStrainMaker(Maker):
    """Rank molecules by their strain: the energy per atom that the relaxation released.

    It compares molecules of any composition, and tells how near to a minimum the model put its
    atoms; it is no stability. A molecule without it is ranked last.

    Parameters
    ----------
    name : str
        Name of the jobs.
    """

    name: str = "ADiT strain energy"

    @job(output_schema=ADiTStageDoc, data=STAGE_DATA)
    def make(self, structures: list[Any], samples: list[Any]) -> ADiTStageDoc:
        """Fill in strain energies and scores.

        Parameters
        ----------
        structures, samples : list
            See :mod:`adit_atomate.discovery.stages`.
        """
        started = time.time()
        opened = open_samples(samples)
        coming = pending(opened)
        for sample in coming:
            relaxation = sample.relaxation
            change = None if relaxation is None else relaxation.energy_change_per_atom
            if change is not None:
                sample.strain_energy_per_atom = sample.score = -change
        return close_stage("strain energy", started, len(coming), opened)


def rank(samples: Sequence[ADiTSampleFate]) -> list[ADiTSampleFate]:
    """Sort as :func:`rank_key` says; equal ones by index."""
    return sorted(samples, key=lambda s: (*rank_key(s.score, s.stability), s.index))
