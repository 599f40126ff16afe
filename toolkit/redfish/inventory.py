"""Firmware that a BMC says is installed: UpdateService/FirmwareInventory (DSP0268, SoftwareInventory)."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import UndecidedError
from toolkit.redfish.text import printable
from toolkit.redfish.wire import ROOT, Wire, each, last, link


@dataclass(frozen=True, slots=True)
class Component:
    """One firmware. `version` is empty where the BMC names none; `path` is what an update targets."""

    id: str
    version: str
    updateable: bool
    path: str


def read_inventory(wire: Wire) -> tuple[Component, ...]:
    """Every firmware the BMC lists, by id. UndecidedError where it lists none: that is no inventory."""
    doing = "reading the firmware inventory"
    service = link(wire.get(ROOT, doing), "UpdateService") or f"{ROOT}/UpdateService"
    place = link(wire.get(service, doing), "FirmwareInventory") or f"{service}/FirmwareInventory"
    found = [
        Component(last(path), printable(one.get("Version")), one.get("Updateable") is True, path)
        for path, one in each(wire, place, doing)
    ]
    if not found:
        raise UndecidedError(f"BMC {wire.url}: {doing}: it lists no firmware", f"look at {place}")
    return tuple(sorted(found, key=lambda component: component.id))
