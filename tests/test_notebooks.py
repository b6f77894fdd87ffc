"""The notebooks: as they are kept, and run anew with fewer samples."""

from __future__ import annotations

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="reads notebooks")
FOLDER = Path(__file__).resolve().parents[1] / "examples" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
NEEDS = {
    "quickstart": (),
    "ask_for_structures": ("chgnet",),
    "crystals_to_stability": ("chgnet",),
    "molecules_to_xtb": ("tblite",),
    "train_on_your_own_data": ("lightning",),
}
SMALL = {
    "quickstart": {"N": 3},
    "ask_for_structures": {"N": 2},
    "crystals_to_stability": {"N": 3},
    "molecules_to_xtb": {"N": 8},
    "train_on_your_own_data": {"N": 4, "STEPS": 10},
}
CHECKS = {
    "quickstart": """
assert len(crystals) + len(crystals.missing) == N
with connect(folder / "samples.db") as database:
    stored = list(database.select(domain="crystal", plausible=True))
formulas = [row.toatoms().get_chemical_formula() for row in stored]
assert formulas == [a.get_chemical_formula() for a in crystals.plausible]
assert same and change < 0.5
assert (str(path[0].symbols), str(path[-1].symbols)) == ("NaCl", "MgO")
(sample,) = sampler.sample(1, domain="crystal", num_atoms=5, first_index=2)
assert np.allclose(last.positions, sample.positions, atol=1e-4)
""",
    "ask_for_structures": """
finds = [*discovery.ranked, *discovery.dropped]
assert len(finds) + len(discovery.undecoded) == N
for find in finds:
    assert {"Mg", "Al", "Cu"} == set(find.candidate.system.to_structure().symbol_set)
energies = [one.energy for one in prediction.candidates]
assert energies == sorted(energies)
assert any(rank is not None for rank in prediction.found.values())
assert completion.candidates
for one in completion.candidates:
    assert one.system.formula in ("Li2Al2O4", "LiAlO2") and one.energy is not None
""",
    "crystals_to_stability": """
assert sum(document.fates.values()) == document.n == N
assert document.candidates
for c in document.candidates:
    assert c.relaxation.state == "successful" and c.relaxation.energy_change_per_atom < 0
    assert c.hull_source == "known phases (partial)" and c.novel
    no_hull = c.energy_above_hull is None
    assert c.score == (c.formation_energy_per_atom if no_hull else c.energy_above_hull)
    assert c.stability in ("unknown", "unstable") if no_hull else c.competing_phases
assert best["score"] == document.candidates[0].score
""",
    "molecules_to_xtb": """
assert sum(document.fates.values()) == document.n == N
scores = [c.strain_energy_per_atom for c in document.candidates]
assert scores == sorted(scores)
assert abs(strain - scores[0]) < 1e-3
""",
    "train_on_your_own_data": """
from adit_model import ADiT
training = ADiT.load(report.checkpoint.path).metadata["training"]
assert training["init_from_hash"] == ADiT.load("default").checkpoint_hash
assert report.data.train.crystals + report.data.validation.crystals == len(structures) == 36
assert all(map(is_rock_salt, structures))
assert not is_rock_salt(bulk("CsCl", "cesiumchloride", a=4.1))
assert curve.steps[-1] <= STEPS and report.stages["denoiser"].step == STEPS
assert len(before) == len(after) == N
""",
}


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[Any]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def text_of(name: str) -> str:
    """All that the cells of a notebook printed."""
    outputs = [output for cell in code_cells(name) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_every_notebook_is_tested():
    assert sorted(NEEDS) == sorted(SMALL) == sorted(CHECKS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_kept_outputs(name):
    nbformat.validate(read(name))
    cells = code_cells(name)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2
    assert read(name).metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NAMES)
def test_small_and_of_no_machine(name):
    text = (FOLDER / f"{name}.ipynb").read_text()
    assert len(text) < 600_000
    found = re.findall(r"/(?:work|home|root|tmp|usr|opt|Users)/[^\s\"]*", text)
    assert not found
    assert "Warning" not in json.dumps([cell.outputs for cell in code_cells(name)])


@pytest.mark.parametrize("name", NAMES)
def test_pages_link_to_it(name):
    root = FOLDER.parents[1]
    assert f"(examples/notebooks/{name}.ipynb)" in (root / "README.md").read_text()
    assert f"examples/notebooks/{name}.ipynb" in (root / "docs" / "index.md").read_text()


def test_training_taught_rock_salt():
    """Of the kept outputs: what the notebook is about."""
    found = re.findall(r"^(\d+) of (\d+) are rock salts,", text_of("train_on_your_own_data"), re.M)
    (before, _), (after, total) = [(int(a), int(b)) for a, b in found]
    assert after >= before + total // 4
    assert "held out:   none" not in text_of(
        "train_on_your_own_data"
    )  # compositions it was not shown


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_runs(name, monkeypatch):
    pytest.importorskip("nbclient", reason="runs notebooks")
    pytest.importorskip("ipykernel", reason="runs notebooks")
    for package in NEEDS[name]:
        pytest.importorskip(package, reason="the notebook computes with it")
    for variable in ("ADIT_DATA", "ADIT_HULL", "ADIT_CHECKPOINT"):
        monkeypatch.delenv(variable, raising=False)
    spec = spec_from_file_location("run_notebooks", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    runner = module_from_spec(spec)
    spec.loader.exec_module(runner)

    notebook = read(name)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for variable, value in SMALL[name].items():
        first.source, count = re.subn(
            rf"^{variable} = \d+", f"{variable} = {value}", first.source, flags=re.M
        )
        assert count == 1
    notebook.cells.append(nbformat.v4.new_code_cell(CHECKS[name]))
    runner.execute(notebook)  # raises what a cell raises
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o.text for o in outputs if o.get("name") == "stderr"]
