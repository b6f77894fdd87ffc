"""Properties are estimated by the weights, and samples judged by that."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from adit_model.conditions.known import Known, PropertyRange
from adit_model.config import MINI, ModelConfig
from adit_model.data.dataset import AtomicDataset
from adit_model.model import ADiT
from adit_model.systems import AtomicSystem
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.estimator import fit_estimator
from adit_model.training.latents import encode_dataset
from adit_model.training.run import run_stage
from adit_model.training.stages import CONDITIONS

ELEMENTS = ("Cu", "Al", "Au", "Ag", "Ni", "Pd")
NAMES = ("density", "luck", "unlabelled")


def metals(number: int, seed: int) -> list[AtomicSystem]:
    random = np.random.default_rng(seed)
    made = [bulk(random.choice(ELEMENTS), a=random.uniform(3.5, 5)) for _ in range(number)]
    return [AtomicSystem.from_any(atoms) for atoms in made]


def labelled(model: ADiT, systems: list[AtomicSystem], seed: int):
    data = AtomicDataset.from_systems([model.prepare(s) for s in systems], name="metals")
    source = encode_dataset(model.autoencoder, data, progress=False)
    labels = np.full((len(systems), 3), np.nan, np.float32)
    labels[:, 0] = [(density(s) - 8.0) / 4.0 for s in systems]
    labels[:, 1] = np.random.default_rng(seed).normal(size=len(systems))
    source.properties = labels
    return source


def density(system: AtomicSystem) -> float:
    atoms = system.to_atoms()
    return float(atoms.get_masses().sum() / atoms.get_volume() / 0.6022)


@pytest.fixture(scope="module")
def model() -> ADiT:
    config = replace(
        MINI,
        denoiser=replace(MINI.denoiser, dim=24, num_heads=2, num_layers=2, properties=NAMES),
        sampling=replace(MINI.sampling, num_steps=3),
    )
    known = Known(
        sizes={"crystal": {1: 5}},
        elements={"crystal": (13, 28, 29, 46, 47, 79)},
        properties={name: PropertyRange("g/cm^3", 1.0, 20.0, 8.0, 4.0) for name in NAMES},
        learned=CONDITIONS,
    )
    torch.manual_seed(0)
    model = ADiT(config, known).eval()
    with torch.no_grad():
        model.denoiser.latent_mean[2, :3] = 1.0
        model.denoiser.latent_std[2, :6] = 0.2
        for parameter in model.denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    state = torch.random.get_rng_state()
    fit_estimator(
        model,
        labelled(model, metals(900, 1), 1),
        [labelled(model, metals(300, 2), 2)],
        progress=False,
    )
    assert torch.equal(state, torch.random.get_rng_state())
    return model


def test_what_the_structure_tells_is_estimated_and_nothing_else(model):
    known = model.known.properties
    assert known["luck"].error is None and known["unlabelled"].error is None
    systems = metals(200, 3)
    found = [e["density"] for e in model.estimate(systems)]
    truth = np.array([density(s) for s in systems])
    error = np.abs(found - truth).mean()
    assert error < 0.5 * np.abs(truth - np.median(truth)).mean()
    assert error == pytest.approx(known["density"].error, rel=0.35)  # of others, too


def test_an_estimate_does_not_depend_on_the_description(model):
    atoms = bulk("NaCl", "rocksalt", 4.6)
    atoms.numbers[:] = (29, 79)
    turned = atoms.repeat((2, 1, 1))
    turned.rotate(50, (1, 2, 3), rotate_cell=True)
    one, other = model.estimate([atoms, turned])
    assert one.keys() == {"density"} and other == pytest.approx(one, abs=1e-3)
    assert model.estimate([atoms])[0] == pytest.approx(one, abs=1e-4)
    atoms.numbers[:] = 118
    with pytest.raises(ValueError, match="holds element 118"):
        model.estimate(atoms)
    atoms.numbers[:] = (29, 79)
    precise = copy.deepcopy(model).double().estimate(atoms)
    assert precise == [pytest.approx(one, abs=1e-3)]


def test_samples_are_judged_by_it(model):
    error = model.known.properties["density"].error
    free = model.sample(24, "crystal", seed=1, progress=False)
    assert all(sample.estimates == {} for sample in free)
    systems = [sample.system for sample in free if sample.system is not None]
    middle = np.median([e["density"] for e in model.estimate(systems)])
    asked = f"crystal, density=1.5-{middle - error:.3f}, luck=3"
    samples = model.sample(24, asked, seed=1, progress=False)
    assert {sample.holds["density"] for sample in samples} == {True, False}
    for sample in samples:
        assert "luck" not in sample.holds and 1.5 <= sample.targets["density"] <= middle
        there = sample.estimates.get("density", np.nan)
        assert sample.holds["density"] == (1.5 - error <= there <= round(middle - error, 3) + error)
        if sample.system is not None:
            assert [sample.estimates] == [pytest.approx(e) for e in model.estimate([sample.system])]
            assert sample.system.info["estimated_density"] == sample.estimates["density"]
    (alone,) = model.sample(1, asked, seed=1, first_index=5, progress=False)
    assert alone.estimates == samples[5].estimates  # to the last bit
    target = next(s for s in samples if s.estimates).estimates["density"]
    for sample in model.sample(4, f"crystal, density={target:.3f}", seed=2, progress=False):
        near = abs(sample.estimates.get("density", np.nan) - round(target, 3)) <= error
        assert sample.holds["density"] == near


def test_it_goes_into_the_checkpoint(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    again = ADiT.load(tmp_path / "model.safetensors", device="cpu")
    assert again.known == model.known
    structure = bulk("Cu")
    assert again.estimate(structure) == model.estimate(structure)


def test_weights_without_one_say_so_and_sample_as_before(model):
    plain = ADiT(model.config, model.known, model.element_orders)
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("estimator.")}
    )
    with pytest.raises(ValueError, match="do not estimate properties"):
        plain.eval().estimate(bulk("Cu"))
    (one,) = plain.sample(1, "crystal, density=8", seed=1, progress=False)
    (other,) = model.sample(1, "crystal, density=8", seed=1, progress=False)
    assert "density" not in one.holds and one.estimates == {}
    np.testing.assert_array_equal(one.decoded["frac_coords"], other.decoded["frac_coords"])


def test_few_labels_make_no_estimator(model):
    other = ADiT(model.config, model.known).eval()
    fit_estimator(other, labelled(model, metals(150, 1), 1), progress=False)
    assert other.estimator is None


def test_a_finished_run_has_one_also_if_it_was_killed_before(tmp_path, monkeypatch):
    systems = metals(260, 4)
    data = AtomicDataset.from_systems(systems, name="metals")
    data.labels["density"] = np.array([density(s) for s in systems], np.float32)
    data.save(tmp_path / "metals.npz")
    sizes = {"dim": 16, "num_heads": 2}
    model = ModelConfig(
        replace(MINI.autoencoder, **sizes, num_encoder_layers=1, num_decoder_layers=1),
        replace(MINI.denoiser, **sizes, num_layers=2, properties=("density",)),
    )
    ADiT(model, with_denoiser=False).save(tmp_path / "first.safetensors")
    schedule = TrainingConfig(steps=2, batch_size=8, accelerator="cpu")
    config = RunConfig((str(tmp_path / "metals.npz"),), str(tmp_path / "a"), (), model, schedule)
    config = replace(config, autoencoder=str(tmp_path / "first.safetensors"))
    run_stage("denoiser", config, progress=False)
    found = ADiT.load(tmp_path / "a" / "denoiser.safetensors", device="cpu")
    assert found.known.properties["density"].error > 0

    killed = replace(config, output=str(tmp_path / "b"))
    with monkeypatch.context() as patch:
        patch.setattr("adit_model.training.run.fit_estimator", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_stage("denoiser", killed, progress=False)
    assert ADiT.load(tmp_path / "b" / "denoiser.safetensors", device="cpu").estimator is None
    run_stage("denoiser", killed, resume=True, progress=False)
    again = ADiT.load(tmp_path / "b" / "denoiser.safetensors", device="cpu")
    assert again.known == found.known
    for name, value in found.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])

    without = replace(schedule, estimator_systems=0)
    config = replace(config, output=str(tmp_path / "c"), training=without)
    run_stage("denoiser", config, progress=False)
    assert ADiT.load(tmp_path / "c" / "denoiser.safetensors", device="cpu").estimator is None

    start = str(tmp_path / "a" / "denoiser.safetensors")
    config = replace(config, output=str(tmp_path / "d"), init_from=start)
    run_stage("denoiser", config, progress=False)
    later = ADiT.load(tmp_path / "d" / "denoiser.safetensors", device="cpu")
    assert later.estimator is None and later.known.properties["density"].error is None
