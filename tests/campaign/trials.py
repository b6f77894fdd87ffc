"""Try one damaged thing, and say what came of it. Each trial follows from its kind and seed."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mutations import mutate, replace_value, strange_value, write_good_files

REFUSED, ACCEPTED, SAME = "refused", "accepted", "unchanged"


class Trials:
    """Material of the trials in a folder, and a method for each kind; faults raise."""

    def __init__(self, folder: Path) -> None:
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
        self.folder = folder
        os.environ["ADIT_CACHE_DIR"] = str(folder / "cache")
        os.environ["HOME"] = str(folder)
        self.good: list[Path] = write_good_files(folder / "good")
        self.contents = [path.read_bytes() for path in self.good]
        self.checkpoint = tiny_checkpoint(folder / "tiny.safetensors")
        self._state: Path | None = None

    def files(self, rng: random.Random) -> str:
        """Read a damaged file."""
        from adit_model.data.sources import load_source

        place = rng.randrange(len(self.good))
        content = mutate(self.contents[place], rng, rng.choice(self.contents))
        path = self._empty("files") / self.good[place].name.removeprefix("case_")
        path.write_bytes(content)
        prefix = "qmof:" if path.suffix == ".zip" else ""
        try:
            dataset = load_source(f"{prefix}{path}", progress=False)
        except ValueError as error:
            if isinstance(error, UnicodeError):
                raise
            return REFUSED
        _check_sense(dataset)
        return ACCEPTED

    def checkpoints(self, rng: random.Random) -> str:
        """Load a damaged checkpoint, or one with strange values and right hashes."""
        from adit_model.checkpoint import CheckpointError, read_known
        from adit_model.model import ADiT

        whole = self.checkpoint.read_bytes()
        path = self._empty("checkpoints") / "damaged.safetensors"
        hostile = rng.random() < 0.5
        if hostile:
            _rewrite(self.checkpoint, path, rng)
        else:
            path.write_bytes(mutate(whole, rng, rng.choice(self.contents)))
        if path.read_bytes() == whole:
            return SAME
        try:
            read_known(path)
            model = ADiT.load(path, device="cpu")
        except CheckpointError:
            return REFUSED
        if not hostile:
            raise AssertionError("damaged weights were accepted")
        with contextlib.suppress(ValueError):
            model.sample(2, num_steps=1, progress=False)
        return ACCEPTED

    def states(self, rng: random.Random) -> str:
        """Read a damaged state of a training as a run does that goes on from it."""
        import torch

        from adit_model.training.loggers import saved_step

        if self._state is None:
            self._state = train_tiny(self.folder / "training", self.good, steps=2)
        whole = self._state.read_bytes()
        path = self._empty("states") / "last.ckpt"
        path.write_bytes(mutate(whole, rng, rng.choice(self.contents)))
        if path.read_bytes() == whole:
            return SAME
        try:
            saved_step(path)
        except ValueError:
            return REFUSED
        pair = [torch.load(p, weights_only=True) for p in (path, self._state)]
        if not _equal(*pair):
            raise AssertionError("a damaged state was accepted")
        return SAME

    def configurations(self, rng: random.Random) -> str:
        """Read a damaged YAML file of a training, settings, a request or a condition."""
        import yaml

        from adit_atomate.settings import ADiTSettings
        from adit_model import Request
        from adit_model.conditions.condition import as_condition
        from adit_model.config import ModelConfig
        from adit_model.training.config import RunConfig, load_run_config

        folder = self._empty("configurations")
        good = training_config(folder / "out", self.good, steps=2)
        kind = rng.randrange(6)
        try:
            if kind == 0:
                text = mutate(yaml.safe_dump(good).encode(), rng, rng.choice(self.contents))
                (folder / "run.yaml").write_bytes(text)
                load_run_config("autoencoder", folder / "run.yaml")
            elif kind == 1:
                (folder / "run.yaml").write_text(yaml.safe_dump(replace_value(good, rng)))
                load_run_config("autoencoder", folder / "run.yaml")
            elif kind == 2:
                changed = replace_value(ModelConfig().as_dict(), rng)
                ModelConfig.from_dict(changed if isinstance(changed, dict) else {"size": changed})
                RunConfig(("a",), "b", model=ModelConfig())
            elif kind == 3:
                names = (*ADiTSettings.model_fields, "NEW", 1, None)
                text = yaml.safe_dump({rng.choice(names): strange_value(rng)})
                content = text.encode() if rng.random() < 0.6 else mutate(text.encode(), rng)
                (folder / "adit.yaml").write_bytes(content)
                os.environ["ADIT_CONFIG_FILE"] = str(folder / "adit.yaml")
                ADiTSettings()
            elif kind == 4:
                text = "Li-P-S, atoms=4-12, spacegroup=225, band_gap=1.5"
                as_condition(mutate(text.encode(), rng, b"LiMn3O4").decode("utf8", "replace"))
            else:
                options = ("seed", "first_index", "num_steps", "solver", "num_atoms", "domain")
                given: dict[str, Any] = {rng.choice(options): strange_value(rng) for _ in "ab"}
                n = rng.choice((2, strange_value(rng)))
                Request.of(n, rng.choice((None, strange_value(rng))), **given)
        except (ValueError, TypeError) as error:
            if isinstance(error, TypeError) and kind != 5:
                raise
            return REFUSED
        finally:
            os.environ.pop("ADIT_CONFIG_FILE", None)
        return ACCEPTED

    def arguments(self, rng: random.Random) -> str:
        """Run the command line with strange arguments."""
        from adit_model.cli.main import main, of_the_user

        out = self._empty("arguments") / "out"
        words = [
            "0",
            "-1",
            "3",
            "nan",
            "1e9",
            "",
            "x",
            "Li-O",
            "LiO",
            "225",
            "4-2",
            "2-4",
            "~nouser/x",
        ]
        words += [
            "a" * 5000,
            "\udcff",
            "../..",
            "/dev/null",
            "band_gap=1",
            "=",
            "4/4/4/90/90/90",
            "2,3",
        ]
        words += [str(rng.choice(self.good)), str(self.checkpoint), str(self.folder / "good")]
        command, options = rng.choice(tuple(OPTIONS.items()))
        argv = [command]
        if command == "generate":
            argv += ["--out", str(out), "-n", "2", "--checkpoint", str(self.checkpoint), "--quiet"]
            argv += ["--num-steps", "1", "--device", "cpu", "--no-check"]
        elif command == "train":
            argv += ["autoencoder", "--config", rng.choice(words)]
        else:
            argv += [rng.choice(words)]
        for _ in range(rng.randrange(4)):
            option = rng.choice(options)
            argv += [option] if rng.random() < 0.1 else [option, rng.choice(words)]
        text = io.StringIO()
        here = Path.cwd()
        os.chdir(self._empty("place"))
        try:
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                status = main(argv)
        except SystemExit as stop:
            status = stop.code  # type: ignore[assignment]
        except Exception as error:
            if "--traceback" in argv and of_the_user(error):  # it was asked for
                return REFUSED
            error.add_note(f"arguments: {[word[:200] for word in argv]}")
            raise
        finally:
            os.chdir(here)
        if status == 2:
            return REFUSED
        if status != 0:
            raise AssertionError(f"exit status {status} of {argv}")
        return ACCEPTED

    def _empty(self, name: str) -> Path:
        folder = self.folder / "trials" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


OPTIONS = {
    "generate": (
        *("--condition", "--domain", "--elements", "--formula", "--units", "--space-group"),
        *("--property", "--cell", "--fixed", "--num-atoms", "--seed", "--solver", "--noise-scale"),
        *(
            "--guidance-scale",
            "--symmetry",
            "--device",
            "--batch-atoms",
            "--workers",
            "--overwrite",
        ),
    ),
    "data": ("--max-atoms", "--workers", "--add-hydrogens", "--quiet", "--nonsense"),
    "info": ("--json", "--nonsense", "--traceback"),
    "train": ("--resume", "autoencoder.steps=0", "model.size=x", "=", "a=b", "data.train=1"),
}


def tiny_checkpoint(path: Path) -> Path:
    """Write a checkpoint of an untrained model with random weights."""
    import torch

    from adit_model.conditions.known import Known
    from adit_model.config import AutoencoderConfig, DenoiserConfig, ModelConfig, SamplingConfig
    from adit_model.model import ADiT

    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    config = ModelConfig(
        AutoencoderConfig(dim=16, num_heads=2, **layers, identity_start=True, canonical=True),
        DenoiserConfig(dim=16, num_heads=2, num_layers=1),
        SamplingConfig(num_steps=3, guidance_scale=1.0),
    )
    sizes = {"crystal": {"2": 3, "4": 5, "8": 1}, "molecule": {"3": 2, "5": 2}}
    torch.manual_seed(0)
    model = ADiT(config, Known.of_checkpoint(config.as_dict(), {"sizes": sizes}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save(path)
    return path


def training_config(output: Path, good: list[Path], **options: Any) -> dict[str, Any]:
    """Configuration of a run of a tiny model."""
    source = str(next(path for path in good if path.name == "good.npz"))
    width = {"dim": 16, "num_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
    section = {"batch_size": 4, "log_every": 1, "validate_every": 4, "accelerator": "cpu"}
    return {
        "data": {"train": [source], "validation": [source]},
        "model": {"autoencoder": {**width, "canonical": True, "identity_start": True}},
        "autoencoder": {**section, "output": str(output), **options},
    }


def train_tiny(output: Path, good: list[Path], resume: bool = False, **options: Any) -> Path:
    """Train a tiny model, and return the file of its state."""
    import yaml

    from adit_model.training.run import train

    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(training_config(output, good, **options)))
    return train("autoencoder", path, resume=resume, progress=False).state


def _check_sense(dataset: Any) -> None:
    """What was accepted is finite, has elements, and no two atoms on one spot."""
    from adit_model.data.checks import overlap

    for i in range(min(len(dataset), 50)):
        system = dataset[i]
        assert system.numbers.min() >= 1 and system.numbers.max() <= 118, system.numbers
        assert np.isfinite(system.positions).all() and np.abs(system.positions).max() < 1e5
        assert system.cell is None or abs(np.linalg.det(system.cell)) > 0.1, system.cell
        assert len(system) == 1 or overlap(system) is None, overlap(system)


def _rewrite(source: Path, target: Path, rng: random.Random) -> None:
    """Write a checkpoint with strange values and the hashes that fit them."""
    from safetensors.torch import save_file

    from adit_model.checkpoint import METADATA_KEY, content_hash, metadata_hash, read_checkpoint

    tensors, metadata, _ = read_checkpoint(source)
    part = rng.choice(("config", "known", "known", "all", "tensors"))
    if part == "tensors":
        name = rng.choice(list(tensors))
        new = tensors.pop(name) if rng.random() < 0.3 else tensors[name] * rng.choice((0, 1e38, -1))
        tensors[name if rng.random() < 0.8 else "other"] = new.contiguous()
    elif part == "all":
        changed = replace_value(metadata, rng)
        metadata = changed if isinstance(changed, dict) else metadata
    else:
        metadata[part] = replace_value(metadata[part], rng)
    metadata = json.loads(json.dumps(metadata))  # keys as text
    metadata["hash"] = content_hash(tensors, metadata.get("config", {}))
    metadata["metadata_hash"] = metadata_hash(metadata)
    save_file(tensors, target, {METADATA_KEY: json.dumps(metadata)})


def _equal(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


KINDS: tuple[str, ...] = ("files", "checkpoints", "states", "configurations", "arguments")


def trial(trials: Trials, kind: str, seed: str) -> str:
    """Run one trial."""
    run: Callable[[random.Random], str] = getattr(trials, kind)
    return run(random.Random(seed))
