"""The examples run as a user runs them, with a small checkpoint."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest

from adit_model import ADiT, AtomicDataset

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, folder: Path, checkpoint: Path | str, *arguments: str) -> str:
    environment = {**os.environ, "ADIT_CHECKPOINT": str(checkpoint), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def readme_blocks(language: str) -> list[str]:
    text = (EXAMPLES.parent / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def test_commands_of_the_readme_are_understood():
    from adit_model.cli.main import _parse

    lines = "\n".join(readme_blocks("bash")).replace("&&", "\n").splitlines()
    commands = [
        shlex.split(line, comments=True)[1:] for line in lines if line.strip().startswith("adit ")
    ]
    assert {command[0] for command in commands} == {"evaluate", "generate", "data", "train"}
    for command in commands:
        assert _parse(command).command == command[0]


def test_training_file_of_the_readme(tmp_path):
    from adit_model.training.config import load_run_config

    (text,) = readme_blocks("yaml")
    (tmp_path / "mine.yaml").write_text(text)
    first, second = (
        load_run_config(stage, tmp_path / "mine.yaml") for stage in ("autoencoder", "denoiser")
    )
    assert second.autoencoder == f"{first.output}/autoencoder.safetensors"
    commands = "\n".join(readme_blocks("bash"))
    assert f"--checkpoint {second.output}/denoiser.safetensors" in commands
    assert f"--out {first.train[0]}" in commands


def test_every_example_is_tested():
    tested = set(re.findall(r'run\(\s*"(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.slow
def test_generate(tiny_checkpoint, tmp_path):
    run("01_generate.py", tmp_path, tiny_checkpoint)
    samples = ADiT.load(tiny_checkpoint).sample(8, seed=1, progress=False)
    expected = [s.system for s in samples if s.system is not None]
    found = ase.io.read(tmp_path / "samples.extxyz", index=":")
    assert [list(a.numbers) for a in found] == [list(s.numbers) for s in expected]
    assert list(tmp_path.glob("*.cif"))
    assert (tmp_path / "last.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.integration
def test_jobflow(tiny_checkpoint, tmp_path):
    out = run("02_jobflow.py", tmp_path, tiny_checkpoint, str(tmp_path / "store"))
    samples = ADiT.load(tiny_checkpoint).sample(8, seed=1, progress=False)
    assert f"{sum(s.system is not None for s in samples)} structures" in out.splitlines()
    assert "'seed': 1" in out
    assert list((tmp_path / "store").iterdir())  # the SQLite files stay


@pytest.mark.slow
@pytest.mark.integration
def test_relax(tmp_path):
    out = run("03_relax.py", tmp_path, "default")
    samples = ADiT.load("default").sample(4, domain="crystal", seed=1, progress=False)
    lines = [line for line in out.splitlines() if ": successful, " in line or ": failed, " in line]
    formulas = [line.partition(":")[0] for line in lines]
    assert formulas == [s.system.formula for s in samples if s.system is not None]
    assert formulas


@pytest.mark.slow
def test_train(tiny_checkpoint, tmp_path):
    out = run("04_train.py", tmp_path, tiny_checkpoint, "model")
    assert "trained 30 + 30 steps" in out
    dataset = AtomicDataset.load(tmp_path / "model" / "mine.npz")
    assert (len(dataset), int(dataset.periodic.sum())) == (9, 3)
    model = ADiT.load(tmp_path / "model" / "denoiser" / "denoiser.safetensors")
    assert model.domains == ("crystal", "molecule")
    assert model.metadata["training"]["data"]["crystals"] == 3


@pytest.mark.slow
@pytest.mark.integration
def test_active_learning(tmp_path, monkeypatch):
    monkeypatch.setenv("ADIT_TRAINING_DIR", str(tmp_path / "runs"))
    out = run("07_active_learning.py", tmp_path, "default", "loop")  # relaxable crystals
    (energies, kept) = (out.count(" eV/atom\n"), re.search(r"entries read, (\d+) kept", out))
    assert energies >= int(kept[1]) > 0
    (path,) = re.findall(r"fine-tuned: (.+)", out)
    model = ADiT.load(path)
    assert model.metadata["training"]["data"]["crystals"] == int(kept[1])
    assert model.metadata["training"]["init_from_hash"] == ADiT.load("default").checkpoint_hash
    assert re.search(r"^[1-4] new structures$", out, re.M)


@pytest.mark.slow
@pytest.mark.integration
def test_candidates(tmp_path):
    pytest.importorskip("montydb", reason="the example keeps its stores in SQLite files")
    out = run("08_candidates.py", tmp_path, "default", str(tmp_path))
    (count,) = re.findall(r"^(\d+) distinct candidates$", out, re.M)
    written = ase.io.read(tmp_path / "candidates.extxyz", index=":")
    assert len(written) == int(count) > 0
    assert len(list((tmp_path / "best").glob("*.cif"))) == min(3, int(count))


@pytest.mark.slow
@pytest.mark.integration
def test_discover_crystals(tmp_path):
    pytest.importorskip("chgnet", reason="the example relaxes with CHGNet")
    out = run("05_discover_crystals.py", tmp_path, "default", "3")
    lines = out.splitlines()
    fates = [line for line in lines if re.match(r"[0-2] \w+ (kept|invalid|not|dup|known)", line)]
    assert len(fates) == 3
    kept = [line for line in fates if re.match(r"\d \w+ kept", line)]
    ranked = [re.match(r"\d\. .+: (stable|metastable|unstable|unknown), ", line) for line in lines]
    labels = [found[1] for found in ranked if found]
    order = {"stable": 0, "metastable": 0, "unknown": 1, "unstable": 2}
    assert len(labels) == len(kept)
    assert [order[label] for label in labels] == sorted(order[label] for label in labels)


@pytest.mark.slow
@pytest.mark.integration
def test_discover_molecules(tmp_path):
    pytest.importorskip("tblite", reason="the example relaxes with GFN2-xTB")
    out = run("06_discover_molecules.py", tmp_path, "default", "12")
    strains = [int(strain) for strain in re.findall(r"strain (-?\d+) meV/atom", out)]
    assert strains and strains == sorted(strains)
    assert len(re.findall(r"^\d+ \w+ (?:kept|invalid|not|dup|known)", out, re.M)) == 12
