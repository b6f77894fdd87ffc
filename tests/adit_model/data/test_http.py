from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from adit_model.data.http import DownloadError, download, file_digest, get_json

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
FAST = {"backoff": 0.0, "progress": False, "timeout": 5.0}


def test_file_arrives_whole_and_leaves_nothing_else(web, tmp_path: Path) -> None:
    web.files["/a.bin"] = CONTENT
    path = download(f"{web.url}/a.bin", tmp_path / "new" / "a.bin", checksum=SHA256, **FAST)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_file_that_is_there_is_not_fetched(web, tmp_path: Path) -> None:
    web.files["/a"] = CONTENT
    path = tmp_path / "a"
    path.write_bytes(b"mine")
    download(f"{web.url}/a", path, **FAST)
    assert path.read_bytes() == b"mine"
    assert web.requests == []
    with pytest.raises(DownloadError, match="is there already with another sha256: remove it"):
        download(f"{web.url}/a", path, checksum=SHA256, **FAST)
    download(f"{web.url}/a", path, overwrite=True, **FAST)
    assert path.read_bytes() == CONTENT


def test_broken_connection_is_taken_up_where_it_broke(web, tmp_path: Path) -> None:
    web.files["/a"] = CONTENT
    web.faults = ["cut:400000", "cut:300000"]
    path = download(f"{web.url}/a", tmp_path / "a", checksum=SHA256, **FAST)
    assert path.read_bytes() == CONTENT
    ranges = [headers.get("range") for _, headers in web.requests]
    assert ranges == [None, "bytes=393216-", "bytes=655360-"]  # whole chunks of 64 KiB


def test_later_process_takes_up_the_rest(web, tmp_path: Path) -> None:
    web.files["/a"] = CONTENT
    web.faults = ["cut:500000"]
    with pytest.raises(DownloadError, match="could not be fetched in 1 tries"):
        download(f"{web.url}/a", tmp_path / "a", retries=0, **FAST)
    assert not (tmp_path / "a").exists()
    download(f"{web.url}/a", tmp_path / "a", checksum=SHA256, **FAST)
    assert web.requests[-1][1]["range"] == "bytes=458752-"


def test_processes_that_want_one_file_fetch_it_once(web, tmp_path: Path) -> None:
    web.files["/a"] = CONTENT
    code = (
        "import sys; from adit_model.data.http import download\n"
        "download(sys.argv[1], sys.argv[2], progress=False)"
    )
    command = [sys.executable, "-c", code, f"{web.url}/a", str(tmp_path / "a")]
    with FileLock(tmp_path / "a.lock"):
        processes = [subprocess.Popen(command) for _ in range(2)]
        with pytest.raises(subprocess.TimeoutExpired):
            processes[0].wait(1.0)
        assert web.requests == []
    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(web.requests) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_key_is_not_sent_to_another_host(web) -> None:
    other = web.url.replace("127.0.0.1", "localhost")
    web.routes["/here"] = lambda query, headers: (302, {"Location": f"{other}/there"}, b"")
    web.routes["/there"] = lambda query, headers: (200, {}, b"{}")
    get_json(f"{web.url}/here", headers={"X-API-KEY": "secret", "Authorization": "secret"})
    (_, first), (_, second) = web.requests
    assert (first["x-api-key"], first["authorization"]) == ("secret", "secret")
    assert "secret" not in second.values()


def test_keys_do_not_stand_in_texts_of_errors(web, tmp_path: Path) -> None:
    echo = b'{"detail": "no such key: s3cret-key"}'
    web.routes["/echo"] = lambda query, headers: (403, {}, echo)
    with pytest.raises(DownloadError, match=r"no such key: \*\*\*") as caught:
        get_json(f"{web.url}/echo", headers={"X-API-KEY": "s3cret-key"})
    assert caught.value.__suppress_context__
    for key in ("s3cret\nkey", "s3cret-key "):
        with pytest.raises(DownloadError) as caught:
            download(f"{web.url}/echo", tmp_path / "x", headers={"Authorization": f"Bearer {key}"})
        assert "s3cret" not in str(caught.value)


def test_file_that_changed_meanwhile_is_fetched_anew(web, tmp_path: Path) -> None:
    web.files["/a"] = CONTENT
    web.faults = ["cut:500000"]
    with pytest.raises(DownloadError):
        download(f"{web.url}/a", tmp_path / "a", retries=0, **FAST)
    web.files["/a"] = CONTENT[::-1]
    path = download(f"{web.url}/a", tmp_path / "a", **FAST)
    assert path.read_bytes() == CONTENT[::-1]


def test_part_of_unknown_origin_is_dropped(web, tmp_path: Path) -> None:
    web.files["/a"] = CONTENT
    (tmp_path / "a.partial").write_bytes(b"x" * 10)
    assert download(f"{web.url}/a", tmp_path / "a", **FAST).read_bytes() == CONTENT
    assert "range" not in web.requests[0][1]


def test_temporary_refusal_is_waited_out(web, tmp_path: Path) -> None:
    web.files["/a"] = CONTENT
    web.faults = [503, 429, 500]
    assert download(f"{web.url}/a", tmp_path / "a", **FAST).read_bytes() == CONTENT
    assert len(web.requests) == 4


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "missing or wrong"),
        (403, "not allowed"),
        (404, "there is no such file"),
        (410, "refused"),
    ],
)
def test_lasting_refusal_is_told_at_once(web, tmp_path: Path, status: int, advice: str) -> None:
    web.faults = [status] * 3
    with pytest.raises(DownloadError, match=f"/a: HTTP status {status} .*{advice}"):
        download(f"{web.url}/a", tmp_path / "a", **FAST)
    assert len(web.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_wrong_content_is_refused_and_removed(web, tmp_path: Path) -> None:
    web.files["/a"] = CONTENT + b"!"
    with pytest.raises(DownloadError, match="the file was changed or damaged"):
        download(f"{web.url}/a", tmp_path / "a", checksum=SHA256, **FAST)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.partial").exists()


def test_no_server_is_told_with_the_address(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=rf"127\.0\.0\.1:{port}/a could not be .* in 2 tries"):
        download(f"http://127.0.0.1:{port}/a", tmp_path / "a", retries=1, **FAST)
    with pytest.raises(DownloadError, match="cannot be fetched"):
        download("no address", tmp_path / "a", **FAST)


@pytest.mark.parametrize("checksum", ["abc", "sha256:12", "crc32:00000000", "md5:" + "0" * 31])
def test_checksum_must_say_what_it_is(tmp_path: Path, checksum: str) -> None:
    with pytest.raises(ValueError, match="checksum must be 'sha256:', 'md5:' or 'git:'"):
        download("http://127.0.0.1/", tmp_path / "a", checksum=checksum)


def test_retries_must_not_be_negative(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="retries must not be negative, got -1"):
        download("http://127.0.0.1/", tmp_path / "a", retries=-1)


def test_digest_is_that_of_hashlib(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    assert file_digest(tmp_path / "a", "md5") == hashlib.md5(CONTENT).hexdigest()


def test_json_errors_carry_what_the_server_says(web) -> None:
    web.routes["/ok"] = lambda query, headers: (200, {}, b'{"a": 1}')
    web.routes["/bad"] = lambda query, headers: (400, {}, b'{"detail": [{"msg": "no field x"}]}')
    web.routes["/html"] = lambda query, headers: (200, {}, b"<html>log in</html>")
    assert get_json(f"{web.url}/ok")[0] == {"a": 1}
    with pytest.raises(DownloadError, match=r"HTTP status 400 .*no field x"):
        get_json(f"{web.url}/bad")
    with pytest.raises(DownloadError, match="did not send JSON but '<html>log in"):
        get_json(f"{web.url}/html")
