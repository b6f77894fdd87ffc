from __future__ import annotations

import json
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from adit_model.data.crystal_csv import load_crystal_csv, load_crystal_table
from adit_model.data.http import DownloadError
from adit_model.data.materials_project import download_materials_project

ROCKSALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
KEY = "k" * 32


def document(i: int, **changes: object) -> dict:
    """Build a document in the format of the summary route, the fields asked for only."""
    structure = ROCKSALT.copy()
    structure.scale_lattice(structure.volume * (1 + i / 10))
    return {
        "material_id": f"mp-{i}",
        "structure": structure.as_dict(),
        "nsites": len(structure),
        "formation_energy_per_atom": -2.0 + i,
        "energy_above_hull": 0.01 * i,
        "band_gap": 5.0,
        "symmetry": {"crystal_system": "Cubic", "symbol": "Fm-3m", "number": 225},
    } | changes


@pytest.fixture
def materials(web):
    """Serve documents as the Materials Project does: key, filters, pages, totals."""
    documents = [document(i) for i in range(5)]

    def summary(query: dict[str, str], headers: dict[str, str]):
        if headers.get("x-api-key") != KEY:
            return 403, {}, b'{"message": "Invalid authentication credentials"}'
        web.queries.append(query)
        limit = float(query["energy_above_hull_max"])
        fit = [d for d in documents if d["energy_above_hull"] <= limit]
        start = int(query["_skip"])
        page = fit[start : start + int(query["_limit"])]
        body = {"data": page, "meta": {"total_doc": len(fit), "api_version": "0.86.0"}}
        return 200, {}, json.dumps(body).encode()

    web.queries = []
    web.routes["/materials/summary/"] = summary
    web.documents = documents
    return web


def fetch(web, path: Path, **options: object) -> Path:
    options = {"api_key": KEY, "page_size": 2, "backoff": 0.0, "progress": False} | options
    return download_materials_project(path, base_url=web.url, **options)


def test_all_pages_become_one_crystal_file(materials, tmp_path: Path) -> None:
    path = fetch(materials, tmp_path / "mp.csv", filters={"chemsys": "Cl-Na"})
    data, table = load_crystal_csv(path, progress=False), load_crystal_table(path)
    assert data.ids.tolist() == [f"mp-{i}" for i in range(5)]
    # The conventional cell of eight atoms became the primitive one of two.
    assert data.sizes.tolist() == [2] * 5
    assert (
        data[3]
        .to_structure()
        .matches(
            Structure.from_dict(materials.documents[3]["structure"]).remove_oxidation_states(),
            scale=False,
        )
    )
    assert table["e_above_hull"].tolist() == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])
    assert table["formula"].tolist() == ["Na1 Cl1"] * 5
    assert table["spacegroup"].tolist() == [225] * 5
    assert [q["_skip"] for q in materials.queries] == ["0", "2", "4"]
    assert {q["_sort_fields"] for q in materials.queries} == {"material_id"}
    assert (
        materials.queries[0]
        | {
            "deprecated": "false",
            "nsites_max": "20",
            "energy_above_hull_max": "0.08",
            "chemsys": "Cl-Na",
        }
        == materials.queries[0]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["mp.csv"]


def test_filter_and_number_of_pages_that_fit_exactly(materials, tmp_path: Path) -> None:
    path = fetch(materials, tmp_path / "mp.csv", max_energy_above_hull=0.035)
    assert len(load_crystal_table(path)) == 4
    assert len(materials.queries) == 3  # the last page is empty


def test_broken_run_goes_on_where_it_stopped(materials, tmp_path: Path) -> None:
    real = materials.routes["/materials/summary/"]

    def breaks(query: dict[str, str], headers: dict[str, str]):
        return (500, {}, b"") if query["_skip"] == "4" else real(query, headers)

    materials.routes["/materials/summary/"] = breaks
    path = tmp_path / "mp.csv"
    with pytest.raises(DownloadError, match="in 2 tries, the last: HTTP status 500"):
        fetch(materials, path, retries=1)
    assert not path.exists()
    materials.routes["/materials/summary/"] = real
    materials.queries.clear()
    fetch(materials, path)
    assert [q["_skip"] for q in materials.queries] == ["4"]
    assert len(load_crystal_table(path)) == 5


def test_pages_of_another_query_are_not_used(materials, tmp_path: Path) -> None:
    path = tmp_path / "mp.csv"
    web_documents = materials.documents[:]
    materials.documents[4] = document(4, structure={})
    fetch(materials, path, max_energy_above_hull=0.025)
    pages = tmp_path / "mp.csv.pages"
    pages.mkdir()
    (pages / "query.json").write_text("{}")
    (pages / "page000000.json").write_text('{"data": []}')
    materials.documents[:] = web_documents
    fetch(materials, path)
    assert len(load_crystal_table(path)) == 5


def test_material_that_cannot_be_written_is_reported(
    materials, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    materials.documents[1] = document(1, structure=None)
    path = fetch(materials, tmp_path / "mp.csv")
    assert load_crystal_table(path).index.tolist() == ["mp-0", "mp-2", "mp-3", "mp-4"]
    assert "1 materials could not be written; the first: mp-1 (TypeError" in caplog.text
    for i in range(5):
        materials.documents[i] = document(i, structure=None)
    with pytest.raises(DownloadError, match="none of 5 materials could be written: mp-0"):
        fetch(materials, path)


def test_key_is_needed_and_taken_from_the_environment(
    materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mp.csv"
    with pytest.raises(DownloadError, match=r"needs a key: .* set MP_API_KEY"):
        fetch(materials, path, api_key=None)
    assert materials.requests == []
    with pytest.raises(DownloadError, match=r"status 403 .*\(Invalid authentication") as caught:
        fetch(materials, path, api_key="wrong-key")
    assert "wrong-key" not in str(caught.value)
    monkeypatch.setenv("MP_API_KEY", KEY)
    assert fetch(materials, path, api_key=None) == path


def test_empty_answers_and_bad_sizes_are_explained(materials, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"no material of .* fits {'deprecated': 'false'"):
        fetch(materials, tmp_path / "mp.csv", max_energy_above_hull=-1)
    materials.routes["/materials/summary/"] = lambda query, headers: (200, {}, b'{"x": 1}')
    with pytest.raises(DownloadError, match="sent no list called 'data'"):
        fetch(materials, tmp_path / "mp.csv")
    with pytest.raises(ValueError, match=r"page_size must lie in 1\.\.1000, got 1001"):
        fetch(materials, tmp_path / "mp.csv", page_size=1001)
