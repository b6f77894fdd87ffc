"""What is asked of the sampler: :class:`Request`, and its samples drawn from seed and index."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from monty.json import MSONable

from adit_model.canonical import electronegativity_ranks
from adit_model.conditions.atoms import (
    ElementChoice,
    ElementOrders,
    composition_of,
    shuffled_order,
)
from adit_model.conditions.condition import KINDS, Condition, as_condition
from adit_model.conditions.counts import Counts
from adit_model.conditions.known import Known
from adit_model.conditions.partial import fixed_rows
from adit_model.config import ModelConfig, SamplingConfig
from adit_model.geometry import random_rotation as draw_rotation
from adit_model.sampling.symmetry import Template, draw_template, is_imposed
from adit_model.systems import CRYSTAL, MOLECULE

ConditionLike = Condition | str | Mapping[str, Any] | None
_OPTIONS = tuple(f.name for f in fields(SamplingConfig))
MAX_SAMPLES = 100_000_000  # of one request
GUIDED = ("elements", "formula", "space_group", "properties", "atoms")  # what guidance acts on


@dataclass(frozen=True)
class Request(MSONable):
    """How many structures, of what, and how they are sampled.

    Parameters
    ----------
    n : int
        How many samples.
    condition : Condition, str, mapping, or a sequence of n of them
        What is asked of all samples, or of each.
    seed : int
        Of all random numbers. Sample i depends on the weights, on it and on i, not on n.
    first_index : int
        Index of the first sample: samples 0 to 99 are those of two requests for 50, one of which
        starts at 50.
    sampling : SamplingConfig or mapping
        What differs from the sampling defaults of the checkpoint; None leaves a value to it.
    random_rotation : bool
        Turn each structure at random; otherwise it comes in its canonical pose.

    Raises
    ------
    ValueError, TypeError
        If a value is out of range or has the wrong type.

    Examples
    --------
    >>> request = Request.of(40, "crystal, atoms=4-12", seed=5, num_steps=25)
    >>> [part.first_index for part in request.split(4)]
    [0, 10, 20, 30]
    """

    n: int
    condition: Condition | tuple[Condition, ...] | Any = field(default_factory=Condition)
    seed: int = 0
    first_index: int = 0
    sampling: tuple[tuple[str, Any], ...] | Any = ()
    random_rotation: bool = False

    def __post_init__(self) -> None:
        for name in ("n", "seed", "first_index"):
            value = getattr(self, name)
            check_integer(name, value)
            object.__setattr__(self, name, int(value))
        _check_n(self.n)
        for name in ("seed", "first_index"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not isinstance(self.random_rotation, bool):
            raise TypeError(f"random_rotation must be a bool, got {self.random_rotation!r}")
        object.__setattr__(self, "condition", self._read_condition())
        object.__setattr__(self, "sampling", _overrides(self.sampling))

    def _read_condition(self) -> Condition | tuple[Condition, ...]:
        given = self.condition
        if isinstance(given, Condition | str | Mapping | None):
            return as_condition(given)
        each = tuple(as_condition(one) for one in given)
        if len(each) != self.n:
            raise ValueError(f"there are {len(each)} conditions for {self.n} samples")
        return each[0] if len(set(each)) == 1 else each

    @classmethod
    def of(
        cls,
        n: int | Request,
        condition: ConditionLike | Sequence[ConditionLike] = None,
        *,
        domain: str | None = None,
        num_atoms: Counts | Sequence[int] | str | None = None,
        seed: int = 0,
        first_index: int = 0,
        random_rotation: bool = False,
        **sampling: Any,
    ) -> Request:
        """Build a request from its short forms; a request passes through alone.

        Parameters
        ----------
        n, condition, seed, first_index, random_rotation
            See :class:`Request`.
        domain : str
            ``"crystal"``, ``"molecule"`` or ``"both"``, added to the condition.
        num_atoms : int, tuple, list or str
            Added to the condition: a number, a ``(low, high)`` range, text as in the condition,
            or a list (text: ``"4,5,6"``) with one number for each sample.
        **sampling
            ``num_steps``, ``solver``, ``guidance_scale``, ``noise_scale``, ``symmetry``,
            ``step_focus``, ``even_electrons``; None leaves a value to the checkpoint. See
            :class:`~adit_model.config.SamplingConfig`.

        Raises
        ------
        ValueError, TypeError
            As :class:`Request`.
        """
        if isinstance(n, Request):
            given = (condition, domain, num_atoms, seed, first_index, random_rotation)
            if given != (None, None, None, 0, 0, False) or sampling:
                raise TypeError("a Request says all: give nothing beside it")
            return n
        if isinstance(num_atoms, str) and "," in num_atoms:
            num_atoms = [_count(part) for part in num_atoms.split(",")]
        _check_n(n)
        per_sample = isinstance(num_atoms, Sequence) and not isinstance(num_atoms, str | tuple)
        single = isinstance(condition, Condition | str | Mapping | None)
        if single and not per_sample:
            both: Any = as_condition(condition, domain=domain, num_atoms=num_atoms)  # type: ignore[arg-type]
        else:
            counts: Any = num_atoms if per_sample else [num_atoms] * int(n)
            if len(counts) != n:
                raise ValueError(f"num_atoms lists {len(counts)} atom counts for {n} samples")
            each: Any = [condition] * int(n) if single else condition
            if len(each) != n:
                raise ValueError(f"there are {len(each)} conditions for {n} samples")
            both = [
                as_condition(one, domain=domain, num_atoms=count)
                for one, count in zip(each, counts, strict=True)
            ]
        return cls(n, both, seed, first_index, sampling, random_rotation)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """One condition for each sample."""
        if isinstance(self.condition, Condition):
            return (self.condition,) * self.n
        return tuple(self.condition)

    @property
    def asked(self) -> set[Condition]:
        """The different conditions."""
        return {self.condition} if isinstance(self.condition, Condition) else set(self.condition)

    def settings(self, base: SamplingConfig) -> SamplingConfig:
        """Return the sampling defaults of a checkpoint with what the request sets."""
        return replace(base, **dict(self.sampling))

    def filled(self, base: SamplingConfig) -> Request:
        """Return the request with the values it leaves open, as :meth:`check` gives them."""
        return replace(self, sampling=self.settings(base))

    def part(self, start: int, stop: int) -> Request:
        """Return the request for samples ``start`` to ``stop - 1``, counted from its first."""
        condition = self.condition
        if not isinstance(condition, Condition):
            condition = condition[start:stop]
        first = self.first_index + start
        return replace(self, n=stop - start, condition=condition, first_index=first)

    def split(self, k: int) -> list[Request]:
        """Divide it into k requests of nearly equal size, which together make the same samples.

        Raises
        ------
        ValueError, TypeError
            If k is not an integer from 1 to n.
        """
        check_integer("k", k)
        if not 1 <= k <= self.n:
            raise ValueError(f"k must lie in 1..{self.n}, got {k}")
        borders = [self.n * i // k for i in range(k + 1)]
        return [self.part(a, b) for a, b in pairwise(borders)]

    def check(self, known: Known, config: ModelConfig) -> SamplingConfig:
        """Check the request against what a checkpoint knows, before any work.

        A property asked for outside its range in the training data is a warning.

        Returns
        -------
        SamplingConfig
            What it is sampled with; without guidance where that would act on nothing.

        Raises
        ------
        ValueError
            If a condition cannot be met, or the request sets a guidance that would act on nothing.
        """
        domains = sorted({d for c in self.asked for d in known.domains_for(c)})
        cautions = {kind.caution(c, known) for c in self.asked for kind in KINDS.values()}
        for text in sorted(text for text in cautions if text is not None):
            warnings.warn(text, stacklevel=2)
        settings = self.settings(config.sampling)
        symmetry, exact = dict(self.sampling).get("symmetry"), config.autoencoder.exact
        crystals = CRYSTAL in domains  # without them "found" may be a checkpoint's default
        if (symmetry == "known" and not (crystals and exact)) or (
            symmetry == "found" and crystals and not exact
        ):
            raise ValueError(
                f"symmetry {symmetry!r} acts on crystals of weights whose latents are coordinates, "
                f"not on these {' and '.join(f'{d}s' for d in domains)}: leave it away"
            )
        noise = dict(self.sampling).get("noise_scale")
        if isinstance(noise, str) and ".elements" in noise and not exact:
            raise ValueError(
                f"noise_scale {noise!r}: elements have a noise of their own in weights whose "
                "latents are coordinates, which these are not; leave it away"
            )
        told = {name for c in self.asked for name in c.asked} & set(known.learned)
        guided = settings.guidance
        idle = sorted(set(guided) - told) if isinstance(guided, dict) else []
        if idle and "guidance_scale" in dict(self.sampling):
            raise ValueError(
                f"guidance_scale {settings.guidance_scale!r} acts on nothing for "
                f"{' and '.join(idle)}: no condition that the network is told asks for it; "
                "leave it away"
            )
        acts = not told.isdisjoint(GUIDED)
        acts |= config.denoiser.element_condition and MOLECULE in domains
        if settings.guidance_scale == 1.0 or acts:
            return settings
        if "guidance_scale" in dict(self.sampling):
            said = guided if isinstance(guided, dict) else f"{guided:g}"
            raise ValueError(
                f"guidance_scale {said} acts on nothing: the network is told "
                f"nothing of these {' and '.join(f'{d}s' for d in domains)} that it could do "
                "without; leave it away or give 1"
            )
        return replace(settings, guidance_scale=1.0)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON, with conditions as text."""
        texts = [str(one) for one in self.conditions]
        return {
            "@module": type(self).__module__,
            "@class": type(self).__name__,
            "n": self.n,
            "condition": texts[0] if isinstance(self.condition, Condition) else texts,
            "seed": self.seed,
            "first_index": self.first_index,
            "sampling": dict(self.sampling),
            "random_rotation": self.random_rotation,
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Request:
        """Read what :meth:`as_dict` wrote."""
        return cls(**{k: v for k, v in d.items() if not k.startswith("@")})


def _check_n(n: Any) -> None:
    check_integer("n", n)
    if n <= 0:
        raise ValueError(f"n must be a positive integer, got {n}")
    if n > MAX_SAMPLES:
        raise ValueError(f"n must be at most {MAX_SAMPLES}, got {n}: divide it by first_index")


def check_integer(name: str, value: Any) -> None:
    """Raise TypeError unless the value is an integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")


def check_positive(name: str, value: int | None) -> None:
    """Raise ValueError or TypeError unless the value is None or a positive integer."""
    if value is not None:
        check_integer(name, value)
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value}")


def _count(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(f"num_atoms lists numbers such as 4,5,6, got {text.strip()!r} among them")
    return int(text)


def _overrides(sampling: Any) -> tuple[tuple[str, Any], ...]:
    if isinstance(sampling, SamplingConfig):
        sampling = asdict(sampling)
    given = {k: v for k, v in dict(sampling or {}).items() if v is not None}
    unknown = sorted(set(given) - set(_OPTIONS))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}, known: {', '.join(_OPTIONS)}")
    checked = replace(SamplingConfig(), **given)
    return tuple((name, getattr(checked, name)) for name in sorted(given))


@dataclass(frozen=True, eq=False)
class Draw:
    """One sample to be made.

    Parameters
    ----------
    index, seed : int
        Which sample.
    condition : Condition
        What is asked of it.
    domain : str
        ``"crystal"`` or ``"molecule"``.
    num_atoms : int
        Number of its atoms N.
    noise : numpy.ndarray
        Where the flow starts, shape (N, L), float32; with an exact autoencoder a crystal has one
        row more for its cell.
    rotation : numpy.ndarray
        Random rotation, shape (3, 3).
    told : numpy.ndarray or None
        Atomic numbers that the denoiser is told, 0 where it chooses, shape (N,).
    choice : ElementChoice or None
        How its elements are chosen at decoding; None leaves them to the decoder.
    origin : numpy.ndarray or None
        Normalised latents it starts from where that is not noise alone, shape (N, L).
    fixed, fixed_latents : numpy.ndarray or None
        Places of the fixed atoms, shape (F,), and their normalised latents, shape (F, L).
    targets : mapping
        Value of each property asked for; of a range, one that was drawn from it.
    template : Template or None
        Known crystal whose symmetry is imposed.
    """

    index: int
    seed: int
    condition: Condition
    domain: str
    num_atoms: int
    noise: np.ndarray
    rotation: np.ndarray
    told: np.ndarray | None = None
    choice: ElementChoice | None = None
    origin: np.ndarray | None = None
    fixed: np.ndarray | None = None
    fixed_latents: np.ndarray | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    template: Template | None = None

    @property
    def decides(self) -> bool:
        """Whether its elements, of which a set was asked for, are decided on the way.

        In a crystal: a molecule's network settles elements late, with the bonds, and is worse off.
        """
        if self.choice is None or self.choice.allowed is None:
            return False
        return self.domain == CRYSTAL

    def fresh_noise(self, num_steps: int, settings: SamplingConfig) -> np.ndarray:
        """Noise that solvers renew, shape (num_steps - 1, num_atoms or one more, L)."""
        generator = np.random.default_rng([self.seed, self.index, 1])
        scale, elements = settings.noise(self.domain)
        scales = np.full(self.noise.shape, scale, np.float32)
        scales[: self.num_atoms, 3:] = elements
        return scales * generator.standard_normal((num_steps - 1, *scales.shape), np.float32)


def draw_samples(
    request: Request,
    known: Known,
    orders: ElementOrders,
    config: ModelConfig,
    sampling: SamplingConfig,
) -> list[Draw]:
    """Draw domain, number of atoms, noise, rotation and elements of each sample of a request.

    Each is drawn from seed and index alone. Where the domain is free, crystals are at even,
    molecules at odd indices, as far as the condition allows both.

    Parameters
    ----------
    request : Request
        Checked against ``known``.
    known, orders, config
        What the checkpoint knows, the orders of elements of its training molecules, and its
        configuration.
    sampling : SamplingConfig
        What it is sampled with.

    Raises
    ------
    ValueError
        If no training molecule fits the elements asked for.
    """
    domains = {condition: known.domains_for(condition) for condition in request.asked}
    told = orders if config.denoiser.element_condition and orders.histogram else None
    counts: dict[tuple[Condition, str], dict[int, int]] = {}
    missing: set[Condition] = set()
    draws = []
    for index, condition in enumerate(request.conditions, request.first_index):
        choice = domains[condition]
        domain = choice[0] if len(choice) == 1 else (CRYSTAL, MOLECULE)[index % 2]
        key = condition, domain
        if key not in counts:
            counts[key] = known.counts_for(condition, domain, told)
            if not counts[key]:
                raise ValueError(
                    f"'{condition}' cannot be made: no training molecule of such a size is made of "
                    f"these elements alone; they hold {'-'.join(sorted(orders.elements))}"
                )
        drawn = None
        if domain == CRYSTAL and is_imposed(condition, sampling.symmetry):
            drawn = draw_template(index, request.seed, condition, counts[key])
            if drawn is None:
                missing.add(condition)
        draw = _draw(index, request.seed, condition, domain, counts[key], orders, config, drawn)
        if sampling.even_electrons and domain == MOLECULE:
            even = replace(draw.choice or ElementChoice(), even=np.array(known.elements[domain]))
            draw = replace(draw, choice=even)
        draws.append(draw)
    for condition in sorted(missing, key=str):
        warnings.warn(
            f"no known crystal has the symmetry, number of atoms and orbits for '{condition}': "
            "nothing is imposed, the network is told alone",
            stacklevel=2,
        )
    return draws


def _draw(
    index: int,
    seed: int,
    condition: Condition,
    domain: str,
    counts: Mapping[int, int],
    orders: ElementOrders,
    config: ModelConfig,
    drawn_template: tuple[Template, np.ndarray | None] | None,
) -> Draw:
    generator = np.random.default_rng([seed, index])
    template, assigned = drawn_template or (None, None)
    if template is not None:
        count = len(template.numbers)
    elif len(counts) == 1 and isinstance(condition.num_atoms, int):
        (count,) = counts
    else:
        weights = np.array(list(counts.values()), dtype=np.float64)
        count = int(generator.choice(list(counts), p=weights / weights.sum()))
    rows = count + int(domain == CRYSTAL and config.autoencoder.exact)  # one for the cell
    noise = generator.standard_normal((rows, config.autoencoder.latent_dim), np.float32)
    rotation = draw_rotation(generator)
    told = None
    if domain == MOLECULE and config.denoiser.element_condition:
        drawn = np.random.default_rng([seed, index, 2])
        if condition.formula is not None:
            told = orders.of_formula(condition.formula).draw(count, drawn)
            if told is None:
                told = shuffled_order(condition.formula, drawn)
        elif condition.elements is not None:
            told = orders.of_elements(condition.elements).draw(count, drawn)
        else:
            told = orders.draw(count, drawn)
    fixed = None if condition.atoms is None else fixed_rows(condition, count)
    choice = ElementChoice(told) if told is not None else _choice(condition, count, fixed)
    if config.denoiser.conditions:
        told = _named(condition, count, fixed)
    if template is not None:
        told = assigned
        choice = replace(choice or ElementChoice(), numbers=assigned, orbits=template.orbits)
    return Draw(
        *(index, seed, condition, domain, count, noise, rotation, told, choice),
        fixed=fixed,
        targets=_targets(condition, np.random.default_rng([seed, index, 3])),
        template=template,
    )


def _targets(condition: Condition, generator: np.random.Generator) -> dict[str, float]:
    """Value of each property asked for; of a range, a uniform draw from it."""
    return {
        name: float(generator.uniform(*value)) if isinstance(value, tuple) else value
        for name, value in condition.properties or ()
    }


def _named(condition: Condition, count: int, fixed: np.ndarray | None) -> np.ndarray | None:
    """Atomic numbers of the atoms whose element is known, 0 of others, shape (count,)."""
    if condition.formula is not None:
        unit, ranks = composition_of(condition.formula), electronegativity_ranks()
        numbers = sorted((atomic_numbers[s] for s in unit), key=lambda z: ranks[z])
        amounts = [unit[chemical_symbols[z]] for z in numbers]
        return np.repeat(numbers, np.array(amounts) * (count // sum(amounts)))
    if fixed is None:
        return None
    told = np.zeros(count, np.int64)
    told[fixed] = [atomic_numbers[site[0]] for site in condition.atoms]
    return told


def _choice(condition: Condition, count: int, fixed: np.ndarray | None) -> ElementChoice | None:
    """How the elements are chosen where the denoiser is not told them."""
    numbers = composition = allowed = None
    if fixed is not None:
        numbers = np.zeros(count, np.int64)
        numbers[fixed] = [atomic_numbers[site[0]] for site in condition.atoms]
    if condition.formula is not None:
        unit = composition_of(condition.formula)
        row = np.repeat([atomic_numbers[s] for s in unit], list(unit.values()))
        composition = np.repeat(row, count // len(row))
    elif condition.elements is not None:
        allowed = np.array([atomic_numbers[s] for s in condition.elements])
    if numbers is None and composition is None and allowed is None:
        return None
    return ElementChoice(numbers, composition, allowed)
