"""What a training run is told: data, schedule, hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adit_model.config import ModelConfig, from_mapping

STAGES = ("autoencoder", "denoiser")


@dataclass(frozen=True)
class TrainingConfig:
    """Schedule, optimiser and hardware of one stage.

    Parameters
    ----------
    steps : int
        Optimiser steps in all.
    batch_size : int
        Systems a step, over all devices.
    crystal_fraction : float
        Share of crystals in a batch, where the data hold both domains.
    optimizer : str
        ``"adamw"``, or ``"muon"`` for the matrices of the blocks and AdamW for the rest.
    learning_rate, weight_decay : float
        Of the optimiser.
    warmup_steps : int
        Steps of linear warm-up.
    decay_start : float
        Share of the run after which the learning rate falls linearly to zero.
    schedule : str
        What a share of the run is: ``"steps"`` of ``steps``, or ``"clock"`` of ``max_time``, which
        counts from the start of the process.
    gradient_clip : float
        Largest norm of the gradient; 0 sets no limit.
    ema_decay : float
        Largest decay of the moving average of the weights.
    ema_horizon : float
        The average spans about this share of the steps so far, so early runs are not dominated
        by their start.
    freeze_encoder : bool
        Stage 1 from ``init_from``: train the decoder alone, so latents stay as they are and a
        denoiser trained on them goes on to fit.
    only_conditions : bool
        Stage 2 from ``init_from``: train only how conditions of whole systems are taken in (element
        set, space group, properties). Each system is told something (``free_share`` is 0), and
        what is made with nothing told stays bit for bit.
    seed : int
        Of weights, batches and noise.
    validate_every, log_every : int
        Steps between validations and between log lines.
    validation_size : int
        Systems of each validation set that are used.
    checkpoint_minutes : float
        Minutes between two saved states.
    max_time : str or None
        Wall-clock limit ``"HH:MM:SS"``, after which the state is saved and the run stops.
    stop_after : int or None
        Steps after which the state is saved and the run stops, to be resumed.
    precision : str
        ``"32"`` or ``"bf16"`` (GPU, and processors that multiply it).
    cuda_graphs : bool
        Stage 2 on one GPU: record the denoiser's kernels once and replay them, which spares the
        CPU from launching each. Batches then hold a fixed number of atoms.
    compile : bool
        Compile what lies between the matrix products, which takes a minute at the start (needs a
        C++ compiler, or on a GPU Triton).
    equal_sizes : bool
        Fill the batch of a step with systems of about the same size, the next with others. That
        leaves less to pad, and makes a step faster, in attention with pair terms most.
    attention : str
        ``"plain"``, or ``"fused"``: attention with pair terms in Triton kernels, on a GPU, for
        systems of up to 64 rows; larger ones stay plain. It has run in Triton's interpreter only.
    devices, num_nodes : int
        Processes a node, nodes.
    sharded : bool
        Divide weights, gradients and the optimiser's moments among the processes (fully sharded
        data parallel), for networks of which a GPU cannot hold copies. Needs ``adamw``.
    estimator_systems : int
        Structures of each domain from which finished weights of stage 2 learn to estimate the
        properties they can be asked for, a few minutes for as many as by default; 0 leaves it out.
    accelerator : str
        ``"auto"``, ``"cpu"`` or ``"gpu"``.
    """

    steps: int = 10_000
    batch_size: int = 96
    crystal_fraction: float = 0.4
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup_steps: int = 100
    decay_start: float = 1.0
    schedule: str = "steps"
    gradient_clip: float = 1.0
    ema_decay: float = 0.9999
    ema_horizon: float = 0.1
    freeze_encoder: bool = False
    only_conditions: bool = False
    seed: int = 0
    validate_every: int = 500
    log_every: int = 50
    validation_size: int = 1000
    checkpoint_minutes: float = 10.0
    max_time: str | None = None
    stop_after: int | None = None
    precision: str = "32"
    cuda_graphs: bool = False
    compile: bool = False
    equal_sizes: bool = False
    attention: str = "plain"
    devices: int = 1
    num_nodes: int = 1
    sharded: bool = False
    estimator_systems: int = 30_000
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "learning_rate", "validate_every", "log_every")
        for name in (*positive, "validation_size", "checkpoint_minutes", "devices", "num_nodes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training.{name} must be positive, got {getattr(self, name)}")
        for name in ("weight_decay", "warmup_steps", "gradient_clip", "estimator_systems"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"training.{name} must not be negative, got {getattr(self, name)}")
        for name in ("crystal_fraction", "decay_start", "ema_decay", "ema_horizon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"training.{name} must lie in 0..1, got {getattr(self, name)}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"training.optimizer must be adamw or muon, got {self.optimizer!r}")
        if self.sharded and self.optimizer != "adamw":
            raise ValueError(
                "training.sharded needs the optimizer adamw: muon needs whole matrices"
            )
        if self.precision not in ("32", "bf16"):
            raise ValueError(f"training.precision must be '32' or 'bf16', got {self.precision!r}")
        if self.equal_sizes and self.cuda_graphs:
            raise ValueError(
                "training.cuda_graphs needs batches of one number of atoms: leave out equal_sizes"
            )
        if self.attention not in ("plain", "fused"):
            raise ValueError(f"training.attention must be plain or fused, got {self.attention!r}")
        if self.accelerator not in ("auto", "cpu", "gpu"):
            raise ValueError(
                f"training.accelerator must be auto, cpu or gpu, got {self.accelerator!r}"
            )
        if self.stop_after is not None and self.stop_after < 1:
            raise ValueError(f"training.stop_after must be positive, got {self.stop_after}")
        if self.max_time is not None:
            parse_time(self.max_time)
        if self.schedule not in ("steps", "clock"):
            raise ValueError(f"training.schedule must be steps or clock, got {self.schedule!r}")
        if self.schedule == "clock" and self.max_time is None:
            raise ValueError("training.schedule clock needs training.max_time")

    def learning_rate_factor(self, step: int, seconds: float = 0.0) -> float:
        """Factor on the learning rate at a step: warm-up, plateau, linear decay to zero.

        ``seconds`` have passed since the process started; they count with ``schedule="clock"``.
        """
        done = step / self.steps
        if self.schedule == "clock":
            assert self.max_time is not None
            done = seconds / parse_time(self.max_time)
        return self.factor_at(step, done)

    def factor_at(self, step: int, done: float) -> float:
        """Return the same at a step where a share ``done`` of the run has passed."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if done <= self.decay_start or self.decay_start >= 1:
            return warm
        return warm * max(0.0, (1 - done) / (1 - self.decay_start))


@dataclass(frozen=True)
class RunConfig:
    """A training run of one stage.

    Parameters
    ----------
    train, validation : tuple of str
        Sources of data as :func:`adit_model.data.load_source` takes them.
    output : str
        Folder of states, logs and the finished checkpoint.
    model : ModelConfig
        Both stages' hyper-parameters.
    training : TrainingConfig
        Of the stage that is trained.
    autoencoder : str or None
        Checkpoint with the trained stage 1, for stage 2.
    init_from : str or None
        Checkpoint to start the weights of this stage from. The properties that it knows are kept;
        those of ``model.denoiser`` that it does not know are new.
    units : dict
        Units of properties by name, for those who ask: ``{"bulk_modulus": "GPa"}``.
    """

    train: tuple[str, ...]
    output: str
    validation: tuple[str, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    autoencoder: str | None = None
    init_from: str | None = None
    units: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return nested plain dictionaries."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunConfig:
        """Read what :meth:`as_dict` gives, from JSON too.

        Raises
        ------
        ValueError
            If an option is unknown or of the wrong type.
        """
        values = dict(data)
        values["train"] = tuple(values["train"])
        values["validation"] = tuple(values.get("validation", ()))
        values["model"] = ModelConfig.from_dict(values.get("model", {}))
        values["training"] = from_mapping(TrainingConfig, values.get("training", {}), "training")
        return cls(**values)


def load_run_config(stage: str, path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and ``section.key=value`` overrides.

    The file has the sections ``data`` (``train``, ``validation``, ``units``), ``model`` and one
    section for each stage (``autoencoder``, ``denoiser``) with the fields of
    :class:`TrainingConfig` and ``output``; stage 2 also names the stage-1 checkpoint under
    ``autoencoder``. With ``init_from`` and no ``model.size`` the model is that of these weights,
    with the options of ``model`` in place of theirs. Relative paths are relative to the working
    directory.

    Raises
    ------
    ValueError
        If a section or option is unknown, missing or of the wrong type.
    FileNotFoundError
        If there is no such file.
    """
    import yaml

    if stage not in STAGES:
        raise ValueError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no config file {path}")
    try:
        raw = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is no valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must hold sections, got {type(raw).__name__}")
    for override in overrides:
        _apply(raw, override)
    unknown = set(raw) - {"data", "model", *STAGES}
    if unknown:
        raise ValueError(f"unknown section {next(iter(unknown))!r} in {path}")
    if stage not in raw:
        raise ValueError(f"{path} has no section {stage!r}")
    data, model, section = (_section(raw, name, path) for name in ("data", "model", stage))
    unknown = set(data) - {"train", "validation", "units"}
    if unknown:
        raise ValueError(
            f"unknown option data.{next(iter(unknown))}, known: train, validation, units"
        )
    units = data.get("units") or {}
    if not isinstance(units, dict) or not all(isinstance(v, str) for v in units.values()):
        raise ValueError(f"data.units in {path} must give units by property, got {units!r}")
    settings = {key: section.pop(key, None) for key in ("output", "autoencoder", "init_from")}
    for key, value in settings.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{stage}.{key} must be a path, got {value!r}")
    if settings["output"] is None:
        raise ValueError(f"{stage}.output, the folder of the run, is missing in {path}")
    if isinstance(section.get("max_time"), int):  # YAML reads 10:30:00 as 37800
        section["max_time"] = f"{section['max_time'] // 60}:{section['max_time'] % 60}"
    train = _sources(data, "train", path)
    if not train:
        raise ValueError(f"data.train in {path} names no source")
    return RunConfig(
        train=train,
        validation=_sources(data, "validation", path),
        output=settings["output"],
        model=_model(model, settings["init_from"]),
        training=from_mapping(TrainingConfig, section, stage),
        autoencoder=settings["autoencoder"],
        init_from=settings["init_from"],
        units=units,
    )


def _model(options: dict[str, Any], init_from: str | None) -> ModelConfig:
    """Read the section ``model``; without a ``size`` it is that of the weights of ``init_from``."""
    if init_from is None or "size" in options:
        return ModelConfig.from_dict(options)
    from adit_model.checkpoint import read_known, resolve_checkpoint  # needs ase

    sections: dict[str, Any] = read_known(resolve_checkpoint(init_from))[1].as_dict()
    for name, values in options.items():
        known = isinstance(values, dict) and isinstance(sections.get(name), dict)
        sections[name] = {**sections[name], **values} if known else values
    return ModelConfig.from_dict(sections)


def parse_time(text: str) -> float:
    """Seconds in ``"HH:MM:SS"`` or ``"MM:SS"``.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    try:
        parts = [int(part) for part in str(text).split(":")]
    except ValueError:
        parts = []
    if len(parts) not in (2, 3) or min(parts) < 0:
        raise ValueError(f"a time must look like HH:MM:SS, got {text!r}")
    seconds = 0
    for part in parts:
        seconds = 60 * seconds + part
    return float(seconds)


def _section(raw: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = raw.get(name) or {}
    if not isinstance(section, dict):
        raise ValueError(f"section {name!r} in {path} must hold options, got {section!r}")
    return dict(section)


def _sources(data: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = data.get(key) or []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"data.{key} in {path} must be a list of sources, got {value!r}")
    return tuple(value)


def _apply(raw: dict[str, Any], override: str) -> None:
    import yaml

    name, separator, value = override.partition("=")
    if not separator or not name:
        raise ValueError(f"an override must look like section.key=value, got {override!r}")
    *parents, last = name.split(".")
    target = raw
    for parent in parents:
        if target.get(parent) is None:  # an empty section of the file
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise ValueError(f"{parent!r} in {override!r} is a value, not a section")
    try:
        target[last] = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"the value of override {override!r} is no valid YAML") from error
