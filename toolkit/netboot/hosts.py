"""The planned nodes of each rack, as dnsmasq reads them while it runs (`dhcp-hostsdir`) and as the service does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from toolkit.durable import write_whole
from toolkit.errors import UsageError
from toolkit.rack.model import Rack

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LINE = re.compile(r"(?P<mac>[0-9a-f:]{17}),(?P<address>[0-9.]{7,15})")
_RACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Planned:
    """A node that may boot: its address, and the rack whose file says so."""

    address: str
    rack: str


def host_lines(rack: Rack) -> str:
    """The rack's nodes, one `dhcp-host` a line. Raises UsageError for a MAC or an address that is none."""
    lines = []
    for unit in rack.nodes:
        if unit.host is None or not unit.host.mac:
            continue  # rented: somebody else boots it
        mac = unit.host.mac.lower()
        if not _MAC.fullmatch(mac):
            raise UsageError(f"{rack.name}: {unit.name}: {mac!r} is no MAC address", "correct `mac` in the rack file")
        lines.append(f"{mac},{_address(rack, unit.name, unit.host.address)}\n")
    return "".join(lines)


def _address(rack: Rack, unit: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise UsageError(
            f"{rack.name}: {unit}: {text!r} is no IPv4 address, which DHCP could give it",
            "give `host.address` as an address",
        ) from error


def hosts_file(folder: Path, rack: str) -> Path:
    """Where a rack's nodes are listed; `folder` is one of a boot service's, with a file a rack."""
    if not _RACK.fullmatch(rack):
        raise UsageError(f"{rack!r} is no rack's name", "letters, digits, '.', '_' and '-'")
    return folder / rack


def write_hosts(folder: Path, rack: Rack) -> bool:
    """Lets the rack's nodes boot; whether that changed anything. Other racks' files are not touched.

    A running dnsmasq sees new nodes at once. What became of a known one, as another MAC at its address, it takes when
    it is told to read its files again.

    Raises UsageError where another rack has one of its MACs or addresses.
    """
    text, file = host_lines(rack), hosts_file(folder, rack.name)
    others = {mac: known for mac, known in planned(folder).items() if known.rack != rack.name}
    taken = {known.address: known.rack for known in others.values()}
    for match in _LINE.finditer(text):
        mac, address = match["mac"], match["address"]
        if mac in others or address in taken:
            rival = others[mac].rack if mac in others else taken[address]
            raise UsageError(
                f"{rack.name}: {mac} or {address} is a node of rack {rival} too",
                f"correct one of the rack files, or `rackproof netboot forget {rival}` if that rack is gone",
            )
    if file.is_file() and file.read_text() == text:
        return False
    # Beside the folder: dnsmasq would read the file twice, once when it is renamed and once when it is closed.
    aside = folder.with_name(f".{folder.name}.{rack.name}")
    write_whole(aside, text.encode())
    folder.mkdir(exist_ok=True)
    aside.replace(file)
    return True


def forget_hosts(folder: Path, rack: str) -> bool:
    """Nodes of the rack may boot no longer; whether they could. dnsmasq forgets them when it reads its files again."""
    file = hosts_file(folder, rack)
    there = file.is_file()
    file.unlink(missing_ok=True)
    return there


def planned(folder: Path) -> Mapping[str, Planned]:
    """All nodes that may boot, by MAC with colons."""
    found: dict[str, Planned] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not _RACK.fullmatch(file.name):
            continue  # one that is being written
        try:
            with file.open("rb") as stream:
                text = stream.read(_MAX_BYTES).decode("ascii", "replace")
        except FileNotFoundError:
            continue  # forgotten just now
        found |= {m["mac"]: Planned(m["address"], file.name) for m in _LINE.finditer(text)}
    return found
