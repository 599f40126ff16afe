"""A node's BMC: Redfish over TLS on its own address, acting on the node's chassis.

Reference: DMTF DSP0266 (protocol), DSP2046 (resources). Sessions and HTTP basic authentication; every answer but the
service root needs one of them.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import json
import secrets
import socket
import ssl
import threading
import uuid
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from toolkit.virtual import redfish_tree as tree
from toolkit.virtual.chassis import Button, Chassis
from toolkit.virtual.credentials import Login
from toolkit.virtual.firmware import BootEnabled, BootOverride, BootTarget, Phase

_BODY_MAX_BYTES = 64 * 1024
_SESSIONS_MAX = 16
_TIMEOUT_S = 30.0
_LINGER_S, _LINGER_MAX_BYTES = 0.5, 1024 * 1024
_BIOS, _MANAGER = "HostBIOS_0", "HostBMC_0"
_BOOT_PROGRESS = {
    Phase.OFF: "None",
    Phase.SELF_TEST: "SystemHardwareInitializationComplete",
    Phase.NETWORK_BOOT: "SystemHardwareInitializationComplete",
    Phase.NO_BOOT_DEVICE: "SystemHardwareInitializationComplete",
    Phase.CRASHED: "OEM",
    Phase.RAMDISK: "OSBootStarted",
    Phase.HUNG: "OSBootStarted",
    Phase.OPERATING_SYSTEM: "OSRunning",
}


class _Refused(Exception):  # noqa: N818 - an answer, not a failure of ours
    """An error answer: HTTP status, Redfish message id, text."""

    def __init__(self, status: int, message_id: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = tree.error(message_id, message)


class Bmc:
    """One BMC's state beside the chassis: its account and sessions."""

    def __init__(self, chassis: Chassis, login: Login, address: str) -> None:
        self.chassis = chassis
        self.login = login
        self.address = address
        self._lock = threading.Lock()
        self._sessions: dict[str, str] = {}  # token -> id, oldest first

    def values(self) -> Mapping[str, object]:
        """Live values of the resource tree."""
        chassis = self.chassis
        return {
            "name": chassis.name,
            "serial": chassis.serial,
            "model": chassis.profile.sku,
            "mac": chassis.mac,
            "uuid": chassis.uuid,
            "bmc_uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"bmc {chassis.serial}")),
            "bmc_address": self.address,
            "bmc_version": tree.firmware_version(_MANAGER),
            "bios_version": tree.firmware_version(_BIOS),
            "power": chassis.power.value,
            "boot_target": chassis.override.target.value,
            "boot_enabled": chassis.override.enabled.value,
            "boot_progress": _BOOT_PROGRESS[chassis.phase],
        }

    def resource(self, path: str) -> tree.Json | None:
        """What a GET of this path answers; None for 404."""
        events = self.chassis.events
        if path == tree.ENTRIES:
            return tree.log_entries(events)
        if path == tree.SESSIONS:
            return tree.collection(path, "Session", tuple(self._sessions.values()))
        folder, _, name = path.rpartition("/")
        if folder == tree.ENTRIES:
            return next((tree.log_entry(event) for event in events if str(event.number) == name), None)
        if folder == tree.SESSIONS:
            return tree.session(name, self.login.username) if name in self._sessions.values() else None
        return tree.resource(path, self.values())

    def knows(self, username: object, password: object) -> bool:
        """Whether this is the account; takes the same time whatever is wrong."""
        user = hmac.compare_digest(str(username).encode(), self.login.username.encode())
        return hmac.compare_digest(str(password).encode(), self.login.password.encode()) and user

    def has_session(self, token: str) -> bool:
        """Whether the token belongs to an open session."""
        return token in self._sessions

    def open_session(self) -> tuple[str, str]:
        """Token and id of a new session; the oldest goes when there are too many."""
        token, identity = secrets.token_hex(16), secrets.token_hex(4)
        with self._lock:
            while len(self._sessions) >= _SESSIONS_MAX:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[token] = identity
        return token, identity

    def close_session(self, identity: str) -> bool:
        """Ends a session; False if there was none."""
        with self._lock:
            tokens = [token for token, known in self._sessions.items() if known == identity]
            for token in tokens:
                del self._sessions[token]
        return bool(tokens)

    def patch_system(self, body: tree.Json) -> None:
        """PATCH of the system: only the boot override can be changed."""
        boot = body.get("Boot")
        if not isinstance(boot, dict) or set(body) != {"Boot"}:
            raise _Refused(400, "PropertyNotWritable", "only Boot can be written")
        self.chassis.set_override(_override(self.chassis.override, boot))

    def reset(self, body: tree.Json) -> None:
        """The ComputerSystem.Reset action."""
        kind = body.get("ResetType")
        if kind not in [button.value for button in Button]:
            raise _Refused(400, "ActionParameterValueNotInList", f"ResetType {kind!r} is not supported")
        self.chassis.press(Button(kind))


def _override(now: BootOverride, boot: dict[str, object]) -> BootOverride:
    """The override after a PATCH of `Boot`; a target without `Enabled` means `Once`, as iDRAC and OpenBMC take it."""
    try:
        target = BootTarget(str(boot.get("BootSourceOverrideTarget", now.target)))
        enabled = BootEnabled(str(boot.get("BootSourceOverrideEnabled", BootEnabled.ONCE)))
    except ValueError as error:
        raise _Refused(400, "PropertyValueNotInList", str(error)) from error
    if boot.get("BootSourceOverrideMode", "UEFI") != "UEFI":
        raise _Refused(400, "PropertyValueNotInList", "BootSourceOverrideMode: this firmware boots UEFI only")
    if target is BootTarget.NONE or enabled is BootEnabled.DISABLED:
        return BootOverride()
    return replace(now, target=target, enabled=enabled)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S
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
        try:
            body = self._body()
            if self._path not in tree.PUBLIC and not (self.command == "POST" and self._path == tree.SESSIONS):
                self._require_login()
            status, headers, content = action(body)
        except _Refused as refused:
            status, headers, content = refused.status, {}, refused.body
        self._send(status, headers, content)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            self._linger()

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
            raise _Refused(404, "ResourceMissingAtURI", f"there is no resource at {self._path}")
        return 200, {}, found

    def _post(self, body: tree.Json) -> tuple[int, dict[str, str], tree.Json | None]:
        bmc = self.server.bmc
        if self._path == tree.SESSIONS:
            if not bmc.knows(body.get("UserName"), body.get("Password")):
                raise _Refused(401, "ResourceAtUriUnauthorized", "wrong user name or password")
            token, identity = bmc.open_session()
            where = f"{tree.SESSIONS}/{identity}"
            return 201, {"X-Auth-Token": token, "Location": where}, tree.session(identity, bmc.login.username)
        if self._path == tree.RESET:
            bmc.reset(body)
        elif self._path == tree.CLEAR_LOG:
            bmc.chassis.clear_events()
        else:
            raise _Refused(404, "ActionNotSupported", f"there is no action at {self._path}")
        return 204, {}, None

    def _patch(self, body: tree.Json) -> tuple[int, dict[str, str], tree.Json | None]:
        if self._path != tree.SYSTEM:
            raise _Refused(405, "OperationNotAllowed", f"{self._path} cannot be changed")
        self.server.bmc.patch_system(body)
        return 204, {}, None

    def _delete(self, _body: tree.Json) -> tuple[int, dict[str, str], tree.Json | None]:
        folder, _, name = self._path.rpartition("/")
        if folder != tree.SESSIONS or not self.server.bmc.close_session(name):
            raise _Refused(404, "ResourceMissingAtURI", f"there is no session at {self._path}")
        return 204, {}, None

    def _body(self) -> tree.Json:
        declared = self.headers.get("Content-Length") or "0"
        size = int(declared) if declared.isdecimal() else _BODY_MAX_BYTES + 1
        if size > _BODY_MAX_BYTES:
            self.close_connection = True  # what follows is not read
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "PayloadTooLarge",
                f"a request's body may have {_BODY_MAX_BYTES} bytes",
            )
        raw = self.rfile.read(size)
        try:
            body = json.loads(raw) if raw.strip() else {}
        except ValueError as error:
            raise _Refused(400, "MalformedJSON", "the body is not JSON") from error
        if not isinstance(body, dict):
            raise _Refused(400, "MalformedJSON", "the body is not a JSON object")
        return body

    def _require_login(self) -> None:
        bmc = self.server.bmc
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
        raise _Refused(401, "NoValidSession", "log in first")

    def _send(self, status: int, headers: dict[str, str], content: tree.Json | None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("OData-Version", "4.0")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="BMC"')
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class BmcServer(ThreadingHTTPServer):
    """One listener. Made inside the network that its address belongs to; `serve_forever` may run anywhere."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, bmc: Bmc, port: int, certificate: Path) -> None:
        """`certificate` is a PEM file with key and certificate."""
        self.bmc = bmc
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        super().__init__((bmc.address, port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The TLS handshake happens in the request's thread: a silent client must not block the others."""
        request.settimeout(_TIMEOUT_S)
        try:
            with self._context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        except OSError:
            return  # a broken handshake or a client that went away: nothing to answer

    def shutdown_request(self, request: Any) -> None:
        """The TLS wrapper took the socket over and has closed it."""
        if request.fileno() != -1:
            request.shutdown(socket.SHUT_RDWR)
            request.close()
