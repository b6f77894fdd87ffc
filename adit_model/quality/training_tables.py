"""Quality of a set of samples as numbers, and as one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.quality.crystals import (
    CrystalCheck,
    check_crystals,
    novel_crystals,
    unique_crystals,
)
from adit_model.quality.molecules import check_molecules, novel_molecules, unique_molecules
from adit_model.quality.reconstruction import element_accuracy, match_crystals, molecule_rmsd
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE, AtomicSystem

if TYPE_CHECKING:
    from adit_model.data.dataset import AtomicDataset
    from adit_model.sampling.sample import Sample

SIZE_BINS = ((1, 4), (5, 8), (9, 12), (13, 16), (17, 20))


def evaluate_samples(
    samples: Sequence[Sample | AtomicSystem],
    *,
    reference_crystals: AtomicDataset | Iterable[AtomicSystem] | None = None,
    reference_smiles: Set[str] | None = None,
    workers: int = 1,
    time_limit: float = 10.0,
    progress: bool = False,
) -> dict[str, Any]:
    """Count what is valid, unique and novel among samples.

    Parameters
    ----------
    samples : sequence of Sample or AtomicSystem
        Crystals, molecules or both. A sample without system (unphysical cell) counts as invalid.
    reference_crystals : AtomicDataset or iterable of AtomicSystem, optional
        Crystals that are not novel: the training set. Without it novelty is None.
    reference_smiles : set of str, optional
        SMILES that are not novel, from
        :func:`~adit_model.quality.molecules.canonical_smiles_set`. Without it novelty is None.
    workers : int
        Worker processes.
    time_limit : float
        Seconds for the validity of one system.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        Plain counts, ready for JSON: ``"molecules"`` with ``count``, ``valid`` (bonded and
        connected), ``closed_shell``, ``unique``, ``novel``, ``vun`` (valid, unique and novel),
        ``timed_out``; ``"crystals"`` with ``count``, ``structural``, ``compositional``, ``valid``
        (both), ``unique``, ``novel``, ``vun``, ``timed_out`` and ``by_num_atoms``, the first four
        counts for each bin of sizes. Closed-shell, unique and novel are counted among the valid
        ones. A domain without samples is left out.

    Raises
    ------
    ValueError
        If there are no samples.
    TypeError
        If one of them is neither a sample nor a system.
    """
    if len(samples) == 0:
        raise ValueError("there are no samples to evaluate")
    domains: dict[str, list[tuple[AtomicSystem | None, int]]] = {name: [] for name in DOMAINS}
    for sample in samples:
        system = sample if isinstance(sample, AtomicSystem) else _system_of(sample)
        if system is not None:
            domains[system.domain].append((system, len(system)))
        else:
            domains[sample.domain].append((None, sample.num_atoms))  # type: ignore[union-attr]
    report: dict[str, Any] = {}
    options: dict[str, Any] = {"workers": workers, "progress": progress}
    if domains[MOLECULE]:
        report["molecules"] = _evaluate_molecules(
            [system for system, _ in domains[MOLECULE]], reference_smiles, time_limit, options
        )
    if domains[CRYSTAL]:
        report["crystals"] = _evaluate_crystals(
            [system for system, _ in domains[CRYSTAL]],
            np.array([size for _, size in domains[CRYSTAL]]),
            reference_crystals,
            time_limit,
            options,
        )
    return report


def _system_of(sample: Any) -> AtomicSystem | None:
    if not hasattr(sample, "system"):
        raise TypeError(
            f"expected a Sample or an AtomicSystem, got {type(sample).__module__}."
            f"{type(sample).__name__}"
        )
    return sample.system


def _evaluate_molecules(
    systems: list[AtomicSystem | None],
    reference: Set[str] | None,
    time_limit: float,
    options: dict[str, Any],
) -> dict[str, Any]:
    decoded = [system for system in systems if system is not None]
    checks = check_molecules(decoded, time_limit=time_limit, **options)
    unique = unique_molecules(checks)
    novel = None if reference is None else novel_molecules(checks, reference)
    return {
        "count": len(systems),
        "valid": sum(check.valid for check in checks),
        "closed_shell": sum(check.valid and check.closed_shell for check in checks),
        "unique": int(unique.sum()),
        "novel": None if novel is None else int(novel.sum()),
        "vun": None if novel is None else int((unique & novel).sum()),
        "timed_out": sum(check.timed_out for check in checks),
    }


def _evaluate_crystals(
    systems: list[AtomicSystem | None],
    sizes: np.ndarray,
    reference: AtomicDataset | Iterable[AtomicSystem] | None,
    time_limit: float,
    options: dict[str, Any],
) -> dict[str, Any]:
    decoded = [system for system in systems if system is not None]
    found = iter(check_crystals(decoded, time_limit=time_limit, **options))
    missing = CrystalCheck(False, False, "no system")
    checks = [missing if system is None else next(found) for system in systems]
    valid = [s for s, check in zip(systems, checks, strict=True) if s is not None and check.valid]
    unique = unique_crystals(valid, **options)
    novel = None if reference is None else novel_crystals(valid, reference, **options)
    by_num_atoms = {}
    for low, high in _bins(int(sizes.max())):
        members = [checks[i] for i in np.flatnonzero((sizes >= low) & (sizes <= high))]
        by_num_atoms[f"{low}-{high}"] = _count(members)
    return {
        **_count(checks),
        "unique": int(unique.sum()),
        "novel": None if novel is None else int(novel.sum()),
        "vun": None if novel is None else int((unique & novel).sum()),
        "timed_out": sum(check.timed_out for check in checks),
        "by_num_atoms": by_num_atoms,
    }


def _bins(largest: int) -> list[tuple[int, int]]:
    last = SIZE_BINS[-1][1]
    return [*SIZE_BINS, *([(last + 1, largest)] if largest > last else [])]


def _count(checks: Sequence[CrystalCheck]) -> dict[str, int]:
    return {
        "count": len(checks),
        "structural": sum(check.structural for check in checks),
        "compositional": sum(check.compositional for check in checks),
        "valid": sum(check.valid for check in checks),
    }


# (label, key, denominator) of each row
MOLECULE_ROWS = (
    ("valid and connected", "valid", "count"),
    ("closed shell, uncharged (of valid)", "closed_shell", "valid"),
    ("unique (of valid)", "unique", "valid"),
    ("novel (of valid)", "novel", "valid"),
    ("valid, unique and novel", "vun", "count"),
)
CRYSTAL_ROWS = (
    ("structurally valid", "structural", "count"),
    ("compositionally valid", "compositional", "count"),
    ("both", "valid", "count"),
    ("unique (of valid)", "unique", "valid"),
    ("novel (of valid)", "novel", "valid"),
    ("valid, unique and novel", "vun", "count"),
)


def evaluate_reconstruction(
    originals: Sequence[AtomicSystem],
    reconstructions: Sequence[AtomicSystem | None],
    *,
    workers: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure how well systems came back from the autoencoder.

    Parameters
    ----------
    originals : sequence of AtomicSystem
        Crystals, molecules or both, not seen in training.
    reconstructions : sequence of AtomicSystem or None
        What ``ADiT.reconstruct`` made of them.
    workers : int
        Worker processes.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        Ready for JSON: ``"molecules"`` with ``count``, ``element_accuracy``, ``rmsd_mean`` and
        ``rmsd_median`` (angstrom); ``"crystals"`` with ``count``, ``element_accuracy``,
        ``match_rate`` and ``rmse`` (see
        :class:`~adit_model.quality.reconstruction.CrystalMatch`). A number without any system to
        take it from is None; a domain without systems is left out.

    Raises
    ------
    ValueError
        If the numbers of systems, or of atoms in a pair, differ.
    """
    if len(originals) == 0 or len(originals) != len(reconstructions):
        raise ValueError(
            f"need as many reconstructions as originals, got {len(reconstructions)} for "
            f"{len(originals)}"
        )
    result: dict[str, Any] = {}
    for domain in (MOLECULE, CRYSTAL):
        chosen = [i for i, system in enumerate(originals) if system.domain == domain]
        before, after = [originals[i] for i in chosen], [reconstructions[i] for i in chosen]
        if not chosen:
            continue
        part: dict[str, Any] = {
            "count": len(chosen),
            "element_accuracy": element_accuracy(before, after),
        }
        if domain == MOLECULE:
            rmsd = molecule_rmsd(before, after)
            rmsd = rmsd[np.isfinite(rmsd)]
            part["rmsd_mean"] = float(rmsd.mean()) if len(rmsd) else None
            part["rmsd_median"] = float(np.median(rmsd)) if len(rmsd) else None
        else:
            match = match_crystals(before, after, workers=workers, progress=progress)
            part["match_rate"] = match.match_rate
            part["rmse"] = match.rmse if match.match_rate > 0 else None
        result[f"{domain}s"] = part
    return result


# (label, key, per cent, unit) of each row
RECONSTRUCTION_ROWS = (
    ("element accuracy", "element_accuracy", True, " %"),
    ("RMSD, mean", "rmsd_mean", False, " angstrom"),
    ("RMSD, median", "rmsd_median", False, " angstrom"),
    ("StructureMatcher match rate", "match_rate", True, " %"),
    ("RMS distance of the matched, in (volume/atoms)^(1/3)", "rmse", False, ""),
)


def format_reconstruction(result: Mapping[str, Any]) -> str:
    """Write a result of :func:`evaluate_reconstruction` as a Markdown table."""
    lines = ["| reconstruction | |", "|---|---:|"]
    for domain in ("molecules", "crystals"):
        part = result.get(domain)
        if not part:
            continue
        lines.append(f"| **{domain}** | {part['count']} |")
        for label, key, percent, unit in RECONSTRUCTION_ROWS:
            if key in part:
                value = part[key]
                number = (
                    "-" if value is None else f"{100 * value:.2f}" if percent else f"{value:.4f}"
                )
                lines.append(f"| {label} | {number}{'' if value is None else unit} |")
    return "\n".join(lines) + "\n"


def format_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Write reports side by side as a Markdown table, in per cent with the counts.

    Parameters
    ----------
    reports : mapping
        From a column's title to a result of :func:`evaluate_samples`.

    Raises
    ------
    ValueError
        If there are no reports.
    """
    if not reports:
        raise ValueError("there are no reports to tabulate")
    lines = [("", *reports)]
    for domain, rows in (("molecules", MOLECULE_ROWS), ("crystals", CRYSTAL_ROWS)):
        parts = [report.get(domain) for report in reports.values()]
        if not any(parts):
            continue
        lines.append((f"**{domain}**", *(str(part["count"]) if part else "" for part in parts)))
        for label, key, base in rows:
            lines.append((label, *(_share(part, key, base) for part in parts)))
        late = [part["timed_out"] if part else 0 for part in parts]
        if any(late):
            lines.append(("no answer in time (counted invalid)", *map(str, late)))
        lines += _bin_lines(parts)
    header, *body = ("| " + " | ".join(line) + " |" for line in lines)
    rule = "|---" + "|---:" * len(reports) + "|"
    return "\n".join([header, rule, *body]) + "\n"


def _bin_lines(parts: Sequence[Mapping[str, Any] | None]) -> list[tuple[str, ...]]:
    bins = [part.get("by_num_atoms", {}) if part else {} for part in parts]
    labels = dict.fromkeys(label for part in bins for label in part)
    return [
        (f"both, {label} atoms", *(_share(part.get(label), "valid", "count") for part in bins))
        for label in labels
    ]


def _share(part: Mapping[str, Any] | None, key: str, base: str) -> str:
    if not part or part[key] is None or not part[base]:
        return "-"
    return f"{100 * part[key] / part[base]:.1f} % ({part[key]}/{part[base]})"
