"""ADiT: both stages, and what they can be told."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from adit_model.batch import AtomicBatch
from adit_model.canonical import canonicalise
from adit_model.checkpoint import (
    CheckpointError,
    known_of,
    read_checkpoint,
    read_metadata,
    resolve_checkpoint,
    write_checkpoint,
)
from adit_model.conditions.atoms import ElementChoice, ElementOrders
from adit_model.conditions.known import Known
from adit_model.config import ModelConfig
from adit_model.network.decoding import decode_latents, raw_to_system
from adit_model.network.denoiser import Denoiser
from adit_model.network.estimator import Estimator, features
from adit_model.network.exact import build_autoencoder
from adit_model.network.groups import DomainGroups
from adit_model.systems import AtomicSystem, as_list

if TYPE_CHECKING:
    from adit_model.sampling.request import ConditionLike, Request
    from adit_model.sampling.sample import Sample

LICENCE = "MIT"
PARTS = ("denoiser", "estimator")  # that a checkpoint may lack
# A forked child has none of the kernel threads that PyTorch would wait for.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class ADiT(nn.Module):
    """All-atom Diffusion Transformer.

    Parameters
    ----------
    config : ModelConfig
        Hyper-parameters of both stages.
    known : Known
        What it can be told; nothing for a new model.
    element_orders : ElementOrders
        Orders of the elements of training molecules, to draw from.
    metadata : mapping
        What else the checkpoint says (training, metrics).
    with_denoiser : bool
        False for a stage-1 checkpoint.
    with_estimator : bool
        Whether it estimates properties, see :meth:`estimate`.
    """

    def __init__(
        self,
        config: ModelConfig,
        known: Known | None = None,
        element_orders: ElementOrders | None = None,
        metadata: Mapping[str, Any] | None = None,
        with_denoiser: bool = True,
        with_estimator: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.known = Known() if known is None else known
        self.element_orders = ElementOrders({}) if element_orders is None else element_orders
        self.metadata = dict(metadata or {})
        self.autoencoder = build_autoencoder(config.autoencoder)
        self.denoiser: Denoiser | None = None
        if with_denoiser:
            self.denoiser = Denoiser(
                config.denoiser,
                config.autoencoder.latent_dim,
                config.autoencoder.coordinate_scale,
                config.autoencoder.exact,
            )
        self.estimator = Estimator(config.denoiser) if with_estimator else None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights."""
        return next(self.parameters()).dtype

    @property
    def checkpoint_hash(self) -> str:
        """Content hash of the checkpoint the model came from, empty for a new model."""
        return str(self.metadata.get("hash", ""))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains the model was trained on."""
        return self.known.domains

    # checkpoints

    @classmethod
    def load(cls, name_or_path: str | Path = "default", device: str = "auto") -> ADiT:
        """Load a checkpoint.

        Parameters
        ----------
        name_or_path : str or Path
            ``"default"`` (the bundled weights), another registered name, or a file.
        device : str
            ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...

        Raises
        ------
        CheckpointError
            If there is no such checkpoint or it cannot be used.
        """
        path = resolve_checkpoint(name_or_path)
        tensors, metadata, orders = read_checkpoint(path)
        known, config = known_of(path, metadata)
        tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        parts = [any(name.startswith(f"{part}.") for name in tensors) for part in PARTS]
        _check_size(path, config, tensors, *parts)
        model = cls(config, known, orders, metadata, *parts)
        _check_tensors(path, model.state_dict(), tensors)
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise CheckpointError(f"{path}: {name} holds values that are not finite")
        model.load_state_dict(tensors)
        return model.to(resolve_device(device)).eval()

    def save(
        self, path: str | Path, metadata: Mapping[str, Any] | None = None, half: bool = False
    ) -> str:
        """Write the model to one file.

        Parameters
        ----------
        path : str or Path
            Target ``.safetensors`` file.
        metadata : mapping
            Added to the metadata of the model (training, metrics).
        half : bool
            Store float16; loading gives float32 again.

        Returns
        -------
        str
            The content hash.

        Raises
        ------
        ValueError
            If float16 is asked for and cannot hold a weight.
        """
        merged: dict[str, Any] = {**self.metadata, **(metadata or {})}
        known = self.known.as_dict()
        full = Known.of_checkpoint(self.config.as_dict(), {"sizes": known["sizes"]}).as_dict()
        known["elements"] = {  # what was not listed is not listed now
            k: z for k, z in known["elements"].items() if z != full["elements"].get(k)
        }
        merged.update(config=self.config.as_dict(), known=known)
        merged.setdefault("licence", LICENCE)
        tensors = self.state_dict()
        if half:
            tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
            for name, tensor in tensors.items():
                if not tensor.isfinite().all():
                    raise ValueError(f"float16 cannot hold all values of {name}: use half=False")
        write_checkpoint(path, tensors, merged, self.element_orders)
        self.metadata = read_metadata(path)
        return self.checkpoint_hash

    # stage 1

    def prepare(self, structure: Any) -> AtomicSystem:
        """Bring a structure into the canonical form that the networks are trained on.

        Parameters
        ----------
        structure : AtomicSystem, pymatgen Structure or Molecule, ase.Atoms, RDKit Mol
            In any order, orientation and cell; see :func:`~adit_model.canonical.canonicalise`.
        """
        return canonicalise(AtomicSystem.from_any(structure)).system

    def encode(self, structures: Sequence[Any], batch_atoms: int = 4096) -> list[np.ndarray]:
        """Mean latents of each structure, shape (N, latent_dim) each.

        They are those of the canonical form, so they depend neither on the order of the atoms nor
        on orientation and cell; row i is that of atom i of the input, images of one atom of the
        primitive cell having equal rows. With an exact autoencoder those of a crystal have one row
        more, the last, for the primitive cell.

        Parameters
        ----------
        structures : sequence
            As of :meth:`prepare`; or one.
        batch_atoms : int
            Atoms encoded at a time.

        Raises
        ------
        ValueError
            If an element is outside the vocabulary, or a cell is unphysical.
        """
        forms = [canonicalise(AtomicSystem.from_any(item)) for item in as_list(structures)]
        latents = self.encode_prepared([form.system for form in forms], batch_atoms)
        return [
            np.concatenate([values[form.atoms], values[len(form.system) :]])
            for form, values in zip(forms, latents, strict=True)
        ]

    @torch.no_grad()
    def encode_prepared(
        self, systems: Sequence[AtomicSystem], batch_atoms: int = 4096
    ) -> list[np.ndarray]:
        """Mean latents of systems as they are, which is expected to be as of :meth:`prepare`.

        Raises
        ------
        ValueError
            If an element is outside the vocabulary.
        """
        limit = self.config.autoencoder.num_elements
        for i, system in enumerate(systems):
            if system.numbers.max() >= limit:
                raise ValueError(
                    f"system {i} holds element {system.numbers.max()}, "
                    f"the model knows atomic numbers 1 to {limit - 1}"
                )
        latents: list[np.ndarray] = []
        for chunk in chunks([len(s) for s in systems], batch_atoms):
            batch = AtomicBatch.collate([systems[i] for i in chunk]).to(self.device, self.dtype)
            mean, _ = self.autoencoder.encode(batch)
            latents += np.split(
                mean.float().cpu().numpy(),
                np.cumsum([self.num_rows(systems[i]) for i in chunk])[:-1],
            )
        return latents

    def num_rows(self, system: AtomicSystem) -> int:
        """Rows of latents of a system: its atoms, and the cell where that has one."""
        return len(system) + int(self.config.autoencoder.exact and system.is_periodic)

    @torch.no_grad()
    def reconstruct(
        self, structures: Sequence[Any], batch_atoms: int = 4096
    ) -> list[AtomicSystem | None]:
        """Encode and decode structures; None where the decoded cell is unphysical.

        Parameters
        ----------
        structures : sequence
            As of :meth:`prepare`; or one.
        batch_atoms : int
            Atoms handled at a time.

        Returns
        -------
        list of AtomicSystem or None
            In the order of atoms, orientation and cell of the input; where the input is symmetric
            and its reconstruction is not, up to an operation of that symmetry. What is
            reconstructed is the canonical form, so the images of one atom of the primitive cell
            come back as images.
        """
        forms = [canonicalise(AtomicSystem.from_any(item)) for item in as_list(structures)]
        systems = [form.system for form in forms]
        latents = self.encode_prepared(systems, batch_atoms)
        result: list[AtomicSystem | None] = []
        for chunk in chunks([len(s) for s in systems], batch_atoms):
            packed = torch.from_numpy(np.concatenate([latents[i] for i in chunk]))
            packed = packed.to(self.device, self.dtype)
            sizes = torch.tensor([len(systems[i]) for i in chunk], device=self.device)
            periodic = torch.tensor([systems[i].is_periodic for i in chunk], device=self.device)
            for i, raw in zip(chunk, self.decode(packed, sizes, periodic), strict=True):
                system = raw_to_system(raw)[0]
                result.append(None if system is None else forms[i].restore(system))
        return result

    def decode(
        self,
        latents: Tensor,
        sizes: Tensor,
        periodic: Tensor,
        choices: Sequence[ElementChoice | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Decode packed latents; see :func:`adit_model.network.decoding.decode_latents`."""
        return decode_latents(self.autoencoder, latents, sizes, periodic, choices)

    # stage 2

    @torch.no_grad()
    def estimate(
        self, structures: Sequence[Any], batch_atoms: int = 4096
    ) -> list[dict[str, float]]:
        """Estimate properties of finished structures.

        Parameters
        ----------
        structures : sequence
            As of :meth:`prepare`; or one.
        batch_atoms : int
            Atoms handled at a time.

        Returns
        -------
        list of dict
            Of each structure, by name, the properties that the weights estimate in its domain. The
            unit and the mean error are in ``known.properties``.

        Raises
        ------
        ValueError
            If the weights estimate none, or as :meth:`encode`.
        """
        if self.denoiser is None or self.estimator is None:
            raise ValueError("these weights do not estimate properties: train them with some")
        systems = [self.prepare(item) for item in as_list(structures)]
        found: list[dict[str, float]] = []
        for chunk in chunks([len(s) for s in systems], batch_atoms):
            part = [systems[i] for i in chunk]
            latents = torch.from_numpy(np.concatenate(self.encode_prepared(part, batch_atoms)))
            latents = latents.to(self.device, self.dtype)
            batch = AtomicBatch.collate(part).to(self.device, self.dtype)
            cells = self.config.autoencoder.exact
            groups = DomainGroups.of_atoms(batch.packing.sizes, batch.periodic, cells=cells)
            numbers = groups.kinds.new_zeros(len(latents))
            numbers = numbers.index_copy(0, groups.atoms, batch.numbers)
            x_1 = self.denoiser.normalise(latents, groups.kinds)
            seen = features(self.denoiser, x_1, groups, numbers)
            values = self.estimator(seen.to(self.dtype)).tolist()
            for system, row in zip(part, values, strict=True):
                found.append(
                    {
                        name: scale.mean + scale.std * row[i]
                        for i, name in enumerate(self.config.denoiser.properties)
                        if (scale := self.known.properties.get(name)) is not None
                        and scale.error is not None
                        and math.isfinite(row[i])
                        and system.domain in scale.domains
                    }
                )
        return found

    def sample(
        self,
        n: int | Request,
        condition: ConditionLike | Sequence[ConditionLike] = None,
        *,
        batch_atoms: int | None = None,
        workers: int | None = None,
        progress: bool = True,
        only_holding: bool = False,
        max_tries: int = 20,
        **options: Any,
    ) -> list[Sample]:
        """Generate structures.

        Parameters
        ----------
        n : int or Request
            How many; or all that is asked for.
        condition : Condition, str, mapping, or a sequence of n of them
            What is asked of them: ``"Li-P-S, atoms=4-12"``. See
            :class:`~adit_model.conditions.condition.Condition`.
        batch_atoms, workers : int
            Atoms integrated at a time, and threads that do so on a CPU; None chooses. They change
            memory and speed, not the samples; see :func:`adit_model.sampling.sampler.sample`.
        progress : bool
            Show a progress bar.
        only_holding : bool
            Draw on, with consecutive indices, until n are plausible and hold what was asked.
        max_tries : int
            At most so many times n samples are then drawn; if fewer hold, a warning says so.
        **options
            ``seed``, ``domain``, ``num_atoms``, ``num_steps``, ``solver``, ``guidance_scale``,
            ``noise_scale``, ``symmetry``, ``first_index``, ``random_rotation``: see
            :meth:`adit_model.sampling.request.Request.of`.

        Returns
        -------
        list of Sample
            In the order of the indices. A sample whose cell is unphysical has ``system`` None and
            a ``reason``; none is replaced.

        Raises
        ------
        ValueError, TypeError
            If the request is out of range; before any work.

        Examples
        --------
        >>> model.sample(16, "Li-P-S", seed=0, num_steps=25)  # doctest: +SKIP
        """
        from adit_model.sampling.request import Request
        from adit_model.sampling.sampler import sample

        request = Request.of(n, condition, **options)

        def draw(part: Request) -> list[Sample]:
            return sample(self, part, batch_atoms=batch_atoms, workers=workers, progress=progress)

        if not only_holding:
            return draw(request)
        from adit_model.quality.holding import sample_held

        return sample_held(draw, request, max_tries).samples


def _check_size(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    with_denoiser: bool,
    with_estimator: bool,
) -> None:
    """Compare a file with its configuration before memory is asked for, as far as it sets sizes."""
    encoder, denoiser = config.autoencoder, config.denoiser
    layers = encoder.num_encoder_layers + encoder.num_decoder_layers
    layers += denoiser.num_layers if with_denoiser else 0
    if layers > len(tensors):
        raise CheckpointError(
            f"{path} holds {len(tensors)} tensors, its configuration asks for {layers} layers"
        )
    plain = replace(config, autoencoder=replace(encoder, encoder="transformer"))
    try:
        with torch.device("meta"):  # shapes without memory; e3nn's layers cannot be made so
            empty = ADiT(plain, with_denoiser=with_denoiser, with_estimator=with_estimator)
            wanted = empty.state_dict()
    except (RuntimeError, TypeError, OverflowError) as error:  # beyond what torch can count
        raise CheckpointError(f"{path} has a configuration of no possible size") from error
    if encoder.encoder != "transformer":
        inside = "autoencoder.encoder."
        wanted = {name: value for name, value in wanted.items() if not name.startswith(inside)}
        tensors = {name: value for name, value in tensors.items() if not name.startswith(inside)}
    _check_tensors(path, wanted, tensors)


def _check_tensors(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    if missing := sorted(set(wanted) - set(found)):
        raise CheckpointError(f"{path} lacks {len(missing)} tensors, the first is {missing[0]!r}")
    if unknown := sorted(set(found) - set(wanted)):
        raise CheckpointError(
            f"{path} holds {len(unknown)} unknown tensors, the first is {unknown[0]!r}"
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(found[name].shape)}, "
                f"the configuration says {tuple(tensor.shape)}"
            )


def resolve_device(device: str) -> torch.device:
    """Turn ``"auto"`` or a torch device name into a device that is there.

    Raises
    ------
    ValueError
        If the name is unknown or the device is absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}: use auto, cpu or cuda") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch finds no CUDA GPU")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} was asked for, but torch finds {torch.cuda.device_count()} GPUs"
        )
    return resolved


def chunks(sizes: Sequence[int], batch_atoms: int) -> Iterable[list[int]]:
    """Divide 0..len(sizes)-1 into runs of at most ``batch_atoms`` atoms (at least one system)."""
    chunk: list[int] = []
    total = 0
    for i, size in enumerate(sizes):
        if chunk and total + size > batch_atoms:
            yield chunk
            chunk, total = [], 0
        chunk.append(i)
        total += size
    if chunk:
        yield chunk
