"""Write bundled weights: a trained checkpoint with sampling defaults and measured quality inside.

Run from the repository root, for instance

    python benchmarks/bundle.py runs/mini/denoiser/denoiser.safetensors --half \
        --out adit_model/weights/mini-2.safetensors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from adit_model.config import SamplingConfig
from adit_model.model import ADiT
from adit_model.sampling.request import Request


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    model = ADiT.load(options.checkpoint, device="cpu")
    asked = {field.name: getattr(options, field.name) for field in fields(SamplingConfig)}
    settings = Request(1, sampling=asked).settings(model.config.sampling)
    model.config = replace(model.config, sampling=settings)
    if options.quality:
        model.metadata["metrics"] = json.loads(options.quality.read_text(encoding="utf-8"))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(options.out, half=options.half)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, {settings}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="with both stages")
    for field in fields(SamplingConfig):
        kind = str if field.type == "Weights" else type(field.default)
        how: Any = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, default=None, help="default: the checkpoint's", **how)
    parser.add_argument(
        "--quality", type=Path, metavar="FILE", help="JSON of benchmarks/quality.py to keep inside"
    )
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
