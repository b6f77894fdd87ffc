"""A vocabulary that grows: what was known stays, what is new is not guessed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adit_model.config import AutoencoderConfig, DenoiserConfig, ModelConfig
from adit_model.model import ADiT
from adit_model.systems import AtomicSystem
from adit_model.training.finetune import with_elements

SMALL = {"dim": 16, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}


@pytest.mark.parametrize("exact", [False, True])
def test_new_elements_change_nothing_before_they_are_learned(exact):
    options = {**SMALL, "num_elements": 20, "identity_start": exact, "canonical": exact}
    config = ModelConfig(
        AutoencoderConfig(**options, exact=exact), DenoiserConfig(dim=16, num_layers=1, num_heads=2)
    )
    torch.manual_seed(0)
    model = ADiT(config).eval()
    with torch.no_grad():
        for name, parameter in model.autoencoder.named_parameters():
            if name.endswith(".bias") and parameter.shape == (20,):
                parameter.copy_(torch.linspace(2, 3, 20))
    larger = with_elements(model, 100)
    assert larger.config.autoencoder.num_elements == 100
    rock_salt = AtomicSystem([11, 17], [[0, 0, 0], [2.8, 0, 0]], 2.8 * (1 - np.eye(3)))
    (before,), (after,) = model.encode([rock_salt]), larger.encode([rock_salt])
    np.testing.assert_array_equal(before, after)
    sizes, periodic = torch.tensor([2]), torch.tensor([True])
    latents = torch.from_numpy(before)
    (old,), (new,) = (m.decode(latents, sizes, periodic) for m in (model, larger))
    np.testing.assert_array_equal(old["numbers"], new["numbers"])
    biases = [
        value
        for name, value in larger.autoencoder.named_parameters()
        if name.endswith(".bias") and value.shape == (100,)
    ]
    assert len(biases) == 1 and bool((biases[0][20:] == 2).all())
    with pytest.raises(ValueError, match="the model knows 100 elements, more than 50"):
        with_elements(larger, 50)
