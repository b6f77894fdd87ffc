import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from adit_model.data.dataset import AtomicDataset
from adit_model.quality.matching import KnownMatch, distance, first_equal, known_crystals
from adit_model.systems import AtomicSystem


def crystal(spacegroup, lattice, species, coords):
    structure = Structure.from_spacegroup(spacegroup, lattice, species, coords)
    return AtomicSystem.from_structure(structure.get_primitive_structure())


@pytest.fixture(scope="module")
def nacl():
    return crystal("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="module")
def cscl_type_nacl():
    return crystal("Pm-3m", Lattice.cubic(3.4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="module")
def perovskite():
    return crystal(
        "Pm-3m",
        Lattice.cubic(3.905),
        ["Sr", "Ti", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]],
    )


def disguised(system, seed, transform):
    """The same crystal in another cell, orientation, atom order and choice of images."""
    rng = np.random.default_rng(seed)
    cell = transform @ system.cell
    frac = np.linalg.solve(cell.T, system.positions.T).T
    frac = frac + rng.uniform(size=3) + rng.integers(-2, 3, size=frac.shape)
    rotation = Rotation.random(random_state=seed).as_matrix()
    order = rng.permutation(len(system))
    return AtomicSystem(system.numbers[order], (frac @ cell @ rotation)[order], cell @ rotation)


def test_disguised_copies_and_supercells_are_not_unique(nacl, cscl_type_nacl, perovskite):
    supercell = AtomicSystem.from_structure(nacl.to_structure().make_supercell([2, 1, 2]))
    swollen = AtomicSystem(nacl.numbers, 1.1 * nacl.positions, 1.1 * nacl.cell)
    copy = disguised(perovskite, 3, np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]))
    systems = [nacl, perovskite, supercell, cscl_type_nacl, copy, swollen]
    expected = [0, 1, 0, 3, 1, 0]
    assert first_equal(systems) == expected
    assert first_equal(systems, workers=2) == expected
    assert first_equal([]) == []


def test_tolerances_of_pymatgen_tell_polymorphs_apart_that_loose_ones_do_not(nacl):
    frac = np.array([[0.0, 0, 0], [0.25, 0.25, 0.25]])
    zincblende = AtomicSystem(nacl.numbers, frac @ nacl.cell, nacl.cell, {"id": "zincblende"})
    assert first_equal([nacl, zincblende]) == [0, 0]
    assert first_equal([nacl, zincblende], tolerances="pymatgen") == [0, 1]
    assert known_crystals([nacl], [zincblende], tolerances="pymatgen") == [None]
    assert distance(nacl, zincblende) is not None
    assert distance(nacl, zincblende, "pymatgen") is None


def test_other_elements_on_the_same_sites_are_unique(nacl):
    kcl = AtomicSystem(np.where(nacl.numbers == 11, 19, 17), nacl.positions, nacl.cell)
    assert first_equal([nacl, kcl]) == [0, 1]


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_comparison_that_fails_never_adds_a_unique_or_novel_crystal(
    nacl, cscl_type_nacl, monkeypatch
):
    monkeypatch.setattr("adit_model.systems.MAX_COORDINATE", 1e200)
    # pymatgen cannot reduce this cell: "cannot convert float NaN to integer".
    far = AtomicSystem(nacl.numbers, nacl.positions * 1e160, nacl.cell * 1e160)
    first, *others = first_equal([far, cscl_type_nacl, nacl])
    assert first == 0 and all(isinstance(reason, str) for reason in others)
    assert isinstance(known_crystals([nacl], [far])[0], str)


def test_novelty_is_relative_to_the_reference(nacl, cscl_type_nacl, perovskite):
    molecule = AtomicSystem(np.array([11, 17]), [[0, 0, 0], [0, 0, 2.4]])
    copy = disguised(nacl, 1, np.eye(3, dtype=int))
    reference = [molecule, AtomicSystem(copy.numbers, copy.positions, copy.cell, {"id": "mp-1"})]
    systems = [nacl, cscl_type_nacl, perovskite]
    for known in (reference, AtomicDataset.from_systems(reference)):
        match, *others = known_crystals(systems, known)
        assert isinstance(match, KnownMatch) and match.id == "mp-1"
        assert match.distance == pytest.approx(0, abs=1e-5)
        assert others == [None, None]
    assert known_crystals([], reference) == []


def test_of_several_known_crystals_the_nearest_is_named(perovskite):
    rng = np.random.default_rng(0)
    known = [
        AtomicSystem(
            perovskite.numbers,
            perovskite.positions + rng.normal(scale=scale, size=(5, 3)),
            perovskite.cell,
            {"id": f"{scale}"},
        )
        for scale in (0.1, 0.02, 0.2)
    ]
    (match,) = known_crystals([perovskite], known)
    assert match.id == "0.02" and 0 < match.distance < 0.02


def test_the_tight_matcher_sees_volume_and_shifts_that_the_loose_one_forgives(nacl, perovskite):
    swollen = AtomicSystem(nacl.numbers, 1.06 * nacl.positions, 1.06 * nacl.cell)
    assert distance(nacl, swollen) == pytest.approx(0, abs=1e-6)
    assert distance(nacl, swollen, "tight") is None
    slightly = AtomicSystem(nacl.numbers, 1.01 * nacl.positions, 1.01 * nacl.cell)
    assert distance(nacl, slightly, "tight") == pytest.approx(0, abs=1e-6)
    noise = np.random.default_rng(0).normal(scale=0.4, size=(5, 3))
    rough = AtomicSystem(perovskite.numbers, perovskite.positions + noise, perovskite.cell)
    assert distance(perovskite, rough) is not None
    assert distance(perovskite, rough, "tight") is None


def test_a_pair_is_the_same_only_if_each_of_its_atoms_is(perovskite):
    """One atom 0.6 (volume/atoms)^(1/3) away: its root mean square is below the limit of 0.5."""
    far = perovskite.positions.copy()
    far[0] += [0.75 * 3.905 / 5 ** (1 / 3), 0, 0]
    other = AtomicSystem(perovskite.numbers, far, perovskite.cell)
    assert distance(perovskite, other) is None
