"""Pictures show what they say."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from matplotlib.text import Text
from PIL import Image

from adit_atomate.ase import ADiTSampler
from adit_model import AtomicSystem
from adit_model.notebook import pictures as plot


@pytest.fixture
def sampler(tiny_checkpoint):
    return ADiTSampler(tiny_checkpoint, device="cpu", seed=3, check=False, progress=False)


def texts(figure):
    return {t.get_text() for t in figure.findobj(Text) if t.get_text()}


def test_contact_sheet_marks_what_is_not_plausible(tmp_path):
    water, salt = molecule("H2O"), bulk("NaCl", "rocksalt", a=5.6)
    water.info["plausible"] = False
    figure = plot.contact_sheet([water, salt], tmp_path / "sheet.png")
    assert {"H$_{2}$O (not plausible)", "NaCl"} <= texts(figure)
    assert np.asarray(Image.open(tmp_path / "sheet.png"))[..., :3].std() > 5
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_depiction_draws_bonds_and_says_where_there_are_none():
    radical = molecule("C2H5")
    figure = plot.depict([molecule("C6H6"), molecule("CH3CH2OH"), radical])
    assert texts(figure) >= {"C$_{6}$H$_{6}$", "no bonds found"}
    pictures = [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]
    assert len(pictures) == 2
    assert all(p.std() > 5 for p in pictures)
    with pytest.raises(ValueError, match="is a crystal: use contact_sheet"):
        plot.depict([bulk("Cu")])


def test_trajectory_as_a_moving_picture(sampler, tmp_path):
    frames = sampler.trajectory(domain="molecule", num_atoms=5)
    path = plot.trajectory_gif(frames, tmp_path / "noise.gif", seconds=1, hold=2, size=200)
    with Image.open(path) as gif:
        pictures, durations = [], []
        for i in range(gif.n_frames):
            gif.seek(i)
            pictures.append(np.asarray(gif.convert("L"), dtype=float))
            durations.append(gif.info["duration"])
    assert len(pictures) == len(frames)
    assert all(np.abs(a - pictures[-1]).max() > 20 for a in pictures[:-1])
    assert durations[-1] == 2000
    titles = texts(plot.filmstrip(frames, columns=3))
    assert {"t = 0.00", "t = 1.00"} <= titles


def test_map_separates_what_differs(sampler):
    atoms = [bulk(m, "rocksalt", a=a) for m, a in (("NaCl", 5.6), ("MgO", 4.2), ("LiF", 4.0))]
    atoms += [molecule(name) for name in ("H2O", "NH3", "CH4")]
    labels = texts(plot.latent_map(sampler, atoms))
    assert {"crystal (3)", "molecule (3)"} <= labels
    labels = texts(plot.latent_map(sampler, atoms, color="class"))
    assert {"halide (2)", "oxide (1)", "molecule with O (1)", "molecule with N (1)"} <= labels


def test_components_are_those_of_a_known_cloud():
    """Points on a plane in five dimensions: two components hold everything."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 5))
    points, shares = plot.principal_components(np.hstack([plane, np.full((50, 1), 7.0)]))
    assert shares.sum() == pytest.approx(1)
    scaled = plane / plane.std(axis=0)
    before = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    after = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(after, before, atol=1e-9)


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (bulk("MgO", "rocksalt", a=4.2), "oxide"),
        (bulk("GaAs", "zincblende", a=5.6), "pnictide"),
        (bulk("Cu"), "intermetallic or element"),
        (molecule("CH3CONH2"), "molecule with N and O"),
        (molecule("C6H6"), "hydrocarbon or other"),
    ],
)
def test_element_classes(atoms, expected):
    assert plot.element_class(AtomicSystem.from_atoms(atoms)) == expected


def test_funnel_shows_counts_and_shares():
    labels = texts(plot.funnel({"generated": 200, "valid": 150, "stable": 0}))
    assert {"generated", "200", "150 (75 %)", "0 (0 %)"} <= labels


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plot.contact_sheet([]), "no structure to plot"),
        (lambda: plot.depict([]), "no molecule"),
        (lambda: plot.trajectory_gif([], "a.gif"), "no frame"),
        (lambda: plot.trajectory_gif([molecule("H2O")], "a.mp4"), "must end in .gif"),
        (lambda: plot.funnel({}), "no stage"),
        (lambda: plot.funnel({"a": 1, "b": 2}), "stage 'b' has 2, more than 1 in 'a'"),
        (lambda: plot.latent_map(None, [1, 2]), "at least three structures, got 2"),
        (lambda: plot.latent_map(None, [1, 2, 3], color="size"), "color must be"),
    ],
)
def test_bad_requests(call, text):
    with pytest.raises(ValueError, match=text):
        call()
