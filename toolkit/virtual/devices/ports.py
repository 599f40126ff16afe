"""InfiniBand ports of the node as its driver shows them, from what the rack's fabric says of them now.

    <hardware>/infiniband/HCA/ports/1/{state,phys_state,rate,lid,sm_lid}      in the words of /sys/class/infiniband

Where no fabric is (a test's folder, a rack without cables) a port is what the hardware state says: up at its rate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_STATES = {1: "Down", 2: "Initializing", 3: "Armed", 4: "Active"}
_DOWN, _POLLING, _ACTIVE, _LINK_UP = 1, "Polling", 4, "LinkUp"
_DOWN_RATE_GBIT = 10
_NO_LID = 65535


@dataclass(frozen=True)
class PortStatus:
    """A port now. `rate_gbit` is what it trained at, or a down port's nominal 10; `state` counts as in sysfs."""

    state: int
    physical: str
    rate_gbit: int
    lid: int
    sm_lid: int
    guid: str

    @property
    def state_name(self) -> str:
        """As ibstat says it."""
        return _STATES.get(self.state, "???")

    @property
    def active(self) -> bool:
        """Whether data goes through it."""
        return self.state == _ACTIVE


def folder_of(home: Path, hca: str) -> Path:
    """Where the port's files are."""
    return home / "infiniband" / hca / "ports/1"


def port_status(values: dict[str, str], home: Path, hca: str) -> PortStatus:
    """The only port of an HCA."""
    guid = values[f"hca.{hca}.guid"]
    folder = folder_of(home, hca)
    try:
        words = {name: (folder / name).read_text().strip() for name in ("state", "phys_state", "rate", "lid", "sm_lid")}
        guid = (folder / "guid").read_text().strip()
    except FileNotFoundError:
        return _without_fabric(values, hca, guid)
    rate = re.match(r"\d+", words["rate"])
    return PortStatus(
        int(words["state"].partition(":")[0]), words["phys_state"].partition(": ")[2], int(rate[0]) if rate else 0,
        int(words["lid"], 16) or _NO_LID, int(words["sm_lid"], 16), guid,
    )  # fmt: skip


def _without_fabric(values: dict[str, str], hca: str, guid: str) -> PortStatus:
    rate = int(values[f"hca.{hca}.rate_gbit"])
    if not rate:
        return PortStatus(_DOWN, _POLLING, _DOWN_RATE_GBIT, _NO_LID, 1, guid)
    return PortStatus(_ACTIVE, _LINK_UP, rate, int(values[f"hca.{hca}.lid"]), 1, guid)
