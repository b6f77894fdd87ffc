"""From generated crystals to relaxed, ranked candidates, and on to DFT.

    python examples/05_discover_crystals.py [N] [REFERENCE.csv]

Needs CHGNet (pip install 'adit-atomate[chgnet]', weights included). REFERENCE.csv, in the format
of MP-20, holds what is known: its crystals are not new, and its energies make the convex hull. By
default these are the known phases of the package.
"""

import sys
from pathlib import Path

from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder

from adit_atomate import ADiTDiscoveryMaker, ADiTGenerateMaker
from adit_atomate.discovery.rank import ADiTHullMaker
from adit_atomate.discovery.stages import ADiTNoveltyMaker


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    known = str(Path(sys.argv[2]).resolve()) if len(sys.argv) > 2 else "known"
    maker = ADiTDiscoveryMaker(
        generate_maker=ADiTGenerateMaker(domain="crystal", num_atoms="2-6", seed=1),
        novelty_maker=ADiTNoveltyMaker(reference=known),
        rank_maker=ADiTHullMaker(hull=known),
        keep=3,
        # Any Maker of atomate2 that takes a structure, once its code is installed:
        # dft_maker=atomate2.vasp.flows.core.DoubleRelaxMaker(),
        # dft_maker=adit_atomate.discovery.gpaw.GPAWRelaxMaker(),
    )
    # update_kwargs reaches the Makers of all stages.
    maker = maker.update_kwargs({"steps": 200}, class_filter=type(maker.relax_maker))

    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    flow = maker.make(n=n)
    run_locally(flow, store=store, ensure_success=True)

    output = store.get_output(flow.output.uuid, load=True)
    document = MontyDecoder().process_decoded(output)
    for sample in document.samples:
        print(sample.index, sample.formula, sample.fate, sample.reason or "")
    for candidate in document.candidates:
        above = candidate.energy_above_hull
        hull = candidate.hull_reason if above is None else f"{above:.3f} eV/atom above the hull"
        name = f"{candidate.formula_pretty} ({candidate.symmetry.symbol})"
        print(f"{candidate.rank}. {name}: {candidate.stability}, {hull}")


if __name__ == "__main__":
    main()
