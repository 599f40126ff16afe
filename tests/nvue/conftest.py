"""Switch trays of the example NVL72 rack, each a real TLS server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from toolkit.nvue import rest
from toolkit.nvue.client import NvueClient, connect
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Nvos, Rack
from toolkit.redfish import Credentials
from toolkit.virtual.credentials import Login
from toolkit.virtual.nvos import NvosLag, SwitchFault, SwitchTrouble, VirtualNvos, trays
from toolkit.virtual.nvue import NvueServer
from toolkit.virtual.tls import Authority

INVENTORY = Path(__file__).parents[2] / "inventory"
LOGIN = Credentials("admin", "correct horse")
TRAY = "nvswitch1"


@dataclass
class Switches:
    """The running trays and clients of them."""

    rack: Rack
    nvos: VirtualNvos
    ca: Path

    def client(self, unit: str = TRAY, credentials: Credentials = LOGIN, ca: Path | None = None) -> NvueClient:
        """A client of one tray."""
        at = self.rack.unit(unit).nvos
        assert at is not None
        return connect(unit, at, credentials, ca or self.ca)

    def break_by(self, kind: SwitchTrouble, unit: str = TRAY, port: str = "", value: float | None = None) -> None:
        """Breaks a tray."""
        self.nvos.set(SwitchFault(kind, unit, port, value))


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
def switches_of(authority: tuple[Authority, Path], tmp_path: Path) -> Iterator[Callable[[VirtualNvos, Rack], Switches]]:
    """Starts a listener for every tray of a rack, on ports that are free."""
    running: list[NvueServer] = []
    pem = tmp_path / "server.pem"
    pem.write_bytes(authority[0].issue("nvos", "127.0.0.1"))

    def start(nvos: VirtualNvos, rack: Rack) -> Switches:
        ports = {}
        for unit in trays(rack):
            server = NvueServer(nvos, unit.name, Login(LOGIN.username, LOGIN.password), ("127.0.0.1", 0), pem)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            running.append(server)
            ports[unit.name] = server.server_address[1]
        units = tuple(
            replace(u, nvos=Nvos("127.0.0.1", "nvos", ports[u.name])) if u.name in ports else u for u in rack.units
        )
        return Switches(replace(rack, units=units), nvos, authority[1])

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def rack() -> Rack:
    """The example rack as designed: 18 trays, 9 switch trays, 1,296 links."""
    return load_rack("gb200-nvl72", INVENTORY)


@pytest.fixture
def switches(
    rack: Rack, switches_of: Callable[[VirtualNvos, Rack], Switches], monkeypatch: pytest.MonkeyPatch
) -> Switches:
    """Nine healthy trays, the cluster enabled on the first for long."""
    monkeypatch.setattr(rest, "POLL_S", 0.05)
    nvos = VirtualNvos(rack, NvosLag(apply_s=0.2, app_s=0.4, action_s=0.1))
    nvos.enable(TRAY)
    return switches_of(nvos, rack)
