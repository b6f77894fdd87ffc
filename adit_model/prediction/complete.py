"""Completion: atoms are added to a host whose own atoms and cell stay as they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from adit_model.canonical import Canonical, canonicalise
from adit_model.conditions.atoms import check_symbol, composition_of
from adit_model.conditions.condition import Condition
from adit_model.conditions.known import Known
from adit_model.config import ModelConfig
from adit_model.formulas import chemical_formula
from adit_model.geometry import random_rotation
from adit_model.prediction.candidates import (
    CLOSEST,
    NONE,
    Candidate,
    choose_engine,
    closest_ratio,
    described,
    engine_label,
    joined,
    relaxed,
    row,
    too_close,
)
from adit_model.prediction.hydrogens import hydrogens
from adit_model.prediction.sites import sites
from adit_model.sampling.request import Request, check_integer
from adit_model.sampling.sample import Sample
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from adit_model.model import ADiT

Add = Mapping[str, int] | str | int
Fixed = Sequence[Any] | np.ndarray | str | None
SITES = "sites by geometry"
_POSE_STREAM = 7  # of the random numbers that turn or shift the host of a sample


@dataclass(frozen=True, eq=False)
class Task:
    """A host to complete, checked before any work.

    Parameters
    ----------
    host : AtomicSystem
        The atoms that are fixed, N of them, in the order of the structure that was given.
    add : dict or int
        Atoms that are made, of each element, or how many of any.
    form : Canonical
        Of the host, its cell Niggli-reduced but not divided.
    poses : tuple of numpy.ndarray
        For each sample, where the host is put: a shift in fractional coordinates (3,) for a
        crystal, a rotation (3, 3) for a molecule.
    request : Request
        A condition for each sample.
    engine : str
        What relaxes, or ``"none"``.
    guesses : int
        Completions by geometry beside the samples; see :func:`task`.
    """

    host: AtomicSystem
    add: Mapping[str, int] | int
    form: Canonical
    poses: tuple[np.ndarray, ...]
    request: Request
    engine: str
    guesses: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON."""
        request = self.request.as_dict()
        return {
            "add": self.add,
            "request": request,
            "engine": self.engine,
            "guesses": self.guesses,
        }

    def restore(self, sample: Sample, place: int) -> AtomicSystem | None:
        """Bring a sample into the cell, order and coordinates of the host; added atoms follow."""
        if sample.system is None:
            return None
        made = sample.system.numbers[len(self.host) :]
        if self.host.cell is None:
            centre = self.host.positions.mean(axis=0)
            turned = sample.system.positions[len(self.host) :] @ self.poses[place].T
            positions = turned + centre
        else:
            assert self.form.system.cell is not None
            frac = sample.system.frac_coords[len(self.host) :] - self.poses[place]
            here = frac @ self.form.system.cell @ self.form.rotation.T
            inside = here @ np.linalg.inv(self.host.cell)
            positions = (inside - np.floor(inside)) @ self.host.cell
        return AtomicSystem(
            np.concatenate([self.host.numbers, made]),
            np.concatenate([self.host.positions, positions]),
            self.host.cell,
            sample.system.info,
        )


@dataclass(frozen=True, eq=False)
class Completion:
    """Ranked completions of a host.

    Parameters
    ----------
    task : Task
        What was asked.
    candidates : tuple of Candidate
        Different from each other, the lowest in energy first; without energies sites by geometry,
        the likeliest first, and then what most samples agree on. The first atoms are those of the
        host, in its order; unless a relaxation moved them, where they were.
    dropped : dict
        Why a sample is not among them, by its index.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    dropped: Mapping[int, str]

    def rows(self) -> list[dict[str, Any]]:
        """Return the table."""
        energies = [c.energy for c in self.candidates if c.energy is not None]
        lowest = min(energies, default=None)
        return [{"rank": k, **row(c, lowest)} for k, c in enumerate(self.candidates, 1)]

    def summary(self) -> str:
        """Say in a few lines what came out."""
        add = self.task.add
        text = f"{add} atoms" if isinstance(add, int) else chemical_formula(add)
        lines = [
            f"{text} into {self.task.host.formula}: {self.task.request.n} candidates and "
            f"{self.task.guesses} guesses, "
            f"{len(self.dropped)} dropped, {len(self.candidates)} different ones left"
        ]
        if self.task.engine != NONE:
            lines[0] += f", relaxed by {engine_label(self.task.engine)}"
        reasons = Counter(reason.partition(":")[0] for reason in self.dropped.values())
        lines += [f"  dropped, {n}: {reason}" for reason, n in reasons.most_common(3)]
        return "\n".join(lines)


def task(
    known: Known,
    config: ModelConfig,
    structure: Any,
    add: Add,
    n: int = 10,
    *,
    fixed: Fixed = None,
    engine: str | None = NONE,
    guesses: int | None = None,
    seed: int = 0,
    first_index: int = 0,
    **sampling: Any,
) -> Task:
    """Check a host and what is to be added, before any work.

    Parameters
    ----------
    known, config
        What a checkpoint knows, and its configuration.
    structure : AtomicSystem, pymatgen Structure or Molecule, or ase.Atoms
        The host. A crystal keeps its cell as it is, primitive or not.
    add : mapping, str or int
        ``{"Li": 2}``, ``"Li2"``, or a number of atoms whose elements are free.
    n : int
        Candidates to generate.
    fixed : sequence, str or None
        Which atoms of the structure are fixed: their indices, a mask, or elements (``"Fe-P-O"``,
        ``["Fe", "P", "O"]``); None fixes all. The others are made anew beside those to add.
    engine : str, optional
        ``"chgnet"``, ``"sevennet"``, ``"xtb"``, ``"none"``; None takes the domain's default.
    guesses : int, optional
        Completions by :func:`~adit_model.prediction.sites.sites` beside the samples, of a crystal
        and elements that are given, or by :func:`~adit_model.prediction.hydrogens.hydrogens` of a
        molecule and hydrogen; by default half as many as samples.
    seed, first_index : int
        See :class:`~adit_model.sampling.request.Request`.
    **sampling
        See :class:`~adit_model.config.SamplingConfig`.

    Raises
    ------
    ValueError, TypeError
        If the host is disordered, nothing is added, an element is unknown, the result has more
        atoms than the weights know, or a number is out of range.
    ModuleNotFoundError
        If the engine is not installed.
    """
    check_integer("n", n)
    if n < 1:
        raise ValueError(f"the number of candidates must be a positive integer, got {n}")
    whole = _host_of(structure)
    keep = fixed_mask(whole, fixed)
    wanted = read_add(add)
    made = Counter(chemical_symbols[z] for z in whole.numbers[~keep])
    if made and isinstance(wanted, int):
        raise ValueError(
            "atoms of the host that are not fixed are made anew: say the elements to add, too "
            '(add={"Li": 2}), or fix all atoms'
        )
    total: Mapping[str, int] | int = wanted if isinstance(wanted, int) else made + Counter(wanted)
    host = AtomicSystem(whole.numbers[keep], whole.positions[keep], whole.cell)
    form = canonicalise(host, primitive=False)
    poses = tuple(_pose(host, seed, i) for i in range(first_index, first_index + n))
    conditions = [_condition(host, form, pose, total) for pose in poses]
    try:
        request = Request.of(n, conditions, seed=seed, first_index=first_index, **sampling)
        request = request.filled(request.check(known, config))
    except ValueError as error:
        count = len(host) + (total if isinstance(total, int) else sum(total.values()))
        most = max(known.sizes.get(host.domain, {0: 0}))
        if count > most:
            raise ValueError(
                f"{host.formula} would have {count} atoms with what is added, these weights know "
                f"{host.domain}s of at most {most}: take a smaller cell or part"
            ) from error
        reason = str(error).partition("cannot be made: ")[2] or str(error)
        raise ValueError(f"{host.formula} cannot be completed: {reason}") from error
    chosen = choose_engine(engine, host.domain)
    possible = not isinstance(total, int) and (host.is_periodic or set(total) == {"H"})
    if guesses is None:
        guesses = (n + 1) // 2 if possible else 0
    if guesses < 0 or (guesses and not possible):
        raise ValueError(
            "guesses are of crystals and elements that are given, or of a molecule's hydrogens, "
            f"at least 0, got {guesses}"
        )
    return Task(host, total, form, poses, request, chosen, guesses)


def _host_of(structure: Any) -> AtomicSystem:
    try:
        return AtomicSystem.from_any(structure)
    except ValueError as error:
        if "disordered" not in str(error):
            raise
        raise ValueError(
            f"{error}: a host needs whole atoms; order it first, for example with pymatgen's "
            "OrderDisorderedStructureTransformation"
        ) from error


def read_add(add: Add) -> dict[str, int] | int:
    """Read what is to be added: ``{"Li": 2}``, ``"Li2"``, ``"2"`` or 2.

    Raises
    ------
    ValueError, TypeError
        If it is nothing, or an element is unknown.
    """
    if isinstance(add, str):
        text = add.strip()
        return read_add(int(text) if re.fullmatch(r"-?\d+", text) else composition_of(text))
    if isinstance(add, Mapping):
        for symbol, number in add.items():
            check_symbol(str(symbol))
            check_integer(f"atoms of {symbol} to add", number)
            if number < 1:
                raise ValueError(f"add at least one {symbol}, got {number}")
        if not add:
            raise ValueError('nothing is to be added: write {"Li": 2}, "Li2" or a number of atoms')
        return {str(symbol): int(number) for symbol, number in add.items()}
    check_integer("add", add)
    if add < 1:
        raise ValueError(f"add at least one atom, got {add}")
    return int(add)


def fixed_mask(system: AtomicSystem, fixed: Fixed) -> np.ndarray:
    """Which atoms are fixed, bool of shape (N,).

    Parameters
    ----------
    system : AtomicSystem
        The host.
    fixed : sequence, str or None
        Indices, a mask of N bools, elements, or None for all.

    Raises
    ------
    ValueError
        If no atom is fixed, an index is out of range, or an element is not in the host.
    """
    count = len(system)
    if fixed is None:
        return np.ones(count, dtype=bool)
    given = (
        [part for part in re.split(r"[-,\s]+", fixed) if part] if isinstance(fixed, str) else fixed
    )
    values = np.asarray(given)
    mask = np.zeros(count, dtype=bool)
    if values.dtype == bool:
        if values.shape != (count,):
            raise ValueError(f"a mask of the {count} atoms of the host has {len(values)} values")
        mask = values.copy()
    elif values.dtype.kind in "US":
        symbols = [chemical_symbols[z] for z in system.numbers]
        if all(re.fullmatch(r"\d+", part) for part in values.tolist()):
            return fixed_mask(system, [int(part) for part in values.tolist()])
        for symbol in values.tolist():
            if check_symbol(symbol) not in symbols:
                raise ValueError(f"the host {system.formula} holds no {symbol}")
        mask = np.isin(symbols, values)
    elif values.dtype.kind in "iu":
        if len(values) and not -count <= values.min() <= values.max() < count:
            raise ValueError(f"the host has atoms 0 to {count - 1}, got {sorted(values.tolist())}")
        mask[values] = True
    else:
        raise ValueError(f"fixed takes indices, a mask or elements, got {fixed!r}")
    if not mask.any():
        raise ValueError("at least one atom must be fixed; without any, predict the formula")
    return mask


def _pose(host: AtomicSystem, seed: int, index: int) -> np.ndarray:
    """Where the host of a sample is put: the networks were trained with any origin and turn."""
    generator = np.random.default_rng([seed, index, _POSE_STREAM])
    return generator.random(3) if host.is_periodic else random_rotation(generator)


def _condition(
    host: AtomicSystem, form: Canonical, pose: np.ndarray, total: Mapping[str, int] | int
) -> Condition:
    """Ask for the host with atoms added: its sites first, in the order of the host."""
    symbols = [chemical_symbols[z] for z in host.numbers]
    cell = None
    if host.cell is None:
        coordinates = (host.positions - host.positions.mean(axis=0)) @ pose
    else:
        cell = form.system.cell
        assert cell is not None
        frac = host.positions @ form.rotation @ np.linalg.inv(cell) + pose
        coordinates = frac - np.floor(frac)
    sites = [(s, *xyz) for s, xyz in zip(symbols, coordinates.tolist(), strict=True)]
    rest: dict[str, Any] = {"num_atoms": len(host) + total} if isinstance(total, int) else {}
    if not isinstance(total, int):
        rest = {"formula": dict(Counter(symbols) + Counter(total)), "formula_units": 1}
    return Condition(domain=host.domain, cell=cell, atoms=sites, **rest)


def complete(
    model: ADiT,
    asked: Task,
    *,
    workers: int | None = None,
    batch_atoms: int | None = None,
    progress: bool = True,
) -> Completion:
    """Generate completions, and find sites by geometry; screen, relax, join and rank them.

    With an engine there are two relaxations: of the added atoms while the host is held, then of
    all atoms. The cell stays as it is.

    Parameters
    ----------
    model : ADiT
        With both stages.
    asked : Task
        From :func:`task`.
    workers : int, optional
        Threads of sampling on a CPU, processes that relax and compare (one without).
    batch_atoms : int, optional
        Atoms integrated at a time.
    progress : bool
        Show progress bars.
    """
    samples = model.sample(
        asked.request, batch_atoms=batch_atoms, workers=workers, progress=progress
    )
    systems = [asked.restore(sample, k) for k, sample in enumerate(samples)]
    indices = [sample.index for sample in samples]
    found = judge(asked, systems, indices, workers=workers, progress=progress)
    failed = {s.index: f"not decoded: {s.fault}" for s in samples if s.system is None}
    return replace(found, dropped=dict(sorted({**found.dropped, **failed}.items())))


def judge(
    asked: Task,
    systems: Sequence[AtomicSystem | None],
    indices: Sequence[int],
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Completion:
    """Screen, relax, join and rank completions; see :func:`complete`."""
    guessed = []
    if asked.guesses and not isinstance(asked.add, int):
        guessed = (
            sites(asked.host, asked.add, asked.guesses, asked.request.seed)
            if asked.host.is_periodic
            else hydrogens(asked.host, asked.add["H"], asked.guesses)
        )
    closest = min(CLOSEST, 0.95 * closest_ratio(asked.host))  # a fault of the host is its own
    candidates = [
        Candidate(system, index=i, fault=too_close(system, closest))
        for i, system in zip(indices, systems, strict=True)
        if system is not None
    ]
    candidates += [
        Candidate(g, source=SITES, fault=too_close(g, closest), likely=k)
        for k, g in enumerate(guessed)
    ]
    if asked.engine != NONE:
        candidates = relaxed(
            candidates,
            asked.engine,
            first=[np.arange(len(c.system)) >= len(asked.host) for c in candidates],
            workers=workers,
            progress=f"relaxing by {asked.engine}" if progress else None,
        )
    candidates = described(candidates, workers)
    dropped = {int(c.index): c.fault for c in candidates if c.fault and c.index is not None}
    return Completion(asked, tuple(joined(candidates, workers)), dropped)
