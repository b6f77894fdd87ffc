"""Fine-tuning on perovskites: what is gained, and what is forgotten.

Run from the repository root, for instance

    python benchmarks/finetune.py --data DIR --folder runs/finetune

where DIR holds ``perov_5.csv.gz`` and ``crystals_train.csv.gz``; QM9 comes from qm9pack. A run that
was stopped goes on when the command is given again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.checkpoint import read_metadata, resolve_checkpoint
from adit_model.config import ModelConfig
from adit_model.data import load_source
from adit_model.data.dataset import AtomicDataset
from adit_model.data.prepare import Preparation, prepare
from adit_model.model import ADiT
from adit_model.quality.crystals import judge_novel, structure_matcher
from adit_model.quality.training_tables import evaluate_reconstruction, evaluate_samples
from adit_model.systems import AtomicSystem
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.finetune import mix_replay
from adit_model.training.run import run_stage

ANIONS = (7, 8, 9, 16)  # N, O, F, S
ROWS = (
    ("crystals: ABX3 composition", "abx3"),
    ("crystals: ABX3 in the perovskite structure", "perovskite"),
    ("crystals: match a held-out perovskite", "match_held_out"),
    ("crystals: match a training perovskite", "match_train"),
    ("held-out perovskites matched by a sample", "found_held_out"),
    ("crystals: valid (structure and SMACT)", "crystals_valid"),
    ("molecules: valid and connected", "molecules_valid"),
    ("held-out perovskites reconstructed by stage 1", "reconstructed"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    perovskites = load_source(str(options.data / "perov_5.csv.gz"), progress=False)
    parts = prepare([perovskites], Preparation(deduplicate=False, validation_fraction=0.2)).parts
    before = measure(options.checkpoint, options, parts)
    tuned, seconds = fine_tune(options, parts)
    after = measure(str(tuned), options, parts)
    real = reference(parts["validation"])
    training = read_metadata(tuned)["training"]
    lines = [
        "```",
        "python benchmarks/finetune.py "
        + shlex.join(sys.argv[1:] if arguments is None else arguments),
        "```",
        "",
        f"Fine-tuned on {len(parts['train']):,} perovskites (80 % of the compositions), held out "
        f"{len(parts['validation']):,}; {options.replay:.0%} of each batch are earlier data "
        f"({training['data']['crystals'] - len(parts['train']):,} crystals and "
        f"{training['data']['molecules']:,} molecules); {training['steps']:,} steps of "
        f"{options.batch_size}, {training['core_hours']:.2f} core-hours ({seconds:.0f} s in this "
        f"call). {options.samples:,} crystals and {options.samples:,} molecules of seed 0.",
        "",
        "| | before | after | held-out data |",
        "|---|---:|---:|---:|",
    ]
    for label, key in ROWS:
        cells = [
            f"{100 * part[key]:.1f} %" if key in part else "" for part in (before, after, real)
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    print(text)
    (options.folder / "finetune.md").write_text(text + "\n", encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--folder", type=Path, required=True, help="of the run")
    parser.add_argument("--checkpoint", default="default", help="to start from")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--replay", type=float, default=0.5, help="share of earlier data")
    parser.add_argument("--samples", type=int, default=1000, help="of each domain")
    parser.add_argument("--precision", default="32", choices=("32", "bf16"))
    return parser.parse_args(arguments)


def fine_tune(options: argparse.Namespace, parts: dict[str, AtomicDataset]) -> tuple[Path, float]:
    """Train stage 2 on perovskites and earlier data; stage 1 stays as it is."""
    earlier = [
        load_source("qm9:train", progress=False),
        load_source(str(options.data / "crystals_train.csv.gz"), progress=False),
    ]
    mixed = mix_replay(parts["train"], earlier, options.replay)
    source = options.folder / "train.npz"
    if not source.is_file():
        mixed.dataset.save(source)
    config = RunConfig(
        train=(str(source),),
        output=str(options.folder / "denoiser"),
        model=ModelConfig.from_dict(
            read_metadata(resolve_checkpoint(options.checkpoint))["config"]
        ),
        training=TrainingConfig(
            steps=options.steps,
            batch_size=options.batch_size,
            crystal_fraction=mixed.crystal_fraction,
            optimizer="muon",
            learning_rate=options.learning_rate,
            decay_start=0.3,
            checkpoint_minutes=1.0,
            precision=options.precision,
            accelerator="cpu",
        ),
        autoencoder=options.checkpoint,
        init_from=options.checkpoint,
    )
    started = time.perf_counter()
    result = run_stage("denoiser", config, resume=True, progress=sys.stderr.isatty())
    if not result.finished:
        raise SystemExit(f"stopped by {result.stopped_by} after {result.step} steps: run it again")
    return result.checkpoint, time.perf_counter() - started


def measure(
    checkpoint: str, options: argparse.Namespace, parts: dict[str, AtomicDataset]
) -> dict[str, float]:
    """Sample both domains and compare the crystals to perovskites, once for each checkpoint."""
    model = ADiT.load(checkpoint, device="cpu")
    path = options.folder / f"samples-{model.checkpoint_hash[:12]}-{options.samples}.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))
    progress = sys.stderr.isatty()
    started = time.perf_counter()
    crystals = model.sample(options.samples, domain="crystal", seed=0, progress=progress)
    molecules = model.sample(options.samples, domain="molecule", seed=0, progress=progress)
    sampled = time.perf_counter() - started
    report = evaluate_samples([*crystals, *molecules], workers=1, progress=progress)
    systems = [sample.system for sample in crystals if sample.system is not None]
    held_out = list(parts["validation"])
    reconstruction = evaluate_reconstruction(held_out, model.reconstruct(held_out), workers=1)
    found = {
        **compare(systems, options.samples, parts),
        "found_held_out": share_known(held_out, systems, len(held_out)),
        "crystals_valid": report["crystals"]["valid"] / options.samples,
        "molecules_valid": report["molecules"]["valid"] / options.samples,
        "reconstructed": reconstruction["crystals"]["match_rate"],
        "sampling_seconds": sampled,
        "seconds": time.perf_counter() - started,
    }
    path.write_text(json.dumps(found))
    return found


def compare(
    systems: list[AtomicSystem], count: int, parts: dict[str, AtomicDataset]
) -> dict[str, float]:
    """Shares of ``count`` crystals."""
    abx3 = [system for system in systems if is_abx3(system)]
    return {
        "abx3": len(abx3) / count,
        "perovskite": sum(is_perovskite(system) for system in abx3) / count,
        "match_held_out": share_known(abx3, parts["validation"], count),
        "match_train": share_known(abx3, parts["train"], count),
    }


def reference(held_out: AtomicDataset) -> dict[str, float]:
    """Tell what the held-out perovskites themselves give (500 of them for the structure)."""
    systems = list(held_out)
    some = systems[:500]
    return {
        "abx3": sum(map(is_abx3, systems)) / len(systems),
        "perovskite": sum(is_abx3(s) and is_perovskite(s) for s in some) / len(some),
    }


def share_known(systems: Sequence[AtomicSystem], known: Any, count: int) -> float:
    """Share of ``count`` crystals that StructureMatcher finds among known ones."""
    verdicts = judge_novel(systems, known, workers=1) if systems else []
    return sum(verdict is False for verdict in verdicts) / count


def is_abx3(system: AtomicSystem) -> bool:
    """Whether it is ABX3 with X3 of O, N, F and S, mixed or not, as all of Perov-5 are."""
    unit, rest = divmod(len(system), 5)
    elements, counts = np.unique(system.numbers, return_counts=True)
    anions = counts[np.isin(elements, ANIONS)].sum()
    return rest == 0 and anions == 3 * unit and bool((counts % unit == 0).all())


def is_perovskite(system: AtomicSystem) -> bool:
    """Whether StructureMatcher finds an ABX3 crystal in the cubic perovskite structure."""
    from pymatgen.core import Lattice, Structure

    numbers = np.where(np.isin(system.numbers, ANIONS), 8, system.numbers)
    cations = ["Sr", "Ti"] if len(np.unique(numbers)) == 3 else ["Sr", "Sr"]
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    prototype = Structure(Lattice.cubic(3.9), [*cations, "O", "O", "O"], sites)
    structure = AtomicSystem(numbers, system.positions, system.cell).to_structure()
    return bool(structure_matcher().fit_anonymous(structure, prototype))


if __name__ == "__main__":
    main()
