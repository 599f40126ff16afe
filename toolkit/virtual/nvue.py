"""NVUE of a virtual switch tray: the REST interface over TLS, in front of `toolkit.virtual.nvos`."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from toolkit.virtual.credentials import Login
from toolkit.virtual.nvos import Json, SwitchTrouble, VirtualNvos
from toolkit.virtual.tls_server import TIMEOUT_S, TlsServer

_BODY_MAX_BYTES = 64 * 1024
_PREFIX = "/nvue_v1/"
_PAGE = b"<!DOCTYPE html><html><head><title>Welcome to nginx!</title></head><body></body></html>"


class NvueServer(TlsServer):
    """The listener of one switch tray. Made inside the network that its address belongs to."""

    def __init__(self, nvos: VirtualNvos, unit: str, login: Login, address: tuple[str, int], certificate: Path) -> None:
        """`certificate` is a PEM file with key and certificate."""
        self.nvos = nvos
        self.unit = unit
        self.login = login
        super().__init__(address, _Handler, certificate)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    wbufsize = -1
    server: NvueServer

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: a header would have the password."""

    def _answer(self) -> None:
        nvos, unit = self.server.nvos, self.server.unit
        split = urlsplit(self.path)
        path, query = unquote(split.path), parse_qs(split.query)
        nvos.asked.append((unit, self.command, self.path))
        body = self._body()
        slow = nvos.fault(unit, SwitchTrouble.SLOW)
        if slow is not None:
            time.sleep(20 if slow.value is None else slow.value)
        if self._broken():
            return
        if not self._known() or nvos.fault(unit, SwitchTrouble.DENIED):
            self._send(HTTPStatus.UNAUTHORIZED, {"status": 401, "title": "Unauthorized"})
            return
        if body is None or not path.startswith(_PREFIX):
            wrong = HTTPStatus.BAD_REQUEST if body is None else HTTPStatus.NOT_FOUND
            self._send(wrong, {"status": int(wrong), "title": wrong.phrase})
            return
        self._send(*self._resource(path.removeprefix(_PREFIX).strip("/"), query, body))

    def _resource(self, path: str, query: dict[str, list[str]], body: Json) -> tuple[int, object]:
        nvos, unit = self.server.nvos, self.server.unit
        found: object | None = None
        revision = query.get("rev", [""])[0]
        match self.command:
            case "GET":
                found = nvos.shown(unit, path, operational=revision == "operational")
            case "POST" if path == "revision":
                found = nvos.make_revision(unit)
            case "POST":
                found = self._action(path, body)
            case "PATCH" if path.startswith("revision/"):
                found = nvos.apply(path.partition("/")[2])
            case "PATCH" if path == "cluster" and nvos.patch(revision, body):
                found = body
        if found is None:
            return 404, {"status": 404, "title": "Not Found", "detail": f"no {self.command} of {path}"}
        return 200, found

    def _action(self, path: str, body: Json) -> object | None:
        name, told = next(iter(body.items()), ("", None))
        parameters = told.get("parameters", {}) if isinstance(told, dict) else {}
        identity = self.server.nvos.act(self.server.unit, path, name, parameters)
        return None if identity is None else int(identity)

    def _broken(self) -> bool:
        """Answers as a broken switch does; whether it is one."""
        nvos, unit = self.server.nvos, self.server.unit
        if nvos.fault(unit, SwitchTrouble.BROKEN):
            self._send(500, {"status": 500, "title": "Internal Server Error", "detail": "nvued does not answer"})
        elif nvos.fault(unit, SwitchTrouble.FORBIDDEN):
            self._send(403, {"status": 403, "title": "Forbidden"})
        elif nvos.fault(unit, SwitchTrouble.WEB_PAGE):
            self._send_bytes(200, _PAGE, "text/html")
        elif nvos.fault(unit, SwitchTrouble.REDIRECT):
            self._send_bytes(302, b"", "text/html", {"Location": "https://192.0.2.80/login"})
        elif nvos.fault(unit, SwitchTrouble.TORN):
            self._send_bytes(200, b'{"state": "en', "application/json", {"Content-Length": "4096"})
            self.close_connection = True
        else:
            return False
        return True

    def _known(self) -> bool:
        kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        login = self.server.login
        user = hmac.compare_digest(name.encode(), login.username.encode())
        return hmac.compare_digest(password.encode(), login.password.encode()) and user

    def _body(self) -> Json | None:
        """The request's JSON object; None where it is none."""
        declared = self.headers.get("Content-Length") or "0"
        size = int(declared) if declared.isdecimal() else _BODY_MAX_BYTES + 1
        if size > _BODY_MAX_BYTES:
            self.close_connection = True
            return None
        raw = self.rfile.read(size)
        try:
            body = json.loads(raw) if raw.strip() else {}
        except ValueError:
            return None
        return body if isinstance(body, dict) else None

    def _send(self, status: int, content: object) -> None:
        self._send_bytes(status, json.dumps(content).encode(), "application/json")

    def _send_bytes(self, status: int, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content))} | (more or {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
