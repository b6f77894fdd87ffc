"""Discovery on one machine: generate crystals, relax what is new, rank it by energy above hull."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.data.phases import is_known, known_splits
from adit_model.prediction.candidates import (
    NONE,
    Candidate,
    described,
    fault_of,
    row,
    symmetrised,
)
from adit_model.quality.cells import CellStore, measure_systems
from adit_model.quality.crystals import amounts
from adit_model.quality.energies import check_hull, energy_measure, make_hull
from adit_model.quality.entries import load_reference
from adit_model.quality.force_fields import FORCE_FIELDS, element_references, force_field
from adit_model.quality.hull import MATERIALS_PROJECT, check_formation_energy, rank_key
from adit_model.quality.matching import first_equal, known_crystals
from adit_model.quality.rows import Options
from adit_model.quality.symmetry import MOVED, SYMMETRY
from adit_model.sampling.request import Request
from adit_model.sampling.sample import Sample
from adit_model.sampling.sampler import prepare, stream_samples
from adit_model.systems import CRYSTAL, AtomicSystem

if TYPE_CHECKING:
    from adit_model.model import ADiT
    from adit_model.sampling.request import Draw

AT_ONCE = 8  # relaxations between two visits to the disk
CRYSTALS_ONLY = (
    "adit discover ranks crystals by their energy above the hull: leave the molecules to adit "
    "predict C6H6O, or adit generate"
)


@dataclass(frozen=True)
class Search:
    """What is looked for, and how; checked before any work by :func:`search`.

    Parameters
    ----------
    request : Request
        Of the crystals.
    engine : str
        Force field that relaxes them, or ``"none"``.
    hull : tuple of str
        Sources of the hull, see :func:`~adit_model.quality.energies.make_hull`.
    keep_known : bool
        Rank crystals that are known, too.
    tolerance, most : float
        See :func:`~adit_model.prediction.candidates.symmetrised`.
    """

    request: Request
    engine: str
    hull: tuple[str, ...] = ("known",)
    keep_known: bool = False
    tolerance: float = SYMMETRY
    most: float = MOVED

    def as_dict(self) -> dict[str, Any]:
        """Return JSON."""
        request = {k: v for k, v in self.request.as_dict().items() if not k.startswith("@")}
        return {
            "request": request,
            "relax": self.engine,
            "hull": list(self.hull),
            "keep_known": self.keep_known,
            "tolerance": self.tolerance,
            "most": self.most,
        }


@dataclass
class Find:
    """A crystal and what became of it.

    Parameters
    ----------
    candidate : Candidate
        As it is now; its ``fault`` says why it is not ranked.
    formation_energy, energy_above_hull : float or None
        In eV/atom; None where there is no answer.
    stability : str or None
        See :class:`~adit_model.quality.hull.HullResult`.
    competing : str
        What it decomposes into.
    note : str or None
        Why it has no energy above the hull.
    holds : dict
        Whether the sample is as asked, before it was relaxed.
    """

    candidate: Candidate
    formation_energy: float | None = None
    energy_above_hull: float | None = None
    stability: str | None = None
    competing: str = ""
    note: str | None = None
    holds: dict[str, bool] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Energy above the hull, the formation energy where no compound competes."""
        above = self.energy_above_hull
        return self.formation_energy if above is None else above

    def row(self, rank: int | None) -> dict[str, Any]:
        """Return a line of the table."""
        cells = row(self.candidate)
        for name in ("above_lowest", "smiles", "samples"):
            del cells[name]
        fault = cells.pop("fault")
        return {
            "rank": rank,
            "energy_above_hull": self.energy_above_hull,
            "formation_energy": self.formation_energy,
            "stability": self.stability,
            **cells,
            "competing": self.competing,
            "holds": " ".join(f"{k}={v}" for k, v in self.holds.items()),
            "fault": fault or self.note,
        }


@dataclass(frozen=True)
class Discovery:
    """What a search found.

    Parameters
    ----------
    search : Search
        What was looked for.
    ranked : tuple of Find
        The best first.
    dropped : tuple of Find
        Those that ended on the way, with the reason.
    undecoded : dict
        Samples without a structure: index and reason.
    hull : str
        Where the known phases come from.
    """

    search: Search
    ranked: tuple[Find, ...]
    dropped: tuple[Find, ...]
    undecoded: dict[int, str]
    hull: str

    def rows(self) -> list[dict[str, Any]]:
        """Return the table: the ranked crystals, then the others with the reason."""
        ranked = [find.row(k) for k, find in enumerate(self.ranked, 1)]
        return [*ranked, *(find.row(None) for find in self.dropped)]

    def summary(self) -> str:
        """Say in a few lines what came out."""
        reasons = Counter(str(f.candidate.fault).partition(":")[0] for f in self.dropped)
        if self.undecoded:
            reasons["not decoded"] = len(self.undecoded)
        lines = [f"{self.search.request.n} crystals, {len(self.ranked)} ranked"]
        lines += [f"  not ranked, {n}: {reason}" for reason, n in reasons.most_common()]
        if self.search.engine == NONE:
            return "\n".join([*lines, "nothing was relaxed: they are in the order of their index"])
        named = Counter(find.stability for find in self.ranked)
        near = ", ".join(f"{named[s]} {s}" for s in ("stable", "metastable") if named[s])
        lines.append(f"relaxed by {force_field(self.search.engine).label}, hull: {self.hull}")
        lines.append(f"within 0.1 eV/atom above the hull: {near or 'none'}")
        if unknown := sum(find.energy_above_hull is None for find in self.ranked):
            lines.append(f"{unknown} without an energy above the hull, by formation energy")
        return "\n".join(lines)


def choose_force_field(name: str | None) -> str:
    """Return the force field of that name, or CHGNet or else SevenNet-0, if it is installed.

    Raises
    ------
    ValueError
        If there is none of the name, or it has no energies of the elements.
    ModuleNotFoundError
        If it is not installed; the text says how to install it.
    """
    if name == NONE:
        return NONE
    if name is not None and name not in FORCE_FIELDS:
        raise ValueError(f"--relax is {', '.join(FORCE_FIELDS)} or none, got {name!r}")
    for choice in FORCE_FIELDS if name is None else (name,):
        try:
            force_field(choice).require()
            return choice
        except ModuleNotFoundError:
            if name is not None:
                raise
    raise ModuleNotFoundError(
        "no force field is installed that could relax crystals: pip install chgnet (or sevenn), or "
        "give --relax none for crystals that are new but neither relaxed nor ranked"
    )


def search(
    request: Request,
    known: Any,
    config: Any,
    *,
    engine: str | None = None,
    hull: Sequence[str] = ("known",),
    **options: Any,
) -> Search:
    """Check all that can be checked before any work.

    Parameters
    ----------
    request : Request
        Of crystals.
    known, config
        What a checkpoint knows, and its configuration.
    engine : str, optional
        See :func:`choose_force_field`.
    hull : sequence of str
        Sources of the hull.
    **options
        Of :class:`Search`.

    Raises
    ------
    ValueError, FileNotFoundError
        If the weights cannot make what is asked, or the hull cannot be built.
    ModuleNotFoundError
        If the force field is not installed.
    DownloadError
        If the Materials Project has to be asked, and has no key or cannot be reached.
    """
    request = request.filled(request.check(known, config))
    if any(known.domains_for(condition) != (CRYSTAL,) for condition in request.asked):
        raise ValueError(CRYSTALS_ONLY)
    chosen = choose_force_field(engine)
    for source in hull:
        if is_known(source):
            known_splits(source)
    check_hull(next(iter(FORCE_FIELDS)) if chosen == NONE else chosen, list(hull))
    if set(hull) & set(MATERIALS_PROJECT):
        from adit_model.data.materials_project import check_materials_project

        check_materials_project()
    return Search(request, chosen, tuple(hull), **options)


def discover(
    model: ADiT,
    asked: Search,
    store: CellStore | None = None,
    *,
    workers: int | None = None,
    batch_atoms: int | None = None,
    progress: bool = True,
    say: Callable[[str], object] = lambda text: None,
) -> Discovery:
    """Generate, screen, relax, symmetrise and rank.

    Parameters
    ----------
    model : ADiT
        With both stages.
    asked : Search
        From :func:`search`.
    store : CellStore, optional
        Keeps samples and relaxations as they are finished; a second call goes on from it.
    workers : int, optional
        Threads of sampling on a CPU, processes that relax and compare (one without).
    batch_atoms : int, optional
        Atoms integrated at a time.
    progress : bool
        Show progress bars.
    say : callable
        Told after each stage what is left.
    """
    store = store or CellStore()
    samples = _samples(model, asked.request, store, workers, batch_atoms, progress)
    undecoded = {s.index: str(s.fault) for s in samples if s.system is None}
    finds = [
        Find(Candidate(s.system, index=s.index, fault=fault_of(s.system)), holds=s.holds)
        for s in samples
        if s.system is not None
    ]

    def left(stage: str) -> list[Find]:
        open_ = [find for find in finds if find.candidate.fault is None]
        say(f"{len(open_)} of {len(samples)} {stage}")
        return open_

    crystals = left("are plausible")
    _drop_equal(crystals, workers)
    _drop_known(left("are different"), asked.keep_known, workers)
    crystals = left("are new" if not asked.keep_known else "go on")
    source = NONE
    if asked.engine != NONE:
        _relax(crystals, asked.engine, store, workers, progress)
        crystals = left("relaxed to a crystal")
        for find in crystals:  # what relaxes to one structure is one
            find.candidate = replace(find.candidate, fault=fault_of(find.candidate.system))
        crystals = left("are plausible now")
        _drop_equal(crystals, workers)
        _drop_known(left("are different now"), asked.keep_known, workers)
        crystals = left("are new now" if not asked.keep_known else "are ranked")
        source = _rank(crystals, asked, store, workers, progress)
    for find, candidate in zip(crystals, described([f.candidate for f in crystals]), strict=True):
        find.candidate = symmetrised(candidate, asked.tolerance, asked.most)
    ranked = [find for find in crystals if find.candidate.fault is None]
    ranked.sort(key=lambda f: (*rank_key(f.score, f.stability), f.candidate.index or 0))
    dropped = [find for find in finds if find.candidate.fault is not None]
    return Discovery(asked, tuple(ranked), tuple(dropped), undecoded, source)


def _samples(
    model: ADiT,
    request: Request,
    store: CellStore,
    workers: int | None,
    batch_atoms: int | None,
    progress: bool,
) -> list[Sample]:
    """Make the samples that the store does not have, and keep each batch."""
    draws, settings = prepare(model, request)
    key = "samples"
    made: dict[int, Sample] = {}
    by_index = {draw.index: draw for draw in draws}
    kept = store.read(key) or {}
    for index, value in kept.items():
        made[int(index)] = _read_sample(by_index[int(index)], value)
    todo = [draw for draw in draws if draw.index not in made]
    if not todo:
        return [made[draw.index] for draw in draws]
    stream = stream_samples(model, todo, settings, batch_atoms, workers, progress=progress)
    for batch in stream:
        for sample in batch:
            made[sample.index] = sample
            kept[str(sample.index)] = _plain(sample)
        store.write(key, kept)
    return [made[draw.index] for draw in draws]


def _plain(sample: Sample) -> dict[str, Any]:
    system = sample.system
    arrays = None
    if system is not None and system.cell is not None:
        arrays = [system.numbers.tolist(), system.positions.tolist(), system.cell.tolist()]
    return {"system": arrays, "fault": sample.fault, "holds": sample.holds}


def _read_sample(draw: Draw, value: dict[str, Any]) -> Sample:
    system = None
    if value["system"] is not None:
        numbers, positions, cell = map(np.array, value["system"])
        system = AtomicSystem(numbers, positions, cell)
    return Sample(
        draw.index,
        draw.seed,
        draw.domain,
        draw.num_atoms,
        system,
        value["fault"],
        condition=draw.condition,
        holds=value["holds"],
    )


def _drop_equal(finds: Sequence[Find], workers: int | None) -> None:
    firsts = first_equal([find.candidate.system for find in finds], workers=workers or 1)
    for i, (find, first) in enumerate(zip(finds, firsts, strict=True)):
        if isinstance(first, str):
            find.note = f"not compared to the others: {first}"
        elif first != i:
            find.candidate = replace(
                find.candidate, fault=f"double: equal to sample {finds[first].candidate.index}"
            )


def _drop_known(finds: Sequence[Find], keep: bool, workers: int | None) -> None:
    phases = load_reference(["known"]).crystals
    assert phases is not None
    systems = [find.candidate.system for find in finds]
    for find, match in zip(
        finds, known_crystals(systems, phases, workers=workers or 1), strict=True
    ):
        if isinstance(match, str):
            find.note = f"not compared to the known crystals: {match}"
        elif match is not None:
            fault = None if keep else f"known: as {match.id}"
            find.candidate = replace(find.candidate, known=match.id, fault=fault)


def _relax(
    finds: Sequence[Find], engine: str, store: CellStore, workers: int | None, progress: bool
) -> None:
    measure = replace(energy_measure(engine), chunk=AT_ONCE)
    cells = measure_systems(
        [find.candidate.system for find in finds],
        [measure],
        store,
        workers=workers or 1,
        progress=f"relaxing by {engine}" if progress else None,
    )
    for find, found in zip(finds, cells, strict=True):
        energy, before = found[f"{engine}_energy"], find.candidate
        if isinstance(energy, str):
            find.candidate = replace(before, fault=f"not relaxed: {energy}")
            continue
        cell, positions = found[f"{engine}_relaxed"]
        find.candidate = replace(
            before,
            system=AtomicSystem(before.system.numbers, np.array(positions), np.array(cell)),
            energy=energy,
            steps=found[f"{engine}_relax_steps"],
            converged=found[f"{engine}_converged"],
            rmsd=found[f"{engine}_rmsd"],
        )


def _rank(
    finds: Iterable[Find], asked: Search, store: CellStore, workers: int | None, progress: bool
) -> str:
    """Fill in formation energies and energies above the hull; return the source of the hull."""
    finds = list(finds)
    systems = [find.candidate.system for find in finds]
    options = Options(store=store, workers=workers or 1, progress=progress)
    hull = make_hull(asked.engine, list(asked.hull), systems, options)
    references = element_references(asked.engine)
    for find, system in zip(finds, systems, strict=True):
        composition = amounts(system)
        try:
            assert find.candidate.energy is not None
            energy = references.formation_energy(composition, find.candidate.energy)
            check_formation_energy(energy)
        except ValueError as error:
            find.candidate = replace(find.candidate, fault=f"no energy: {error}")
            continue
        place = hull.above(composition, energy, scale=references.scale)
        find.formation_energy, find.energy_above_hull = energy, place.energy_above_hull
        find.stability, find.competing = place.stability, " + ".join(place.competing)
        find.note = find.note or place.reason
    return hull.source
