"""Maker of a job that evaluates structures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow import CURRENT_JOB, Job, JobConfig, Maker, OutputReference, job

from adit_atomate.documents import ADiTEvaluateDoc
from adit_atomate.settings import check_workers
from adit_atomate.stores import check_job_store
from adit_model.data.phases import KNOWN, is_known, without_none
from adit_model.data.sources import absolute_source
from adit_model.systems import DOMAINS

if TYPE_CHECKING:
    from adit_model.quality.entries import Entry
    from adit_model.quality.measures import Measure
    from adit_model.quality.run import Evaluation

EVALUATE_DATA = [["output", "rows"]]
BYTES_PER_ROW = 1300  # of a stored row with all measures, measured


@dataclass
class ADiTEvaluateMaker(Maker):
    """Evaluate crystals and molecules as ``adit evaluate`` does.

    The job writes a row for each structure, a summary, a report and pictures to a folder, and
    returns all but the pictures.

    Parameters
    ----------
    name : str
        Name of the jobs.
    reference : list of str
        Known structures: what is not there is novel. Paths and names of data sets, see
        ``adit data --help``. By default ``["known"]``, the crystals and molecules of the package;
        empty: nothing is said of novelty.
    compare_to : list of str
        Held-out data to compare distributions to; by default the reference, unless it is
        ``["known"]``.
    compare_number : int
        Structures drawn from it.
    skip : list of str
        Measures to leave out, such as ``"posebusters"``, which takes a second for each molecule.
    also : list of str
        Measures that are left out by default: ``"xtb"``, the strain of molecules, and
        ``"coverage"`` of the data by crystals.
    energies : list of str
        Force fields that relax the crystals: ``"chgnet"``, ``"sevennet"``; half a minute or more
        for each crystal. The extra of the same name is needed where the job runs.
    hull : list
        Known phases, of which the energy above hull is: ``["known"]`` (the default), those of the
        package; CSV files with ``formation_energy_per_atom`` and ``e_above_hull``; ``["mp"]``, the
        Materials Project, with an API key where the job runs; or ``ComputedEntry`` objects,
        elements among them, on the energy scale of the one force field (for CHGNet that of
        MP2020). Empty: there is no energy above hull.
    plot : bool
        Draw pictures.
    folder : str or None
        Where to write. A job that was cut off goes on from what is there if it is run again with
        the same folder. None takes ``adit_evaluation/UUID`` in the folder the job runs in.

    Examples
    --------
    >>> from adit_atomate import ADiTEvaluateMaker, ADiTGenerateMaker
    >>> generate = ADiTGenerateMaker(domain="molecule").make(n=20)
    >>> evaluate = ADiTEvaluateMaker(skip=["posebusters"])
    >>> job = evaluate.make(generate.output.structures, generate.output.samples)
    >>> job.name
    'ADiT evaluate'
    """

    name: str = "ADiT evaluate"
    reference: list[str] = field(default_factory=lambda: [KNOWN])
    compare_to: list[str] = field(default_factory=list)
    compare_number: int = 2000
    skip: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    energies: list[str] = field(default_factory=list)
    hull: list[Any] = field(default_factory=lambda: [KNOWN])
    plot: bool = True
    folder: str | None = None

    def make(
        self,
        structures: Sequence[Any] | OutputReference | str | Path,
        samples: Sequence[Any] | OutputReference | None = None,
    ) -> Job:
        """Make a job that evaluates structures.

        Parameters
        ----------
        structures : list, OutputReference, str or Path
            Structures and Molecules, such as ``output.structures`` of a generating job (or one
            such list for each of several jobs); or a path: a folder of ``adit generate``, or any
            file or data set that ``adit evaluate`` takes.
        samples : list or OutputReference, optional
            ``output.samples`` of the same job or jobs: then samples that could not be decoded
            have a row, too, and do not count as valid.

        Returns
        -------
        Job
            Its output is an :class:`~adit_atomate.documents.ADiTEvaluateDoc`.

        Raises
        ------
        ValueError, TypeError, FileNotFoundError
            If a source does not exist, or a field of the Maker is wrong.
        """
        self._check()
        if isinstance(structures, str | Path):
            if samples is not None:
                raise ValueError("samples belong to structures of a job, not to a path")
            structures = absolute_source(str(structures))
        # Jobs may run in other folders, so paths must be absolute.
        maker = replace(
            self,
            reference=[absolute_source(spec) for spec in without_none(self.reference)],
            compare_to=[absolute_source(spec) for spec in self.compare_to],
            hull=[_absolute_hull(source) for source in without_none(self.hull)],
            folder=self.folder and str(Path(self.folder).expanduser().resolve()),
        )
        return maker._evaluate(structures, samples)

    @job(output_schema=ADiTEvaluateDoc, config=JobConfig(expose_store=True), data=EVALUATE_DATA)
    def _evaluate(
        self, structures: Sequence[Any] | str, samples: Sequence[Any] | None
    ) -> ADiTEvaluateDoc:
        measures = self._check()
        from adit_model.files import output_folder
        from adit_model.quality.cells import CellStore
        from adit_model.quality.energies import choose_energies, require_installed
        from adit_model.quality.entries import load_references
        from adit_model.quality.rows import Options
        from adit_model.quality.run import KEPT, evaluate

        require_installed(choose_energies(self.energies, self.hull))
        started = time.perf_counter()
        entries = _entries(structures, samples)
        if CURRENT_JOB.store is not None:
            check_job_store(CURRENT_JOB.store, BYTES_PER_ROW * len(entries))
        folder = self._folder()
        workers = check_workers(len(entries))
        options = Options(CellStore(folder / KEPT), workers, measures=measures)
        with output_folder(folder):
            reference, compared = load_references(self.reference, self.compare_to)
            about = {
                "samples": Path(structures).name if isinstance(structures, str) else self.name,
                "reference": [Path(spec).name for spec in self.reference],
            }
            if self.compare_to:
                about["compared_to"] = ", ".join(Path(spec).name for spec in self.compare_to)
            done = evaluate(
                entries,
                folder,
                options,
                about,
                reference=reference,
                compared=compared,
                compare_number=self.compare_number,
                hull=self.hull,
                plot=self.plot,
            )
        return _document(done, measures, folder, time.perf_counter() - started)

    def _check(self) -> tuple[Measure, ...]:
        """Check all fields, and return the measures to take."""
        from adit_model.quality.energies import choose_energies
        from adit_model.quality.measures import choose_measures

        if self.compare_number < 1:
            raise ValueError(f"compare_number must be positive, got {self.compare_number}")
        for option in ("reference", "compare_to", "skip", "also", "energies", "hull"):
            if isinstance(getattr(self, option), str):
                raise TypeError(f"{option} must be a list, got {getattr(self, option)!r}")
        if self.folder is not None and Path(self.folder).expanduser().is_file():
            raise ValueError(f"{self.folder} is a file, not a folder")
        hull = without_none(self.hull)
        return choose_measures(self.skip, self.also) + choose_energies(self.energies, hull)

    def _folder(self) -> Path:
        if self.folder is not None:
            return Path(self.folder)
        uuid = "" if CURRENT_JOB.job is None else CURRENT_JOB.job.uuid
        return Path("adit_evaluation", uuid).resolve()


def _absolute_hull(source: Any) -> Any:
    from adit_model.quality.hull import MATERIALS_PROJECT

    if not isinstance(source, str | Path) or str(source) in MATERIALS_PROJECT or is_known(source):
        return source
    return str(Path(source).expanduser().resolve())


def _entries(structures: Sequence[Any] | str, samples: Sequence[Any] | None) -> list[Entry]:
    from adit_model.quality.entries import Entry, load_samples, make_entries

    if isinstance(structures, str):
        return load_samples(structures)
    if samples is None:
        return make_entries(_joined(structures))
    groups = [structures] if not _is_nested(samples) else structures
    records = [samples] if not _is_nested(samples) else samples
    entries = []
    for group, part in zip(groups, records, strict=True):
        decoded = make_entries(group)
        for record in part:
            values = record if isinstance(record, dict) else record.model_dump()
            name, place = str(values["index"]), values["structure_index"]
            holds = values.get("holds") or {}
            if place is not None:
                entries.append(replace(decoded[place], id=name, holds=holds))
            else:
                size, formula = values["num_atoms"], values["formula"]
                missing = Entry(
                    name, values["domain"], size, formula, None, values["reason"], holds
                )
                entries.append(missing)
    return entries


def _is_nested(parts: Sequence[Any]) -> bool:
    return bool(parts) and all(isinstance(part, list | tuple) for part in parts)


def _joined(structures: Sequence[Any]) -> list[Any]:
    if _is_nested(structures):
        return [structure for part in structures for structure in part]
    return list(structures)


def _document(
    done: Evaluation, measures: Sequence[Measure], folder: Path, seconds: float
) -> ADiTEvaluateDoc:
    from adit_model.quality.records import DomainCounts
    from adit_model.quality.rows import columns_of

    parts = {domain: done.summary.get(f"{domain}s") for domain in DOMAINS}
    found = {domain: part for domain, part in parts.items() if part}
    columns = columns_of(done.rows, measures)
    return ADiTEvaluateDoc(
        counts={
            domain: DomainCounts(
                requested=part["count"],
                decoded=part["decoded"],
                plausible=(part["rates"]["plausible"] or {}).get("passed"),
            )
            for domain, part in found.items()
        },
        rates={domain: part["rates"] for domain, part in found.items()},
        energies=done.summary.get("crystals", {}).get("energies", {}),
        rows=[{column: row.get(column) for column in columns} for row in done.rows],
        summary=done.summary,
        report=done.report,
        folder=str(folder),
        seconds=seconds,
    )
