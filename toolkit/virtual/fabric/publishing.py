"""Tells every virtual node what became of its ports: files in its hardware folder, in the words of sysfs.

`toolkit.virtual.devices.ports` reads them. Data that stand-ins move is told the other way, by counters in the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from toolkit.virtual.devices.ports import folder_of
from toolkit.virtual.fabric.model import FabricModel, PortModel, PortState
from toolkit.virtual.fabric.wiring import MemberKind

_SETTLE_S = 0.05  # a sweep changes a port several times: written once
_PHYSICAL = {2: "Polling", 3: "Disabled", 5: "LinkUp"}
_STATES = {1: "DOWN", 2: "INIT", 3: "ARMED", 4: "ACTIVE"}
_DOWN_RATE_GBIT = 10


class Publisher:
    """Writes the ports of a fabric's adapters into their nodes' hardware folders."""

    def __init__(self, fabric: FabricModel, folders: Mapping[str, Path]) -> None:
        """`folders` are hardware folders by unit."""
        self._fabric = fabric
        self._folders = folders
        self._waiting: set[PortModel] = set()
        for node in fabric.nodes.values():
            unit, _, hca = node.member.name.partition(" ")
            if node.member.kind is MemberKind.ADAPTER and unit in folders:
                node.own.counters.traffic = _Traffic(folder_of(folders[unit], hca) / "counters")
                self._write(node.own)
            for port in node.ports[1:] if node.is_switch else ():
                port.counters.traffic = _Seen(port)

    def changed(self, port: PortModel) -> None:
        """Will be written soon."""
        if port.node.is_switch:
            return
        if not self._waiting:
            self._fabric.after(_SETTLE_S, self._flush)
        self._waiting.add(port)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for port in waiting:
            self._write(port)

    def _write(self, port: PortModel) -> None:
        unit, _, hca = port.node.member.name.partition(" ")
        if unit not in self._folders:
            return
        folder = folder_of(self._folders[unit], hca)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self._files(port).items():
            aside = folder / f".{name}.new"
            aside.write_text(f"{text}\n")
            aside.replace(folder / name)

    def _files(self, port: PortModel) -> Mapping[str, str]:
        width = int(port.lanes * port.speed.data_gbit)
        rate = f"{width} Gb/sec ({port.lanes}X {port.speed.name})" if port.up else f"{_DOWN_RATE_GBIT} Gb/sec (4X SDR)"
        return {
            "guid": f"0x{port.node.guid:016x}",
            "phys_state": f"{port.physical.value}: {_PHYSICAL[port.physical]}",
            "rate": rate,
            "lid": f"0x{port.lid if port.up else 0:x}",
            "sm_lid": f"0x{port.sm_lid if port.state > PortState.INITIALIZE else 0:x}",
            "state": f"{port.state.value}: {_STATES[port.state]}",
        }


class _Traffic:
    """Words sent and received, as the node's stand-ins count them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self) -> tuple[int, int]:
        sent, received = (self._read(name) for name in ("port_xmit_data", "port_rcv_data"))
        return sent, received

    def _read(self, name: str) -> int:
        with suppress(FileNotFoundError, ValueError):  # ValueError: just being written
            return int((self._folder / name).read_text())
        return 0


class _Seen:
    """What the adapter at a switch port's other end counts, seen from there."""

    def __init__(self, port: PortModel) -> None:
        self._port = port

    def __call__(self) -> tuple[int, int]:
        peer = self._port.peer
        if peer is None or peer.node.is_switch or peer.counters.traffic is None:
            return 0, 0
        sent, received = peer.counters.traffic()
        return received, sent
