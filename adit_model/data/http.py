"""Fetching one file over HTTPS: retried, resumed, checked, and in place only when complete.

Own code, since pooch does not resume, and a data set of 50 GB needs it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

SECRET_HEADERS = ("X-API-KEY", "Authorization")
CHUNK_BYTES = 1 << 16  # what a broken connection can lose
# Temporary by RFC 9110 (408, 5xx) and RFC 6585 (429).
RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
ADVICE = {
    401: "the key or token is missing or wrong",
    403: "the key or token is not allowed to read this",
    404: "there is no such file: the name, the repository or the revision may have changed",
    429: "too many requests: wait some minutes",
}


class DownloadError(RuntimeError):
    """A file could not be fetched; the message says which, why, and what to do."""


def download(
    url: str,
    path: str | Path,
    *,
    checksum: str | None = None,
    headers: Mapping[str, str] | None = None,
    overwrite: bool = False,
    retries: int = 4,
    backoff: float = 1.0,
    timeout: float = 60.0,
    progress: bool = True,
) -> Path:
    """Fetch one file, or return at once if it is there.

    Bytes go to ``path`` + ``.partial``. If the connection breaks, the next try, also in a later
    process, asks the server for the rest, if the file there is still the same (RFC 9110, section
    13.1.5). Of several processes that want one file the first fetches it and the others wait.

    Parameters
    ----------
    url : str
        Address.
    path : str or Path
        Where the file goes; the folder is made.
    checksum : str, optional
        ``"sha256:..."`` or ``"md5:..."`` of the whole file, in hexadecimal, or ``"git:..."``, its
        name as a blob of a git repository.
    headers : mapping, optional
        Request headers; keys and tokens among them are not sent on to other hosts.
    overwrite : bool
        Fetch a file that is there already.
    retries : int
        Further tries after a broken connection or a temporary status.
    backoff : float
        Seconds before the first further try, doubled at each, unless the server says how long.
    timeout : float
        Seconds without a byte after which a try is given up.
    progress : bool
        Show a progress bar.

    Raises
    ------
    DownloadError
        If the server cannot be reached, refuses, breaks off too often, or sends a file of another
        length or checksum.
    ValueError
        If the checksum is not of the given form.
    """
    path = Path(path).expanduser()
    algorithm, digest = _split_checksum(checksum)
    if path.is_file() and not overwrite:
        if checksum is not None and file_digest(path, algorithm) != digest:
            raise DownloadError(f"{path} is there already with another {algorithm}: remove it")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    before = path.stat().st_ino if path.is_file() else None
    lock = FileLock(path.with_name(path.name + ".lock"))
    with lock:
        try:
            if path.is_file() and path.stat().st_ino != before:  # another process was first
                return download(url, path, checksum=checksum)
            with _without_secrets(headers):
                _with_retries(
                    lambda: _transfer(url, partial, dict(headers or {}), timeout, progress),
                    url,
                    retries,
                    backoff,
                )
            if checksum is not None and (found := file_digest(partial, algorithm)) != digest:
                partial.unlink()
                raise DownloadError(
                    f"{url} has {algorithm} {found}, expected {digest}: "
                    "the file was changed or damaged"
                )
            _tag_file(partial).unlink(missing_ok=True)
            partial.replace(path)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
    return path


def get_json(
    url: str,
    *,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    retries: int = 4,
    backoff: float = 1.0,
    timeout: float = 60.0,
) -> tuple[Any, requests.Response]:
    """Fetch a JSON document; see :func:`download` for the parameters.

    Returns
    -------
    tuple
        The document, and the response it came in (for its headers).

    Raises
    ------
    DownloadError
        If the server cannot be reached, refuses, or does not send JSON.
    """

    def fetch() -> tuple[Any, requests.Response]:
        response = _get(url, params=params, headers=headers, timeout=timeout)
        _check_status(response)
        try:
            return response.json(), response
        except ValueError as error:
            start = response.text[:80]
            raise DownloadError(f"{url} did not send JSON but {start!r}: {error}") from error

    with _without_secrets(headers):
        return _with_retries(fetch, url, retries, backoff)


@contextmanager
def _without_secrets(headers: Mapping[str, str] | None) -> Iterator[None]:
    """Take keys and tokens out of the texts of errors: servers and clients quote them."""
    secrets = [(headers or {}).get(name, "") for name in SECRET_HEADERS]
    secrets = [word.removeprefix("Bearer ").strip() for word in secrets]
    try:
        yield
    except (DownloadError, ValueError) as error:
        text = str(error)
        for secret in filter(None, secrets):
            text = text.replace(secret, "***").replace(repr(secret)[1:-1], "***")
        if text == str(error):
            raise
        raise DownloadError(text) from None


def file_digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file."""
    with open(path, "rb") as file:
        if algorithm == "git":
            start = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
            return hashlib.file_digest(file, lambda: start).hexdigest()
        return hashlib.file_digest(file, algorithm).hexdigest()


def _get(url: str, **options: Any) -> requests.Response:
    """``requests.get``, which keeps ``Authorization`` from other hosts, and here any key too."""
    import requests

    class Session(requests.Session):
        def rebuild_auth(
            self, prepared_request: requests.PreparedRequest, response: requests.Response
        ) -> None:
            super().rebuild_auth(prepared_request, response)
            if self.should_strip_auth(str(response.request.url), str(prepared_request.url)):
                prepared_request.headers.pop("X-API-KEY", None)

    with Session() as session:
        return session.get(url, **options)


class _TemporaryError(Exception):
    """Worth another try; ``wait`` seconds from now if the server said so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def _with_retries(fetch: Any, url: str, retries: int, backoff: float) -> Any:
    import requests

    for attempt in range(retries + 1):
        try:
            return fetch()
        except (requests.ConnectionError, requests.Timeout, _TemporaryError) as error:
            if attempt == retries:
                raise DownloadError(
                    f"{url} could not be fetched in {retries + 1} tries, the last: {error}. Check "
                    "the network (a proxy is set by HTTPS_PROXY), or fetch the file by other means"
                ) from error
            wait = getattr(error, "wait", None)
            wait = backoff * 2**attempt if wait is None else wait
            logger.info("try %d of %s failed (%s), next in %.1f s", attempt + 1, url, error, wait)
            time.sleep(wait)
        except requests.RequestException as error:
            raise DownloadError(f"{url} cannot be fetched: {error}") from error
    raise ValueError(f"retries must not be negative, got {retries}")


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status < 400:
        return
    if status in RETRIED_STATUS:
        after = response.headers.get("Retry-After", "")
        reason = f"HTTP status {status} {response.reason}"
        raise _TemporaryError(reason, min(float(after), 300.0) if after.isdigit() else None)
    advice = ADVICE.get(status, "the server refused")
    raise DownloadError(
        f"{response.url}: HTTP status {status} {response.reason}: {advice}{_detail(response)}"
    )


def _detail(response: requests.Response) -> str:
    """Say in brackets what a JSON error body says."""
    try:
        body = response.json()
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    detail = next((body[key] for key in ("detail", "error", "message") if body.get(key)), "")
    return f" ({detail if isinstance(detail, str) else json.dumps(detail)})" if detail else ""


def _transfer(
    url: str, partial: Path, headers: dict[str, str], timeout: float, progress: bool
) -> None:
    import requests
    from tqdm import tqdm

    start = partial.stat().st_size if partial.is_file() else 0
    tag_file = _tag_file(partial)
    tag = tag_file.read_text() if start and tag_file.is_file() else ""
    if tag:
        headers |= {"Range": f"bytes={start}-", "If-Range": tag}
    # Compressed transfer would make the byte ranges those of the compressed stream.
    headers |= {"Accept-Encoding": "identity"}
    with _get(url, headers=headers, timeout=timeout, stream=True) as response:
        if response.status_code == 416:  # the part on disk is no part of this file
            partial.unlink(missing_ok=True)
            raise _TemporaryError("the server has no such byte range, starting over")
        _check_status(response)
        if response.status_code == 206:
            served = response.headers.get("Content-Range", "")
            if not served.startswith(f"bytes {start}-"):
                partial.unlink(missing_ok=True)
                raise _TemporaryError(f"asked for the bytes from {start}, got {served!r}")
        else:
            start = 0
            tag_file.write_text(_strong_tag(response))
        total = start + int(response.headers["Content-Length"]) if _has_length(response) else None
        bar = tqdm(
            desc=partial.name.removesuffix(".partial"),
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=not progress,
        )
        with bar, open(partial, "ab" if start else "wb") as file:
            try:
                for chunk in response.iter_content(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
            except requests.exceptions.ChunkedEncodingError as error:
                raise _TemporaryError(f"the connection broke: {error}") from error
    size = partial.stat().st_size
    if total is not None and size < total:
        raise _TemporaryError(f"{size} of {total} bytes came")
    if total is not None and size > total:
        partial.unlink()
        raise _TemporaryError(f"{size} bytes came, {total} were announced")


def _has_length(response: requests.Response) -> bool:
    return response.headers.get("Content-Length", "").isdigit()


def _strong_tag(response: requests.Response) -> str:
    """Find what identifies this version of the file in ``If-Range``, or return an empty string."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _tag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".tag")


def _split_checksum(checksum: str | None) -> tuple[str, str]:
    if checksum is None:
        return "sha256", ""
    algorithm, _, digest = checksum.partition(":")
    lengths = {"sha256": 64, "md5": 32, "git": 40}
    if algorithm not in lengths or len(digest) != lengths[algorithm]:
        raise ValueError(
            f"checksum must be 'sha256:', 'md5:' or 'git:' and hex digits, got {checksum!r}"
        )
    return algorithm, digest.lower()
