"""What is asked of the sampler: checked requests, each drawn from seed and index alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adit_model.config import SamplingConfig
from adit_model.geometry import random_rotation as draw_rotation
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE

if TYPE_CHECKING:
    from adit_model.model import ADiT

BOTH = "both"


@dataclass(frozen=True)
class Request:
    """One sample to be made: its index, domain, atom count and noise.

    ``origin``, shape (num_atoms, L), are the normalised latents it starts from where that is not
    noise alone; ``elements``, shape (num_atoms,), is what the denoiser is told of the elements.
    """

    index: int
    domain: str
    num_atoms: int
    noise: np.ndarray
    rotation: np.ndarray
    seed: int
    origin: np.ndarray | None = None
    elements: np.ndarray | None = None

    def fresh_noise(self, num_steps: int, settings: SamplingConfig) -> np.ndarray:
        """Noise that the ancestral solver renews, shape (num_steps - 1, num_atoms, L)."""
        generator = np.random.default_rng([self.seed, self.index, 1])
        shape = (num_steps - 1, *self.noise.shape)
        return np.float32(settings.noise_scale) * generator.standard_normal(shape, np.float32)


def check_request(
    n: int,
    domain: str,
    seed: int,
    num_atoms: int | tuple[int, int] | Sequence[int] | None,
    batch_atoms: int | None = None,
    sizes: Mapping[str, Mapping[str, int]] | None = None,
    first_index: int = 0,
) -> None:
    """Check what is asked for before any work starts; needs no model.

    Parameters
    ----------
    n, domain, seed, num_atoms, batch_atoms
        As for :func:`sample`.
    sizes : mapping
        The checkpoint's ``statistics["sizes"]``, to check domain and atom counts against.
    first_index : int
        As for :func:`sample`.

    Raises
    ------
    ValueError
        If a value is out of range.
    TypeError
        If a value has the wrong type.
    """
    integers = {"n": n, "seed": seed, "batch_atoms": batch_atoms, "first_index": first_index}
    for name, value in integers.items():
        if name == "batch_atoms" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {value!r}")
    if n <= 0:
        raise ValueError(f"n must be a positive integer, got {n}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if first_index < 0:
        raise ValueError(f"first_index must not be negative, got {first_index}")
    if batch_atoms is not None and batch_atoms <= 0:
        raise ValueError(f"batch_atoms must be positive, got {batch_atoms}")
    if domain not in (*DOMAINS, BOTH):
        raise ValueError(f"domain must be one of crystal, molecule, both, got {domain!r}")
    if sizes is not None:
        trained = [d for d in DOMAINS if sizes.get(d)]
        wanted = DOMAINS if domain == BOTH else (domain,)
        for name in wanted:
            if name not in trained:
                raise ValueError(
                    f"the checkpoint was not trained on domain {name!r}, "
                    f"only on {', '.join(trained) or 'none'}"
                )
    counts = requested_counts(num_atoms, n)
    if counts is None:
        return
    if min(counts) < 1:
        raise ValueError(f"num_atoms must be positive, got {num_atoms!r}")
    if sizes is None:
        return
    listed = not isinstance(num_atoms, int | np.integer | tuple)
    for name in wanted:
        known = [int(k) for k in sizes[name]]
        mine = counts
        if listed:  # each count belongs to one sample, of one domain
            mine = [
                c for i, c in enumerate(counts, first_index) if sample_domain(i, domain) == name
            ]
        outside = [c for c in mine if not min(known) <= c <= max(known)]
        if outside:
            raise ValueError(
                f"num_atoms {outside[0]} leaves the range the checkpoint knows for {name}s: "
                f"{min(known)} to {max(known)}"
            )


def sample_domain(index: int, domain: str) -> str:
    """Domain of sample ``index`` of a request: of ``"both"``, crystals are at even indices."""
    if domain != BOTH:
        return domain
    return CRYSTAL if index % 2 == 0 else MOLECULE


def requested_counts(
    num_atoms: int | tuple[int, int] | Sequence[int] | None, n: int
) -> list[int] | None:
    """Atom counts that ``num_atoms`` allows: one, a range's two ends, or one for each sample.

    Raises
    ------
    TypeError
        If it is none of int, (low, high) tuple and list of ints.
    ValueError
        If a range is empty or a list has not n entries.
    """
    if num_atoms is None:
        return None
    try:
        values = [num_atoms] if isinstance(num_atoms, int | np.integer) else list(num_atoms)
    except TypeError:
        values = [None]  # type: ignore[list-item]
    if any(isinstance(v, bool) or not isinstance(v, int | np.integer) for v in values):
        raise TypeError(
            f"num_atoms must be an integer, a (low, high) pair or {n} integers, got {num_atoms!r}"
        )
    if isinstance(num_atoms, tuple):
        if len(values) != 2 or values[0] > values[1]:
            raise ValueError(f"a range of num_atoms must be (low, high), got {num_atoms!r}")
    elif not isinstance(num_atoms, int | np.integer) and len(values) != n:
        raise ValueError(f"num_atoms lists {len(values)} atom counts for {n} samples")
    return [int(v) for v in values]


def count_of(
    num_atoms: int | tuple[int, int] | Sequence[int] | None, place: int
) -> int | tuple[int, int] | None:
    """Find what a request says of the atom count of its sample number ``place``."""
    if num_atoms is None or isinstance(num_atoms, int | np.integer | tuple):
        return num_atoms
    return int(num_atoms[place])


def make_request(
    model: ADiT,
    index: int,
    domain: str,
    seed: int,
    num_atoms: int | tuple[int, int] | None,
    origin: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
) -> Request:
    """Draw atom count, noise, rotation and elements of one sample, from seed and index alone.

    Parameters
    ----------
    model : ADiT
        Whose statistics to draw from.
    index, domain, seed, num_atoms
        As for :func:`sample`.
    origin : numpy.ndarray
        See :class:`Request`.
    numbers : numpy.ndarray
        Elements of its atoms, shape (N,); without, those of a training molecule are drawn.
    """
    generator = np.random.default_rng([seed, index])
    domain = sample_domain(index, domain)
    histogram = dict(model.known.sizes[domain])
    if isinstance(num_atoms, int | np.integer):
        count = int(num_atoms)
    else:
        low, high = num_atoms if num_atoms is not None else (min(histogram), max(histogram))
        allowed = [k for k in sorted(histogram) if low <= k <= high] or [low]
        weights = np.array([histogram.get(k, 1) for k in allowed], dtype=np.float64)
        count = int(generator.choice(allowed, p=weights / weights.sum()))
    noise = generator.standard_normal((count, model.config.autoencoder.latent_dim), np.float32)
    elements = None
    if domain == MOLECULE and model.config.denoiser.element_condition:
        if numbers is None:
            drawn = np.random.default_rng([seed, index, 2])
            elements = model.element_orders.draw(count, drawn)
        else:
            elements = numbers
    rotation = draw_rotation(generator)
    return Request(index, domain, count, noise, rotation, seed, origin, elements)
