"""Kill runs at random moments, and race them; the rest must equal what undisturbed runs give.

Each run is a fork of this process, which has imported everything and has one kernel thread.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLS = ("generate", "overwrite", "train", "evaluate", "discovery", "races")
DROPPED = ("samples_per_s", "model_gflops", "epoch")  # of a log: what tells the speed


def run_kills(kind: str, seed: int, number: int, end: float) -> tuple[Counter[str], list[str]]:
    """Kill or race ``number`` runs."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    if number < 1:
        return counts, faults
    with tempfile.TemporaryDirectory(prefix="adit-kills-") as name:
        setting = Setting(Path(name))
        for i in range(number):
            if time.monotonic() > end:
                break
            rng = random.Random(f"{seed}:{kind}:{i}")
            try:
                counts[getattr(setting, kind)(rng)] += 1
            except Exception as error:
                counts["fault"] += 1
                faults.append(f"{kind}:{i} {type(error).__name__}: {str(error)[:300]}")
    return counts, faults


class Setting:
    """Good inputs, and the results of undisturbed runs."""

    def __init__(self, folder: Path) -> None:
        from trials import tiny_checkpoint, write_good_files

        import adit_atomate.discovery.flow  # noqa: F401
        import adit_model.cli.main
        import adit_model.training.run  # noqa: F401

        os.environ["ADIT_CACHE_DIR"] = str(folder / "cache")
        self.folder = folder
        self.good = write_good_files(folder / "good")
        self.checkpoint = tiny_checkpoint(folder / "tiny.safetensors")
        self.wholes: dict[str, tuple[Any, float]] = {}

    def generate(self, rng: random.Random) -> str:
        """A fresh folder: nothing, or the whole result; then the same command gives it."""
        out = self._new("generate")
        whole, seconds = self._whole("generate", lambda: self._generate("whole", 7))
        done = _run(lambda: self._generate(out.name, 7), rng.uniform(0, seconds))
        found = _results(out)
        _check(found in (None, whole), "a folder was left half-written")
        _check(_run(lambda: self._generate(out.name, 7, "--overwrite")) == 0, "no second run")
        _check(_results(out) == whole, "the second run differs")
        return "ended before" if done == 0 else "killed"

    def overwrite(self, rng: random.Random) -> str:
        """A used folder: the old result, or the new one."""
        out = self._new("overwrite")
        whole, seconds = self._whole("generate", lambda: self._generate("whole", 7))
        old, _ = self._whole("old", lambda: self._generate("old", 8))
        shutil.copytree(self.folder / "old", out)
        (out / "crystals").mkdir(exist_ok=True)
        (out / "crystals" / "mine.cif").write_text("mine")
        late = rng.random() < 0.7  # most kills while the results are put in place
        moment = seconds * (rng.uniform(0.6, 1.05) if late else rng.random())
        done = _run(lambda: self._generate(out.name, 7, "--overwrite"), moment)
        _check(_results(out) in (old, whole), "the old results are gone, the new ones not there")
        _check((out / "crystals" / "mine.cif").read_text() == "mine", "a file of the user is gone")
        return "ended before" if done == 0 else "killed"

    def train(self, rng: random.Random) -> str:
        """A training that is resumed ends with the weights and the log of an undisturbed one."""
        out = self._new("train")
        whole, seconds = self._whole("train", lambda: self._train("train-whole"))
        kills = 0
        for _ in range(2):
            kills += _run(lambda: self._train(out.name), rng.uniform(0, seconds)) != 0
        _check(_run(lambda: self._train(out.name)) == 0, "the run cannot be resumed")
        weights, rows = self._trained(out)
        _check(weights == whole[0], "the weights differ")
        _check(rows == whole[1], "the log differs")
        return "killed" if kills else "ended before"

    def evaluate(self, rng: random.Random) -> str:
        """An evaluation that goes on has the rows of an undisturbed one."""
        out = self._new("evaluate")
        whole, seconds = self._whole("evaluate", lambda: self._evaluate("evaluate-whole"))
        done = _run(lambda: self._evaluate(out.name), rng.uniform(0, seconds))
        _check(_run(lambda: self._evaluate(out.name)) == 0, "the evaluation does not go on")
        _check((out / "rows.csv").read_text() == whole, "the rows differ")
        return "ended before" if done == 0 else "killed"

    def discovery(self, rng: random.Random) -> str:
        """A local discovery that goes on ends as an undisturbed one; its store stays readable."""
        from adit_atomate import resume

        out = self._new("discovery")
        whole, seconds = self._whole("discovery", lambda: self._discovery("discovery-whole"))
        done = _run(lambda: self._discovery(out.name), rng.uniform(0, seconds))
        store = _store(out)
        store.connect()
        if not any("adit_discovery" in (d.get("metadata") or {}) for d in store.query()):
            return "killed before its first job ended"
        where = Path.cwd()
        os.chdir(self._new("place", make=True))
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                document = resume(store, log=False)
        finally:
            os.chdir(where)
        _check(_told(document) == whole, "the discovery ends with other candidates")
        return "ended before" if done == 0 else "killed"

    def races(self, rng: random.Random) -> str:
        """Two at once into one folder, one store, or one sampler."""
        race = rng.choice((self._race_generate, self._race_train, self._race_store, self._threads))
        race(rng)
        return race.__name__.removeprefix("_").replace("_", " ")

    def _race_generate(self, rng: random.Random) -> None:
        out = self._new("race")
        seeds = (7, 8)
        wholes = [
            self._whole("generate", lambda: self._generate("whole", 7))[0],
            self._whole("old", lambda: self._generate("old", 8))[0],
        ]
        children = []
        for seed in seeds:
            children.append(_fork(lambda seed=seed: self._generate(out.name, seed)))
            time.sleep(rng.choice((0, 0, 0.02, 0.3)))
        ends = [_wait(child) for child in children]
        _check(sorted(ends) == [0, 2], f"of two runs into one folder, the ends are {ends}")
        _check(_results(out) == wholes[ends.index(0)], "files of two runs are mixed")

    def _race_train(self, rng: random.Random) -> None:
        out = self._new("race")
        whole, _ = self._whole("train", lambda: self._train("train-whole"))
        children = [_fork(lambda: self._train(out.name)) for _ in "ab"]
        ends = [_wait(child) for child in children]
        _check(sorted(ends) in ([0, 0], [0, 2]), f"of two trainings, the ends are {ends}")
        _check(self._trained(out)[0] == whole[0], "the weights of two trainings at once differ")

    def _race_store(self, rng: random.Random) -> None:
        out = self._new("race", make=True)

        def write(name: str) -> int:
            from adit_atomate.stores import check_job_store

            store = _store(out)
            store.connect()
            check_job_store(store)
            for i in range(5):
                document = {"uuid": f"{name}{i}", "index": 1, "output": {"x": [i]}}
                store.update(document, key=["uuid", "index"], save={"data": ["x"]})
            return 0

        children = [_fork(lambda name=name: write(name)) for name in "abc"]
        ends = [_wait(child) for child in children]
        store = _store(out)
        store.connect()
        kept = store.count()
        _check(kept == 15 and not any(ends), f"{kept} of 15 documents, the ends are {ends}")

    def _threads(self, rng: random.Random) -> None:
        from adit_model import ADiT

        model = ADiT.load(self.checkpoint, device="cpu")
        expected = model.sample(6, seed=3, progress=False)
        found: list[Any] = [None] * 3

        def sample(i: int) -> None:
            found[i] = model.sample(6, seed=3, progress=False, workers=1 + i % 2, batch_atoms=4 + i)

        threads = [threading.Thread(target=sample, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for samples in found:
            for one, other in zip(samples, expected, strict=True):
                same = one.decoded["numbers"].tobytes() == other.decoded["numbers"].tobytes()
                if one.system is not None and other.system is not None:
                    same &= one.system.positions.tobytes() == other.system.positions.tobytes()
                _check(same, "samples of threads differ")

    def _new(self, name: str, make: bool = False) -> Path:
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.with_suffix(".yaml").unlink(missing_ok=True)
        if make:
            path.mkdir()
        return path

    def _whole(self, kind: str, run: Callable[[], int]) -> tuple[Any, float]:
        if kind not in self.wholes:
            for _ in range(2):  # the first fills caches
                for name in ("whole", "old", "train-whole", "evaluate-whole", "discovery-whole"):
                    if name.removesuffix("-whole") == kind or (name, kind) == ("whole", "generate"):
                        shutil.rmtree(self.folder / name, ignore_errors=True)
                started = time.monotonic()
                _check(_run(run) == 0, f"the undisturbed {kind} fails")
                seconds = time.monotonic() - started
            read: dict[str, Callable[[], Any]] = {
                "generate": lambda: _results(self.folder / "whole"),
                "old": lambda: _results(self.folder / "old"),
                "train": lambda: self._trained(self.folder / "train-whole"),
                "evaluate": lambda: (self.folder / "evaluate-whole" / "rows.csv").read_text(),
                "discovery": lambda: json.loads(
                    (self.folder / "discovery-whole" / "told.json").read_text()
                ),
            }
            self.wholes[kind] = read[kind](), seconds
        return self.wholes[kind]

    def _generate(self, out: str, seed: int, *more: str) -> int:
        from adit_model.cli.main import main

        argv = ["generate", "-n", "40", "--seed", str(seed), "--checkpoint", str(self.checkpoint)]
        argv += ["--no-check", "--quiet", "--num-steps", "20", "--batch-atoms", "20"]
        return main([*argv, "--out", str(self.folder / out), *more])

    def _evaluate(self, out: str) -> int:
        from adit_model.cli.main import main

        argv = ["evaluate", str(self.folder / "good" / "many.extxyz"), "--reference", "none"]
        argv += ["--no-plot", "--quiet", "--skip", "posebusters"]
        return main([*argv, "--out", str(self.folder / out)])

    def _train(self, out: str) -> int:
        from trials import train_tiny

        try:
            train_tiny(self.folder / out, self.good, True, steps=12, checkpoint_minutes=1e-4)
        except ValueError as error:
            _check("another training writes" in str(error), str(error))
            return 2
        return 0

    def _trained(self, out: Path) -> tuple[str, list[dict[str, str]]]:
        from adit_model.checkpoint import read_metadata

        with open(out / "logs" / "csv" / "metrics.csv", newline="") as file:
            rows = [
                {k: v for k, v in row.items() if v and k not in DROPPED}
                for row in csv.DictReader(file)
            ]
        rows = [row for row in rows if row.keys() - {"step"}]
        return read_metadata(out / "autoencoder.safetensors")["hash"], rows

    def _discovery(self, out: str) -> int:
        from atomate2.ase.jobs import EmtRelaxMaker
        from jobflow import run_locally
        from monty.json import MontyDecoder
        from pymatgen.core import Lattice, Structure

        from adit_atomate import ADiTDiscoveryMaker, ADiTRelaxStageMaker

        folder = self.folder / out
        folder.mkdir()
        os.chdir(folder)
        sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.51]]
        lengths = {"Cu": 3.6, "Al": 4.0, "Ag": 4.1, "Pt": 3.9, "Au": 4.1}
        crystals = [Structure(Lattice.cubic(a), [s] * 4, sites) for s, a in lengths.items()]
        relax = EmtRelaxMaker(relax_kwargs={"fmax": 0.05, "final_atoms_object_file": None})
        stage = ADiTRelaxStageMaker(
            relax_maker=relax, chunk_size=2, symmetrise=None, time_limit=None, memory_limit=None
        )
        flow = ADiTDiscoveryMaker(novelty_maker=None, relax_maker=stage).make(structures=crystals)
        store = _store(folder)
        run_locally(flow, store=store, log=False)
        output = store.get_output(flow.output.uuid, load=True)
        told = _told(MontyDecoder().process_decoded(output))
        (folder / "told.json").write_text(json.dumps(told))
        return 0


def _store(folder: Path) -> Any:
    from adit_atomate import disk_store

    return disk_store(folder / "store")


def _told(document: Any) -> list[list[Any]]:
    return [[s.index, s.fate, s.rank, s.reason, s.relaxation.energy] for s in document.samples]


def _results(folder: Path) -> dict[str, bytes] | None:
    """Files of a folder of samples as `adit evaluate` would see them; None without results."""
    from adit_model.files import finish_results, listed_results

    if not folder.is_dir():
        return None
    finish_results(folder)
    names = listed_results(folder)
    found = {name: (folder / name).read_bytes() for name in names if name != "run.json"}
    return found or None


def _fork(run: Callable[[], int]) -> int:
    child = os.fork()
    if child:
        return child
    status = 70
    with contextlib.suppress(BaseException):
        os.setpgrp()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        status = run()
    os._exit(status)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(run: Callable[[], int], seconds: float | None = None) -> int:
    """Run to the end, or kill the process and its children after some seconds."""
    child = _fork(run)
    if seconds is not None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
    return _wait(child)


def _check(holds: bool, text: str) -> None:
    if not holds:
        raise AssertionError(text)
