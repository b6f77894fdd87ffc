"""``adit generate``: structures as files, a table, a picture."""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model import __version__
from adit_model.config import SOLVERS, SYMMETRIES
from adit_model.files import UNFINISHED, csv_row, listed_results, new_results, output_folder
from adit_model.quality.records import COLUMNS, RECORDS, SETTINGS, STRUCTURES
from adit_model.quality.symmetry import CELLS, FILE_SYMPREC, SUFFIXES, crystal_text
from adit_model.systems import CRYSTAL, DOMAINS

if TYPE_CHECKING:
    from adit_model.quality.holding import Held
    from adit_model.quality.records import SampleRecord
    from adit_model.sampling.request import Request
    from adit_model.sampling.sample import Sample

PICTURE = "structures.png"
WRITTEN = (RECORDS, STRUCTURES, SETTINGS, PICTURE)
MAX_PLOTTED = 64


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``adit generate``; :func:`generate_command` is its body."""
    parser.description = (
        "Generate structures and write one CIF for each crystal, one XYZ for each molecule, all of "
        f"them in {STRUCTURES}, and {RECORDS} with a row for every sample."
    )
    add = parser.add_argument
    add("-n", type=int, default=32, metavar="N", help="number of samples (default %(default)s)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add("--domain", default="both", choices=(*DOMAINS, "both"), help="default: what they know")
    add_condition_arguments(parser)
    add("--random-rotation", action="store_true", help="turn each structure at random")
    add_sampling_arguments(parser)
    add(
        "--only-holding",
        action="store_true",
        help="draw on until N samples are plausible and as asked",
    )
    add(
        "--max-tries",
        type=int,
        default=20,
        metavar="K",
        help="with it, draw at most K times N samples (default %(default)s)",
    )
    add("--format", choices=list(SUFFIXES), default="cif", help="of crystals (default cif)")
    add(
        "--write-cell",
        choices=CELLS,
        default=CELLS[0],
        help="of these files (default: %(default)s)",
    )
    add("--symprec", type=float, default=FILE_SYMPREC, metavar="A", help="their symmetry, angstrom")
    add("--no-check", action="store_true", help="do not check whether structures are plausible")
    add("--plot", action="store_true", help=f"draw up to {MAX_PLOTTED} structures in {PICTURE}")


def add_condition_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be asked of structures; :func:`build_request` reads it."""
    add = parser.add_argument
    add("--condition", metavar="TEXT", help="what is asked for: 'Li-P-S, atoms=4-12'")
    add("--elements", metavar="Li-P-S", help="these elements and no others")
    add("--formula", metavar="LiMn3O4", help="composition of a formula unit")
    add("--units", metavar="2|1-4", help="formula units in the cell")
    add("--space-group", metavar="225|Fm-3m", help="number or short symbol")
    add("--property", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")
    add("--cell", metavar="FILE|4/4/6/90/90/120", help="cell of a crystal, or of a file's")
    add("--fixed", metavar="FILE|Ti@0/0/0;...", help="sites that are there; a file gives its cell")
    add("--num-atoms", metavar="12|4-12|4,5,6", help="one number, a range, or one for each sample")


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that samples takes; :func:`sampling_options` reads some of it."""
    add = parser.add_argument
    add("--seed", type=int, default=0, help="seed of all random numbers (default %(default)s)")
    add("--checkpoint", default="default", metavar="NAME|FILE", help="weights (default: bundled)")
    add("--num-steps", type=int, metavar="STEPS", help="steps of the solver")
    add("--solver", metavar="NAME", help=", ".join(SOLVERS))
    add(
        "--guidance-scale",
        metavar="SCALE|KIND=SCALE,...",
        help="weight of what is told, 1 is none; or of each kind: space_group=2,properties=1.5",
    )
    add(
        "--noise-scale",
        metavar="SCALE|DOMAIN=SCALE,...",
        help="of the noise that solvers renew; or of each domain: crystal=0.5,molecule=1",
    )
    add("--symmetry", metavar="NAME", help=f"taken from a known crystal: {', '.join(SYMMETRIES)}")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default %(default)s)")
    add("--batch-atoms", type=int, metavar="ATOMS", help="atoms integrated at a time")
    add("--workers", type=int, metavar="THREADS", help="on a CPU (default: its cores)")
    add("--overwrite", action="store_true", help="replace what an earlier run left in DIR")
    add("--quiet", action="store_true", help="no progress bars")


def sampling_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of :class:`~adit_model.config.SamplingConfig` among the arguments."""
    names = ("num_steps", "solver", "guidance_scale", "noise_scale", "symmetry")
    return {name: getattr(args, name) for name in names}


def generate_command(args: argparse.Namespace) -> int:
    """Generate, check, write, and print how many are plausible.

    Parameters
    ----------
    args : argparse.Namespace
        As made by a parser that :func:`add_generate_arguments` was called on.

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    ValueError, OSError
        If an argument is out of range, the checkpoint cannot be used, or the folder cannot be
        written or holds files already.
    """
    from adit_model.checkpoint import read_known, resolve_checkpoint
    from adit_model.sampling.request import check_positive

    if args.n <= 0:
        raise ValueError(f"-n must be a positive integer, got {args.n}")
    check_positive("max_tries", args.max_tries)
    if not args.symprec > 0:
        raise ValueError(f"--symprec must be positive, got {args.symprec}")
    if args.only_holding and args.no_check:
        raise ValueError("--only-holding asks for plausible samples: leave --no-check away")
    request = build_request(args)
    request = request.filled(request.check(*read_known(resolve_checkpoint(args.checkpoint))))
    check_folder(args.out, args.overwrite, WRITTEN)
    if args.plot:
        import matplotlib  # noqa: F401 - refuses a MPLBACKEND that is none, before any work
    with output_folder(args.out, alone=True):
        check_folder(args.out, args.overwrite, WRITTEN)  # another run may have come first
        return _generate(args, request)


def build_request(args: argparse.Namespace) -> Request:
    """Build the request that the arguments describe.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, or two contradict each other.
    """
    from adit_model.conditions.condition import Condition, as_condition
    from adit_model.data.structures import read_one
    from adit_model.sampling.request import Request, check_positive

    check_positive("--batch-atoms", args.batch_atoms)
    check_positive("--workers", args.workers)
    properties = {}
    for text in args.property:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--property takes NAME=VALUE, got {text!r}")
        if name in properties:
            raise ValueError(f"--property {name} is given twice")
        properties[name] = value
    condition = as_condition(
        args.condition,
        elements=args.elements,
        formula=args.formula,
        formula_units=args.units,
        space_group=args.space_group,
        properties=properties,
    )
    for name, text in (("cell", args.cell), ("fixed", args.fixed)):
        if text is not None and Path(text).is_file():
            host = Condition.completing(read_one(text), 0)  # all its sites and its cell
            sites = {"atoms": host.atoms} if name == "fixed" else {}
            condition = as_condition(condition, cell=host.cell, **sites)
        elif text is not None:
            condition = as_condition(condition, **{"atoms" if name == "fixed" else name: text})
    return Request.of(
        args.n,
        condition,
        domain=args.domain,
        num_atoms=args.num_atoms,
        seed=args.seed,
        random_rotation=args.random_rotation,
        **sampling_options(args),
    )


def _generate(args: argparse.Namespace, request: Request) -> int:
    from adit_model.model import ADiT
    from adit_model.quality.conditions import obeyed
    from adit_model.quality.holding import sample_held
    from adit_model.quality.records import count_records, record_samples
    from adit_model.sampling.sample import SamplingInterrupted
    from adit_model.sampling.sampler import sample

    model = ADiT.load(args.checkpoint, device=args.device)
    started = time.perf_counter()
    interrupt: SamplingInterrupted | None = None
    held: Held | None = None

    def draw(part: Request) -> list[Sample]:
        return sample(
            model,
            part,
            batch_atoms=args.batch_atoms,
            workers=args.workers,
            progress=not args.quiet,
            on_batch=lambda batch: _keep(args.out / UNFINISHED, batch),
        )

    (args.out / UNFINISHED).unlink(missing_ok=True)
    try:
        if args.only_holding:
            held = sample_held(draw, request, args.max_tries)
            samples = held.samples
        else:
            samples = draw(request)
    except SamplingInterrupted as error:
        interrupt, samples = error, error.samples
    seconds = time.perf_counter() - started
    run = {
        "adit_atomate": __version__,
        "checkpoint": args.checkpoint,
        "checkpoint_hash": model.checkpoint_hash,
        "device": str(model.device),
        "request": {k: v for k, v in request.as_dict().items() if not k.startswith("@")},
        "sampling_seconds": round(seconds, 3),
        "written": {"format": args.format, "cell": args.write_cell, "symprec": args.symprec},
    }
    if interrupt is not None:  # what is finished is not lost
        if samples:
            write_results(args.out, samples, record_samples(samples, check=False), run)
        raise interrupt
    try:
        if held is not None:
            records, run["tried"] = held.records, held.tried
        else:
            records = record_samples(samples, check=not args.no_check, progress=not args.quiet)
    except BaseException:  # what is generated is not lost with the checks
        write_results(args.out, samples, record_samples(samples, check=False), run)
        raise
    run["holds"] = obeyed(samples, records)
    write_results(args.out, samples, records, run, (PICTURE,) if args.plot else ())
    print(
        f"{args.n} samples in {seconds:.1f} s on {model.device}, "
        f"checkpoint {args.checkpoint} ({model.checkpoint_hash[:12]}), seed {args.seed}"
    )
    if held is not None:
        print(f"{len(samples)} of {held.tried} samples drawn are plausible and as asked")
    for domain, counts in count_records(records).items():
        print(f"{domain}s: {counts}")
    for name, rate in run["holds"].items():
        share = f"{100 * rate['share']:.1f} %"
        print(f"{name} as asked: {rate['passed']} of {rate['of']} ({share})")
    written = sum(record.decoded for record in records)
    print(f"{written} structures written to {args.out}, see {args.out / RECORDS}")
    if args.plot and written:
        plot_samples(args.out / PICTURE, samples, records)
    return 0


def check_folder(folder: Path, overwrite: bool, names: Sequence[str]) -> None:
    """Refuse a file, and a folder that is not empty unless ``overwrite``.

    Raises
    ------
    ValueError
        If it is one of these, or has files of these ``names`` that no earlier run wrote.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} is not empty: choose another folder, or give --overwrite")
    ours = listed_results(folder)
    if foreign := [name for name in names if (folder / name).exists() and name not in ours]:
        raise ValueError(
            f"{folder} has {', '.join(foreign)}, which no run listed in its {SETTINGS}: move them "
            "away, or choose another folder"
        )


def write_results(
    folder: Path,
    samples: Sequence[Sample],
    records: Sequence[SampleRecord],
    run: dict[str, Any],
    later: Sequence[str] = (),
) -> None:
    """Write structures, the table and the settings of a run in place of an earlier run's.

    If the folder cannot be written, all goes into a new folder for temporary files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    samples : sequence of Sample
        What was generated.
    records : sequence of SampleRecord
        Its row of the table.
    run : dict
        Settings, as JSON.
    later : sequence of str
        Files that the run writes after these.

    Raises
    ------
    OSError
        If ``folder`` cannot be written; the text says where the results are.
    """
    try:
        with new_results(folder, later) as new:
            _write_results(new, samples, records, run)
        (folder / UNFINISHED).unlink(missing_ok=True)
    except OSError as error:
        rescue = Path(tempfile.mkdtemp(prefix="adit-generate-"))
        with new_results(rescue) as new:
            _write_results(new, samples, records, run)
        text = f"{folder} cannot be written ({error}); the results are in {rescue}"
        raise OSError(text) from error


def _keep(path: Path, samples: Sequence[Sample]) -> None:
    """Append a batch to the samples of a run that has not ended."""
    import ase.io

    images = [sample.system.to_atoms() for sample in samples if sample.system is not None]
    with suppress(OSError):  # what is wrong is said when the results are written
        ase.io.write(path, images, format="extxyz", append=True)


def _write_results(
    folder: Path, samples: Sequence[Sample], records: Sequence[SampleRecord], run: dict[str, Any]
) -> None:
    import ase.io

    together = []
    for sample, record in zip(samples, records, strict=True):
        if sample.system is not None:
            atoms = sample.system.to_atoms()
            if record.plausible is not None:
                atoms.info["plausible"] = record.plausible
            together.append(atoms)
    if together:
        ase.io.write(folder / STRUCTURES, together, format="extxyz")
    (folder / SETTINGS).write_text(json.dumps(run, indent=2) + "\n")

    digits = max(4, len(str(len(samples) - 1)))
    with open(folder / RECORDS, "w", newline="") as file:
        table = csv.DictWriter(file, [*COLUMNS, "file"])
        table.writeheader()
        for sample, record in zip(samples, records, strict=True):
            name = ""
            if sample.system is not None:
                stem = f"{record.index:0{digits}d}_{record.formula}"
                if record.domain == CRYSTAL:
                    written = run.get("written", {})
                    suffix = SUFFIXES[written.get("format", "cif")]
                    name = os.path.join("crystals", f"{stem}{suffix}")
                    text = crystal_text(sample.system, **written)
                else:
                    name = os.path.join("molecules", f"{stem}.xyz")
                    text = sample.system.to_xyz()
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            row = {**record.model_dump(), "file": name}
            row.update({name: json.dumps(row[name]) for name in ("holds", "targets", "estimates")})
            table.writerow(csv_row(row))


def plot_samples(path: Path, samples: Sequence[Sample], records: Sequence[SampleRecord]) -> None:
    """Draw the first structures, in the order of their index; those not plausible are marked."""
    from adit_model.drawing import plot_grid, structure_title

    shown = [
        (sample.system, record)
        for sample, record in zip(samples, records, strict=True)
        if sample.system is not None
    ][:MAX_PLOTTED]
    titles = [structure_title(r.formula, r.index, r.plausible) for _, r in shown]
    plot_grid([system for system, _ in shown], path, titles=titles)
