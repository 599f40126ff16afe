"""The process that is a virtual rack: chassis, BMCs, DHCP and provisioning server, under one roof.

`lab.up` starts it in a PID and a mount namespace of its own: when it dies, by whatever signal, the kernel ends every
machine with it and drops every mount; loop devices clear themselves. It never returns by itself.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.rack.model import Unit
from toolkit.redfish import Power
from toolkit.virtual import credentials, description, dnsmasq, mounts, network, switches
from toolkit.virtual.bmc import Bmc, BmcServer
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.chassis import Chassis
from toolkit.virtual.control import Answer, ControlServer, NodeStatus, Operation, Request
from toolkit.virtual.description import Description
from toolkit.virtual.documents import DocumentServer
from toolkit.virtual.fabric.site import SiteFabric
from toolkit.virtual.fabric.tools import Tools
from toolkit.virtual.fault_table import FaultTable
from toolkit.virtual.faults import FaultKind
from toolkit.virtual.layout import Layout
from toolkit.virtual.nvos import VirtualNvos
from toolkit.virtual.programs import run
from toolkit.virtual.stranger import Stranger
from toolkit.virtual.tls_server import TlsServer


class VirtualRack:
    """All parts of one rack, wired together."""

    def __init__(self, told: Description) -> None:
        self._rack = told.rack
        self._provision = told.provision
        self._layout = Layout(told.home, told.rack.name)
        self._logins = credentials.logins_of(told.rack, told.secrets)
        self._faults = FaultTable(told.rack, self._faults_changed)
        self._chassis = {
            unit.name: Chassis(self._layout, unit, told.rack.profile, self._faults, told.lag, self._power_changed)
            for unit in told.rack.nodes
        }
        self._names = {unit.host.address: unit.name for unit in told.rack.nodes if unit.host}
        self._infiniband = told.infiniband
        self._fabric: SiteFabric | None = None
        self._nvos: VirtualNvos | None = None
        self._secrets = told.secrets
        self._stranger = Stranger(self._layout)
        self._reconcile = threading.Lock()

    def start(self) -> None:
        """Starts every service; the control socket last, because it says that the rack is ready."""
        for chassis in self._chassis.values():
            chassis.start()
        if self._infiniband is not None:
            self._fabric = SiteFabric(self._layout, self._rack, Tools(self._infiniband))
        for unit in network.bmc_units(self._rack):
            self._serve(self._bmc_server(unit), f"bmc {unit.name}")
        self._nvos, trays = switches.servers(self._layout, self._rack, self._secrets, self._faults.all)
        for tray in trays:
            self._serve(tray, f"nvue {tray.unit}")
        site = dnsmasq.boot_site(self._layout, self._provision)
        address = (str(site.address), site.port)
        documents = network.inside(
            self._layout.controller,
            lambda: DocumentServer(address, self._provision, self._spoils, say, site.hosts_folder),
        )
        self._serve(documents, "documents")
        dnsmasq.start(self._layout, self._rack, self._provision)
        self._serve(ControlServer(self._layout.socket, self.handle), "control")

    def handle(self, request: Request) -> Answer:
        """Answers one request of the control socket."""
        match request:
            case Request(Operation.SET_FAULT, fault) if fault is not None:
                self._faults.set(fault)
                return Answer(faults=(fault,))
            case Request(Operation.CLEAR_FAULT):
                return Answer(faults=self._faults.clear(request.node, request.kind))
            case Request(Operation.STATUS):
                nodes = tuple(self._status(chassis) for chassis in self._chassis.values())
                return Answer(rack=self._rack.name, digest=self._rack.digest, nodes=nodes)
            case _:
                return Answer(usage_error=f"{request.operation} needs a fault")

    def _status(self, chassis: Chassis) -> NodeStatus:
        faults = self._faults.of(chassis.name)
        return NodeStatus(chassis.name, chassis.power, chassis.phase, faults, chassis.memory_bytes())

    def _bmc_server(self, unit: Unit) -> BmcServer:
        if unit.bmc is None:
            raise RackproofError(f"{unit.name} has no BMC to serve")
        login, faults = self._logins[unit.name], partial(self._faults.of, unit.name)
        bmc = Bmc(self._chassis[unit.name], login, unit.bmc.address, faults)
        port, certificate = unit.bmc.port, self._layout.certificates / f"{unit.name}.pem"
        return network.inside(self._layout.bmcs, lambda: BmcServer(bmc, port, certificate))

    def _faults_changed(self, node: str) -> None:
        """Makes the hardware what its faults say. One at a time: what is set last must also be written last."""
        with self._reconcile:
            chassis = self._chassis.get(node)  # None: a switch
            if chassis is not None:
                chassis.refresh_hardware()
            bmc = chassis.unit.bmc if chassis is not None else None
            if bmc is not None and self._faults.has(node, FaultKind.BMC_DEAD):
                network.unplug_bmc(self._layout, bmc.address)
            elif bmc is not None:
                network.plug_bmc(self._layout, bmc.address)
            misled = (c for c in self._chassis.values() if self._faults.has(c.name, FaultKind.ROGUE_DHCP))
            self._stranger.mislead(chassis.mac for chassis in misled)
        self._update_fabric()
        if self._nvos is not None:
            self._nvos.replace(switches.faults_of(self._rack, self._faults.all()))

    def _power_changed(self) -> None:
        """Of some node. Its power does not wait for a fabric that has ended."""
        try:
            self._update_fabric()
        except RackproofError as error:
            say(error.message)

    def _update_fabric(self) -> None:
        """Tells the fabric what is wrong with it and which nodes are off."""
        if self._fabric is not None:
            off = (chassis.name for chassis in self._chassis.values() if chassis.power is not Power.ON)
            self._fabric.update(self._faults.all(), off)

    def _spoils(self, address: str, path: Path) -> bool:
        node = self._names.get(address)
        spoilt = node is not None and self._faults.spoil_download(node)
        if spoilt:
            say(f"fault {FaultKind.BAD_IMAGE}: one byte of {path.name} is flipped for {node}")
        return spoilt

    def _serve(self, server: TlsServer | DocumentServer | ControlServer, name: str) -> None:
        threading.Thread(target=server.serve_forever, name=name, daemon=True).start()


def say(text: str) -> None:
    """A line in the daemon's log."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stderr.write(f"{stamp} {text}\n")
    sys.stderr.flush()


def main(argv: list[str] | None = None) -> int:
    """Runs the rack that the description file tells of, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.virtual.daemon", description=__doc__)
    parser.add_argument("--rack", type=Path, required=True, help="description file, written by `rackproof virtual up`")
    told = description.read(parser.parse_args(argv).rack)
    layout = Layout(told.home, told.rack.name)
    group = ControlGroup(f"{layout.control_group}/daemon")
    group.create()
    group.join()
    _hide_nspawn_state()
    _forget_others(told, layout)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    VirtualRack(told).start()
    say(f"rack {told.rack.name}: {len(told.rack.nodes)} nodes, ready")
    stop.wait()
    return 0


def _forget_others(told: Description, layout: Layout) -> None:
    """This process and its machines live long: they must not keep what other racks, or the operator, had mounted."""
    needed = (told.home, told.provision, Path(__file__), Path(sys.prefix), Path(sys.base_prefix), Path("/usr/bin"))
    tools = (told.infiniband,) if told.infiniband is not None else ()
    mounts.forget_others(layout.owns_namespace, (*needed, *tools))


def _hide_nspawn_state() -> None:
    """systemd-nspawn leaves locks and folders below /run/systemd/nspawn: they go into our mount namespace."""
    folder = Path("/run/systemd/nspawn")
    folder.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", str(folder)])


if __name__ == "__main__":
    sys.exit(main())
