from __future__ import annotations

import csv
import json
from pathlib import Path

import ase.io
import pytest
from pymatgen.core import Lattice, Structure

from adit_model.cli.main import main
from adit_model.quality.cells import CellStore
from adit_model.quality.energies import (
    energy_measure,
    fill_energies,
    make_hull,
    summarise_energies,
)
from adit_model.quality.entries import Entry
from adit_model.quality.force_fields import element_references
from adit_model.quality.hull import MP2020, Hull
from adit_model.quality.rows import Options
from adit_model.systems import AtomicSystem

pytest.importorskip("chgnet", reason="chgnet is not installed")

HALITE = Structure(
    Lattice.from_parameters(4.02, 4.02, 4.02, 60, 60, 60), ["Na", "Cl"], [[0] * 3, [0.5] * 3]
)
TABLE = "material_id,formula,formation_energy_per_atom,e_above_hull,cif\n"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluate rocksalt, the same squeezed, and radon oxide, which no force field knows."""
    folder = tmp_path_factory.mktemp("energies")
    squeezed = HALITE.copy()
    squeezed.scale_lattice(0.85 * HALITE.volume)
    unknown = Structure(HALITE.lattice, ["Rn", "O"], HALITE.frac_coords)
    samples = folder / "samples"
    samples.mkdir()
    for i, structure in enumerate((HALITE, squeezed, unknown)):
        structure.to(str(samples / f"{i}.cif"))
    (folder / "known.csv").write_text(
        TABLE + f'mp-1,Na1 Cl1,-2.1096,0.0,"{HALITE.to(fmt="cif")}"\n'
    )
    (folder / "reference.csv").write_text(
        TABLE
        + 'mp-2,K1 Cl1,-2.2,0.0,"'
        + Structure(HALITE.lattice, ["K", "Cl"], HALITE.frac_coords).to(fmt="cif")
        + '"\n'
    )
    run(folder)
    return folder


def run(folder: Path) -> None:
    arguments = [
        str(folder / "samples"),
        *("--energies", "chgnet", "--hull", str(folder / "known.csv")),
        *("--reference", str(folder / "reference.csv")),
        *("--out", str(folder / "out"), "--quiet"),
    ]
    assert main(["evaluate", *arguments]) == 0


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "out" / "rows.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_known_compound_is_near_the_hull_and_a_squeezed_one_falls_to_it(evaluation) -> None:
    halite, squeezed, unknown = table(evaluation)
    above = float(halite["chgnet_above_hull"])
    assert above == pytest.approx(0, abs=0.05)
    assert float(squeezed["chgnet_above_hull_initial"]) > above + 0.03
    assert float(squeezed["chgnet_above_hull"]) == pytest.approx(above, abs=0.003)
    assert float(squeezed["chgnet_rmsd"]) < 0.01  # symmetry leaves the cell alone to change
    assert halite["chgnet_metastable"] == squeezed["chgnet_metastable"] == "True"
    assert sorted([halite["chgnet_unique"], squeezed["chgnet_unique"]]) == ["False", "True"]
    assert halite["chgnet_novel"] == squeezed["chgnet_novel"] == "True"
    assert halite["chgnet_competing"] == "NaCl"
    for name in ("chgnet_energy", "chgnet_above_hull", "chgnet_stable"):
        assert unknown[name] == "failed: CHGNet 0.3.0 does not know Rn"


@pytest.mark.slow
def test_summary_report_and_files_say_what_was_found(evaluation) -> None:
    out = evaluation / "out"
    part = json.loads((out / "summary.json").read_text())["crystals"]["energies"]["chgnet"]
    assert part["hull"] == {"source": "known.csv (partial)", "complete": False, "compounds": 1}
    assert part["rates"]["metastable"] == {"passed": 2, "of": 3, "share": 2 / 3}
    assert part["rates"]["msun"]["passed"] == 1
    assert part["numbers"]["above_hull"]["count"] == 2
    report = (out / "report.md").read_text()
    assert "The hull is partial" in report and "the true energy above hull is higher" in report
    assert "M.S.U.N." in report
    # of one compound, without which only elements compete, nothing passes
    none = {"0.15": 0, "0.2": 0, "0.3": 0}
    one = {"0.15": 1, "0.2": 1, "0.3": 1}
    assert part["null"] == {"threshold": 0.1, "of": 1, "passed": none, "unknown": one}
    assert "takes for metastable (at most 0.1 eV/atom above it) 0 % of those 0.15" in report
    assert (out / "crystals_energy_above_hull.png").is_file()
    frames = ase.io.read(out / "relaxed_chgnet.extxyz", ":")
    assert [atoms.info["index"] for atoms in frames] == [0, 1]
    assert frames[0].get_volume() == pytest.approx(frames[1].get_volume(), rel=0.02)


@pytest.mark.slow
def test_a_second_run_takes_what_was_kept(evaluation) -> None:
    before = table(evaluation)
    cells = evaluation / "out" / "cells"
    written = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    run(evaluation)
    assert table(evaluation) == before
    assert written == {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}


def filled(
    tmp_path: Path, energies: list[float], hull: Hull | None = None, converged: bool = True
) -> list[dict]:
    """Rows of salts with given energies, as if relaxed."""
    systems = [AtomicSystem.from_structure(HALITE) for _ in energies]
    entries = [Entry(str(i), "crystal", 2, "NaCl", system) for i, system in enumerate(systems)]
    rows = [
        {
            "index": i,
            "domain": "crystal",
            "num_atoms": 2,
            "chgnet_energy_initial": energy + 0.05,
            "chgnet_energy": energy,
            "chgnet_converged": converged,
            "chgnet_relaxed": [systems[i].cell.tolist(), systems[i].positions.tolist()],
        }
        for i, energy in enumerate(energies)
    ]
    options = Options(CellStore(tmp_path / "cells"), measures=(energy_measure("chgnet"),))
    if hull is None:
        hull = make_hull("chgnet", ["known"], systems, options)
    fill_energies(rows, entries, None, options, {"chgnet": hull})
    return rows


def salts() -> Hull:
    """A hull with one compound, NaCl, as CHGNet has it."""
    return Hull({"NaCl": -2.11}, ["Na", "Cl"], scale=MP2020, source="salts")


def test_without_known_phases_there_is_no_energy_above_hull(tmp_path: Path) -> None:
    first, second = filled(tmp_path, [-3.7, -1.0], Hull.of_elements(MP2020))
    assert first["chgnet_above_hull"] == first["chgnet_above_hull_initial"]
    assert (
        first["chgnet_above_hull"] == "failed: no known compound of Cl-Na competes, only elements"
    )
    assert first["chgnet_formation_energy"] < -2
    assert (first["chgnet_stability"], second["chgnet_stability"]) == ("unknown", "unstable")
    for row in (first, second):
        assert row["chgnet_stable"] is row["chgnet_metastable"] is False
        assert row["chgnet_known_phases"] == 0


def test_by_default_the_known_phases_are_the_hull(tmp_path: Path) -> None:
    (row,) = filled(tmp_path, [-3.7])
    assert row["chgnet_above_hull"] == pytest.approx(0, abs=0.1)
    assert row["chgnet_above_hull_initial"] == pytest.approx(row["chgnet_above_hull"] + 0.05)
    assert row["chgnet_competing"] == "NaCl" and row["chgnet_competitors_known"] is True
    assert row["chgnet_metastable"] is True and row["chgnet_known_phases"] >= 1
    assert row.get("chgnet_novel") is None  # there is no reference


def test_of_equal_crystals_the_lowest_is_the_unique_one(tmp_path: Path) -> None:
    rows = filled(tmp_path, [-3.69, -3.71, -3.70], salts())
    assert [row["chgnet_unique"] for row in rows] == [False, True, False]


def test_what_did_not_converge_is_not_stable(tmp_path: Path) -> None:
    (row,) = filled(tmp_path, [-3.7], salts(), converged=False)
    assert row["chgnet_above_hull"] < 0.1 and row["chgnet_stability"] != "unstable"
    assert row["chgnet_stable"] is False and row["chgnet_metastable"] is False


def test_an_energy_that_no_compound_has_is_a_failure_and_not_a_discovery(tmp_path: Path) -> None:
    rows = filled(tmp_path, [-3.7, -23.0], salts())
    assert rows[0]["chgnet_metastable"] is True
    for column in ("formation_energy", "above_hull", "stable", "stability", "novel"):
        text = rows[1][f"chgnet_{column}"]
        assert text.startswith("failed: a formation energy of -2") and "force field" in text
    rates = summarise_energies(rows, {"chgnet": salts()}, False)["chgnet"]["rates"]
    assert rates["metastable"] == {"passed": 1, "of": 2, "share": 0.5}


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, {"unknown": 2, "elements_only": 2}),
        ({"NaCl": -2.1}, {"stable": 1, "metastable": 1, "competitors_known": 2}),
        ({"NaCl": -2.0}, {"stable": 1, "unknown": 1, "far_below": 1, "competitors_known": 2}),
    ],
)
def test_the_summary_says_for_how_many_a_partial_hull_knows_nothing(
    tmp_path: Path, known: dict[str, float], expected: dict[str, int]
) -> None:
    energies = element_references("chgnet").energies
    base = (energies["Na"] + energies["Cl"]) / 2
    hull = Hull(known, ["Na", "Cl"], scale=MP2020, source="")
    rows = filled(tmp_path, [base - 2.15, base - 2.05], hull)
    found = summarise_energies(rows, {"chgnet": hull}, False)["chgnet"]["trust"]
    assert {name: count for name, count in found.items() if count} == {"of": 2, **expected}
    assert all(
        row["chgnet_stable"] is False for row in rows if row["chgnet_stability"] == "unknown"
    )


@pytest.mark.slow
def test_a_force_field_makes_its_own_hull_if_scales_differ(tmp_path: Path) -> None:
    pytest.importorskip("sevenn", reason="sevenn is not installed")
    options = Options(CellStore(tmp_path / "cells"))
    system = AtomicSystem.from_structure(HALITE)
    path = tmp_path / "known.csv"
    path.write_text(TABLE + f'mp-1,Na1 Cl1,-2.1096,0.0,"{HALITE.to(fmt="cif")}"\n')
    hull = make_hull("sevennet", [path], [system], options)
    assert "of 1 structures" in hull.source and not hull.complete
    assert hull.scale != make_hull("chgnet", [path], [system], options).scale
    found = hull.above("NaCl", 0.0).energy_above_hull
    assert found is not None and 1.5 < found < 2.1  # PBE without the correction of chlorides
    for sources, message in (
        (["mp", path], "not of both"),
        ([3], "a hull is made of paths"),
        ([tmp_path / "none.csv"], "there is no file"),
    ):
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
            make_hull("chgnet", sources, [system], options)
    with pytest.raises(ValueError, match="energies of the Materials Project are MP2020"):
        make_hull("sevennet", ["mp"], [system], options)


@pytest.mark.slow
def test_two_force_fields_have_a_hull_each(tmp_path: Path) -> None:
    pytest.importorskip("sevenn", reason="sevenn is not installed")
    squeezed = HALITE.copy()
    squeezed.scale_lattice(0.85 * HALITE.volume)
    squeezed.to(str(tmp_path / "a.cif"))
    arguments = ["--energies", "chgnet", "sevennet", "--hull", "known", "--quiet", "--no-plot"]
    out = tmp_path / "out"
    assert main(["evaluate", str(tmp_path / "a.cif"), "--out", str(out), *arguments]) == 0
    energies = json.loads((out / "summary.json").read_text())["crystals"]["energies"]
    assert energies["sevennet"]["hull"]["source"].startswith("SevenNet-0 (11 July 2024) of ")
    assert energies["chgnet"]["scale"] != energies["sevennet"]["scale"]
    medians = {name: part["numbers"] for name, part in energies.items()}
    for numbers in medians.values():
        assert numbers["above_hull"]["median"] == pytest.approx(0, abs=0.05)
        assert numbers["above_hull_initial"]["median"] > 0.05
    # the chloride correction of MP2020, 0.614 eV an anion
    first, second = (medians[n]["formation_energy"]["median"] for n in ("chgnet", "sevennet"))
    assert second - first == pytest.approx(0.614 / 2, abs=0.1)
    report = (out / "report.md").read_text()
    assert "energies by CHGNet" in report and "energies by SevenNet-0" in report


def test_arguments_are_checked_before_any_work(tmp_path: Path, capsys) -> None:
    sample = tmp_path / "a.cif"
    HALITE.to(str(sample))
    out = str(tmp_path / "out")
    assert main(["evaluate", str(sample), "--out", out, "--energies", "x"]) != 0
    assert "force fields are chgnet, sevennet, 7net-l3i5, got 'x'" in capsys.readouterr().err
    assert main(["evaluate", str(sample), "--out", out, "--hull", "some.csv"]) != 0
    assert "--hull is of use with --energies only" in capsys.readouterr().err
    assert not Path(out).exists()
