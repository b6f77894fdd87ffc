"""Generate crystals and molecules, and use them with pymatgen and ASE.

The cells (# %%) run one by one in a notebook or an editor, or all at once:

    python examples/01_generate.py
"""

# %% Load the bundled weights, or the checkpoint that ADIT_CHECKPOINT names
import os

import ase.io
from ase.visualize.plot import plot_atoms
from matplotlib import pyplot as plt

from adit_model import ADiT
from adit_model.quality.records import record_samples

model = ADiT.load(os.environ.get("ADIT_CHECKPOINT", "default"))
print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {model.device}")

# %% Four crystals and four molecules: sample i depends on the seed and on i alone
samples = model.sample(8, seed=1)
for sample in samples:
    print(sample.index, sample.domain, sample.num_atoms, "atoms:", sample.system or sample.reason)

# %% Which are chemically sensible? The same checks as in the benchmark tables
for record in record_samples(samples):
    print(record.index, record.formula, "plausible" if record.plausible else record.reason)

# %% pymatgen
crystals = [s.system.to_structure() for s in samples if s.system and s.domain == "crystal"]
for structure in crystals:
    print(structure.composition.reduced_formula, f"{structure.density:.2f} g/cm^3")
    structure.to(filename=f"{structure.composition.reduced_formula}.cif")

# %% ASE
atoms = [s.system.to_atoms() for s in samples if s.system]
ase.io.write("samples.extxyz", atoms)
if atoms:
    plot_atoms(atoms[-1])
    plt.savefig("last.png")

# %% Crystals of one size, with a finer solver
more = model.sample(2, domain="crystal", num_atoms=4, num_steps=20, solver="heun", progress=False)
print([len(s.system) for s in more if s.system])
