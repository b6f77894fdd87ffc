from __future__ import annotations

import json

import pytest
from pymatgen.core import Composition

from adit_model.data.http import DownloadError
from adit_model.quality.hull import MP2020, Hull

KEY = "k" * 32


@pytest.fixture
def thermo(web):
    """Serve stable phases as the Materials Project's thermo route does."""
    known = {
        "Li": 0.0, "O2": 0.0, "Li2O": -2.07, "Li2O2": -1.65, "Na": 0.0, "NaO2": -1.2,
    }  # fmt: skip

    def answer(query: dict[str, str], headers: dict[str, str]):
        if headers.get("x-api-key") != KEY:
            return 403, {}, b'{"message": "Invalid authentication credentials"}'
        web.queries.append(query)
        assert query["thermo_types"] == "GGA_GGA+U"
        systems = query["chemsys"].split(",") if "chemsys" in query else None
        fit = [
            {"material_id": f"mp-{i}", "formula_pretty": name, "formation_energy_per_atom": energy}
            for i, (name, energy) in enumerate(known.items())
            if systems is None or Composition(name).chemical_system in systems
        ]
        start, limit = int(query["_skip"]), int(query["_limit"])
        body = {"data": fit[start : start + limit], "meta": {"total_doc": len(fit)}}
        return 200, {}, json.dumps(body).encode()

    web.queries = []
    web.routes["/materials/thermo/"] = answer
    return web


def test_systems_of_the_materials_project_are_whole(thermo) -> None:
    hull = Hull.from_materials_project("O-Li", KEY, base_url=thermo.url, page_size=3)
    assert thermo.queries[0]["chemsys"] == "Li,O,Li-O"
    assert [query["_skip"] for query in thermo.queries] == ["0", "3"]
    result = hull.above("Li2O", -2.0)
    assert result.energy_above_hull == pytest.approx(0.07)
    assert result.complete
    assert hull.scale == MP2020
    assert hull.above("NaO2", -1.2).reason == "no reference energy of Na in this hull"
    whole = Hull.from_materials_project(api_key=KEY, base_url=thermo.url)
    assert whole.above("NaO2", -1.2).energy_above_hull == pytest.approx(0)


def test_a_wrong_key_or_system_is_said(thermo, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match="key or token is not allowed"):
        Hull.from_materials_project("Li-O", "wrong", base_url=thermo.url)
    with pytest.raises(DownloadError, match="no stable phase"):
        Hull.from_materials_project("Xe-Rn", KEY, base_url=thermo.url)
    with pytest.raises(ValueError, match="1 to 8 elements"):
        Hull.from_materials_project("", KEY, base_url=thermo.url)
    for name in ("MP_API_KEY", "PMG_MAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError, match="needs a key"):
        Hull.from_materials_project("Li-O")
