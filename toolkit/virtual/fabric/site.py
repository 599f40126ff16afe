"""A virtual rack's fabric with the subnet managers that a site runs for it: what the rack's daemon holds."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from toolkit.rack.model import Rack
from toolkit.virtual.fabric.process import FabricProcess
from toolkit.virtual.fabric.subnet_manager import ManagerSpec, SubnetManager
from toolkit.virtual.fabric.tools import Tools
from toolkit.virtual.fabric.wiring import End, MemberKind, Wiring, adapter_name, planned
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.layout import Layout
from toolkit.virtual.network import NAMESPACES

# Managers of different keys do not yield to one another: that is how a fabric comes to have two masters.
_KEY, _OTHER_KEY = 1, 2
_PRIORITY = 15  # as UFM's: an opensm on a node stands by


class SiteFabric:
    """The fabric's process and its subnet managers. Safe between threads."""

    def __init__(self, layout: Layout, rack: Rack, tools: Tools) -> None:
        """Starts the fabric with all nodes off, and the site's manager: on the first spine, as on a managed switch."""
        self._layout = layout
        self._tools = tools
        self._plan = planned(rack)
        self._process = FabricProcess(layout)
        self._lock = threading.Lock()
        self._managers: dict[str, SubnetManager] = {}
        self._arrange(())

    def update(self, faults: Iterable[Fault], off: Iterable[str]) -> None:
        """Makes it what the faults say, with these nodes off. RackproofError when the fabric's process is gone."""
        with self._lock:
            said = tuple(faults)
            self._process.tell(said, off)
            self._arrange(said)

    def _arrange(self, faults: tuple[Fault, ...]) -> None:
        """Starts managers that are to run and stops the others."""
        wanted: dict[str, tuple[str, int]] = {}
        if not any(fault.kind is FaultKind.NO_SUBNET_MANAGER for fault in faults):
            wanted["site"] = (home_of_manager(self._plan), _KEY)
        for fault in faults:
            if fault.kind is FaultKind.SECOND_SUBNET_MANAGER:
                place = place_of_manager(self._plan, fault)
                wanted[f"second-{place.replace(' ', '-')}"] = (place, _OTHER_KEY)
        for name in self._managers.keys() - wanted.keys():
            self._managers.pop(name).stop()
        for name in wanted.keys() - self._managers.keys():
            self._managers[name] = self._start(name, *wanted[name])

    def _start(self, name: str, place: str, key: int) -> SubnetManager:
        folder: Path = self._layout.folder / f"subnet-manager-{name}"
        inside = NAMESPACES / self._layout.controller
        spec = ManagerSpec(
            self._tools, place, self._layout.tag, folder, inside, key=key, options=("-p", str(_PRIORITY))
        )
        return SubnetManager(spec)


def home_of_manager(plan: Wiring) -> str:
    """The switch that the site's manager runs on: the first that only joins switches, else the first of all."""
    adapters = {m.name for m in plan.members if m.kind is MemberKind.ADAPTER}
    leaves = {c.b.member for c in plan.cables if c.a.member in adapters}
    switches = [m.name for m in plan.members if m.kind is MemberKind.SWITCH]
    return next((name for name in switches if name not in leaves), switches[0])


def place_of_manager(plan: Wiring, fault: Fault) -> str:
    """Where a fault's manager runs: the switch it names, or the HCA (the first) of its node that has a cable."""
    names = {member.name for member in plan.members}
    if fault.node in names:
        return fault.node
    if fault.hca is not None:
        return adapter_name(fault.node, fault.hca)
    cabled = (m.name for m in plan.members if m.name.startswith(f"{fault.node} ") and plan.cable_at(End(m.name, 1)))
    return next(cabled)
