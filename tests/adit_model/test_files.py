"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from adit_model.files import atomic_path, package_versions, write_atomic


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as first, atomic_path(path, durable=True) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
        assert not path.exists()
    assert path.read_text() == "first"
    write_atomic(path, b"\0")
    assert path.read_bytes() == b"\0"
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(KeyError), atomic_path(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_versions_of_packages_there_and_absent() -> None:
    found = package_versions("numpy", "no-such-package")
    assert found["no-such-package"] == "not installed"
    assert found["numpy"][0].isdigit()
    assert found["python"].startswith("3.")
    assert "adit-atomate" in package_versions()
