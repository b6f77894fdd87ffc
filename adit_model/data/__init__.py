"""Sources of structures, and the array file they are cached in."""

from adit_model.data.crystal_csv import load_crystal_csv, load_crystal_table
from adit_model.data.dataset import AtomicDataset
from adit_model.data.download import download_source
from adit_model.data.drugs import load_geom
from adit_model.data.materials_project import download_materials_project
from adit_model.data.mof import load_qmof
from adit_model.data.qm9 import load_qm9, load_qm9_smiles
from adit_model.data.sources import load_source
from adit_model.data.structures import load_structures
from adit_model.data.summary import summarise

__all__ = [
    "AtomicDataset",
    "download_materials_project",
    "download_source",
    "load_crystal_csv",
    "load_crystal_table",
    "load_geom",
    "load_qm9",
    "load_qm9_smiles",
    "load_qmof",
    "load_source",
    "load_structures",
    "summarise",
]
