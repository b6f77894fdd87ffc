from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from adit_model.data.download import (
    REMOTE_FILES,
    download_hugging_face,
    download_source,
    list_hugging_face,
)
from adit_model.data.http import DownloadError
from adit_model.data.sources import load_source

FAST = {"backoff": 0.0, "progress": False}
IRON = str(CifWriter(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])))
CSV = f'material_id,cif\nmp-13,"{IRON}"\n'.encode()


def test_addresses_are_those_of_the_authors_loaders() -> None:
    urls = {name: remote.url() for name, remote in REMOTE_FILES.items()}
    github = "https://raw.githubusercontent.com/txie-93/cdvae/main/data"
    assert urls["mp20:train"] == f"{github}/mp_20/train.csv"
    assert urls["perov5:val"] == f"{github}/perov_5/val.csv"
    assert urls["carbon24:test"] == f"{github}/carbon_24/test.csv"
    hub = "https://huggingface.co/datasets/chaitjo"
    assert urls["mp20"] == f"{hub}/MP20_ADiT/resolve/main/raw/all.csv"
    assert urls["qmof150"] == f"{hub}/QMOF150_ADiT/resolve/main/raw/relaxed_structures.zip"
    assert urls["geom-drugs"] == "https://dataverse.harvard.edu/api/access/datafile/4360331"
    assert len({remote.filename for remote in REMOTE_FILES.values()}) == len(REMOTE_FILES)


def test_source_is_fetched_from_a_mirror_once(web, tmp_path: Path) -> None:
    web.files["/mirror/txie-93/cdvae/main/data/mp_20/val.csv"] = CSV
    for _ in range(2):
        path = download_source("mp20:val", tmp_path, base_url=f"{web.url}/mirror/", **FAST)
    assert path.read_bytes() == CSV
    assert len(web.requests) == 1
    with pytest.raises(ValueError, match=r"no data set 'mp21' to download; known are mp20:train"):
        download_source("mp21")


def test_downloaded_file_is_read_by_name(web, tmp_path: Path) -> None:
    download_source(
        "mp20:val", tmp_path / "downloads", base_url=web_with(web, "mp_20/val.csv"), **FAST
    )
    data = load_source("mp20:val", cache_dir=tmp_path, progress=False)
    assert data.ids.tolist() == ["mp-13"]


def web_with(web, name: str) -> str:
    web.files[f"/txie-93/cdvae/main/data/{name}"] = CSV
    return web.url


def test_set_on_hugging_face_is_fetched_and_read_in_one_go(
    web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("relaxed_structures/qmof-0000295.cif", IRON)
    path = "/datasets/chaitjo/QMOF150_ADiT/resolve/main/raw/relaxed_structures.zip"
    web.files[path] = archive.getvalue()
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    data = load_source("qmof150", cache_dir=tmp_path, progress=False)
    assert data.ids.tolist() == ["qmof-0000295"]
    web.files.clear()
    assert len(load_source("qmof150", cache_dir=tmp_path, progress=False)) == 1


def gated(query: dict[str, str], headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    if headers.get("authorization") != "Bearer hf_right":
        return 401, {}, b'{"error": "Access to dataset o/r is restricted."}'
    return 200, {}, b"content"


def test_token_is_sent_and_its_lack_explained(
    web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.routes["/datasets/o/r/resolve/v2/raw/a.csv"] = gated
    options = {"revision": "v2", "base_url": web.url, **FAST}
    with pytest.raises(DownloadError, match=r"status 401 .*token is missing.*\(Access to dataset"):
        download_hugging_face("o/r", "raw/a.csv", tmp_path / "a", **options)
    path = download_hugging_face("o/r", "raw/a.csv", tmp_path / "a", token="hf_right", **options)
    assert path.read_bytes() == b"content"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert download_hugging_face("o/r", "raw/a.csv", tmp_path / "b", **options).exists()


def test_model_repositories_have_no_prefix(web, tmp_path: Path) -> None:
    web.files["/o/m/resolve/main/model.safetensors"] = b"weights"
    path = download_hugging_face(
        "o/m",
        "model.safetensors",
        tmp_path / "m",
        repository_type="model",
        base_url=web.url,
        **FAST,
    )
    assert path.read_bytes() == b"weights"
    with pytest.raises(ValueError, match="must be 'dataset' or 'model', got 'space'"):
        download_hugging_face("o/m", "x", tmp_path / "x", repository_type="space")


def test_files_of_a_repository_are_listed_over_pages(web) -> None:
    digest = "133bab58dba02d316f9f91174839f17802dce648be4e8659d1a42b32b97fa01d"
    path = "/api/datasets/o/r/tree/main"
    # The format of the Hub's answer: folders too, large files with an ``lfs`` entry.
    pages = {
        None: [
            {"type": "directory", "oid": "2a", "size": 0, "path": "raw"},
            {"type": "file", "oid": "5c", "size": 60, "path": "README.md"},
        ],
        "next": [
            {
                "type": "file",
                "oid": "9d",
                "size": 75_000_000,
                "lfs": {"oid": digest, "size": 75_000_000, "pointerSize": 133},
                "path": "raw/all.csv",
            }
        ],
    }

    def tree(query: dict[str, str], headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        assert query["recursive"] == "true"
        cursor = query.get("cursor")
        link = f'<{web.url}{path}?recursive=true&cursor=next>; rel="next"'
        return 200, {} if cursor else {"Link": link}, json.dumps(pages[cursor]).encode()

    web.routes[path] = tree
    assert list_hugging_face("o/r", base_url=web.url) == [
        {"path": "README.md", "size": 60, "checksum": None},
        {"path": "raw/all.csv", "size": 75_000_000, "checksum": f"sha256:{digest}"},
    ]
