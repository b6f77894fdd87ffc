from __future__ import annotations

import re

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.data.colors import jmol_colors
from matplotlib.colors import rgb_to_hsv
from matplotlib.image import imread

from adit_model.drawing import plot_grid, scene
from adit_model.systems import AtomicSystem


def system(name: str) -> AtomicSystem:
    return AtomicSystem.from_atoms(molecule(name))


def salt() -> AtomicSystem:
    return AtomicSystem.from_atoms(bulk("NaCl", "rocksalt", a=5.64, cubic=True))


@pytest.mark.parametrize(("name", "bonds"), [("H2O", 2), ("CH4", 4), ("C6H6", 12), ("CH3CH2OH", 8)])
def test_bonds_of_molecules(name, bonds):
    view = scene(system(name))
    assert len(view.bonds) == bonds
    assert view.edges.shape == (0, 2, 3)


def test_a_view_is_a_rotation():
    benzene = system("C6H6")
    view = scene(benzene)
    before = np.linalg.norm(benzene.positions[:, None] - benzene.positions[None], axis=-1)
    after = np.linalg.norm(view.points[:, None] - view.points[None], axis=-1)
    np.testing.assert_allclose(after, before, atol=1e-10)
    handed = AtomicSystem.from_atoms(molecule("CH3CH2OH"))
    a = handed.positions[1:4] - handed.positions[0]
    b = scene(handed).points[1:4] - scene(handed).points[0]
    assert np.linalg.det(a) == pytest.approx(np.linalg.det(b))


def test_flat_molecules_face_the_viewer():
    points = scene(system("C6H6")).points
    assert np.ptp(points[:, 2]) < 0.35 * np.ptp(points[:, 0])


def test_atoms_on_faces_are_repeated():
    """A cubic cell of rock salt shows 14 sodium and 13 chlorine atoms."""
    view = scene(salt())
    assert [int((view.numbers == z).sum()) for z in (11, 17)] == [14, 13]
    assert view.edges.shape == (12, 2, 3)
    lengths = np.linalg.norm(view.edges[:, 0] - view.edges[:, 1], axis=-1)
    np.testing.assert_allclose(lengths, 5.64)


def test_atoms_just_below_the_upper_face_count_as_on_it():
    cubic = AtomicSystem(np.array([26]), np.full((1, 3), 2.999), 3.0 * np.eye(3))
    assert len(scene(cubic).numbers) == 8


def test_picture_shows_the_elements(tmp_path):
    """Every element's hue is in the picture, and no other."""
    path = plot_grid([salt(), system("H2O")], tmp_path / "grid.png", dpi=100)
    picture = imread(path)[..., :3].reshape(-1, 3)
    assert picture[0].tolist() == [1, 1, 1]
    hue, saturation, _ = rgb_to_hsv(picture).T
    hue = hue[saturation > 0.3]
    shown = {
        z: int((np.abs(hue - rgb_to_hsv(jmol_colors[z])[0]) < 0.01).sum()) for z in range(1, 93)
    }
    for number in (11, 17, 8):  # sodium, chlorine, oxygen
        assert shown[number] > 100
    for number in (7, 79, 78):  # nitrogen, gold, platinum
        assert shown[number] == 0


def test_columns_set_the_shape(tmp_path):
    systems = [system("H2O")] * 6
    wide = imread(plot_grid(systems, tmp_path / "wide.png", columns=6))
    tall = imread(plot_grid(systems, tmp_path / "tall.png", columns=1))
    assert wide.shape[1] > 4 * wide.shape[0]
    assert tall.shape[0] > 4 * tall.shape[1]


def test_text_of_titles(tmp_path):
    text = plot_grid([salt()], tmp_path / "a.svg", titles=["number 7"]).read_text()
    assert "number 7" in text


@pytest.mark.parametrize(
    ("systems", "kwargs", "message"),
    [
        (0, {}, "no structure"),
        (2, {"titles": ["a"]}, "2 structures need as many titles, got 1"),
        (1, {"columns": 0}, "columns must be a positive integer, got 0"),
        (1, {"dpi": 0}, "dpi must be positive, got 0"),
    ],
)
def test_errors(tmp_path, systems, kwargs, message):
    with pytest.raises(ValueError, match=message):
        plot_grid([system("H2O")] * systems, tmp_path / "a.png", **kwargs)
    assert not list(tmp_path.iterdir())


def test_titles_have_the_index_and_the_legend_names_the_elements(tmp_path):
    salt_7 = AtomicSystem(salt().numbers, salt().positions, salt().cell, {"index": 7})
    text = plot_grid([salt_7, system("C6H6")], tmp_path / "a.svg").read_text()
    drawn = re.findall("<!-- (.+?) -->", text)
    assert "7:  NaCl" in drawn
    assert {"H", "C", "Na", "Cl"} <= set(drawn)


def test_crystals_have_bonds_and_overlapping_atoms_a_mark(tmp_path):
    view = scene(salt())
    assert len(view.bonds) and not len(view.overlaps)
    assert {tuple(sorted(pair)) for pair in view.numbers[view.bonds].tolist()} == {(11, 17)}
    near = AtomicSystem(np.array([22, 8, 8]), np.diag([0.0, 1.9, 2.4])[[0, 1, 2]], 6 * np.eye(3))
    close = AtomicSystem(np.array([8, 8]), np.array([[1.0, 1, 1], [1.3, 1, 1]]), 6 * np.eye(3))
    assert not len(scene(near).overlaps)
    assert scene(close).overlaps.tolist() == [[0, 1]]
    assert "#ff0000" in plot_grid([close], tmp_path / "close.svg").read_text()
    assert "#ff0000" not in plot_grid([salt()], tmp_path / "salt.svg").read_text()
