import json

import ase.build
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from adit_model.quality.reconstruction import compare_pair, evaluate_reconstruction
from adit_model.quality.relax import kabsch_rmsd
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


def molecule(name):
    return AtomicSystem.from_atoms(ase.build.molecule(name))


def test_rmsd_is_blind_to_rigid_motion_only():
    rng = np.random.default_rng(0)
    system = AtomicSystem(rng.integers(1, 10, 9), rng.normal(scale=2.0, size=(9, 3)))
    rotation = Rotation.random(random_state=1).as_matrix()
    turned = AtomicSystem(system.numbers, system.positions @ rotation.T + [3.0, -1.0, 9.0])
    mirrored = AtomicSystem(system.numbers, system.positions * [1, 1, -1])
    assert compare_pair((system, turned))["rmsd"] == pytest.approx(0, abs=1e-9)
    assert compare_pair((system, mirrored))["rmsd"] > 0.5
    assert kabsch_rmsd(np.ones((1, 3)), np.zeros((1, 3))) == pytest.approx(0)


def test_rmsd_agrees_with_scipy():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        first = rng.normal(scale=2.0, size=(9, 3))
        second = first + rng.normal(scale=0.3, size=first.shape)
        first, second = first - first.mean(0), second - second.mean(0)
        expected = Rotation.align_vectors(first, second)[1] / np.sqrt(len(first))
        assert kabsch_rmsd(first, second) == pytest.approx(expected, abs=1e-9)


def test_a_crystal_is_told_apart_by_both_matchers_volume_and_symmetry(perovskite):
    rotation = Rotation.random(random_state=2).as_matrix()
    turned = AtomicSystem(
        perovskite.numbers, perovskite.positions @ rotation.T, perovskite.cell @ rotation.T
    )
    cells = compare_pair((perovskite, turned))
    assert cells["complete"] and cells["loose"] and cells["tight"]
    assert cells["space_group_0.01"] and cells["space_group_0.1"]
    assert cells["distance"] == pytest.approx(0, abs=1e-6)
    assert cells["volume_error"] == pytest.approx(0, abs=1e-9)

    noise = np.random.default_rng(0).normal(scale=0.012, size=(5, 3))
    noisy = AtomicSystem(perovskite.numbers, perovskite.positions + noise, perovskite.cell)
    cells = compare_pair((perovskite, noisy))
    assert cells["tight"] and cells["space_group_0.1"] and not cells["space_group_0.01"]
    # the RMS of the noise, less its mean, in units of (volume / atoms)^(1/3)
    expected = np.sqrt(((noise - noise.mean(0)) ** 2).sum(1).mean()) / (3.905 / 5 ** (1 / 3))
    assert cells["distance"] == pytest.approx(expected, rel=0.05)

    swollen = AtomicSystem(perovskite.numbers, 1.1 * perovskite.positions, 1.1 * perovskite.cell)
    cells = compare_pair((perovskite, swollen))
    assert cells["loose"] and not cells["tight"] and cells["space_group_0.01"]
    assert cells["volume_error"] == pytest.approx(33.1)

    elongated = perovskite.cell * np.array([[1], [1], [1.8]])
    wrong = AtomicSystem(perovskite.numbers, perovskite.frac_coords @ elongated, elongated)
    cells = compare_pair((perovskite, wrong))
    assert not cells["loose"] and not cells["tight"] and cells["distance"] is None
    assert not cells["space_group_0.1"]


def test_both_domains_are_counted(perovskite):
    water, benzene = molecule("H2O"), molecule("C6H6")
    other = np.where(perovskite.numbers == 38, 56, perovskite.numbers)
    changed = AtomicSystem(other, perovskite.positions, perovskite.cell)
    bent = AtomicSystem(water.numbers, water.positions * 1.1)
    found = evaluate_reconstruction(
        [perovskite, benzene, perovskite, water, perovskite],
        [perovskite, benzene, changed, bent, None],
    )
    spread = water.positions - water.positions.mean(axis=0)
    stretch = 0.1 * np.sqrt((spread**2).sum(axis=1).mean())
    molecules = found["molecules"]
    assert molecules["elements"]["share"] == molecules["rates"]["complete"]["share"] == 1
    assert molecules["numbers"]["rmsd"]["median"] == pytest.approx(stretch / 2)
    assert molecules["numbers"]["rmsd"]["p90"] == pytest.approx(0.9 * stretch)
    crystals = found["crystals"]
    assert crystals["elements"] == {"passed": 9, "of": 15, "share": 9 / 15}
    passed = {name: rate["passed"] for name, rate in crystals["rates"].items()}
    assert passed == {"complete": 1, "tight": 1, "loose": 1, "space_group_0.01": 2,
                      "space_group_0.1": 2}  # fmt: skip
    assert all(rate["of"] == 3 for rate in crystals["rates"].values())
    assert crystals["numbers"]["volume_error"]["count"] == 2
    assert json.loads(json.dumps(found)) == found


def test_unequal_inputs_are_refused(perovskite):
    with pytest.raises(ValueError, match="got 1 for 2"):
        evaluate_reconstruction([perovskite] * 2, [perovskite])
    with pytest.raises(ValueError, match="got 0 for 0"):
        evaluate_reconstruction([], [])
    with pytest.raises(ValueError, match="system 0 has 3 atoms, its reconstruction 12"):
        evaluate_reconstruction([molecule("H2O")], [molecule("C6H6")])
