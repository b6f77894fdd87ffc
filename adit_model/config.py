"""Every hyper-parameter of the model, typed, and the named sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

from adit_model.systems import DOMAINS

ENCODERS = ("transformer", "equivariant")
SOLVERS = ("euler", "midpoint", "heun", "ancestral", "multistep")
SYMMETRIES = ("asked", "known", "found", "free")

GUIDED_KINDS = ("elements", "formula", "space_group", "properties")

T = TypeVar("T")
Weights = float | str  # one number, or a text of one for each name
Domain = Literal["crystal", "molecule", "both"]


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")


def _not_negative(config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f"{name} must be zero or positive, got {getattr(config, name)}")


def _share(config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} must lie in 0..1, got {getattr(config, name)}")


def _width(dim: int, num_heads: int) -> None:
    if dim % 2:
        raise ValueError(f"dim must be even, got {dim}")
    if dim % num_heads:
        raise ValueError(f"dim {dim} must be a multiple of num_heads {num_heads}")


@dataclass(frozen=True)
class AutoencoderConfig:
    """Stage 1.

    Parameters
    ----------
    encoder : str
        ``"transformer"`` or ``"equivariant"`` (e3nn).
    dim, num_heads, num_encoder_layers, num_decoder_layers : int
        Width, attention heads and depth of the two transformers.
    latent_dim : int
        Latent channels of one atom.
    num_elements : int
        Size of the element vocabulary: atomic numbers 1 to ``num_elements - 1``; 0 is the mask.
    identity_start : bool
        Latent channels 0 to 2 start as the scaled coordinates and the coordinate heads read them
        back, so that training starts from a perfect copy. Needs ``canonical`` data.
    geometry : bool
        Distance-aware attention in the decoder (needs ``identity_start``).
    canonical : bool
        Train on canonical poses; otherwise on random rotations and translations (the paper).
    cell_input : bool
        Show the six lattice parameters to every atom of the encoder.
    coordinate_scale : float
        Latent units per angstrom at an identity start.
    log_variance_start : float
        Bias the log-variance starts from.
    kl_weight, coordinate_weight, length_weight, angle_weight : float
        Weights of the loss terms beside the cross-entropy of the elements.
    mask_fraction, noise_fraction, noise_angstrom : float
        Share of the atoms whose element is masked, whose position gets Gaussian noise, and its
        standard deviation.
    latent_noise : float
        Largest standard deviation of extra noise on the latents of half the systems, which
        teaches the decoder to mend what the denoiser leaves imprecise; with ``exact`` in units of
        the spread of the code of the elements.
    exact : bool
        No loss of geometry and no order of atoms: latent channels 0 to 2 are the scaled
        coordinates, a crystal has one row more for its cell, and what is learned is a code of the
        elements; see :class:`adit_model.network.exact.ExactAutoencoder`. Needs ``identity_start``.
    """

    encoder: str = "transformer"
    dim: int = 512
    num_heads: int = 8
    num_encoder_layers: int = 8
    num_decoder_layers: int = 8
    latent_dim: int = 8
    num_elements: int = 100
    identity_start: bool = False
    geometry: bool = False
    canonical: bool = False
    cell_input: bool = True
    coordinate_scale: float = 0.3
    log_variance_start: float = 0.0
    kl_weight: float = 1e-5
    coordinate_weight: float = 10.0
    length_weight: float = 1.0
    angle_weight: float = 10.0
    mask_fraction: float = 0.1
    noise_fraction: float = 0.1
    noise_angstrom: float = 0.1
    latent_noise: float = 0.0
    exact: bool = False

    def __post_init__(self) -> None:
        _one_of("encoder", self.encoder, ENCODERS)
        _positive(self, "dim", "num_heads", "num_decoder_layers", "latent_dim", "coordinate_scale")
        _not_negative(self, "num_encoder_layers", "noise_angstrom", "latent_noise")
        _not_negative(self, "kl_weight", "coordinate_weight", "length_weight", "angle_weight")
        _share(self, "mask_fraction", "noise_fraction")
        _width(self.dim, self.num_heads)
        if self.num_elements < 2:
            raise ValueError(f"num_elements must be at least 2, got {self.num_elements}")
        if not -20 <= self.log_variance_start <= 10:
            raise ValueError(
                f"log_variance_start must lie in -20..10, got {self.log_variance_start}"
            )
        if self.identity_start and not self.canonical:
            raise ValueError("identity_start needs canonical poses: set canonical to true")
        if self.identity_start and self.encoder != "transformer":
            raise ValueError("identity_start is a property of the transformer encoder")
        if self.geometry and not self.identity_start:
            raise ValueError("geometry in the decoder needs identity_start")
        if self.exact and not (self.identity_start and self.latent_dim >= 6):
            raise ValueError("exact needs identity_start and latent_dim >= 6")
        if self.identity_start and self.latent_dim < 4:
            raise ValueError(f"identity_start needs latent_dim >= 4, got {self.latent_dim}")


@dataclass(frozen=True)
class DenoiserConfig:
    """Stage 2, the Diffusion Transformer.

    Parameters
    ----------
    dim, num_layers, num_heads : int
        Width, depth and attention heads.
    size_condition : bool
        Condition on the number of atoms, which is known before sampling.
    geometry : bool
        Attention sees the distances between the atoms of the current estimate and their
        direction (latent channels 0 to 2 must be coordinates: ``identity_start``).
    geometry_every : int
        Blocks between two updates of that estimate.
    precondition : bool
        Predict x_1 as a time-dependent mix of x_t and the network's output (Karras et al. 2022,
        section 5, for the linear interpolant), so the output stays of unit scale as t -> 1.
    class_dropout : float
        Share of the systems whose domain is hidden, for classifier-free guidance.
    self_condition : float
        Probability of a self-conditioned training step.
    time_clip : float
        The error is divided by 1 - min(t, time_clip).
    time_skew : float
        t is drawn from Beta(1 + time_skew, 1) in [0.01, 0.99]; 0 is uniform (the paper).
    time_focus : float
        Share of the training times drawn instead from a logit-normal distribution around 0.55
        (Esser et al. 2024, arXiv 2403.03206, section 3.1), where it is decided which atoms bond.
    feature_scale : float
        Standard deviation of a molecule's channels past its coordinates (0 to 2, with
        ``identity_start``), which have 1. Below 1 the noise hides them longer: first the
        coordinates are decided, then the elements that fit (Hoogeboom et al. 2022, arXiv
        2203.17003, scale one-hot elements by 0.25).
    element_condition : bool
        Tell the denoiser the element of each atom of a molecule, so that it decides where they are
        and what they bind to; sampling takes the elements, in order, of a molecule drawn from the
        training data. Elements that a small model chooses itself often add up to an odd number of
        electrons. Not of crystals, whose compositions shall be new.
    index_embedding : bool
        Show each atom its place in the order of atoms; without, a system is a set of atoms.
    conditions : bool
        Learn everything that can be told, in both domains: see
        :class:`adit_model.network.conditioning.Told`. Needs ``precondition``.
    properties : tuple of str
        With ``conditions``, names of the scalar labels of the data that can be told;
        ``"volume_per_atom"`` of crystals is computed.
    free_share : float
        With ``conditions``, share of the training systems of which nothing is told but domain and
        number of atoms.
    optimal_noise : bool
        Assign the noise to the atoms of a system that are told the same so that it lies nearest to
        them, in training and where sampling renews it: see
        :func:`adit_model.network.coupling.assign_noise`. Needs a set of atoms.
    """

    dim: int = 384
    num_layers: int = 12
    num_heads: int = 6
    size_condition: bool = False
    geometry: bool = False
    geometry_every: int = 1
    precondition: bool = False
    class_dropout: float = 0.1
    self_condition: float = 0.5
    time_clip: float = 0.9
    time_skew: float = 0.0
    time_focus: float = 0.0
    feature_scale: float = 1.0
    element_condition: bool = False
    index_embedding: bool = True
    conditions: bool = False
    properties: tuple[str, ...] = ()
    free_share: float = 0.35
    optimal_noise: bool = False

    def __post_init__(self) -> None:
        _positive(self, "dim", "num_layers", "num_heads", "geometry_every")
        _width(self.dim, self.num_heads)
        _share(self, "class_dropout", "self_condition", "time_focus", "free_share")
        object.__setattr__(self, "properties", tuple(self.properties))
        if self.conditions and not self.precondition:
            raise ValueError("conditions needs precondition: set precondition to true")
        if self.properties and not self.conditions:
            raise ValueError(f"properties {self.properties} need conditions: set it to true")
        if self.optimal_noise and self.index_embedding:
            raise ValueError("optimal_noise needs a set of atoms: set index_embedding to false")
        if not -1 < self.time_skew < math.inf:
            raise ValueError(f"time_skew must be greater than -1, got {self.time_skew}")
        if not 0 < self.feature_scale < math.inf:
            raise ValueError(f"feature_scale must be positive, got {self.feature_scale}")
        if not 0 <= self.time_clip < 1:
            raise ValueError(f"time_clip must lie in [0, 1), got {self.time_clip}")


@dataclass(frozen=True)
class SamplingConfig:
    """What :meth:`adit_model.model.ADiT.sample` does when it is not told otherwise.

    Parameters
    ----------
    num_steps : int
        Intervals of the time grid.
    solver : str
        ``"euler"``; ``"midpoint"`` or ``"heun"``, which evaluate the model twice a step;
        ``"ancestral"``, an Euler step that renews part of the noise; or ``"multistep"``, which
        extrapolates from the last two predictions and renews noise as the ancestral one, unless
        ``noise_scale`` is 0.
    guidance_scale : float, str or mapping
        Classifier-free guidance; 1 is none and costs no second forward pass. By kind of
        condition, ``{"space_group": 2, "properties": 1.5}``, kept as text,
        ``"properties=1.5, space_group=2"``: one forward pass more for each kind whose weight is
        not 1.
    noise_scale : float, str or mapping
        Standard deviation of the noise that these two solvers renew; below 1 it trades
        variety for validity. By domain, ``{"crystal": 0.5, "molecule": 1}``, kept as text; and
        another one for the code of the elements where latents are coordinates,
        ``"crystal=0.5, crystal.elements=0.85, molecule=1"``.
    symmetry : str
        Where crystals take their space group and Wyckoff positions from a known crystal:
        ``"asked"``, where a space group is asked for; ``"known"``, always; ``"free"``, never:
        the network is told the group, and may miss it. ``"found"`` is ``"asked"``, and other
        crystals get exactly the symmetry that they nearly have at time 0.6 or later.
    step_focus : float
        Share of the steps of molecules, 0 to 1, that crowd around the time at which atoms settle
        on their neighbours; the others, and those of crystals, are equally spaced.
    even_electrons : bool
        Molecules whose formula is not asked for get an even number of electrons: the network
        chooses the elements, and where they would leave an electron unpaired, the least certain
        atom gets another one.
    """

    num_steps: int = 100
    solver: str = "euler"
    guidance_scale: Weights = 2.0
    noise_scale: Weights = 1.0
    symmetry: str = "asked"
    step_focus: float = 0.0
    even_electrons: bool = False

    def __post_init__(self) -> None:
        _one_of("symmetry", self.symmetry, SYMMETRIES)
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise ValueError(f"num_steps must be a positive integer, got {self.num_steps!r}")
        if self.num_steps > 10_000:
            raise ValueError(f"num_steps must be at most 10000, got {self.num_steps}")
        _one_of("solver", self.solver, SOLVERS)
        for name in _WEIGHTS:
            object.__setattr__(self, name, _read_weights(name, getattr(self, name)))
        if not 0 <= self.step_focus <= 1:
            raise ValueError(f"step_focus must lie in 0..1, got {self.step_focus}")
        if not isinstance(self.even_electrons, bool):
            raise TypeError(f"even_electrons must be a bool, got {self.even_electrons!r}")

    @property
    def guidance(self) -> float | dict[str, float]:
        """Weight of all kinds together, or of each."""
        scale = self.guidance_scale
        return _weights("guidance_scale", scale) if isinstance(scale, str) else scale

    def noise(self, domain: str) -> tuple[float, float]:
        """Return the noise scales of a domain: in all, and of the code of the elements."""
        if not isinstance(self.noise_scale, str):
            return self.noise_scale, self.noise_scale
        scales = _weights("noise_scale", self.noise_scale)
        return scales[domain], scales.get(f"{domain}.elements", scales[domain])


_WEIGHTS = {  # what one is given for, and the largest
    "guidance_scale": ("kind", GUIDED_KINDS, 100),
    "noise_scale": ("domain", (*DOMAINS, *(f"{domain}.elements" for domain in DOMAINS)), 2),
}


def _weights(option: str, text: str) -> dict[str, float]:
    what, names, _ = _WEIGHTS[option]
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in names or not equals or name in weights:
            raise ValueError(
                f"{option} is a number or {what.upper()}=NUMBER, each once, with {what}s "
                f"{', '.join(names)}; got {text!r}"
            )
        weights[name] = _weight(option, value)
    if option == "noise_scale" and not weights.keys() >= set(DOMAINS):
        raise ValueError(f"{option} by domain needs {' and '.join(DOMAINS)}; got {text!r}")
    return weights


def _weight(option: str, value: Any) -> float:
    most = _WEIGHTS[option][2]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= most:
        raise ValueError(f"{option} must lie in 0..{most}, got {value}")
    return number


def _read_weights(option: str, value: Any) -> Weights:
    """Bring an option to a number or the text of a number for each name."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name}={weight}" for name, weight in value.items())
    if not isinstance(value, str) or re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?|nan|inf", value.strip()):
        return _weight(option, value)
    weights = sorted(_weights(option, value).items())
    return ", ".join(f"{name}={weight:g}" for name, weight in weights)


@dataclass(frozen=True)
class ModelConfig:
    """Both stages and the sampling defaults."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.denoiser.geometry and not self.autoencoder.identity_start:
            raise ValueError("denoiser.geometry needs autoencoder.identity_start")
        if self.denoiser.feature_scale != 1 and not self.autoencoder.identity_start:
            raise ValueError("denoiser.feature_scale needs autoencoder.identity_start")
        if self.denoiser.conditions and not self.autoencoder.exact:
            raise ValueError("denoiser.conditions needs autoencoder.exact")

    def as_dict(self) -> dict[str, Any]:
        """Return nested plain dictionaries."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Read nested plain dictionaries; ``{"size": "mini"}`` starts from a named size.

        Raises
        ------
        ValueError
            If a key is unknown or a value is out of range.
        """
        data = dict(data)
        base = named_size(data.pop("size")) if "size" in data else cls()
        parts = {f.name: getattr(base, f.name) for f in fields(cls)}
        for name, values in data.items():
            if name not in parts:
                raise ValueError(f"unknown model section {name!r}, known: {', '.join(parts)}")
            if not isinstance(values, dict):
                raise ValueError(f"model section {name!r} must hold options, got {values!r}")
            parts[name] = from_mapping(type(parts[name]), {**asdict(parts[name]), **values}, name)
        return cls(**parts)


MINI = ModelConfig(
    autoencoder=AutoencoderConfig(
        dim=128,
        num_heads=4,
        identity_start=True,
        canonical=True,
        exact=True,
        latent_noise=0.5,
        kl_weight=1e-3,
    ),
    denoiser=DenoiserConfig(
        dim=192,
        num_layers=12,
        num_heads=6,
        size_condition=True,
        geometry=True,
        geometry_every=2,
        precondition=True,
        class_dropout=0.0,
        time_clip=0.97,
        time_skew=0.5,
        time_focus=0.5,
        feature_scale=0.2,
        index_embedding=False,
        conditions=True,
        properties=(
            "formation_energy_per_atom",
            "e_above_hull",
            "band_gap",
            "volume_per_atom",
            "mu",
            "alpha",
            "homo",
            "lumo",
            "gap",
            "cv",
        ),
        optimal_noise=True,
    ),
    sampling=SamplingConfig(
        num_steps=16,
        solver="multistep",
        guidance_scale=1.0,
        noise_scale="crystal=0.5, crystal.elements=1, molecule=1, molecule.elements=0.5",
        symmetry="found",
        step_focus=0.6,
        even_electrons=True,
    ),
)


def _paper_size(dim: int, num_layers: int, num_heads: int) -> ModelConfig:
    denoiser = DenoiserConfig(dim=dim, num_layers=num_layers, num_heads=num_heads)
    return ModelConfig(AutoencoderConfig(), denoiser, SamplingConfig())


SIZES = {
    "mini": MINI,
    "small": _paper_size(384, 12, 6),
    "base": _paper_size(768, 12, 12),
    "large": _paper_size(1024, 24, 16),
}


def named_size(name: str) -> ModelConfig:
    """Return a named size: ``mini`` (bundled), ``small``, ``base`` or ``large`` (the paper's).

    Raises
    ------
    ValueError
        If there is no such size.
    """
    _one_of("size", name, tuple(SIZES))
    return SIZES[name]


def from_mapping(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build a config dataclass from a mapping, checking names and types.

    Own code: pydantic's dataclasses answer in several lines, and saying them in one takes as much.

    Raises
    ------
    ValueError
        If a key is unknown or a value has the wrong type.
    """
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    clean = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"unknown option {where}.{key}, known: {', '.join(sorted(known))}")
        clean[key] = _typed(value, str(known[key].type), f"{where}.{key}")
    return cls(**clean)


def _typed(value: Any, annotation: str, name: str) -> Any:
    if value is None and "None" in annotation:
        return None
    if annotation.startswith("int") and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if annotation.startswith("float"):
        if isinstance(value, str):  # YAML reads 1e-4 as text
            try:
                return float(value)
            except ValueError:
                raise ValueError(f"{name} must be a number, got {value!r}") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} must be a number, got {value!r}")
        return float(value)
    if annotation.startswith("bool") and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    if annotation.startswith("tuple[str"):
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{name} must be a list of texts, got {value!r}")
        return tuple(value)
    if annotation.startswith("str") and not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r}")
    return value
