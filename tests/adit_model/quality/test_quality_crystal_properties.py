import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from adit_model.data.crystal_csv import load_crystal_csv
from adit_model.quality.crystals import (
    crystal_system,
    mass_density,
    min_distance_ratio,
    properties,
    space_group,
    strict,
    symmetry,
)
from adit_model.systems import AtomicSystem


def crystal(lattice, species, coords):
    return AtomicSystem.from_structure(Structure(lattice, species, coords))


FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
# lattice parameters and densities of the literature (CRC Handbook)
KNOWN = {
    "NaCl": (crystal(Lattice.cubic(5.64), ["Na"] * 4 + ["Cl"] * 4,
                     FCC + [[x + 0.5, y, z] for x, y, z in FCC]), 225, "cubic", 2.17),
    "Cu": (crystal(Lattice.cubic(3.615), ["Cu"] * 4, FCC), 225, "cubic", 8.94),
    "W": (crystal(Lattice.cubic(3.165), ["W"] * 2, [[0, 0, 0], [0.5] * 3]), 229, "cubic", 19.3),
    "Mg": (crystal(Lattice.hexagonal(3.209, 5.211), ["Mg"] * 2,
                   [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]), 194, "hexagonal", 1.74),
    "rutile": (crystal(Lattice.tetragonal(4.594, 2.959), ["Ti"] * 2 + ["O"] * 4,
                       [[0, 0, 0], [0.5] * 3, [0.305, 0.305, 0], [0.695, 0.695, 0],
                        [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]]), 136, "tetragonal", 4.24),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_crystals(name):
    system, number, family, density = KNOWN[name]
    assert space_group(system) == number
    assert crystal_system(number) == family
    assert mass_density(system) == pytest.approx(density, rel=0.01)
    check = strict(system)
    assert check["strict"] and check["strict_reason"] is None
    assert symmetry(system) == {"space_group": number, "triclinic": False}

    assert properties(system)["metals_only"] == (name in ("Cu", "W", "Mg"))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(KNOWN)))
def test_nothing_depends_on_cell_orientation_order_or_images(seed, name):
    system, number, _, _ = KNOWN[name]
    rng = np.random.default_rng(seed)
    transform = np.array([[1, 2, 0], [0, 1, 0], [-1, 0, 1]])[rng.permutation(3)]
    cell = transform @ system.cell
    frac = np.linalg.solve(cell.T, system.positions.T).T + rng.integers(-2, 3, (len(system), 3))
    turn = Rotation.random(random_state=seed).as_matrix()
    order = rng.permutation(len(system))
    other = AtomicSystem(system.numbers[order], (frac @ cell @ turn)[order], cell @ turn)
    assert space_group(other) == number
    assert mass_density(other) == pytest.approx(mass_density(system))
    assert min_distance_ratio(other) == pytest.approx(min_distance_ratio(system))
    assert strict(other) == strict(system)


def test_distances_count_in_units_of_covalent_radii():
    # 1.66 + 1.02 angstrom: sodium and chlorine of Cordero et al.
    assert min_distance_ratio(KNOWN["NaCl"][0]) == pytest.approx(2.82 / 2.68)
    lone = AtomicSystem(np.array([29]), np.zeros((1, 3)), np.diag([2.0, 9.0, 9.0]))
    assert min_distance_ratio(lone) == pytest.approx(2.0 / (2 * 1.32))


@pytest.mark.parametrize(
    ("system", "part", "text"),
    [
        (crystal(Lattice.cubic(4), ["Na", "Cl", "Cl"], [[0] * 3, [0.5] * 3, [0.5, 0, 0]]),
         "neutral", "SMACT"),
        (crystal(Lattice.cubic(3.3), ["Na", "Cl"], [[0] * 3, [0.5, 0, 0]]), "separated", "0.62 of"),
        (crystal(Lattice.cubic(9), ["Na", "Cl"], [[0] * 3, [0.5] * 3]), "dense", "0.133 g/cm"),
        (crystal(Lattice.cubic(3.2), ["Pt"] * 4, FCC), "dense", "39.5 g/cm"),
        (crystal(Lattice.orthorhombic(1.5, 6, 6), ["Cs"], [[0] * 3]), "sane_lattice",
         "of 1.5 to 6"),
        (crystal(Lattice.orthorhombic(3, 3, 70), ["Na"] * 18,
                 [[i % 2 / 2, i % 2 / 2, i / 18] for i in range(18)]), "sane_lattice", "3 to 70"),
    ],
)  # fmt: skip
def test_each_part_of_the_strict_set_can_fail(system, part, text):
    check = strict(system)
    assert not check[part] and not check["strict"]
    assert text in check["strict_reason"]


def test_crystal_systems_are_those_of_the_international_tables():
    bounds = {1: "triclinic", 2: "triclinic", 3: "monoclinic", 15: "monoclinic"}
    bounds |= {16: "orthorhombic", 74: "orthorhombic", 75: "tetragonal", 142: "tetragonal"}
    bounds |= {143: "trigonal", 167: "trigonal", 168: "hexagonal", 194: "hexagonal"}
    bounds |= {195: "cubic", 230: "cubic"}
    assert {number: crystal_system(number) for number in bounds} == bounds
    for number in (0, 231):
        with pytest.raises(ValueError, match=f"got {number}"):
            crystal_system(number)


def test_a_molecule_is_refused():
    water = AtomicSystem(np.array([8]), np.zeros((1, 3)))
    for function in (strict, mass_density, space_group, min_distance_ratio):
        with pytest.raises(ValueError, match="molecule"):
            function(water)


@pytest.mark.data
def test_real_crystals_pass_and_noise_or_swapped_elements_do_not(data_dir, tmp_path):
    dataset = load_crystal_csv(data_dir / "crystals_test.csv.gz", tmp_path, progress=False)
    rng = np.random.default_rng(0)
    chosen = [dataset[int(i)] for i in rng.permutation(len(dataset))[:150]]
    real = [strict(system) for system in chosen]
    shaken, swapped = [], []
    for system in chosen:
        noise = rng.normal(scale=0.3, size=system.positions.shape)
        shaken.append(strict(AtomicSystem(system.numbers, system.positions + noise, system.cell)))
        elements = np.unique(system.numbers)
        other = dict(zip(elements.tolist(), rng.choice(np.arange(1, 84), len(elements), False)))  # noqa: B905
        numbers = np.array([other[z] for z in system.numbers.tolist()])
        swapped.append(strict(AtomicSystem(numbers, system.positions, system.cell)))

    def share(checks, part):
        return np.mean([check[part] for check in checks])

    for part in ("separated", "dense", "sane_lattice"):
        assert share(real, part) >= 0.99, part
    assert 0.8 <= share(real, "neutral") <= 0.95
    assert share(shaken, "separated") < 0.8
    assert share(swapped, "neutral") < share(real, "neutral") - 0.2
    assert share(swapped, "strict") < 0.6 < share(real, "strict")
