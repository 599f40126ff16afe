"""One boot service: where it answers, and what it may spend."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from toolkit.errors import UsageError

IPXE = Path("/usr/lib/ipxe")  # where Debian's package `ipxe` has its programs
SOCKET = Path("/run/rackproof-netboot/socket")
SCRIPT_SUFFIX = ".ipxe"
HOSTS = "hosts"  # folders below the provisioning root: planned nodes, one file a rack,
OFFERS = "offers"  # boot scripts that are served once,
REPORTS = "reports"  # what nodes reported,
LOGS = "logs"  # and what their ramdisks wrote


class DhcpMode(StrEnum):
    """Who gives the nodes their addresses. PROXY: another DHCP server does, and ours adds only what to boot."""

    AUTHORITATIVE = "authoritative"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Limits:
    """What downloads may take of the wire; 0 is no limit.

    connection_bytes_per_s  of one download
    connections             downloads at the same time; one more is answered 503 with Retry-After
    """

    connection_bytes_per_s: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate (with its chain) and its key, both PEM, and the port that they are shown at."""

    certificate: Path
    key: Path
    port: int = 443


@dataclass(frozen=True, slots=True)
class BootSite:
    """A boot service of one in-band network.

    provision  document root; its folders are listed in this module
    address    its address, which nodes reach; `network` is theirs
    interface  where it listens for DHCP
    router     told to nodes; None where nothing outside the network is to be reached
    firmware   folder with iPXE's programs
    socket     UNIX socket between the web server and the service that decides
    hosts      folder with the planned nodes of each rack; None: `hosts` below the document root
    """

    provision: Path
    address: IPv4Address
    network: IPv4Network
    interface: str
    mode: DhcpMode = DhcpMode.AUTHORITATIVE
    port: int = 80
    router: IPv4Address | None = None
    firmware: Path = IPXE
    socket: Path = SOCKET
    limits: Limits = Limits()
    tls: Tls | None = None
    hosts: Path | None = None

    def __post_init__(self) -> None:
        if self.address not in self.network:
            raise UsageError(
                f"the boot service's address {self.address} is not in the nodes' network {self.network}",
                "give the network of its in-band interface",
            )

    @property
    def hosts_folder(self) -> Path:
        """Where the planned nodes are listed."""
        return self.hosts if self.hosts is not None else self.provision / HOSTS

    @property
    def url(self) -> str:
        """How nodes reach it; no slash at the end."""
        return f"http://{self.address}" if self.port == 80 else f"http://{self.address}:{self.port}"

    @property
    def script_url(self) -> str:
        """Boot script of whatever node asks: iPXE puts the MAC of the interface that it booted from into it."""
        return f"{self.url}/boot/${{netX/mac:hexhyp}}{SCRIPT_SUFFIX}"


def hyphenated(mac: str) -> str:
    """A MAC as file names and URLs have it: `52-54-00-66-00-01`."""
    return mac.lower().replace(":", "-")
