"""Elements from the decoder's logits: within the set, all of it, by formula, by orbit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adit_model.conditions.atoms import ElementChoice

ALLOWED = np.array([3, 8, 15])


def best(logits, orbits, fits):
    """Search all assignments of the allowed elements to orbits for the likeliest that fits."""
    scores = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    rows = [np.flatnonzero(orbits == orbit) for orbit in np.unique(orbits)]
    found = -np.inf
    for elements in product(ALLOWED, repeat=len(rows)):
        numbers = np.zeros(len(logits), np.int64)
        for row, z in zip(rows, elements, strict=True):
            numbers[row] = z
        if fits(numbers):
            found = max(found, scores[np.arange(len(numbers)), numbers].sum())
    return found, lambda numbers: scores[np.arange(len(numbers)), numbers].sum()


@given(st.integers(0, 10**6), st.booleans())
def test_all_of_the_set_at_the_least_cost(seed, shared):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(6, 20))
    logits[:, generator.choice(ALLOWED)] += 3.0  # one element would take all
    orbits = np.array([0, 0, 1, 1, 2, 3]) if shared else np.arange(6)
    numbers = ElementChoice(allowed=ALLOWED, orbits=orbits if shared else None).choose(logits)
    assert set(numbers) == set(ALLOWED)
    assert all(len(set(numbers[orbits == orbit])) == 1 for orbit in orbits)
    wanted, score = best(logits, orbits, lambda n: set(n) == set(ALLOWED))
    assert score(numbers) == pytest.approx(wanted)


@given(st.integers(0, 10**6), st.booleans())
def test_a_formula_at_the_least_cost(seed, shared):
    logits = np.random.default_rng(seed).normal(size=(6, 20))
    orbits = np.array([0, 0, 1, 2, 2, 3]) if shared else np.arange(6)
    composition = np.array([3, 8, 8, 8, 15, 15])
    numbers = ElementChoice(composition=composition, orbits=orbits if shared else None).choose(
        logits
    )
    assert sorted(numbers) == sorted(composition)
    wanted, score = best(logits, orbits, lambda n: sorted(n) == sorted(composition))
    assert score(numbers) == pytest.approx(wanted)


def test_atoms_that_have_an_element_count():
    logits = np.zeros((3, 20))
    logits[:, 8] = 5.0
    given_numbers = np.array([3, 0, 0])
    numbers = ElementChoice(given_numbers, allowed=np.array([3, 8])).choose(logits)
    assert numbers.tolist() == [3, 8, 8]
    numbers = ElementChoice(given_numbers, allowed=ALLOWED).choose(logits)
    assert sorted(numbers[1:]) == [8, 15]


def test_orbits_that_cannot_hold_it_are_an_error():
    logits, orbits = np.zeros((4, 20)), np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="2 orbits cannot hold 3 more elements"):
        ElementChoice(allowed=ALLOWED, orbits=orbits).choose(logits)
    with pytest.raises(ValueError, match=r"orbits of \[2, 2\] atoms cannot make up"):
        ElementChoice(composition=np.array([3, 8, 8, 8]), orbits=orbits).choose(logits)


@pytest.mark.parametrize("allowed", [None, np.array([1, 6, 8])])
def test_an_even_sum_costs_least(allowed):
    elements = np.array([1, 6, 7, 8])
    odd = 0
    for seed in range(60):
        logits = np.full((4, 10), -30.0)
        logits[:, elements] = np.random.default_rng(seed).normal(size=(4, 4)) * 3
        scores = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        fits = [
            row
            for row in product(elements.tolist(), repeat=4)
            if sum(row) % 2 == 0 and (allowed is None or set(row) == set(allowed.tolist()))
        ]
        numbers = ElementChoice(allowed=allowed, even=elements).choose(logits)
        assert tuple(numbers) in fits
        if allowed is None:  # with a set, first the set is met and then one atom changed
            assert tuple(numbers) == max(fits, key=lambda row: scores[range(4), row].sum())
        odd += ElementChoice(allowed=allowed).choose(logits).sum() % 2
    assert odd > 10  # so there was something to change


def test_an_even_sum_leaves_given_atoms_and_a_composition_alone():
    logits, elements = np.zeros((3, 10)), np.array([1, 6, 7, 8])
    given = np.array([7, 1, 0])
    numbers = ElementChoice(given, even=elements).choose(logits)
    assert numbers[:2].tolist() == [7, 1] and numbers.sum() % 2 == 0
    composition = np.array([7, 8, 8])  # NO2, a radical that was asked for
    assert sorted(ElementChoice(composition=composition, even=elements).choose(logits)) == [7, 8, 8]
    lone = ElementChoice(np.array([7, 1, 1]), even=elements).choose(logits)
    assert lone.tolist() == [7, 1, 1]
