"""What spglib refuses is left as it is."""

import numpy as np

from adit_model.quality.symmetry import symmetrise
from adit_model.systems import AtomicSystem


def test_atoms_on_one_spot_have_no_symmetry():
    cell = 3 * np.eye(3)
    crystal = AtomicSystem(np.array([79, 79]), np.array([[0.0, 0, 0], [0.03, 0, 0]]), cell)
    assert symmetrise(crystal) is None
