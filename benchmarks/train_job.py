"""Train both stages as jobs on a list of structures, and generate from the result.

    python benchmarks/train_job.py --data DIR --folder FOLDER --structures 2000

Half of the structures are crystals of ``DIR/crystals_train.csv.gz``, half molecules of QM9. The
jobs' documents go to SQLite files in FOLDER. Prints what each job took and what came out.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MontyStore

from adit_atomate import (
    ADiTGenerateMaker,
    ADiTTrainAutoencoderMaker,
    ADiTTrainDenoiserMaker,
    ADiTTrainMaker,
    ADiTTrainReport,
    ADiTTrainReportMaker,
)
from adit_model.data import load_source


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--structures", type=int, default=2000)
    parser.add_argument("--steps", type=int, nargs=2, default=(300, 600), help="of the stages")
    parser.add_argument("--samples", type=int, default=100, help="generated from the result")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["ADIT_TRAINING_DIR"] = str(folder / "runs")
    os.environ["ADIT_CHECKPOINT_DIR"] = str(folder / "checkpoints")

    files = []
    crystals = str(args.data / "crystals_train.csv.gz")
    for name, source in (("crystals", crystals), ("molecules", "qm9:train")):
        dataset = load_source(source, progress=False)
        chosen = np.random.default_rng(0).permutation(len(dataset))[: args.structures // 2]
        dataset.subset(np.sort(chosen)).save(folder / f"{name}.npz")
        files.append(str(folder / f"{name}.npz"))

    schedule = {"optimizer": "muon", "learning_rate": 2.4e-3, "decay_start": 0.3}
    first, second = args.steps
    maker = ADiTTrainMaker(
        autoencoder_maker=ADiTTrainAutoencoderMaker(
            training={"steps": first, "learning_rate": 2e-3, "decay_start": 0.3}
        ),
        denoiser_maker=ADiTTrainDenoiserMaker(training={"steps": second, **schedule}),
        report_maker=ADiTTrainReportMaker(register_as="trained"),
    )
    flow = maker.make(files)
    path = str(folder)
    store = JobStore(
        MontyStore("outputs", database_path=path),
        additional_stores={"data": MontyStore("data", database_path=path)},
    )
    started = time.perf_counter()
    run_locally(flow, store=store, root_dir=path, create_folders=True, ensure_success=True)
    trained = time.perf_counter() - started
    report = ADiTTrainReport(**store.get_output(flow.output.uuid, load=True))
    print(f"trained in {trained:.0f} s: {report.checkpoint.path}")
    for stage, document in report.stages.items():
        print(
            f"  {stage}: {document.step} steps, {document.throughput.job_seconds:.0f} s, "
            f"{document.throughput.samples_per_second:.0f} samples/s"
        )
    print(report.table)

    started = time.perf_counter()
    generate = ADiTGenerateMaker(checkpoint="trained").make(n=args.samples)
    run_locally(Flow([generate]), store=store, root_dir=path, ensure_success=True)
    output = store.get_output(generate.uuid, load=True)
    print(f"{len(output['structures'])} structures in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
