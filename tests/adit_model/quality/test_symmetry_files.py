"""CIF and POSCAR files carry the space group, in the cell that is asked for."""

from __future__ import annotations

import io

import ase.io
import numpy as np
import pytest

from adit_model.quality.symmetry import crystal_text
from adit_model.systems import AtomicSystem


def rutile(noise: float = 0.0) -> AtomicSystem:
    from ase.spacegroup import crystal

    sites, cell = [(0, 0, 0), (0.305, 0.305, 0)], [4.59, 4.59, 2.96, 90, 90, 90]
    atoms = crystal(["Ti", "O"], sites, spacegroup=136, cellpar=cell)
    atoms.positions += np.random.default_rng(0).normal(0, noise, atoms.positions.shape)
    return AtomicSystem.from_atoms(atoms)


@pytest.mark.parametrize("noise", [0, 0.003])  # the second is off its special positions
@pytest.mark.parametrize("cell", ["refined", "primitive", "conventional"])
def test_a_cif_carries_the_space_group_and_gives_the_structure_back(cell, noise):
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    system = rutile(noise)
    text = crystal_text(system, cell=cell, symprec=0.02)
    assert "_symmetry_Int_Tables_number   136" in text
    assert "P4_2/mnm" in text
    assert sum(line.split()[:1] in (["Ti"], ["O"]) for line in text.splitlines()) == 2
    back = Structure.from_str(text, fmt="cif")
    assert len(back) == 6
    assert StructureMatcher(0.05, 0.05, 1, scale=False).fit(back, system.to_structure())


def test_as_made_nothing_moves_and_the_space_group_is_named():
    from pymatgen.core import Structure

    system = rutile(0.003)
    text = crystal_text(system, symprec=0.02)
    assert text.startswith("# space group P4_2/mnm (136) within 0.02 angstrom")
    back = Structure.from_str(text, fmt="cif")
    moved = back.frac_coords - system.frac_coords
    assert abs(moved - moved.round()).max() < 1e-6


def test_what_has_no_symmetry_is_written_whole():
    from pymatgen.core import Structure

    text = crystal_text(rutile(0.2))
    assert "'P 1'" in text
    assert len(Structure.from_str(text, fmt="cif")) == 6


def test_a_conventional_cell_on_request():
    from ase.build import bulk
    from pymatgen.core import Structure

    salt = bulk("NaCl", "rocksalt", 5.64)
    for format in ("poscar", "cif"):
        for cell, atoms in (("as-made", 2), ("refined", 2), ("primitive", 2), ("conventional", 8)):
            text = crystal_text(salt, format, cell)
            assert "Fm-3m" in text and "225" in text
            assert len(Structure.from_str(text, fmt=format)) == atoms
            read = ase.io.read(io.StringIO(text), format={"poscar": "vasp"}.get(format, format))
            assert len(read) == atoms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xyz"}, "format must be one of cif, poscar, got 'xyz'"),
        ({"cell": "Niggli"}, "cell must be one of as-made, refined, primitive, conventional"),
        ({"symprec": 0}, "symprec must be positive, got 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        crystal_text(rutile(), **options)
