"""Structure prediction: a formula to its polymorphs, or to its constitutional isomers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers

from adit_model.conditions.atoms import composition_of
from adit_model.conditions.condition import Condition, as_condition
from adit_model.conditions.known import Known
from adit_model.config import ModelConfig
from adit_model.prediction.candidates import (
    BESIDE,
    NONE,
    POLYMORPHS,
    Candidate,
    choose_engine,
    described,
    engine_label,
    fault_of,
    joined,
    relaxed,
    row,
    symmetrised,
    too_close,
)
from adit_model.prediction.templates import fitting, templates
from adit_model.quality.symmetry import MOVED, SYMMETRY
from adit_model.sampling.request import ConditionLike, Request, check_integer
from adit_model.sampling.sample import Sample
from adit_model.systems import CRYSTAL, MOLECULE

if TYPE_CHECKING:
    from adit_model.data.dataset import AtomicDataset
    from adit_model.model import ADiT

_UNITS_STREAM = 6  # of the random numbers that draw formula units


@dataclass(frozen=True)
class Question:
    """What is predicted, and how: checked before any work.

    Parameters
    ----------
    condition : Condition
        With a formula, and the domain that was chosen.
    requests : tuple of Request
        Of the candidates that are generated.
    engine : str
        What relaxes them, or ``"none"``.
    beside : int
        Most known crystals to show beside the candidates.
    tolerance, most : float
        See :func:`~adit_model.prediction.candidates.symmetrised`; a tolerance of 0 leaves all as
        they are.
    types : int
        Candidates that are structure types: known crystals with the elements exchanged.
    sizes : tuple of int
        Numbers of atoms that their cells may have.
    """

    condition: Condition
    requests: tuple[Request, ...]
    engine: str
    beside: int = BESIDE
    tolerance: float = SYMMETRY
    most: float = MOVED
    types: int = 0
    sizes: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON."""
        return {
            "condition": str(self.condition),
            "requests": [request.as_dict() for request in self.requests],
            "engine": self.engine,
            "beside": self.beside,
            "tolerance": self.tolerance,
            "most": self.most,
            "types": self.types,
        }

    @property
    def generated(self) -> int:
        """Candidates that the network makes."""
        return sum(request.n for request in self.requests)

    @property
    def numbers(self) -> np.ndarray:
        """Atomic numbers of a formula unit."""
        return _unit(self.condition)


@dataclass(frozen=True)
class Prediction:
    """Ranked candidates, and the known crystals beside them.

    Parameters
    ----------
    question : Question
        What was asked.
    candidates : tuple of Candidate
        Different from each other, the lowest in energy first; without energies structure types,
        the likeliest first, and then what most samples agree on.
    beside : tuple of Candidate
        Known crystals of the composition, relaxed as the candidates are.
    dropped : dict
        Why a sample or structure type is not among them, by its index: those of structure types
        follow those of samples.
    known : int
        Different known crystals of the composition.
    """

    question: Question
    candidates: tuple[Candidate, ...]
    beside: tuple[Candidate, ...]
    dropped: dict[int, str]
    known: int = 0

    @property
    def found(self) -> dict[str, int | None]:
        """Rank of the first candidate that is the same as a known crystal, by the crystal's id.

        None for crystals beside that no candidate is the same as.
        """
        ranks = {c.known: k for k, c in reversed(list(enumerate(self.candidates, 1))) if c.known}
        return {c.known: None for c in self.beside if c.known} | ranks

    def rows(self) -> list[dict[str, Any]]:
        """Return the table: candidates and known crystals by energy, with the candidates' rank."""
        energies = [c.energy for c in (*self.candidates, *self.beside) if c.energy is not None]
        lowest = min(energies, default=None)
        rows = [{"rank": k, **row(c, lowest)} for k, c in enumerate(self.candidates, 1)]
        rows += [{"rank": None, **row(c, lowest)} for c in self.beside]
        if lowest is not None:
            rows.sort(key=lambda r: (r["energy_per_atom"] is None, r["energy_per_atom"]))
        return rows

    def summary(self) -> str:
        """Say in a few lines what came out."""
        domain, types = self.question.condition.domain, self.question.types
        made = f"{self.question.generated} generated" + (
            f", {types} structure types" if types else ""
        )
        lines = [
            f"{self.question.condition.formula} as a {domain}: {made}, "
            f"{len(self.dropped)} dropped, {len(self.candidates)} different ones left"
        ]
        if self.question.engine != NONE:
            lines[0] += f", relaxed by {engine_label(self.question.engine)}"
        reasons = Counter(reason.partition(":")[0] for reason in self.dropped.values())
        lines += [f"  dropped, {n}: {reason}" for reason, n in reasons.most_common(3)]
        if domain == MOLECULE:
            known = sum(c.known is not None for c in self.candidates)
            lines.append(f"{known} of them are in QM9")
        elif self.known:
            found = len({c.known for c in self.candidates if c.known})
            lines.append(f"{self.known} crystals of this composition are known, {found} are found:")
            lines += [
                f"  {name}: " + ("not found" if rank is None else f"rank {rank}")
                for name, rank in self.found.items()
            ]
        else:
            lines.append("no crystal of this composition is known")
        return "\n".join(lines)


def question(
    known: Known,
    config: ModelConfig,
    condition: ConditionLike,
    n: int = 20,
    *,
    engine: str | None = None,
    seed: int = 0,
    beside: int = BESIDE,
    tolerance: float = SYMMETRY,
    most: float = MOVED,
    types: int | None = None,
    phases: AtomicDataset | None = None,
    **sampling: Any,
) -> Question:
    """Check what is asked for, before any work.

    Parameters
    ----------
    known, config
        What a checkpoint knows, and its configuration.
    condition : Condition, str or mapping
        A formula, and what else is asked of the structures: ``"LiMn3O4"``, ``"TiO2, units=2"``.
        Formula units that are left free are drawn for each candidate as often as they occur among
        known crystals of the stoichiometry. Where the domain is free, what holds carbon or
        hydrogen is a molecule, if the weights can make it as one.
    n : int
        Candidates.
    engine : str, optional
        ``"chgnet"`` or ``"sevennet"`` for crystals, ``"xtb"`` for molecules, ``"none"``; by
        default the first of the domain.
    seed : int
        Of all random numbers.
    beside, tolerance, most
        See :class:`Question`.
    types : int, optional
        How many of the candidates of a crystal are structure types, and not generated; by default
        half of them, if so many known crystals fit. There are none where properties, a cell or
        sites are asked for, too.
    phases : AtomicDataset, optional
        Known crystals; by default those that come with the package.
    **sampling
        See :class:`~adit_model.config.SamplingConfig`. Unless ``symmetry`` is given, the second
        half of the generated ones take theirs from known crystals, if the weights can.

    Raises
    ------
    ValueError, TypeError
        If there is no formula, the weights cannot make it, or a number is out of range.
    ModuleNotFoundError
        If the engine is not installed.
    """
    check_integer("n", n)
    if n < 1:
        raise ValueError(f"the number of candidates must be a positive integer, got {n}")
    for name, value in (("beside", beside), ("tolerance", tolerance), ("most", most)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    asked = formula_condition(condition)
    domain = _domain(asked, known.domains_for(asked))
    asked = replace(asked, domain=domain)
    chosen = choose_engine(engine, domain)
    conditions: Any = asked
    sizes: tuple[int, ...] = ()
    if domain == CRYSTAL:
        conditions = _with_units(asked, known, n, seed, phases)
        sizes = tuple(known.counts_for(asked, CRYSTAL))
    types = _number_of_types(asked, n, types, sizes, phases)
    n -= types
    halves = [(0, n, sampling)]
    if domain == CRYSTAL and sampling.get("symmetry") is None and config.autoencoder.exact:
        middle = (n + 1) // 2
        halves = [(0, middle, sampling), (middle, n, {**sampling, "symmetry": "known"})]
    requests = []
    for start, stop, options in halves:
        if start < stop:
            part = conditions[start:stop] if domain == CRYSTAL else conditions
            request = Request.of(stop - start, part, seed=seed, first_index=start, **options)
            requests.append(request.filled(request.check(known, config)))
    return Question(asked, tuple(requests), chosen, beside, tolerance, most, types, sizes)


def _number_of_types(
    asked: Condition,
    n: int,
    types: int | None,
    sizes: tuple[int, ...],
    phases: AtomicDataset | None,
) -> int:
    possible = bool(sizes) and not {"properties", "cell", "atoms"} & set(asked.asked)
    if types is None:
        if not possible:
            return 0
        dataset = known_crystal_data() if phases is None else phases
        return min((n + 1) // 2, len(fitting(dataset, _unit(asked), sizes)))
    check_integer("types", types)
    if not 0 <= types <= (n if possible else 0):
        raise ValueError(
            f"of {n} candidates 0 to {n} are structure types, and none of molecules or where "
            f"properties, a cell or sites are asked for; got {types} for '{asked}'"
        )
    return types


def formula_condition(value: ConditionLike) -> Condition:
    """Read a condition that has a formula; a bare one is read as such: ``"Fe"``.

    Raises
    ------
    ValueError
        If it has none.
    """
    if isinstance(value, str) and value.strip().isalnum():
        return Condition(formula=value.strip())
    condition = as_condition(value)
    if condition.formula is None:
        raise ValueError(
            f"a prediction needs a formula, got '{condition}': write LiMn3O4 or 'LiMn3O4, units=2'"
        )
    return condition


def _domain(condition: Condition, possible: Sequence[str]) -> str:
    if len(possible) == 1:
        return possible[0]
    organic = {"C", "H"} & set(composition_of(str(condition.formula)))
    return MOLECULE if organic else CRYSTAL


def _with_units(
    condition: Condition, known: Known, n: int, seed: int, phases: AtomicDataset | None
) -> list[Condition]:
    """Draw the formula units of each candidate as known crystals of the stoichiometry have them."""
    numbers = _unit(condition)
    size = len(numbers)
    sizes = known.counts_for(condition, CRYSTAL)
    units = [k // size for k in sizes]
    dataset = known_crystal_data() if phases is None else phases
    seen = Counter(dataset.sizes[fitting(dataset, numbers, sizes)].tolist())
    weights = np.array([1 + seen[k * size] for k in units], dtype=np.float64)
    drawn = [
        int(
            np.random.default_rng([seed, i, _UNITS_STREAM]).choice(units, p=weights / weights.sum())
        )
        for i in range(n)
    ]
    return [replace(condition, formula_units=k, num_atoms=None) for k in drawn]


def _unit(condition: Condition) -> np.ndarray:
    unit = composition_of(str(condition.formula))
    return np.repeat([atomic_numbers[s] for s in unit], list(unit.values()))


def known_crystal_data() -> AtomicDataset:
    """Return the known crystals that come with the package, as a data set."""
    from adit_model.data.phases import known_phases

    return known_phases().dataset()


def predict(
    model: ADiT,
    asked: Question,
    *,
    phases: AtomicDataset | None = None,
    workers: int | None = None,
    batch_atoms: int | None = None,
    progress: bool = True,
) -> Prediction:
    """Generate candidates and take structure types; screen, relax, join, rank and symmetrise.

    Parameters
    ----------
    model : ADiT
        With both stages.
    asked : Question
        From :func:`question`.
    phases : AtomicDataset, optional
        Known crystals; by default those that come with the package.
    workers : int, optional
        Threads of sampling on a CPU, processes that relax and compare (one without).
    batch_atoms : int, optional
        Atoms integrated at a time.
    progress : bool
        Show progress bars.
    """
    samples: list[Sample] = []
    for request in asked.requests:
        samples += model.sample(
            request, batch_atoms=batch_atoms, workers=workers, progress=progress
        )
    return judge(samples, asked, phases=phases, workers=workers, progress=progress)


def judge(
    samples: Sequence[Sample],
    asked: Question,
    *,
    phases: AtomicDataset | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Prediction:
    """Screen, relax, join, rank and symmetrise samples and structure types: :func:`predict`."""
    screen = fault_of if asked.engine == NONE else too_close  # what relaxes is looked at again
    candidates = [
        Candidate(s.system, index=s.index, fault=screen(s.system))
        for s in samples
        if s.system is not None
    ]
    beside: list[Candidate] = []
    known: list[Candidate] = []
    is_crystal = asked.condition.domain == CRYSTAL
    dataset = known_crystal_data() if phases is None and is_crystal else phases
    if dataset is not None and asked.beside:
        known = known_of(dataset, asked.numbers, workers)
        beside = known[: asked.beside]
    if dataset is not None and asked.types:
        candidates += _types(dataset, asked)
    if asked.engine != NONE:
        title = f"relaxing by {asked.engine}" if progress else None
        both = relaxed([*candidates, *beside], asked.engine, workers=workers, progress=title)
        candidates, beside = both[: len(candidates)], both[len(candidates) :]
        candidates = [_checked(c) for c in candidates]
    candidates = described(candidates, workers)
    ranked = joined(candidates, workers)
    if is_crystal and asked.tolerance > 0:
        ranked = [symmetrised(c, asked.tolerance, asked.most) for c in ranked]
        beside = [symmetrised(c, asked.tolerance, asked.most) for c in beside]
    ranked = _matched(ranked, known, workers)
    dropped = {s.index: f"not decoded: {s.fault}" for s in samples if s.system is None}
    dropped |= {int(c.index): c.fault for c in candidates if c.fault and c.index is not None}
    return Prediction(
        asked, tuple(ranked), tuple(beside), dict(sorted(dropped.items())), len(known)
    )


def _checked(candidate: Candidate) -> Candidate:
    """Look once more at what was relaxed."""
    if candidate.fault is not None or (fault := fault_of(candidate.system)) is None:
        return candidate
    return replace(candidate, fault=f"relaxed to nothing real: {fault}")


def known_of(
    dataset: AtomicDataset, numbers: np.ndarray, workers: int | None = None
) -> list[Candidate]:
    """Find the known crystals of a composition, each once, the lowest above the hull first.

    Those whose energy above hull is not known come last.
    """
    from adit_model.quality.crystals import reduced_composition
    from adit_model.quality.matching import first_equal

    wanted, unit = reduced_composition(numbers), len(numbers) // _units(numbers)
    above = dataset.labels.get("e_above_hull", np.full(len(dataset), np.nan))
    places = [
        i
        for i in np.flatnonzero(dataset.periodic & (dataset.sizes % unit == 0)).tolist()
        if reduced_composition(dataset.numbers[dataset.offsets[i] : dataset.offsets[i + 1]])
        == wanted
    ]
    places.sort(key=lambda i: (np.isnan(above[i]), above[i]))
    systems = [dataset[i] for i in places]
    first = first_equal(systems, tolerances=POLYMORPHS, workers=workers or 1)
    found = [
        Candidate(system, source=f"known {dataset.ids[i]}", known=str(dataset.ids[i]))
        for k, (i, system) in enumerate(zip(places, systems, strict=True))
        if first[k] == k
    ]
    return described(found)


def _units(numbers: np.ndarray) -> int:
    return int(np.gcd.reduce(list(Counter(numbers.tolist()).values())))


def _types(dataset: AtomicDataset, asked: Question) -> list[Candidate]:
    """Structure types, the likeliest first; their indices follow those of the samples."""
    found = templates(dataset, asked.numbers, asked.sizes, space_group=asked.condition.space_group)
    return [
        Candidate(
            t.system,
            source=t.system.info["source"],
            index=asked.generated + k,
            fault=too_close(t.system),
            likely=k,
        )
        for k, t in enumerate(islice(found, asked.types))
    ]


def _matched(
    candidates: Sequence[Candidate], known: Sequence[Candidate], workers: int | None
) -> list[Candidate]:
    """Say which known crystal or molecule each is."""
    from adit_model.quality.matching import KnownMatch, known_crystals

    if candidates and not candidates[0].system.is_periodic:
        ids = _qm9_ids()
        return [replace(c, known=ids.get(str(c.smiles))) for c in candidates]
    matches = known_crystals(
        [c.system for c in candidates],
        [c.system for c in known],
        tolerances=POLYMORPHS,
        workers=workers or 1,
    )
    return [
        replace(c, known=match.id if isinstance(match, KnownMatch) else None)
        for c, match in zip(candidates, matches, strict=True)
    ]


def _qm9_ids() -> Mapping[str, str]:
    from adit_model.data.phases import known_molecules

    return {smiles: name for name, smiles in known_molecules().select()}
