"""The exact autoencoder: what goes in comes out, in any order of atoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import spglib
import torch
from ase.build import bulk, molecule
from ase.spacegroup import crystal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import logm, sqrtm

from adit_model.batch import AtomicBatch
from adit_model.config import AutoencoderConfig, ModelConfig, named_size
from adit_model.geometry import cell_to_parameters
from adit_model.model import ADiT
from adit_model.network.cells import cell_features, cell_metric, cell_numbers, cell_parameters
from adit_model.systems import AtomicSystem

CRYSTALS = {
    "rock salt": bulk("NaCl", "rocksalt", a=5.64),
    "titanium": bulk("Ti"),
    "rutile": crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.3047, 0.3047, 0)],
        spacegroup=136,
        cellpar=[4.594, 4.594, 2.958] + [90] * 3,
    ),
    "quartz": crystal(
        ["Si", "O"],
        [(0.4697, 0, 0), (0.4135, 0.2669, 0.1191)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    ),
    "calcite": crystal(
        ["Ca", "C", "O"],
        [(0, 0, 0), (0, 0, 0.25), (0.257, 0, 0.25)],
        spacegroup=167,
        cellpar=[4.99, 4.99, 17.06, 90, 90, 120],
        primitive_cell=True,
    ),
}


def random_cells(seed: int, number: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    cells = 4 * torch.eye(3) + 1.5 * torch.randn(number, 3, 3, generator=generator)
    return cells[torch.linalg.det(cells) > 8].double()


@pytest.fixture(scope="module")
def model() -> ADiT:
    """Stage 1 whose elements are far apart and told by the nearest code."""
    config = replace(named_size("mini").autoencoder, dim=400)
    torch.manual_seed(0)
    model = ADiT(ModelConfig(config), with_denoiser=False).eval()
    autoencoder = model.autoencoder
    with torch.no_grad():
        # For any code c(z): logits 2 c(z) . x - |c(z)|^2, made of differences of GELUs.
        code = 20 * autoencoder.code.weight
        autoencoder.code.weight.copy_(code)
        first, _, last = autoencoder.element_head
        first.weight.zero_(), first.bias.zero_(), last.weight.zero_()
        for i in range(5):
            first.weight[2 * i, i], first.weight[2 * i + 1, i] = 1.0, -1.0
            last.weight[:, 2 * i], last.weight[:, 2 * i + 1] = 2 * code[:, i], -2 * code[:, i]
        last.bias.copy_(-code.square().sum(-1))
    return model


def test_six_numbers_are_the_logarithm_of_the_polar_factor():
    cells = random_cells(0)
    for cell, found in zip(cells, cell_numbers(cells, torch.full((len(cells),), 5)), strict=True):
        factor = sqrtm(cell.numpy() @ cell.numpy().T)
        log = logm(factor) - np.eye(3) * np.log(5) / 3
        np.testing.assert_allclose(found, log[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_six_numbers_give_the_cell_back_and_do_not_see_rotations(seed, size):
    cells = random_cells(seed)
    sizes = torch.full((len(cells),), size)
    numbers = cell_numbers(cells, sizes)
    torch.testing.assert_close(cell_metric(numbers, sizes), cells @ cells.transpose(1, 2))
    lengths, angles = cell_to_parameters(cells.numpy())
    found = cell_parameters(numbers, sizes)
    np.testing.assert_allclose(found[0], lengths, rtol=1e-9)
    np.testing.assert_allclose(found[1], angles, atol=1e-7)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    turned = cells @ torch.linalg.qr(turn.double())[0]  # orthogonal in double precision too
    torch.testing.assert_close(cell_numbers(turned, sizes), numbers, atol=1e-9, rtol=0)
    # The trace is the logarithm of the volume of an atom.
    volumes = torch.linalg.det(cells) / size
    torch.testing.assert_close(numbers[:, :3].sum(-1).exp(), volumes)


@pytest.mark.parametrize("name", CRYSTALS)
def test_crystals_keep_space_group_and_volume(model, name):
    system = AtomicSystem.from_atoms(CRYSTALS[name])
    (found,) = model.reconstruct([system])
    assert found.volume == pytest.approx(system.volume, rel=1e-6)
    assert found.numbers.tolist() == system.numbers.tolist()

    def group(of: AtomicSystem, symprec: float) -> int:
        return spglib.get_symmetry_dataset((of.cell, of.frac_coords, of.numbers), symprec).number

    for symprec in (1e-3, 0.01, 0.1):
        assert group(found, symprec) == group(system, symprec) > 2


@pytest.mark.parametrize("name", ["H2O", "CH3CH2OH", "C6H6"])
def test_molecules_come_back_exactly(model, name):
    system = AtomicSystem.from_atoms(molecule(name))
    (found,) = model.reconstruct([system])
    assert found.numbers.tolist() == system.numbers.tolist()
    np.testing.assert_allclose(found.positions, system.positions, atol=1e-5)


def test_latents_follow_the_order_of_the_atoms(model):
    systems = [
        AtomicSystem.from_atoms(CRYSTALS["quartz"]),
        AtomicSystem.from_atoms(molecule("CH4")),
    ]
    order = [np.random.default_rng(0).permutation(len(s)) for s in systems]
    moved = [
        AtomicSystem(s.numbers[o], s.positions[o], s.cell)
        for s, o in zip(systems, order, strict=True)
    ]
    before, after = (
        model.autoencoder.encode(AtomicBatch.collate(x))[0].detach() for x in (systems, moved)
    )
    count = len(systems[0])
    assert before.shape == (count + 1 + len(systems[1]), 8)  # one row for the cell
    torch.testing.assert_close(after[:count], before[:count][order[0]], atol=1e-6, rtol=0)
    torch.testing.assert_close(after[count], before[count], atol=1e-6, rtol=0)
    torch.testing.assert_close(after[count + 1 :], before[count + 1 :][order[1]])


def test_training_tells_noisy_elements_apart():
    config = AutoencoderConfig(
        dim=64,
        num_heads=2,
        identity_start=True,
        canonical=True,
        exact=True,
        latent_noise=0.2,
        num_elements=20,
    )
    torch.manual_seed(0)
    model = ADiT(ModelConfig(config), with_denoiser=False).autoencoder
    batch = AtomicBatch.collate([AtomicSystem.from_atoms(molecule("CH3CH2OH"))])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(200):
        loss, terms = model.loss(batch, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(terms["all_elements"].detach()))
    assert losses[0] > 2.5 and losses[-1] < 0.3
    model.zero_grad()
    model.loss(batch, generator, frozen_encoder=True)[0].backward()
    # What is left pulls the code to the origin: the weight of its size.
    pull = config.kl_weight * model.code.weight.detach()
    assert model.code.weight.grad is None or model.code.weight.grad.norm() <= pull.norm()


def test_exact_needs_canonical_poses():
    with pytest.raises(ValueError, match="exact needs identity_start"):
        AutoencoderConfig(exact=True)


def test_a_cell_rounds_alike_whatever_stands_beside_it():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(53, 6, generator=generator)
    sizes = torch.randint(1, 20, (53,), generator=generator)
    metric, features = cell_metric(numbers, sizes), cell_features(numbers, numbers)
    for first, last in ((0, 16), (10, 26), (20, 40), (52, 53)):
        part = numbers[first:last]
        assert torch.equal(cell_metric(part, sizes[first:last]), metric[first:last])
        assert torch.equal(cell_features(part, part), features[first:last])
