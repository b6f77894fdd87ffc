from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st

from adit_model.data.dataset import AtomicDataset
from adit_model.data.structures import load_structures
from adit_model.data.summary import add_data_arguments, data_command, element_counts, summarise


def dataset(sizes: list[int], numbers: list[int] | None = None) -> AtomicDataset:
    total = sum(sizes)
    return AtomicDataset(
        np.array(numbers or [6] * total, dtype=np.int16),
        np.zeros((total, 3), dtype=np.float32),
        np.full((len(sizes), 3, 3), np.nan, dtype=np.float32),
        np.array(sizes, dtype=np.int32),
        np.array([str(i) for i in range(len(sizes))]),
        "set",
    )


def test_counts_are_those_of_the_structures() -> None:
    data = load_structures(
        [bulk("NaCl", "rocksalt", a=5.64), molecule("H2O"), molecule("CH4")], "mine", progress=False
    )
    data.skipped = [("a", "angles 1.5 are bad"), ("b", "angles 22 are bad"), ("c", "empty")]
    lines = summarise(data).splitlines()
    assert lines[0] == "mine: 3 systems (1 crystals, 2 molecules), 10 atoms"
    assert lines[1] == "atoms per system: 2 to 5, mean 3.33"
    bar = "#" * 40
    assert [line.split() for line in lines[2:6]] == [
        ["2", "1", bar],
        ["3", "1", bar],
        ["4", "0"],
        ["5", "1", bar],
    ]
    assert lines[6] == "elements: 5"
    assert lines[7].split() == ["H", "6", "atoms,", "in", "66.7", "%", "of", "systems"]
    assert lines[-3:] == [
        "skipped: 3",
        "          2 like a: angles 1.5 are bad",
        "          1 like c: empty",
    ]


def test_atoms_and_systems_of_an_element_differ() -> None:
    data = dataset([2, 3], [1, 1, 1, 8, 8])
    assert element_counts(data) == {1: (3, 2), 8: (2, 1)}


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_size_histogram_counts_every_system_once(sizes: list[int]) -> None:
    text = summarise(dataset(sizes))
    rows = text.splitlines()[2 : text.splitlines().index("elements: 1")]
    assert len(rows) <= 15
    found = 0
    for row in rows:
        label, count = row.split()[:2]
        low, _, high = label.partition("-")
        inside = [s for s in sizes if int(low) <= s <= int(high or low)]
        assert len(inside) == int(count.replace(",", ""))
        found += len(inside)
    assert found == len(sizes)


def test_rare_elements_and_reasons_are_folded() -> None:
    data = dataset([60], list(range(1, 61)))
    data.skipped = [(str(i), "reason " + "x" * i) for i in range(7)]
    text = summarise(data)
    assert text.count(" atoms, in ") == 20
    assert "fewer of: Sc Ti" in text
    assert "and 2 other reasons" in text
    assert summarise(dataset([1])).endswith("skipped: 0")


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    return data_command(parser.parse_args(list(arguments)))


def test_command_prints_and_writes(clean_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("mols.xyz", [molecule("H2O"), molecule("C6H6")])
    assert run("mols.xyz", "--out", "new/mols.npz", "--max-atoms", "5", "--quiet") == 0
    out, err = capsys.readouterr()
    assert out.startswith("mols.xyz: 1 systems (0 crystals, 1 molecules), 3 atoms")
    assert "1 like mols#1: 12 atoms, more than max_atoms=5" in out
    assert out.splitlines()[-1].startswith("written to new/mols.npz (")
    assert err == ""
    assert AtomicDataset.load("new/mols.npz").sizes.tolist() == [3]


def test_command_refuses_before_it_reads(clean_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"--out must end in \.npz, got x\.csv"):
        run("absent.csv", "--out", "x.csv")


def test_help_lists_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    assert "mp20:train, perov5:val" in capsys.readouterr().out
