"""The hardware folder of a node: what its device stand-ins read, bound into the machine as /run/hardware."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from toolkit.rack.model import Profile, Unit
from toolkit.virtual.devices import state
from toolkit.virtual.faults import Fault
from toolkit.virtual.hardware import render_state


def lay_out(folder: Path, unit: Unit, profile: Profile) -> None:
    """Makes the folder with what never changes: serials and product name."""
    for name in ("load", "inforom"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name).chmod(0o777)  # services on the node that are not root count their GPUs' load too
    (folder / "kmsg").touch()
    (folder / "serial").write_text(f"{unit.serial}\n")
    (folder / "product").write_text(f"{profile.sku}\n")
    if unit.host is not None and unit.host.disk is not None:
        (folder / "disk-serial").write_text(f"{unit.host.disk.serial}\n")
        # As /sys/block tells it, which on a virtual node shows the disks of the machine that carries it.
        block = folder / "block/nvme0n1"
        block.mkdir(parents=True, exist_ok=True)
        (block / "serial").write_text(f"{unit.host.disk.serial}\n")
        (block / "wwid").write_text(f"{unit.host.disk.wwn}\n")


def write_state(folder: Path, unit: Unit, profile: Profile, faults: Sequence[Fault]) -> None:
    """Rewrites `state` atomically: a stand-in reads all of the old one or all of the new one."""
    aside = folder / "state.new"
    aside.write_text(render_state(unit, profile, faults))
    aside.replace(folder / "state")


def power_on(folder: Path) -> None:
    """A machine that powers on has an empty kernel log, and its GPUs and HCAs have moved nothing yet.

    Boards remember the rest. Rows that waited to be remapped now are.
    """
    os.truncate(folder / "kmsg", 0)
    for gpu in state.read(folder).gpus:
        gpu.reset()
    for counter in (folder / "load").iterdir():
        counter.unlink(missing_ok=True)
    for hca in state.read(folder).hcas:
        counters = folder / "infiniband" / hca / "ports/1/counters"
        counters.mkdir(parents=True, exist_ok=True)
        for name in ("port_xmit_data", "port_rcv_data"):
            (counters / name).write_text("0\n")
