"""A small Redfish service over TLS, laid out like a DGX H100: a host system and a GPU baseboard side by side."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from toolkit.rack.model import Bmc
from toolkit.redfish import Credentials
from toolkit.virtual.tls import Authority

LOGIN = Credentials("admin", "correct horse")
SYSTEM = "/redfish/v1/Systems/DGX"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"


def documents() -> dict[str, Any]:
    """Everything the service shows, by path."""

    def collection(path: str, *members: str) -> dict[str, Any]:
        listed = [{"@odata.id": f"{path}/{member}"} for member in members]
        return {"@odata.id": path, "Name": "collection", "Members": listed, "Members@odata.count": len(listed)}

    v1 = "/redfish/v1"
    nics = f"{SYSTEM}/EthernetInterfaces"
    return {
        v1: {
            "@odata.id": f"{v1}/",
            "Id": "RootService",
            "Name": "Root Service",
            "RedfishVersion": "1.13.0",
            "Systems": {"@odata.id": f"{v1}/Systems"},
            "Managers": {"@odata.id": f"{v1}/Managers"},
        },
        f"{v1}/Systems": collection(f"{v1}/Systems", "DGX", "HGX_Baseboard_0"),
        SYSTEM: {
            "@odata.id": SYSTEM,
            "Id": "DGX",
            "Name": "System",
            "SerialNumber": " VR00000001 \u0000",
            "Model": "DGXH100",
            "BiosVersion": "1.06.07",
            "PowerState": "Off",
            "Boot": {
                "BootSourceOverrideEnabled": "Disabled",
                "BootSourceOverrideTarget": "None",
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd"],
            },
            "EthernetInterfaces": {"@odata.id": nics},
            "Links": {"ManagedBy": [{"@odata.id": f"{v1}/Managers/HGX_BMC_0"}, {"@odata.id": f"{v1}/Managers/BMC"}]},
            "Actions": {
                "#ComputerSystem.Reset": {
                    "target": RESET,
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart"],
                }
            },
        },
        nics: collection(nics, "eth0", "eth1"),
        f"{nics}/eth0": _nic(f"{nics}/eth0", "52:54:00:66:00:01"),
        f"{nics}/eth1": _nic(f"{nics}/eth1", "not a MAC"),
        f"{v1}/Managers/BMC": {"@odata.id": f"{v1}/Managers/BMC", "Id": "BMC", "FirmwareVersion": "25.06.27"},
        f"{v1}/Managers/HGX_BMC_0": {"@odata.id": f"{v1}/Managers/HGX_BMC_0", "Id": "x", "FirmwareVersion": "wrong"},
    }


def _nic(path: str, mac: str) -> dict[str, Any]:
    return {"@odata.id": path, "Id": path[-4:], "MACAddress": mac, "Status": {"State": "Enabled", "Health": "OK"}}


class Service(ThreadingHTTPServer):
    """The running service. `documents`, `raw` and `drops` may be changed while it runs."""

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.documents = documents()
        self.raw: dict[str, Iterator[bytes]] = {}
        self.drops = 0
        self.connections: set[int] = set()
        self.forgets_boot = False
        self.asked: list[tuple[str, str, Any]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""

    @property
    def bmc(self) -> Bmc:
        """Where it listens."""
        return Bmc("127.0.0.1", "bmc", self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""

    def _answer(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _admitted(self) -> bool:
        expected = base64.b64encode(f"{LOGIN.username}:{LOGIN.password}".encode()).decode()
        return self.path.rstrip("/") == "/redfish/v1" or self.headers.get("Authorization") == f"Basic {expected}"

    def _begin(self) -> bool:
        size = int(self.headers.get("Content-Length") or 0)
        self.server.connections.add(self.client_address[1])
        self.server.asked.append((self.command, self.path, json.loads(self.rfile.read(size) or b"null")))
        if self.server.drops > 0:
            self.server.drops -= 1
            self.close_connection = True
            self.connection.close()
            return False
        if not self._admitted():
            self._answer(401, {"error": {"code": "Base.1.8.NoValidSession", "message": "no"}})
            return False
        return True

    def do_GET(self) -> None:
        if not self._begin():
            return
        path = self.path.rstrip("/")
        if path in self.server.raw:
            self.send_response(200)
            self.end_headers()
            for piece in self.server.raw[path]:
                self.wfile.write(piece)
            self.close_connection = True
        elif path in self.server.documents:
            self._answer(200, self.server.documents[path])
        else:
            self._answer(404, {"error": {"code": "Base.1.8.ResourceMissingAtURI", "message": path}})

    def do_PATCH(self) -> None:
        if self._begin():
            if not self.server.forgets_boot:
                self.server.documents[self.path]["Boot"] |= self.server.asked[-1][2]["Boot"]
            self._answer(204)

    def do_POST(self) -> None:
        if self._begin():
            self._answer(204)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Path]:
    """A CA and the file of its certificate."""
    folder = tmp_path_factory.mktemp("ca")
    return Authority.at(folder / "ca.pem", folder / "ca.key"), folder / "ca.pem"


@pytest.fixture
def ca(authority: tuple[Authority, Path]) -> Path:
    """The CA file a client verifies against."""
    return authority[1]


@pytest.fixture
def service(authority: tuple[Authority, Path], tmp_path: Path) -> Iterator[Service]:
    """A running service whose certificate is signed by `authority`."""
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(authority[0].issue("bmc", "127.0.0.1"))
    with Service(certificate) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield running
        running.shutdown()
