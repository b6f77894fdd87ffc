"""Training how conditions are taken in, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import torch

from adit_model.config import MINI
from adit_model.network.denoiser import Denoiser
from adit_model.network.groups import DomainGroups
from adit_model.training.config import TrainingConfig
from adit_model.training.modules import DenoiserModule


def test_what_is_made_with_nothing_told_stays_bit_for_bit():
    config = replace(MINI.denoiser, dim=16, num_heads=2, num_layers=2, properties=("gap",))
    torch.manual_seed(0)
    network = Denoiser(config, cells=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    groups = DomainGroups.of_atoms(torch.tensor([3, 4]), torch.tensor([True, False]), cells=True)
    x, t = torch.randn(8, 8), torch.tensor([0.3, 0.6])
    told = network.tell_nothing(groups)
    told.space_group[0] = 225
    told.properties[1, 0] = 0.5

    def outputs():
        with torch.no_grad():
            return network(x, t, groups), network(x, t, groups, told)

    free, asked = outputs()
    module = DenoiserModule(network, TrainingConfig(optimizer="muon", only_conditions=True))
    (optimizer,), _ = module.configure_optimizers()
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    network(x, t, groups, told).square().sum().backward()
    optimizer.step()
    after = outputs()
    assert torch.equal(after[0], free)
    assert (after[1] - asked).abs().max() > 1e-4
