"""From generated molecules to geometries relaxed by GFN2-xTB, ranked by their strain.

    python examples/06_discover_molecules.py [N]

Needs tblite (pip install 'adit-atomate[xtb]').
"""

import sys

from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder

from adit_atomate import ADiTMoleculeDiscoveryMaker
from adit_atomate.discovery.stages import ADiTScreenMaker


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    maker = ADiTMoleculeDiscoveryMaker(screen_maker=ADiTScreenMaker(closed_shell=True), keep=5)

    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    flow = maker.make(n=n)
    run_locally(flow, store=store, ensure_success=True)

    output = store.get_output(flow.output.uuid, load=True)
    document = MontyDecoder().process_decoded(output)
    for sample in document.samples:
        print(sample.index, sample.formula, sample.fate, sample.reason or "")
    for candidate in document.candidates:
        print(
            f"{candidate.rank}. {candidate.relaxed_smiles}: strain "
            f"{1000 * candidate.strain_energy_per_atom:.0f} meV/atom, "
            f"atoms moved {candidate.relaxation.rmsd:.2f} A"
        )


if __name__ == "__main__":
    main()
