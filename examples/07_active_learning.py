"""Discover crystals, keep them in a store, learn from the store, and generate again.

    python examples/07_active_learning.py [FOLDER]

The results stay in FOLDER, in SQLite files. So few steps show the way and teach little: see
docs/training.md for a fine-tuning run that does. Needs pip install 'adit-atomate[train,store]'; the
relaxation is CHGNet's (pip install chgnet), without it a Lennard-Jones potential shows the flow.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from jobflow import Flow, Maker, run_locally

from adit_atomate import (
    ADiTDataMaker,
    ADiTFineTuneMaker,
    ADiTGenerateMaker,
    ADiTTrainDenoiserMaker,
    ADiTTrainReportMaker,
    StoreSource,
    disk_store,
    from_store,
)
from adit_atomate.discovery.flow import ADiTDiscoveryMaker


def relax_maker() -> Maker:
    if find_spec("chgnet") is not None:
        from atomate2.forcefields.jobs import ForceFieldRelaxMaker

        return ForceFieldRelaxMaker(force_field_name="CHGNet", steps=30)
    from atomate2.ase.jobs import LennardJonesRelaxMaker

    print("CHGNet is not installed: relaxing with Lennard-Jones, which shows the flow only")
    return LennardJonesRelaxMaker(
        steps=20, relax_cell=False, calculator_kwargs={"sigma": 2.2, "epsilon": 0.1, "rc": 6.0}
    )


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "loop").resolve()
    os.environ.setdefault("ADIT_TRAINING_DIR", str(folder / "runs"))
    store = disk_store(folder / "store")

    # 1. Discover: every relaxation is kept in the store.
    discovery = ADiTDiscoveryMaker(
        generate_maker=ADiTGenerateMaker(domain="crystal", num_atoms=(2, 5), seed=1),
        relax_maker=relax_maker(),
        screen_maker=None,
        rank_maker=None,
        keep=None,
    ).make(n=4)
    run_locally(discovery, store=store, ensure_success=True)

    # 2. What the store holds now, from these or any other calculations.
    found = from_store(store, properties={"energy": "output.energy_per_atom"}, converged=False)
    for name, values in found.properties.items():
        print(f"{name}: {values['energy']:.3f} eV/atom")

    # 3. Fine-tune on it, and 4. generate from the result.
    training = {"steps": 10, "batch_size": 8, "learning_rate": 1e-4, "log_every": 5}
    tune = ADiTFineTuneMaker(
        checkpoint=os.environ.get("ADIT_CHECKPOINT", "default"),
        data_maker=ADiTDataMaker(options={"validation_fraction": 0.0}),
        denoiser_maker=ADiTTrainDenoiserMaker(training=training),
        report_maker=ADiTTrainReportMaker(n=4),
    ).make([StoreSource(store, converged=False)])
    run_locally(tune, store=store, ensure_success=True)
    report = store.get_output(tune.output.uuid, load=True)
    print(report["data"]["report"])
    print(f"fine-tuned: {report['checkpoint']['path']}")

    generate = ADiTGenerateMaker(
        domain="crystal", checkpoint=report["checkpoint"]["path"], seed=2
    ).make(n=4)
    run_locally(Flow([generate], name="after"), store=store, ensure_success=True)
    print(f"{len(store.get_output(generate.uuid, load=True)['structures'])} new structures")


if __name__ == "__main__":
    main()
