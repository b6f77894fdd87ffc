"""Quality of generated and reconstructed crystals and molecules."""

from adit_model.metrics.crystals import (
    CrystalCheck,
    check_crystal,
    check_crystals,
    novel_crystals,
    unique_crystals,
)
from adit_model.metrics.molecules import (
    MoleculeCheck,
    canonical_smiles,
    canonical_smiles_set,
    check_molecule,
    check_molecules,
    novel_molecules,
    unique_molecules,
)
from adit_model.metrics.reconstruction import (
    CrystalMatch,
    element_accuracy,
    match_crystals,
    molecule_rmsd,
)
from adit_model.metrics.report import (
    evaluate_reconstruction,
    evaluate_samples,
    format_reconstruction,
    format_table,
)

__all__ = [
    "CrystalCheck",
    "CrystalMatch",
    "MoleculeCheck",
    "canonical_smiles",
    "canonical_smiles_set",
    "check_crystal",
    "check_crystals",
    "check_molecule",
    "check_molecules",
    "element_accuracy",
    "evaluate_reconstruction",
    "evaluate_samples",
    "format_reconstruction",
    "format_table",
    "match_crystals",
    "molecule_rmsd",
    "novel_crystals",
    "novel_molecules",
    "unique_crystals",
    "unique_molecules",
]
