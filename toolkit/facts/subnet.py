"""Subnet managers, P_Keys and one port's counters, as infiniband-diags print them, and what opensm logs of its fabric.

    sminfo: sm lid 1 sm guid 0x946dae0300c00001, activity count 35187 priority 14 state 3 SMINFO_MASTER      sminfo
    SMInfoRecord dump: ...                                                                                saquery SMIR
       0: 0xffff 0x8001 0x0000 0x0000 0x0000 0x0000 0x0000 0x0000                                        smpquery pkeys
    SymbolErrorCounter:..............4242                                                         perfquery, smpquery PI
    ... 0x81 -> report_duplicated_guid: ERR 0D01: Found duplicated node GUID.                                     opensm

`sminfo` asks one manager, the master of the port it is run on; `saquery SMIR` has all that the master knows of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolkit.facts.fabric_text import Doubts, decoded, full_guid, lines, shown
from toolkit.judge.fabric.seen import SubnetManager

MAX_KEPT = 1024
_STATES = {0: "NOTACTIVE", 1: "DISCOVERING", 2: "STANDBY", 3: "MASTER"}  # SMInfo.SMState
_SMINFO = re.compile(
    r"sminfo: sm lid (\d{1,5}) sm guid 0x([0-9a-fA-F]{1,16}), activity count \d{1,10}"
    r" priority (\d{1,2}) state (\d{1,2})(?: \w{1,24})?"
)
_RECORD = "SMInfoRecord dump:"
_DOTTED = re.compile(r"\s{0,32}([A-Za-z][\w ]{0,40}):?\.{1,48}(.{0,120}?)\s{0,8}")
_HEADING = re.compile(r"# .{1,80}?: Lid (\d{1,5})(?: port (\d{1,3}))?(?: .*)?")
_FLAG = re.compile(r"\t\t\t\t?\w{1,64}")  # a capability under CapMask
_KEYS = re.compile(r"\s{0,8}(\d{1,5}):((?: 0x[0-9a-fA-F]{4}){8})\s{0,8}")
_CAPACITY = re.compile(r"(\d{1,5}) pkeys capacity for this port\s{0,8}")
_DUPLICATED = re.compile(r"ERR 0D01: Found duplicated node GUID")
_REACHED = re.compile(
    r"Node 0x([0-9a-fA-F]{1,16}) port (\d{1,3}) is reachable from remote node 0x([0-9a-fA-F]{1,16}) port (\d{1,3})"
    r" and remote node 0x([0-9a-fA-F]{1,16}) port (\d{1,3})"
)
_ENTERING = re.compile(r"Entering (\w{1,16}) state")


@dataclass(frozen=True, slots=True)
class Managers:
    """The subnet managers that were shown."""

    managers: tuple[SubnetManager, ...]
    doubts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """In the order printed; `masters` is how many say they are."""
        return {
            "managers": [
                {"guid": m.guid, "lid": m.lid, "priority": m.priority, "state": m.state} for m in self.managers
            ],
            "masters": sum(m.state == "MASTER" for m in self.managers),
            "doubts": list(self.doubts),
        }


@dataclass(frozen=True, slots=True)
class Keys:
    """A port's P_Key table in its order, zero entries left out, and how many it can hold."""

    pkeys: tuple[int, ...]
    capacity: int | None
    doubts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Keys as the tool writes them. `full_member_of`: those with bit 15; every port has the default one, 0xffff."""
        return {
            "pkeys": [f"0x{key:04x}" for key in self.pkeys],
            "full_member_of": [f"0x{key:04x}" for key in self.pkeys if key & 0x8000],
            "capacity": self.capacity,
            "doubts": list(self.doubts),
        }


@dataclass(frozen=True, slots=True)
class Fields:
    """`Name:.....value` lines under one heading: a port's counters, a port's or a node's description."""

    lid: int | None
    port: int | None
    values: tuple[tuple[str, str], ...]
    doubts: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """The values that are plain numbers, but for what the query itself was."""
        return tuple(
            (name, int(value))
            for name, value in self.values
            if value.isascii() and value.isdecimal() and name not in ("PortSelect", "CounterSelect", "CounterSelect2")
        )

    def as_json(self) -> dict[str, Any]:
        """Values as printed."""
        return {"lid": self.lid, "port": self.port, "values": dict(self.values), "doubts": list(self.doubts)}


@dataclass(frozen=True, slots=True, order=True)
class Duplicate:
    """A node GUID that opensm reached on two ways. `at`: the two ports, as (node GUID, port number)."""

    guid: str
    at: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ManagerLog:
    """What opensm logged. `states`: the ones it entered, in order. A log tells what was, not what is."""

    duplicates: tuple[Duplicate, ...]
    states: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Every duplicated GUID once."""
        return {
            "duplicates": [{"guid": d.guid, "at": [f"{g}[{p}]" for g, p in d.at]} for d in self.duplicates],
            "states": list(self.states),
            "doubts": list(self.doubts),
        }


def parse_sminfo(text: bytes | str) -> Managers:
    """`sminfo` and `saquery SMIR`, of one port or of many one after the other. Never raises."""
    doubts, found = Doubts(), dict[tuple[str, int | None], SubnetManager]()
    record: dict[str, str] | None = None
    for line in lines(decoded(text, doubts), doubts):
        if line.strip() == _RECORD:
            _close_record(record, found, doubts)
            record = {}
        elif told := _SMINFO.fullmatch(line):
            _keep(_manager(told[2], told[1], told[3], told[4]), found, doubts)
        elif record is not None and line[:1].isspace():
            if value := _DOTTED.fullmatch(line):
                record[value[1]] = value[2]
        elif line and not line.isspace() and not line.startswith("#"):
            doubts.add_line(line)
    _close_record(record, found, doubts)
    if not found:
        doubts.add("no subnet manager in it: not the output of sminfo, or none answered")
    return Managers(tuple(found.values()), doubts.all())


def _close_record(
    record: dict[str, str] | None, found: dict[tuple[str, int | None], SubnetManager], doubts: Doubts
) -> None:
    if record is None:
        return
    guid = record.get("GUID", "")
    numbers = [record.get(name, "") for name in ("LID", "Priority", "SMState")]
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", guid) and all(re.fullmatch(r"\d{1,5}", n) for n in numbers):
        _keep(_manager(guid[2:], *numbers), found, doubts)
    else:
        doubts.add("a record that is not whole", shown(guid))


def _manager(guid: str, lid: str, priority: str, state: str) -> SubnetManager:
    return SubnetManager(full_guid(guid), int(lid), int(priority), _STATES.get(int(state), f"state {int(state)}"))


def _keep(manager: SubnetManager, found: dict[tuple[str, int | None], SubnetManager], doubts: Doubts) -> None:
    """A manager that several ports tell of is one; one that they tell differently of changed on the way."""
    if len(found) >= MAX_KEPT:
        doubts.add(f"more than {MAX_KEPT:,} subnet managers")
    elif (kept := found.setdefault((manager.guid, manager.lid), manager)) != manager:
        doubts.add("a subnet manager that changed on the way", f"{kept.guid}: {kept.state}, then {manager.state}")


def parse_pkeys(text: bytes | str) -> Keys:
    """`smpquery pkeys` of one port. Never raises; a table that is not whole is a doubt."""
    doubts, table, capacity = Doubts(), dict[int, list[int]](), None
    for line in lines(decoded(text, doubts), doubts):
        if row := _KEYS.fullmatch(line):
            if int(row[1]) in table:
                doubts.add("more than one table")
            table[int(row[1])] = [int(key, 16) for key in row[2].split()]
        elif size := _CAPACITY.fullmatch(line):
            capacity = int(size[1])
        elif line and not line.isspace():
            doubts.add_line(line)
    # rows of eight; the last may be padded
    if capacity is None or sorted(table) != list(range(0, capacity, 8)):
        doubts.add("the table is not whole")
    keys = [key for at in sorted(table) for key in table[at] if key]
    return Keys(tuple(keys), capacity, doubts.all())


def parse_fields(text: bytes | str) -> Fields:
    """`perfquery` [-x] and `smpquery portinfo|nodeinfo` of one port. Never raises."""
    doubts, values, heading = Doubts(), dict[str, str](), None
    for line in lines(decoded(text, doubts), doubts):
        if found := _HEADING.fullmatch(line):
            if heading is not None:
                doubts.add("more than one port's: give one")
            heading = heading or found
        elif (field := _DOTTED.fullmatch(line)) and len(values) < MAX_KEPT:
            values.setdefault(field[1], field[2])
        elif line and not line.isspace() and not _FLAG.fullmatch(line):
            doubts.add_line(line)
    if heading is None or not values:
        doubts.add("no field in it: not the output of perfquery or smpquery, or the port did not answer")
    lid = int(heading[1]) if heading else None
    port = int(heading[2]) if heading and heading[2] else None
    return Fields(lid, port, tuple(values.items()), doubts.all())


def parse_opensm_log(text: bytes | str) -> ManagerLog:
    """opensm's log: duplicated GUIDs and the states it went through. Never raises; other lines are its business."""
    doubts, duplicates, states = Doubts(), dict[Duplicate, None](), list[str]()
    waiting = 0
    for line in lines(decoded(text, doubts), doubts):
        waiting = max(0, waiting - 1)
        if entering := _ENTERING.search(line):
            states = [*states[-(MAX_KEPT - 1) :], entering[1]]
        if _DUPLICATED.search(line):
            waiting = 2
        elif waiting and (reached := _REACHED.search(line)) and len(duplicates) < MAX_KEPT:
            ends = ((full_guid(reached[3]), int(reached[4])), (full_guid(reached[5]), int(reached[6])))
            duplicates[Duplicate(full_guid(reached[1]), tuple(sorted(ends)))] = None
    return ManagerLog(tuple(duplicates), tuple(states), doubts.all())


def duplicated(log: ManagerLog) -> Iterable[str]:
    """The GUIDs themselves, each once, for `Discovery.duplicates`."""
    return dict.fromkeys(duplicate.guid for duplicate in log.duplicates)
