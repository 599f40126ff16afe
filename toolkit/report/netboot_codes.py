"""Codes of the network boot service."""

from __future__ import annotations

NETBOOT_CODES = {
    "ROGUE_DHCP": "Another DHCP server answers on the nodes' network. A node that listens to it boots what that server "
    "names, or nothing; what it writes is not ours. Find it by its hardware address and unplug it.",
}
