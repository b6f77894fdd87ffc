"""Write bundled weights: a trained checkpoint with sampling defaults and measured quality inside.

Run from the repository root, for instance

    python benchmarks/bundle.py runs/mini/denoiser/denoiser.safetensors --solver ancestral \
        --out adit_model/weights/mini.safetensors
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from adit_model.model import ADiT
from adit_model.sampling.request import Request


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    model = ADiT.load(options.checkpoint, device="cpu")
    names = ("num_steps", "solver", "guidance_scale", "noise_scale")
    settings = Request(1, sampling={k: getattr(options, k) for k in names}).settings(
        model.config.sampling
    )
    model.config = replace(model.config, sampling=settings)
    if options.quality:
        model.metadata["metrics"] = json.loads(options.quality.read_text(encoding="utf-8"))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    model.save(options.out, half=options.half)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, {settings}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="with both stages")
    parser.add_argument("--num-steps", type=int, help="default: the checkpoint's")
    parser.add_argument("--solver", help="default: the checkpoint's")
    parser.add_argument("--guidance-scale", type=float, help="default: the checkpoint's")
    parser.add_argument("--noise-scale", type=float, help="default: the checkpoint's")
    parser.add_argument(
        "--quality", type=Path, metavar="FILE", help="JSON of benchmarks/quality.py to keep inside"
    )
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
