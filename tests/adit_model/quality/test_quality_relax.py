from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Composition

from adit_model.quality.force_fields import (
    FORCE_FIELDS,
    SUPPORTED,
    ElementReferences,
    calculator,
    element_references,
    force_field,
    references_for,
)
from adit_model.quality.hull import MP2020, Hull
from adit_model.quality.optimizer import CrystalBFGS
from adit_model.quality.relax import (
    RelaxationError,
    relax,
    relaxation_fault,
    relaxation_rmsd,
    single_point,
)
from adit_model.systems import AtomicSystem

FRACTIONS = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])


def rocksalt(first: int, second: int, a: float) -> AtomicSystem:
    """Primitive cell of two atoms."""
    cell = 0.5 * a * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return AtomicSystem(np.array([first, second]), FRACTIONS @ cell, cell)


def moved(system: AtomicSystem, frac: np.ndarray, cell: np.ndarray) -> AtomicSystem:
    return AtomicSystem(system.numbers, frac @ cell, cell)


def test_rmsd_is_that_of_the_displacements() -> None:
    system = AtomicSystem(np.array([1] * 4), np.eye(4, 3) * 2, 8 * np.eye(3))
    shifts = np.array([[0.3, 0, 0], [-0.3, 0, 0], [0, 0.4, 0], [0, -0.4, 0]])
    after = AtomicSystem(system.numbers, system.positions + shifts, system.cell)
    assert relaxation_rmsd(system, after) == pytest.approx(np.sqrt((0.09 + 0.16) / 2))


def test_rmsd_counts_no_translation_rotation_strain_or_wrapping() -> None:
    rng = np.random.default_rng(0)
    cell = 6 * np.eye(3) + rng.normal(0, 0.5, (3, 3))
    frac = rng.random((5, 3))
    system = AtomicSystem(np.arange(1, 6), frac @ cell, cell)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    for other_frac, other_cell in (
        (frac + np.array([0.3, 0.4, 0.5]), cell),
        (frac, cell @ turn),
        (frac, cell @ (np.eye(3) + rng.normal(0, 0.02, (3, 3)))),
        (frac + rng.integers(-2, 3, (5, 3)), cell),
    ):
        after = moved(system, other_frac, other_cell)
        assert relaxation_rmsd(system, after) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="same atoms in order"):
        relaxation_rmsd(system, AtomicSystem(system.numbers[::-1].copy(), frac @ cell, cell))


def test_a_molecules_rmsd_is_that_after_the_best_rotation() -> None:
    before = AtomicSystem(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]]))
    turned = AtomicSystem(before.numbers, before.positions[:, [1, 2, 0]] + 3.0)
    assert relaxation_rmsd(before, turned) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="same atoms in order"):
        relaxation_rmsd(before, AtomicSystem(before.numbers, before.positions, 5 * np.eye(3)))


def test_a_relaxed_crystal_may_neither_blow_up_nor_collapse() -> None:
    before = rocksalt(12, 8, 4.25)

    def scaled(factor: float) -> AtomicSystem:
        return AtomicSystem(before.numbers, factor * before.positions, factor * before.cell)

    assert relaxation_fault(before, scaled(1.9)) is None
    assert relaxation_fault(before, scaled(0.5)) is None
    assert "blew up: 9.3 of its volume" in (relaxation_fault(before, scaled(2.1)) or "")
    assert "collapsed: 0.091 of its volume" in (relaxation_fault(before, scaled(0.45)) or "")
    close = AtomicSystem(before.numbers, 0.1 * before.positions, before.cell)
    assert "atoms collapsed: atoms 0.368 angstrom apart" in (relaxation_fault(before, close) or "")


def test_formation_energy_is_relative_to_the_elements() -> None:
    references = ElementReferences("some", "scale", {"Na": -1.3, "Cl": -1.8})
    assert references.formation_energy(Composition("NaCl3"), -2.0) == pytest.approx(-0.325)
    with pytest.raises(ValueError, match="no energy of K by some"):
        references.formation_energy({"K": 1, "Cl": 1}, -2.0)
    with pytest.raises(ValueError, match="the energy is nan"):
        references.formation_energy({"Na": 1}, float("nan"))
    with pytest.raises(ValueError, match="force fields are chgnet, sevennet, 7net-l3i5, got 'x'"):
        force_field("x")


@pytest.mark.parametrize("name", sorted(FORCE_FIELDS))
def test_every_element_has_a_reference(name: str) -> None:
    references = element_references(name)
    assert len(references.energies) == len(SUPPORTED) == 89
    energies = np.array(list(references.energies.values()))
    assert energies.min() > -15 and energies.max() < 0
    # Total energies of the Materials Project, PBE without corrections.
    known = {"Si": -5.425, "Cu": -4.099, "Mg": -1.60, "Al": -3.746, "O": -4.948}
    errors = [references.energies[symbol] - energy for symbol, energy in known.items()]
    assert np.abs(errors).mean() < 0.1


def test_energies_of_the_elements_are_found_by_the_names_that_atomate2_gives_calculators() -> None:
    for name in ("CHGNet", "MLFF.CHGNet", "chgnet"):
        assert references_for(name) is element_references("chgnet")
    for name in ("SevenNet", "MLFF.SevenNet"):
        assert references_for(name) is element_references("sevennet")
    assert references_for("MACE-MP-0") is references_for(None) is None


def test_references_of_two_force_fields_do_not_mix() -> None:
    chgnet, sevennet = element_references("chgnet"), element_references("sevennet")
    assert chgnet.scale == MP2020 != sevennet.scale
    hull = Hull({"NaCl": -2.1}, ["Na", "Cl"], scale=MP2020, source="test")
    assert hull.above("NaCl", -2.1, scale=chgnet.scale).energy_above_hull == 0
    with pytest.raises(ValueError, match="cannot be compared"):
        hull.above("NaCl", -2.1, scale=sevennet.scale)


def test_what_has_no_energy_has_a_reason() -> None:
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    with pytest.raises(RelaxationError, match=r"CHGNet 0\.3\.0 does not know Rn"):
        single_point(rocksalt(86, 8, 5.0), "chgnet")
    with pytest.raises(RelaxationError, match="only crystals"):
        relax(AtomicSystem(np.array([1, 1]), np.array([[0, 0, 0], [0.7, 0, 0]])))
    # Two atoms a fifth of an angstrom apart: the force field knows no better.
    close = AtomicSystem(np.array([11, 17]), np.array([[0, 0, 0], [0.2, 0, 0.0]]), 3 * np.eye(3))
    with pytest.raises(RelaxationError, match=r"collapsed|blew up"):
        relax(close, steps=30)


@pytest.mark.parametrize(
    ("numbers", "a", "expected"), [((12, 8), 4.25, -3.0), ((11, 17), 5.69, -2.1)]
)
def test_formation_energies_of_salts_by_chgnet(numbers, a: float, expected: float) -> None:
    """Those of the Materials Project."""
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    system = rocksalt(*numbers, a)
    energy = single_point(system, "chgnet")
    counts = Composition.from_dict({12: {"Mg": 1, "O": 1}, 11: {"Na": 1, "Cl": 1}}[numbers[0]])
    found = element_references("chgnet").formation_energy(counts, energy)
    assert found == pytest.approx(expected, abs=0.1)


def test_one_pass_gives_the_forces_and_stress_of_chgnet() -> None:
    """Two crystals at once, too, and energies alone; to the rounding of single precision."""
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    from chgnet.model import CHGNet

    systems = [rocksalt(12, 8, 4.25), rocksalt(11, 17, 5.2)]
    structures = [system.to_structure() for system in systems]
    for structure in structures:
        structure.perturb(0.2, seed=1)
    theirs = CHGNet.load(verbose=False, use_device="cpu")
    mine = calculator("chgnet").model
    assert type(mine) is not CHGNet
    for task in ("efsm", "ef", "e"):
        for one, other in zip(
            mine.predict_structure(structures, task=task),
            theirs.predict_structure(structures, task=task),
            strict=True,
        ):
            assert one.keys() == other.keys()
            for key, value in other.items():
                np.testing.assert_allclose(one[key], value, atol=2e-4, rtol=1e-4)


def test_the_cell_begins_as_soft_as_a_solid_is() -> None:
    """Copper by EMT, all strained by 4 %: a BFGS that takes the cell for stiff takes longer."""
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    steps = {}
    for optimizer in (CrystalBFGS, BFGS):
        atoms = bulk("Cu", "fcc", 3.6).repeat(2)
        atoms.rattle(0.1, seed=0)
        atoms.set_cell(1.04 * atoms.cell, scale_atoms=True)
        atoms.calc = EMT()
        found = optimizer(FrechetCellFilter(atoms), logfile=None)
        assert found.run(fmax=0.01, steps=300)
        assert atoms.get_potential_energy() / 8 == pytest.approx(-0.007, abs=5e-4)  # of EMT
        steps[optimizer] = found.nsteps
    assert steps[CrystalBFGS] < 0.7 * steps[BFGS], steps


@pytest.mark.parametrize("name", ["chgnet", "sevennet"])
def test_a_perturbed_crystal_relaxes_back(name: str) -> None:
    pytest.importorskip(force_field(name).module, reason=f"{name} is not installed")
    system = rocksalt(12, 8, 4.25)
    relaxed = relax(system, name)
    shifted = AtomicSystem(
        system.numbers,
        system.positions + np.array([[0.25, 0, 0.05], [0, 0, 0]]),
        1.04 * system.cell,
    )
    back = relax(shifted, name)
    assert back.energy_initial > relaxed.energy_final + 0.05
    assert back.energy_final == pytest.approx(relaxed.energy_final, abs=0.003)
    assert back.converged and 0 < back.steps < 200
    assert relaxed.rmsd < 0.01 < back.rmsd
    assert back.system.volume == pytest.approx(relaxed.system.volume, rel=0.02)
    stopped = relax(shifted, name, steps=1)
    assert not stopped.converged and stopped.steps == 1
