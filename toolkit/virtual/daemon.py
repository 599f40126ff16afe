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
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.rack.model import Unit
from toolkit.virtual import credentials, description, dnsmasq, network
from toolkit.virtual.bmc import Bmc, BmcServer
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.chassis import Chassis
from toolkit.virtual.control import Answer, ControlServer, NodeStatus, Operation, Request
from toolkit.virtual.description import Description
from toolkit.virtual.documents import DocumentServer
from toolkit.virtual.fault_table import FaultTable
from toolkit.virtual.faults import FaultKind
from toolkit.virtual.layout import Layout
from toolkit.virtual.programs import run

_HTTP_PORT = 80


class VirtualRack:
    """All parts of one rack, wired together."""

    def __init__(self, told: Description) -> None:
        self._rack = told.rack
        self._provision = told.provision
        self._layout = Layout(told.home, told.rack.name)
        self._logins = credentials.logins_of(told.rack, told.secrets)
        self._faults = FaultTable(told.rack, self._faults_changed)
        self._chassis = {
            unit.name: Chassis(self._layout, unit, told.rack.profile, self._faults, told.lag)
            for unit in told.rack.nodes
        }
        self._names = {unit.host.address: unit.name for unit in told.rack.nodes if unit.host}
        self._reconcile = threading.Lock()

    def start(self) -> None:
        """Starts every service; the control socket last, because it says that the rack is ready."""
        for chassis in self._chassis.values():
            chassis.start()
        for unit in network.bmc_units(self._rack):
            self._serve(self._bmc_server(unit), f"bmc {unit.name}")
        address = (str(network.CONTROLLER_IN_BAND), _HTTP_PORT)
        documents = network.inside(
            self._layout.controller, lambda: DocumentServer(address, self._provision, self._spoils, say)
        )
        self._serve(documents, "documents")
        dnsmasq.start(self._layout, self._rack)
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
        bmc = Bmc(self._chassis[unit.name], self._logins[unit.name], unit.bmc.address)
        port, certificate = unit.bmc.port, self._layout.certificates / f"{unit.name}.pem"
        return network.inside(self._layout.bmcs, lambda: BmcServer(bmc, port, certificate))

    def _faults_changed(self, node: str) -> None:
        """Makes the hardware what its faults say. One at a time: what is set last must also be written last."""
        with self._reconcile:
            chassis = self._chassis[node]
            chassis.refresh_hardware()
            bmc = chassis.unit.bmc
            if bmc is not None and self._faults.has(node, FaultKind.BMC_DEAD):
                network.unplug_bmc(self._layout, bmc.address)
            elif bmc is not None:
                network.plug_bmc(self._layout, bmc.address)

    def _spoils(self, address: str, path: Path) -> bool:
        node = self._names.get(address)
        spoilt = node is not None and self._faults.spoil_download(node)
        if spoilt:
            say(f"fault {FaultKind.BAD_IMAGE}: one byte of {path.name} is flipped for {node}")
        return spoilt

    def _serve(self, server: BmcServer | DocumentServer | ControlServer, name: str) -> None:
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
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    VirtualRack(told).start()
    say(f"rack {told.rack.name}: {len(told.rack.nodes)} nodes, ready")
    stop.wait()
    return 0


def _hide_nspawn_state() -> None:
    """systemd-nspawn leaves locks and folders below /run/systemd/nspawn: they go into our mount namespace."""
    folder = Path("/run/systemd/nspawn")
    folder.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", str(folder)])


if __name__ == "__main__":
    sys.exit(main())
