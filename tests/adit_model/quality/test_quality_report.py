from __future__ import annotations

import pytest

from adit_model.quality.report import write_report
from adit_model.quality.summary import summarise
from adit_model.quality.tables import interval, table


@pytest.mark.parametrize(
    ("passed", "of", "expected"),
    [(0, 10, "0-28"), (5, 10, "24-76"), (10, 10, "72-100"), (81, 263, "26-37")],
)
def test_intervals_of_wilson(passed: int, of: int, expected: str) -> None:
    """81 of 263 is the example of Newcombe, Stat. Med. 17, 857 (1998): 25.53 to 36.62 %."""
    assert interval({"passed": passed, "of": of, "share": passed / of}) == expected


def test_texts_stand_left_and_numbers_right() -> None:
    assert table(("", "a", "b"), [("x", "1", "one|two")], texts=1) == [
        "|  | a | b |",
        "|---|---:|---|",
        "| x | 1 | one\\|two |",
        "",
    ]


def molecule(**cells: object) -> dict[str, object]:
    return {
        "domain": "molecule",
        "num_atoms": 3,
        "decoded": True,
        "valid": True,
        "holds": {},
        **cells,
    }


def test_posebusters_is_of_those_with_a_verdict_and_says_of_how_many() -> None:
    verdict = {"pb_loaded": True, "pb_bond_lengths": False, "pb_all": False}
    reason = dict.fromkeys(verdict, "failed: no bonding found")
    rows = [molecule(**verdict), molecule(**reason), molecule(**verdict | {"pb_all": True})]
    summary = summarise(rows, {"molecule": set(verdict)})
    report = write_report({"samples": "s", **summary})
    assert "| PoseBusters: all of them | 50.0 % (1/2) |" in report
    assert "| PoseBusters: bonds and all of them, of all samples | 33.3 % (1/3) |" in report
    assert "Shares of the 2 molecules of 3 with a verdict" in report
    assert "| bond lengths | 0.0 % (0/2) |" in report
    assert "| pb_loaded, pb_bond_lengths, pb_all | 1 | failed: no bonding found |" in report


def test_what_was_not_asked_for_is_named_and_not_a_line_of_dashes() -> None:
    report = write_report({"samples": "s", **summarise([molecule()], {"molecule": set()})})
    assert "no sample has them: plausible; closed shell" in report and "PoseBusters." in report
    assert "| novel (of valid)" not in report
    assert "no reference given" in report


def test_many_columns_of_one_kind_are_told_by_their_prefix() -> None:
    names = [f"chgnet_{name}" for name in ("energy", "energy_initial", "rmsd", "stable")]
    row = {**molecule(), "domain": "crystal", **dict.fromkeys(names, "failed: it blew up")}
    report = write_report({"samples": "s", **summarise([row], {"crystal": set()})})
    assert "| chgnet_* (4 columns) | 1 | failed: it blew up |" in report
