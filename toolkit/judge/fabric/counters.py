"""Error counters, as growth between two readings. A lifetime value says nothing of today's cable.

What a link counts, its receiver counts: the sender, the cable and the receiver are equally suspect, so both ends are
named. What grows because of others (discards by congestion, packets that came in marked bad) is not held against it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.judge.fabric.line import Action
from toolkit.judge.fabric.picture import Picture
from toolkit.judge.fabric.seen import PortCounts
from toolkit.judge.fabric.sheet import Sheet, count, some
from toolkit.rack.model import Port


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a counter may grow in a run; None: nobody has sourced one. full: where it stops counting."""

    code: str
    words: str
    most: int | None
    full: int
    source: str


_DEFAULT = "ibqueryerrors(8), infiniband-diags 44: the default threshold is zero"
_SAMPLE = "error_thresholds of infiniband-diags 44"
LIMITS = {
    "SymbolErrorCounter": Limit(
        "FABRIC_SYMBOL_ERRORS", "symbol error", 0, 0xFFFF,
        f"{_DEFAULT}; on HDR and NDR these are errors left after correction (NVIDIA ibdiagnet manual, Bit Error Rate), "
        "and cables are tested to less than one error in 10^15 bits (NVIDIA DGX SuperPOD cabling guide)",
    ),
    "LinkErrorRecoveryCounter": Limit("FABRIC_LINK_RECOVERIES", "link error recovery", 0, 0xFF, _DEFAULT),
    "LinkDownedCounter": Limit("FABRIC_LINK_DOWNED", "time down", 0, 0xFF, _DEFAULT),
    "PortRcvErrors": Limit("FABRIC_RECEIVE_ERRORS", "receive error", 10, 0xFFFF, f"{_SAMPLE}: PortRcvErrors=10"),
    "LocalLinkIntegrityErrors": Limit(
        "FABRIC_LINK_INTEGRITY", "local link integrity error", 10, 0xF, f"{_SAMPLE}: LocalLinkIntegrityErrors=10"
    ),
    "ExcessiveBufferOverrunErrors": Limit(
        "FABRIC_BUFFER_OVERRUNS", "excessive buffer overrun", 10, 0xF, f"{_SAMPLE}: ExcessiveBufferOverrunErrors=10"
    ),
}  # fmt: skip
REQUIRED = ("SymbolErrorCounter", "LinkErrorRecoveryCounter", "LinkDownedCounter", "PortRcvErrors")
# Not this cable's: traffic; congestion; packets refused by partition; packets that arrived marked bad by another link;
# details of PortRcvErrors and PortXmitDiscards, which are counted there.
NOT_JUDGED = (
    "PortXmit", "PortRcvData", "PortRcvPkts", "PortRcvRemotePhysicalErrors", "PortRcvSwitchRelayErrors",
    "PortRcvConstraintErrors", "PortUnicast", "PortMulticast", "PortLocalPhysicalErrors", "PortMalformedPkt",
    "PortBufferOverrun", "PortDLIDMapping", "PortVLMapping", "PortLooping", "PortInactive", "PortNeighborMTU",
    "PortSw", "VL15Dropped", "PortVL", "QP1Dropped", "Counter",
)  # fmt: skip
_OCTETS_PER_COUNT = 4  # PortXmitData and PortRcvData count words of 32 bits: IBTA volume 1, PortCounters
LOADED = 0.01  # a port that moved less than this share of its planned rate was not under load: policy, told as a note


def judge_counters(picture: Picture, sheet: Sheet) -> None:
    """Lines for planned ports whose error counters grew past their limits."""
    before, after, seconds = picture.seen.before, picture.seen.after, picture.seen.seconds
    if before is None or after is None:
        return
    if seconds <= 0:
        sheet.doubts.append("the two readings of the counters have no time between them: nothing can have grown")
        return
    first, last = _by_port(before, picture), _by_port(after, picture)
    planned = sorted(port for port in picture.design.partner if port in picture.links)
    troubles: dict[str, list[str]] = defaultdict(list)
    grown = {port: _growth(port, first.get(port), last.get(port), picture, troubles) for port in planned}
    for port in planned:
        _unsourced(port, grown[port], picture, troubles)
        far = _far(port, picture)
        if far not in grown or port < far:
            _cable(port, far, grown, picture, sheet)
    sheet.doubts += [f"{what}: {count(len(ports), 'port')}: {some(ports)}" for what, ports in sorted(troubles.items())]
    _load(grown, picture, sheet)


def _by_port(counts: Iterable[PortCounts], picture: Picture) -> dict[Port, Mapping[str, int]]:
    return {picture.names.port(c.port): dict(c.counts) for c in counts}


def _growth(
    port: Port,
    first: Mapping[str, int] | None,
    last: Mapping[str, int] | None,
    picture: Picture,
    troubles: dict[str, list[str]],
) -> dict[str, int]:
    """By counter, where both readings can be compared; why not goes to `troubles`."""
    if first is None or last is None:
        troubles["counters not read twice"].append(picture.word(port))
        return {}
    grown = {}
    for name in sorted({*last, *REQUIRED}):
        limit = LIMITS.get(name)
        if name not in first or name not in last:
            if name in REQUIRED:
                troubles[f"{name} not shown twice"].append(picture.word(port))
        elif last[name] < first[name]:
            if limit:
                troubles[f"{name} was cleared between the readings"].append(picture.word(port))
        elif limit and first[name] == limit.full == last[name]:
            troubles[f"{name} is full and counts no more: clear it (ibqueryerrors -k)"].append(picture.word(port))
        else:
            grown[name] = last[name] - first[name]
    return grown


def _unsourced(port: Port, grown: Mapping[str, int], picture: Picture, troubles: dict[str, list[str]]) -> None:
    for name, more in grown.items():
        limit = LIMITS.get(name)
        if more and (limit is None or limit.most is None) and not name.startswith(NOT_JUDGED):
            troubles[f"{name} grew, and nobody has sourced a limit for it"].append(picture.word(port))


def _far(port: Port, picture: Picture) -> Port:
    """The port at the other end of the cable that is really there."""
    link = picture.links[port]
    a, b = picture.names.port(link.a), picture.names.port(link.b)
    return b if a == port else a


def _over(grown: Mapping[str, int]) -> list[str]:
    """Counters past their limits; a link that went down says more than the errors before it."""
    over = [name for name, limit in LIMITS.items() if limit.most is not None and grown.get(name, 0) > limit.most]
    return sorted(over, key=lambda name: name != "LinkDownedCounter")


def _cable(port: Port, far: Port, grown: Mapping[Port, Mapping[str, int]], picture: Picture, sheet: Sheet) -> None:
    """One line a cable: by the end and the counter that say most, with all the others as evidence."""
    seconds = picture.seen.seconds
    ends = sorted((p for p in (port, far) if _over(grown.get(p, {}))), key=lambda p: not p.port.isdigit())
    if not ends:
        return
    loud = max(ends, key=lambda p: grown[p][_over(grown[p])[0]])
    other = far if loud == port else port
    worst = _over(grown[loud])[0]
    limit = LIMITS[worst]
    evidence = [
        f"{picture.word(p)}: {name} grew by {grown[p][name]:,} in {seconds:g} s, at most {LIMITS[name].most}"
        for p in ends
        for name in _over(grown[p])
    ]
    sheet.add(
        limit.code, Action.RESEAT,
        f"port {loud.unit}/{loud.port}: {_counted(grown[loud][worst], limit.words)} in {seconds:g} s: clean and reseat "
        f"the cable {picture.word(loud)} - {picture.word(other)}, then replace it",
        (picture.end(loud), picture.end(other)),
        [*evidence, "sender, cable and receiver are equally suspect until one is changed", f"limit: {limit.source}"],
        f"the counters of both ends stand still under load; {sheet.again}", "cable",
    )  # fmt: skip


def _counted(number: int, words: str) -> str:
    plural = {"link error recovery": "link error recoveries", "time down": "times down"}.get(words, f"{words}s")
    return f"{number:,} {words if number == 1 else plural}"


def _load(grown: Mapping[Port, Mapping[str, int]], picture: Picture, sheet: Sheet) -> None:
    """Whether it was under load at all: some errors show only then."""
    idle = []
    for port, counts in grown.items():
        octets = max(counts.get("PortXmitData", 0), counts.get("PortRcvData", 0)) * _OCTETS_PER_COUNT
        if octets * 8 < LOADED * picture.design.partner[port].gbit * 1e9 * picture.seen.seconds:
            idle.append(port)
    if idle:
        sheet.notes.append(
            f"counters over {picture.seen.seconds:g} s: {len(idle):,} of {len(grown):,} ports moved less than "
            f"{LOADED:.0%} of their rate; errors that show only under load are not ruled out"
        )
