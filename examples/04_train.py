"""Train both stages on a list of your own structures, and sample from the result.

    python examples/04_train.py [FOLDER]

A model this small, trained for so few steps, shows the way and knows no chemistry: see
examples/training/mini.yaml for a run that does. Needs pip install 'adit-atomate[train]'.
"""

import sys
from pathlib import Path

from ase.build import bulk, molecule
from pymatgen.core import Lattice, Structure

from adit_model import ADiT
from adit_model.config import ModelConfig
from adit_model.data.structures import load_structures
from adit_model.training.config import RunConfig, TrainingConfig
from adit_model.training.run import run_stage

MODEL = ModelConfig.from_dict(
    {
        "size": "mini",
        "autoencoder": {"dim": 32, "num_encoder_layers": 1, "num_decoder_layers": 1},
        "denoiser": {"dim": 48, "num_layers": 2},
        "sampling": {"num_steps": 10},
    }
)


def my_structures() -> list:
    """Anything goes: pymatgen Structure and Molecule, ase.Atoms, RDKit molecules."""
    perovskite = Structure(
        Lattice.cubic(3.9),
        ["Sr", "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    )
    crystals = [bulk("NaCl", "rocksalt", a=5.64), bulk("GaAs", "zincblende", a=5.65), perovskite]
    molecules = [molecule(name) for name in ("H2O", "NH3", "CH4", "CH3OH", "C2H6", "C6H6")]
    return crystals + molecules


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "my-model")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_structures(my_structures(), name="mine", progress=False)
    dataset.save(folder / "mine.npz")  # what `adit data PATH --out mine.npz` does with files

    source = (str(folder / "mine.npz"),)
    training = TrainingConfig(steps=30, batch_size=8, log_every=10, accelerator="cpu")
    first = run_stage(
        "autoencoder",
        RunConfig(source, str(folder / "autoencoder"), model=MODEL, training=training),
        progress=False,
    )
    second = run_stage(
        "denoiser",
        RunConfig(
            source,
            str(folder / "denoiser"),
            model=MODEL,
            training=training,
            autoencoder=str(first.checkpoint),
        ),
        progress=False,
    )
    print(f"trained {first.step} + {second.step} steps: {second.checkpoint}")

    model = ADiT.load(second.checkpoint)
    for sample in model.sample(4, progress=False):
        print(sample.index, sample.domain, sample.num_atoms, sample.system or sample.reason)


if __name__ == "__main__":
    main()
