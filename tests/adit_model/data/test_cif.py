from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser, CifWriter

from adit_model.data import cif
from adit_model.data.cif import read_cif, read_cif_with_pymatgen, split_cif
from adit_model.geometry import cell_to_parameters
from adit_model.systems import AtomicSystem

SYMBOLS = ["H", "C", "O", "Na", "Cl", "Fe", "Ho", "U"]
ROCKSALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)

# Coordinates on a grid of 1/97 keep atoms apart and away from the fractions that pymatgen rounds.
coordinates = st.lists(
    st.tuples(*[st.integers(-97, 193)] * 3),
    min_size=1,
    max_size=8,
    unique_by=lambda c: (c[0] % 97, c[1] % 97, c[2] % 97),
)
lengths = st.tuples(*[st.floats(2.0, 20.0)] * 3)
angles = st.tuples(*[st.floats(60.0, 100.0)] * 3)


def written(structure: Structure, **options: object) -> str:
    return str(CifWriter(structure, **options))


def parsed(text: str) -> Structure:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]


def assert_same_crystal(system: AtomicSystem, reference: Structure, tolerance: float) -> None:
    """Same cell parameters, and each atom of one has a distinct partner in the other."""
    found_lengths, found_angles = cell_to_parameters(system.cell)
    np.testing.assert_allclose(found_lengths, reference.lattice.abc, atol=1e-6)
    np.testing.assert_allclose(np.degrees(found_angles), reference.lattice.angles, atol=1e-6)
    assert len(system) == len(reference)
    delta = system.frac_coords[:, None] - reference.frac_coords[None]
    distance = np.abs(delta - np.round(delta)).max(axis=-1)
    distance[system.numbers[:, None] != np.array(reference.atomic_numbers)[None]] = np.inf
    partners = distance.argmin(axis=1)
    assert distance.min(axis=1).max() <= tolerance
    assert len(set(partners)) == len(system)


@given(lengths, angles, coordinates, st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_p1_files_are_read_as_pymatgen_reads_them(lengths, angles, coordinates, data) -> None:
    species = [data.draw(st.sampled_from(SYMBOLS)) for _ in coordinates]
    frac = np.array(coordinates) / 97
    text = written(Structure(Lattice.from_parameters(*lengths, *angles), species, frac))
    system = cif._read_p1_cif(text)
    assert system is not None
    assert_same_crystal(system, parsed(text), 1e-9)
    # Order and coordinates are those of the file, not wrapped.
    np.testing.assert_allclose(system.frac_coords, frac, atol=1e-7)
    assert [SYMBOLS.index(s) for s in species] == [
        SYMBOLS.index(site.specie.symbol) for site in system.to_structure()
    ]
    # a along x, b in the xy plane, right-handed.
    assert system.cell[0, 1:].tolist() == [0, 0]
    assert system.cell[1, 2] == 0
    assert np.linalg.det(system.cell) > 0


def test_symmetric_file_is_expanded() -> None:
    text = written(ROCKSALT, symprec=0.01)
    assert cif._read_p1_cif(text) is None
    assert_same_crystal(read_cif(text), ROCKSALT, 1e-6)


def test_group_without_operations_is_trusted_only_if_it_is_p1() -> None:
    text = written(ROCKSALT)
    start, end = text.index("loop_"), text.index("loop_", text.index("loop_") + 1)
    without = text[:start] + text[end:]
    assert cif._read_p1_cif(without) is not None
    other = without.replace("Int_Tables_number   1", "Int_Tables_number   225")
    assert other != without
    assert cif._read_p1_cif(other) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.50000000  0.50000000  0.50000000", "0.5(1)  0.50000000  0.50000000"),
        ("  Na  Na0", "  Na+  Na0"),
        ("'x, y, z'", "'+X,+Y,+Z'"),
        ("_cell_length_a   5.64000000", "_cell_length_a   5.6400(2)"),
    ],
)
def test_variants_of_notation_give_the_same_crystal(old: str, new: str) -> None:
    text = written(ROCKSALT)
    assert old in text
    assert_same_crystal(read_cif(text.replace(old, new)), ROCKSALT, 1e-6)


def test_extra_site_columns_are_ignored() -> None:
    # As in QMOF, whose CIF files carry charges and magnetic moments.
    lines = []
    for line in written(ROCKSALT).splitlines():
        atom = line.split()[:1] in (["Na"], ["Cl"])
        lines.append(f"{line}  0.91  None" if atom else line)
        if line.strip() == "_atom_site_occupancy":
            lines += [" _atom_site_pbe_ddec_charge", " _atom_site_pbe_magmom"]
    system = cif._read_p1_cif("\n".join(lines))
    assert system is not None
    assert_same_crystal(system, ROCKSALT, 1e-7)


def test_atoms_on_one_place_are_merged_as_pymatgen_does() -> None:
    text = written(ROCKSALT)
    row = next(line for line in text.splitlines() if line.split()[:1] == ["Na"])
    doubled = text.rstrip("\n") + "\n" + row.replace("Na0", "Na8") + "\n"
    assert cif._read_p1_cif(doubled) is None
    with pytest.raises(ValueError, match=r"cannot read|disordered"):
        read_cif(doubled)


def test_disorder_is_refused() -> None:
    mixed = Structure(Lattice.cubic(3.0), [{"Fe": 0.5, "Na": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match="site 0 is disordered"):
        read_cif(written(mixed))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the CIF lists no atoms"),
        ("not a crystal", "the CIF lists no atoms"),
        ("data_x\n_cell_length_a 3\n", "the CIF lists no atoms"),
    ],
)
def test_text_that_is_no_cif_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_cif(text)


def test_impossible_cell_is_refused_with_its_parameters() -> None:
    text = written(Structure(Lattice.cubic(3.0), ["Fe"], [[0, 0, 0]]))
    flat = text.replace("angle_gamma   90.0", "angle_gamma   180.0")
    with pytest.raises(ValueError, match=r"no cell has the parameters \[3.0, 3.0, 3.0, 90.0"):
        read_cif(flat)


def test_file_is_cut_into_its_structures() -> None:
    one = Structure(Lattice.cubic(3.0), ["Fe"], [[0, 0, 0]])
    text = "data_global\n_journal_name 'x'\n" + written(ROCKSALT) + written(one)
    blocks = split_cif(text)
    assert [len(read_cif(block)) for block in blocks] == [8, 1]
    assert split_cif("nothing") == ["nothing"]


@pytest.mark.data
def test_real_rows_are_read_as_pymatgen_reads_them(data_dir) -> None:
    import pandas as pd

    table = pd.read_csv(data_dir / "crystals_val.csv.gz").sample(60, random_state=0)
    for text in table["cif"]:
        system = cif._read_p1_cif(text)
        assert system is not None
        assert_same_crystal(system, parsed(text), 1e-9)
        # With pymatgen's own rounding of coordinates near simple fractions.
        slow = read_cif_with_pymatgen(text).to_structure()
        assert_same_crystal(system, slow, 1.01e-4)
