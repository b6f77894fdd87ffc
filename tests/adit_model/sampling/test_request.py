"""A request: built in one place, written as JSON, divided, checked."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monty.json import MontyDecoder, MontyEncoder

from adit_model.conditions.condition import Condition
from adit_model.config import SamplingConfig
from adit_model.sampling.request import Request

TEXTS = st.sampled_from(["", "crystal, atoms=4-12", "Li-P-S", "LiMn3O4, units=2", "molecule"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**40),
        "first_index": st.integers(0, 10**6),
        "random_rotation": st.booleans(),
        "num_steps": st.integers(1, 500),
        "solver": st.sampled_from(["euler", "heun", "ancestral"]),
        "noise_scale": st.floats(0, 2),
    },
)


@given(st.lists(TEXTS, min_size=1, max_size=6), OPTIONS, st.data())
def test_json_and_division(texts, options, data):
    for request in (Request.of(len(texts), texts, **options), Request.of(7, texts[0], **options)):
        assert json.loads(json.dumps(request, cls=MontyEncoder), cls=MontyDecoder) == request
        assert hash(Request.from_dict(request.as_dict())) == hash(request)
        k = data.draw(st.integers(1, request.n))
        parts = request.split(k)
        assert len(parts) == k and max(p.n for p in parts) - min(p.n for p in parts) <= 1
        assert sum((part.conditions for part in parts), ()) == request.conditions
        indices = [part.first_index + i for part in parts for i in range(part.n)]
        assert indices == list(range(request.first_index, request.first_index + request.n))


@given(st.data(), st.integers(1, 20))
def test_counts_are_one_a_range_or_one_for_each(data, n):
    counts = data.draw(st.lists(st.integers(1, 300), min_size=n, max_size=n))
    low, high = sorted(data.draw(st.tuples(st.integers(1, 300), st.integers(1, 300))))
    asked = Condition(num_atoms=(low, high))
    assert Request.of(n, num_atoms=(low, high)).condition == asked
    assert Request.of(n, num_atoms=f"{low}-{high}") == Request.of(n, f"atoms={low}-{high}")
    assert Request.of(n, num_atoms=np.int64(low)).condition == Condition(num_atoms=low)
    each = Request.of(n, "crystal", num_atoms=counts)
    assert [c.num_atoms for c in each.conditions] == counts
    assert {c.domain for c in each.conditions} == {"crystal"}
    if n > 1:
        assert Request.of(n, "crystal", num_atoms=",".join(map(str, counts))) == each
    with pytest.raises(ValueError, match=f"lists {n} atom counts for {n + 1} samples"):
        Request.of(n + 1, num_atoms=counts)
    with pytest.raises(ValueError, match=f"there are {n} conditions for {n + 1} samples"):
        Request.of(n + 1, ["crystal"] * n)


def test_short_forms_are_one_request():
    request = Request.of(8, "Li-P-S, atoms=4-12", domain="crystal", seed=5, num_steps=25)
    assert request == Request(
        8,
        {"domain": "crystal", "elements": "Li-P-S", "num_atoms": (4, 12)},
        5,
        sampling={"num_steps": 25},
    )
    assert Request.of(request) is request
    with pytest.raises(TypeError, match="a Request says all"):
        Request.of(request, seed=1)
    with pytest.raises(TypeError, match="unknown option 'steps', known: num_steps, solver"):
        Request.of(3, steps=4)
    with pytest.raises(ValueError, match="'crystal' and domain='molecule' contradict"):
        Request.of(3, "crystal", domain="molecule")
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.8, got 9"):
        request.split(9)
    filled = request.filled(SamplingConfig(num_steps=50, solver="heun"))
    assert filled.settings(SamplingConfig()) == SamplingConfig(25, "heun")
