"""A local web server that serves what a test puts there, ranges and scripted faults included."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from filelock import FileLock

from adit_model.data.qm9 import load_qm9

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class WebServer:
    """Files by path, routes by path, and faults that the next requests meet."""

    files: dict[str, bytes] = field(default_factory=dict)
    routes: dict[str, Callable[[dict[str, str], dict[str, str]], Answer]] = field(
        default_factory=dict
    )
    faults: list[int | str] = field(default_factory=list)  # a status, or "cut:BYTES"
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def _handler(state: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {key.lower(): value for key, value in self.headers.items()}
            state.requests.append((parts.path, headers))
            fault = state.faults.pop(0) if state.faults else None
            if isinstance(fault, int):
                self.answer(fault, {"Retry-After": "0"}, b"")
                return
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            if parts.path in state.routes:
                self.answer(*state.routes[parts.path](query, headers))
                return
            if parts.path not in state.files:
                self.answer(404, {}, b"")
                return
            content = state.files[parts.path]
            status, extra, body = 200, {"ETag": _etag(content)}, content
            if "range" in headers and headers.get("if-range") == _etag(content):
                start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.answer(416, {}, b"")
                    return
                extra["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                status, body = 206, content[start:]
            cut = int(fault.removeprefix("cut:")) if isinstance(fault, str) else None
            self.answer(status, extra, body, cut)

        def answer(
            self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if cut is None else body[:cut])
            self.close_connection = True

    return Handler


@pytest.fixture
def web() -> Iterator[WebServer]:
    state = WebServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def qm9_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep one parsed QM9 for all tests; they are skipped where the package is absent."""
    if importlib.util.find_spec("qm9pack") is None:
        pytest.skip("qm9pack is not installed")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    with FileLock(folder / "qm9.lock"):
        load_qm9("all", folder / "qm9", progress=False)
    return folder / "qm9"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests out of the user's cache and away from the user's keys and proxies."""
    monkeypatch.setenv("ADIT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    for name in ("MP_API_KEY", "PMG_MAPI_KEY", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
