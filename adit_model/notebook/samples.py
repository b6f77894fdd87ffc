"""A list of ``ase.Atoms`` that shows itself in a notebook and writes itself to files."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np

from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from ase import Atoms

    from adit_model.sampling.sample import Sample

SHOWN = 12  # pictures of a list in a notebook
DATABASES = (".db", ".json", ".aselmdb")
SOURCE = "ADiT"


class SampleList(list["Atoms"]):
    """Structures, and why there are not more of them.

    A list of ``ase.Atoms`` that Jupyter shows as pictures.

    Parameters
    ----------
    atoms : iterable of ase.Atoms
        The structures.
    missing : dict
        From the index of a sample that is no structure to the reason.

    Attributes
    ----------
    tried : int
        Samples that it took.
    """

    def __init__(self, atoms: Iterable[Atoms] = (), missing: dict[int, str] | None = None) -> None:
        super().__init__(atoms)
        self.missing = dict(missing or {})
        self.tried = len(self) + len(self.missing)

    @classmethod
    def from_samples(cls, samples: Sequence[Sample], check: bool = True) -> SampleList:
        """Turn samples into ``ase.Atoms`` with seed, index and whether plausible in ``info``.

        Parameters
        ----------
        samples : sequence of Sample
            From :meth:`adit_model.model.ADiT.sample`.
        check : bool
            Check whether they are plausible.
        """
        from adit_model.quality.records import record_samples

        result = cls()
        records = record_samples(samples, check=check)
        for sample, record in zip(samples, records, strict=True):
            if sample.system is None:
                result.missing[sample.index] = str(sample.fault)
                continue
            info: dict[str, Any] = {}
            if record.plausible is not None:
                info["plausible"] = record.plausible
                if not record.plausible:
                    info["reason"] = str(record.reason)
            result.append(sample_to_atoms(sample.system, **info))
        result.tried = len(samples)
        return result

    @property
    def plausible(self) -> SampleList:
        """Those whose ``info["plausible"]`` is true."""
        return SampleList([atoms for atoms in self if atoms.info.get("plausible") is True])

    def write(self, path: str | Path, **options: Any) -> Path:
        """Write all structures to one file, in the format of its suffix.

        An ASE database (``.db``, ``.json``) is added to, and the scalars in ``info`` become its
        key-value pairs, so that ``db.select(plausible=True, domain="crystal")`` works.

        Parameters
        ----------
        path : str or Path
            ``.db``, ``.traj``, ``.extxyz``, or what else :func:`ase.io.write` knows.
        **options
            For :func:`ase.io.write` or :func:`ase.db.connect`.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ValueError
            If there is nothing to write.
        """
        path = Path(path)
        if not self:
            raise ValueError(f"there is no structure to write to {path}")
        if path.suffix in DATABASES:
            from ase.db import connect

            with connect(path, **options) as database:
                for atoms in self:
                    database.write(atoms, key_value_pairs=_key_value_pairs(atoms.info))
            return path
        from ase.io import write

        write(path, list(self), **options)
        return path

    def view(self, index: int = 0, width: int = 400, height: int = 320) -> Any:
        """Show one structure in 3D in a notebook: with py3Dmol if installed, else ASE's X3D.

        Both viewers load their script from the network.
        """
        from adit_model.notebook.viewer import view_atoms

        return view_atoms(self[index], width, height)

    @overload
    def __getitem__(self, key: SupportsIndex) -> Atoms: ...
    @overload
    def __getitem__(self, key: slice) -> SampleList: ...
    def __getitem__(self, key: SupportsIndex | slice) -> Atoms | SampleList:
        if isinstance(key, slice):
            return SampleList(super().__getitem__(key))
        return super().__getitem__(key)

    def __repr__(self) -> str:
        formulas = ", ".join(_label(atoms) for atoms in self[:SHOWN])
        more = ", ..." if len(self) > SHOWN else ""
        missing = f", {len(self.missing)} missing" if self.missing else ""
        return f"<{len(self)} structures{missing}: {formulas}{more}>"

    def _repr_html_(self) -> str:
        return html_of(self)


def sample_to_atoms(system: AtomicSystem, **info: Any) -> Atoms:
    """Return an ``ase.Atoms`` whose ``info`` holds plain Python scalars, and no calculator."""
    atoms = system.to_atoms()
    atoms.info = {"source": SOURCE, **atoms.info, **info}
    return atoms


def html_of(atoms: SampleList) -> str:
    """Pictures of the first structures, with 3D viewers below where py3Dmol is installed."""
    from adit_model.notebook.pictures import contact_sheet
    from adit_model.notebook.viewer import viewer_html

    text = f"<p>{len(atoms)} structures"
    checked = [a for a in atoms if "plausible" in a.info]
    if checked:
        text += f", {len(atoms.plausible)} plausible"
    if len(atoms) > SHOWN:
        text += f", the first {SHOWN}"
    text += "</p>"
    for index, reason in list(atoms.missing.items())[:SHOWN]:
        text += f"<p>no structure {html.escape(str(index))}: {html.escape(reason)}</p>"
    if not atoms:
        return text
    shown = atoms[:SHOWN]
    buffer = io.BytesIO()
    contact_sheet(shown, columns=6).savefig(buffer, format="png", dpi=80, facecolor="white")
    image = base64.b64encode(buffer.getvalue()).decode()
    text += f'<img src="data:image/png;base64,{image}" alt="{html.escape(repr(shown))}"/>'
    return text + viewer_html(shown)


def _label(atoms: Atoms) -> str:
    formula = AtomicSystem.from_atoms(atoms).formula
    return formula if atoms.info.get("plausible", True) else f"{formula} (not plausible)"


def _key_value_pairs(info: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in info.items() if isinstance(value, Real | str | np.bool_)}
