"""What both stages share, and what each adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from adit_model.model import ADiT
from adit_model.network.groups import DomainGroups
from adit_model.training.batches import LatentBatch, SystemSource, step_generator
from adit_model.training.config import TrainingConfig
from adit_model.training.latents import encode_dataset
from adit_model.training.modules import AutoencoderModule, DenoiserModule, StageModule
from adit_model.training.poses import augment, canonical_dataset
from adit_model.training.run import run_stage

STAGES = ("autoencoder", "denoiser")


class Counter(StageModule):
    """One weight, and a step that is set by hand."""

    global_step = 0

    def __init__(self, **options) -> None:
        super().__init__(nn.Linear(1, 1, bias=False), TrainingConfig(**options))

    def compute_loss(self, batch, generator):
        raise NotImplementedError

    def follow(self, values):
        """Average after each of the values of the weight."""
        self.network.weight.data.fill_(values[0])
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        averages = []
        for step, value in enumerate(values[1:], start=1):
            self.network.weight.data.fill_(value)
            self.global_step = step
            self.update_average()
            averages.append(float(self.average["weight"]))
        return averages


def test_average_of_horizon_one_is_the_mean_of_all_weights():
    """1 - 1 / (1 + k) is the decay of a running mean."""
    values = np.random.default_rng(0).normal(size=40)
    means = np.cumsum(values) / np.arange(1, 41)
    np.testing.assert_allclose(Counter(ema_horizon=1.0).follow(values), means[1:], atol=1e-5)


def test_average_spans_the_horizon():
    """A weight that grows by one a step: the average lags a tenth of the steps behind.

    For a lag h k the average moves by (k - a) / (h k), so a = k / (1 + h).
    """
    averages = Counter(ema_horizon=0.1).follow(np.arange(2001.0))
    for step in (500, 1000, 2000):
        assert averages[step - 1] == pytest.approx(step / 1.1, rel=0.02)


def test_decay_has_a_largest_value():
    averages = Counter(ema_horizon=1.0, ema_decay=0.5).follow([0.0, *[1.0] * 6])
    np.testing.assert_allclose(averages, [1 - 0.5**k for k in range(1, 7)])


def test_no_horizon_is_no_average():
    assert Counter(ema_horizon=0.0).follow([3.0, 1.0, 2.0]) == [1.0, 2.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_are_dropped(value):
    module = Counter(ema_horizon=0.1)
    weight = module.network.weight
    weight.grad = torch.full_like(weight, 2.0)
    module.on_after_backward()
    assert (weight.grad == 2.0).all()
    weight.grad.view(-1)[0] = value
    module.on_after_backward()
    assert (weight.grad == 0.0).all()


def test_first_moment_shows_the_clipped_gradient(run, saved, tmp_path):
    """After one step Adam's first moment is (1 - beta_1) times the gradient it was given."""
    for clip, name in ((1e-3, "small"), (0.0, "none"), (0.5, "middle")):
        run("autoencoder", tmp_path / name, steps=1, gradient_clip=clip)
        moments = saved(tmp_path / name)["optimizer_states"][0]["state"].values()
        norm = float(sum(m["exp_avg"].square().sum() for m in moments)) ** 0.5 / 0.1
        if clip:
            assert norm == pytest.approx(clip, rel=1e-3)
        else:
            assert norm > 1


def test_learning_rate_follows_the_schedule(run, log, tmp_path):
    options = {"steps": 12, "warmup_steps": 4, "decay_start": 0.5, "learning_rate": 3e-3}
    run("autoencoder", tmp_path, optimizer="muon", **options)
    config = TrainingConfig(**options)
    for group in ("pg1", "pg2"):
        rows = log(tmp_path, f"lr-MuonAdamW/{group}")
        rates = [row[f"lr-MuonAdamW/{group}"] for row in rows]
        np.testing.assert_allclose(
            rates, [3e-3 * config.learning_rate_factor(step) for step in range(12)]
        )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stage", STAGES)
def test_training_lowers_the_loss(stage, optimizer, run, log, tmp_path):
    options = {"steps": 120, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 10}
    run(stage, tmp_path, optimizer=optimizer, validate_every=10, **options)
    column = "val/elements" if stage == "autoencoder" else "val/molecule"
    values = [row[column] for row in log(tmp_path, column)]
    assert len(values) == 12
    assert values[-1] < 0.5 * values[0]


def test_validation_uses_the_average_and_leaves_the_weights(run, saved, log, tmp_path):
    options = {"steps": 6, "learning_rate": 1e-2}
    run("autoencoder", tmp_path / "often", validate_every=1, **options)
    run("autoencoder", tmp_path / "never", validation=(), **options)
    often, never = saved(tmp_path / "often"), saved(tmp_path / "never")
    for name, value in often["state_dict"].items():
        torch.testing.assert_close(value, never["state_dict"][name], rtol=0, atol=0)
    assert log(tmp_path / "never", "val/elements") == []
    # The last validation is that of the weights in the checkpoint.
    checkpoint = ADiT.load(tmp_path / "often" / "autoencoder.safetensors", device="cpu")
    assert log(tmp_path / "often", "val/elements")[-1]["val/elements"] == pytest.approx(
        validation_loss(checkpoint, tmp_path, run), rel=1e-5
    )


def validation_loss(checkpoint: ADiT, tmp_path, run) -> float:
    """Validate given weights: a step of no learning rate that starts from them."""
    path = tmp_path / "weights.safetensors"
    checkpoint.save(path)
    options = {"steps": 1, "learning_rate": 1e-30, "validate_every": 1}
    result = run("autoencoder", tmp_path / "again", init_from=str(path), **options)
    return result.metrics["val/elements"]


def test_frozen_encoder_keeps_weights_and_latents(run, first_stage, dataset, saved, tmp_path):
    data = canonical_dataset(dataset)
    result = run(
        "autoencoder",
        tmp_path,
        init_from=str(first_stage),
        freeze_encoder=True,
        weight_decay=0.5,
        steps=5,
    )
    before, after = ADiT.load(first_stage), ADiT.load(result.checkpoint)
    for name, value in after.autoencoder.encoder.state_dict().items():
        assert torch.equal(value, before.autoencoder.encoder.state_dict()[name]), name
    changed = [
        not torch.equal(value, before.autoencoder.decoder.state_dict()[name])
        for name, value in after.autoencoder.decoder.state_dict().items()
    ]
    assert np.mean(changed) > 0.9
    latents = [encode_dataset(m.autoencoder, data, progress=False) for m in (before, after)]
    np.testing.assert_array_equal(latents[0].latents, latents[1].latents)
    assert "train/kl" not in result.metrics


def test_random_poses_change_with_the_step(dataset, paper_first_stage):
    model = ADiT.load(paper_first_stage, device="cpu")
    batch = SystemSource(canonical_dataset(dataset)).batch(np.arange(len(dataset)))
    config = replace(
        model.config.autoencoder, mask_fraction=0.0, noise_fraction=0.0, log_variance_start=-20.0
    )
    network = ADiT(replace(model.config, autoencoder=config)).autoencoder
    module = AutoencoderModule(network, TrainingConfig())
    losses = [module.compute_loss(batch, step_generator(0, s))[0].item() for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_denoiser_of_random_poses_sees_latents_of_turned_systems(dataset, paper_first_stage):
    """The loss of turned systems is that of their latents."""
    model = ADiT(ADiT.load(paper_first_stage, device="cpu").config)
    batch = SystemSource(canonical_dataset(dataset)).batch(np.arange(len(dataset)))
    module = DenoiserModule(model.denoiser, TrainingConfig(), model.autoencoder)
    found, _ = module.compute_loss(batch, step_generator(0, 3))
    generator = step_generator(0, 3)
    mean, _ = model.autoencoder.encode(augment(batch, generator))
    groups = DomainGroups(batch.packing, batch.periodic)
    nothing = torch.zeros(len(batch), dtype=int), torch.zeros(len(batch), 0)
    latents = LatentBatch(mean.detach(), groups, batch.numbers, *nothing)
    expected, _ = module.compute_loss(latents, generator)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(p.grad is None for p in model.autoencoder.parameters())
    assert any(p.grad is not None for p in model.denoiser.parameters())


@pytest.mark.parametrize("stage", STAGES)
def test_random_poses_train_both_stages(stage, make_config, paper_first_stage, log, tmp_path):
    stage_1 = str(paper_first_stage) if stage == "denoiser" else None
    config = make_config(
        tmp_path, model=ADiT.load(paper_first_stage).config, autoencoder=stage_1, steps=4
    )
    result = run_stage(stage, config, progress=False)
    assert result.finished
    assert np.isfinite([row["loss"] for row in log(tmp_path, "loss")]).all()
    assert not list(tmp_path.glob("latents-*"))
    if stage == "denoiser":
        model = ADiT.load(result.checkpoint, device="cpu")
        assert not torch.equal(
            model.denoiser.latent_std, torch.ones_like(model.denoiser.latent_std)
        )
        for name, value in model.autoencoder.state_dict().items():
            trained = ADiT.load(paper_first_stage).autoencoder.state_dict()[name]
            assert torch.equal(value, trained)
