"""Makers that generate: in one job, or in several that share the samples."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jobflow import CURRENT_JOB, Flow, Job, JobConfig, Maker, OutputReference, job

from adit_atomate.documents import (
    ADiTCheckpoint,
    ADiTGenerateDoc,
    ADiTRate,
    ADiTSampleRecord,
    ADiTTimings,
)
from adit_atomate.settings import ADiTSettings, check_fields
from adit_atomate.stores import check_job_store
from adit_model.checkpoint import BUNDLED, read_known, resolve_checkpoint
from adit_model.conditions.condition import Condition, as_condition
from adit_model.conditions.known import Known
from adit_model.files import package_versions
from adit_model.sampling.request import Request, check_positive

if TYPE_CHECKING:
    from adit_model.sampling.sample import Sample

logger = logging.getLogger(__name__)

GENERATE_DATA = [["output", "structures"], ["output", "samples"]]
BYTES_PER_ATOM = 330  # of a stored structure, measured
_DEVICE = re.compile(r"(auto|cpu|cuda|mps|xpu)(:\d+)?")


@dataclass
class ADiTGenerateMaker(Maker):
    """Generate crystals and molecules.

    ``job.output.structures`` is a list of pymatgen objects that force-field and ASE Makers of
    atomate2 take as it is. With both domains, ``job.output.crystals`` and
    ``job.output.molecules`` can go to a Maker each.

    Parameters
    ----------
    name : str
        Name of the jobs.
    checkpoint : str
        Name (``"default"``) or path of a checkpoint. By default the setting ``ADIT_CHECKPOINT``.
    domain : str
        ``"crystal"``, ``"molecule"``, or ``"both"``: what the weights know and the condition
        allows; of both, crystals at even, molecules at odd indices.
    seed : int
        Seed of all random numbers. Sample i depends on it, on i, the weights and the settings
        below: two jobs with one seed give the same structures.
    num_steps, solver, guidance_scale, noise_scale, symmetry
        See :class:`adit_model.config.SamplingConfig`; None takes the checkpoint's default.
    num_atoms : int, str, tuple, list or None
        Atoms in each structure, added to the condition: one number, a range ``(4, 12)`` or
        ``"4-12"``, a list with one number for each structure, or None to draw them as in the
        training data. A tuple is kept as text, which survives JSON.
    condition : str, Condition, list of them or None
        What is asked of all structures, or of each: ``"Li-P-S, atoms=4-12"``, kept as text. See
        :class:`adit_model.conditions.condition.Condition`.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``. ``"auto"`` takes the worker's setting
        ``ADIT_DEVICE``, and without it a GPU if there is one.
    batch_atoms : int or None
        Atoms integrated at a time; changes memory and speed, not the structures. None takes the
        worker's setting ``ADIT_BATCH_ATOMS``, and without it what suits the device.
    workers : int or None
        Threads that share the batches on a CPU; changes memory and speed, not the structures.
        None takes the worker's setting ``ADIT_SAMPLE_WORKERS``, and without it the cores that the
        job may use.
    random_rotation : bool
        Turn each structure at random; otherwise it comes in its canonical pose.
    check_validity : bool
        Check whether each structure is plausible; the results are in ``job.output.samples``.
    only_holding : bool
        Draw on, with consecutive indices, until n samples are plausible and hold what was asked.
    max_tries : int
        At most so many times n samples are then drawn; the document says how many it took.

    Examples
    --------
    >>> from adit_atomate import ADiTGenerateMaker
    >>> job = ADiTGenerateMaker(domain="crystal", num_atoms=(4, 12)).make(n=20)
    >>> job.name
    'ADiT generate'
    """

    name: str = "ADiT generate"
    checkpoint: str = field(default_factory=lambda: ADiTSettings().CHECKPOINT)
    domain: str = "both"
    seed: int = 0
    num_steps: int | None = None
    solver: str | None = None
    guidance_scale: float | str | dict[str, float] | None = None
    noise_scale: float | str | dict[str, float] | None = None
    symmetry: str | None = None
    num_atoms: int | str | tuple[int, int] | list[int] | None = None
    condition: Any = None
    device: str = "auto"
    batch_atoms: int | None = None
    workers: int | None = None
    random_rotation: bool = False
    check_validity: bool = True
    only_holding: bool = False
    max_tries: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.num_atoms, tuple):
            self.num_atoms = "-".join(str(number) for number in self.num_atoms)
        if isinstance(self.condition, list | tuple):
            self.condition = [str(as_condition(one)) for one in self.condition]
        elif self.condition is not None:
            self.condition = str(as_condition(self.condition))

    def make(self, n: int | OutputReference, first_index: int = 0) -> Job:
        """Make a job that generates n structures.

        Parameters
        ----------
        n : int
            How many samples. Those that cannot be decoded are recorded, not replaced.
        first_index : int
            Number of the first sample: jobs for 500 samples each that start at 0 and at 500 give
            what one job for 1,000 gives. See ``ADiTGenerateShardsMaker``.

        Returns
        -------
        Job
            Its output is an :class:`~adit_atomate.documents.ADiTGenerateDoc`.

        Raises
        ------
        ValueError, TypeError
            If n, first_index or a field of the Maker is out of range, or there is no such
            checkpoint.
        """
        count = n
        if isinstance(n, OutputReference):
            listed = self.num_atoms if isinstance(self.num_atoms, list) else [1]
            count = len(listed)
        self._check(self.request(count, first_index))  # type: ignore[arg-type]
        checkpoint = str(self.checkpoint)
        if checkpoint not in BUNDLED:
            checkpoint = str(resolve_checkpoint(checkpoint).resolve())
        # Jobs may run in other folders, so paths must be absolute.
        return replace(self, checkpoint=checkpoint)._generate(n, first_index)

    @job(
        output_schema=ADiTGenerateDoc,
        config=JobConfig(expose_store=True),
        data=GENERATE_DATA,
    )
    def _generate(self, n: int, first_index: int = 0) -> ADiTGenerateDoc:
        request, known = self._check(self.request(n, first_index))
        if CURRENT_JOB.store is not None:
            check_job_store(CURRENT_JOB.store, _estimate_bytes(request, known))
        settings = ADiTSettings()

        started = time.perf_counter()
        from adit_model.model import ADiT
        from adit_model.quality.conditions import obeyed
        from adit_model.quality.holding import sample_held
        from adit_model.quality.records import count_records, record_samples

        device = settings.DEVICE if self.device == "auto" else self.device
        model = ADiT.load(self.checkpoint, device=device)
        loaded = time.perf_counter()
        checks: dict[str, Any] = {
            "workers": settings.CHECK_WORKERS,
            "time_limit": settings.CHECK_TIME_LIMIT,
        }

        def draw(part: Request) -> list[Sample]:
            return model.sample(
                part,
                batch_atoms=self.batch_atoms or settings.BATCH_ATOMS,
                workers=self.workers or settings.SAMPLE_WORKERS,
                progress=False,
            )

        if self.only_holding:
            found = sample_held(draw, request, self.max_tries, **checks)
            samples, records, tried = found.samples, found.records, found.tried
            sampled = time.perf_counter()
        else:
            samples, tried = draw(request), n
            sampled = time.perf_counter()
            records = record_samples(samples, check=self.check_validity, **checks)
        held = obeyed(samples, records, **checks)
        checked = time.perf_counter()

        counts = count_records(records)
        for domain, count in counts.items():
            logger.info("%ss: %s", domain, count)
        return ADiTGenerateDoc(
            structures=[s.system.to_pymatgen() for s in samples if s.system is not None],
            samples=[
                ADiTSampleRecord(**record.model_dump(), structure_index=place)
                for record, place in zip(records, _places(samples), strict=True)
            ],
            counts=counts,
            holds={name: ADiTRate(**rate) for name, rate in held.items()},
            tried=tried,
            request=request,
            checkpoint=ADiTCheckpoint(
                name=self.checkpoint,
                hash=model.checkpoint_hash,
                licence=model.metadata.get("licence"),
            ),
            timings=ADiTTimings(
                load=loaded - started, sample=sampled - loaded, check=checked - sampled
            ),
            device=str(model.device),
            versions=package_versions(),
        )

    def request(self, n: int = 1, first_index: int = 0) -> Request:
        """Return what the Maker asks the generator for.

        Raises
        ------
        ValueError, TypeError
            If n, first_index or a field of the Maker is out of range.
        """
        return Request.of(
            n,
            self.condition,
            domain=self.domain,
            num_atoms=self.num_atoms,
            seed=self.seed,
            first_index=first_index,
            random_rotation=self.random_rotation,
            num_steps=self.num_steps,
            solver=self.solver,
            guidance_scale=self.guidance_scale,
            noise_scale=self.noise_scale,
            symmetry=self.symmetry,
        )

    def domains(self) -> set[str]:
        """Find the domains of what it generates."""
        known, _ = read_known(resolve_checkpoint(self.checkpoint))
        each = self.condition if isinstance(self.condition, list) else [self.condition]
        asked = {as_condition(one, domain=self.domain) for one in each}
        return {domain for condition in asked for domain in known.domains_for(condition)}

    def _check(self, request: Request) -> tuple[Request, Known]:
        """Check the request and all fields; return it filled in, and what the checkpoint knows."""
        for name in ("batch_atoms", "workers", "max_tries"):
            check_positive(name, getattr(self, name))
        if self.only_holding and not self.check_validity:
            raise ValueError("only_holding asks for plausible samples: give check_validity=True")
        if not _DEVICE.fullmatch(self.device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:1, got {self.device!r}")
        known, config = read_known(resolve_checkpoint(self.checkpoint))
        return request.filled(request.check(known, config)), known


def _estimate_bytes(request: Request, known: Known) -> int:
    """Size of the stored structures, from the mean atom counts."""
    means = {}
    for condition in request.asked:
        found = [known.counts_for(condition, domain) for domain in known.domains_for(condition)]
        means[condition] = sum(
            sum(k * v for k, v in counts.items()) / sum(counts.values()) for counts in found
        ) / len(found)
    return int(BYTES_PER_ATOM * sum(means[condition] for condition in request.conditions))


def _places(samples: list[Sample]) -> list[int | None]:
    """Place of each sample among those that have a system."""
    places: list[int | None] = []
    count = 0
    for sample in samples:
        places.append(count if sample.system is not None else None)
        count += sample.system is not None
    return places


@dataclass
class ADiTGenerateShardsMaker(Maker):
    """Generate many structures in several jobs, which may run on as many workers.

    The samples are those of a single job, bit for bit on a CPU: how many jobs there are changes
    the time alone. A job that failed is run again without the others. With ``only_holding`` each
    job draws on by itself, so the samples are others than those of a single job.

    Parameters
    ----------
    name : str
        Name of the flows.
    generate_maker : ADiTGenerateMaker
        Maker of the jobs. A list of atom counts in it has one entry for each sample of the flow.
    samples_per_job : int
        Samples of each job; the last one has the rest.

    Examples
    --------
    >>> from adit_atomate import ADiTGenerateShardsMaker
    >>> flow = ADiTGenerateShardsMaker(samples_per_job=400).make(n=1000)
    >>> [job.name for job in flow.jobs]
    ['ADiT generate 1/3', 'ADiT generate 2/3', 'ADiT generate 3/3']
    """

    name: str = "ADiT generate shards"
    generate_maker: ADiTGenerateMaker = field(default_factory=ADiTGenerateMaker)
    samples_per_job: int = 1000

    def make(self, n: int, first_index: int = 0) -> Flow:
        """Make a flow that generates n structures.

        Parameters
        ----------
        n : int
            How many samples.
        first_index : int
            Number of the first one.

        Returns
        -------
        Flow
            Its output lists the outputs of its jobs in order:
            ``[shard.structures for shard in flow.output]`` are references to one list of
            structures each.

        Raises
        ------
        ValueError, TypeError
            If n, first_index, samples_per_job or a field of the Maker is out of range, or there is
            no such checkpoint.
        """
        size = self.samples_per_job
        if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
            raise ValueError(f"samples_per_job must be a positive integer, got {size!r}")
        check_fields(self, generate_maker=ADiTGenerateMaker)
        whole = self.generate_maker.request(n, first_index)
        self.generate_maker.make(n, first_index)  # checks it against the checkpoint
        number = -(-n // size)
        jobs: list[Flow | Job] = []
        for i, start in enumerate(range(0, n, size), 1):
            part = whole.part(start, min(start + size, n))
            maker = self.generate_maker
            if not isinstance(whole.condition, Condition):
                maker = replace(maker, condition=part.conditions, num_atoms=None, domain="both")
            first_index = part.first_index
            if maker.only_holding:  # each job draws on among indices of its own
                first_index = whole.first_index + start * maker.max_tries
            job = maker.make(part.n, first_index)
            job.append_name(f" {i}/{number}")
            jobs.append(job)
        return Flow(jobs, output=[job.output for job in jobs], name=self.name)
