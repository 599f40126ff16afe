"""A rack whose nodes are QEMU machines: its two networks, a BMC for each node, and the site's boot service."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from types import TracebackType

from toolkit.errors import UsageError
from toolkit.rack.model import Host, Rack, Unit
from toolkit.settings import Settings
from toolkit.virtual import credentials, network, requirements, teardown
from toolkit.virtual.bmc import Bmc, BmcServer
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.layout import Layout, layout_of
from toolkit.virtual.programs import run
from toolkit.virtual.qemu.boot_service import BootService
from toolkit.virtual.qemu.chassis import QemuChassis
from toolkit.virtual.qemu.machine import Architecture, Firmware, MachineSpec, NetworkBoot

_DISK_BYTES = 8 * 1024**3  # of the sparse file; a system image is written to it whole


class QemuRack:
    """The rack's hardware while the `with` block lasts. Nodes are off; only their BMCs switch them on.

    `rackproof` commands reach it as they reach a container rack of the same name: by its controller's namespace.
    """

    def __init__(
        self, rack: Rack, settings: Settings, say: Callable[[str], None], *, firmware: Firmware = Firmware.UEFI,
        network_boot: NetworkBoot = NetworkBoot.PXE, architecture: Architecture = Architecture.X86_64,
        disk_bytes: int = _DISK_BYTES,
    ) -> None:  # fmt: skip
        self.layout = layout_of(settings, rack.name)
        self._rack = rack
        self._secrets = settings.secrets(rack.site)
        self._group = ControlGroup(f"{self.layout.control_group}/boot-service")
        self.boot_service = BootService(
            rack, settings.provision, self.layout.folder / "boot-service", self.layout.controller, self._group, say
        )
        self.chassis = {
            unit.name: _chassis(self.layout, rack, unit, number, firmware, network_boot, architecture, disk_bytes, say)
            for number, unit in enumerate(rack.nodes)
        }
        self._servers: list[BmcServer] = []

    def __enter__(self) -> QemuRack:
        """Wires everything and switches the BMCs on. Disks and firmware variables are found as they were left."""
        requirements.require_root()
        network.check_addresses(self._rack)
        teardown.sweep(self.layout, keep_files=True)
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        self.layout.folder.chmod(0o700)
        credentials.prepare(self.layout, self._rack, self._secrets)
        try:
            network.build(self.layout, self._rack)
            self._plug_in()
            self.boot_service.start()
            logins = credentials.logins_of(self._rack, self._secrets)
            for unit in network.bmc_units(self._rack):
                self._serve(unit, logins[unit.name])
            for chassis in self.chassis.values():
                chassis.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Switches everything off and takes the networks down; the files stay for whoever looks into a failure."""
        for chassis in self.chassis.values():
            chassis.stop()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self.boot_service.stop()
        teardown.sweep(self.layout, keep_files=True)

    def _plug_in(self) -> None:
        """A tap device in place of each container node's port."""
        for number, _ in enumerate(self._rack.nodes):
            run(["ip", "-n", self.layout.switch, "link", "delete", f"node{number}"])
            run(["ip", "-n", self.layout.switch, "tuntap", "add", "dev", _tap(number), "mode", "tap"])
            run(["ip", "-n", self.layout.switch, "link", "set", _tap(number), "master", "inband", "up"])

    def _serve(self, unit: Unit, login: credentials.Login) -> None:
        if unit.bmc is None:
            raise UsageError(f"{unit.name} has no BMC: nothing could switch it on", "add `bmc` to it in the rack file")
        bmc = Bmc(self.chassis[unit.name], login, unit.bmc.address)
        port, certificate = unit.bmc.port, self.layout.certificates / f"{unit.name}.pem"
        server = network.inside(self.layout.bmcs, lambda: BmcServer(bmc, port, certificate))
        threading.Thread(target=server.serve_forever, name=f"bmc {unit.name}", daemon=True).start()
        self._servers.append(server)


def _tap(number: int) -> str:
    return f"tap{number}"


def _chassis(
    layout: Layout, rack: Rack, unit: Unit, number: int, firmware: Firmware, network_boot: NetworkBoot,
    architecture: Architecture, disk_bytes: int, say: Callable[[str], None],
) -> QemuChassis:  # fmt: skip
    host, places = _host(unit), layout.node(unit.name)
    if host.disk is None:
        raise UsageError(f"{unit.name} has no disk to boot from", "add `disk` to its host in the rack file")
    spec = MachineSpec(
        name=unit.name,
        serial=unit.serial,
        uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, unit.serial)),
        product=rack.profile.sku,
        mac=host.mac.lower(),
        tap=_tap(number),
        disk=places.disk,
        disk_serial=host.disk.serial,
        variables=places.folder / "firmware-variables.fd",
        firmware=firmware,
        network_boot=network_boot,
        architecture=architecture,
    )
    namespace = network.NAMESPACES / layout.switch
    group = ControlGroup(f"{layout.control_group}/{unit.name}")
    return QemuChassis(unit, rack.profile, spec, namespace, group, places.console, disk_bytes, say)


def _host(unit: Unit) -> Host:
    if unit.host is None:
        raise UsageError(f"{unit.name} has no host: it cannot be a machine", "add `host` to it in the rack file")
    return unit.host
