"""The command line as a process, and `adit data` and `adit train` through it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write

from adit_model import AtomicDataset, __version__
from adit_model.cli.main import main

ADIT = [sys.executable, "-m", "adit_model.cli"]
HEAVY = ["torch", "pymatgen", "rdkit", "matplotlib", "lightning", "e3nn", "ase.io", "scipy"]


def adit(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*ADIT, *arguments], capture_output=True, text=True, timeout=120, **options
    )


def last_line(error: str) -> str:
    return error.rstrip("\n").rpartition("\n")[2]


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["info"]])
def test_help_and_info_are_quick(arguments, tiny_checkpoint):
    """Neither needs the libraries of sampling, which take seconds to import."""
    if arguments == ["info"]:
        arguments = ["info", str(tiny_checkpoint)]
    code = (
        "import sys\nfrom adit_model.cli.main import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        f"print('imported', [name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "imported []", result.stderr


def test_help_names_every_command():
    result = adit("--help")
    assert result.returncode == 0
    for command in ("generate", "evaluate", "info", "data", "train"):
        assert f"    {command} " in result.stdout
        assert adit(command, "--help").returncode == 0


def test_version():
    assert adit("--version").stdout.split() == ["adit-atomate", __version__]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "adit: error: the following arguments are required: COMMAND"),
        (["dance"], "adit: error: argument COMMAND: invalid choice: 'dance'"),
        (["generate"], "adit generate: error: the following arguments are required: --out"),
        (["train", "autoencoder"], "adit train: error: the following arguments are required"),
        (["info", "a", "b"], "adit info: error: unknown arguments b"),
    ],
)
def test_wrong_command_line(arguments, text):
    result = adit(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(text)
    assert result.stderr.count("\n") == 1


def test_generate_as_a_process(tiny_checkpoint, tmp_path):
    result = adit(
        "generate", "-n", "6", "--checkpoint", str(tiny_checkpoint), "--out", "out", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "3 requested" in result.stdout
    assert "Warning" not in result.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"samples.extxyz", "summary.csv", "run.json", "molecules"} <= names


def test_interrupted_while_it_imports(monkeypatch, capsys):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adit_model.cli.main._parser", interrupt)
    assert main(["generate"]) == 130
    assert capsys.readouterr().err == "adit: interrupted\n"


def test_interrupted_while_sampling(tiny_checkpoint, tmp_path):
    process = subprocess.Popen(
        [
            *ADIT,
            "generate",
            "-n",
            "600",
            "--batch-atoms",
            "100000",  # all in one batch, which takes minutes
            "--num-steps",
            "10000",
            "--checkpoint",
            str(tiny_checkpoint),
            "--out",
            str(tmp_path / "new" / "out"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        shown, waited_until = b"", time.monotonic() + 60
        while b"step " not in shown and time.monotonic() < waited_until:
            shown += process.stderr.read() or b""
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        os.set_blocking(process.stderr.fileno(), True)
        out, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == b""
    assert last_line(error.decode()) == "adit generate: interrupted"
    assert b"Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_reader_that_leaves(tiny_checkpoint):
    """As in `adit info | head -0`: no traceback, and the status of a program ended by SIGPIPE."""
    read, written = os.pipe()
    process = subprocess.Popen(
        [*ADIT, "info", str(tiny_checkpoint)], stdout=written, stderr=subprocess.PIPE, text=True
    )
    os.close(written)
    os.close(read)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (141, "")


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_output_that_is_closed(closed, tiny_checkpoint):
    command = f"exec '{sys.executable}' -m adit_model.cli info '{tiny_checkpoint}' {closed}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_terminal_of_ascii_and_unknown_home(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for name in ("é.cif", "~nouser-nowhere/a.npz"):
        result = adit("data", name, env=environment, cwd=tmp_path)
        assert result.returncode == 2 and result.stderr.startswith("adit data: error: ")


def test_traceback_on_request(tiny_checkpoint, tmp_path):
    wrong = ["info", "nothing"]
    assert "Traceback" not in adit(*wrong).stderr
    result = adit(*wrong, "--traceback")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    environment = {**os.environ, "ADIT_TRACEBACK": "1"}
    assert "Traceback" in adit(*wrong, env=environment).stderr


# adit data


def test_data_from_a_folder_to_one_file(clean_dir, capsys):
    Path("mine/more").mkdir(parents=True)
    salt, water = bulk("NaCl", "rocksalt", a=5.64), molecule("H2O")
    write("mine/salt.cif", salt)
    write("mine/more/water.xyz", water)
    Path("mine/broken.cif").write_text("data_x\n_cell_length_a 1\n")
    assert main(["data", "mine", "--out", "made/mine.npz", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "mine: 2 systems (1 crystals, 1 molecules), 5 atoms\n" in out
    assert "like broken" in out
    assert "written to made/mine.npz" in out
    dataset = AtomicDataset.load("made/mine.npz")
    systems = {len(system): system for system in dataset}
    assert sorted(systems[2].numbers) == [11, 17]
    assert abs(np.linalg.det(systems[2].cell)) == pytest.approx(salt.get_volume(), rel=1e-4)
    distances = systems[3].to_atoms().get_all_distances()
    assert np.allclose(
        np.sort(distances.ravel()), np.sort(water.get_all_distances().ravel()), atol=1e-4
    )
    assert main(["data", "made/mine.npz", "--max-atoms", "2", "--quiet"]) == 0
    assert "1 systems (1 crystals, 0 molecules)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("nothing", None, "unknown data source 'nothing', and there is no file"),
        ("absent.csv", None, "no CSV file absent.csv"),
        ("empty.csv", "", "empty.csv is empty"),
        ("columns.csv", "a,b\n1,2\n", "columns.csv lacks a column of structures"),
        ("nan.xyz", "2\n\nH 0 0 0\nH nan 0 1\n", "positions must be finite"),
        ("broken.npz", "text", "broken.npz"),
        ("qm9:some", None, "unknown data source 'qm9:some'"),
    ],
)
def test_data_that_cannot_be_read(name, text, expected, clean_dir, capsys):
    if text is not None:
        Path(name).write_text(text)
    before = list(clean_dir.iterdir())
    assert main(["data", name, "--out", "new/x.npz", "--quiet"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("adit data: error: ")
    assert expected in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert list(clean_dir.iterdir()) == before


@pytest.mark.parametrize(
    ("out", "expected"), [("x.txt", "must end in .npz"), ("file/x.npz", "is no writable folder")]
)
def test_data_output_is_checked_before_work(out, expected, clean_dir, capsys):
    Path("file").write_text("mine")
    assert main(["data", "qm9", "--out", out, "--quiet"]) == 2
    assert expected in capsys.readouterr().err


# adit train


RUN = """\
data: {train: [absent.csv]}
model: {size: mini}
autoencoder: {output: new/autoencoder, steps: 2}
denoiser: {output: new/denoiser, steps: 2, autoencoder: absent.safetensors}
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["autoencoder"], "no CSV file absent.csv"),
        (["denoiser"], "no checkpoint 'absent.safetensors'"),
        (["autoencoder", "autoencoder.steps=0"], "steps must be positive, got 0"),
        (["autoencoder", "autoencoder.stepps=2"], "unknown option autoencoder.stepps"),
        (["autoencoder", "model.size=huge"], "size must be one of"),
        (["autoencoder", "data.train=[]"], "names no source"),
    ],
)
def test_training_that_cannot_start(arguments, expected, clean_dir, capsys):
    Path("run.yaml").write_text(RUN)
    stage, *overrides = arguments
    assert main(["train", stage, "--config", "run.yaml", "--quiet", *overrides]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("adit train: error: ")
    assert expected in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert [path.name for path in clean_dir.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("text", ["data: [", "- 1", "", "1: a\nb: c", "[" * 3000])
def test_config_that_is_none(text, clean_dir, capsys):
    Path("run.yaml").write_text(text)
    assert main(["train", "autoencoder", "--config", "run.yaml"]) == 2
    error = capsys.readouterr().err
    assert "run.yaml" in error
    assert error.count("\n") == 1
