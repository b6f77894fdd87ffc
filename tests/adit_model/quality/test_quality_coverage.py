import ase.build
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from adit_model.quality.coverage import coverage, fingerprint
from adit_model.systems import AtomicSystem


def pair(sites, composition):
    return {"sites": sites, "composition_features": composition}


def points(sites, composition=None):
    """Fingerprints of one and two numbers."""
    composition = sites if composition is None else composition
    return [pair([s], [c, -c]) for s, c in zip(sites, composition, strict=True)]


def test_a_set_covers_itself_and_its_copies():
    data = points([0.0, 1.0, 2.0])
    assert tuple(coverage(data, data, 3).values()) == (1, 1)
    assert tuple(coverage(data * 2, data[::-1], 6).values()) == (1, 1)


def test_precision_and_recall_of_known_distances():
    data = points([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0])
    found = coverage(points([0.3, 0.5, 2.4]), data, 3)
    assert found["precision"] == pytest.approx(2 / 3)  # 0.5 is 0.5 from the nearest
    assert found["recall"] == pytest.approx(2 / 4)  # 0 by 0.3, 2 by 2.4
    # what has no fingerprint covers nothing
    assert coverage(points([0.3, 0.5, 2.4]), data, 6)["precision"] == pytest.approx(2 / 6)


def test_compositions_far_from_the_data_are_not_covered():
    data = points([0.0, 0.1], [-1.0, 1.0])  # standard deviation 1
    for far, precision in ((1 + 10 / np.sqrt(2) - 0.01, 1), (1 + 10 / np.sqrt(2) + 0.01, 0)):
        assert coverage(points([0.0], [far]), data, 1)["precision"] == precision


def test_nearest_by_site_and_by_composition_may_differ():
    data = [pair([0.0], [-50.0]), pair([9.0], [50.0])]
    assert coverage([pair([0.1], [49.0])], data, 1)["precision"] == 1


def test_features_without_a_value_or_a_spread_do_not_matter():
    data = [pair([0.0], [1.0, np.nan, 2.0]), pair([0.1], [1.0, 3.0, 4.0])]
    found = coverage([pair([0.0], [1.0, np.nan, 2.0])], data, 1)
    assert (found["precision"], found["recall"]) == (1, 1)


def test_an_empty_set_has_no_coverage():
    assert coverage([], points([1.0]), 3) is coverage(points([1.0]), [], 1) is None


def test_large_sets_are_compared_in_blocks():
    rng = np.random.default_rng(0)
    samples, data = rng.normal(size=2500), rng.normal(size=30) * 4
    found = coverage(points(samples, np.zeros(2500)), points(data, np.zeros(30)), 2500)
    near = np.abs(samples[:, None] - data[None]) <= 0.4
    assert found["precision"] == pytest.approx(near.any(axis=1).mean())
    assert found["recall"] == pytest.approx(near.any(axis=0).mean())


class TestFingerprints:
    @pytest.fixture(autouse=True)
    def needs_matminer(self):
        pytest.importorskip("matminer", reason="fingerprints need matminer")

    def rocksalt(self, name="NaCl", a=5.64):
        return AtomicSystem.from_atoms(ase.build.bulk(name, "rocksalt", a=a))

    def test_numbers_of_cdvae(self):
        found = fingerprint(self.rocksalt())
        assert (len(found["sites"]), len(found["composition_features"])) == (61, 132)
        assert np.isfinite(found["sites"] + found["composition_features"]).all()

    def test_independent_of_pose_order_and_cell(self):
        salt = self.rocksalt()
        turn = Rotation.random(random_state=0).as_matrix()
        double = AtomicSystem.from_atoms(salt.to_atoms() * (2, 1, 1))
        moved = AtomicSystem(
            double.numbers[::-1], (double.positions @ turn + 1.0)[::-1], double.cell @ turn
        )
        first, second = fingerprint(salt), fingerprint(moved)
        np.testing.assert_allclose(first["sites"], second["sites"], atol=1e-5)
        np.testing.assert_allclose(
            first["composition_features"], second["composition_features"], atol=1e-9
        )

    def test_structures_and_compositions_are_told_apart(self):
        salt = fingerprint(self.rocksalt())
        cesium = AtomicSystem.from_atoms(ase.build.bulk("CsCl", "cesiumchloride", a=4.12))
        other = fingerprint(self.rocksalt("MgO", 4.21))
        assert np.linalg.norm(np.subtract(salt["sites"], other["sites"])) < 0.05
        assert not np.allclose(salt["composition_features"], other["composition_features"])
        assert np.linalg.norm(np.subtract(salt["sites"], fingerprint(cesium)["sites"])) > 0.4

    def test_a_molecule_is_refused(self):
        with pytest.raises(ValueError, match="molecule"):
            fingerprint(AtomicSystem(np.array([6]), np.zeros((1, 3))))
