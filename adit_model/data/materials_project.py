"""Crystals from the Materials Project's REST interface, with the user's own key.

Own client, since pymatgen's MPRester gives up at the first error, does not go on after it, and
keeps all pages in memory.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adit_model.data.http import DownloadError, get_json
from adit_model.files import atomic_path, write_atomic

logger = logging.getLogger(__name__)

MATERIALS_PROJECT = "https://api.materialsproject.org"
KEY_VARIABLES = ("MP_API_KEY", "PMG_MAPI_KEY")
PAGE_SIZE = 1000  # the most that the server sends at once
FIELDS = (
    "material_id",
    "structure",
    "nsites",
    "formation_energy_per_atom",
    "energy_above_hull",
    "band_gap",
    "symmetry",
)
COLUMNS = (
    "material_id",
    "formula",
    "nsites",
    "formation_energy_per_atom",
    "e_above_hull",
    "band_gap",
    "spacegroup",
    "cif",
)


def download_materials_project(
    path: str | Path,
    *,
    max_atoms: int = 20,
    max_energy_above_hull: float | None = 0.08,
    filters: dict[str, Any] | None = None,
    api_key: str | None = None,
    base_url: str = MATERIALS_PROJECT,
    page_size: int = PAGE_SIZE,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Fetch crystals and write them as a CDVAE-format CSV file.

    The defaults are the choice of MP-20 (Xie et al., ICLR 2022): at most 20 atoms in the primitive
    cell and 0.08 eV/atom above the hull. Cells are written primitive and Niggli-reduced. Pages
    are kept beside the file until all are there, so a broken run goes on where it stopped.

    Parameters
    ----------
    path : str or Path
        Where the file goes; read it by :func:`~adit_model.data.crystal_csv.load_crystal_csv`.
    max_atoms : int
        Most sites in a cell.
    max_energy_above_hull : float, optional
        Most energy above the hull in eV/atom; None for no limit.
    filters : dict, optional
        More query parameters of the ``materials/summary`` route, such as ``{"chemsys": "Li-O"}``.
    api_key : str, optional
        By default the environment variable ``MP_API_KEY`` or ``PMG_MAPI_KEY``.
    base_url : str
        Address of the server.
    page_size : int
        Materials asked for at once, at most 1,000.
    progress : bool
        Show a progress bar.
    **options
        ``retries``, ``backoff`` and ``timeout`` of :func:`~adit_model.data.http.get_json`.

    Raises
    ------
    DownloadError
        If no key is set, the server cannot be reached or refuses, or no material fits.
    ValueError
        If ``page_size`` is not in 1..1000.
    """
    if not 1 <= page_size <= PAGE_SIZE:
        raise ValueError(f"page_size must lie in 1..{PAGE_SIZE}, got {page_size}")
    path = Path(path).expanduser()
    query: dict[str, Any] = {"deprecated": "false", "nsites_max": max_atoms}
    if max_energy_above_hull is not None:
        query["energy_above_hull_max"] = max_energy_above_hull
    query |= filters or {}
    headers = {"X-API-KEY": _key(api_key), "Accept": "application/json"}
    url = f"{base_url.rstrip('/')}/materials/summary/"
    pages = path.with_name(path.name + ".pages")
    _check_query(pages, {"url": url, "page_size": page_size, **query})
    found = _fetch_pages(pages, url, query, headers, page_size, progress, options)
    if not found:
        raise DownloadError(f"no material of {url} fits {query}")
    _write_csv(path, _documents(found))
    for file in pages.iterdir():
        file.unlink()
    pages.rmdir()
    return path


def query_materials_project(
    route: str,
    query: dict[str, Any],
    fields: Sequence[str],
    *,
    api_key: str | None = None,
    base_url: str = MATERIALS_PROJECT,
    page_size: int = PAGE_SIZE,
    **options: Any,
) -> list[dict[str, Any]]:
    """Fetch fields of all documents of a route that fit, page by page.

    Parameters
    ----------
    route : str
        Such as ``"materials/thermo"``.
    query : dict
        Its query parameters.
    fields : sequence of str
        What to send of each document, ``material_id`` among them.
    api_key, base_url, page_size, **options
        As of :func:`download_materials_project`.

    Raises
    ------
    DownloadError
        If no key is set, or the server cannot be reached, refuses, or sends no documents.
    """
    headers = {"X-API-KEY": _key(api_key), "Accept": "application/json"}
    url = f"{base_url.rstrip('/')}/{route}/"
    found: list[dict[str, Any]] = []
    while True:
        page = query | {
            "_fields": ",".join(fields),
            "_sort_fields": "material_id",
            "_skip": len(found),
            "_limit": page_size,
        }
        documents = _fetch_page(url, page, headers, options)["data"]
        found += documents
        if len(documents) < page_size:
            return found


def check_materials_project(**options: Any) -> None:
    """Ask the Materials Project for one entry, before any work that will need it.

    Parameters
    ----------
    **options
        ``api_key``, ``base_url``; ``retries``, ``backoff`` and ``timeout`` of
        :func:`~adit_model.data.http.get_json`.

    Raises
    ------
    DownloadError
        If no key is set, or the server cannot be reached or refuses.
    """
    url = f"{options.pop('base_url', MATERIALS_PROJECT).rstrip('/')}/materials/thermo/"
    headers = {"X-API-KEY": _key(options.pop("api_key", None)), "Accept": "application/json"}
    page = {"_fields": "material_id", "_limit": 1}
    _fetch_page(url, page, headers, {"retries": 1, "timeout": 20.0, **options})


def _fetch_page(
    url: str, params: dict[str, Any], headers: dict[str, str], options: dict[str, Any]
) -> dict[str, Any]:
    body, _ = get_json(url, params=params, headers=headers, **options)
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        raise DownloadError(f"{url} sent no list called 'data'")
    return body


def has_key() -> bool:
    """Whether a key is set in the environment."""
    return any(os.environ.get(name) for name in KEY_VARIABLES)


def _key(api_key: str | None) -> str:
    key = api_key or next((os.environ[k] for k in KEY_VARIABLES if os.environ.get(k)), None)
    if not key:
        raise DownloadError(
            "the Materials Project needs a key: make one at "
            "https://next-gen.materialsproject.org/api and set MP_API_KEY"
        )
    return key.strip()


def _check_query(pages: Path, query: dict[str, Any]) -> None:
    """Drop pages that an earlier run with another query left behind."""
    pages.mkdir(parents=True, exist_ok=True)
    file = pages / "query.json"
    text = json.dumps(query, sort_keys=True)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        for page in pages.glob("*.json"):
            page.unlink()
        file.write_text(text, encoding="utf-8")


def _fetch_pages(
    pages: Path,
    url: str,
    query: dict[str, Any],
    headers: dict[str, str],
    page_size: int,
    progress: bool,
    options: dict[str, Any],
) -> list[Path]:
    from tqdm import tqdm

    found: list[Path] = []
    with tqdm(desc="Materials Project", unit="material", disable=not progress) as bar:
        while True:
            file = pages / f"page{len(found):06d}.json"
            if not file.is_file():
                params = query | {
                    "_fields": ",".join(FIELDS),
                    "_sort_fields": "material_id",
                    "_skip": len(found) * page_size,
                    "_limit": page_size,
                }
                body = _fetch_page(url, params, headers, options)
                write_atomic(file, json.dumps(body))
            body = json.loads(file.read_text(encoding="utf-8"))
            bar.total = body.get("meta", {}).get("total_doc")
            bar.update(len(body["data"]))
            if body["data"]:
                found.append(file)
            if len(body["data"]) < page_size:
                return found


def _documents(pages: list[Path]) -> Iterator[dict[str, Any]]:
    for page in pages:
        yield from json.loads(page.read_text(encoding="utf-8"))["data"]


def _write_csv(path: Path, documents: Iterator[dict[str, Any]]) -> None:
    rows, failed = [], []
    for document in documents:
        try:
            rows.append(_row(document))
        except (KeyError, TypeError, ValueError) as error:
            failed.append(f"{document.get('material_id')} ({type(error).__name__}: {error})")
    if failed:
        logger.warning("%d materials could not be written; the first: %s", len(failed), failed[0])
    if not rows:
        raise DownloadError(f"none of {len(failed)} materials could be written: {failed[0]}")
    with (
        atomic_path(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _row(document: dict[str, Any]) -> dict[str, Any]:
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure.from_dict(document["structure"])
        structure.remove_oxidation_states()
        structure = structure.get_primitive_structure().get_reduced_structure()
        cif = str(CifWriter(structure))
    return {
        "material_id": document["material_id"],
        "formula": structure.composition.formula,
        "nsites": len(structure),
        "formation_energy_per_atom": document.get("formation_energy_per_atom"),
        "e_above_hull": document.get("energy_above_hull"),
        "band_gap": document.get("band_gap"),
        "spacegroup": (document.get("symmetry") or {}).get("number"),
        "cif": cif,
    }
