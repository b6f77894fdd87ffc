from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adit_model.conditions.atom_counts import format_atom_counts, parse_atom_counts

number = st.integers(0, 500)


@given(st.one_of(number, st.tuples(number, number), st.lists(number, min_size=2)))
def test_text_round_trip(counts):
    assert parse_atom_counts(format_atom_counts(counts)) == counts


def test_none_stays_none():
    assert format_atom_counts(None) is None


@pytest.mark.parametrize("text", ["", "few", "4-", "-4", "1-2-3", "4,,5", "4.5", "4,"])
def test_what_is_no_count(text):
    with pytest.raises(ValueError, match=r"must be a number \(12\), a range"):
        parse_atom_counts(text)
