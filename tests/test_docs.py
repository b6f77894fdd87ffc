"""Each block of code in the README and the documentation: Python runs, commands are understood.

A block after the comment ``<!-- not run: REASON -->`` is only compiled.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n+)?^( *)```(\w+)\n(.*?)^ *```", re.S | re.M)
NEEDS = ("chgnet", "tblite", "sevenn", "gpaw", "fireworks", "jobflow_remote", "matminer")
PLOT = "import matplotlib; matplotlib.use('Agg')\n"
STORE = (
    "from jobflow import SETTINGS, JobStore\nfrom maggma.stores import MemoryStore\n"
    "SETTINGS.JOB_STORE = JobStore(MemoryStore(), additional_stores={'data': MemoryStore()})\n"
)


def blocks(page: Path, language: str, run: bool | None = None) -> list[str]:
    """Code of one language; with ``run``, only that which is to be run or not."""
    return [
        re.sub(rf"^{indent}", "", text, flags=re.M)
        for note, indent, name, text in BLOCK.findall(page.read_text())
        if name == language and run in (None, not note)
    ]


def name(page: Path) -> str:
    return page.name


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python", True)], ids=name)
def test_python_runs(page, tiny_checkpoint, tmp_path):
    """The blocks of a page run in order, as one script, in an empty folder."""
    code = "\n".join(blocks(page, "python", True))
    for package in NEEDS:
        if find_spec(package) is None and (package in code.lower()):
            pytest.skip(f"needs {package}, which is not installed")
    for checkpoint in re.findall(r"[\w/]+\.safetensors", code):  # that training would have left
        (tmp_path / checkpoint).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_checkpoint, tmp_path / checkpoint)
    for data in re.findall(r"[\w/]+\.csv\.gz", code):
        (tmp_path / data).touch()
    (tmp_path / "page.py").write_text(PLOT + STORE + code)
    # a force field needs structures, not what an untrained model makes
    checkpoint = "default" if "CHGNet" in code else str(tiny_checkpoint)
    environment = {**os.environ, "ADIT_CHECKPOINT": checkpoint, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_compiles_and_yaml_parses(page):
    for code in blocks(page, "python"):
        ast.parse(code)
    for text in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(text), dict)


def commands(page: Path) -> list[list[str]]:
    """Commands of the bash blocks, without prompts, comments and what is not spelled out."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = [part.strip() for line in text.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True) for line in lines if line and "..." not in line]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_understood(page):
    from adit_model.cli.main import _parse
    from adit_model.config import SamplingConfig

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for command in filter(None, commands(page)):
        if command[0] == "adit":
            assert _parse(command[1:]).command == command[1]
        elif command[0] == "python" and command[1].endswith(".py"):
            source = (ROOT / command[1]).read_text()
            if "SamplingConfig" in source:  # an option for each of its fields
                source += " ".join(
                    f'"--{f.name.replace("_", "-")}"' for f in fields(SamplingConfig)
                )
            for option in command[2:]:
                if option.startswith("--"):
                    assert f'"{option}"' in source, f"{command[1]} has no option {option}"
        for found in re.findall(r"(?:\.|adit-atomate)\[([\w,]+)\]", " ".join(command)):
            assert set(found.split(",")) <= set(extras)


def test_benchmarks_that_pages_cite_come_with_the_source():
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    cited = {
        c[1] for page in PAGES for c in filter(None, commands(page)) if "benchmarks/" in str(c)
    }
    assert len(cited) > 5
    assert "/benchmarks" in targets["targets"]["sdist"]["include"]


def test_equations_map_to_code_that_is_there():
    names = re.findall(r"`(adit_model\.[\w.]+)`", (ROOT / "docs" / "paper.md").read_text())
    assert len(names) > 15
    for dotted in names:
        assert _resolve(dotted) is not None, dotted


def _resolve(dotted: str) -> object:
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        if find_spec(".".join(parts[:2])) and cut >= 2:
            try:
                found: object = import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part, None)
            return found
    return None


def test_pictures_and_files_that_pages_link_to_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_messages_of_the_faq_are_those_of_the_code():
    """What the page on errors quotes begins as a message in the source does."""
    source = "".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text())
        for package in ("adit_model", "adit_atomate")
        for path in (ROOT / package).rglob("*.py")
    )
    quoted = re.findall(r"^\*\*`(.+?)`\*\*", (ROOT / "docs" / "errors.md").read_text(), re.M)
    assert len(quoted) >= 5
    for message in quoted:
        pieces = [p for p in re.split(r"'\w+'|\d+|crystals|molecule\b|default.*", message) if p]
        longest = max(pieces, key=len).strip(" ,:")
        assert longest in source, f"no message holds {longest!r}"
