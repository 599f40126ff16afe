"""The provisioning HTTP server: files below a document root, and reports that nodes post."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPORT_MAX_BYTES = 4096
REPORTS_PER_TOKEN = 64
# A node chooses the token it posts to: without a bound it could fill the disk with new ones.
TOKENS_MAX = 4096
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHUNK_BYTES = 256 * 1024
_TIMEOUT_S = 60.0
_IMAGES = "images"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S
    disable_nagle_algorithm = True
    server: DocumentServer

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        token = urlsplit(self.path).path.removeprefix("/report/")
        if not _TOKEN.fullmatch(token):
            return self._refuse(404)
        declared = self.headers.get("Content-Length") or ""
        if not declared.isdecimal() or int(declared) > REPORT_MAX_BYTES:
            return self._refuse(413)
        try:
            report = json.loads(self.rfile.read(int(declared)))
        except ValueError:
            return self._refuse(400)
        if not isinstance(report, dict):
            return self._refuse(400)
        return self._finish(204 if self.server.append_report(token, report) else 429)

    def log_message(self, format: str, *args: Any) -> None:
        self.server.say(f"{self.client_address[0]} {format % args}")

    def _serve(self) -> None:
        path = self.server.find(self.path)
        if path is None:
            return self._refuse(404)
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(size))
                self.end_headers()
                if self.command == "GET":
                    self._stream(file, size, self._spoiled_at(path, size))
        except OSError:
            self.close_connection = True  # the client went away, or the file: the length tells it was cut short
        return None

    def _spoiled_at(self, path: Path, size: int) -> int | None:
        """Offset of the byte to flip in this download, if it is one that a fault spoils."""
        spoilt = path.is_relative_to(self.server.root / _IMAGES) and self.server.spoils(self.client_address[0], path)
        return size // 2 if spoilt and size else None

    def _stream(self, file: Any, size: int, flip_at: int | None) -> None:
        sent = 0
        while sent < size:
            chunk = file.read(min(_CHUNK_BYTES, size - sent))
            if not chunk:
                self.close_connection = True  # the file became shorter while it was sent
                return
            if flip_at is not None and sent <= flip_at < sent + len(chunk):
                changed = bytearray(chunk)
                changed[flip_at - sent] ^= 0x01
                chunk = bytes(changed)
            self.wfile.write(chunk)
            sent += len(chunk)

    def _refuse(self, status: int) -> None:
        self.close_connection = True  # its body was not read
        self._finish(status)

    def _finish(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


class DocumentServer(ThreadingHTTPServer):
    """Serves `root`. Made inside the network that its address belongs to.

    spoils  asked at each download of an image, with the client's address and the file: whether to flip a byte of it
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        root: Path,
        spoils: Callable[[str, Path], bool],
        say: Callable[[str], None],
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self.spoils = spoils
        self.say = say
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def find(self, target: str) -> Path | None:
        """The file a request names; None when there is none below the root. Reports are not served."""
        name = unquote(urlsplit(target).path).lstrip("/")
        if "\0" in name:
            return None
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root) or path.is_relative_to(self.root / "reports") or not path.is_file():
            return None
        return path

    def append_report(self, token: str, report: dict[str, Any]) -> bool:
        """Appends a line to the token's file; False when it has as many as it may."""
        folder = self.root / "reports"
        path = folder / f"{token}.jsonl"
        with self._lock:
            folder.mkdir(exist_ok=True)
            if path.exists():
                if path.read_bytes().count(b"\n") >= REPORTS_PER_TOKEN:
                    return False
            elif sum(1 for _ in folder.iterdir()) >= TOKENS_MAX:
                return False
            with path.open("a") as file:
                file.write(json.dumps(report) + "\n")
        return True
