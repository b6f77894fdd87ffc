"""Generate crystals and relax them with a force field of atomate2, in one flow.

    python examples/03_relax.py

With CHGNet (pip install chgnet, weights included) the relaxed crystals mean something. Without it
the Lennard-Jones potential that comes with ASE shows the same flow; it is no chemistry.
"""

from importlib.util import find_spec

from jobflow import Flow, JobStore, Maker, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder

from adit_atomate import ADiTGenerateMaker, ADiTRelaxStageMaker


def relax_maker() -> Maker:
    if find_spec("chgnet") is not None:
        from atomate2.forcefields.jobs import ForceFieldRelaxMaker

        return ForceFieldRelaxMaker(force_field_name="CHGNet", steps=40)
    from atomate2.ase.jobs import LennardJonesRelaxMaker

    print("CHGNet is not installed: relaxing with Lennard-Jones, which shows the flow only")
    return LennardJonesRelaxMaker(
        steps=20, relax_cell=False, calculator_kwargs={"sigma": 2.2, "epsilon": 0.1, "rc": 6.0}
    )


def main() -> None:
    generate = ADiTGenerateMaker(domain="crystal", seed=1).make(n=4)
    # One job relaxes the whole list and loads the force field once; one that fails loses no other.
    relax = ADiTRelaxStageMaker(relax_maker=relax_maker()).make(generate.output.structures)
    flow = Flow([generate, relax], output=relax.output, name="generate and relax")

    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    run_locally(flow, store=store, ensure_success=True)
    document = MontyDecoder().process_decoded(store.get_output(relax.output.uuid, load=True))
    for sample in document.samples:
        found = sample.relaxation
        text = found.reason or f"{found.energy_per_atom:.3f} eV/atom after {found.num_steps} steps"
        print(f"{sample.formula}: {found.state}, {text}")


if __name__ == "__main__":
    main()
