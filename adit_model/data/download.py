"""Public data sets on the web: where they are, and fetching them.

Repositories and file names are those that the authors' own loaders use; base addresses can point to
a mirror.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adit_model.data.cache import data_cache_dir
from adit_model.data.http import download

HUGGING_FACE = "https://huggingface.co"
GITHUB_RAW = "https://raw.githubusercontent.com"
DATAVERSE = "https://dataverse.harvard.edu"
FIGSHARE = "https://figshare.com"
CDVAE_COMMIT = "f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea"  # of April 2022, the last one
SPLITS = ("train", "val", "test")


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
    checksum : str or None
        Of the file, where it is known.
    """

    base_url: str
    path: str
    filename: str
    description: str
    checksum: str | None = None

    def url(self, base_url: str | None = None) -> str:
        """Full address, on another server if one is given."""
        return f"{(base_url or self.base_url).rstrip('/')}/{self.path}"


def _cdvae(folder: str, split: str, description: str, blob: str) -> RemoteFile:
    return RemoteFile(
        GITHUB_RAW,
        f"txie-93/cdvae/{CDVAE_COMMIT}/data/{folder}/{split}.csv",
        f"{folder}_{split}.csv",
        f"{description}, {split} part; Xie et al., ICLR 2022",
        f"git:{blob}",
    )


def _hugging_face(repository: str, path: str, filename: str, description: str) -> RemoteFile:
    return RemoteFile(
        HUGGING_FACE, f"datasets/{repository}/resolve/main/{path}", filename, description
    )


_CDVAE_SETS = {  # folder, description, and the blobs of its parts in that commit
    "mp20": (
        "mp_20",
        "MP-20: Materials Project crystals of at most 20 atoms",
        "b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f",
        "7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1",
        "5dc643041df53f5ce4970a79930ad262b4f07acd",
    ),
    "perov5": (
        "perov_5",
        "Perov-5: perovskites of 5 atoms",
        "0769074b5d51d293b765c4371b8f55c468c9c9f2",
        "4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f",
        "d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1",
    ),
    "carbon24": (
        "carbon_24",
        "Carbon-24: carbon allotropes of 6 to 24 atoms",
        "5e7ae970fbad8ddc46b6963e8cd6e425f11783a6",
        "b3e29b927883642426ca1d9632d00359b412742b",
        "9beca843fde489de1fe288b32f9e3ff710d42803",
    ),
}
REMOTE_FILES: dict[str, RemoteFile] = {
    **{
        f"{name}:{split}": _cdvae(folder, split, text, blob)
        for name, (folder, text, *blobs) in _CDVAE_SETS.items()
        for split, blob in zip(SPLITS, blobs, strict=True)
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
        As of :func:`~adit_model.data.http.download`, in place of the one that is known.
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
    if remote.base_url == HUGGING_FACE and base_url is None:
        base_url = os.environ.get("HF_ENDPOINT")
        token = os.environ.get("HF_TOKEN")
        options.setdefault("headers", {"Authorization": f"Bearer {token}"} if token else {})
    folder = data_cache_dir() / "downloads" if directory is None else Path(directory).expanduser()
    path = folder / remote.filename
    if checksum is None and not path.is_file():
        checksum = remote.checksum
    return download(remote.url(base_url), path, checksum=checksum, **options)
