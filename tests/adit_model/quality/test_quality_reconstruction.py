import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from adit_model.quality.reconstruction import (
    element_accuracy,
    kabsch_rmsd,
    match_crystals,
    molecule_rmsd,
)
from adit_model.systems import AtomicSystem


@pytest.fixture(scope="module")
def perovskite():
    structure = Structure.from_spacegroup(
        "Pm-3m",
        Lattice.cubic(3.905),
        ["Sr", "Ti", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]],
    )
    return AtomicSystem.from_structure(structure)


def chain(seed, size=9):
    rng = np.random.default_rng(seed)
    return AtomicSystem(rng.integers(1, 10, size), rng.normal(scale=2.0, size=(size, 3)))


def test_rmsd_is_blind_to_rigid_motion_only():
    system = chain(0)
    rotation = Rotation.random(random_state=1).as_matrix()
    turned = AtomicSystem(system.numbers, system.positions @ rotation.T + [3.0, -1.0, 9.0])
    mirrored = AtomicSystem(system.numbers, system.positions * [1, 1, -1])
    rmsd = molecule_rmsd([system] * 3, [turned, mirrored, None])
    assert rmsd[0] == pytest.approx(0, abs=1e-9)
    assert rmsd[1] > 0.5
    assert np.isnan(rmsd[2])


def test_rmsd_agrees_with_scipy():
    for seed in range(5):
        first = chain(seed).positions
        second = first + np.random.default_rng(seed).normal(scale=0.3, size=first.shape)
        first, second = first - first.mean(0), second - second.mean(0)
        expected = Rotation.align_vectors(first, second)[1] / np.sqrt(len(first))
        assert kabsch_rmsd(first, second) == pytest.approx(expected, abs=1e-9)


def test_rmsd_of_a_stretched_bond():
    def h2(length):
        return AtomicSystem(np.array([1, 1]), [[0, 0, 0], [0, 0, length]])

    assert molecule_rmsd([h2(0.7)], [h2(0.9)])[0] == pytest.approx(0.1)
    single = AtomicSystem(np.array([2]), [[1.0, 2.0, 3.0]])
    assert molecule_rmsd([single], [single])[0] == pytest.approx(0)


def test_element_accuracy_counts_atoms_and_missing_systems():
    first, second = chain(1, size=4), chain(2, size=6)
    wrong = AtomicSystem(np.where(np.arange(4) == 2, 99, first.numbers), first.positions)
    assert element_accuracy([first, second], [first, second]) == 1
    assert element_accuracy([first, second], [wrong, second]) == pytest.approx(9 / 10)
    assert element_accuracy([first, second], [first, None]) == pytest.approx(4 / 10)


def test_crystals_match_by_structure(perovskite):
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.05, size=(5, 3))
    noisy = AtomicSystem(perovskite.numbers, perovskite.positions + noise, perovskite.cell)
    rotation = Rotation.random(random_state=2).as_matrix()
    turned = AtomicSystem(
        perovskite.numbers, perovskite.positions @ rotation.T, perovskite.cell @ rotation.T
    )
    elongated = perovskite.cell * np.array([[1], [1], [1.8]])
    wrong = AtomicSystem(perovskite.numbers, perovskite.frac_coords @ elongated, elongated)
    match = match_crystals([perovskite] * 4, [noisy, turned, wrong, None])
    assert np.isfinite(match.rms_distances).tolist() == [True, True, False, False]
    assert match.match_rate == 0.5
    assert match.rms_distances[1] == pytest.approx(0, abs=1e-6)
    # The RMS of the noise, less its mean, in units of (volume / atoms)^(1/3).
    expected = np.sqrt(((noise - noise.mean(0)) ** 2).sum(1).mean()) / (3.905 / 5 ** (1 / 3))
    assert match.rms_distances[0] == pytest.approx(expected, rel=0.05)
    assert match.rmse == pytest.approx(match.rms_distances[:2].mean())


def test_nothing_matched_has_no_rmse(perovskite):
    match = match_crystals([perovskite], [None])
    assert match.match_rate == 0
    assert np.isnan(match.rmse)


def test_unequal_inputs_are_refused(perovskite):
    for function in (match_crystals, element_accuracy, molecule_rmsd):
        with pytest.raises(ValueError, match="got 1 for 2"):
            function([perovskite] * 2, [perovskite])
        with pytest.raises(ValueError, match="got 0 for 0"):
            function([], [])
    with pytest.raises(ValueError, match="system 0 has 4 atoms, its reconstruction 5"):
        molecule_rmsd([chain(0, size=4)], [chain(0, size=5)])
