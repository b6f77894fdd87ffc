"""A column of the user's own becomes a condition."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ase.build import bulk
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from adit_model.config import MINI, ModelConfig
from adit_model.model import ADiT
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.run import run_stage

METALS = {"Cu": 137.0, "Al": 76.0, "Au": 173.0, "Fe": np.nan, "Na": 6.3}
MODEL = ModelConfig(
    replace(MINI.autoencoder, dim=16, num_heads=2, num_encoder_layers=1, num_decoder_layers=1),
    replace(MINI.denoiser, dim=16, num_heads=2, num_layers=2, properties=("melting_point",)),
    replace(MINI.sampling, num_steps=2),
)
SCHEDULE = TrainingConfig(steps=3, batch_size=4, learning_rate=1e-2, accelerator="cpu")


@pytest.fixture
def table(tmp_path: Path) -> str:
    rows = [
        (s, str(CifWriter(AseAtomsAdaptor.get_structure(bulk(s)))), k, 300.0 + 100 * len(s) + i)
        for i, (s, k) in enumerate(METALS.items())
    ]
    columns = ["material_id", "cif", "Bulk Modulus", "melting_point"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "metals.csv", index=False)
    return str(tmp_path / "metals.csv")


@pytest.fixture
def trained(table: str, tmp_path: Path) -> str:
    """Checkpoint that knows melting points."""
    torch.manual_seed(0)
    ADiT(MODEL, with_denoiser=False).save(tmp_path / "first.safetensors")
    config = RunConfig((table,), str(tmp_path / "old"), (), MODEL, SCHEDULE)
    config = replace(config, autoencoder=str(tmp_path / "first.safetensors"))
    return str(run_stage("denoiser", config, progress=False).checkpoint)


def tune(table: str, trained: str, output: Path, *names: str, **options):
    model = replace(MODEL, denoiser=replace(MODEL.denoiser, properties=names))
    config = RunConfig((table,), str(output), (), model, SCHEDULE, trained, trained, **options)
    return ADiT.load(run_stage("denoiser", config, progress=False).checkpoint, device="cpu")


def test_a_column_can_be_asked_for_after_fine_tuning(table, trained, tmp_path):
    model = tune(table, trained, tmp_path / "new", "Bulk Modulus", units={"bulk_modulus": "GPa"})
    old, known = ADiT.load(trained).known.properties, model.known.properties
    assert known["melting_point"] == old["melting_point"]  # means the same as before
    assert model.config.denoiser.properties == ("melting_point", "bulk_modulus")
    there = np.array([k for k in METALS.values() if k == k])
    found = known["bulk_modulus"]
    assert (found.unit, found.domains) == ("GPa", ("crystal",))
    wanted = there.min(), there.max(), there.mean(), there.std()
    np.testing.assert_allclose((found.min, found.max, found.mean, found.std), wanted, rtol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (sample,) = model.sample(1, "crystal, Bulk Modulus=100", num_steps=2)
    assert str(sample.condition) == "crystal, bulk_modulus=100"
    with pytest.warns(UserWarning, match=r"bulk_modulus=500 is outside .* 6\.3.* to 173 GPa"):
        model.sample(1, "bulk_modulus=500", num_steps=2)
    with pytest.raises(ValueError, match=r"no property 'bulk_modulos'; .* know bulk_modulus "):
        model.sample(1, "bulk_modulos=1")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("bulk_modulos", "number named 'bulk_modulos'; there are bulk_modulus, melting_point"),
        ("atoms", "cannot be named 'atoms': 'atoms=' means something else"),
        ("Space Group", "cannot be named 'Space Group'"),
        ("?", "is no name"),
    ],
)
def test_names_are_checked_before_training(name, error, table, trained, tmp_path):
    with pytest.raises(ValueError, match=error):
        tune(table, trained, tmp_path / "new", name)
    assert not list((tmp_path / "new").glob("*.safetensors"))


def test_a_unit_stays_what_it_was(table, trained, tmp_path):
    model = tune(table, trained, tmp_path / "a", "bulk_modulus", units={"bulk_modulus": "GPa"})
    model.save(tmp_path / "a.safetensors")
    for units, error in (
        ({"bulk_modulus": "kbar"}, "know bulk_modulus in GPa, not kbar"),
        ({"hardness": "GPa"}, "a unit of 'hardness', which is no property"),
    ):
        with pytest.raises(ValueError, match=error):
            tune(table, str(tmp_path / "a.safetensors"), tmp_path / "b", units=units)
    again = tune(table, str(tmp_path / "a.safetensors"), tmp_path / "c")
    assert again.known.properties["bulk_modulus"].unit == "GPa"


def test_weights_that_cannot_be_told_properties_say_so(table, trained, tmp_path):
    with pytest.raises(ValueError, match=r"without denoiser\.conditions cannot learn properties"):
        config = RunConfig((table,), str(tmp_path / "x"), (), MODEL, SCHEDULE, trained, "mini")
        run_stage("denoiser", config, progress=False)
