"""`ibqueryerrors`: counters of the ports of a fabric. Text in, `Counts` out.

    Errors for 0x5c25730300a00000 "MF0;leaf-1:MQM9700/U1"
       GUID 0x5c25730300a00000 port 10: [SymbolErrorCounter == 4242] [PortXmitData == 12672 (49.500KB)]
    ## Summary: 267 nodes checked, 2 bad nodes found
    ##          1024 ports checked, 3 ports have errors beyond threshold

Two outputs make a whole snapshot: without --counters it shows the errors, of ports that have any above a threshold;
with it, the data and packets of every port. `above` is the largest value that an error counter can have without being
shown: 0 for all of them with `--threshold-file /dev/null`; a site's own file may hide more. The summary comes last, so
an output without it was cut. Lifetime values: only a difference of two snapshots says anything.

An HCA's port goes by its own GUID among errors and by its node's among data; `fabric_join` puts that right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from toolkit.facts.fabric_ends import Key
from toolkit.facts.fabric_text import ERRORS, Doubts, decoded, full_guid, lines, shown
from toolkit.judge.fabric.seen import PortCounts, SeenPort

MAX_PORTS = 1_048_576
_NODE = re.compile(r'(Errors for|Data Counters for) (?:0x([0-9a-fA-F]{1,16}) )?"(.*)"')
_PORT = re.compile(
    r"\s{1,8}GUID 0x([0-9a-fA-F]{1,16}) port (ALL|\d{1,3}):"
    r"((?: \[\w{1,48} == \d{1,20}(?: \([\d.]{1,12}[KMGTPE]?B?\))?\]){1,64})\s{0,8}"
)
_COUNT = re.compile(r" \[(\w{1,48}) == (\d{1,20})")
_LINK = re.compile(r"\s{1,16}Link info: .*")
_NODES = re.compile(r"## Summary: (\d{1,9}) nodes checked, (\d{1,9}) bad nodes found\s{0,8}")
_PORTS = re.compile(r"##\s{1,16}(\d{1,9}) ports checked, (\d{1,9}) ports have errors beyond threshold\s{0,8}")
_FAILURES = re.compile(r"##\s{1,16}(\d{1,9}) PMA query failures\s{0,8}")
_THRESHOLD = re.compile(r"\[(\w{1,48}) = (\d{1,20})\]")
_THRESHOLDS, _SUPPRESSED, _NO_THRESHOLDS = "## Thresholds:", "## Suppressed:", "## (null)"
_ALL_PORTS = "ALL"  # a switch's sum: not a port


@dataclass(frozen=True, slots=True)
class Counts:
    """One output.

    ports     ports that were shown, as they name themselves: errors by port GUID, data by node GUID
    of_nodes  the ports' GUIDs are their nodes' (--counters)
    whole     every port that was asked answered, and all of that is here; nodes that the walk missed were not asked
    nodes_checked, ports_checked   None where the summary is missing
    above     counters that are hidden up to a value
    suppressed   counters that are never shown (-s)
    """

    ports: tuple[PortCounts, ...]
    doubts: tuple[str, ...] = ()
    of_nodes: bool = False
    nodes_checked: int | None = None
    ports_checked: int | None = None
    above: tuple[tuple[str, int], ...] = ()
    suppressed: tuple[str, ...] = ()
    whole: bool = False

    def as_json(self) -> dict[str, Any]:
        """Counters by port."""
        return {
            "ports": [{"guid": p.port.guid, "port": p.port.number, "counts": dict(p.counts)} for p in self.ports],
            "of_nodes": self.of_nodes,
            "nodes_checked": self.nodes_checked,
            "ports_checked": self.ports_checked,
            "hidden_up_to": dict(self.above),
            "suppressed": list(self.suppressed),
            "whole": self.whole,
            "doubts": list(self.doubts),
        }


@dataclass(slots=True)
class _Reading:
    doubts: Doubts = field(default_factory=Doubts)
    ports: dict[Key, PortCounts] = field(default_factory=dict)
    headings: set[str] = field(default_factory=set)
    summary: dict[str, int] = field(default_factory=dict)
    above: dict[str, int] = field(default_factory=dict)
    suppressed: tuple[str, ...] | None = None
    shown: int = 0  # lines of ports
    failures: int = 0


def parse(text: bytes | str) -> Counts:
    """The counters as far as the text shows them. Never raises; what it could not take for certain is in `doubts`."""
    reading = _Reading()
    for line in lines(decoded(text, reading.doubts), reading.doubts):
        _read(line, reading)
    _doubt(reading)
    return Counts(
        ports=tuple(reading.ports.values()),
        doubts=reading.doubts.all(),
        of_nodes=reading.headings == {"Data Counters for"},
        nodes_checked=reading.summary.get("nodes"),
        ports_checked=reading.summary.get("ports"),
        above=tuple(reading.above.items()),
        suppressed=reading.suppressed or (),
        whole=reading.doubts.kinds <= {ERRORS},
    )


def _read(line: str, reading: _Reading) -> None:
    if not line or line.isspace() or _LINK.fullmatch(line):
        return
    if port := _PORT.fullmatch(line):
        _read_port(port, reading)
    elif node := _NODE.fullmatch(line):
        reading.headings.add(node[1])
    elif not (line.startswith("##") and _read_summary(line, reading)):
        reading.doubts.add_line(line)


def _read_port(found: re.Match[str], reading: _Reading) -> None:
    if not reading.headings:
        reading.doubts.add("ports without the node they are on", shown(found[0]))
    if found[2] == _ALL_PORTS:
        return
    key = (full_guid(found[1]), int(found[2]))
    reading.shown += 1
    if not key[1]:
        return  # a switch's own management port: it has no cable
    if key in reading.ports or len(reading.ports) >= MAX_PORTS:
        reading.doubts.add(
            "ports shown twice" if key in reading.ports else f"more than {MAX_PORTS:,} ports", shown(found[0])
        )
        return
    reading.ports[key] = PortCounts(
        SeenPort(*key), tuple((name, int(value)) for name, value in _COUNT.findall(found[3]))
    )


def _read_summary(line: str, reading: _Reading) -> bool:
    """A line of the summary; False where it is none."""
    if nodes := _NODES.fullmatch(line):
        reading.summary |= {"nodes": int(nodes[1]), "bad nodes": int(nodes[2])}
    elif ports := _PORTS.fullmatch(line):
        reading.summary |= {"ports": int(ports[1]), "bad ports": int(ports[2])}
    elif failures := _FAILURES.fullmatch(line):
        reading.failures = int(failures[1])
        reading.doubts.add("ports that did not give their counters", failures[1])
    elif line.startswith(_THRESHOLDS):
        reading.above |= {name: int(value) for name, value in _THRESHOLD.findall(line)}
    elif line.startswith(_SUPPRESSED):
        reading.suppressed = tuple(line.removeprefix(_SUPPRESSED).split()[:64])
    else:
        # With --counters there are no thresholds, and version 44 says so in this way.
        return line.rstrip() == _NO_THRESHOLDS and reading.headings == {"Data Counters for"}
    return True


def _doubt(reading: _Reading) -> None:
    """What a whole output cannot have: no summary, or one that counted others than were shown."""
    summary, doubts = reading.summary, reading.doubts
    if "ports" not in summary or "nodes" not in summary:
        doubts.add("no summary at its end: cut off, or not the output of ibqueryerrors")
        return
    if reading.suppressed is None:
        doubts.add("the summary is not whole")
    if not summary["ports"]:
        doubts.add("no port was asked")
    if len(reading.headings) > 1:
        doubts.add("errors and data in one text: give each its own")
    elif reading.headings == {"Data Counters for"}:
        if reading.shown != summary["ports"] and not reading.failures:
            doubts.add(f"{summary['ports']:,} ports were asked, {reading.shown:,} are shown")
    elif reading.shown != summary["bad ports"]:
        doubts.add(f"{summary['bad ports']:,} ports have errors, {reading.shown:,} are shown")
