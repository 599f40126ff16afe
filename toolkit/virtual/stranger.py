"""The fault `rogue_dhcp`: a stranger's DHCP server on the in-band network, whom a node believes before it hears ours.

stranger  eth0 10.66.250.1, MAC 52:54:00:99:00:99: dnsmasq that answers the misled nodes, with a boot file of its own

Which of two servers a node hears first is chance. Here it is the stranger, always: what our server offers to a misled
node is dropped on its way out. Nothing answers at the boot file's address; whoever goes there finds nobody.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.netboot.probe import DhcpServer
from toolkit.virtual import network
from toolkit.virtual.layout import Layout
from toolkit.virtual.programs import environment, run

ADDRESS, HARDWARE = "10.66.250.1", "52:54:00:99:00:99"
FIRST, LAST, NETMASK = "10.66.240.1", "10.66.240.99", str(network.IN_BAND.netmask)
BOOT_FILE = f"http://{ADDRESS}/owned.ipxe"
STRANGER = DhcpServer(ADDRESS, HARDWARE, FIRST, BOOT_FILE)  # as a probe finds it
_PORT = "stranger"  # of the in-band bridge
_TABLE = "rackproof_stranger"
_SETTLE_S = 0.2  # a dnsmasq that cannot serve ends sooner
_ENDS_S = 5.0
# An offer is a UDP datagram to port 68; the client's hardware address stands 28 bytes into its payload (RFC 2131).
_CHADDR_BITS = "@th,288,48"


class Stranger:
    """The one server of a rack. Not safe between threads."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._misled: frozenset[str] = frozenset()
        self._server: subprocess.Popen[bytes] | None = None

    def mislead(self, macs: Iterable[str]) -> None:
        """From now on it answers these nodes and no others; none: it is gone. RackproofError where it cannot start."""
        wanted = frozenset(mac.lower() for mac in macs)
        if wanted == self._misled:
            return
        if self._misled:
            self._leave()
        if wanted:
            self._come(sorted(wanted))
        self._misled = wanted

    def _come(self, macs: Sequence[str]) -> None:
        layout = self._layout
        run(["ip", "netns", "add", layout.stranger])
        peer = ["peer", "name", "eth0", "address", HARDWARE, "netns", layout.stranger]
        run(["ip", "-n", layout.switch, "link", "add", _PORT, "type", "veth", *peer])
        run(["ip", "-n", layout.switch, "link", "set", _PORT, "master", "inband", "up"])
        run(["ip", "-n", layout.stranger, "address", "add", f"{ADDRESS}/{network.IN_BAND.prefixlen}", "dev", "eth0"])
        run(["ip", "-n", layout.stranger, "link", "set", "eth0", "up"])
        config = layout.folder / "stranger.conf"
        config.write_text(_configuration(macs, layout.folder / "stranger.log"))
        self._server = _start(layout.stranger, config)
        run(["nsenter", f"--net={network.NAMESPACES / layout.controller}", "nft", "-f", "-"], _unheard(macs))

    def _leave(self) -> None:
        run(
            ["nsenter", f"--net={network.NAMESPACES / self._layout.controller}", "nft", "delete", "table", "ip", _TABLE]
        )
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            self._server.wait(_ENDS_S)
            self._server = None
        network.remove(self._layout.stranger)  # the wire goes with it


def _configuration(macs: Sequence[str], log: Path) -> str:
    hosts = (f"dhcp-host={mac}" for mac in macs)
    return "\n".join(
        (
            "port=0", "interface=eth0", "bind-interfaces", "no-ping", "leasefile-ro", "user=root", "pid-file=",
            f"dhcp-range={FIRST},{LAST},{NETMASK}", "dhcp-authoritative", "dhcp-ignore=tag:!known",
            f"dhcp-boot={BOOT_FILE}", f"log-facility={log}", *hosts, "",
        )
    )  # fmt: skip


def _unheard(macs: Sequence[str]) -> str:
    """nftables: what our DHCP server says to these nodes is dropped."""
    numbers = ", ".join(f"0x{mac.replace(':', '')}" for mac in macs)
    rule = f"udp sport 67 udp dport 68 {_CHADDR_BITS} {{ {numbers} }} drop"
    return f"table ip {_TABLE} {{\nchain out {{\ntype filter hook output priority 0;\n{rule}\n}}\n}}\n"


def _start(namespace: str, config: Path) -> subprocess.Popen[bytes]:
    argv = ["nsenter", f"--net={network.NAMESPACES / namespace}", "dnsmasq", "--keep-in-foreground"]
    process = subprocess.Popen(
        [*argv, f"--conf-file={config}"], stdin=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    with suppress(subprocess.TimeoutExpired):
        status = process.wait(_SETTLE_S)
        raise RackproofError(f"the stranger's dnsmasq ended with {status} at its start", f"see {config}")
    return process
