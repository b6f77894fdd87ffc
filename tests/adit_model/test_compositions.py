"""What the denoiser is told of a molecule's elements, and where compositions come from."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.formula import Formula

from adit_model.compositions import (
    CompositionTable,
    composition_histogram,
    sort_composition,
    told_composition,
)
from adit_model.config import named_size
from adit_model.flow_matching import flow_matching_loss
from adit_model.layers import DomainGroups
from adit_model.model import ADiT
from adit_model.sampling import make_request

HISTOGRAM = {"CH4": 3, "H2O": 5, "CHN": 5, "C6H6": 1}


def test_hydrogen_comes_last_and_crystals_tell_nothing():
    numbers = np.array([1, 8, 6, 1, 11, 17, 7, 1])
    told = told_composition(numbers, np.array([4, 2, 2]), np.array([False, True, False]))
    assert told.tolist() == [6, 8, 1, 1, 0, 0, 7, 1]
    assert sort_composition(np.array([1, 35, 6, 1])).tolist() == [6, 35, 1, 1]


def test_histogram_counts_formulas():
    water, methane = [8, 1, 1], [1, 6, 1, 1, 1]
    numbers = np.array([*water, *methane, 8, 1, 1, 1, 8, 1])
    sizes, periodic = np.array([3, 5, 3, 3]), np.array([False, False, True, False])
    assert composition_histogram(numbers, sizes, periodic) == {"CH4": 1, "H2O": 2}


def test_table_draws_as_often_as_the_data():
    table = CompositionTable(HISTOGRAM)
    generator = np.random.default_rng(0)
    drawn = Counter(tuple(table.draw(3, generator)) for _ in range(2000))
    assert set(drawn) == {(8, 1, 1), (6, 7, 1)}
    assert drawn[(8, 1, 1)] == pytest.approx(1000, abs=100)
    assert table.draw(12, generator).tolist() == [6] * 6 + [1] * 6
    assert table.draw(4, generator) is None


def make_model(**options) -> ADiT:
    config = named_size("mini")
    denoiser = replace(config.denoiser, dim=24, num_layers=2, num_heads=2, **options)
    autoencoder = replace(config.autoencoder, dim=16, num_encoder_layers=1, num_decoder_layers=1)
    statistics = {
        "sizes": {"molecule": {"3": 10, "4": 1, "5": 3, "12": 1}, "crystal": {"3": 1, "12": 2}},
        "compositions": {"molecule": HISTOGRAM},
    }
    torch.manual_seed(0)
    model = ADiT(replace(config, denoiser=denoiser, autoencoder=autoencoder), statistics)
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        if model.denoiser.composition is not None:
            model.denoiser.composition.weight[0] = 0
    return model.eval()


def test_a_request_depends_on_seed_and_index_alone():
    model, plain = make_model(), make_model(composition_condition=False)
    for index in range(20):
        request = make_request(model, index, "molecule", 3, None)
        again = make_request(model, index, "molecule", 3, None)
        told = request.composition
        np.testing.assert_array_equal(told, again.composition)
        assert (told is None) == (request.num_atoms == 4)  # no formula has four atoms
        if told is not None:
            assert Formula.from_list([{1: "H", 6: "C", 7: "N", 8: "O"}[z] for z in told]).format(
                "hill"
            ) in {f for f in HISTOGRAM if sum(Formula(f).count().values()) == request.num_atoms}
        # noise and size are those of a model that is not told
        other = make_request(plain, index, "molecule", 3, None)
        assert other.composition is None
        np.testing.assert_array_equal(other.noise, request.noise)
        assert make_request(model, index, "crystal", 3, None).composition is None


def test_samples_follow_what_is_told_and_not_their_batch_mates():
    model = make_model()
    sizes = [3, 5, 4, 12, 3, 5, 3, 3]
    options = {"domain": "molecule", "seed": 1, "num_steps": 3, "progress": False}
    together = model.sample(8, num_atoms=sizes, **options)
    for sample in together:
        (alone,) = model.sample(1, num_atoms=sample.num_atoms, first_index=sample.index, **options)
        np.testing.assert_array_equal(alone.decoded["positions"], sample.decoded["positions"])
    model.statistics = {**model.statistics, "compositions": {"molecule": {"CHO": 1, "CH4": 1}}}
    del model.compositions
    other = model.sample(8, num_atoms=sizes, **options)
    changed = [
        not np.array_equal(a.decoded["positions"], b.decoded["positions"])
        for a, b in zip(together, other, strict=True)
    ]
    # water and HCN became CHO, benzene is no longer known; methane and four atoms stay
    assert changed == [n in (3, 12) for n in sizes]


def test_training_hides_the_composition_sometimes():
    groups = DomainGroups(make_packing([3, 5]), torch.tensor([False, False]))
    told = torch.tensor([8, 1, 1, 6, 1, 1, 1, 1])
    x_1 = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))

    def loss(model: ADiT, composition: torch.Tensor | None) -> float:
        generator = torch.Generator().manual_seed(2)
        return float(flow_matching_loss(model.denoiser, x_1, groups, generator, composition)[0])

    shown, hidden = make_model(class_dropout=0.0), make_model(class_dropout=1.0)
    assert loss(shown, told) != loss(shown, torch.zeros_like(told))
    assert loss(hidden, told) == loss(hidden, torch.zeros_like(told))


def make_packing(sizes: list[int]):
    from adit_model.batch import Packing

    return Packing(torch.tensor(sizes))
