"""A unit's BMC: Redfish over TLS on its own address, acting on the unit's chassis.

Reference: DMTF DSP0266 (protocol), DSP2046 (resources). Sessions and HTTP basic authentication; every answer but the
service root needs one of them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from toolkit.virtual import redfish_tree as tree
from toolkit.virtual.bmc_parts import Refused, Reply
from toolkit.virtual.bmc_state import Bmc
from toolkit.virtual.bmc_update import MAX_IMAGE_BYTES, PUSH
from toolkit.virtual.tls_server import TIMEOUT_S, TlsServer

__all__ = ["Bmc", "BmcServer"]

_BODY_MAX_BYTES = 64 * 1024
_LINGER_S, _LINGER_MAX_BYTES = 0.5, 1024 * 1024


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    wbufsize = -1  # head and body leave in one packet: Nagle's algorithm would hold the second back for 40 ms
    server: BmcServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PATCH(self) -> None:
        self._answer(self._patch)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: the event log says what they did."""

    @property
    def _path(self) -> str:
        return self.path.split("?", 1)[0].rstrip("/")

    def _answer(self, action: Any) -> None:
        pushed = self.command == "POST" and self._path == PUSH and self._size() <= MAX_IMAGE_BYTES
        try:
            body = {} if pushed else self._body()
            self._require_version()
            if self._path not in tree.PUBLIC and not (self.command == "POST" and self._path == tree.SESSIONS):
                self._require_login()
            status, headers, content = self._push() if pushed else action(body)
        except Refused as refused:
            self.close_connection = self.close_connection or pushed  # a push that was refused is not read
            refused = self._told_apart(refused)
            status, headers, content = refused.status, {}, refused.body
        self._send(status, headers, content)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            self._linger()

    def _require_version(self) -> None:
        """DSP0266, "Request headers": 412 for a version of OData that is not supported."""
        if self.headers.get("OData-Version", "4.0") != "4.0":
            raise Refused(412, "PreconditionFailed", "OData-Version must be 4.0")

    def _told_apart(self, refused: Refused) -> Refused:
        """A method that a resource does not have is 405 (DSP0266, "Status codes"): 404 is of what is not there."""
        known = refused.status == 404 and self.command in ("POST", "DELETE") and self.server.bmc.resource(self._path)
        return Refused(405, "OperationNotAllowed", f"{self.command} is not for {self._path}") if known else refused

    def _linger(self) -> None:
        """Reads on for a moment: a socket closed with unread bytes is reset, and the answer is lost with it."""
        self.wfile.flush()
        self.connection.settimeout(_LINGER_S)
        left = _LINGER_MAX_BYTES
        with contextlib.suppress(OSError):
            while left > 0 and (more := self.rfile.read1(_BODY_MAX_BYTES)):
                left -= len(more)

    def _get(self, _body: tree.Json) -> tuple[int, dict[str, str], tree.Json | None]:
        found = self.server.bmc.resource(self._path)
        if found is None:
            raise Refused(404, "ResourceMissingAtURI", f"there is no resource at {self._path}")
        return 200, {}, found

    def _post(self, body: tree.Json) -> tuple[int, dict[str, str], tree.Json | None]:
        bmc = self.server.bmc
        if self._path == tree.SESSIONS:
            if not bmc.knows(body.get("UserName"), body.get("Password")):
                raise Refused(401, "ResourceAtUriUnauthorized", "wrong user name or password")
            token, identity = bmc.open_session()
            where = f"{tree.SESSIONS}/{identity}"
            return 201, {"X-Auth-Token": token, "Location": where}, tree.session(identity, bmc.login.username)
        return _told(bmc.act(self._path, body))

    def _push(self) -> tuple[int, dict[str, str], tree.Json | None]:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return _told(self.server.bmc.updates.push(self.headers.get("Content-Type", ""), content))

    def _patch(self, body: tree.Json) -> tuple[int, dict[str, str], tree.Json | None]:
        return _told(self.server.bmc.change(self._path, body))

    def _delete(self, _body: tree.Json) -> tuple[int, dict[str, str], tree.Json | None]:
        folder, _, name = self._path.rpartition("/")
        if folder != tree.SESSIONS or not self.server.bmc.close_session(name):
            raise Refused(404, "ResourceMissingAtURI", f"there is no session at {self._path}")
        return 204, {}, None

    def _body(self) -> tree.Json:
        size = self._size()
        if size > _BODY_MAX_BYTES:
            self.close_connection = True  # what follows is not read
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "PayloadTooLarge",
                f"a request's body may have {_BODY_MAX_BYTES} bytes",
            )
        raw = self.rfile.read(size)
        try:
            body = json.loads(raw) if raw.strip() else {}
        except ValueError as error:
            raise Refused(400, "MalformedJSON", "the body is not JSON") from error
        if not isinstance(body, dict):
            raise Refused(400, "MalformedJSON", "the body is not a JSON object")
        return body

    def _size(self) -> int:
        declared = self.headers.get("Content-Length") or "0"
        return int(declared) if declared.isdecimal() else MAX_IMAGE_BYTES + 1

    def _require_login(self) -> None:
        bmc = self.server.bmc
        if bmc.is_denied():
            raise Refused(401, "NoValidSession", "log in first")
        if bmc.has_session(self.headers.get("X-Auth-Token", "")):
            return
        kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                username, password = "", ""
            if bmc.knows(username, password):
                return
        raise Refused(401, "NoValidSession", "log in first")

    def _send(self, status: int, headers: dict[str, str], content: tree.Json | None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("OData-Version", "4.0")
        self.send_header("Cache-Control", "no-cache")
        if self._path in tree.PUBLIC:
            self.send_header("Allow", "GET, HEAD")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="BMC"')
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _told(reply: Reply) -> tuple[int, dict[str, str], tree.Json | None]:
    return reply.status, dict(reply.headers), reply.body


class BmcServer(TlsServer):
    """The listener of one BMC."""

    def __init__(self, bmc: Bmc, port: int, certificate: Path) -> None:
        """`certificate` is a PEM file with key and certificate."""
        self.bmc = bmc
        super().__init__((bmc.address, port), _Handler, certificate)
