"""One generation, divided over several jobs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from jobflow import Flow, Job, Maker

from adit_atomate.jobs import ADiTGenerateMaker


@dataclass
class ADiTGenerateShardsMaker(Maker):
    """Generate many structures in several jobs, which may run on as many workers.

    The samples are those of a single job, bit for bit on a CPU: how many jobs there are changes
    the time alone. A job that failed is run again without the others.

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
        self.generate_maker.make(n, first_index)  # checks the request as a whole
        counts = self.generate_maker.num_atoms
        if isinstance(counts, str) and "," in counts:
            counts = [int(count) for count in counts.split(",")]
        number = -(-n // size)
        jobs: list[Flow | Job] = []
        for i, start in enumerate(range(0, n, size), 1):
            maker = self.generate_maker
            if isinstance(counts, list):
                maker = replace(maker, num_atoms=counts[start : start + size])
            job = maker.make(min(size, n - start), first_index + start)
            job.append_name(f" {i}/{number}")
            jobs.append(job)
        return Flow(jobs, output=[job.output for job in jobs], name=self.name)
