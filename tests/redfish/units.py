"""Units of a GB200 NVL72 rack with virtual BMCs that listen on loopback: one shelf, one switch tray, two trays."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from toolkit.rack.loading import load_rack
from toolkit.rack.model import Bmc as Address
from toolkit.rack.model import Rack, Unit
from toolkit.redfish import BmcClient, Credentials, Wire, connect
from toolkit.settings import load
from toolkit.virtual.bmc import Bmc, BmcServer
from toolkit.virtual.credentials import Login
from toolkit.virtual.faults import Fault
from toolkit.virtual.tls import Authority
from toolkit.virtual.tray import Tray

LOGIN = Login("admin", "correct horse battery")
CREDENTIALS = Credentials(LOGIN.username, LOGIN.password)
NAMES = ("shelf1", "nvswitch1", "tray01", "tray02")
LAG_S, UPDATE_S = 0.05, 0.3


@dataclass
class Bench:
    """A rack, its BMCs by unit's name, and the faults that are set on each."""

    rack: Rack
    ca: Path
    sessions: Path
    bmcs: dict[str, Bmc] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)

    def bmc(self, unit: Unit) -> BmcClient:
        assert unit.bmc is not None
        return connect(unit.bmc, CREDENTIALS, self.ca)

    def wire(self, unit: Unit) -> Wire:
        assert unit.bmc is not None
        return Wire(unit.bmc, CREDENTIALS, self.ca)

    def tray(self, name: str) -> Tray:
        found = self.bmcs[name].chassis
        assert isinstance(found, Tray)
        return found

    def http(self, name: str) -> httpx.Client:
        where = self.rack.unit(name).bmc
        assert where is not None
        context = ssl.create_default_context(cafile=self.ca)
        return httpx.Client(base_url=f"https://127.0.0.1:{where.port}", verify=context, trust_env=False)


@contextmanager
def bench(folder: Path, names: tuple[str, ...] = NAMES, rack_name: str = "gb200-nvl72") -> Iterator[Bench]:
    """The named units of that rack, each with a BMC of its own on a port of loopback."""
    rack = load_rack(rack_name, load({}).inventory)
    authority = Authority.at(folder / "ca.pem", folder / "ca.key")
    pem = folder / "server.pem"
    pem.write_bytes(authority.issue("bmc", "127.0.0.1"))
    made = Bench(rack, folder / "ca.pem", folder / "sessions")
    units = []
    with ExitStack() as stack:
        for name in names:
            unit = rack.unit(name)
            made.faults[name] = []
            bmc = Bmc(
                Tray(unit, rack.profile, LAG_S), LOGIN, "127.0.0.1", lambda name=name: made.faults[name],
                update_s=UPDATE_S,
            )  # fmt: skip
            made.bmcs[name] = bmc
            server = stack.enter_context(BmcServer(bmc, 0, pem))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            stack.callback(server.shutdown)
            units.append(replace(unit, bmc=Address("127.0.0.1", "bmc", server.server_address[1])))
        made.rack = replace(rack, units=tuple(units), links=(), partial=True)
        yield made
