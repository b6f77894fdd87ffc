"""One generated structure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adit_model.conditions.condition import Condition
from adit_model.systems import AtomicSystem


@dataclass(frozen=True)
class Sample:
    """One generated structure, or why there is none.

    The structure is as decoded: its cell need not be primitive or Niggli-reduced, nor its atoms in
    canonical order. Whatever reads it on, as a data set, a variation or an encoding, computes its
    canonical form (:func:`adit_model.canonical.canonicalise`) by itself.

    Parameters
    ----------
    index : int
        Number of the sample; a request for n samples has numbers 0 to n - 1 unless it says where
        to start.
    seed : int
        Seed of the request; ``(seed, index)`` names the sample.
    domain : str
        ``"crystal"`` or ``"molecule"``.
    num_atoms : int
        Atoms that were drawn or asked for.
    system : AtomicSystem or None
        The structure; None if the decoded cell is unphysical.
    fault : str or None
        Why there is no system.
    decoded : dict
        What the decoder said: ``numbers`` and ``positions`` (angstrom), or ``frac_coords``,
        ``lengths`` (angstrom) and ``angles`` (degrees).
    condition : Condition
        What was asked for.
    holds : dict
        Whether it is so, for each part of the condition that the structure alone tells, and each
        property that the weights estimate; all false where there is no structure.
    targets : mapping
        Value of each property that it was made for; of a range, the one drawn from it.
    estimates : mapping
        Of the same properties what the weights estimate of the structure; without those that they
        cannot estimate.
    """

    index: int
    seed: int
    domain: str
    num_atoms: int
    system: AtomicSystem | None
    fault: str | None = None
    decoded: dict[str, Any] = field(default_factory=dict, repr=False)
    condition: Condition = field(default_factory=Condition)
    holds: dict[str, bool] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    estimates: Mapping[str, float] = field(default_factory=dict)

    @functools.cached_property
    def _verdict(self) -> tuple[bool, str | None]:
        if self.system is None:
            return False, self.fault
        from adit_model.quality.plausible import plausible

        return plausible(self.system)

    @property
    def plausible(self) -> bool:
        """Whether a chemist would believe it, see :mod:`adit_model.quality.plausible`."""
        return self._verdict[0]

    @property
    def reason(self) -> str | None:
        """Why it is not plausible, or no structure; None if it is."""
        return self._verdict[1]


class SamplingInterrupted(KeyboardInterrupt):
    """Sampling was interrupted; ``samples`` holds what was finished by then."""

    def __init__(self, samples: list[Sample], n: int) -> None:
        super().__init__(f"sampling was interrupted: {len(samples)} of {n} samples are finished")
        self.samples = samples
