"""Write bundled weights: trained checkpoints, averaged, with sampling defaults and quality inside.

Run from the repository root, for instance

    python benchmarks/bundle.py runs/a/denoiser.safetensors runs/b/denoiser.safetensors --half \
        --data qm9:train DIR/crystals_train.csv.gz --validation qm9:val DIR/crystals_val.csv.gz \
        --out adit_model/weights/mini-2.safetensors
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from adit_model.config import SamplingConfig
from adit_model.model import ADiT
from adit_model.sampling.request import Request
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.estimator import fit_estimator
from adit_model.training.stages import load_data, second_stage_of


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    model = averaged([ADiT.load(path, device="cpu") for path in options.checkpoints])
    if options.data:
        with_estimator(model, options.data, options.validation, options.systems)
    asked = {field.name: getattr(options, field.name) for field in fields(SamplingConfig)}
    settings = Request(1, sampling=asked).settings(model.config.sampling)
    model.config = replace(model.config, sampling=settings)
    if options.quality:
        model.metadata["metrics"] = json.loads(options.quality.read_text(encoding="utf-8"))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(options.out, half=options.half)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, {settings}")


def averaged(models: Sequence[ADiT]) -> ADiT:
    """Take the mean of each weight; all else is that of the last model."""
    *_, model = models
    weights = [other.state_dict() for other in models]
    mean = {
        name: torch.stack([w[name] for w in weights]).mean(dim=0)
        for name, value in weights[-1].items()
        if value.is_floating_point()
    }
    model.load_state_dict({**weights[-1], **mean})
    if len(models) > 1:
        model.metadata["averaged"] = [other.checkpoint_hash for other in models]
    return model


def with_estimator(
    model: ADiT, data: Sequence[str], validation: Sequence[str], systems: int
) -> None:
    """Let it estimate properties, as a training run does at its end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        model.estimator = None
        model.save(path)
        config = RunConfig(
            tuple(data), folder, tuple(validation), model.config, TrainingConfig(), str(path)
        )
        config = replace(config, init_from=str(path))
        knows = model.config.autoencoder
        fitted, _, training, held_out = second_stage_of(
            config,
            model,
            model,
            load_data(data, knows, True),
            [load_data((spec,), knows, True) for spec in validation],
            Path(folder),
            True,
        )
        fit_estimator(fitted, training, held_out, systems)  # type: ignore[arg-type]
    model.known, model.estimator = fitted.known, fitted.estimator
    for name, values in model.known.properties.items():
        print(f"{name}: {values}, error {values.error}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", help="of both stages and one shape")
    for field in fields(SamplingConfig):
        kind = str if field.type == "Weights" else type(field.default)
        how: Any = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, default=None, help="default: the checkpoint's", **how)
    parser.add_argument(
        "--data", nargs="+", default=(), metavar="SOURCE", help="fit what estimates properties"
    )
    parser.add_argument(
        "--validation", nargs="+", default=(), metavar="SOURCE", help="for its error"
    )
    parser.add_argument("--systems", type=int, default=45_000, help="of each domain, for that")
    parser.add_argument(
        "--quality", type=Path, metavar="FILE", help="JSON of benchmarks/quality.py to keep inside"
    )
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
