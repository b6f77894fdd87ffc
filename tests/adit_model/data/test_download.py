from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from adit_model.data.download import CDVAE_COMMIT, REMOTE_FILES, download_source
from adit_model.data.http import DownloadError
from adit_model.data.sources import load_source

FAST = {"backoff": 0.0, "progress": False}
IRON = str(CifWriter(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])))
CSV = f'material_id,cif\nmp-13,"{IRON}"\n'.encode()
CHECKSUM = "git:" + hashlib.sha1(b"blob %d\0" % len(CSV) + CSV).hexdigest()


def test_addresses_are_those_of_the_authors_loaders() -> None:
    urls = {name: remote.url() for name, remote in REMOTE_FILES.items()}
    github = f"https://raw.githubusercontent.com/txie-93/cdvae/{CDVAE_COMMIT}/data"
    assert urls["mp20:train"] == f"{github}/mp_20/train.csv"
    assert urls["perov5:val"] == f"{github}/perov_5/val.csv"
    assert urls["carbon24:test"] == f"{github}/carbon_24/test.csv"
    hub = "https://huggingface.co/datasets/chaitjo"
    assert urls["mp20"] == f"{hub}/MP20_ADiT/resolve/main/raw/all.csv"
    assert urls["qmof150"] == f"{hub}/QMOF150_ADiT/resolve/main/raw/relaxed_structures.zip"
    assert urls["geom-drugs"] == "https://dataverse.harvard.edu/api/access/datafile/4360331"
    assert len({remote.filename for remote in REMOTE_FILES.values()}) == len(REMOTE_FILES)


def test_source_is_fetched_from_a_mirror_once(web, tmp_path: Path) -> None:
    web.files[f"/mirror/txie-93/cdvae/{CDVAE_COMMIT}/data/mp_20/val.csv"] = CSV
    with pytest.raises(
        DownloadError, match=r"expected 7efe4d7e.*: the file was changed or damaged"
    ):
        download_source("mp20:val", tmp_path, base_url=f"{web.url}/mirror/", **FAST)
    web.requests.clear()
    for _ in range(2):
        path = download_source(
            "mp20:val", tmp_path, base_url=f"{web.url}/mirror/", checksum=CHECKSUM, **FAST
        )
    assert path.read_bytes() == CSV
    assert len(web.requests) == 1
    with pytest.raises(ValueError, match=r"no data set 'mp21' to download; known are mp20:train"):
        download_source("mp21")


def test_downloaded_file_is_read_by_name(web, tmp_path: Path) -> None:
    url = web_with(web, "mp_20/val.csv")
    download_source("mp20:val", tmp_path / "downloads", base_url=url, checksum=CHECKSUM, **FAST)
    data = load_source("mp20:val", cache_dir=tmp_path, progress=False)
    assert data.ids.tolist() == ["mp-13"]


def web_with(web, name: str) -> str:
    web.files[f"/txie-93/cdvae/{CDVAE_COMMIT}/data/{name}"] = CSV
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


def test_token_goes_to_hugging_face_alone(
    web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/datasets/chaitjo/MP20_ADiT/resolve/main/raw/all.csv"

    def gated(query: dict[str, str], headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if headers.get("authorization") != "Bearer hf_right":
            return 401, {}, b'{"error": "Access to dataset o/r is restricted."}'
        return 302, {"Location": web.url.replace("127.0.0.1", "localhost") + "/store"}, b""

    web.routes[path] = gated
    web.files["/store"] = CSV
    monkeypatch.setenv("HF_ENDPOINT", web.url)
    with pytest.raises(DownloadError, match=r"status 401 .*token is missing.*\(Access to dataset"):
        download_source("mp20", tmp_path / "a", **FAST)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert download_source("mp20", tmp_path / "a", **FAST).read_bytes() == CSV
    assert "authorization" not in web.requests[-1][1]
    with pytest.raises(DownloadError, match="status 401"):  # a mirror is not Hugging Face
        download_source("mp20", tmp_path / "b", base_url=web.url, **FAST)
