"""One look at a rack's fabric from its own nodes: what InfiniBand's tools, the HCAs and LLDP say, on record and parsed.

A walk starts at an HCA and sees its subnet. It starts again at every planned HCA that no walk has met, because leaves
without spines are subnets of their own. Error counters are read twice; the first reading may be an earlier look's, and
what grew between the two, a burn-in among it, is what counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from toolkit.errors import UndecidedError
from toolkit.facts import fabric_join, hca_firmware, iblinkinfo, ibnetdiscover, ibqueryerrors, lldp, subnet
from toolkit.facts.fabric_text import shown
from toolkit.judge.fabric.design import bare
from toolkit.judge.fabric.seen import (
    Discovery,
    Firmware,
    Membership,
    Neighbor,
    PortCounts,
    PortState,
    Seen,
    SeenLink,
    SeenPort,
    SubnetManager,
)
from toolkit.ledger import EventKind, Ledger, NewEvent
from toolkit.rack.model import Hca, LinkKind, Rack, Unit
from toolkit.runners.shell import CommandResult
from toolkit.stages.context import Context

# A look that later ones are measured from, and one that is measured from it.
FIRST, FOLLOWING = "fabric look", "fabric look again"
MOST_BYTES = 64 << 20  # ibnetdiscover writes 12 MiB of 16,384 HCAs
TOOL_SECONDS = 300.0
MOST_WALKS = 64
MOST_IN_VAIN = 8  # walks that met no planned HCA: the tools do not work here, and more of them say no more
AT_ONCE = 16

DISCOVER, LINKS, ERRORS, DATA, MANAGER = "ibnetdiscover", "iblinkinfo", "errors", "data", "sminfo"
# ibqueryerrors hides errors below its thresholds, and says by its exit status that it found any.
_TOOLS: Mapping[str, tuple[str, ...]] = {
    DISCOVER: ("ibnetdiscover",),
    LINKS: ("iblinkinfo", "-l"),
    ERRORS: ("ibqueryerrors", "--threshold-file", "/dev/null"),
    DATA: ("ibqueryerrors", "--counters"),
    MANAGER: ("sminfo",),
}
_STATUSES: Mapping[str, tuple[int, ...]] = {ERRORS: (0, 1), DATA: (0, 1)}
_COUNTERS = (ERRORS, DATA)

# The way of no hops is the HCA's own port: no manager is needed to ask it.
_KEYS = 'for hca in "$@"; do echo "$hca"; smpquery -C "$hca" -D pkeys 0 1 || echo failed; done'
_BOARDS = "if command -v ibv_devinfo >/dev/null; then exec ibv_devinfo; else exec ibstat; fi"


@dataclass(frozen=True, slots=True)
class Walk:
    """What the tools said, seen from one HCA.

    said        bytes as received, by tool
    problems    why a tool is not in it
    discovery   what ibnetdiscover said; empty, with the reason as its doubt, where it failed
    """

    start: str
    said: Mapping[str, bytes]
    problems: tuple[str, ...]
    discovery: Discovery

    @classmethod
    def of(cls, start: str, said: Mapping[str, bytes], problems: Iterable[str] = ()) -> Walk:
        """With the discovery parsed."""
        why = tuple(problems)
        found = ibnetdiscover.parse(said[DISCOVER]) if DISCOVER in said else Discovery((), (), why)
        return cls(start, said, why, found)

    @property
    def alone(self) -> bool:
        """Whether it met nobody: the HCA that it began at is there, and nothing is behind it."""
        return len(self.discovery.nodes) == 1 and not self.discovery.links


@dataclass(frozen=True, slots=True)
class Own:
    """What a node says of its own HCAs and interfaces."""

    node: str
    memberships: tuple[tuple[str, tuple[int, ...]], ...] = ()
    managers: tuple[SubnetManager, ...] = ()
    firmware: tuple[Firmware, ...] = ()
    neighbors: tuple[Neighbor, ...] = ()
    problems: tuple[str, ...] = ()
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Look:
    """One look. `since` is when its counters were first read: by it, or by the look it follows.

    again       the walks whose counters it read a second time, with those
    artifacts   sha256 of what the tools said, by `node:hca tool`; of a second reading by `node:hca tool again`
    """

    at: datetime
    since: datetime
    seen: Seen
    walks: tuple[Walk, ...]
    again: tuple[Walk, ...] = ()
    artifacts: Mapping[str, str] = field(default_factory=dict)


def look(
    context: Context, nodes: Sequence[Unit], *, seconds: float = 0.0, since: Look | None = None, baseline: bool = True
) -> Look:
    """Walks the fabric from these nodes and asks each of its own ports.

    seconds   how long to wait between the two readings of the counters, where no earlier look is given
    since     its counters are the first reading
    baseline  later looks may count from this one
    A node that does not answer is not an error of the others: it is missing among `seen.answering`.
    """
    walks = _walks(context, nodes)
    at = context.clock()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        own = tuple(pool.map(lambda node: _own(context, node), nodes))
    first, began = (walks, at) if since is None else (since.walks, since.since)
    again, ended = tuple[Walk, ...](), at
    if since is None and seconds > 0:
        context.sleep(seconds)
        again, ended = tuple(_again(context, walk) for walk in walks), context.clock()
    seen = _seen(context.rack, walks, own, (first, again or walks), _seconds(ended - began))
    told = Look(at, began, seen, walks, again, _kept(context, walks, again))
    _record(context, told, FIRST if baseline and since is None else FOLLOWING)
    return told


def earlier(ledger: Ledger, rack: Rack) -> Look | None:
    """The last look that counts from itself, None where there is none: a first reading of the counters.

    Its `seen` is empty: what stood there then is not what stands there now.
    """
    event = ledger.find(rack.name, "", EventKind.OBSERVED, FIRST)
    if event is None:
        return None
    walks = tuple(
        Walk.of(str(w["start"]), {tool: ledger.artifacts.get(str(d)) for tool, d in w["artifacts"].items()})
        for w in event.body["walks"]
    )
    at = datetime.fromisoformat(str(event.body["at"]))
    return Look(at, at, Seen(Discovery((), ())), walks)


def _seconds(passed: timedelta) -> float:
    """As a work order says it: tenths, of less than a second thousandths."""
    seconds = passed.total_seconds()
    return round(seconds, 1 if seconds >= 1 else 3)


# Walks


def _walks(context: Context, nodes: Sequence[Unit]) -> tuple[Walk, ...]:
    """From the first HCA that can, and from every planned HCA that none of the walks before met."""
    walks: list[Walk] = []
    met: set[str] = set()
    mute: set[str] = set()
    vain = 0
    for node, hca in _starts(nodes):
        if node.name in mute or bare(hca.guid) in met:
            continue
        if len(walks) >= MOST_WALKS or vain >= MOST_IN_VAIN:
            break
        try:
            walk = _walk(context, node, hca.name)
        except UndecidedError:
            mute.add(node.name)
            continue
        walks.append(walk)
        found = walk.discovery
        met |= {n.guid for n in found.nodes} | {guid for guid, _ in found.port_guids}
        if not found.nodes:
            vain += 1
            mute.add(node.name)  # it has no tools, or no driver: its other HCAs fare no better
    return tuple(walks)


def _starts(nodes: Sequence[Unit]) -> Iterable[tuple[Unit, Hca]]:
    """Every node's first HCA, then every node's second: rails are subnets of their own where no spine joins them."""
    for rail in range(max((len(n.hcas) for n in nodes), default=0)):
        for node in nodes:
            if rail < len(node.hcas):
                yield node, node.hcas[rail]


def _walk(context: Context, node: Unit, hca: str) -> Walk:
    said: dict[str, bytes] = {}
    problems: list[str] = []
    for tool in _TOOLS:
        _ask(context, node, hca, tool, said, problems)
        if tool == DISCOVER and tool not in said:
            break
    return Walk.of(f"{node.name}:{hca}", said, problems)


def _ask(context: Context, node: Unit, hca: str, tool: str, said: dict[str, bytes], problems: list[str]) -> None:
    """Runs a tool; its output goes to `said`, why there is none to `problems`."""
    argv = (*_TOOLS[tool][:1], "-C", hca, *_TOOLS[tool][1:])
    ran = context.hands.shell.run(node, argv, TOOL_SECONDS, MOST_BYTES)
    if ran.status in _STATUSES.get(tool, (0,)) and not ran.truncated:
        said[tool] = ran.stdout + ran.stderr  # where a part of the fabric did not answer, only the latter says so
    else:
        problems.append(f"{argv[0]} on {node.name}: {_why(ran)}")


def _why(ran: CommandResult) -> str:
    if ran.truncated:
        return f"more than {MOST_BYTES:,} bytes"
    words = (ran.stderr or ran.stdout)[-4096:].decode("utf-8", "replace").strip().splitlines()
    return f"exit status {ran.status}" + (f": {shown(words[-1])}" if words else "")


def _again(context: Context, walk: Walk) -> Walk:
    """The counters once more, from the same HCA. Those of the first reading never stand for a second that failed."""
    node, _, hca = walk.start.partition(":")
    said = {tool: told for tool, told in walk.said.items() if tool not in _COUNTERS}
    problems: list[str] = []
    for tool in _COUNTERS if DISCOVER in walk.said else ():
        try:
            _ask(context, context.rack.unit(node), hca, tool, said, problems)
        except UndecidedError as gone:
            problems.append(gone.message)
    return Walk(walk.start, said, tuple(problems), walk.discovery)


# A node's own


def _own(context: Context, node: Unit) -> Own:
    try:
        return _asked(context, node)
    except UndecidedError:  # it does not answer, or was never imaged and has no key to know it by
        return Own(node.name, answered=False)


def _asked(context: Context, node: Unit) -> Own:
    problems: list[str] = []
    names = [hca.name for hca in node.hcas]
    keys = context.hands.shell.run(node, ("sh", "-c", _KEYS, "sh", *names), TOOL_SECONDS)
    asked = context.hands.shell.run(node, ("sminfo", *(("-C", names[0]) if names else ())), 60)
    managers = subnet.parse_sminfo(asked.stdout).managers if asked.status == 0 else ()
    boards = hca_firmware.parse(context.hands.shell.run(node, ("sh", "-c", _BOARDS), 60).stdout)
    heard: tuple[Neighbor, ...] = ()
    if any(k.kind is LinkKind.ETHERNET and node.name in (k.a.unit, k.b.unit) for k in context.rack.links):
        ran = context.hands.shell.run(node, ("lldpcli", "-f", "json0", "show", "neighbors"), 60)
        told = lldp.parse(ran.stdout, node.name)
        heard = told.neighbors
        problems += [f"LLDP on {node.name}: {doubt}" for doubt in (told.doubts if ran.status == 0 else (_why(ran),))]
    members = tuple(_members(keys.stdout, node))
    return Own(node.name, members, managers, tuple(f for _, f in boards.adapters), heard, tuple(problems))


def _members(said: bytes, node: Unit) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Port GUID and keys of each planned HCA that gave a whole table: of the others they were not read."""
    blocks: dict[str, list[str]] = {}
    names = {hca.name for hca in node.hcas}
    for line in said.decode("utf-8", "replace").splitlines():
        if line in names:
            blocks[line] = []
        elif blocks:
            blocks[next(reversed(blocks))].append(line)
    for hca in node.hcas:
        table = subnet.parse_pkeys("\n".join((*blocks.get(hca.name, ("failed",)), "")))
        if not table.doubts:
            yield bare(hca.guid), table.pkeys


# Together


def _seen(
    rack: Rack,
    walks: Sequence[Walk],
    own: Sequence[Own],
    counted: tuple[Sequence[Walk], Sequence[Walk]],
    seconds: float,
) -> Seen:
    discoveries = {walk.start: walk.discovery for walk in walks}
    discovery = _merged(walks)
    walks = [w for w in walks if not w.alone] or walks  # of a port without light, the others tell
    lone = {start for start, found in discoveries.items() if len(walks) < len(discoveries) and not found.links}
    first, last = ([w for w in taken if w.start not in lone] for taken in counted)
    doubts = [p for walk in (*walks, *last) for p in walk.problems] + [p for o in own for p in o.problems]
    ports = _ports(walks, discoveries, doubts)
    before, after = (_counts(taken, discoveries, doubts) for taken in (first, last))
    at = dict(discovery.port_guids)
    nodes = {n.guid for n in discovery.nodes}
    members = [
        Membership(at.get(guid, SeenPort(guid, 1)), keys)
        for o in own
        for guid, keys in o.memberships
        if guid in at or guid in nodes
    ]
    planned = any(k.kind is LinkKind.ETHERNET for k in rack.links)
    return Seen(
        discovery=discovery,
        ports=ports,
        before=before,
        after=after,
        seconds=seconds,
        managers=_managers(rack, walks, discoveries, own),
        memberships=tuple(members) if own else None,
        neighbors=tuple(n for o in own for n in o.neighbors) if planned else None,
        firmware=hca_firmware.together(*([("", f) for f in o.firmware] for o in own)) if own else None,
        answering=frozenset(o.node for o in own if o.answered),
        doubts=tuple(dict.fromkeys(doubts)),
    )


def _merged(walks: Sequence[Walk]) -> Discovery:
    """Several walks as one. No walk at all is a doubt; one that met nobody adds its own HCA and none."""
    if not walks:
        return Discovery((), (), ("no node could walk the fabric",))
    nodes = {n.guid: n for w in reversed(walks) for n in w.discovery.nodes}
    found = [w.discovery for w in walks if not w.alone] or [w.discovery for w in walks]
    links: dict[SeenLink, None] = {link: None for d in found for link in d.links}
    return Discovery(
        tuple(nodes.values()),
        tuple(links),
        tuple(dict.fromkeys(doubt for d in found for doubt in d.doubts)),
        tuple(dict.fromkeys(guid for d in found for guid in d.duplicates)),
        tuple(dict.fromkeys(pair for d in found for pair in d.port_guids)),
        tuple(dict.fromkeys(port for d in found for port in d.unanswered)),
    )


def _ports(
    walks: Sequence[Walk], discoveries: Mapping[str, Discovery], doubts: list[str]
) -> tuple[PortState, ...] | None:
    found: dict[SeenPort, PortState] = {}
    for walk in (w for w in walks if LINKS in w.said):
        states = fabric_join.states(discoveries[walk.start], iblinkinfo.parse(walk.said[LINKS]))
        doubts += [f"iblinkinfo from {walk.start}: {doubt}" for doubt in states.doubts]
        found = {p.port: p for p in states.ports} | found
    return tuple(found.values()) if found else None


def _counts(
    walks: Sequence[Walk], discoveries: Mapping[str, Discovery], doubts: list[str]
) -> tuple[PortCounts, ...] | None:
    found: dict[SeenPort, PortCounts] = {}
    for walk in (w for w in walks if ERRORS in w.said):
        discovery = discoveries.get(walk.start) or walk.discovery
        data = ibqueryerrors.parse(walk.said[DATA]) if DATA in walk.said else None
        counted = fabric_join.snapshot(discovery, ibqueryerrors.parse(walk.said[ERRORS]), data)
        doubts += [f"ibqueryerrors from {walk.start}: {doubt}" for doubt in counted.doubts]
        found = {c.port: c for c in counted.ports} | found
    return tuple(found.values()) if found else None


def _managers(
    rack: Rack, walks: Sequence[Walk], discoveries: Mapping[str, Discovery], own: Sequence[Own]
) -> tuple[SubnetManager, ...] | None:
    """Those of the first subnet that has not exactly one master, else of the first: subnets' masters are no rivals."""
    told: list[tuple[SubnetManager, ...]] = []
    for walk in (w for w in walks if DISCOVER in w.said):
        met = {n.guid for n in discoveries[walk.start].nodes} | {g for g, _ in discoveries[walk.start].port_guids}
        here = subnet.parse_sminfo(walk.said[MANAGER]).managers if MANAGER in walk.said else ()
        others = [m for o in own for m in o.managers if any(bare(h.guid) in met for h in rack.unit(o.node).hcas[:1])]
        told.append(tuple(dict.fromkeys((*here, *others))))
    wrong = (t for t in told if sum(m.state == "MASTER" for m in t) != 1)
    return next(wrong, told[0]) if told else None


# On record


def _kept(context: Context, walks: Sequence[Walk], again: Sequence[Walk]) -> dict[str, str]:
    put = context.ledger.artifacts.put
    kept = {f"{walk.start} {tool}": put(said) for walk in walks for tool, said in walk.said.items()}
    return kept | {f"{w.start} {tool} again": put(w.said[tool]) for w in again for tool in _COUNTERS if tool in w.said}


def _record(context: Context, told: Look, what: str) -> None:
    def of(walk: Walk, tools: Iterable[str], suffix: str = "") -> dict[str, object]:
        kept = {tool: told.artifacts[f"{walk.start} {tool}{suffix}"] for tool in tools if tool in walk.said}
        return {"start": walk.start, "artifacts": kept, "problems": list(walk.problems)}

    body = {
        "at": told.at.isoformat(),
        "walks": [of(walk, walk.said) for walk in told.walks],
        "again": [of(walk, _COUNTERS, " again") for walk in told.again],
        "answering": sorted(told.seen.answering or ()),
    }
    context.ledger.append(NewEvent(EventKind.OBSERVED, context.rack.name, "", body, what))
