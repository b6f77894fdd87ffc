"""What holds for the packages as a whole."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("package", ["adit_model", "adit_atomate"])
def test_import_is_cheap(package):
    heavy = ["torch", "pymatgen", "rdkit", "atomate2", "lightning", "matplotlib", "e3nn"]
    code = f"import sys, {package}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


@pytest.mark.parametrize("package", ["adit_model", "adit_atomate"])
def test_every_name_it_promises_exists(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(dir(module)) >= set(module.__all__)


def test_unknown_name_is_an_attribute_error():
    import adit_atomate
    import adit_model

    for module in (adit_model, adit_atomate):
        with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
            _ = module.Nothing


def test_versions_agree():
    import adit_atomate
    import adit_model

    assert adit_model.__version__ == adit_atomate.__version__ == version("adit-atomate")
    assert f"version: {adit_model.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {adit_model.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_entry_point_is_the_command_line():
    from adit_model.cli.main import main

    (script,) = [e for e in entry_points(group="console_scripts") if e.name == "adit"]
    assert script.load() is main


def test_packages_are_typed():
    for package in ("adit_model", "adit_atomate"):
        assert (ROOT / package / "py.typed").is_file()


def test_model_does_not_import_the_plugin():
    """One direction of dependence: the plugin imports the model."""
    for path in (ROOT / "adit_model").rglob("*.py"):
        found = re.search(
            r"^\s*(from|import)\s+(adit_atomate|atomate2|jobflow)", path.read_text(), re.M
        )
        assert found is None, f"{path}: {found.group()}"


def test_readme_names_every_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text()
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in readme[readme.index("## Extras") :]
