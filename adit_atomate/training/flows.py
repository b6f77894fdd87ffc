"""Flows that train: from structures to a checkpoint, and from a checkpoint to a better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobflow import Flow, Job, Maker, OutputReference, job

from adit_atomate.paths import absolute_checkpoint, run_folder
from adit_atomate.settings import check_fields
from adit_atomate.training.data import ADiTDataMaker
from adit_atomate.training.documents import ADiTPartRecord, ADiTTrainedCheckpoint
from adit_atomate.training.report import ADiTTrainReportMaker
from adit_atomate.training.stages import ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker
from adit_model.checkpoint import read_known, resolve_checkpoint
from adit_model.conditions.condition import read_property_names

AUTOENCODERS = ("frozen", "decoder", "full")


def stage_1_maker() -> ADiTTrainAutoencoderMaker:
    """Return stage 1 of the size ``mini``, with the schedule of examples/training/mini.yaml."""
    schedule = {"steps": 3000, "learning_rate": 2e-3, "decay_start": 0.3, "crystal_fraction": 0.8}
    return ADiTTrainAutoencoderMaker(training=schedule)


def stage_2_maker() -> ADiTTrainDenoiserMaker:
    """Return stage 2 of the size ``mini``, with the schedule of examples/training/mini.yaml."""
    schedule = {
        "steps": 40_000,
        "optimizer": "muon",
        "learning_rate": 2.4e-3,
        "decay_start": 0.3,
        "crystal_fraction": 0.4,
    }
    return ADiTTrainDenoiserMaker(training=schedule)


def fine_tune_maker() -> ADiTTrainDenoiserMaker:
    """Return stage 2 with a short schedule of smaller steps."""
    schedule = {
        "steps": 1000,
        "optimizer": "muon",
        "learning_rate": 5e-4,
        "decay_start": 0.3,
    }
    return ADiTTrainDenoiserMaker(name="ADiT fine-tune denoiser", training=schedule)


@dataclass
class ADiTTrainMaker(Maker):
    """Train a model from structures: data, stage 1, stage 2, report.

    Parameters
    ----------
    name : str
        Name of the flow.
    data_maker : ADiTDataMaker
        Filters and splits the structures.
    autoencoder_maker, denoiser_maker : ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker
        Train the stages; their limits of time or steps make chains of jobs.
    report_maker : ADiTTrainReportMaker
        Measures the model, and registers it if it has a name to give.

    Examples
    --------
    >>> from adit_atomate import ADiTTrainMaker
    >>> flow = ADiTTrainMaker().make(["my_structures/"])
    >>> [job.name for job in flow.jobs]
    ['ADiT data', 'ADiT train autoencoder', 'ADiT train denoiser', 'ADiT training report']
    """

    name: str = "ADiT train"
    data_maker: ADiTDataMaker = field(default_factory=ADiTDataMaker)
    autoencoder_maker: ADiTTrainAutoencoderMaker = field(default_factory=stage_1_maker)
    denoiser_maker: ADiTTrainDenoiserMaker = field(default_factory=stage_2_maker)
    report_maker: ADiTTrainReportMaker = field(default_factory=ADiTTrainReportMaker)

    def make(self, sources: Sequence[Any]) -> Flow:
        """Make a flow that ends in a checkpoint.

        Parameters
        ----------
        sources : sequence
            As :meth:`ADiTDataMaker.make` takes them.

        Returns
        -------
        Flow
            Its output is an :class:`~adit_atomate.training.documents.ADiTTrainReport`;
            ``flow.output.checkpoint.path`` is the model.

        Raises
        ------
        ValueError, TypeError
            If a field of a Maker is wrong.
        """
        names = ("data_maker", "autoencoder_maker", "denoiser_maker", "report_maker")
        check_fields(self, **dict.fromkeys(names, Maker))
        data = self.data_maker.make(sources)
        train, held_out = data.output.train_paths, data.output.validation_paths
        stage_1 = self.autoencoder_maker.make(train, held_out)
        stage_2 = self.denoiser_maker.make(train, stage_1.output.checkpoint.path, held_out)
        report = self.report_maker.make(
            {"autoencoder": stage_1.output, "denoiser": stage_2.output},
            stage_2.output.checkpoint.path,
            data.output,
        )
        return Flow([data, stage_1, stage_2, report], output=report.output, name=self.name)


@dataclass
class ADiTFineTuneMaker(Maker):
    """Go on from a trained model on new structures, without forgetting the earlier ones.

    Parameters
    ----------
    name : str
        Name of the flow.
    checkpoint : str
        Model to start from.
    properties : list of str or dict
        What can be asked for afterwards, beside what the model knows: columns of numbers of a CSV
        file, keys of an extended XYZ file or an ASE database, paths into task documents.
        ``["bulk_modulus"]``, or ``{"bulk_modulus": "GPa"}`` with units. NaN is unknown.
    only_conditions : bool
        Train only how conditions are taken in: properties are learned fast, and what is made with
        nothing told stays as it is.
    autoencoder : str
        ``"frozen"`` keeps stage 1; ``"decoder"`` trains its decoder alone, so the latents stay as
        they are; ``"full"`` trains all of it, which elements that it has not seen need.
    data_maker : ADiTDataMaker
        Filters and splits the new structures; its ``replay`` names the earlier ones that are mixed
        in.
    autoencoder_maker, denoiser_maker : ADiTTrainAutoencoderMaker, ADiTTrainDenoiserMaker
        Train the stages; their ``model`` is that of the checkpoint.
    report_maker : ADiTTrainReportMaker
        Measures the model, and registers it if it has a name to give.

    Examples
    --------
    >>> from adit_atomate import ADiTDataMaker, ADiTFineTuneMaker
    >>> maker = ADiTFineTuneMaker(data_maker=ADiTDataMaker(replay=["qm9:train"]))
    >>> [job.name for job in maker.make(["my_structures/"]).jobs]
    ['ADiT data', 'ADiT starting weights', 'ADiT fine-tune denoiser', 'ADiT training report']
    """

    name: str = "ADiT fine-tune"
    checkpoint: str = "default"
    properties: Sequence[str] | dict[str, str] = field(default_factory=list)
    only_conditions: bool = False
    autoencoder: str = "frozen"
    data_maker: ADiTDataMaker = field(default_factory=ADiTDataMaker)
    autoencoder_maker: ADiTTrainAutoencoderMaker = field(default_factory=stage_1_maker)
    denoiser_maker: ADiTTrainDenoiserMaker = field(default_factory=fine_tune_maker)
    report_maker: ADiTTrainReportMaker = field(default_factory=ADiTTrainReportMaker)

    def make(self, sources: Sequence[Any], checkpoint: str | OutputReference | None = None) -> Flow:
        """Make a flow that ends in a checkpoint.

        Parameters
        ----------
        sources : sequence
            As :meth:`ADiTDataMaker.make` takes them.
        checkpoint : str or OutputReference, optional
            Instead of the Maker's, such as ``job.output.checkpoint.path`` of an earlier flow.

        Returns
        -------
        Flow
            Its output is an :class:`~adit_atomate.training.documents.ADiTTrainReport`.

        Raises
        ------
        ValueError, TypeError
            If a field of a Maker is wrong, or there is no such checkpoint.
        """
        check_fields(
            self,
            data_maker=ADiTDataMaker,
            autoencoder_maker=ADiTTrainAutoencoderMaker,
            denoiser_maker=ADiTTrainDenoiserMaker,
            report_maker=Maker,
        )
        if self.autoencoder not in AUTOENCODERS:
            raise ValueError(
                f"autoencoder must be one of {', '.join(AUTOENCODERS)}, got {self.autoencoder!r}"
            )
        name = absolute_checkpoint(self.checkpoint if checkpoint is None else checkpoint)
        read_property_names(self.properties)
        told = self.properties or self.only_conditions
        if self.only_conditions and self.autoencoder != "frozen":
            raise ValueError("only_conditions trains no autoencoder: leave it 'frozen'")
        if told and isinstance(name, str):
            _, config = read_known(resolve_checkpoint(name))
            if not config.denoiser.conditions:
                raise ValueError(
                    f"the weights {name} cannot learn properties: start from checkpoint='mini-2'"
                )
        wanted = list(dict.fromkeys([*self.data_maker.properties, *self.properties]))
        data = replace(self.data_maker, properties=wanted).make(sources)
        train, held_out = data.output.train_paths, data.output.validation_paths
        share = data.output.crystal_fraction
        parts = [data.output.train, data.output.validation]
        start = starting_weights(name, parts, self.autoencoder)
        start.name = "ADiT starting weights"
        jobs: list[Job | Flow] = [data, start]
        stages: dict[str, Any] = {}
        stage_1 = start.output.path
        if self.autoencoder != "frozen":
            frozen = {"freeze_encoder": self.autoencoder == "decoder"}
            maker = replace(
                self.autoencoder_maker, training={**self.autoencoder_maker.training, **frozen}
            )
            tune_1 = maker.make(train, held_out, start.output.path, share)
            jobs.append(tune_1)
            stages["autoencoder"] = tune_1.output
            stage_1 = tune_1.output.checkpoint.path
        maker_2 = self.denoiser_maker
        if self.properties:
            maker_2 = replace(maker_2, properties=self.properties)
        if self.only_conditions:
            rate = {"learning_rate": 1e-3} if maker_2.training == fine_tune_maker().training else {}
            options = {**maker_2.training, **rate, "only_conditions": True}
            maker_2 = replace(maker_2, training=options)
        tune_2 = maker_2.make(train, stage_1, held_out, start.output.path, share)
        stages["denoiser"] = tune_2.output
        report = self.report_maker.make(stages, tune_2.output.checkpoint.path, data.output)
        jobs += [tune_2, report]
        return Flow(jobs, output=report.output, name=self.name)


@job(output_schema=ADiTTrainedCheckpoint)
def starting_weights(
    checkpoint: str, parts: list[ADiTPartRecord | None], autoencoder: str = "full"
) -> ADiTTrainedCheckpoint:
    """Take a checkpoint as it is, or with more elements if the data hold some it has no place for.

    Parameters
    ----------
    checkpoint : str
        Model to start from.
    parts : list of ADiTPartRecord
        Parts of the data.
    autoencoder : str
        How much of stage 1 will be trained.

    Raises
    ------
    ValueError
        If the data hold elements without a place, and stage 1 is not to learn them.
    """
    from ase.data import atomic_numbers

    from adit_atomate.training.documents import describe_checkpoint
    from adit_model.checkpoint import read_metadata, resolve_checkpoint
    from adit_model.config import ModelConfig
    from adit_model.model import ADiT
    from adit_model.training.finetune import with_elements

    config = ModelConfig.from_dict(read_metadata(resolve_checkpoint(checkpoint))["config"])
    symbols = [symbol for part in parts if part is not None for symbol in part.elements]
    needed = max(atomic_numbers[symbol] for symbol in symbols) + 1
    if needed <= config.autoencoder.num_elements:
        return describe_checkpoint(checkpoint)
    if autoencoder != "full":
        new = sorted({s for s in symbols if atomic_numbers[s] >= config.autoencoder.num_elements})
        raise ValueError(
            f"{checkpoint} has no place for {', '.join(new)}: leave them out by exclude_elements, "
            f"or learn them with autoencoder='full' (it is {autoencoder!r})"
        )
    path = run_folder(None, "start") / "start.safetensors"
    with_elements(ADiT.load(checkpoint, device="cpu"), needed).save(path)
    return describe_checkpoint(path)
