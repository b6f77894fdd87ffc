"""Did samples obey: of what was asked, how often a finished sample holds it.

Each kind of condition judges a sample itself, and the sample carries the verdicts
(``Sample.holds``); here they are counted, with two more: whether a sample stays within the
elements asked for (``within``), and whether it is in the space group and plausible when
symmetrised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ase.data import chemical_symbols

from adit_model.conditions.condition import Condition
from adit_model.conditions.crystal import space_group_of, symmetrised
from adit_model.quality.tables import interval, share, table, tally
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from adit_model.quality.records import SampleRecord
    from adit_model.sampling.sample import Sample

SYMMETRISE = (0.1, 0.2, 0.3)  # angstrom, tried in this order until the group is reached
EXACT = 0.01  # angstrom, at which a symmetrised crystal must be in its group


def held(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Count for each thing that was asked how many samples hold it.

    Parameters
    ----------
    rows : sequence of dict
        Each with ``holds``, from the name of what was asked to whether the sample holds it. One
        that could not be decoded holds nothing. ``valid`` and what :func:`more_verdicts` gives
        count where they are there.

    Returns
    -------
    dict
        From each name to ``passed``, ``of`` (samples that were asked for it) and ``share``:
        ``"elements within"``, the names themselves, ``"space_group symmetrised"``; ``"all"`` is of
        samples that hold everything they were asked for, ``"all and plausible"`` of those that are
        plausible besides.
    """
    asked = [row for row in rows if row.get("holds")]
    names = dict.fromkeys(name for row in asked for name in row["holds"])
    counts: dict[str, list[bool]] = {}
    for name in names:
        mine = [row for row in asked if name in row["holds"]]
        if name == "elements" and any("within" in row for row in mine):
            counts["elements within"] = [row.get("within") is True for row in mine]
        counts[name] = [row["holds"][name] is True for row in mine]
        if name == "space_group" and any("symmetrised" in row for row in mine):
            counts["space_group symmetrised"] = [row.get("symmetrised") is True for row in mine]
    every = [all(row["holds"].values()) for row in asked]
    if len(names) > 1:
        counts["all"] = every
    if asked and all(isinstance(row.get("plausible"), bool) for row in asked):
        pairs = zip(asked, every, strict=True)
        counts["all and plausible"] = [held and row["plausible"] for row, held in pairs]
    return {name: tally(sum(verdicts), len(verdicts)) for name, verdicts in counts.items()}


def more_verdicts(
    conditions: Sequence[Condition], systems: Sequence[AtomicSystem | None], **options: Any
) -> list[dict[str, bool]]:
    """Judge structures beyond ``holds``.

    Parameters
    ----------
    conditions : sequence of Condition
        What was asked of each.
    systems : sequence of AtomicSystem or None
        The structures.
    **options
        ``workers`` and ``time_limit`` of :func:`adit_model.quality.records.check_systems`.

    Returns
    -------
    list of dict
        ``within`` where elements were asked for: no atom is of another element. ``symmetrised``
        where a space group was: moved onto its symmetry, by at most 0.3 angstrom, the crystal is
        in the group at 0.01 angstrom and plausible.
    """
    from adit_model.quality.records import check_systems

    found: list[dict[str, bool]] = [{} for _ in systems]
    refined: dict[int, AtomicSystem] = {}
    for i, (condition, system) in enumerate(zip(conditions, systems, strict=True)):
        if condition.elements is not None:
            symbols = () if system is None else {chemical_symbols[z] for z in system.numbers}
            found[i]["within"] = bool(symbols) and set(symbols) <= set(condition.elements)
        if condition.space_group is not None:
            found[i]["symmetrised"] = False
            moved = None if system is None else symmetrised_into(system, condition.space_group)
            if moved is not None:
                refined[i] = moved
    verdicts = check_systems(list(refined.values()), **options)
    for i, verdict in zip(refined, verdicts, strict=True):
        found[i]["symmetrised"] = verdict.plausible is True
    return found


def symmetrised_into(system: AtomicSystem, group: int) -> AtomicSystem | None:
    """Symmetrise a crystal at the first tolerance of :data:`SYMMETRISE` that reaches a group."""
    for tolerance in SYMMETRISE:
        moved = symmetrised(system, tolerance)
        if moved is not None and space_group_of(moved, EXACT) == group:
            return moved
    return None


def obeyed(
    samples: Sequence[Sample], records: Sequence[SampleRecord], **options: Any
) -> dict[str, dict[str, Any]]:
    """Count as :func:`held` what samples hold of what was asked of them.

    Parameters
    ----------
    samples, records : sequence
        Of one another.
    **options
        As of :func:`more_verdicts`.
    """
    conditions = [sample.condition for sample in samples]
    more = more_verdicts(conditions, [sample.system for sample in samples], **options)
    rows = [
        {"holds": sample.holds, "plausible": record.plausible, **verdicts}
        for sample, record, verdicts in zip(samples, records, more, strict=True)
    ]
    return held(rows)


def held_lines(title: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write what :func:`held` found as a Markdown table; nothing where nothing was asked."""
    body = [(name, share(rate), interval(rate)) for name, rate in found.items()]
    return table((title, "share", "95 %"), body) if body else []
