"""Stand-in of UFM's REST interface: partitions and who is in them, over TLS, with the documented shapes and lag.

Shapes: NVIDIA UFM Enterprise REST API Guide v6.22.1, "PKey GUIDs Rest API"; v6.24.2, "NVIDIA SHARP REST API".
GUIDs come back without 0x, whatever they were given as. Ports that were added show up a moment later.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_LARGEST_BODY = 1 << 20
_PKEYS = "/ufmRest/resources/pkeys"


@dataclass
class Fabric:
    """What UFM knows.

    logins      passwords by user name; as delivered: admin, 123456
    partitions  memberships (`full`, `limited`) by GUID without 0x, by P_Key as UFM writes it (`0x7fff`)
    sharp       whether the aggregation manager runs
    lag_s       how long a change takes until it is shown
    refuses     P_Keys whose changes are accepted and lost
    """

    logins: dict[str, str] = field(default_factory=lambda: {"admin": "123456"})
    partitions: dict[str, dict[str, str]] = field(default_factory=lambda: {"0x7fff": {}})
    sharp: bool = True
    lag_s: float = 0.0
    refuses: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)


class Ufm:
    """A server of the interface; use as a context. `url` is where it answers."""

    def __init__(self, fabric: Fabric, address: str, certificate: Path) -> None:
        """`certificate` is a PEM of key and certificate for the address."""
        self._server = _Server(fabric, address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{address}:{self._server.server_port}"

    def __enter__(self) -> Ufm:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def number(pkey: object) -> str:
    """A P_Key as UFM writes it. Raises ValueError where it is none."""
    value = int(str(pkey), 16)
    if not 0 < value <= 0x7FFF:
        raise ValueError(f"{pkey} is no partition")
    return f"0x{value:x}"


class _Server(ThreadingHTTPServer):
    def __init__(self, fabric: Fabric, address: str) -> None:
        self.fabric = fabric
        self.lock = threading.Lock()
        super().__init__((address, 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Version, partitions, reservations."""
        if not self._enter():
            return
        with self.server.lock:
            if self._path == "/ufmRest/app/ufm_version":
                self._answer(200, {"ufm_release_version": "6.24.2 build 3"})
            elif self._path == _PKEYS:
                self._answer(200, {pkey: _shown(pkey, who) for pkey, who in self.server.fabric.partitions.items()})
            elif self._path == "/ufmRest/app/sharp/allocate_resources":
                self._answer(*((200, {}) if self.server.fabric.sharp else (400, {"error": "SHARP is not running"})))
            else:
                self._answer(404, {"error": "not found"})

    def do_POST(self) -> None:
        """Adds GUIDs to a partition, which is made where there is none."""
        if not self._enter():
            return
        try:
            body = json.loads(self._body)
            pkey, guids = number(body["pkey"]), [str(g).lower().removeprefix("0x") for g in body["guids"]]
        except (ValueError, KeyError, TypeError) as error:
            self._answer(400, {"error": str(error)})
            return
        if self._path.rstrip("/") != _PKEYS or not all(len(guid) == 16 for guid in guids):
            self._answer(400, {"error": "a GUID has sixteen digits"})
            return
        self._change(pkey, lambda who: who.update(dict.fromkeys(guids, body.get("membership", "full"))))

    def do_DELETE(self) -> None:
        """Takes GUIDs out of a partition: .../pkeys/PKEY/guids/GUID,GUID."""
        if not self._enter():
            return
        words = self._path.removeprefix(_PKEYS).strip("/").split("/")
        known = {pkey for pkey in self.server.fabric.partitions if words[0].lower() in (pkey, f"0x{int(pkey, 16):04x}")}
        if len(words) != 3 or words[1] != "guids" or not known:
            self._answer(404, {"error": "not found"})
            return
        guids = words[2].lower().split(",")
        self._change(known.pop(), lambda who: [who.pop(guid, None) for guid in guids])

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def _change(self, pkey: str, change: Any) -> None:
        def act() -> None:
            time.sleep(self.server.fabric.lag_s)
            with self.server.lock:
                if pkey not in self.server.fabric.refuses:
                    change(self.server.fabric.partitions.setdefault(pkey, {}))

        if self.server.fabric.lag_s:
            threading.Thread(target=act, daemon=True).start()
        else:
            act()
        self._answer(200, {})

    def _enter(self) -> bool:
        self._path = urlsplit(self.path).path
        length = min(int(self.headers.get("Content-Length") or 0), _LARGEST_BODY)
        self._body = self.rfile.read(length)
        self.server.fabric.requests.append(f"{self.command} {self._path}")
        kind, _, coded = (self.headers.get("Authorization") or "").partition(" ")
        user, _, password = _decoded(coded).partition(":") if kind == "Basic" else ("", "", "")
        if self.server.fabric.logins.get(user) == password and user:
            return True
        self._answer(401, {"error": "Unauthorized"})
        return False

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _shown(pkey: str, who: dict[str, str]) -> dict[str, object]:
    guids = [{"guid": guid, "membership": membership, "index0": False} for guid, membership in sorted(who.items())]
    name = "management" if pkey == "0x7fff" else f"api_pkey_{pkey}"
    return {"partition": name, "ip_over_ib": True, "guids": guids}


def _decoded(coded: str) -> str:
    try:
        return base64.b64decode(coded, validate=True).decode()
    except ValueError:
        return ""
