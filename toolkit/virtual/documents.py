"""The provisioning HTTP server of a virtual rack: the boot service's decisions, and files below a document root.

Files are nginx's on metal. Here one process serves them too, because a fault may flip a byte on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from toolkit.netboot.decisions import Answer, Decisions
from toolkit.netboot.ranges import Span, span_of
from toolkit.netboot.service import Deciding, decisions_of
from toolkit.netboot.site import HOSTS, LOGS, OFFERS, REPORTS

_CHUNK_BYTES = 256 * 1024
_IMAGES, _DISK = "images", "disk.img.zst"
_PRIVATE = (REPORTS, LOGS, OFFERS, HOSTS)


class _Handler(Deciding):
    timeout = 60.0
    disable_nagle_algorithm = True
    server: DocumentServer

    @property
    def decisions(self) -> Decisions:
        return self.server.decisions

    def source(self) -> str:
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:
        self.server.say(f"{self.client_address[0]} {format % args}")

    def serve_file(self) -> None:
        path = self.server.find(self.path)
        if path is None:
            return self.finish_with(Answer(404))
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                span = span_of(self.headers.get("Range"), size)
                if span is None:
                    return self.finish_with(Answer(416))
                self._head(span)
                if self.command == "GET":
                    file.seek(span.first)
                    self._stream(file, span, self._spoiled_at(path, span))
        except OSError:
            self.close_connection = True  # the client went away, or the file: the length tells it was cut short
        return None

    def _head(self, span: Span) -> None:
        partial = span.end - span.first < span.size
        self.send_response(206 if partial else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        if partial:
            self.send_header("Content-Range", span.header)
        self.send_header("Content-Length", str(span.end - span.first))
        self.end_headers()

    def _spoiled_at(self, path: Path, span: Span) -> int | None:
        """Offset of the byte to flip in this download, if it is one that a fault spoils."""
        middle = span.size // 2
        is_disk = path.is_relative_to(self.server.root / _IMAGES) and path.name == _DISK
        if not is_disk or not span.first <= middle < span.end:
            return None  # a part that has not that byte uses the fault up no more than it shows it
        return middle if self.server.spoils(self.source(), path) else None

    def _stream(self, file: Any, span: Span, flip_at: int | None) -> None:
        at = span.first
        while at < span.end:
            chunk = file.read(min(_CHUNK_BYTES, span.end - at))
            if not chunk:
                self.close_connection = True  # the file became shorter while it was sent
                return
            if flip_at is not None and at <= flip_at < at + len(chunk):
                changed = bytearray(chunk)
                changed[flip_at - at] ^= 0x01
                chunk = bytes(changed)
            self.wfile.write(chunk)
            at += len(chunk)


class DocumentServer(ThreadingHTTPServer):
    """Serves `root`. Made inside the network that its address belongs to.

    spoils  asked at each download of an image, with the client's address and the file: whether to flip a byte of it
    hosts   folder with the nodes that may boot; None: `hosts` below the root
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        root: Path,
        spoils: Callable[[str, Path], bool],
        say: Callable[[str], None],
        hosts: Path | None = None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self.spoils = spoils
        self.say = say
        self.decisions = decisions_of(self.root, say, hosts)
        super().__init__(address, _Handler)

    def find(self, target: str) -> Path | None:
        """The file a request names; None when there is none below the root. What is not for all is not served."""
        name = unquote(urlsplit(target).path).lstrip("/")
        if "\0" in name:
            return None
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root) or not path.is_file():
            return None
        return None if path.relative_to(self.root).parts[0] in _PRIVATE else path
