import csv
import dataclasses
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time

import ase.build
import ase.io
import numpy as np
import pytest
from ase.db import connect
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.spatial.transform import Rotation

from adit_model.cli.main import main
from adit_model.data import load_source
from adit_model.data.dataset import AtomicDataset
from adit_model.data.phases import known_phases
from adit_model.systems import AtomicSystem

HAS_QM9 = importlib.util.find_spec("qm9pack") is not None
SMILES = ("CCO", "c1ccccc1", "CC(=O)N", "C1CC1C#N", "OCC=O", "CC(C)N", "c1ccoc1", "CCO")


def molecules():
    found = []
    for smiles in SMILES:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
        AllChem.MMFFOptimizeMolecule(mol)
        found.append(AtomicSystem.from_rdkit(mol, id=f"{len(found)}_{smiles}"))
    return found


def salts(number=6):
    pairs = [("Na", "Cl"), ("Li", "F"), ("K", "Br"), ("Mg", "O"), ("Na", "Cl"), ("Ca", "S")]
    lengths = [5.64, 4.03, 6.60, 4.21, 5.64, 5.69]
    systems = [
        AtomicSystem.from_atoms(ase.build.bulk(a + b, "rocksalt", a=length), id=f"{k}_{a}{b}")
        for k, ((a, b), length) in enumerate(zip(pairs, lengths, strict=True))
    ]
    return systems[:number]


def moved(system, seed):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    order = rng.permutation(len(system))
    shift = rng.normal(size=3)
    cell = None if system.cell is None else system.cell @ turn
    return AtomicSystem(
        system.numbers[order], (system.positions @ turn + shift)[order], cell, system.info
    )


def shaken(system, seed, scale=0.3):
    noise = np.random.default_rng(seed).normal(scale=scale, size=system.positions.shape)
    return AtomicSystem(system.numbers, system.positions + noise, system.cell, system.info)


def swapped(system, seed):
    """Give each element of a system another one, at random."""
    rng = np.random.default_rng(seed)
    elements = np.unique(system.numbers)
    others = rng.choice(np.arange(1, 84), len(elements), replace=False)
    return AtomicSystem(
        others[np.searchsorted(elements, system.numbers)], system.positions, system.cell
    )


def saved(path, systems):
    AtomicDataset.from_systems(systems).save(path)
    return str(path)


def evaluate(samples, out, *arguments):
    assert main(["evaluate", str(samples), "--out", str(out), "--quiet", *arguments]) == 0
    with open(out / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((out / "summary.json").read_text())


def shares(part):
    return {name: rate and rate["share"] for name, rate in part["rates"].items()}


def test_salts_and_molecules_give_rows_a_summary_a_report_and_pictures(clean_dir, capsys):
    everything = saved(clean_dir / "all.npz", salts() + molecules())
    known = saved(clean_dir / "known.npz", salts(1) + molecules()[1:3])
    rows, summary = evaluate(everything, clean_dir / "out", "--reference", known, "--workers", "2")
    assert [row["formula"] for row in rows[:6]] == ["NaCl", "LiF", "KBr", "MgO", "NaCl", "CaS"]
    assert all(row["valid"] == "True" and row["reason"] == "" for row in rows)
    assert [row["unique"] for row in rows] == ["True"] * 4 + ["False"] + ["True"] * 8 + ["False"]
    assert [row["novel"] == "True" for row in rows] == (
        [False, True, True, True, False, True] + [True, False, False] + [True] * 5
    )
    assert {row["space_group"] for row in rows[:6]} == {"225"}
    assert float(rows[0]["density"]) == pytest.approx(2.17, abs=0.01)
    assert float(rows[0]["min_distance"]) == pytest.approx(2.82)
    assert [row["smiles"] for row in rows[6:]] == [Chem.CanonSmiles(s) for s in SMILES]

    crystals, found = summary["crystals"], summary["molecules"]
    assert crystals["rates"]["vun"] == {"passed": 4, "of": 6, "share": pytest.approx(4 / 6)}
    assert crystals["by_num_atoms"]["1-4"]["rates"]["strict"]["of"] == 6
    assert crystals["distances"]["reference"] == 1
    assert crystals["distances"]["total_variation"]["crystal_system"] == 0
    assert found["rates"]["valid"]["share"] == 1
    # the bonds in MMFF's benzene are 1.395 angstrom, double bonds of EDM end at 1.39
    assert found["rates"]["stable"] == {"passed": 7, "of": 8, "share": 7 / 8}
    assert found["stable_atoms"]["of"] - found["stable_atoms"]["passed"] == 6
    report = (clean_dir / "out" / "report.md").read_text()
    assert "| valid, unique and novel | 66.7 % (4/6) | 30-90 | all three |" in report
    assert "- Distributions are compared to: `known.npz`" in report
    assert "| ADiT, joint, DiT-B | 99.7 | 92.1 | 91.9 |" in report
    assert "| **this set** | 100.0 | 100.0 | 100.0 |" in report
    assert str(clean_dir) not in report
    _, *parts = re.split(r"^## ", report, flags=re.MULTILINE)
    sections = {part.split("\n")[0].lower(): part for part in parts}
    for domain in ("crystals", "molecules"):
        for kind in ("distributions", "structures"):
            assert f"]({domain}_{kind}.png)" in sections[domain]
            assert (clean_dir / "out" / f"{domain}_{kind}.png").stat().st_size > 5000
    assert "6 crystals, 6 decoded" in capsys.readouterr().out


def test_without_a_reference_nothing_is_said_about_novelty(clean_dir):
    samples = saved(clean_dir / "s.npz", salts(2))
    rows, summary = evaluate(samples, clean_dir / "out", "--no-plot", "--reference", "none")
    assert summary["crystals"]["rates"]["novel"] is summary["crystals"]["rates"]["vun"] is None
    assert "distances" not in summary["crystals"] and "molecules" not in summary
    assert [row["novel"] for row in rows] == ["", ""]
    assert "smiles" not in rows[0]
    assert not list((clean_dir / "out").glob("*.png"))


def test_by_default_novel_is_what_the_package_does_not_know(clean_dir):
    known = known_phases()
    salt = known.system(known.select(formula="NaCl", space_group=225)[0])
    swapped = AtomicSystem(np.where(salt.numbers == 17, 37, 55), salt.positions, salt.cell)  # CsRb
    water = AtomicSystem([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    rows, summary = evaluate(
        saved(clean_dir / "s.npz", [salt, swapped, water]),
        *(clean_dir / "out", "--no-plot", "--skip", "posebusters"),
    )
    assert [row["novel"] for row in rows] == ["False", "True", "False"]
    assert summary["reference"] == ["known"]
    assert "distances" not in summary["crystals"]  # for that, name what to compare to


def test_files_of_all_kinds_give_the_same_rows(clean_dir):
    systems = salts(4)
    (clean_dir / "cif").mkdir()
    database = connect(clean_dir / "s.db")
    for k, system in enumerate(systems):
        (clean_dir / "cif" / f"{k}.cif").write_text(system.to_structure().to(fmt="cif"))
        database.write(system.to_atoms())
    ase.io.write(clean_dir / "s.extxyz", [system.to_atoms() for system in systems])
    tables = []
    for name in ("cif", "s.extxyz", "s.db"):
        rows, _ = evaluate(clean_dir / name, clean_dir / f"out_{name}", "--no-plot")
        numbers = ("min_distance", "density", "min_distance_ratio", "volume_per_atom")
        tables.append([{**row, "id": "", **dict.fromkeys(numbers)} for row in rows])
        densities = [float(row["density"]) for row in rows]
        assert densities == pytest.approx([2.17, 2.63, 2.75, 3.59], abs=0.02)
    assert tables[0] == tables[1] == tables[2]


def test_a_file_that_cannot_be_read_is_a_row_and_counts(clean_dir):
    folder = clean_dir / "cif"
    folder.mkdir()
    (folder / "a.cif").write_text(salts(1)[0].to_structure().to(fmt="cif"))
    (folder / "b.cif").write_text("data_b\n_cell_length_a 3\n")
    rows, summary = evaluate(folder, clean_dir / "out", "--no-plot")
    assert [row["decoded"] for row in rows] == ["True", "False"]
    assert rows[1]["id"] == "b" and rows[1]["reason"] and rows[1]["density"] == ""
    assert summary["crystals"]["rates"]["valid"] == {"passed": 1, "of": 2, "share": 0.5}


def test_what_adit_generate_could_not_decode_counts_as_invalid(clean_dir, tiny_checkpoint):
    generated = clean_dir / "generated"
    assert main(["generate", "-n", "12", "--checkpoint", str(tiny_checkpoint), "--out",
                 str(generated), "--quiet", "--no-check"]) == 0  # fmt: skip
    with open(generated / "summary.csv", newline="") as file:
        table = list(csv.DictReader(file))
    rows, summary = evaluate(generated, clean_dir / "out", "--no-plot")
    for key in ("domain", "formula", "num_atoms", "decoded"):
        assert [row[key] for row in rows] == [row[key] for row in table]
    parts = [part for part in map(summary.get, ("crystals", "molecules")) if part]
    assert sum(part["count"] for part in parts) == 12
    assert sum(part["decoded"] for part in parts) == sum(r["decoded"] == "True" for r in table)
    (generated / "samples.extxyz").unlink(missing_ok=True)
    if any(row["decoded"] == "True" for row in table):
        assert main(["evaluate", str(generated), "--out", "again"]) == 2


def test_a_molecule_copied_turned_and_shuffled_gives_the_same_numbers(clean_dir):
    systems = salts() + molecules() + [shaken(s, k) for k, s in enumerate(molecules()[:4])]
    copies = [moved(system, k) for k, system in enumerate(systems)]
    options = ("--no-plot", "--skip", "posebusters")
    rows, summary = evaluate(saved(clean_dir / "a.npz", systems), clean_dir / "a", *options)
    others, other = evaluate(saved(clean_dir / "b.npz", copies), clean_dir / "b", *options)
    for domain in ("crystals", "molecules"):
        assert shares(summary[domain]) == shares(other[domain])
        assert summary[domain]["means"] == pytest.approx(other[domain]["means"], abs=1e-4)
    for row, copy in zip(rows, others, strict=True):
        for name in ("valid", "unique", "space_group", "stable", "strict"):
            assert row.get(name) == copy.get(name)
        if row["valid"] == "True":  # what RDKit finds in a broken molecule hangs on the order
            assert row["smiles"] == copy["smiles"]


def test_a_package_that_is_missing_is_the_reason_in_its_cells(clean_dir, monkeypatch):
    from adit_model.quality import measures

    absent = tuple(
        dataclasses.replace(m, module="absent_module") if m.name == "posebusters" else m
        for m in measures.MEASURES
    )
    monkeypatch.setattr(measures, "MEASURES", absent)
    rows, summary = evaluate(
        saved(clean_dir / "m.npz", molecules()[:2]), clean_dir / "o", "--no-plot"
    )
    assert rows[0]["pb_bond_lengths"].startswith("not available: posebusters is not installed")
    assert summary["molecules"]["rates"]["pb_bond_lengths"] is None
    assert summary["molecules"]["failed"]["pb_all"]["count"] == 2
    report = (clean_dir / "o" / "report.md").read_text()
    assert "PoseBusters: bond lengths" not in report
    assert "no sample has them: " in report and "PoseBusters." in report


def test_strain_is_taken_when_asked_for(clean_dir):
    pytest.importorskip("tblite", reason="strain needs tblite")
    radical = AtomicSystem(np.array([8, 1]), 0.97 * np.eye(2, 3))
    # GFN2-xTB has no parameters beyond radon
    heavy = AtomicSystem(np.array([92, 9]), 2.0 * np.eye(2, 3))
    systems = [*molecules()[:2], shaken(molecules()[0], 1, 0.1), radical, heavy]
    source = saved(clean_dir / "m.npz", systems)
    options = ("--no-plot", "--skip", "posebusters", "open-babel", "fragment")
    rows, summary = evaluate(source, clean_dir / "o", "--also", "xtb", *options)
    energies = [float(row["xtb_energy_drop"]) for row in rows[:4]]
    assert 0 < energies[0] < 0.03 and 0 < energies[1] < 0.03 and energies[2] > 5 * energies[0]
    assert [row["xtb_multiplicity"] for row in rows[:4]] == ["1", "1", "1", "2"]
    assert rows[4]["xtb_rmsd"].startswith("failed: ")
    strain = summary["molecules"]["strain"]
    assert (strain["all"]["relaxed"], strain["all"]["of"]) == (4, 5)
    assert strain["all"]["xtb_rmsd"]["median"] == pytest.approx(
        np.median([float(row["xtb_rmsd"]) for row in rows[:4]]), rel=1e-4
    )
    assert "| relaxed | 4/5 |" in (clean_dir / "o" / "report.md").read_text()
    rows, summary = evaluate(source, clean_dir / "o", *options)
    assert "xtb_rmsd" not in rows[0] and "strain" not in summary["molecules"]


def test_coverage_is_taken_when_asked_for(clean_dir):
    pytest.importorskip("matminer", reason="coverage needs matminer")
    cesium = AtomicSystem.from_atoms(ase.build.bulk("CsCl", "cesiumchloride", a=4.12))
    known = saved(clean_dir / "known.npz", [*salts(), cesium])
    source = saved(clean_dir / "s.npz", salts(4))
    options = ("--reference", known, "--no-plot", "--skip", "strict", "composition")
    rows, summary = evaluate(source, clean_dir / "o", "--also", "coverage", *options)
    assert {row["fingerprint"] for row in rows} == {"True"}
    found = summary["crystals"]["distances"]["coverage"]
    # CaS is 13.3 away by composition, CsCl 11.8, and 2.1 by its sites
    assert found == {"precision": 1, "recall": pytest.approx(5 / 7)}
    assert "| coverage, precision | 100.0 % |  |" in (clean_dir / "o" / "report.md").read_text()
    _, summary = evaluate(source, clean_dir / "o", *options)
    assert "coverage" not in summary["crystals"]["distances"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere"], "unknown data source 'nowhere'"),
        (
            ["s.npz", "--skip", "everything"],
            "cannot skip 'everything': the measures are plausible, geometry, ",
        ),
        (["s.npz", "--also", "everything"], "cannot add 'everything': what can be added is"),
        (["s.npz", "--workers", "0"], "--workers must be positive, got 0"),
        (["s.npz", "--limit", "-1"], "--limit must be positive, got -1"),
        (["s.npz", "--reference", "nowhere"], "unknown data source 'nowhere'"),
    ],
)
def test_mistakes_are_told_in_a_line_and_leave_no_folder(clean_dir, capsys, arguments, text):
    saved(clean_dir / "s.npz", salts(1))
    assert main(["evaluate", *arguments, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
    assert not (clean_dir / "out").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_from_the_finished_chunks(clean_dir):
    rng = np.random.default_rng(0)
    base = salts()
    systems = [
        AtomicSystem(s.numbers, s.positions * f, s.cell * f)
        for s, f in ((base[i % 6], rng.uniform(0.9, 1.1)) for i in range(260))
    ]
    saved(clean_dir / "many.npz", systems)
    command = [sys.executable, "-m", "adit_model.cli", "evaluate", "many.npz", "--out", "out",
               "--no-plot", "--quiet"]  # fmt: skip
    process = subprocess.Popen(command)
    kept = clean_dir / "out" / "cells"
    deadline = time.monotonic() + 300
    while len(list(kept.glob("*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    assert len(done) >= 5 and not (clean_dir / "out" / "rows.csv").exists()
    rows, summary = evaluate("many.npz", clean_dir / "out", "--no-plot")
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())
    assert len(list(kept.glob("*.json"))) > len(done)
    assert len(rows) == 260
    assert shares(summary["crystals"])["valid"] == 1


@pytest.mark.data
@pytest.mark.slow
def test_real_crystals_score_as_known_and_damaged_ones_lower(clean_dir, data_dir):
    dataset = load_source(str(data_dir / "crystals_test.csv.gz"), progress=False)
    order = np.random.default_rng(0).permutation(len(dataset))
    real = [dataset[int(i)] for i in order[:100]]
    known = saved(clean_dir / "known.npz", [dataset[int(i)] for i in order[75:400]])
    options = ("--reference", known, "--no-plot", "--workers", "2", "--compare-number", "300")
    found = {
        name: evaluate(saved(clean_dir / f"{name}.npz", systems), clean_dir / name, *options)[1]
        for name, systems in {
            "real": real,
            "shaken": [shaken(system, k) for k, system in enumerate(real)],
            "swapped": [swapped(system, k) for k, system in enumerate(real)],
            "crushed": [AtomicSystem(s.numbers, s.positions / 6, s.cell / 6) for s in real],
            "copied": real[:20] * 4,
        }.items()
    }
    rates = {name: shares(summary["crystals"]) for name, summary in found.items()}
    distances = {name: summary["crystals"]["distances"] for name, summary in found.items()}
    assert rates["real"]["structural"] == 1
    assert rates["real"]["compositional"] == pytest.approx(0.90, abs=0.06)
    assert rates["real"]["novel"] == pytest.approx(0.75, abs=0.05)  # 25 of 100 are known
    assert rates["real"]["strict"] > 0.8
    assert rates["crushed"]["structural"] < 0.2 and rates["crushed"]["dense"] < 0.1
    assert rates["swapped"]["compositional"] < rates["real"]["compositional"] - 0.15
    assert rates["swapped"]["strict"] < rates["real"]["strict"] - 0.2
    assert rates["shaken"]["separated"] < rates["real"]["separated"] - 0.2
    assert rates["copied"]["unique"] < 0.3
    symmetry = {
        name: found["total_variation"]["crystal_system"] for name, found in distances.items()
    }
    assert symmetry["shaken"] > 0.7 > 0.15 > symmetry["real"]
    density = {name: found["wasserstein"]["density"] for name, found in distances.items()}
    assert density["swapped"] > 2 * density["real"] and density["crushed"] > 10 * density["real"]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not HAS_QM9, reason="needs qm9pack")
def test_real_molecules_score_as_known_and_shaken_ones_lower(clean_dir):
    dataset = load_source("qm9:test", progress=False)
    order = np.random.default_rng(1).permutation(len(dataset))
    real = [dataset[int(i)] for i in order[:300]]
    known = saved(clean_dir / "known.npz", [dataset[int(i)] for i in order[300:600]])
    options = ("--reference", known, "--no-plot", "--workers", "2", "--skip", "posebusters")
    noisy = [shaken(system, k) for k, system in enumerate(real)]
    rows, summary = evaluate(saved(clean_dir / "real.npz", real), clean_dir / "r", *options)
    _, other = evaluate(saved(clean_dir / "noisy.npz", noisy), clean_dir / "n", *options)
    rates, damaged = shares(summary["molecules"]), shares(other["molecules"])
    assert rates["valid"] == pytest.approx(0.95, abs=0.03)
    assert rates["stable"] == pytest.approx(0.952, abs=0.03)
    assert rates["fragment_valid"] > 0.9 and rates["closed_shell"] > 0.9
    assert rates["unique"] > 0.98 and rates["novel"] > 0.98
    # the exceptions are those RDKit finds no bonds for: strained rings, mostly
    assert all("no bonding found" in row["reason"] for row in rows if row["valid"] == "False")
    for name in ("valid", "stable", "fragment_valid"):
        assert damaged[name] < rates[name] - 0.4, name
    if rates["open_babel_valid"] is not None:
        # the route of the literature hardly notices the noise, unless all atoms have to be in it
        assert rates["open_babel_valid"] > 0.97 and damaged["open_babel_valid"] > 0.9
        assert rates["open_babel_whole"] > 0.93 and damaged["open_babel_whole"] < 0.1
    first, second = (s["molecules"]["distances"] for s in (summary, other))
    assert second["bond_lengths"]["mean"] > 5 * first["bond_lengths"]["mean"]
    assert second["angles"]["mean"] > 3 * first["angles"]["mean"]
    for name in ("num_bonds", "num_rings"):
        assert second["wasserstein"][name] > 2 * first["wasserstein"][name]


def test_pictures_that_cannot_be_drawn_are_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as with a broken MPLBACKEND
    ase.io.write(tmp_path / "x.xyz", ase.build.molecule("H2O"))
    command = ["evaluate", str(tmp_path / "x.xyz"), "--reference", "none"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
