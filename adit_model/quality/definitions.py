"""What a report says that its numbers mean."""

from __future__ import annotations

from collections.abc import Mapping

from adit_model.quality.hull import METASTABLE
from adit_model.systems import CRYSTAL, MOLECULE

COUNTING = """\
Every rate is a share of all samples unless it says otherwise; what could not be decoded or read,
and every check that failed or ran out of time, counts as not passed. Beside it stands the 95 %
interval (Wilson) that the number of samples leaves.
"""
# domain -> name of a rate -> what passes, in a few words
MEANINGS: Mapping[str, Mapping[str, str]] = {
    CRYSTAL: {
        "structural": "all distances above 0.5 angstrom; only collapsed cells fail",
        "compositional": "SMACT finds charges that cancel; elements and alloys pass",
        "valid": "both of these",
        "unique": "the first of those that StructureMatcher finds equal",
        "novel": "equal to no structure of the reference",
        "vun": "all three",
        "strict": "the next four together",
        "neutral": "charges cancel with oxidation states seen in the ICSD",
        "separated": "no two atoms nearer than 0.7 times the sum of their covalent radii",
        "dense": "0.3 to 25 g/cm^3, 4 to 120 cubic angstrom per atom",
        "sane_lattice": "reduced lattice vectors of 2 to 60 angstrom",
    },
    MOLECULE: {
        "valid": "RDKit finds bonds at total charge 0, and they join all atoms",
        "closed_shell": "no radical and no formal charge on any atom",
        "unique": "the first with its SMILES, stereochemistry aside",
        "novel": "the SMILES is not in the reference",
        "vun": "all three",
        "fragment_valid": "RDKit finds bonds for the largest connected part",
        "open_babel_valid": "the same with Open Babel's bonds, as published: nearly all pass",
        "open_babel_whole": "and that part has all atoms and no radical",
        "stable": "all atoms have their valence by EDM's bond lengths",
        "pb_loaded": "RDKit can load it",
        "pb_sanitization": "RDKit's sanitisation",
        "pb_inchi": "it has an InChI",
        "pb_connected": "one piece",
        "pb_no_radicals": "no radical",
        "pb_bond_lengths": "between heavy atoms, within 25 % of distance geometry's bounds",
        "pb_bond_angles": "the same for distances over two bonds",
        "pb_steric_clash": "the same for more distant atoms, 30 % below the bounds",
        "pb_aromatic_rings_flat": "atoms within 0.25 angstrom of a plane; passes if none is there",
        "pb_other_rings_not_flat": "six-rings at least 0.05 angstrom off; passes if none is there",
        "pb_double_bonds_flat": "atoms within 0.25 angstrom of a plane; passes if none is there",
        "pb_internal_energy": "UFF, at most 100 times the mean of RDKit's conformers",
        "pb_all": "of the molecules with a verdict, each check that gave one",
        "pb_passed": "RDKit finds bonds, and each check that gave a verdict passes",
    },
}
DEFINITIONS: Mapping[str, str] = {
    CRYSTAL: """\
- *Structurally valid*: all distances, periodic images included, above 0.5 angstrom and volume above
  0.1 cubic angstrom per atom. *Compositionally valid*: SMACT with the oxidation states of CDVAE and
  ADiT (`smact14`), Pauling test, elements and alloys pass, at most seven elements.
- *Unique*, *novel*: pymatgen's StructureMatcher (ltol 0.3, stol 0.5, angle_tol 10), as generated.
  Structures far from any real one are unique and novel, too: read both beside validity only.
- *Strict set*: charges by the oxidation states observed in the ICSD (`icsd24`).
- *Space group*: spglib within 0.1 angstrom. Atoms a few tenths of an angstrom off leave none of the
  symmetry, which relaxation may bring back.
- *Wasserstein*: by how much the values of this set have to be moved, on average, to be those of the
  data. *Total variation*: the share of structures that would have to change, 0 to 1.
- *Coverage* (where asked for): precision is the share of samples that are near a structure of the
  data, recall the share of the data that is near a sample. Near means: CrystalNN fingerprints
  (matminer, `ops`, mean over sites) at most 0.4 apart and `magpie` composition features at most 10
  apart, each to the nearest, as in CDVAE; but the features are standardised by the data at hand,
  where CDVAE's code has constants. Recall rises with the number of samples.
""",
    MOLECULE: """\
- *Valid*: RDKit finds bonds from the coordinates at total charge 0 (`DetermineBonds`), the result
  passes its sanitisation and is one fragment.
- *Largest fragment valid*: only the largest connected part is asked; bonds by RDKit at charge 0, or
  by Open Babel as in the literature. Open Babel makes something of almost anything: 98 % of QM9
  passes even with 0.3 angstrom of noise on every atom, but nothing of that is in one piece with all
  its hydrogens, which the line below it asks.
- *Stable*: H, C, N, O and F only (Hoogeboom et al., ICML 2022).
- *PoseBusters*: configuration `mol`, bonds by RDKit at charge 0. For some cages its search for
  conformers finds none, hence there is no energy.
- *Strain*: what relaxation with GFN2-xTB (charge 0, lowest multiplicity, BFGS, forces below 0.05
  eV/angstrom) changes: energy drop, RMSD after the best rotation. That of real molecules is not
  zero: their geometries are of another method.
- Bonds, angles and rings of the distributions join atoms closer than 1.2 times the sum of their
  covalent radii, so they exist for invalid molecules too.
- *Wasserstein*: by how much the values of this set have to be moved, on average, to be those of the
  data.
""",
}
ENERGY_MEANINGS: Mapping[str, str] = {
    "converged": "forces below 0.1 eV/angstrom within 500 steps, no collapse",
    "stable": "converged, at most 0 eV/atom above the hull",
    "metastable": f"converged, at most {METASTABLE} eV/atom above the hull; stable ones included",
    "sun": "stable, and after relaxation unique and novel",
    "msun": "metastable, and after relaxation unique and novel",
}
ENERGY_DEFINITIONS = """\
- *Relaxation* of atoms and cell: FIRE, Frechet cell filter. All shares are of all samples, valid or
  not; a relaxation that failed or did not converge counts as not passed. Medians and means are of
  the crystals that have the number.
- *Formation energy*: relative to the elements by the same force field. *Energy above hull*: of
  that, relative to the mixture of known phases with the lowest energy at the composition.
- *RMSD*: root mean square displacement of the atoms, their mean move and the change of the cell
  taken out.
- *Unique* is the lowest of equal metastable crystals, *novel* is equal to none of the reference.
"""
CAPTIONS: Mapping[str, str] = {
    "validity": "Shares by number of atoms (below: samples)",
    "distributions": "Distributions of this set (lines) and of the data (filled)",
    "energy_above_hull": "Energy above hull; what lies outside is in the outermost bars",
    "structures": "Structures, evenly drawn from the set; invalid by the first table",
}
