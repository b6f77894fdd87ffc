"""What a Maker needs beyond this package's own dependencies, checked before any work."""

from __future__ import annotations

from importlib.util import find_spec

from jobflow import Maker

# module and how to install it, for the Makers of atomate2 that do not say so before they run
FORCE_FIELDS = {
    "CHGNet": ("chgnet", "'adit-atomate[chgnet]'"),
    "SevenNet": ("sevenn", "sevenn"),
    "MACE": ("mace", "mace-torch"),
    "MACE_MP_0": ("mace", "mace-torch"),
    "MACE_MP_0B3": ("mace", "mace-torch"),
    "MACE_MPA_0": ("mace", "mace-torch"),
    "M3GNet": ("matgl", "matgl"),
    "MATPES_PBE": ("matgl", "matgl"),
    "MATPES_R2SCAN": ("matgl", "matgl"),
    "MatterSim": ("mattersim", "mattersim"),
    "FAIRChem": ("fairchem", "fairchem-core"),
    "GAP": ("quippy", "quippy-ase"),
    "NEP": ("calorine", "calorine"),
    "Nequip": ("nequip", "nequip"),
    "Allegro": ("nequip", "nequip"),
    "DeepMD": ("deepmd", "deepmd-kit"),
    "UPET": ("upet", "upet"),
}


def check_engine(maker: Maker, field: str) -> None:
    """Check that what a Maker runs is installed, as far as the Maker says what that is.

    Parameters
    ----------
    maker : Maker
        Of atomate2 or like it.
    field : str
        Where it was given, for the message.

    Raises
    ------
    ImportError
        If a package is missing; the text says how to install it.
    """
    needed = _needed(maker)
    if needed is None:
        return
    module, package = needed
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise ImportError(
            f"{field} ({type(maker).__name__}) needs the module {module}, which is not installed: "
            f"pip install {package}, or give another Maker"
        )


def force_field_of(maker: Maker) -> str | None:
    """Return atomate2's name of a Maker's force field, None if it runs none of those."""
    meta = getattr(maker, "calculator_meta", None)
    return str(meta.name) if meta is not None and type(meta).__name__ == "MLFF" else None


def _needed(maker: Maker) -> tuple[str, str] | None:
    from atomate2.ase.jobs import GFNxTBRelaxMaker

    if isinstance(maker, GFNxTBRelaxMaker):
        return "tblite", "'adit-atomate[xtb]'"
    if (name := force_field_of(maker)) is not None:
        return FORCE_FIELDS.get(name)
    meta = getattr(maker, "calculator_meta", None)
    if isinstance(meta, str) and "." in meta:
        module = meta.rpartition(".")[0]
        return module, module.partition(".")[0]
    return None


def unknown_elements(maker: Maker, symbols: set[str]) -> list[str]:
    """Return those of the elements that a Maker's force field is known not to know."""
    from ase.data import atomic_numbers

    from adit_model.quality.force_fields import SUPPORTED

    if force_field_of(maker) not in ("CHGNet", "SevenNet"):
        return []
    return sorted(symbol for symbol in symbols if atomic_numbers.get(symbol) not in SUPPORTED)
