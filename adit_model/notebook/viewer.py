"""Structures in 3D in a notebook."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from ase import Atoms

COLUMNS = 4
SIZE = 200  # pixels of one viewer
STYLE = {"stick": {"radius": 0.12}, "sphere": {"scale": 0.28}}


def view_atoms(atoms: Atoms, width: int = 400, height: int = 320) -> Any:
    """Return an object that Jupyter shows in 3D: py3Dmol's if installed, else ASE's X3D."""
    if find_spec("py3Dmol") is not None:
        return _py3dmol([atoms], 1, width, height)
    from ase.visualize import view

    return view(atoms, viewer="x3d")


def viewer_html(atoms: Sequence[Atoms]) -> str:
    """HTML of 3D viewers in a grid, empty where py3Dmol is not installed."""
    if find_spec("py3Dmol") is None or not atoms:
        return ""
    columns = min(COLUMNS, len(atoms))
    rows = -(-len(atoms) // columns)
    return _py3dmol(atoms, columns, SIZE * columns, SIZE * rows)._make_html()


def _py3dmol(atoms: Sequence[Atoms], columns: int, width: int, height: int) -> Any:
    import py3Dmol

    rows = -(-len(atoms) // columns)
    viewer = py3Dmol.view(width=width, height=height, viewergrid=(rows, columns), linked=False)
    for place, item in enumerate(atoms):
        cell = divmod(place, columns)
        text, kind = _model_text(item)
        viewer.addModel(text, kind, viewer=cell)
        viewer.setStyle(STYLE, viewer=cell)
        if item.pbc.all():
            viewer.addUnitCell(viewer=cell)
        viewer.zoomTo(viewer=cell)
    return viewer


def _model_text(atoms: Atoms) -> tuple[str, str]:
    if not atoms.pbc.all():
        return AtomicSystem.from_atoms(atoms).to_xyz(), "xyz"
    from ase.io import write

    buffer = io.BytesIO()
    write(buffer, atoms, format="cif")
    return buffer.getvalue().decode(), "cif"
