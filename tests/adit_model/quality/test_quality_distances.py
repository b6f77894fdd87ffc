import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adit_model.quality.distances import compare, total_variation, wasserstein

NUMBERS = st.lists(st.floats(-100, 100), min_size=1, max_size=20)


def test_wasserstein_of_a_shift_is_the_shift():
    values = np.random.default_rng(0).normal(size=50)
    assert wasserstein(values, values + 0.7) == pytest.approx(0.7)
    assert wasserstein([0, 0, 0, 1], [0, 1]) == pytest.approx(0.25)
    assert wasserstein([], [1.0]) is wasserstein([1.0], []) is None


@given(NUMBERS, NUMBERS)
def test_wasserstein_is_a_distance(first, second):
    assert wasserstein(first, first) == 0
    assert wasserstein(first, second) == pytest.approx(wasserstein(second, first))
    assert wasserstein(first, second) >= abs(np.mean(first) - np.mean(second)) - 1e-9


def test_total_variation_of_known_shares():
    assert total_variation("aabb", "ab") == 0
    assert total_variation("aaab", "ab") == pytest.approx(0.25)
    assert total_variation("aa", "bc") == 1
    assert total_variation("", "a") is None


def test_crystals_are_compared_by_number_and_symmetry():
    known = [{"density": d, "space_group": g} for d, g in ((2.0, 225), (4.0, 194), (6.0, 1))]
    same = compare("crystal", known, known)
    assert same["wasserstein"]["density"] == 0
    assert same["total_variation"] == {"space_group": 0, "crystal_system": 0}
    assert same["crystal_systems"]["reference"]["cubic"] == pytest.approx(1 / 3)
    lost = [{"density": 3.0, "space_group": 1}, {"density": "failed: x", "space_group": "failed"}]
    other = compare("crystal", lost, known)
    assert other["wasserstein"]["density"] == pytest.approx(5 / 3)  # of |3-2|, |3-4|, |3-6|, over 3
    assert other["wasserstein"]["num_atoms"] is None
    assert other["total_variation"]["crystal_system"] == pytest.approx(2 / 3)


def test_bond_lengths_are_compared_by_kind_and_averaged_by_share():
    known = [{"bond_lengths": {"C-H": [1.0] * 3, "C-C": [1.5]}, "angles": {"H-C-H": [109.5]}}]
    samples = [{"bond_lengths": {"C-H": [1.1] * 2, "C-C": [1.9]}}, {"bond_lengths": None}]
    found = compare("molecule", samples, known)
    assert found["bond_lengths"] == pytest.approx(
        {"mean": (3 * 0.1 + 0.4) / 4, "C-H": 0.1, "C-C": 0.4}
    )
    assert found["angles"] == {"mean": None, "H-C-H": None}
    rare = [{"bond_lengths": {"C-H": [1.0] * 200, "F-F": [1.4]}}]
    assert set(compare("molecule", rare, rare)["bond_lengths"]) == {"mean", "C-H"}
