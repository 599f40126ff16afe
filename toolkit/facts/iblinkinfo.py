r"""`iblinkinfo`: state, width and rate of every port of an InfiniBand fabric. Text in, `LinkInfo` out.

Both forms are read, as infiniband-diags 44 to 65 write them; ask for lines (-l): they name the other end by GUID.

    0x5c25730300a00000 "   MF0;leaf-1:MQM9700/U1"    2    5[  ] ==( 4X    106.25 Gbps Active/  LinkUp)==>  \
        0x946dae0300c00401   17    1[  ] "dgx-005 mlx5_0" ( )

An HCA's port goes by its own GUID and not its node's, so `SeenPort.guid` is the port's; `fabric_join` puts that right.
In blocks the other end has a LID only: it is looked up among the ports of the same text, and is None where two have it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from toolkit.facts.fabric_ends import Key, named
from toolkit.facts.fabric_text import Doubts, decoded, full_guid, lines, shown
from toolkit.judge.fabric.seen import PortState, SeenPort

MAX_PORTS = 1_048_576
_PORT = re.compile(
    r'\s{0,16}(?:0x([0-9a-fA-F]{16}) )?(?:"(.*)")?\s{0,16}(\d{1,5})\s{1,8}(\d{1,3})\[[^\]]{0,24}\] '
    r"==\((.{1,160}?)\)==>\s{0,16}(.*)"
)
_LINK = re.compile(
    r"\s{0,32}(?:(?:(\d{1,2})X|undefined \(\d{1,3}\))\s{1,32}"
    r"(?:(\d{1,4}(?:\.\d{1,6})?) Gbps( \(FDR10\))?|No Extended Speed|undefined \(\d{1,3}\))\s{1,16})?"
    r"([A-Z][A-Za-z]{1,24}|\?\(\d{1,3}\))/\s{0,16}([A-Z][A-Za-z]{1,32}|\?\(\d{1,3}\))"
    r"(?:\) \(HOQ:\d{1,4} VL_Stall:\d{1,4})?"
)
_PEER = re.compile(r'(?:0x([0-9a-fA-F]{16})\s{1,16})?(\d{1,5})\s{1,8}(\d{1,3})\[[^\]]{0,24}\] ".*" \((.*)\)\s{0,8}')
_NOBODY = re.compile(r'\[[^\]]{0,24}\] "" \( \)\s{0,8}')
_SILENT = '"Port not available"'
_HEADER = re.compile(r"(?:(Switch|Router|CA): 0x([0-9a-fA-F]{16}) (.*)|(CA|Router): (.*)):")
_DOWN = "Down"
_FDR10 = 10.3125  # Gbit/s of a lane; the tool prints 10.0


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """Every port that was shown. `silent`: up, with something behind it that did not answer."""

    ports: tuple[PortState, ...]
    doubts: tuple[str, ...] = ()
    silent: tuple[SeenPort, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Ports in the order printed, and how many are in which state."""
        return {
            "ports": [
                {
                    "guid": p.port.guid,
                    "port": p.port.number,
                    "state": p.state,
                    "physical_state": p.physical,
                    "lanes": p.lanes,
                    "gbit_per_lane": p.gbit_per_lane,
                    "lid": p.lid,
                    "peer": None if p.peer is None else {"guid": p.peer.guid, "port": p.peer.number},
                    "could_be": p.could_be,
                }
                for p in self.ports
            ],
            "states": dict(sorted(Counter(p.state for p in self.ports).items())),
            "silent": [f"{p.guid}[{p.number}]" for p in self.silent],
            "doubts": list(self.doubts),
        }


class _Link(NamedTuple):
    """State, width and rate of a port, as in PortState."""

    state: str
    physical: str
    lanes: int | None
    gbit_per_lane: float | None


@dataclass(slots=True)
class _Reading:
    doubts: Doubts = field(default_factory=Doubts)
    ports: dict[Key, PortState] = field(default_factory=dict)
    by_lid: dict[int, dict[str, None]] = field(default_factory=dict)
    waiting: dict[Key, Key] = field(default_factory=dict)  # of a block: port -> (LID, port number) of its peer
    silent: list[Key] = field(default_factory=list)
    switches: set[str] = field(default_factory=set)
    header: str = ""


def parse(text: bytes | str) -> LinkInfo:
    """The ports as far as the text shows them. Never raises; what it could not take for certain is in `doubts`."""
    reading = _Reading()
    for line in lines(decoded(text, reading.doubts), reading.doubts):
        _read(line, reading)
    _resolve(reading)
    _doubt(reading)
    return LinkInfo(
        tuple(reading.ports.values()), reading.doubts.all(), tuple(SeenPort(*port) for port in reading.silent)
    )


def _read(line: str, reading: _Reading) -> None:
    count = line.count("==(")
    link = port = None
    if count == 1 and (port := _PORT.fullmatch(line)):
        link = _link(port[5])
    if port and link:
        _read_port(port, link, line, reading)
    elif line.startswith(("< ", "> ")):
        reading.doubts.add("lines of a difference (--diff), which shows no fabric", shown(line))
    elif not count and (header := _HEADER.fullmatch(line)):
        reading.header = full_guid(header[2]) if header[2] else ""
    elif line.strip() and not line.startswith("#"):
        reading.doubts.add_line(line)


@lru_cache(maxsize=4096)  # a fabric has a handful of different ones
def _link(text: str) -> _Link | None:
    """What stands between the ends; None where it is not understood."""
    found = _LINK.fullmatch(text)
    if found is None:
        return None
    lanes, rate, fdr10, state, physical = found.groups()
    if state == _DOWN:  # the standard leaves the other fields of a port that is down open (C14-24.2.1)
        return _Link(state, physical, None, None)
    lane_rate = None if rate is None else (_FDR10 if fdr10 else float(rate))
    return _Link(state, physical, None if lanes is None else int(lanes), lane_rate)


def _read_port(port: re.Match[str], link: _Link, line: str, reading: _Reading) -> None:
    own, _, lid, number, _, end = port.groups()
    guid = full_guid(own) if own else reading.header
    key = (guid, int(number))
    if not guid:
        reading.doubts.add("ports without the node they are on", shown(line))
        return
    if key in reading.ports or len(reading.ports) >= MAX_PORTS:
        wrong = "ports shown twice" if key in reading.ports else f"more than {MAX_PORTS:,} ports"
        reading.doubts.add(wrong, shown(line))
        return
    if link.state != _DOWN and (link.lanes is None or link.gbit_per_lane is None):
        reading.doubts.add("ports that are up with no width or no rate", shown(line))
    peer, could_be = _peer(end, key, line, reading)
    reading.ports[key] = PortState(
        SeenPort(*key), link.state, link.physical, link.lanes, link.gbit_per_lane, int(lid) or None, peer, could_be
    )
    reading.by_lid.setdefault(int(lid), {})[guid] = None


def _peer(text: str, key: Key, line: str, reading: _Reading) -> tuple[SeenPort | None, str]:
    if _NOBODY.fullmatch(text):
        return None, ""
    if text.strip() == _SILENT:
        reading.silent.append(key)
        reading.doubts.add("ports that are up, with something behind them that did not answer", named(key))
        return None, ""
    found = _PEER.fullmatch(text)
    if found is None:
        reading.doubts.add("ends that were not understood", shown(line))
        return None, ""
    guid, lid, number, could_be = found.groups()
    if guid:
        return SeenPort(full_guid(guid), int(number)), could_be.strip()
    reading.waiting[key] = (lid, int(number))
    return None, could_be.strip()


def _resolve(reading: _Reading) -> None:
    """Ends that have a LID only. HCA ports have LIDs of their own; a switch has one for all its ports."""
    for key, (lid, number) in reading.waiting.items():
        guids = [g for g in reading.by_lid.get(int(lid), ()) if (g, number) in reading.ports]
        if len(guids) == 1:
            reading.ports[key] = replace(reading.ports[key], peer=SeenPort(guids[0], number))
        else:
            reading.doubts.add("ends whose LID none has, or two have", f"{named(key)} - LID {lid} port {number}")


def _doubt(reading: _Reading) -> None:
    """What a whole output cannot have: an end that is not shown, ports of a switch with gaps between them."""
    if not reading.ports:
        reading.doubts.add("no port in it: not the output of iblinkinfo, or nothing answered")
    for key, state in reading.ports.items():
        if state.peer is None:
            continue
        back = reading.ports.get((state.peer.guid, state.peer.number))
        if back is None or back.peer != state.port:
            ends = f"{named(key)} - {state.peer.guid}[{state.peer.number}]"
            reading.doubts.add("links that one end tells of and the other does not", ends)
    for guid, missing in _gaps(reading.ports):
        reading.doubts.add("switches of which not every port is shown (--down shows only some)", f"{guid}[{missing}]")


def _gaps(ports: dict[Key, PortState]) -> Iterator[tuple[str, int]]:
    """Switches show all their ports from the first on; an HCA's GUID here is of one port."""
    shown_ports: dict[str, set[int]] = {}
    for guid, number in ports:
        shown_ports.setdefault(guid, set()).add(number)
    for guid, numbers in shown_ports.items():
        if len(numbers) > 1 and len(numbers) != max(numbers):
            yield guid, next(n for n in range(1, max(numbers) + 1) if n not in numbers)
