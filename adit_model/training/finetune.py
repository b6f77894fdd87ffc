"""Going on from trained weights: a plan of the run, earlier data among the new, new elements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.checkpoint import read_known, read_metadata, resolve_checkpoint
from adit_model.conditions.condition import read_property_names
from adit_model.config import from_mapping
from adit_model.data.dataset import AtomicDataset
from adit_model.data.duplicates import FEW
from adit_model.data.prepare import Preparation, Prepared, check_labels, concatenate, prepare
from adit_model.data.sources import load_source
from adit_model.systems import CRYSTAL, MOLECULE
from adit_model.training.config import RunConfig, TrainingConfig

if TYPE_CHECKING:
    from adit_model.model import ADiT

HELD_OUT_FROM = 200  # structures, of which a tenth of the compositions validates


@dataclass
class Replay:
    """New data with earlier ones among them.

    Parameters
    ----------
    dataset : AtomicDataset
        What a run is trained on.
    crystal_fraction : float
        Share of crystals in a batch that gives the earlier data the share that was asked for.
    crystals, molecules : int
        Earlier ones in the data set.
    """

    dataset: AtomicDataset
    crystal_fraction: float
    crystals: int
    molecules: int


def mix_replay(
    new: AtomicDataset,
    earlier: Sequence[AtomicDataset],
    fraction: float,
    seed: int = 0,
    most: int = 20_000,
) -> Replay:
    """Mix earlier data into new ones, so that a model does not forget what it could.

    Each domain of the earlier data gets an equal part of ``fraction``, and the domains of the new
    data share the rest by their numbers. Batches draw crystals and molecules separately, so the
    number of earlier systems of a domain sets their share among the new ones of that domain.

    Parameters
    ----------
    new, earlier : AtomicDataset
        Data to learn, and data not to forget.
    fraction : float
        Share of each batch that the earlier data get, in (0, 1).
    seed : int
        Of the choice among the earlier data.
    most : int
        Most earlier systems of a domain; a smaller number costs less to encode.

    Raises
    ------
    ValueError
        If ``fraction`` is out of range.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction of earlier data must lie between 0 and 1, got {fraction}")
    known = concatenate(earlier)
    fresh = {kind: int((new.periodic == kind).sum()) for kind in (True, False)}
    pools = {kind: np.flatnonzero(known.periodic == kind) for kind in (True, False)}
    domains = [kind for kind, pool in pools.items() if len(pool)]
    random = np.random.default_rng(seed)
    share, chosen = {}, {}
    for kind in (True, False):
        of_new = (1 - fraction) * fresh[kind] / len(new)
        of_earlier = fraction / len(domains) if kind in domains else 0.0
        share[kind] = of_new + of_earlier
        count = min(len(pools[kind]), most)
        if fresh[kind]:
            count = min(count, round(fresh[kind] * of_earlier / of_new))
        chosen[kind] = random.permutation(pools[kind])[:count]
    parts = [new]
    picked = np.sort(np.concatenate([chosen[True], chosen[False]]))
    if len(picked):
        parts.append(known.subset(picked))
    mixed = concatenate(parts, f"{new.name} with {known.name}")
    return Replay(mixed, share[True], len(chosen[True]), len(chosen[False]))


def with_elements(model: ADiT, num_elements: int) -> ADiT:
    """Return a model that knows more elements, with the weights of the given one.

    Parameters
    ----------
    model : ADiT
        Trained.
    num_elements : int
        Size of the vocabulary: the largest atomic number plus one.

    Raises
    ------
    ValueError
        If the model knows more elements already.
    """
    import torch

    from adit_model.model import ADiT

    known = model.config.autoencoder.num_elements
    if num_elements < known:
        raise ValueError(f"the model knows {known} elements, more than {num_elements}")
    config = replace(
        model.config, autoencoder=replace(model.config.autoencoder, num_elements=num_elements)
    )
    has_denoiser = model.denoiser is not None
    has_estimator = model.estimator is not None
    larger = ADiT(
        config, model.known, model.element_orders, model.metadata, has_denoiser, has_estimator
    )
    weights = larger.state_dict()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if weights[name].shape == value.shape:
                weights[name].copy_(value)
            else:
                weights[name][:known].copy_(value)
                if name.endswith(".bias"):
                    weights[name][known:] = value.min()  # no guess before it is learned
    larger.load_state_dict(weights)
    return larger.to(model.device).eval()


@dataclass
class FineTuning:
    """A planned run: what it starts from, on what, for how long.

    Parameters
    ----------
    config : RunConfig
        Of stage 2; its data are files in the folder of the run.
    prepared : Prepared
        The new structures, without duplicates, and what was left out.
    kept : Replay or None
        The new structures with earlier ones among them; None without earlier ones.
    notes : list of str
        What the user should know before it runs.
    """

    config: RunConfig
    prepared: Prepared
    kept: Replay | None
    notes: list[str]

    def describe(self) -> str:
        """Say in a few lines what will be done."""
        training, start = self.config.training, str(self.config.init_from)
        parts = self.prepared.parts
        distinct = sum(len(part) for part in parts.values())
        held_out = len(parts["validation"]) if "validation" in parts else 0
        equal = sum(reason.startswith("equal to") for _, reason in self.prepared.dropped)
        other = len(self.prepared.dropped) - equal
        lines = [
            f"starts from:  {start} ({read_metadata(resolve_checkpoint(start))['hash'][:12]})",
            f"structures:   {self.prepared.read} read, {distinct} distinct"
            + (f", {equal} equal to others" if equal else "")
            + (f", {other} not usable" if other else "")
            + (f"; {held_out} of them held out to validate" if held_out else ""),
        ]
        for name, reason in [d for d in self.prepared.dropped if "equal to" not in d[1]][:3]:
            lines.append(f"  not usable, {name}: {reason}")
        if self.kept is not None:
            lines.append(
                f"not forgotten: {self.kept.crystals} crystals and {self.kept.molecules} molecules "
                "of the earlier data are among them"
            )
        what = "how conditions are taken in" if training.only_conditions else "the denoiser"
        lines.append(
            f"training:     {what}, {training.steps} steps of {training.batch_size} structures, "
            f"learning rate {training.learning_rate:g}"
        )
        return "\n".join([*lines, *self.notes])


def default_steps(distinct: int) -> int:
    """Choose the steps by the distinct structures: 150 for 50, 450 for 500, 1,400 for 5,000."""
    return max(100, 50 * round(0.4 * math.sqrt(distinct)))


def plan_fine_tuning(
    sources: Sequence[str],
    output: str | Path,
    checkpoint: str = "default",
    *,
    keep: float = 0.25,
    properties: Sequence[str] | Mapping[str, str] = (),
    only_conditions: bool = False,
    progress: bool = True,
    **training: Any,
) -> FineTuning:
    """Read structures, mix earlier ones in, and choose a schedule that fits their number.

    Parameters
    ----------
    sources : sequence of str
        Structures to learn, as :func:`adit_model.data.load_source` takes them.
    output : str or Path
        Folder of the run; the data go to ``output/data``.
    checkpoint : str
        Weights to start from.
    keep : float
        Share of each batch that earlier data get, of all domains that the weights know: crystals
        of the package, and molecules of QM9 if ``qm9pack`` is installed. 0 forgets them.
    properties : sequence or mapping
        Numbers beside the structures that can be asked for afterwards; a mapping gives units,
        which may be empty.
    only_conditions : bool
        Train only how conditions are taken in; see :class:`~.config.TrainingConfig`.
    progress : bool
        Show progress bars.
    **training
        Fields of :class:`~.config.TrainingConfig`; ``steps`` and ``learning_rate`` have defaults.

    Raises
    ------
    ValueError, FileNotFoundError
        If the structures cannot be read, the weights cannot learn them, or a number is wrong.
    """
    path = resolve_checkpoint(checkpoint)
    known, model = read_known(path)
    names = read_property_names(properties)
    if not 0 <= keep < 1:
        raise ValueError(f"the share of earlier data must lie in [0, 1), got {keep}")
    if (names or only_conditions) and not model.denoiser.conditions:
        raise ValueError(f"the weights {checkpoint} cannot learn properties: start from mini-2")
    read = [load_source(source, progress=progress) for source in sources]
    few = sum(map(len, read)) < HELD_OUT_FROM
    prepared = prepare(read, Preparation(validation_fraction=0.0 if few else 0.1))
    new = prepared.parts["train"]
    check_labels(new, [n for n in names if n not in known.properties])
    notes = [] if len(new) >= FEW else [f"only {len(new)} distinct structures: expect copies"]
    mixed, kept = new, None
    if keep:
        earlier = {CRYSTAL: "known:train", MOLECULE: "qm9:train"}
        wanted = [earlier[domain] for domain in known.domains]
        if "qm9:train" in wanted and find_spec("qm9pack") is None:
            wanted.remove("qm9:train")
            notes.append("its molecules will be forgotten: pip install qm9pack keeps them")
        if wanted:
            most = max(1000, 2 * len(new))
            data = [load_source(source, progress=progress) for source in wanted]
            kept = mix_replay(new, data, keep, most=most)
            mixed = kept.dataset
            training.setdefault("crystal_fraction", kept.crystal_fraction)
    training.setdefault("steps", default_steps(len(new)))
    training.setdefault("learning_rate", 1e-3 if only_conditions else 5e-4)
    options = {"optimizer": "muon", "batch_size": 48, "warmup_steps": 20, "decay_start": 0.3}
    options |= {"log_every": 5, "validate_every": training["steps"], **training}
    denoiser = replace(
        model.denoiser, properties=tuple(dict.fromkeys([*model.denoiser.properties, *names]))
    )
    options |= {"only_conditions": True} if only_conditions else {}
    folder = Path(output) / "data"
    files = {"train": folder / "train.npz"}
    folder.mkdir(parents=True, exist_ok=True)
    mixed.save(files["train"])
    if "validation" in prepared.parts:
        files["validation"] = folder / "validation.npz"
        prepared.parts["validation"].save(files["validation"])
    config = RunConfig(
        (str(files["train"]),),
        str(output),
        (str(files["validation"]),) if "validation" in files else (),
        replace(model, denoiser=denoiser),
        from_mapping(TrainingConfig, options, "training"),
        checkpoint,
        checkpoint,
        {n: u for n, u in properties.items() if u} if isinstance(properties, Mapping) else {},
    )
    return FineTuning(config, prepared, kept, notes)
