"""The Maker that tells what a trained model can do, and gives it a name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jobflow import Job, Maker, OutputReference, job

from adit_atomate.settings import ADiTSettings, check_workers
from adit_atomate.training.documents import (
    ADiTDataDoc,
    ADiTReconstruction,
    ADiTTrainDoc,
    ADiTTrainedCheckpoint,
    ADiTTrainReport,
)
from adit_model.conditions.condition import as_condition
from adit_model.files import package_versions


@dataclass
class ADiTTrainReportMaker(Maker):
    """Sample from a trained model, check the samples and the reconstruction of held-out data.

    Parameters
    ----------
    name : str
        Name of the job.
    n : int
        Samples of each domain the model knows; 0 leaves them out.
    seed : int
        Of the samples.
    num_steps : int or None
        Sampling steps; None takes the checkpoint's default.
    condition : str, Condition or None
        What is asked of the samples, ``"Li-P-S"``, of the domains in which it can be met.
    reconstruct : int
        Most structures of the validation data that are encoded and decoded; 0 leaves them out.
    register_as : str or None
        Name that the checkpoint is registered under, so that any Maker finds it by that name; see
        :func:`adit_model.checkpoint.register_checkpoint`.
    """

    name: str = "ADiT training report"
    n: int = 100
    seed: int = 0
    num_steps: int | None = None
    condition: Any = None
    reconstruct: int = 200
    register_as: str | None = None

    def __post_init__(self) -> None:
        if self.condition is not None:
            self.condition = str(as_condition(self.condition))

    def make(
        self,
        stages: dict[str, Any],
        checkpoint: str | OutputReference,
        data: Any = None,
    ) -> Job:
        """Make a job that reports on a checkpoint.

        Parameters
        ----------
        stages : dict
            Outputs of the training jobs by stage.
        checkpoint : str
            Path of the trained model.
        data : ADiTDataDoc, optional
            Output of the data job.

        Returns
        -------
        Job
            Its output is an :class:`~adit_atomate.training.documents.ADiTTrainReport`.
        """
        if self.n < 0 or self.reconstruct < 0:
            raise ValueError(
                f"n and reconstruct must not be negative, got {self.n} and {self.reconstruct}"
            )
        return self._report(stages, checkpoint, data)

    @job(output_schema=ADiTTrainReport)
    def _report(
        self, stages: dict[str, ADiTTrainDoc], checkpoint: str, data: ADiTDataDoc | None
    ) -> ADiTTrainReport:
        from adit_atomate.training.documents import describe_checkpoint
        from adit_model.checkpoint import register_checkpoint
        from adit_model.model import ADiT
        from adit_model.quality.table import quality_lines

        model = ADiT.load(checkpoint, device=ADiTSettings().DEVICE)
        samples = self._sample(model) if self.n else {}
        reconstruction = self._reconstruct(model, data)
        metrics = None if reconstruction is None else reconstruction.metrics
        lines = quality_lines({"generated": samples} if samples else {}, metrics)
        kept: ADiTTrainedCheckpoint = describe_checkpoint(checkpoint)
        if self.register_as is not None:
            kept = describe_checkpoint(
                register_checkpoint(checkpoint, self.register_as), self.register_as
            )
        return ADiTTrainReport(
            checkpoint=kept,
            stages=stages,
            data=data,
            samples=samples,
            reconstruction=reconstruction,
            table="\n".join(lines),
            settings={
                "n": self.n,
                "seed": self.seed,
                "num_steps": self.num_steps,
                "condition": self.condition,
            },
            versions=package_versions(),
        )

    def _sample(self, model: Any) -> dict[str, Any]:
        from adit_model.quality.entries import sample_entries
        from adit_model.quality.rows import Options
        from adit_model.quality.run import score
        from adit_model.quality.table import TABLE_MEASURES

        settings = ADiTSettings()
        samples = []
        asked = as_condition(self.condition)
        domains = model.domains if not asked else model.known.domains_for(asked)
        for domain in domains:
            samples += model.sample(
                self.n,
                replace(asked, domain=domain),
                seed=self.seed,
                num_steps=self.num_steps,
                progress=False,
            )
        options = Options(
            workers=check_workers(len(samples)),
            measures=TABLE_MEASURES,
            time_limit=settings.CHECK_TIME_LIMIT,
        )
        return score(sample_entries(samples), options).summary

    def _reconstruct(self, model: Any, data: ADiTDataDoc | None) -> ADiTReconstruction | None:
        from adit_model.data.dataset import AtomicDataset
        from adit_model.quality.reconstruction import evaluate_reconstruction

        if not self.reconstruct or data is None or data.validation is None:
            return None
        systems = list(AtomicDataset.load(data.validation.path))[: self.reconstruct]
        metrics = evaluate_reconstruction(
            systems, model.reconstruct(systems), workers=check_workers(len(systems))
        )
        return ADiTReconstruction(systems=len(systems), metrics=metrics)
