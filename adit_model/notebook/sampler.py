"""ADiT in the notebook: a sampler that is constructed once, and makes ``ase.Atoms``.

>>> from adit_model.notebook.sampler import ADiTSampler
>>> sampler = ADiTSampler(seed=0, progress=False)
>>> crystals = sampler.sample(4, domain="crystal", num_atoms=(2, 8))
>>> [atoms.info["index"] for atoms in crystals]
[0, 1, 2, 3]
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from adit_model.canonical import canonicalise
from adit_model.checkpoint import BUNDLED, read_metadata, resolve_checkpoint
from adit_model.config import ModelConfig
from adit_model.notebook.samples import SampleList, sample_to_atoms
from adit_model.systems import CRYSTAL, MOLECULE, AtomicSystem

if TYPE_CHECKING:
    from ase import Atoms

    from adit_model.model import ADiT
    from adit_model.sampling.explore import PathPoint
    from adit_model.sampling.sample import Sample

STREAM_CHUNK = 64  # samples of an endless stream that are asked for together
DTYPES = ("float32", "float64")
_DEVICE = re.compile(r"(auto|cpu|cuda|mps|xpu)(:\d+)?")


@dataclass(frozen=True)
class Latents:
    """What the autoencoder makes of one structure.

    Parameters
    ----------
    values : numpy.ndarray
        Mean latents of each atom, in canonical order, shape (N, latent_dim).
    domain : str
        ``"crystal"`` or ``"molecule"``.

    Raises
    ------
    ValueError
        If the shape is not (N, latent_dim), a value is not finite, or the domain is unknown.
    """

    values: np.ndarray
    domain: str

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float32)
        if values.ndim != 2 or not len(values):
            raise ValueError(f"values must have shape (N, latent_dim), got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("values must be finite")
        if self.domain not in (CRYSTAL, MOLECULE):
            raise ValueError(f"domain must be crystal or molecule, got {self.domain!r}")
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)


class ADiTSampler:
    """Makes crystals and molecules as ``ase.Atoms``, from weights that are loaded once.

    It is constructed like an ASE calculator of a machine-learned potential, and the ``calc`` of
    what it makes is free for one. A sample depends on the weights, the settings, ``seed`` and its
    index alone. Each call takes the next indices, so it gives new structures, and a script run
    again gives the same ones: two calls of ``sample(4)`` make what ``sample(8)`` of a new sampler
    makes. ``first_index=0`` repeats the first call's; it does not move :attr:`next_index`.

    Threads may share a sampler. A pickled one carries the name of its checkpoint, not the
    weights, and its ``next_index``: processes that share work must be told their ``first_index``.

    Parameters
    ----------
    model : str, Path or ADiT
        ``"default"`` (the bundled weights), a checkpoint file, or a loaded model.
    device : str
        ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : str
        ``"float32"`` or ``"float64"``, of the network.
    seed : int
        Of all random numbers.
    domain : str
        ``"crystal"``, ``"molecule"``, or ``"both"``: crystals at even, molecules at odd indices;
        what methods do when they are not told.
    num_steps, solver, guidance_scale, noise_scale
        See :class:`adit_model.config.SamplingConfig`; None takes the checkpoint's.
    check : bool
        Check validity, see :func:`adit_model.quality.records.record_samples`.
    progress : bool
        Show progress bars.

    Attributes
    ----------
    next_index : int
        Index of the next sample; may be set.
    finished : SampleList
        What an interrupted call had made by then, unchecked.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range, or there is no such checkpoint (a
        :class:`~adit_model.checkpoint.CheckpointError`).
    """

    def __init__(
        self,
        model: str | Path | ADiT = "default",
        device: str = "auto",
        dtype: str = "float32",
        seed: int = 0,
        *,
        domain: str = "both",
        num_steps: int | None = None,
        solver: str | None = None,
        guidance_scale: float | None = None,
        noise_scale: float | None = None,
        check: bool = True,
        progress: bool = True,
    ) -> None:
        if not isinstance(device, str) or not _DEVICE.fullmatch(device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:1, got {device!r}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self._model: ADiT | None = None
        self._settings = {
            "num_steps": num_steps,
            "solver": solver,
            "guidance_scale": guidance_scale,
            "noise_scale": noise_scale,
        }
        if isinstance(model, str | Path):
            path = resolve_checkpoint(model)
            self._checkpoint = str(model) if str(model) in BUNDLED else str(path.resolve())
            metadata = read_metadata(path)
            self._sizes = metadata["known"].get("sizes", {})
            config = ModelConfig.from_dict(metadata["config"])
        else:
            self._checkpoint = ""
            self._model = _cast(model, device, dtype)
            self._sizes = model.known.as_dict()["sizes"]
            config = model.config
        self.device, self.dtype, self.seed = device, dtype, seed
        self.domain, self.check, self.progress = domain, check, progress
        self.next_index = 0
        self.finished = SampleList()
        self._lock = threading.RLock()
        self._check_settings(config)
        self._check(1, None, None, None)

    def _check_settings(self, config: ModelConfig) -> None:
        from adit_model.sampling.sampler import sampling_settings

        sampling_settings(config.sampling, **self._settings)  # type: ignore[arg-type]

    def _check(
        self,
        n: int,
        domain: str | None,
        num_atoms: int | tuple[int, int] | Sequence[int] | None,
        first_index: int | None,
        batch_atoms: int | None = None,
    ) -> None:
        from adit_model.sampling.request import check_request

        index = self.next_index if first_index is None else first_index
        check_request(
            n, domain or self.domain, self.seed, num_atoms, batch_atoms, self._sizes, index
        )

    @property
    def model(self) -> ADiT:
        """The model; loaded when first needed."""
        with self._lock:
            if self._model is None:
                from adit_model.model import ADiT

                self._model = _cast(ADiT.load(self._checkpoint, "cpu"), self.device, self.dtype)
            return self._model

    def _take(self, n: int, first_index: int | None) -> int:
        """Index of the first of n samples; without ``first_index`` they are taken."""
        if first_index is not None:
            return int(first_index)
        with self._lock:
            start = self.next_index
            self.next_index += int(n)
            return start

    # generating

    def sample(
        self,
        n: int = 8,
        *,
        domain: str | None = None,
        num_atoms: int | tuple[int, int] | Sequence[int] | None = None,
        first_index: int | None = None,
        batch_atoms: int | None = None,
        random_rotation: bool = False,
    ) -> SampleList:
        """Generate n structures.

        Parameters
        ----------
        n : int
            How many samples. Those that cannot be decoded are in ``.missing`` of the list, with
            the reason, and are not replaced.
        domain : str, optional
            By default that of the sampler.
        num_atoms : int, tuple, list or None
            One atom count, a range ``(low, high)``, one count for each sample, or as in the
            training data.
        first_index : int, optional
            Index of the first sample; by default the call takes the next n indices.
        batch_atoms : int, optional
            Atoms integrated at a time; changes memory and speed, not the structures.
        random_rotation : bool
            Turn each structure at random; otherwise it comes in its canonical pose.

        Returns
        -------
        SampleList
            A list of ``ase.Atoms``, whose ``info`` holds ``seed``, ``index``, ``domain``,
            ``source``, ``valid`` and, where it is not, ``reason``.

        Raises
        ------
        ValueError, TypeError
            If the request is out of range; before any work.
        SamplingInterrupted
            A ``KeyboardInterrupt``; what is done by then is in :attr:`finished`.
        """
        from adit_model.sampling.sample import SamplingInterrupted

        self._check(n, domain, num_atoms, first_index, batch_atoms)
        first = self._take(n, first_index)
        try:
            samples = self.model.sample(
                n,
                domain=domain or self.domain,
                seed=self.seed,
                num_atoms=num_atoms,
                batch_atoms=batch_atoms,
                random_rotation=random_rotation,
                progress=self.progress,
                first_index=first,
                **self._settings,  # type: ignore[arg-type]
            )
        except SamplingInterrupted as error:
            self.finished = SampleList.from_samples(error.samples, check=False)
            raise
        return self._finish(samples)

    def iter_sample(
        self,
        n: int | None = None,
        *,
        domain: str | None = None,
        num_atoms: int | tuple[int, int] | Sequence[int] | None = None,
        first_index: int | None = None,
        batch_atoms: int | None = None,
        random_rotation: bool = False,
    ) -> Iterator[Atoms]:
        """Generate structures and yield those of each batch as it is finished.

        The structures are those of :meth:`sample`, in another order: by domain and atom count.

        Parameters
        ----------
        n : int, optional
            How many samples; without it the stream goes on until it is left, taking indices as
            it goes.
        domain, num_atoms, first_index, batch_atoms, random_rotation
            See :meth:`sample`.

        Yields
        ------
        ase.Atoms
            As from :meth:`sample`. Samples that cannot be decoded are left out.

        Raises
        ------
        ValueError, TypeError
            If the request is out of range; at once, not when the first structure is asked for.
        """
        if n is None and not isinstance(num_atoms, int | tuple | None):
            raise ValueError("a list of num_atoms needs n, as many as it is long")
        self._check(STREAM_CHUNK if n is None else n, domain, num_atoms, first_index, batch_atoms)
        options = {
            "domain": domain or self.domain,
            "num_atoms": num_atoms,
            "batch_atoms": batch_atoms,
            "random_rotation": random_rotation,
        }
        return self._stream(n, first_index, options)

    def _stream(
        self, n: int | None, first_index: int | None, options: dict[str, Any]
    ) -> Iterator[Atoms]:
        from adit_model.sampling.sampler import iter_samples

        while True:
            count = STREAM_CHUNK if n is None else n
            batches = iter_samples(
                self.model,
                count,
                seed=self.seed,
                first_index=self._take(count, first_index),
                progress=self.progress and n is not None,
                **options,
                **self._settings,  # type: ignore[arg-type]
            )
            for samples in batches:
                yield from self._finish(samples)
            if n is not None:
                return
            first_index = None if first_index is None else first_index + count

    def variations(
        self,
        atoms: Atoms,
        n: int = 8,
        *,
        strength: float = 0.3,
        first_index: int | None = None,
        batch_atoms: int | None = None,
        random_rotation: bool = False,
    ) -> SampleList:
        """Noise a structure part of the way, to time 1 - strength, and generate from there.

        Parameters
        ----------
        atoms : ase.Atoms
            A crystal or molecule; the variations have its number of atoms.
        n : int
            How many.
        strength : float
            In (0, 1]: 1 starts from noise alone, small values stay near ``atoms``.
        first_index, batch_atoms, random_rotation
            See :meth:`sample`.

        Returns
        -------
        SampleList
            As from :meth:`sample`.

        Raises
        ------
        ValueError, TypeError
            If the request is out of range, or the model does not know the domain, atom count or
            elements; before any sampling.
        """
        from adit_model.sampling.explore import check_strength, variations

        check_strength(strength)
        system = canonicalise(AtomicSystem.from_any(atoms)).system
        self._check(n, system.domain, len(system), first_index, batch_atoms)
        samples = variations(
            self.model,
            system,
            n,
            strength=strength,
            seed=self.seed,
            first_index=self._take(n, first_index),
            batch_atoms=batch_atoms,
            random_rotation=random_rotation,
            progress=self.progress,
            **self._settings,  # type: ignore[arg-type]
        )
        return self._finish(samples)

    def trajectory(
        self,
        *,
        domain: str | None = None,
        num_atoms: int | tuple[int, int] | None = None,
        index: int | None = None,
    ) -> SampleList:
        """Show how noise becomes one sample, step by step.

        Parameters
        ----------
        domain, num_atoms
            See :meth:`sample`.
        index : int, optional
            Which sample; by default the next.

        Returns
        -------
        SampleList
            What is decoded after each step, ``info["time"]`` from 0 (noise) to 1 (the sample
            itself). Times whose cell is unphysical are in ``.missing``. Write it with
            ``.write("path.traj")``.

        Raises
        ------
        ValueError, TypeError
            If the request is out of range; before any work.
        """
        from adit_model.sampling.explore import trajectory

        self._check(1, domain, num_atoms, index)
        index = self._take(1, index)
        points = trajectory(
            self.model,
            domain=domain or self.domain,
            num_atoms=num_atoms,
            seed=self.seed,
            index=index,
            **self._settings,  # type: ignore[arg-type]
        )
        return _path_atoms(points, "time", {"seed": self.seed, "index": index})

    # latent space

    @overload
    def encode(self, atoms: Atoms) -> Latents: ...
    @overload
    def encode(self, atoms: Sequence[Atoms]) -> list[Latents]: ...
    def encode(self, atoms: Atoms | Sequence[Atoms]) -> Latents | list[Latents]:
        """Encode the canonical form of one structure, or of each of a sequence.

        The latents depend neither on the order of atoms nor on orientation and cell; there is one
        row for each atom of the canonical form (:meth:`adit_model.model.ADiT.prepare`), and
        decoding gives the structure in that form. Rows in the order of the input's atoms come from
        :meth:`adit_model.model.ADiT.encode`.

        Raises
        ------
        ValueError
            If a structure is periodic in one or two directions, or the model does not know an
            element.
        """
        from ase import Atoms

        if isinstance(atoms, Atoms):
            return self.encode([atoms])[0]
        systems = [self.model.prepare(a) for a in atoms]
        latents = self.model.encode_prepared(systems)
        return [Latents(x, system.domain) for x, system in zip(latents, systems, strict=True)]

    @overload
    def decode(self, latents: Latents) -> Atoms: ...
    @overload
    def decode(self, latents: Sequence[Latents]) -> SampleList: ...
    def decode(self, latents: Latents | Sequence[Latents]) -> Atoms | SampleList:
        """Decode one structure, or each of a sequence.

        Returns
        -------
        ase.Atoms or SampleList
            Those of a sequence whose cell is unphysical are in ``.missing``, by their place.

        Raises
        ------
        ValueError
            If the latents are of another width, or the one structure has an unphysical cell.
        """
        if isinstance(latents, Latents):
            decoded = self.decode([latents])
            if decoded.missing:
                raise ValueError(f"the latents describe no structure: {decoded.missing[0]}")
            return decoded[0]
        from adit_model.sampling.explore import decode_path

        width = self.model.config.autoencoder.latent_dim
        wrong = [x.values.shape[1] for x in latents if x.values.shape[1] != width]
        if wrong:
            raise ValueError(f"latents of this model have {width} channels, got {wrong[0]}")
        result = SampleList()
        for place, item in enumerate(latents):
            (point,) = decode_path(self.model, [item.values], item.domain == CRYSTAL, [0.0])
            if point.system is None:
                result.missing[place] = str(point.reason)
            else:
                result.append(_atoms(point.system, {"domain": item.domain}))
        return result

    def interpolate(self, a: Atoms, b: Atoms, k: int = 8, *, match: bool = True) -> SampleList:
        """Decode k points on the straight line between the latents of two structures.

        Parameters
        ----------
        a, b : ase.Atoms
            Two crystals or two molecules with equally many atoms.
        k : int
            Points, at least 2; the first and last are ``a`` and ``b`` as the autoencoder
            reconstructs them.
        match : bool
            Pair the atoms of ``a`` and ``b`` by their latents; otherwise by canonical order.

        Returns
        -------
        SampleList
            ``info["fraction"]`` goes from 0 to 1; points whose cell is unphysical are in
            ``.missing``, by their place.

        Raises
        ------
        ValueError
            If a and b do not fit together or k is too small.
        """
        from adit_model.sampling.explore import interpolate

        return _path_atoms(interpolate(self.model, a, b, k, match), "fraction", {})

    # the object

    def _finish(self, samples: Sequence[Sample]) -> SampleList:
        return SampleList.from_samples(samples, check=self.check)

    def __repr__(self) -> str:
        model = self._checkpoint or "ADiT"
        return (
            f"ADiTSampler(model={model!r}, device={self.device!r}, dtype={self.dtype!r}, "
            f"seed={self.seed}, next_index={self.next_index})"
        )

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "finished": SampleList()}
        del state["_lock"]
        if self._checkpoint:
            state["_model"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()


def _cast(model: ADiT, device: str, dtype: str) -> ADiT:
    import torch

    from adit_model.model import resolve_device

    return model.to(resolve_device(device), getattr(torch, dtype)).eval()


def _path_atoms(points: Sequence[PathPoint], name: str, info: dict[str, Any]) -> SampleList:
    result = SampleList()
    for place, point in enumerate(points):
        if point.system is None:
            result.missing[place] = str(point.reason)
        else:
            result.append(
                _atoms(point.system, {**info, "domain": point.system.domain, name: point.at})
            )
    return result


def _atoms(system: AtomicSystem, info: dict[str, Any]) -> Atoms:
    return sample_to_atoms(AtomicSystem(system.numbers, system.positions, system.cell), **info)
