"""`adit generate`: files, table, and what is left after a failure."""

from __future__ import annotations

import csv
import json
import os
import shutil
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from pymatgen.core import Molecule, Structure

from adit_model import ADiT
from adit_model.cli.generate import PICTURE, write_results
from adit_model.cli.main import main
from adit_model.files import UNFINISHED, finish_results, only_run
from adit_model.quality.records import RECORDS, SETTINGS, STRUCTURES, record_samples
from adit_model.sampling.request import Request

N = 24


def generate(checkpoint: Path, out: Path, *more: str) -> int:
    return main(["generate", "--checkpoint", str(checkpoint), "--out", str(out), "--quiet", *more])


def read_table(folder: Path) -> list[dict[str, str]]:
    with open(folder / RECORDS, newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def samples(tiny_checkpoint):
    return ADiT.load(tiny_checkpoint).sample(N, seed=3, progress=False)


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("generate") / "out"
    assert generate(tiny_checkpoint, out, "-n", str(N), "--seed", "3", "--plot") == 0
    return out


def test_table_has_a_row_for_every_sample(folder, samples):
    rows = read_table(folder)
    assert [int(row["index"]) for row in rows] == list(range(N))
    assert [row["domain"] for row in rows] == [s.domain for s in samples]
    assert [int(row["num_atoms"]) for row in rows] == [s.num_atoms for s in samples]
    assert [row["decoded"] == "True" for row in rows] == [s.system is not None for s in samples]
    for row, sample in zip(rows, samples, strict=True):
        assert bool(row["file"]) == (sample.system is not None)
        assert row["plausible"] in ("True", "False")
        if row["plausible"] == "False":
            assert row["reason"]
    files = {
        str(p.relative_to(folder))
        for name in ("crystals", "molecules")
        for p in (folder / name).iterdir()
    }
    assert files == {row["file"] for row in rows} - {""}
    assert sum(name.endswith(".cif") for name in files) >= 2


def test_crystals_read_back(folder, samples):
    for row in read_table(folder):
        system = samples[int(row["index"])].system
        if row["domain"] != "crystal" or system is None:
            continue
        assert row["file"].endswith(".cif")
        expected = system.to_structure()
        structure = Structure.from_file(folder / row["file"])
        assert np.allclose(structure.lattice.parameters, expected.lattice.parameters, atol=1e-5)
        assert sorted(structure.atomic_numbers) == sorted(expected.atomic_numbers)
        shift = structure.frac_coords[:, None] - expected.frac_coords  # pymatgen sorts the sites
        close = np.abs(shift - shift.round()).max(axis=-1) < 2e-4  # and snaps them to thirds
        same = np.equal.outer(structure.atomic_numbers, expected.atomic_numbers)
        assert (close & same).any(axis=0).all() and (close & same).any(axis=1).all()
        atoms = ase.io.read(folder / row["file"])
        assert list(atoms.numbers) == list(system.numbers)
        assert np.allclose(atoms.cell.cellpar(), expected.lattice.parameters, atol=1e-5)
        shift = atoms.get_scaled_positions() - expected.frac_coords
        assert np.abs(shift - shift.round()).max() < 2e-4


def test_molecules_read_back(folder, samples):
    for row in read_table(folder):
        system = samples[int(row["index"])].system
        if row["domain"] != "molecule" or system is None:
            continue
        assert row["file"].endswith(".xyz")
        molecule = Molecule.from_file(folder / row["file"])
        atoms = ase.io.read(folder / row["file"])
        assert list(atoms.numbers) == list(molecule.atomic_numbers) == list(system.numbers)
        assert np.allclose(molecule.cart_coords, system.positions, atol=1e-5)
        assert np.allclose(atoms.positions, system.positions, atol=1e-5)


def test_one_file_holds_all(folder, samples):
    together = ase.io.read(folder / STRUCTURES, index=":")
    expected = [s.system for s in samples if s.system is not None]
    valid = [row["plausible"] == "True" for row in read_table(folder) if row["decoded"] == "True"]
    assert len(together) == len(expected)
    for atoms, system, passed in zip(together, expected, valid, strict=True):
        assert list(atoms.numbers) == list(system.numbers)
        assert np.allclose(atoms.positions, system.positions, atol=1e-6)
        assert list(atoms.pbc) == [system.is_periodic] * 3
        if system.cell is not None:
            assert np.allclose(atoms.cell.array, system.cell, atol=1e-6)
        assert atoms.info["index"] == system.info["index"]
        assert atoms.info["seed"] == 3
        assert bool(atoms.info["plausible"]) is passed


def test_settings_and_picture(folder, tiny_checkpoint):
    run = json.loads((folder / SETTINGS).read_text())
    sampling = {
        "num_steps": 3,
        "solver": "euler",
        "guidance_scale": 1.0,
        "noise_scale": 1.0,
        "symmetry": "asked",
        "step_focus": 0.0,
        "even_electrons": False,
    }
    assert Request.from_dict(run["request"]) == Request(N, seed=3, sampling=sampling)
    assert run["checkpoint_hash"] == ADiT.load(tiny_checkpoint).checkpoint_hash
    from matplotlib.image import imread

    picture = imread(folder / PICTURE)
    assert min(picture.shape[:2]) > 100
    assert picture[..., :3].std() > 0.02  # something is drawn


def test_a_longer_run_begins_with_the_shorter(folder, tiny_checkpoint, tmp_path):
    """Sample i depends on seed and i: the files of the first samples are the same."""
    assert generate(tiny_checkpoint, tmp_path / "a", "-n", "8", "--seed", "3", "--no-check") == 0
    short = contents(tmp_path / "a")
    long = contents(folder)
    names = [name for name in short if name.startswith(("crystals", "molecules"))]
    assert names
    for name in names:
        assert short[name] == long[name]


def test_summary_on_the_screen(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert generate(tiny_checkpoint, out, "-n", "6", "--domain", "crystal", "--num-atoms", "2") == 0
    first, *_ = capsys.readouterr().out.splitlines()
    rows = read_table(out)
    assert {row["num_atoms"] for row in rows} == {"2"}
    decoded = sum(row["decoded"] == "True" for row in rows)
    assert first.startswith("6 samples in ")
    generate(
        tiny_checkpoint,
        out,
        "-n",
        "6",
        "--domain",
        "crystal",
        "--num-atoms",
        "2",
        "--overwrite",
        "--no-check",
    )
    text = capsys.readouterr().out
    assert f"crystals: 6 requested, {decoded} decoded, not checked" in text
    assert f"{decoded} structures written to {out}" in text
    assert {row["plausible"] for row in read_table(out)} <= {"", "False"}


@pytest.mark.parametrize(
    ("atoms", "counts"), [("2-4", {2, 3, 4}), ("5,3,5", [5, 3, 5]), ("3", {3})]
)
def test_atom_counts(tiny_checkpoint, tmp_path, atoms, counts):
    assert (
        generate(
            tiny_checkpoint,
            tmp_path / "o",
            "-n",
            "3",
            "--domain",
            "molecule",
            "--num-atoms",
            atoms.replace("2-", "3-"),
            "--no-check",
        )
        == 0
    )
    found = [int(row["num_atoms"]) for row in read_table(tmp_path / "o")]
    assert found == counts if isinstance(counts, list) else set(found) <= counts


def test_what_is_asked_for_is_said(tiny_checkpoint, tmp_path, capsys):
    options = ["-n", "8", "--elements", "Li-O", "--no-check"]
    assert generate(tiny_checkpoint, tmp_path / "a", *options, "--num-atoms", "2-4") == 0
    rows = read_table(tmp_path / "a")
    assert {row["condition"] for row in rows} == {"Li-O, atoms=2-4"}
    held = [json.loads(row["holds"]) for row in rows]
    assert all(
        h["num_atoms"] == (row["decoded"] == "True") for h, row in zip(held, rows, strict=True)
    )
    number = sum(h["elements"] for h in held)
    said = capsys.readouterr().out
    assert f"elements as asked: {number} of 8 ({100 * number / 8:.1f} %)" in said
    text = ["-n", "8", "--condition", "Li-O, atoms=2-4", "--no-check"]
    assert generate(tiny_checkpoint, tmp_path / "b", *text) == 0
    assert read_table(tmp_path / "b") == rows


def test_random_rotation_turns_and_keeps_the_shape(tiny_checkpoint, tmp_path):
    options = ["-n", "4", "--domain", "molecule", "--no-check"]
    generate(tiny_checkpoint, tmp_path / "a", *options)
    generate(tiny_checkpoint, tmp_path / "b", *options, "--random-rotation")
    for name in (p.name for p in (tmp_path / "a" / "molecules").iterdir()):
        a, b = (ase.io.read(tmp_path / f / "molecules" / name) for f in "ab")
        assert np.allclose(a.get_all_distances(), b.get_all_distances(), atol=1e-5)
        assert not np.allclose(a.positions, b.positions, atol=1e-2)


def test_a_used_folder_is_refused_and_kept(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    generate(tiny_checkpoint, out, "-n", "8", "--no-check")
    before = contents(out)
    capsys.readouterr()
    assert generate(tiny_checkpoint, out, "-n", "4", "--seed", "1", "--no-check") == 2
    error = capsys.readouterr().err
    assert "not empty" in error and "--overwrite" in error
    assert contents(out) == before


def test_overwrite_replaces_results_and_nothing_else(tiny_checkpoint, tmp_path):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    generate(tiny_checkpoint, out, "-n", "16", "--no-check", "--plot")
    (out / "notes.txt").write_text("mine")
    (out / "crystals" / "mine.txt").write_text("mine too")
    assert (
        generate(tiny_checkpoint, out, "-n", "4", "--seed", "1", "--no-check", "--overwrite") == 0
    )
    generate(tiny_checkpoint, fresh, "-n", "4", "--seed", "1", "--no-check")
    after, expected = contents(out), contents(fresh)
    assert after.pop("notes.txt") == b"mine"
    assert after.pop("crystals/mine.txt") == b"mine too"
    assert set(after) == set(expected)
    assert all(after[name] == expected[name] for name in expected if name != SETTINGS)


def test_results_of_an_earlier_run_survive_a_failed_one(tiny_checkpoint, tmp_path, capsys):
    out, damaged = tmp_path / "out", tmp_path / "damaged.safetensors"
    generate(tiny_checkpoint, out, "-n", "4", "--no-check")
    before = contents(out)
    data = bytearray(tiny_checkpoint.read_bytes())
    data[-5] ^= 0xFF
    damaged.write_bytes(data)
    assert generate(damaged, out, "-n", "4", "--overwrite") == 2
    assert "damaged" in capsys.readouterr().err
    assert contents(out) == before


def test_what_cannot_be_written_there_is_written_elsewhere(
    tiny_checkpoint, samples, tmp_path, monkeypatch
):
    """The folder goes away while the model is at work."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    records = record_samples(samples, check=False)
    with pytest.raises(OSError, match="the results are in ") as caught:
        write_results(tmp_path / "gone", samples, records, {"n": N})
    rescue = Path(str(caught.value).rpartition(" in ")[2])
    assert rescue.parent == tmp_path
    good = tmp_path / "good"
    good.mkdir()
    write_results(good, samples, records, {"n": N})
    assert contents(rescue) == contents(good)


def test_samples_survive_an_interrupted_check(tiny_checkpoint, tmp_path, monkeypatch):
    """Ctrl-C during the checks: exit status 130, and structures that are not checked."""
    from adit_model.quality import records

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(records, "check_systems", interrupt)
    out = tmp_path / "out"
    assert generate(tiny_checkpoint, out, "-n", "8", "--domain", "molecule") == 130
    assert len(ase.io.read(out / STRUCTURES, index=":")) == 8
    assert {row["plausible"] for row in read_table(out)} == {""}


BAD = {
    "n zero": (["-n", "0"], "-n must be a positive integer, got 0"),
    "n negative": (["-n", "-3"], "-n must be a positive integer, got -3"),
    "n too large": (["-n", "9" * 20], "n must be at most 100000000, got 99999"),
    "n text": (["-n", "many"], "invalid int value: 'many'"),
    "domain": (["--domain", "metal"], "invalid choice: 'metal'"),
    "seed": (["--seed", "-1"], "seed must not be negative, got -1"),
    "solver": (["--solver", "rk4"], "euler, midpoint, heun, ancestral, multistep, got 'rk4'"),
    "steps": (["--num-steps", "0"], "num_steps must be a positive integer, got 0"),
    "guidance": (["--guidance-scale", "nan"], "guidance_scale must lie in 0..100, got nan"),
    "no atoms": (["--num-atoms", "0"], "num_atoms must be positive, got 0"),
    "too many atoms": (["--num-atoms", "99"], "no training molecule has 99 atoms, they have 3, 5"),
    "range": (["--num-atoms", "8-2"], "(low, high), got (8, 2)"),
    "gap": (["--num-atoms", "6"], "no training crystal has 6 atoms, they have 2, 4, 8"),
    "element": (["--condition", "Xx-O"], "'Xx' is no element"),
    "contradiction": (["--formula", "LiMn3O4", "--num-atoms", "5"], "8 atoms a unit"),
    "domains": (["--condition", "crystal", "--domain", "molecule"], "contradict"),
    "group": (["--space-group", "300"], "'300' is no space group"),
    "property": (["--property", "gap"], "--property takes NAME=VALUE, got 'gap'"),
    "kind of guidance": (
        ["--guidance-scale", "spacegroup=2"],
        "with kinds elements, formula, space_group, properties",
    ),
    "guidance of nothing": (
        ["--guidance-scale", "space_group=2"],
        "nothing for space_group",
    ),
    "elements twice": (["--elements", "Li-O", "--condition", "Na-O"], "contradict"),
    "formula twice": (["--formula", "LiO", "--condition", "NaO"], "contradict"),
    "units twice": (["--units", "2", "--condition", "LiO, units=1"], "contradict"),
    "group of text": (["--condition", "Li-O, spacegroup=300"], "give its number, 1 to 230"),
    "property of text": (
        ["--condition", "band_gab=1"],
        "know no property 'band_gab'",
    ),
    "large formula": (
        ["--formula", "Li20O20"],
        "a number of atoms that fits",
    ),
    "tries": (["--only-holding", "--max-tries", "0"], "max_tries must be positive, got 0"),
    "holding, unchecked": (["--only-holding", "--no-check"], "leave --no-check away"),
    "host": (["--fixed", "no.cif"], "a fixed site is written Na@0/0.5/0.5, got 'no.cif'"),
    "unknown property": (["--property", "gap=1"], "these weights know no property 'gap'"),
    "atoms text": (["--num-atoms", "few"], "got 'few'"),
    "list": (["--num-atoms", "2,3", "-n", "3"], "lists 2 atom counts for 3 samples"),
    "device": (["--device", "toaster"], "unknown device 'toaster'"),
    "batch": (["--batch-atoms", "0"], "--batch-atoms must be positive, got 0"),
    "checkpoint": (["--checkpoint", "nothing"], "no checkpoint 'nothing'"),
    "unknown": (["--colour", "red"], "unknown arguments --colour red"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(name, tiny_checkpoint, clean_dir, capsys):
    options, expected = BAD[name]
    try:
        status = generate(tiny_checkpoint, Path("new/folder"), *options)
    except SystemExit as stop:  # argparse
        status = stop.code
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert expected in captured.err
    assert captured.err.startswith("adit generate: error: ")
    assert captured.err.count("\n") == 1
    assert list(clean_dir.iterdir()) == []


@pytest.mark.parametrize("case", ["text", "cut off", "damaged", "stage 1", "folder", "pickle"])
def test_bad_checkpoint_is_one_line_and_leaves_nothing(case, tiny_checkpoint, clean_dir, capsys):
    path = clean_dir / "weights"
    whole = tiny_checkpoint.read_bytes()
    if case == "text":
        path.write_text("hello world, this is no checkpoint")
    elif case == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    elif case == "damaged":
        path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 0xFF]) + whole[-4:])
    elif case == "stage 1":
        model = ADiT.load(tiny_checkpoint)
        ADiT(model.config, model.known, with_denoiser=False).save(path)
    elif case == "folder":
        path.mkdir()
    else:
        import torch

        torch.save({"weights": torch.ones(3)}, path)
    expected = {
        "text": "no safetensors file",
        "cut off": "is cut off",
        "damaged": "is damaged",
        "stage 1": "stage 1 only",
        "folder": "no checkpoint",
        "pickle": "no safetensors file",
    }
    assert generate(path, clean_dir / "new" / "folder", "-n", "2") == 2
    error = capsys.readouterr().err
    assert expected[case] in error
    assert error.count("\n") == 1
    assert [p.name for p in clean_dir.iterdir()] == ["weights"]


def test_the_output_must_be_a_folder(tiny_checkpoint, clean_dir, capsys):
    Path("file").write_text("mine")
    assert generate(tiny_checkpoint, Path("file")) == 2
    assert "file is a file, not a folder" in capsys.readouterr().err
    assert generate(tiny_checkpoint, Path("file/below")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert Path("file").read_text() == "mine"


def test_copied_checkpoint_gives_the_same_files(tiny_checkpoint, tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(tiny_checkpoint, copy)
    for name, checkpoint in (("a", tiny_checkpoint), ("b", copy)):
        generate(checkpoint, tmp_path / name, "-n", "6", "--no-check", "--batch-atoms", "5")
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {k: v for k, v in a.items() if k != SETTINGS} == {
        k: v for k, v in b.items() if k != SETTINGS
    }


def test_sites_and_cell_of_a_file(tiny_checkpoint, tmp_path, capsys):
    from ase.build import bulk

    host = bulk("MgO", "rocksalt", a=4.2)
    ase.io.write(tmp_path / "host.cif", host)
    options = ["-n", "3", "--fixed", str(tmp_path / "host.cif"), "--num-atoms", "4", "--no-check"]
    assert generate(tiny_checkpoint, tmp_path / "a", *options) == 0
    for atoms in ase.io.read(tmp_path / "a" / STRUCTURES, index=":"):
        assert atoms.get_chemical_formula().count("Mg") and len(atoms) == 4
        assert np.allclose(atoms.positions[:2], ase.io.read(tmp_path / "host.cif").positions)
    text = (tmp_path / "host.cif").read_text()
    (tmp_path / "half.cif").write_text(text.replace("1.0000", "0.5000"))
    options[3] = str(tmp_path / "half.cif")
    capsys.readouterr()
    assert generate(tiny_checkpoint, tmp_path / "b", *options) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_only_those_that_hold(tiny_checkpoint, tmp_path, capsys):
    options = ["-n", "3", "--condition", "crystal, atoms=2", "--max-tries", "2", "--only-holding"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer may hold
        assert generate(tiny_checkpoint, tmp_path / "a", *options) == 0
    rows = read_table(tmp_path / "a")
    assert all(row["plausible"] == "True" for row in rows) and len(rows) <= 3
    run = json.loads((tmp_path / "a" / SETTINGS).read_text())
    assert len(rows) <= run["tried"] <= 6 and (len(rows) == 3 or run["tried"] == 6)
    assert f"{len(rows)} of {run['tried']} samples drawn are plausible" in capsys.readouterr().out
    assert run["holds"].get("all and valid", {}).get("share", 1.0) == 1.0


class Killed(BaseException):
    """Stands for a kill: nothing that follows it is done."""


def test_a_kill_at_any_moment_loses_nothing(samples, tmp_path, monkeypatch):
    """After it the folder holds the old results or the new ones, never parts of both."""
    records = record_samples(samples, check=False)
    chosen = samples[: N // 2]
    for name, some in (("old", samples), ("new", chosen)):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, some, records[: len(some)], {"run": name})
    old, new = contents(tmp_path / "old"), contents(tmp_path / "new")
    changing = ("rename", "replace", "unlink", "write_text", "mkdir")
    originals = {name: getattr(Path, name) for name in changing}
    calls, at, seen = 0, 0, set()

    def counted(name):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls >= at:
                raise Killed
            return originals[name](*args, **kwargs)

        return call

    def rmtree(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls < at:
            remove(*args, **kwargs)

    remove = shutil.rmtree
    while True:
        at, calls = at + 1, 0
        folder = tmp_path / f"killed-{at}"
        shutil.copytree(tmp_path / "old", folder)
        with monkeypatch.context() as patch:
            for name in changing:
                patch.setattr(Path, name, counted(name))
            patch.setattr(shutil, "rmtree", rmtree)
            try:
                write_results(folder, chosen, records[: len(chosen)], {"run": "new"})
            except Killed:
                pass
            else:
                break
        finish_results(folder)
        found = {k: v for k, v in contents(folder).items() if not k.startswith(".results-")}
        assert found in (old, new), at
        seen.add(found == new)
        write_results(folder, chosen, records[: len(chosen)], {"run": "new"})
        assert contents(folder) == new
        shutil.rmtree(folder)
    assert at > 2 * len(new) and seen == {True, False}


def test_finished_batches_are_there_before_the_end(tiny_checkpoint, tmp_path, monkeypatch):
    def kill(*args, **kwargs):
        raise Killed

    monkeypatch.setattr("adit_model.cli.generate.write_results", kill)
    with pytest.raises(Killed):
        generate(tiny_checkpoint, tmp_path, "-n", "8", "--no-check", "--batch-atoms", "9")
    expected = ADiT.load(tiny_checkpoint).sample(8, seed=0, progress=False)
    kept = ase.io.read(tmp_path / UNFINISHED, index=":")
    systems = {s.index: s.system for s in expected if s.system is not None}
    assert {a.info["index"] for a in kept} == set(systems) != set()
    for atoms in kept:
        assert np.allclose(atoms.positions, systems[atoms.info["index"]].positions, atol=1e-6)


def test_overwrite_leaves_what_no_run_wrote(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["-n", "4", "--no-check", "--overwrite"]
    (out / "crystals").mkdir(parents=True)
    (out / "crystals" / "mine.cif").write_text("mine")
    assert generate(tiny_checkpoint, out, *options) == 0
    assert generate(tiny_checkpoint, out, *options, "--seed", "1") == 0
    assert (out / "crystals" / "mine.cif").read_text() == "mine"
    run = json.loads((out / SETTINGS).read_text())
    (tmp_path / "outside.txt").write_text("mine")
    run["files"] += ["../outside.txt", str(tmp_path / "outside.txt"), ""]
    (out / SETTINGS).write_text(json.dumps(run))
    assert generate(tiny_checkpoint, out, *options) == 0
    assert (tmp_path / "outside.txt").read_text() == "mine"
    run["files"].remove(RECORDS)
    (out / SETTINGS).write_text(json.dumps(run))
    before = contents(out)
    capsys.readouterr()
    assert generate(tiny_checkpoint, out, *options) == 2
    assert f"has {RECORDS}, which no run listed" in capsys.readouterr().err
    assert contents(out) == before


def test_two_runs_do_not_share_a_folder(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    with only_run(out):
        assert generate(tiny_checkpoint, out, "-n", "2", "--no-check") == 2
    assert "another run writes to" in capsys.readouterr().err
    assert contents(out) == {}
    assert generate(tiny_checkpoint, out, "-n", "2", "--no-check") == 0


def test_a_broken_backend_of_pictures_is_said_before_any_work(tiny_checkpoint, tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "adit_model.cli", "generate", "-n", "2", "--plot", "--out"]
    result = subprocess.run(
        [*command, str(tmp_path / "out"), "--checkpoint", str(tiny_checkpoint)],
        env={**os.environ, "MPLBACKEND": "none-such"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2 and "none-such" in result.stderr
    assert not (tmp_path / "out").exists()


def test_closed_streams_cost_no_sample(tiny_checkpoint, tmp_path, monkeypatch):
    for name in ("stdout", "stderr"):  # as with >&- 2>&-
        monkeypatch.setattr(f"sys.{name}", None)
    options = ["--checkpoint", str(tiny_checkpoint), "--num-steps", "1", "--no-check"]
    assert main(["generate", "-n", "2", *options, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / STRUCTURES).is_file()
