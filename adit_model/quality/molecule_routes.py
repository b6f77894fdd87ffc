"""Other routes to the validity of a molecule: largest fragment, Open Babel, PoseBusters."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.quality.molecules import canonical_smiles
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from rdkit.Chem import Mol

# column of PoseBusters' report (configuration "mol") for each of our names
POSEBUSTERS_CHECKS = {
    "loaded": "mol_pred_loaded",
    "sanitization": "sanitization",
    "inchi": "inchi_convertible",
    "connected": "all_atoms_connected",
    "no_radicals": "no_radicals",
    "bond_lengths": "bond_lengths",
    "bond_angles": "bond_angles",
    "steric_clash": "internal_steric_clash",
    "aromatic_rings_flat": "aromatic_ring_flatness",
    "other_rings_not_flat": "non-aromatic_ring_non-flatness",
    "double_bonds_flat": "double_bond_flatness",
    "internal_energy": "internal_energy",
}


def largest_fragment(system: AtomicSystem) -> str:
    """SMILES of the largest fragment, its bonds perceived by RDKit at charge 0.

    The atoms are split into fragments by distance first, so that a stray atom does not spoil the
    bonds of the rest.

    Raises
    ------
    ValueError
        For a crystal, or if RDKit finds no bonds for the fragment or refuses them.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDetermineBonds

    if system.is_periodic:
        raise ValueError(f"{system.formula} is a crystal, not a molecule")
    with rdBase.BlockLogs():
        connected = Chem.MolFromXYZBlock(system.to_xyz())
        rdDetermineBonds.DetermineConnectivity(connected)
        atoms = np.array(max(Chem.GetMolFrags(connected), key=len))
        mol = AtomicSystem(system.numbers[atoms], system.positions[atoms]).to_rdkit()
        return _sanitized_smiles(mol)


def largest_fragment_open_babel(system: AtomicSystem) -> str:
    """SMILES of the largest fragment, bonds perceived by Open Babel, sanitised by RDKit.

    This is the route of ADiT and of the works it compares to. It passes far more than
    ``DetermineBonds``: Open Babel fits the bond orders to whatever geometry there is.

    Raises
    ------
    ImportError
        If Open Babel is not installed.
    ValueError
        For a crystal, or if RDKit refuses what Open Babel found.
    """
    from openbabel import openbabel
    from rdkit import Chem, rdBase

    if system.is_periodic:
        raise ValueError(f"{system.formula} is a crystal, not a molecule")
    openbabel.obErrorLog.StopLogging()
    conversion = openbabel.OBConversion()
    conversion.SetInAndOutFormats("xyz", "mol")
    found = openbabel.OBMol()
    conversion.ReadString(found, system.to_xyz())
    with rdBase.BlockLogs():
        block = conversion.WriteString(found)
        mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        if mol is None:
            raise ValueError(f"RDKit cannot read what Open Babel made of {system.formula}")
        parts = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
        return _sanitized_smiles(max(parts, key=lambda part: part.GetNumAtoms()))


def _sanitized_smiles(mol: Mol) -> str:
    from rdkit import Chem

    try:
        Chem.SanitizeMol(mol)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return canonical_smiles(mol)


def bust(system: AtomicSystem) -> dict[str, bool | None]:
    """Run all checks of PoseBusters for a molecule alone (configuration ``mol``).

    Buttenschoen et al., Chem. Sci. 2024, 15, 3130. The bonds are those of RDKit's
    ``DetermineBonds`` at charge 0.

    Returns
    -------
    dict
        From the names in :data:`POSEBUSTERS_CHECKS` to the verdicts; None where PoseBusters gives
        none, as for the energy of a molecule that its force field has no parameters for.

    Raises
    ------
    ImportError
        If PoseBusters is not installed.
    ValueError
        For a crystal, or if RDKit finds no bonds.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = system.to_rdkit()
        Chem.SanitizeMol(mol)
        (row,) = _posebusters().bust(mol).to_dict("records")
    return {name: _verdict(row.get(column)) for name, column in POSEBUSTERS_CHECKS.items()}


def _verdict(value: Any) -> bool | None:
    return bool(value) if isinstance(value, bool | np.bool_) else None


@functools.cache
def _posebusters() -> Any:
    from posebusters import PoseBusters

    return PoseBusters(config="mol", max_workers=0)
