"""Generate crystals and relax them with a force field of atomate2, in one flow.

    python examples/03_relax.py

With CHGNet (pip install chgnet, weights included) the relaxed crystals mean something. Without it
the Lennard-Jones potential that comes with ASE shows the same flow; it is no chemistry.
"""

from importlib.util import find_spec

from jobflow import Flow, JobStore, Maker, run_locally
from maggma.stores import MemoryStore

from adit_atomate import ADiTGenerateMaker


def relax_maker() -> Maker:
    if find_spec("chgnet") is not None:
        from atomate2.forcefields.jobs import ForceFieldRelaxMaker

        return ForceFieldRelaxMaker(force_field_name="CHGNet", steps=100)
    from atomate2.ase.jobs import LennardJonesRelaxMaker

    print("CHGNet is not installed: relaxing with Lennard-Jones, which shows the flow only")
    return LennardJonesRelaxMaker(
        steps=20, relax_cell=False, calculator_kwargs={"sigma": 2.2, "epsilon": 0.1, "rc": 6.0}
    )


def main() -> None:
    generate = ADiTGenerateMaker(domain="crystal", seed=1).make(n=4)
    # One job relaxes the whole list and loads the force field once.
    relax = relax_maker().make(generate.output.structures)
    flow = Flow([generate, relax], output=relax.output, name="generate and relax")

    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    responses = run_locally(flow, store=store, ensure_success=True)
    for document in responses[relax.uuid][1].output:
        formula = document.structure.composition.reduced_formula
        energy = document.output.energy / len(document.structure)
        converged = "converged" if document.is_force_converged else "not converged"
        print(f"{formula}: {energy:.3f} eV/atom after {document.output.n_steps} steps, {converged}")


if __name__ == "__main__":
    main()
