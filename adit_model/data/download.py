"""Public data sets on the web: where they are, and fetching them.

Repositories and file names are those that the authors' own loaders use. Others can be fetched with
:func:`download_hugging_face`, and base addresses can point to a mirror.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adit_model.data.cache import data_cache_dir
from adit_model.data.http import download, get_json

HUGGING_FACE = "https://huggingface.co"
GITHUB_RAW = "https://raw.githubusercontent.com"
DATAVERSE = "https://dataverse.harvard.edu"
FIGSHARE = "https://figshare.com"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a public data set.

    Parameters
    ----------
    base_url : str
        Address of the server.
    path : str
        Rest of the address.
    filename : str
        Name on disk.
    description : str
        What it is, with the reference to cite and about how large it is.
    """

    base_url: str
    path: str
    filename: str
    description: str

    def url(self, base_url: str | None = None) -> str:
        """Full address, on another server if one is given."""
        return f"{(base_url or self.base_url).rstrip('/')}/{self.path}"


def _cdvae(folder: str, split: str, description: str) -> RemoteFile:
    return RemoteFile(
        GITHUB_RAW,
        f"txie-93/cdvae/main/data/{folder}/{split}.csv",
        f"{folder}_{split}.csv",
        f"{description}, {split} part; Xie et al., ICLR 2022",
    )


def _hugging_face(repository: str, path: str, filename: str, description: str) -> RemoteFile:
    return RemoteFile(
        HUGGING_FACE, f"datasets/{repository}/resolve/main/{path}", filename, description
    )


_CDVAE_SETS = {
    "mp20": ("mp_20", "MP-20: Materials Project crystals of at most 20 atoms"),
    "perov5": ("perov_5", "Perov-5: perovskites of 5 atoms"),
    "carbon24": ("carbon_24", "Carbon-24: carbon allotropes of 6 to 24 atoms"),
}
REMOTE_FILES: dict[str, RemoteFile] = {
    **{
        f"{name}:{split}": _cdvae(folder, split, text)
        for name, (folder, text) in _CDVAE_SETS.items()
        for split in ("train", "val", "test")
    },
    "mp20": _hugging_face(
        "chaitjo/MP20_ADiT",
        "raw/all.csv",
        "mp_20_all.csv",
        "MP-20, all 45,229 rows in one file; Joshi et al., ICML 2025",
    ),
    "qmof150": _hugging_face(
        "chaitjo/QMOF150_ADiT",
        "raw/relaxed_structures.zip",
        "qmof_relaxed_structures.zip",
        "QMOF: CIF files of DFT-relaxed metal-organic frameworks; Rosen et al., Matter 2021",
    ),
    "qmof": RemoteFile(
        FIGSHARE,
        "ndownloader/articles/13147324/versions/14",
        "qmof_figshare_v14.zip",
        "QMOF, the whole Figshare record (gigabytes; holds qmof_database.zip); Rosen et al., 2022",
    ),
    "geom-drugs": RemoteFile(
        DATAVERSE,
        "api/access/datafile/4360331",
        "drugs_crude.msgpack.tar.gz",
        "GEOM-DRUGS: conformers of 304,000 molecules (about 50 GB); Axelrod et al., 2022",
    ),
}


def download_source(
    name: str,
    directory: str | Path | None = None,
    *,
    base_url: str | None = None,
    checksum: str | None = None,
    **options: Any,
) -> Path:
    """Fetch a file of :data:`REMOTE_FILES`, or return at once if it is there.

    Parameters
    ----------
    name : str
        Such as ``"mp20:train"``, ``"mp20"``, ``"qmof150"``, ``"geom-drugs"``.
    directory : str or Path, optional
        Where it goes; by default ``downloads`` in the cache directory.
    base_url : str, optional
        A mirror's address instead of the original server's.
    checksum : str, optional
        ``"sha256:..."`` or ``"md5:..."``.
    **options
        Passed to :func:`~adit_model.data.http.download`.

    Raises
    ------
    ValueError
        If the name is unknown.
    DownloadError
        If the file cannot be fetched.
    """
    if name not in REMOTE_FILES:
        raise ValueError(f"no data set {name!r} to download; known are {', '.join(REMOTE_FILES)}")
    remote = REMOTE_FILES[name]
    if remote.base_url == HUGGING_FACE:
        base_url = base_url or _hugging_face_endpoint()
        options.setdefault("headers", _hugging_face_headers(None))
    folder = data_cache_dir() / "downloads" if directory is None else Path(directory).expanduser()
    return download(remote.url(base_url), folder / remote.filename, checksum=checksum, **options)


def download_hugging_face(
    repository: str,
    filename: str,
    path: str | Path,
    *,
    revision: str = "main",
    repository_type: str = "dataset",
    base_url: str | None = None,
    token: str | None = None,
    **options: Any,
) -> Path:
    """Fetch one file of a Hugging Face repository over plain HTTPS.

    Parameters
    ----------
    repository : str
        ``"owner/name"``.
    filename : str
        Path inside the repository; :func:`list_hugging_face` tells which there are.
    path : str or Path
        Where it goes.
    revision : str
        Branch, tag or commit; a commit fixes the content.
    repository_type : str
        ``"dataset"`` or ``"model"``.
    base_url : str, optional
        By default the environment variable ``HF_ENDPOINT``, else the public server.
    token : str, optional
        For private and gated repositories; by default the environment variable ``HF_TOKEN``.
    **options
        Passed to :func:`~adit_model.data.http.download`.

    Raises
    ------
    DownloadError
        If the file cannot be fetched.
    """
    base_url = (base_url or _hugging_face_endpoint()).rstrip("/")
    prefix = _prefix(repository_type)
    url = f"{base_url}/{prefix}{repository}/resolve/{revision}/{filename}"
    return download(url, path, headers=_hugging_face_headers(token), **options)


def list_hugging_face(
    repository: str,
    *,
    revision: str = "main",
    repository_type: str = "dataset",
    base_url: str | None = None,
    token: str | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """List the files of a Hugging Face repository; see :func:`download_hugging_face`.

    Returns
    -------
    list of dict
        ``path``, ``size`` in bytes and, for large files, ``checksum`` (``"sha256:..."``).

    Raises
    ------
    DownloadError
        If the list cannot be fetched.
    """
    base_url = (base_url or _hugging_face_endpoint()).rstrip("/")
    prefix = _prefix(repository_type) or "models/"
    url: str | None = f"{base_url}/api/{prefix}{repository}/tree/{revision}"
    params: dict[str, str] | None = {"recursive": "true"}
    files = []
    while url:
        entries, response = get_json(
            url, params=params, headers=_hugging_face_headers(token), **options
        )
        for entry in entries:
            if entry["type"] == "file":
                lfs = entry.get("lfs")
                checksum = f"sha256:{lfs['oid']}" if lfs else None
                files.append({"path": entry["path"], "size": entry["size"], "checksum": checksum})
        # The next page's address carries all parameters.
        url, params = response.links.get("next", {}).get("url"), None
    return files


def _prefix(repository_type: str) -> str:
    prefixes = {"dataset": "datasets/", "model": ""}
    if repository_type not in prefixes:
        raise ValueError(f"repository_type must be 'dataset' or 'model', got {repository_type!r}")
    return prefixes[repository_type]


def _hugging_face_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or HUGGING_FACE


def _hugging_face_headers(token: str | None) -> dict[str, str]:
    token = token or os.environ.get("HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
