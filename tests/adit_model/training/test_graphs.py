"""Batches of fixed shapes, and what is recorded from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adit_model.data.dataset import AtomicDataset
from adit_model.model import ADiT
from adit_model.systems import AtomicSystem
from adit_model.training.batches import StepSampler, step_generator
from adit_model.training.graphs import FlatDenoiser, GraphedDenoiser
from adit_model.training.latents import encode_dataset
from adit_model.training.loss import flow_matching_loss
from adit_model.training.poses import canonical_dataset

from .conftest import TINY


@pytest.fixture
def source():
    """Latents of molecules and crystals of 1 to 6 atoms."""
    random = np.random.default_rng(0)
    systems = [
        AtomicSystem(
            random.choice([1, 6, 8], size),
            random.normal(size=(size, 3)),
            np.eye(3) * random.uniform(3, 5, 3) if crystal else None,
        )
        for crystal in (True, False)
        for size in (1, 2, 3, 4, 5, 6, 2, 4)
    ]
    torch.manual_seed(0)
    data = canonical_dataset(AtomicDataset.from_systems(systems))
    source = encode_dataset(ADiT(TINY).autoencoder, data, progress=False)
    source.widths = source.largest()
    return source


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    denoiser = ADiT(TINY).denoiser
    for parameter in denoiser.parameters():
        parameter.data.normal_(std=0.2)
    return denoiser


def batches(source, number):
    sampler = StepSampler(source.periodic, 6, 0.5, 0, sizes=source.sizes)
    return [source.batch(sampler.indices(step)) for step in range(number)]


def test_batches_have_one_shape(source):
    found = batches(source, 20)
    shapes = {tuple(x.shape for x in batch.groups.tensors()) for batch in found}
    assert len(shapes) == 1
    assert len({batch.num_atoms for batch in found}) == 1
    widths = [part.max_size for _, part in found[0].groups.groups]
    assert widths == [source.sizes[kind].max() for kind in (source.periodic, ~source.periodic)]
    # The systems do change.
    assert len({tuple(batch.packing.sizes.tolist()) for batch in found}) > 5


def test_denoiser_of_tensors_predicts_what_the_denoiser_does(source, denoiser):
    """The groups it was made with lend their shapes alone."""
    first, second = batches(source, 2)
    groups = second.groups
    x = torch.randn(second.latents.shape, generator=torch.Generator().manual_seed(0))
    t, told = torch.rand(6), denoiser.tell_nothing(groups)
    expected = denoiser(x, t, groups, told, x)
    flat = FlatDenoiser(denoiser, first.groups, remembers=True)
    torch.testing.assert_close(flat(x, t, x, *told.tensors(), *groups.tensors()), expected)
    # Padding to the widths changes nothing.
    source.widths = None
    sampler = StepSampler(source.periodic, 6, 0.5, 0, sizes=source.sizes)
    plain = source.batch(sampler.indices(1))
    torch.testing.assert_close(denoiser(x, t, plain.groups, told, x), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bfloat16", [False, True])
def test_recorded_denoiser_has_the_losses_and_gradients_of_the_denoiser(bfloat16, source, denoiser):
    denoiser = denoiser.cuda().train()
    found = []
    for predict in (None, GraphedDenoiser(denoiser, bfloat16)):
        losses, gradients = [], []
        for step, batch in enumerate(batches(source, 6)):
            batch = batch.to("cuda")
            x_1 = denoiser.normalise(batch.latents, batch.groups.kinds)
            with torch.autocast("cuda", torch.bfloat16, enabled=bfloat16):
                loss, _ = flow_matching_loss(
                    denoiser, x_1, batch.groups, step_generator(0, step), predict=predict
                )
            denoiser.zero_grad()
            loss.backward()
            losses.append(loss.item())
            gradients.append(
                torch.stack([p.grad.norm() for p in denoiser.parameters() if p.grad is not None])
            )
        found.append((losses, torch.stack(gradients)))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-2 if bfloat16 else 1e-4)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0.05 if bfloat16 else 1e-3, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_graphs_without_a_gpu_are_refused_before_any_work(run, tmp_path):
    cases = [
        ("denoiser", {"accelerator": "cpu"}, "cuda_graphs needs a CUDA GPU"),
        ("denoiser", {"accelerator": "auto"}, "cuda_graphs needs a CUDA GPU"),
        ("denoiser", {"devices": 2}, "cuda_graphs is for one GPU"),
        ("autoencoder", {}, "cuda_graphs is for stage 2"),
    ]
    for stage, options, message in cases:
        with pytest.raises(ValueError, match=message):
            run(stage, tmp_path / "out", cuda_graphs=True, **options)
    assert not (tmp_path / "out").exists()


def test_fused_attention_takes_the_same_steps(run, tmp_path):
    """On a CPU through Triton's interpreter, which ``conftest.py`` asks for."""
    pytest.importorskip("triton")
    options = {"steps": 1, "batch_size": 2, "validate_every": 9, "log_every": 1}
    plain = run("denoiser", tmp_path / "plain", **options)
    ours = run("denoiser", tmp_path / "fused", attention="fused", **options)
    assert ours.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_fused_attention_without_a_gpu_is_refused(run, tmp_path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="attention fused needs a CUDA GPU"):
        run("denoiser", tmp_path / "out", attention="fused")
    assert not (tmp_path / "out").exists()
