from __future__ import annotations

import pytest
from pydantic import ValidationError

from adit_atomate.settings import ADiTSettings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    """A home directory without settings, no ``ADIT_*`` variables."""
    for name in ADiTSettings.model_fields:
        monkeypatch.delenv(f"ADIT_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_defaults():
    settings = ADiTSettings()
    assert (settings.CHECKPOINT, settings.DEVICE) == ("default", "auto")
    assert settings.BATCH_ATOMS is None
    assert settings.CHECK_TIME_LIMIT == 10


def test_file_in_the_home_directory(tmp_path):
    (tmp_path / ".adit.yaml").write_text("DEVICE: cuda:1\nBATCH_ATOMS: 512\n")
    settings = ADiTSettings()
    assert (settings.DEVICE, settings.BATCH_ATOMS) == ("cuda:1", 512)


def test_environment_goes_before_the_file(monkeypatch, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("DEVICE: cuda\nCHECKPOINT: /models/a.safetensors\n")
    monkeypatch.setenv("ADIT_CONFIG_FILE", str(file))
    monkeypatch.setenv("ADIT_DEVICE", "cpu")
    settings = ADiTSettings()
    assert (settings.DEVICE, settings.CHECKPOINT) == ("cpu", "/models/a.safetensors")


def test_an_empty_file_sets_nothing(tmp_path):
    (tmp_path / ".adit.yaml").write_text("")
    assert ADiTSettings().DEVICE == "auto"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DEVICE: [", "not valid YAML"),
        ("[" * 3000, "not valid YAML"),
        ("1: a\nDEVIC: b", "DEVIC"),
        ("- DEVICE", "must hold 'NAME: value' lines, got"),
        ("DEVIC: cpu", "DEVIC"),
        ("BATCH_ATOMS: 0", "BATCH_ATOMS"),
        ("CHECK_TIME_LIMIT: soon", "CHECK_TIME_LIMIT"),
        ("DEVICE: ''", "DEVICE"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / ".adit.yaml").write_text(text)
    with pytest.raises(ValidationError, match=message):
        ADiTSettings()


def test_a_file_that_is_named_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("ADIT_CONFIG_FILE", str(tmp_path / "gone.yaml"))
    with pytest.raises(ValidationError, match=r"gone\.yaml, which does not exist"):
        ADiTSettings()


def test_bad_environment(monkeypatch):
    monkeypatch.setenv("ADIT_CHECK_WORKERS", "-1")
    with pytest.raises(ValidationError, match="CHECK_WORKERS"):
        ADiTSettings()


def test_every_setting_is_described():
    assert all(field.description for field in ADiTSettings.model_fields.values())
