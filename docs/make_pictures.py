"""Make the pictures of the README and the documentation, with the bundled weights.

python docs/make_pictures.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from matplotlib.patches import FancyBboxPatch

from adit_atomate.ase import ADiTSampler
from adit_model.conditions.condition import Condition
from adit_model.drawing import Picture
from adit_model.notebook.pictures import (
    contact_sheet,
    depict,
    filmstrip,
    latent_map,
    trajectory_gif,
)

MODEL, DATA, LATENT = "#dbe9f6", "#f3f3f3", "#fbe3c9"


def samples(sampler: ADiTSampler, folder: Path) -> None:
    """Twelve plausible structures: the first six of each domain."""
    shown = []
    for domain, sizes in (("crystal", (4, 12)), ("molecule", (14, 19))):
        made = sampler.sample(40, domain=domain, num_atoms=sizes, first_index=0)
        shown += made.plausible[:6]
    contact_sheet(shown, folder / "samples.png", columns=6)
    depict(shown[6:], folder / "formulas.png", columns=3)


def asked(folder: Path) -> None:
    """Three valid structures of each of four conditions, a row each, under what was asked."""
    sampler = ADiTSampler("mini-2", seed=0, progress=False)
    host = Atoms("WO3", 3.8 * np.array([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2)
    host.set_cell([3.8] * 3)
    host.set_pbc(True)
    conditions = {
        "Ba-Ti-O": "Ba-Ti-O, atoms=5-10",
        "LiMn3O4": "LiMn3O4, units=1",
        "Fm-3m": "crystal, spacegroup=225, atoms=2-8",
        "WO3 + Na": Condition.completing(host, {"Na": 1}),
    }
    shown, titles = [], []
    for name, condition in conditions.items():
        shown += sampler.sample(3, condition, first_index=0, only_holding=True, max_tries=6)
        titles += [name] * (len(shown) - len(titles))
    contact_sheet(shown, folder / "asked.png", columns=3, titles=titles)


def trajectories(sampler: ADiTSampler, folder: Path) -> None:
    """Show how the first plausible ones form: a crystal as a strip, a molecule in motion."""
    for domain, count in (("crystal", 5), ("molecule", 15)):
        made = sampler.sample(20, domain=domain, num_atoms=count, first_index=0).plausible
        index = made[0].info["index"]
        frames = sampler.trajectory(domain=domain, num_atoms=count, index=index)
        if domain == "crystal":
            filmstrip(frames, folder / "trajectory.png")
        else:
            trajectory_gif(frames[::2], folder / "trajectory.gif", size=240)


def architecture(folder: Path) -> None:
    """Both stages, and the way of a sample through them."""
    figure = Picture(9, 3.6)
    ax = figure.subplots()
    ax.set_axis_off()
    ax.set(xlim=(0, 100), ylim=(0, 42))

    def box(x: float, y: float, width: float, text: str, color: str) -> None:
        style = {"boxstyle": "round,pad=0.2", "fc": color, "ec": "0.4", "lw": 0.8}
        ax.add_patch(FancyBboxPatch((x, y), width, 9, **style))
        ax.text(x + width / 2, y + 4.5, text, ha="center", va="center", fontsize=8)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3", "lw": 1})

    ax.text(0, 40, "Stage 1: autoencoder", fontsize=9, weight="bold", va="center")
    box(1, 26, 18, "crystal or molecule\nelements, positions, cell", DATA)
    box(25, 26, 16, "encoder\ntransformer", MODEL)
    box(47, 26, 12, "latents\n8 an atom", LATENT)
    box(65, 26, 14, "decoder\ntransformer", MODEL)
    box(85, 26, 14, "the same\nstructure", DATA)
    ax.text(0, 17.5, "Stage 2: diffusion transformer", fontsize=9, weight="bold", va="center")
    box(1, 4, 18, "noise, from seed\nand index of a sample", DATA)
    box(25, 4, 16, "DiT, repeated\ntime, domain, size", MODEL)
    box(47, 4, 12, "latents\n8 an atom", LATENT)
    box(65, 4, 14, "decoder\nof stage 1", MODEL)
    box(85, 4, 14, "a new\nstructure", DATA)
    for y in (30.5, 8.5):
        for start, end in ((19.6, 24.4), (41.6, 46.4), (59.6, 64.4), (79.6, 84.4)):
            arrow((start, y), (end, y))
    arrow((53, 25.2), (53, 13.8))
    ax.text(54, 19.5, "training: learns to\nrecover these from noise", fontsize=7, va="center")
    figure.savefig(folder / "architecture.png", dpi=130, facecolor="white")


def main() -> None:
    """Write all pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    architecture(folder)
    sampler = ADiTSampler(seed=0, progress=False)
    samples(sampler, folder)
    asked(folder)
    trajectories(sampler, folder)
    latent_map(
        sampler, sampler.sample(200, first_index=0), folder / "latent_map.png", color="class"
    )


if __name__ == "__main__":
    main()
