"""The Maker that turns structures of any origin into training data."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow import Job, Maker, job

from adit_atomate.paths import check_output, run_folder
from adit_atomate.settings import check_fields
from adit_atomate.training.documents import ADiTDataDoc, ADiTPartRecord, ADiTReplayRecord
from adit_atomate.training.sources import read_sources
from adit_model.conditions.condition import read_property_names
from adit_model.files import csv_row, package_versions

if TYPE_CHECKING:
    from adit_model.data.prepare import Prepared


@dataclass
class ADiTDataMaker(Maker):
    """Read, filter, deduplicate and split structures, and write them as training data.

    Parameters
    ----------
    name : str
        Name of the job.
    options : dict
        Fields of :class:`adit_model.data.prepare.Preparation`: sizes, elements, duplicates and the
        split by composition.
    properties : list of str
        Properties that the data must have: columns of numbers, keys, or paths into the task
        documents of stores and jobs, such as ``["bulk_modulus"]``.
    replay : list of str
        Sources of earlier data to mix in for fine-tuning, such as ``["qm9:train"]``.
    replay_fraction : float
        Share of each batch that they get.
    replay_most : int
        Most earlier systems of each domain.
    output : str or None
        Absolute path of the folder that is written; None takes one named after the job's uuid
        under the setting ``ADIT_TRAINING_DIR``.

    Examples
    --------
    >>> from adit_atomate import ADiTDataMaker
    >>> job = ADiTDataMaker(options={"max_atoms": 20}).make(["qm9:train", "my_structures/"])
    >>> job.name
    'ADiT data'
    """

    name: str = "ADiT data"
    options: dict[str, Any] = field(default_factory=dict)
    properties: list[str] = field(default_factory=list)
    replay: list[str] = field(default_factory=list)
    replay_fraction: float = 0.3
    replay_most: int = 20_000
    output: str | None = None

    def make(self, sources: Sequence[Any]) -> Job:
        """Make a job that writes training data.

        Parameters
        ----------
        sources : sequence
            Each a source by name or path as :func:`adit_model.data.load_source` takes it, a
            :class:`~adit_atomate.training.sources.StoreSource`, a
            ``MaterialsProjectSource``, structures (pymatgen, ASE), or the
            output of other jobs: structures or task documents.

        Returns
        -------
        Job
            Its output is an :class:`~adit_atomate.training.documents.ADiTDataDoc`; ``train_paths``,
            ``validation_paths`` and ``crystal_fraction`` go to the training jobs.

        Raises
        ------
        ValueError, TypeError
            If there are no sources, an ``ase.Atoms`` is periodic in one or two directions, or a
            field of the Maker is out of range.
        """
        from adit_atomate.training.stages import absolute_sources

        if isinstance(sources, str) or not hasattr(sources, "__iter__"):
            raise TypeError(f"sources must be a list, got {sources!r}")
        if not sources:
            raise ValueError("there are no sources")
        self._preparation()
        read_property_names(self.properties)
        check_output(self.output)
        if self.replay and not 0 < self.replay_fraction < 1:
            raise ValueError(
                f"replay_fraction must lie between 0 and 1, got {self.replay_fraction}"
            )
        absolute: list[Any] = []
        for source in sources:
            absolute += (
                absolute_sources([source]) if isinstance(source, str) else [storable(source)]
            )
        return self._prepare(absolute, absolute_sources(self.replay))

    @job(output_schema=ADiTDataDoc)
    def _prepare(self, sources: list[Any], replay: list[str]) -> ADiTDataDoc:
        from adit_model.data import load_source
        from adit_model.data.prepare import check_labels, concatenate, prepare
        from adit_model.training.finetune import mix_replay

        folder = run_folder(self.output, "data")
        folder.mkdir(parents=True, exist_ok=True)
        datasets, properties = read_sources(sources, folder, self.properties)
        names = [dataset.name for dataset in datasets]
        wanted = [n for n in read_property_names(self.properties) if n != "volume_per_atom"]
        check_labels(concatenate(datasets), wanted)
        prepared = prepare(datasets, self._preparation(), " + ".join(names))
        report, crystal_fraction, record = prepared.report(), None, None
        if replay:
            earlier = [load_source(source, progress=False) for source in replay]
            mixed = mix_replay(
                prepared.parts["train"], earlier, self.replay_fraction, most=self.replay_most
            )
            prepared.parts["train"] = mixed.dataset
            crystal_fraction = mixed.crystal_fraction
            record = ADiTReplayRecord(
                sources=replay,
                fraction=self.replay_fraction,
                crystals=mixed.crystals,
                molecules=mixed.molecules,
            )
            report += f"\nmixed in: {mixed.crystals:,} crystals and {mixed.molecules:,} molecules"
        parts = write_parts(prepared, folder)
        write_properties(folder / "properties.csv", properties)
        held_out = parts.get("validation")
        return ADiTDataDoc(
            train=parts["train"],
            validation=held_out,
            test=parts.get("test"),
            train_paths=[parts["train"].path],
            validation_paths=[] if held_out is None else [held_out.path],
            crystal_fraction=crystal_fraction,
            replay=record,
            read=prepared.read,
            dropped=prepared.reasons(),
            report=report,
            folder=str(folder),
            sources=names,
            settings=asdict(self._preparation()),
            versions=package_versions(),
        )

    def _preparation(self) -> Any:
        from adit_model.data.prepare import Preparation

        check_fields(self, options=dict)
        unknown = set(self.options) - set(Preparation.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"unknown option {min(unknown)!r}, known: "
                f"{', '.join(sorted(Preparation.__dataclass_fields__))}"
            )
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.options.items()
        }
        return Preparation(**values)


def storable(source: Any) -> Any:
    """Turn ``ase.Atoms``, also those in a list, into what a job can store: pymatgen's objects."""
    from ase import Atoms

    from adit_model.systems import AtomicSystem

    if isinstance(source, list | tuple):
        return [storable(item) for item in source]
    return AtomicSystem.from_atoms(source).to_pymatgen() if isinstance(source, Atoms) else source


def write_parts(prepared: Prepared, folder: Path) -> dict[str, ADiTPartRecord]:
    """Write the parts of the data and describe them."""
    from ase.data import chemical_symbols

    from adit_model.data.summary import element_counts
    from adit_model.training.poses import dataset_fingerprint

    records = {}
    for name, path in prepared.write(folder).items():
        part = prepared.parts[name]
        crystals = int(part.periodic.sum())
        records[name] = ADiTPartRecord(
            path=str(path),
            fingerprint=dataset_fingerprint(part),
            crystals=crystals,
            molecules=len(part) - crystals,
            atoms=len(part.numbers),
            elements={chemical_symbols[z]: n for z, (_, n) in element_counts(part).items()},
        )
    return records


def write_properties(path: Path, properties: dict[str, dict[str, Any]]) -> None:
    """Write one row for each structure, if any property was asked for."""
    columns = sorted({key for values in properties.values() for key in values})
    if not columns:
        return
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", *columns])
        writer.writeheader()
        for name, values in properties.items():
            writer.writerow(csv_row({"id": name, **values}))
