"""What the denoiser is told of a molecule's elements, and where they come from."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from ase.symbols import string2symbols
from hypothesis import given
from hypothesis import strategies as st

from adit_model.batch import Packing
from adit_model.conditions.atoms import (
    ElementOrders,
    element_order_histogram,
)
from adit_model.conditions.known import Known
from adit_model.config import SamplingConfig, named_size
from adit_model.model import ADiT
from adit_model.network.groups import DomainGroups
from adit_model.sampling.request import Request, draw_samples
from adit_model.training.loss import flow_matching_loss

HISTOGRAM = {"CH4": 3, "OH2": 5, "CNH": 3, "NCH": 2, "C6H6": 1}


def test_histogram_counts_orders():
    numbers = np.array([8, 1, 1, 6, 1, 1, 1, 1, 8, 1, 1, 1, 8, 1])
    sizes = np.array([3, 5, 3, 3])
    periodic = np.array([False, False, True, False])
    found = element_order_histogram(numbers, sizes, periodic)
    assert found == {"CH4": 1, "HOH": 1, "OH2": 1}  # the third is a crystal


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_orders_survive_their_symbols(numbers):
    numbers = np.array(numbers)
    histogram = element_order_histogram(numbers, np.array([len(numbers)]), np.array([False]))
    drawn = ElementOrders(histogram).draw(len(numbers), np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, numbers)


@given(
    st.dictionaries(
        st.lists(st.integers(1, 118), min_size=1, max_size=8).map(tuple),
        st.integers(1, 9),
        min_size=1,
    )
)
def test_orders_survive_their_arrays(orders):
    numbers = np.array([z for order, n in orders.items() for z in order * n], np.int64)
    sizes = np.array([len(order) for order, n in orders.items() for _ in range(n)], np.int64)
    table = ElementOrders(element_order_histogram(numbers, sizes, np.zeros(len(sizes), bool)))
    again = ElementOrders.from_arrays(**table.to_arrays())
    assert again.histogram == table.histogram
    for size in set(sizes.tolist()):
        drawn = [o.draw(size, np.random.default_rng(1)) for o in (table, again)]
        np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize(
    ("numbers", "sizes", "counts"),
    [
        ([6, 1], [3], [1]),
        ([6, 1], [2], [1, 1]),
        ([119], [1], [1]),
        ([0], [1], [1]),
    ],
)
def test_arrays_that_are_no_orders_are_refused(numbers, sizes, counts):
    arrays = [np.array(values) for values in (numbers, sizes, counts)]
    with pytest.raises(ValueError, match="order"):
        ElementOrders.from_arrays(*arrays)


def test_orders_are_drawn_as_often_as_in_the_data():
    table = ElementOrders(HISTOGRAM)
    generator = np.random.default_rng(0)
    drawn = Counter(tuple(table.draw(3, generator).tolist()) for _ in range(4000))
    assert set(drawn) == {(8, 1, 1), (6, 7, 1), (7, 6, 1)}
    assert drawn[8, 1, 1] == pytest.approx(2000, abs=150)
    assert drawn[6, 7, 1] == pytest.approx(1200, abs=150)
    assert table.draw(12, generator).tolist() == [6] * 6 + [1] * 6
    assert table.draw(4, generator) is None


def make_model(**options) -> ADiT:
    config = named_size("small")
    denoiser = replace(config.denoiser, dim=24, num_layers=2, num_heads=2, **options)
    autoencoder = replace(
        config.autoencoder, dim=16, num_heads=2, num_encoder_layers=1, num_decoder_layers=1
    )
    config = replace(config, denoiser=denoiser, autoencoder=autoencoder)
    sizes = {"molecule": {"3": 10, "4": 1, "5": 3, "12": 1}, "crystal": {"3": 1, "12": 2}}
    known = Known.of_checkpoint(config.as_dict(), {"sizes": sizes})
    torch.manual_seed(0)
    model = ADiT(config, known, ElementOrders(HISTOGRAM))
    with torch.no_grad():
        for parameter in model.denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        if model.denoiser.elements is not None:
            model.denoiser.elements.weight[0] = 0
    return model.eval()


def test_a_draw_depends_on_seed_and_index_alone():
    model, plain = make_model(element_condition=True), make_model(element_condition=False)
    known = {tuple(chemical_symbols.index(s) for s in string2symbols(order)) for order in HISTOGRAM}

    def draws(of, condition="molecule", n=40):
        request = Request.of(n, condition, seed=3)
        return draw_samples(request, of.known, of.element_orders, of.config, SamplingConfig())

    for draw, again, other in zip(draws(model), draws(model, n=50), draws(plain), strict=False):
        if draw.num_atoms == 4:  # no order has four atoms
            assert draw.told is None
        else:
            assert tuple(draw.told.tolist()) in known and len(draw.told) == draw.num_atoms
            np.testing.assert_array_equal(draw.told, again.told)
        # noise and size are those of a model that is not told
        assert other.told is None
        np.testing.assert_array_equal(other.noise, draw.noise)
    assert {3, 4, 5} <= {draw.num_atoms for draw in draws(model)}
    assert all(draw.told is None for draw in draws(model, "crystal"))


def test_what_is_told_is_what_was_asked():
    model = make_model(element_condition=True)

    def told(condition):
        request = Request.of(30, condition, seed=3)
        drawn = draw_samples(
            request, model.known, model.element_orders, model.config, SamplingConfig()
        )
        return {"".join(chemical_symbols[z] for z in draw.told) for draw in drawn}

    assert told("molecule, H-O") == {"OHH"}
    assert told("molecule, C-H-N") == {"CNH", "NCH"}
    assert told("molecule, CHN") == {"CNH", "NCH"}
    assert told("molecule, C-H, atoms=5-12") <= {"CHHHH", "C" * 6 + "H" * 6}
    assert told("molecule, NH4") == {"NHHHH"}  # an unknown formula: hydrogens last
    # none holds all four, and three atoms could not
    assert told("molecule, C-H-N-O") == {"CHHHH", "C" * 6 + "H" * 6}
    with pytest.raises(ValueError, match="made of these elements alone; they hold C-H-N-O"):
        told("molecule, C-F")


def test_samples_follow_what_is_told_and_not_their_batch_mates():
    model = make_model(element_condition=True)
    sizes = [3, 5, 4, 12, 3, 5, 3, 3]
    options = {"domain": "molecule", "seed": 1, "num_steps": 3, "progress": False}
    together = model.sample(8, num_atoms=sizes, **options)
    for sample in together:
        (alone,) = model.sample(1, num_atoms=sample.num_atoms, first_index=sample.index, **options)
        np.testing.assert_array_equal(alone.decoded["positions"], sample.decoded["positions"])
    model.element_orders = ElementOrders({"CHO": 1, "CH4": 1})
    other = model.sample(8, num_atoms=sizes, **options)
    changed = [
        not np.array_equal(a.decoded["positions"], b.decoded["positions"])
        for a, b in zip(together, other, strict=True)
    ]
    # three atoms are now C, H and O, twelve are no longer known; methane and four atoms stay
    assert changed == [n in (3, 12) for n in sizes]


def test_training_hides_the_elements_sometimes():
    groups = DomainGroups(Packing(torch.tensor([3, 5])), torch.tensor([False, False]))
    told = torch.tensor([8, 1, 1, 6, 1, 1, 1, 1])
    x_1 = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))

    def loss(dropout: float, elements: torch.Tensor) -> float:
        model = make_model(element_condition=True, class_dropout=dropout)
        generator = torch.Generator().manual_seed(2)
        what = replace(model.denoiser.tell_nothing(groups), elements=elements)
        return float(flow_matching_loss(model.denoiser, x_1, groups, generator, what)[0])

    nothing = torch.zeros_like(told)
    assert loss(0.0, told) != loss(0.0, nothing)
    assert loss(1.0, told) == loss(1.0, nothing)
