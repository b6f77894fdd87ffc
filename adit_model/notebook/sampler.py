"""ADiT in the notebook: a sampler that is constructed once, and makes ``ase.Atoms``.

>>> from adit_model.notebook.sampler import ADiTSampler
>>> sampler = ADiTSampler(seed=0, progress=False)
>>> crystals = sampler.sample(4, "crystal, atoms=2-8")
>>> [atoms.info["index"] for atoms in crystals]
[0, 1, 2, 3]
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from adit_model.canonical import canonicalise
from adit_model.checkpoint import BUNDLED, read_known, resolve_checkpoint
from adit_model.conditions.condition import Condition, as_condition
from adit_model.notebook.samples import SampleList, sample_to_atoms
from adit_model.sampling.request import ConditionLike, Request, check_positive
from adit_model.sampling.sample import Sample, SamplingInterrupted
from adit_model.systems import CRYSTAL, MOLECULE, AtomicSystem

if TYPE_CHECKING:
    from ase import Atoms

    from adit_model.model import ADiT
    from adit_model.sampling.explore import PathPoint

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
    what it makes is free for one. A sample depends on the weights, what is asked for, ``seed`` and
    its index alone. Each call takes the next indices, so it gives new structures, and a script run
    again gives the same ones: two calls of ``sample(4)`` make what ``sample(8)`` of a new sampler
    makes. ``first_index=0`` repeats the first call's; it does not move :attr:`next_index`.

    Threads may share a sampler. A pickled one carries the name of its checkpoint, not the
    weights, and its ``next_index``: processes that share work must be told their ``first_index``.

    Parameters
    ----------
    model : str, Path or ADiT
        ``"default"`` (the bundled weights), a checkpoint file, or a loaded model, which is copied
        if it must be moved or cast.
    device : str
        ``"auto"`` (where a loaded model is; else a GPU if there is one), ``"cpu"``, ``"cuda"``,
        ``"cuda:1"``.
    dtype : str or None
        ``"float32"`` or ``"float64"``, of the network; None keeps that of a loaded model, and is
        float32 of a checkpoint.
    seed : int
        Of all random numbers.
    condition : Condition or str
        What is asked for where a method is not told; see
        :class:`~adit_model.conditions.condition.Condition`.
    domain : str
        Added to it: ``"crystal"``, ``"molecule"``, or ``"both"``, which leaves it free.
    num_steps, solver, guidance_scale, noise_scale, symmetry
        See :class:`adit_model.config.SamplingConfig`; None takes the checkpoint's.
    workers : int or None
        Threads that share the batches on a CPU; None takes the cores that may be used. It changes
        memory and speed, not the structures.
    check : bool
        Check whether they are plausible, see :func:`adit_model.quality.records.record_samples`.
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
        dtype: str | None = None,
        seed: int = 0,
        *,
        condition: ConditionLike = None,
        domain: str = "both",
        num_steps: int | None = None,
        solver: str | None = None,
        guidance_scale: float | str | Mapping[str, float] | None = None,
        noise_scale: float | str | Mapping[str, float] | None = None,
        symmetry: str | None = None,
        workers: int | None = None,
        check: bool = True,
        progress: bool = True,
    ) -> None:
        if not isinstance(device, str) or not _DEVICE.fullmatch(device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:1, got {device!r}")
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        check_positive("workers", workers)
        self.device, self.dtype, self.seed, self.workers = device, dtype, seed, workers
        self._model: ADiT | None = None
        self._checkpoint = ""
        if isinstance(model, str | Path):
            path = resolve_checkpoint(model)
            self._checkpoint = str(model) if str(model) in BUNDLED else str(path.resolve())
            self._known, self._config = read_known(path)
        else:
            self._model = _adapted(model, device, dtype)
            self._config, self._known = model.config, model.known
        self._sampling: dict[str, Any] = {
            "num_steps": num_steps,
            "solver": solver,
            "guidance_scale": guidance_scale,
            "noise_scale": noise_scale,
            "symmetry": symmetry,
        }
        self.condition = as_condition(condition, domain=domain)
        self.check, self.progress = check, progress
        self.next_index = 0
        self.finished = SampleList()
        self._lock = threading.RLock()
        Request.of(1, self.condition, seed=seed, **self._sampling)  # checks the values
        self._known.domains_for(self.condition)

    @property
    def model(self) -> ADiT:
        """The model; loaded when first needed."""
        with self._lock:
            if self._model is None:
                from adit_model.model import ADiT

                loaded = ADiT.load(self._checkpoint, self.device)
                self._model = _adapted(loaded, "auto", self.dtype)
            return self._model

    def _request(
        self,
        n: int,
        condition: ConditionLike | Sequence[ConditionLike] = None,
        first_index: int | None = None,
        take: bool = False,
        batch_atoms: int | None = None,
        **options: Any,
    ) -> Request:
        """Build and check a request; ``take`` takes its indices unless it says its first."""
        check_positive("batch_atoms", batch_atoms)
        if condition is None:
            condition = self.condition
            if options.get("domain") is not None:  # goes before that of the sampler
                condition = replace(condition, domain=None)
        with self._lock:
            first = self.next_index if first_index is None else first_index
            options = {**self._sampling, **options}
            request = Request.of(n, condition, seed=self.seed, first_index=first, **options)
            request.check(self._known, self._config)
            if take and first_index is None:
                self.next_index += request.n
        return request

    # generating

    def sample(
        self,
        n: int = 8,
        condition: ConditionLike | Sequence[ConditionLike] = None,
        *,
        first_index: int | None = None,
        batch_atoms: int | None = None,
        only_holding: bool = False,
        max_tries: int = 20,
        **options: Any,
    ) -> SampleList:
        """Generate n structures.

        Parameters
        ----------
        n : int
            How many samples. Those that cannot be decoded are in ``.missing`` of the list, with
            the reason, and are not replaced.
        condition : Condition, str, or a sequence of n of them
            What is asked of them, ``"Li-P-S, atoms=4-12"``; by default that of the sampler.
        first_index : int, optional
            Index of the first sample; by default the call takes the next n indices.
        batch_atoms : int, optional
            Atoms integrated at a time; changes memory and speed, not the structures.
        only_holding : bool
            Draw on, with consecutive indices, until n are plausible and hold what was asked.
        max_tries : int
            At most so many times n samples are then drawn; if fewer hold, a warning says so.
        **options
            ``domain``, ``num_atoms``, ``random_rotation``: see
            :meth:`adit_model.sampling.request.Request.of`.

        Returns
        -------
        SampleList
            A list of ``ase.Atoms``, whose ``info`` holds ``seed``, ``index``, ``domain``,
            ``source``, ``plausible`` and, where it is not, ``reason``; where something was asked
            for, ``condition`` and ``holds``. ``.tried`` says how many samples it took.

        Raises
        ------
        ValueError, TypeError
            If the request is out of range; before any work.
        SamplingInterrupted
            A ``KeyboardInterrupt``; what is done by then is in :attr:`finished`.
        """
        request = self._request(n, condition, first_index, not only_holding, batch_atoms, **options)

        def draw(part: Request) -> list[Sample]:
            return self.model.sample(
                part, batch_atoms=batch_atoms, workers=self.workers, progress=self.progress
            )

        try:
            if not only_holding:
                return self._finish(draw(request))
            from adit_model.quality.holding import sample_held

            found = sample_held(draw, request, max_tries)
        except SamplingInterrupted as error:
            self.finished = SampleList.from_samples(error.samples, check=False)
            raise
        if first_index is None:
            self.next_index = max(self.next_index, request.first_index + found.tried)
        result = SampleList.from_samples(found.samples)
        result.tried = found.tried
        return result

    def iter_sample(
        self,
        n: int | None = None,
        condition: ConditionLike | Sequence[ConditionLike] = None,
        *,
        first_index: int | None = None,
        batch_atoms: int | None = None,
        **options: Any,
    ) -> Iterator[Atoms]:
        """Generate structures and yield those of each batch as it is finished.

        The structures are those of :meth:`sample`, in another order: by domain and atom count.

        Parameters
        ----------
        n : int, optional
            How many samples; without it the stream goes on until it is left, taking indices as
            it goes.
        condition, first_index, batch_atoms, **options
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
        listed = isinstance(options.get("num_atoms"), list)
        if n is None and (listed or not isinstance(condition, Condition | str | Mapping | None)):
            raise ValueError("a list with an entry for each sample needs n")
        count = STREAM_CHUNK if n is None else n
        self._request(count, condition, first_index, False, batch_atoms, **options)
        return self._stream(n, condition, first_index, batch_atoms, options)

    def _stream(
        self,
        n: int | None,
        condition: ConditionLike | Sequence[ConditionLike],
        first_index: int | None,
        batch_atoms: int | None,
        options: dict[str, Any],
    ) -> Iterator[Atoms]:
        from adit_model.sampling.sampler import iter_samples

        while True:
            count = STREAM_CHUNK if n is None else n
            request = self._request(count, condition, first_index, True, **options)
            progress = self.progress and n is not None
            for samples in iter_samples(
                self.model,
                request,
                batch_atoms=batch_atoms,
                workers=self.workers,
                progress=progress,
            ):
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
        asked = Condition(domain=system.domain, num_atoms=len(system))
        options = {"random_rotation": random_rotation}
        request = self._request(n, asked, first_index, True, batch_atoms, **options)
        samples = variations(
            self.model,
            system,
            request,
            strength=strength,
            batch_atoms=batch_atoms,
            workers=self.workers,
            progress=self.progress,
        )
        return self._finish(samples)

    def complete(
        self,
        atoms: Atoms,
        add: Mapping[str, int] | str | int,
        n: int = 10,
        *,
        fixed: Sequence[Any] | np.ndarray | str | None = None,
        relax: str = "none",
        first_index: int | None = None,
        batch_atoms: int | None = None,
    ) -> SampleList:
        """Add atoms to a host whose own atoms and cell stay as they are.

        Parameters
        ----------
        atoms : ase.Atoms
            The host.
        add : mapping, str or int
            ``{"Li": 2}``, ``"Li2"``, or a number of atoms whose elements are free.
        n : int
            Candidates to generate.
        fixed : sequence, str or None
            Which atoms of the host are fixed: indices, a mask, or elements; None fixes all. The
            others are made anew.
        relax : str
            ``"chgnet"``, ``"sevennet"`` or ``"xtb"``: what relaxes the added atoms while the host
            is held, and then all atoms; ``"none"`` moves nothing.
        first_index, batch_atoms
            See :meth:`sample`.

        Returns
        -------
        SampleList
            Different candidates, the lowest in energy first, without energies what most samples
            agree on. The atoms of the host come first, in its cell, order and coordinates.
            ``info`` holds ``index``, ``samples`` (how many became this one) and, once relaxed,
            ``energy_per_atom``; ``.missing`` says why a sample is not among them.

        Raises
        ------
        ValueError, TypeError
            If the host cannot be completed or the request is out of range; before any work.
        ModuleNotFoundError
            If what relaxes is not installed.

        Examples
        --------
        >>> from ase.build import bulk
        >>> sodium = bulk("Na", "fcc", a=5.64)
        >>> found = ADiTSampler("mini-2", progress=False).complete(sodium, {"Cl": 1}, 2)
        """
        from adit_model.prediction.complete import complete, task

        check_positive("batch_atoms", batch_atoms)
        with self._lock:
            first = self.next_index if first_index is None else first_index
            asked = task(
                self._known,
                self._config,
                atoms,
                add,
                n,
                fixed=fixed,
                engine=relax,
                seed=self.seed,
                first_index=first,
                **self._sampling,
            )
            if first_index is None:
                self.next_index += n
        found = complete(
            self.model, asked, workers=self.workers, batch_atoms=batch_atoms, progress=self.progress
        )
        result = SampleList()
        for candidate in found.candidates:
            info: dict[str, Any] = {"index": candidate.index, "samples": len(candidate.samples)}
            if candidate.energy is not None:
                info["energy_per_atom"] = candidate.energy
            result.append(_atoms(candidate.system, {**info, "domain": candidate.system.domain}))
        result.missing.update(found.dropped)
        return result

    def trajectory(
        self, condition: ConditionLike = None, *, index: int | None = None, **options: Any
    ) -> SampleList:
        """Show how noise becomes one sample, step by step.

        Parameters
        ----------
        condition, **options
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

        request = self._request(1, condition, index, True, **options)
        points = trajectory(self.model, request)
        info = {"seed": request.seed, "index": request.first_index}
        return _path_atoms(points, "time", info)

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


def _adapted(model: ADiT, device: str, dtype: str | None) -> ADiT:
    """Return the model on a device and in a dtype: a copy, unless it is so already."""
    import torch

    from adit_model.model import resolve_device

    wanted = model.device if device == "auto" else resolve_device(device)
    kind = model.dtype if dtype is None else getattr(torch, dtype)
    if (model.device, model.dtype, model.training) == (wanted, kind, False):
        return model
    return copy.deepcopy(model).to(wanted, kind).eval()


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
