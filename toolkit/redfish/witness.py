"""A second witness for power: what a BMC shows of the boot, held against what it says of the power."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.redfish.bios import system_path
from toolkit.redfish.model import Power
from toolkit.redfish.text import printable
from toolkit.redfish.wire import Wire


def contradiction(wire: Wire, power: Power) -> str:
    """What speaks against this power state; empty where nothing does, also of a BMC that shows no boot progress.

    BootProgress.LastState is `None` for a machine that is off (DSP0268, ComputerSystem), and something else for one
    whose firmware has begun.
    """
    progress = wire.get(system_path(wire), "reading the boot progress").get("BootProgress")
    last = progress.get("LastState") if isinstance(progress, Mapping) else None
    if last is None:
        return ""
    if power is Power.ON and last == "None":
        return "the BMC says On, and its boot progress says that no firmware has begun"
    if power is Power.OFF and last != "None":
        return f"the BMC says Off, and its boot progress says {printable(last, 40)}"
    return ""
