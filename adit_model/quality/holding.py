"""Draw samples until so many are plausible and as asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adit_model.quality.records import SampleRecord, record_samples
from adit_model.sampling.request import Request, check_positive
from adit_model.sampling.sample import Sample, SamplingInterrupted

MAX_TRIES = 20  # samples drawn at most for each one asked for, by default


@dataclass(frozen=True)
class Held:
    """Samples that are plausible and hold all that was asked.

    Parameters
    ----------
    samples : list of Sample
        In the order of the indices; fewer than asked for where the bound was reached.
    records : list of SampleRecord
        Of each.
    tried : int
        Samples it took: from the first index of the request on.
    """

    samples: list[Sample]
    records: list[SampleRecord]
    tried: int


def sample_held(
    sample: Callable[[Request], list[Sample]],
    request: Request,
    max_tries: int = MAX_TRIES,
    **options: Any,
) -> Held:
    """Draw on, with consecutive indices, until the samples asked for are plausible and as asked.

    With one condition the result holds the first n such samples, however they are batched. With
    one condition for each sample, each is asked for again, the rarer the more often at a time,
    until a sample holds it.

    Parameters
    ----------
    sample : callable
        Makes the samples of a request.
    request : Request
        Checked; its n is how many shall hold.
    max_tries : int
        At most ``max_tries * n`` samples are drawn; then a warning says how many hold.
    **options
        Of :func:`adit_model.quality.records.record_samples`.

    Raises
    ------
    ValueError, TypeError
        If max_tries is not a positive integer.
    SamplingInterrupted
        A ``KeyboardInterrupt`` that carries those that hold.
    """
    check_positive("max_tries", max_tries)
    bound = max_tries * request.n
    pending = list(request.conditions)
    found: list[tuple[Sample, SampleRecord]] = []
    tried = 0
    while pending and tried < bound:
        number = len(pending)
        if tried:  # as many as it takes, by the share so far
            number = max(number, min(4 * request.n, -(-number * tried // max(1, len(found)))))
        asked = (pending * number)[: min(number, bound - tried)]
        first = request.first_index + tried
        part = replace(request, n=len(asked), condition=tuple(asked), first_index=first)
        try:
            samples = sample(part)
        except SamplingInterrupted as error:
            kept = [s for s, _ in found] + _holding(error.samples, **options)[0]
            raise SamplingInterrupted(kept, request.n) from error
        kept, records = _holding(samples, **options)
        taken = 0
        for one, record in zip(kept, records, strict=True):
            if one.condition in pending:
                pending.remove(one.condition)
                found.append((one, record))
                taken = one.index - request.first_index + 1
        tried = tried + len(asked) if pending else taken
    if pending:
        warnings.warn(
            f"{len(found)} of {request.n} samples hold what was asked and are plausible after "
            f"{tried} tries: ask for less, or allow more tries with max_tries",
            stacklevel=2,
        )
    return Held([s for s, _ in found], [r for _, r in found], tried)


def _holding(samples: Sequence[Sample], **options: Any) -> tuple[list[Sample], list[SampleRecord]]:
    pairs = [
        (sample, record)
        for sample, record in zip(samples, record_samples(samples, **options), strict=True)
        if record.plausible and all(sample.holds.values())
    ]
    return [s for s, _ in pairs], [r for _, r in pairs]
