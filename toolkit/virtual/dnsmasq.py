"""DHCP of the in-band network: dnsmasq in the controller's namespace, each node known by its MAC."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.rack.model import Rack, Unit
from toolkit.virtual.layout import Layout
from toolkit.virtual.network import CONTROLLER_IN_BAND, IN_BAND, NAMESPACES
from toolkit.virtual.programs import environment

_LEASE_S = 3600
_SETTLE_S = 0.2  # a configuration it cannot use ends it sooner


def boot_script_url(mac: str) -> str:
    """Where a node's boot script is, by its MAC."""
    return f"http://{CONTROLLER_IN_BAND}/boot/{mac.lower().replace(':', '-')}.ipxe"


def configuration(rack: Rack, pid_file: Path) -> str:
    """dnsmasq.conf: no DNS, no unknown clients, a boot script for those that say they are iPXE."""
    lines = [
        "port=0",
        "interface=inband0",
        "bind-interfaces",
        "dhcp-authoritative",
        "no-ping",
        "leasefile-ro",
        "user=root",
        f"pid-file={pid_file}",
        f"dhcp-range={IN_BAND.network_address},static,{IN_BAND.netmask},{_LEASE_S}",
        "dhcp-option=3",  # no router: nothing outside the rack can be reached
        "dhcp-userclass=set:ipxe,iPXE",
    ]
    for unit in rack.nodes:
        lines += _host(unit)
    return "\n".join(lines) + "\n"


def _host(unit: Unit) -> tuple[str, ...]:
    if unit.host is None:
        return ()
    mac = unit.host.mac.lower()
    return (
        f"dhcp-host={mac},set:{unit.name},{unit.host.address}",
        f"dhcp-boot=tag:ipxe,tag:{unit.name},{boot_script_url(mac)}",
    )


def start(layout: Layout, rack: Rack) -> None:
    """Starts dnsmasq, which lives as long as the caller's PID namespace. RackproofError when it gives up at once."""
    config = layout.folder / "dnsmasq.conf"
    config.write_text(configuration(rack, layout.folder / "dnsmasq.pid"))
    log = layout.folder / "dnsmasq.log"
    namespace = NAMESPACES / layout.controller
    argv = ["nsenter", f"--net={namespace}", "dnsmasq", "--keep-in-foreground", f"--conf-file={config}"]
    process = subprocess.Popen(
        [*argv, f"--log-facility={log}"], stdin=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    with suppress(subprocess.TimeoutExpired):
        status = process.wait(_SETTLE_S)
        raise RackproofError(f"dnsmasq ended with {status} at its start", f"see {log} and {layout.log}")
