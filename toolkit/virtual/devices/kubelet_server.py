"""What a kubelet serves on 10250: /healthz, /pods, /containerLogs, to whom the cluster's CA and its API server allow.

Not /exec, /attach and /portForward, /metrics and /stats: those answer 404.
"""

from __future__ import annotations

import http.server
import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .kubelet_config import Settings
from .kubelet_container import Container, stamp
from .node_api import ApiError, NodeApi

Object = dict[str, Any]
FindContainer = Callable[[str, str, str], Container | None]
_POLL_S = 0.1
_LINE = re.compile(rb"(\S+) (?:stdout|stderr) ([FP]) (.*)", re.DOTALL)
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class KubeletServer(http.server.ThreadingHTTPServer):
    """Listens; `find` gives a container by namespace, pod and name."""

    daemon_threads = True

    def __init__(
        self, settings: Settings, pair: tuple[Path, Path], api: NodeApi, find: FindContainer, pods: Callable[[], Object]
    ) -> None:
        self.settings, self.api, self.find, self.pods = settings, api, find, pods
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(*pair)
        if settings.client_ca is not None:
            self.tls.load_verify_locations(settings.client_ca)
            self.tls.verify_mode = ssl.CERT_OPTIONAL  # who shows none is anonymous: answered, with 401
        super().__init__((settings.address, settings.port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a client that does not speak TLS keeps nobody else waiting."""
        request.settimeout(30)
        try:
            super().finish_request(self.tls.wrap_socket(request, server_side=True), client_address)
        except OSError:
            return  # no TLS, or it has gone away

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: KubeletServer
    connection: ssl.SSLSocket

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads a line for each request."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        refused = self._refused()
        found = re.fullmatch(r"/containerLogs/([^/]+)/([^/]+)/([^/]+)", url.path)
        if refused is not None:
            self._answer(*refused)
        elif url.path == "/healthz":
            self._answer(200, "ok")
        elif url.path in ("/pods", "/pods/"):
            self._answer(200, json.dumps(self.server.pods()), "application/json")
        elif found:
            self._logs(found[1], found[2], found[3], {k: v[0] for k, v in parse_qs(url.query).items()})
        else:
            self._answer(404, "404 page not found")

    def _refused(self) -> tuple[int, str] | None:
        """Status and words for who may not ask; None for who may."""
        subject = (self.connection.getpeercert() or {}).get("subject", ())
        names = [(str(pair[0]), str(pair[1])) for row in subject for pair in row]
        user = next((value for key, value in names if key == "commonName"), "")
        if not user:
            return 401, "Unauthorized"
        if not self.server.settings.authorize:
            return None
        groups = [value for key, value in names if key == "organizationName"]
        resource = {"resource": "nodes", "subresource": "proxy", "name": self.server.settings.name, "verb": "get"}
        spec = {"user": user, "groups": [*groups, "system:authenticated"], "resourceAttributes": resource}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        try:
            allowed = bool(self.server.api.create(_REVIEWS, body)["status"].get("allowed"))
        except ApiError as error:
            return 500, f"Internal Error: {error}"
        return None if allowed else (403, f"Forbidden (user={user}, verb=get, resource=nodes, subresource=proxy)")

    def _logs(self, namespace: str, pod: str, name: str, query: dict[str, str]) -> None:
        container = self.server.find(namespace, pod, name)
        if container is None:
            self._answer(404, f'pod "{pod}" does not exist, or has no container "{name}"')
            return
        if container.attempts == 0:
            self._answer(400, f'container "{name}" in pod "{pod}" is waiting to start: ContainerCreating')
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Connection", "close")
        self.end_headers()
        left = int(query.get("limitBytes", 1 << 62))
        for part in _wanted(container, query):
            self.wfile.write(part[:left])
            left -= len(part)
            if left <= 0:
                return

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        raw = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(raw)


def _wanted(container: Container, query: dict[str, str]) -> Iterator[bytes]:
    """What a container has printed, as PodLogOptions ask for it."""
    records = list(_records(_all(container.log(previous=query.get("previous") == "true"))))
    shown = records
    if "sinceSeconds" in query:
        edge = stamp(time.time() - int(query["sinceSeconds"]))[:-1].encode()
        shown = [record for record in shown if record[0] >= edge]
    if "tailLines" in query:
        shown = _tail(shown, int(query["tailLines"]))
    stamps = query.get("timestamps") == "true"
    for at, text in shown:
        yield at + b" " + text if stamps else text
    seen = len(records)
    while query.get("follow") == "true":
        ended = container.end is not None
        records = list(_records(_all(container.log())))
        for at, text in records[seen:]:
            yield at + b" " + text if stamps else text
        seen = len(records)
        if ended:
            return
        time.sleep(_POLL_S)


def _all(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as log:
            yield from log


def _records(lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(time, text): the text of a whole line ends with its newline. A line half written is left for later."""
    for line in lines:
        found = _LINE.fullmatch(line[:-1]) if line.endswith(b"\n") else None
        if found:
            yield found[1], found[3] + (b"\n" if found[2] == b"F" else b"")


def _tail(records: list[tuple[bytes, bytes]], lines: int) -> list[tuple[bytes, bytes]]:
    kept = 0
    for index in range(len(records) - 1, -1, -1):
        whole = records[index][1].endswith(b"\n")
        if whole and kept == lines:
            return records[index + 1 :]
        kept += whole
    return records if lines else []
