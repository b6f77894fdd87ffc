import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from adit_model.quality import relax
from adit_model.quality.relax import lowest_multiplicity, strain
from adit_model.systems import AtomicSystem

# GFN2-xTB's minimum: 0.9592 angstrom, 107.23 degrees
WATER = np.array([[0.0, 0.0, 0.0], [0.95921, 0.0, 0.0], [-0.28406, 0.91619, 0.0]])


def water(stretch=1.0):
    return AtomicSystem(np.array([8, 1, 1]), stretch * WATER)


@pytest.mark.parametrize(
    ("numbers", "charge", "multiplicity"),
    [([8, 1, 1], 0, 1), ([8, 1], 0, 2), ([8, 1], -1, 1), ([7, 1, 1, 1, 1], 1, 1), ([1], 0, 2)],
)
def test_multiplicity_follows_from_the_number_of_electrons(numbers, charge, multiplicity):
    assert lowest_multiplicity(np.array(numbers), charge) == multiplicity


def test_a_crystal_has_no_strain():
    crystal = AtomicSystem(np.array([6]), np.zeros((1, 3)), np.eye(3))
    with pytest.raises(ValueError, match="is a crystal"):
        strain(crystal)


class TestRelaxation:
    @pytest.fixture(autouse=True)
    def needs_tblite(self):
        pytest.importorskip("tblite", reason="strain needs tblite")

    def test_a_relaxed_molecule_has_none(self):
        found = strain(water())
        assert found["xtb_energy_drop"] == pytest.approx(0, abs=1e-6)
        assert found["xtb_rmsd"] == pytest.approx(0, abs=1e-4)
        assert found["xtb_multiplicity"] == 1

    def test_strain_grows_with_the_stretch_and_ends_in_the_same_place(self):
        stretched = [strain(water(factor)) for factor in (1.05, 1.1, 1.2)]
        energies = [found["xtb_energy_drop"] for found in stretched]
        assert 0.01 < energies[0] < energies[1] < energies[2]
        # all atoms move by the stretch: 0.2 of the distances to the centre, at most
        spread = np.sqrt(np.mean(np.sum((WATER - WATER.mean(axis=0)) ** 2, axis=1)))
        assert stretched[2]["xtb_rmsd"] == pytest.approx(0.2 * spread, abs=0.03)
        assert stretched[2]["xtb_rmsd_heavy"] == 0  # of a single atom

    def test_a_turned_and_shuffled_copy_has_the_same(self):
        turn = Rotation.random(random_state=1).as_matrix()
        copy = AtomicSystem(np.array([1, 8, 1]), 1.1 * WATER[[2, 0, 1]] @ turn + 3.0)
        first, second = strain(water(1.1)), strain(copy)
        assert second["xtb_energy_drop"] == pytest.approx(first["xtb_energy_drop"], abs=2e-4)
        assert second["xtb_rmsd"] == pytest.approx(first["xtb_rmsd"], abs=0.005)

    def test_a_radical_is_a_doublet(self):
        from tblite.ase import TBLite

        methyl = AtomicSystem(
            np.array([6, 1, 1, 1]),
            1.1 * np.array([[0, 0, 0], [1, 0, 0], [-0.5, 0.866, 0], [-0.5, -0.866, 0]]),
        )
        found = strain(methyl)
        assert found["xtb_multiplicity"] == 2
        assert 0 <= found["xtb_energy_drop"] < 0.05
        atoms = methyl.to_atoms()
        energies = []
        for multiplicity in (2, 4):
            atoms.calc = TBLite(method="GFN2-xTB", multiplicity=multiplicity, verbosity=0)
            energies.append(atoms.get_potential_energy())
        assert energies[0] < energies[1] - 1  # the multiplicity reaches the calculation

    def test_hydrogen_has_no_heavy_atoms(self):
        found = strain(AtomicSystem(np.array([1, 1]), 0.9 * np.eye(2, 3)))
        assert found["xtb_rmsd_heavy"] is None
        assert found["xtb_energy_drop"] > 0.05

    def test_what_does_not_relax_says_so(self, monkeypatch):
        monkeypatch.setattr(relax, "STEPS", 1)
        with pytest.raises(ValueError, match="does not relax H2O within 1 steps"):
            strain(water(1.3))
