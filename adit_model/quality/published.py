"""Figures published for other models, as tables beside which ours may stand.

Definitions differ between protocols, so each table stands alone, and a figure of ours goes into a
column only where it is taken by that definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adit_model.systems import CRYSTAL, MOLECULE

Figures = tuple[str | None, ...]


@dataclass(frozen=True)
class Table:
    """One published table.

    Parameters
    ----------
    title, definition : str
        What it is, and what its columns mean.
    domain : str
        ``"crystal"`` or ``"molecule"``.
    columns : tuple of str
        Titles.
    ours : tuple of str or None
        The rate in our summary for each column, see
        :data:`~adit_model.quality.summary.RATES`; None where ours is taken otherwise.
    rows : mapping
        From a model to its figures in per cent, None where none is published.
    """

    title: str
    definition: str
    domain: str
    columns: tuple[str, ...]
    ours: Figures
    rows: Mapping[str, Figures]


TABLES = (
    Table(
        "MP-20, 10,000 samples, validity of CDVAE",
        "Structural: all distances above 0.5 angstrom, volume at least 0.1 cubic angstrom. "
        "Compositional: SMACT. More than the data itself has (90.4) means nothing.",
        CRYSTAL,
        ("structural", "compositional", "overall"),
        ("structural", "compositional", "valid"),
        {
            "ADiT, MP20 only, DiT-B": ("99.6", "90.5", "90.1"),
            "ADiT, joint, DiT-B": ("99.7", "92.1", "91.9"),
            "UNITE-S": ("99.0", "89.9", "87.9"),
            "training data": (None, "90.4", None),
        },
    ),
    Table(
        "MP-20, 10,000 samples, one protocol for all models (that of Crystalite)",
        "Unique and novel fall with the number of samples and with the size of the reference, and "
        "ours are shares of the valid: compare them with care. The stable and S.U.N. rates of "
        "that protocol need its hull and are not taken here.",
        CRYSTAL,
        ("structural", "compositional", "unique", "novel", "U.N."),
        ("structural", "compositional", "unique", "novel", None),
        {
            "FlowMM": ("93.0", "83.2", "97.4", "85.0", "84.0"),
            "DiffCSP": ("99.9", "82.1", "96.9", "89.5", "87.9"),
            "MatterGen": ("99.8", "83.7", "98.1", "91.1", "90.3"),
            "ADiT": ("99.5", "90.2", "90.3", "59.8", "56.9"),
            "Crystalite": ("99.6", "81.7", "95.2", "79.3", "77.3"),
            "GLASS": ("99.6", "86.0", "96.4", "72.5", "71.5"),
        },
    ),
    Table(
        "LeMat-GenBench, 2,500 samples, not relaxed",
        "Validity and the reference of that benchmark are its own, so ours is not put beside them.",
        CRYSTAL,
        ("valid", "unique", "novel"),
        (None, None, None),
        {
            "ADiT": ("90.6", "87.8", "26.0"),
            "DiffCSP": ("95.7", "94.8", "66.2"),
            "GLASS": ("89.3", "88.3", "45.7"),
            "Chemeleon2": ("95.2", "88.1", "71.6"),
        },
    ),
    Table(
        "QM9 with hydrogens, validity",
        "The largest fragment passes RDKit's sanitisation. Ours has its bonds from Open Babel, "
        "which passes almost anything: look at the stricter rates too.",
        MOLECULE,
        ("valid",),
        ("open_babel_valid",),
        {
            "Symphony": ("83.5",),
            "EDM": ("91.9",),
            "ADiT, QM9 only": ("92.2",),
            "GeoLDM": ("93.8",),
            "ADiT, joint": ("94.45",),
            "Zatom-1": ("94.9",),
            "Zatom-2": ("95.7",),
        },
    ),
    Table(
        "QM9 with hydrogens, EDM's stability",
        "Valences from a table of bond lengths (Hoogeboom et al., ICML 2022, table 1).",
        MOLECULE,
        ("atoms stable", "molecules stable"),
        ("stable_atoms", "stable"),
        {"data": ("99.0", "95.2")},
    ),
    Table(
        "QM9 with hydrogens, PoseBusters",
        "Per cent passing. Ours are shares of the molecules for which RDKit finds bonds, by the "
        "installed version of PoseBusters, whose thresholds have changed over time.",
        MOLECULE,
        (
            "connected",
            "bond angles",
            "bond lengths",
            "aromatic rings flat",
            "double bonds flat",
            "internal energy",
            "no steric clash",
        ),
        (
            "pb_connected",
            "pb_bond_angles",
            "pb_bond_lengths",
            "pb_aromatic_rings_flat",
            "pb_double_bonds_flat",
            "pb_internal_energy",
            "pb_steric_clash",
        ),
        {
            "ADiT, joint": ("99.70", "99.85", "99.41", "100", "99.98", "95.86", "99.79"),
            "Zatom-2": ("100.00", "99.93", "99.93", "100", "99.99", "99.61", "99.98"),
        },
    ),
)

# Validity of ADiT by number of atoms in LeMat-GenBench, by its own definition of valid
BY_NUM_ATOMS = {"1-4": "98.9", "5-8": "95.5", "9-12": "90.7", "13-16": "76.8", "17-20": "84.4"}
