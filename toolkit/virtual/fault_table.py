"""The faults that are set on a virtual rack right now."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from toolkit.errors import UsageError
from toolkit.rack.model import Rack, UnitKind
from toolkit.virtual import switches
from toolkit.virtual.fabric import faults as fabric
from toolkit.virtual.fabric.wiring import has_fabric, planned
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.hardware import render_state
from toolkit.virtual.requirements import SEARCH_PATH


def check(rack: Rack, fault: Fault, others: Iterable[Fault] = ()) -> None:
    """Raises UsageError for a fault that this rack cannot have beside `others`: no such node, GPU, link, HCA or BMC."""
    if has_fabric(rack) and (fabric.applies(fault) or fault.kind in fabric.SUBNET_MANAGER_KINDS):
        _check_fabric(rack, fault, others)
        if fault.node in {unit.name for unit in rack.units if unit.kind in (UnitKind.LEAF, UnitKind.SPINE)}:
            return
    if fault.kind in switches.TROUBLES:
        switches.check(rack, fault)
        return
    unit = next((unit for unit in rack.nodes if unit.name == fault.node), None)
    if unit is None:
        names = ", ".join(unit.name for unit in rack.nodes)
        raise UsageError(f"fault {fault.kind}: rack {rack.name} has no node {fault.node!r}", f"it has {names}")
    if fault.kind is FaultKind.BMC_DEAD and unit.bmc is None:
        raise UsageError(f"fault {fault.kind}: {fault.node} has no BMC", "set it on a node that has one")
    if fault.kind is FaultKind.ROGUE_DHCP and shutil.which("nft", path=SEARCH_PATH) is None:
        raise UsageError(f"fault {fault.kind}: nft is missing", "apt-get install nftables")
    render_state(unit, rack.profile, (fault,))


def _check_fabric(rack: Rack, fault: Fault, others: Iterable[Fault]) -> None:
    """As the last of all the fabric's faults, in the order they are set."""
    fabric.faulty(planned(rack), [*(other for other in others if _place(other) != _place(fault)), fault])


class FaultTable:
    """Faults by place: a second one of the same kind on the same part replaces the first. Safe between threads."""

    def __init__(self, rack: Rack, changed: Callable[[str], None]) -> None:
        """`changed` is called with the node's name after each change, outside the table's lock."""
        self._rack = rack
        self._changed = changed
        self._lock = threading.Lock()
        self._faults: dict[Fault, Fault] = {}

    def set(self, fault: Fault) -> None:
        """Sets a fault; UsageError when the rack cannot have it."""
        check(self._rack, fault, self.all())
        with self._lock:
            self._faults.pop(_place(fault), None)  # what is set again counts as set last
            self._faults[_place(fault)] = fault
        self._changed(fault.node)

    def clear(self, node: str, kind: FaultKind | None = None) -> tuple[Fault, ...]:
        """Clears a node's faults, all or those of a kind; returns them. UsageError when there is none."""
        with self._lock:
            gone = tuple(f for f in self._faults.values() if f.node == node and kind in (None, f.kind))
            for fault in gone:
                del self._faults[_place(fault)]
        if not gone:
            known = ", ".join(fault.kind for fault in self.of(node))
            raise UsageError(f"{node} has no fault {kind or ''}".rstrip(), f"set on it: {known or 'none'}")
        self._changed(node)
        return gone

    def of(self, node: str) -> tuple[Fault, ...]:
        """Faults of a node, in the order they were set."""
        with self._lock:
            return tuple(fault for fault in self._faults.values() if fault.node == node)

    def all(self) -> tuple[Fault, ...]:
        """All faults, in the order they were set."""
        with self._lock:
            return tuple(self._faults.values())

    def has(self, node: str, kind: FaultKind) -> bool:
        """Whether the node has a fault of the kind."""
        return any(fault.kind is kind for fault in self.of(node))

    def spoil_download(self, node: str) -> bool:
        """Whether this download of an image by the node is to be spoiled: counts BAD_IMAGE down by one."""
        with self._lock:
            place = _place(Fault(FaultKind.BAD_IMAGE, node))
            fault = self._faults.get(place)
            if fault is None:
                return False
            left = (1 if fault.value is None else fault.value) - 1
            if left >= 1:
                self._faults[place] = replace(fault, value=left)
            else:
                del self._faults[place]
            return True


def _place(fault: Fault) -> Fault:
    return replace(fault, value=None, times=None)
