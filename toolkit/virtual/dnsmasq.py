"""DHCP of the in-band network: the boot service's dnsmasq in the controller's namespace."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.netboot import dnsmasq
from toolkit.netboot.hosts import write_hosts
from toolkit.netboot.site import BootSite
from toolkit.rack.model import Rack
from toolkit.virtual.layout import Layout
from toolkit.virtual.network import CONTROLLER_IN_BAND, IN_BAND, NAMESPACES
from toolkit.virtual.programs import environment

INTERFACE = "inband0"
_SETTLE_S = 0.2  # a configuration it cannot use ends it sooner


def boot_site(layout: Layout, provision: Path) -> BootSite:
    """The rack's boot service. Racks have networks of their own, with the same MACs: so each has its own hosts."""
    return BootSite(provision, CONTROLLER_IN_BAND, IN_BAND, INTERFACE, hosts=layout.folder / "hosts")


def start(layout: Layout, rack: Rack, provision: Path) -> None:
    """Starts dnsmasq, which lives as long as the caller's PID namespace. RackproofError when it gives up at once."""
    site = boot_site(layout, provision)
    write_hosts(site.hosts_folder, rack)
    config = layout.folder / "dnsmasq.conf"
    config.write_text(dnsmasq.configuration(site, layout.folder / "dnsmasq.pid", "root"))
    log = layout.folder / "dnsmasq.log"
    namespace = NAMESPACES / layout.controller
    argv = ["nsenter", f"--net={namespace}", "dnsmasq", "--keep-in-foreground", f"--conf-file={config}"]
    process = subprocess.Popen(
        [*argv, f"--log-facility={log}"], stdin=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    with suppress(subprocess.TimeoutExpired):
        status = process.wait(_SETTLE_S)
        raise RackproofError(f"dnsmasq ended with {status} at its start", f"see {log} and {layout.log}")
