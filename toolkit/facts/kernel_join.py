"""Lines of one happening, joined: what caused, what followed. The steps between a KernelLog and its events.

A burst is what one GPU printed without a pause. Within a burst, lines about its memory that do not name different
addresses are one event; 45 and 154 follow what stands beside them; a GPU that is gone explains all that comes after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from toolkit.facts.kernel_log import Xid
from toolkit.judge.xids import Entry, Kind, Rule, read_text
from toolkit.judge.xids_nvlink import Next, decode

BURST_S = 10.0
BURST_LINES = 60  # where the lines carry no time
MAX_CAUSES = 1024  # of a log; each is looked at against the others
MAX_BURST_CAUSES = 256  # far more than a GPU has links; beyond it, one event says that there were more
PREEMPTED, LOST, PACKET_LOSS, LINK_DOWN, RECOVERY = 45, 79, 145, 149, 154
NVLINK5 = range(144, 151)
_MEMORY_VICTIMS = frozenset((13, 31, 32, 43, 69))  # a program that read a poisoned word


@dataclass(slots=True, eq=False)
class Cause:
    """An event that is still being put together. `lines` are its own, `followers` what it brought about."""

    entry: Entry
    lines: list[Xid]
    followers: list[Xid] = field(default_factory=list)
    address: int | None = None
    burst: int = 0  # number of the burst it is in; -1 for one that only followers of another burst name
    seen: bool = True  # False: a follower names it, and it is not in the log

    @property
    def first(self) -> Xid:
        """The line it begins with; a follower's, where its own is not in the log."""
        return (self.lines or self.followers)[0]

    @property
    def last(self) -> Xid:
        """The newest line of it or of what followed."""
        return max((*self.lines, *self.followers), key=lambda x: x.line)


def causes(xids: Iterable[Xid], driver: str | None) -> list[Cause]:
    """The first 1024 causes, in the order in which they began. `driver`: its version, for the layout of 144-150."""
    found: list[Cause] = []
    unexplained: list[Xid] = []
    for number, burst in enumerate(bursts(xids)):
        if len(found) + len(unexplained) >= MAX_CAUSES:
            break
        of_burst = _burst(burst, driver, unexplained)
        for cause in of_burst:
            cause.burst = number
        found += of_burst
    for victim in unexplained[:MAX_CAUSES]:
        _file(victim, found)
    for cause in [c for c in found if c.lines and c.entry.number == PACKET_LOSS and c.entry.rule is Rule.RERUN]:
        link = next((c for c in found if _took_packets(c) and near(c.first, cause.first)), None)
        if link is not None:
            found.remove(cause)
            link.followers += cause.lines + cause.followers
    return sorted(found, key=lambda c: c.first.line)[:MAX_CAUSES]


def _took_packets(cause: Cause) -> bool:
    """A link that went down: the peers' 145 are its packets, whichever GPU prints them. A worn link loses none."""
    units = [x.unit or "" for x in cause.lines if x.number == LINK_DOWN]
    return any(unit.startswith("NETIR_LINK") or unit == "NETIR" for unit in units)


def bursts(xids: Iterable[Xid]) -> Iterator[list[Xid]]:
    """The lines of each GPU, cut where it was silent."""
    by_gpu: dict[str, list[Xid]] = {}
    for xid in xids:
        by_gpu.setdefault(xid.pci, []).append(xid)
    for lines in by_gpu.values():
        burst = lines[:1]
        for xid in lines[1:]:
            if not near(burst[-1], xid):
                yield burst
                burst = []
            burst.append(xid)
        yield burst


def near(one: Xid, other: Xid) -> bool:
    """Whether two lines belong together: by time where both have one, else by their distance in the log."""
    if one.at_s is not None and other.at_s is not None:
        return abs(other.at_s - one.at_s) <= BURST_S
    return abs(other.line - one.line) <= BURST_LINES


def _burst(burst: list[Xid], driver: str | None, unexplained: list[Xid]) -> list[Cause]:
    found: list[Cause] = []
    followers = []
    lost = next((x.line for x in burst if x.number == LOST), None)
    has_memory = any(_read(x, driver).kind is Kind.MEMORY for x in burst)
    for xid in burst:
        entry = _read(xid, driver)
        after_loss = lost is not None and xid.line > lost and xid.number != LOST
        victim = has_memory and xid.number in _MEMORY_VICTIMS
        if entry.kind is Kind.CONSEQUENCE or xid.caused_by is not None or after_loss or victim:
            followers.append(xid)
        else:
            _add(xid, entry, found)
    followers += _explained(found)
    for xid in followers:
        cause = _cause_of(xid, found)
        if cause is not None:
            cause.followers.append(xid)
        elif xid.number == PREEMPTED or xid.caused_by is not None:
            unexplained.append(xid)
        else:
            _alone(xid, found)
    return found


def _read(xid: Xid, driver: str | None) -> Entry:
    """What the line means: by number, by text, and by its registers where it is an NVLink 5 error."""
    entry = read_text(xid.number, xid.text)
    if xid.number not in NVLINK5:
        return entry
    decoded = decode(xid.number, xid.registers, driver)
    if decoded is None:
        return replace(entry, remark="its registers name no unit that is known here")
    kind = Kind.NOTE if decoded.rule is Rule.NOTE else entry.kind
    remark = f"{decoded.unit}: {decoded.step.value}, then {decoded.next.value}"
    sympathetic = decoded.next is Next.SYMPATHETIC
    return replace(entry, rule=decoded.rule, kind=kind, remark=remark, sympathetic=sympathetic)


def _add(xid: Xid, entry: Entry, found: list[Cause]) -> None:
    for cause in reversed(found):
        if _same(cause, xid, entry):
            cause.lines.append(xid)
            cause.address = cause.address if xid.address is None else xid.address
            worse = entry if entry.rule.rank > cause.entry.rule.rank else cause.entry
            if entry.kind is Kind.MEMORY:  # what happened is the cause's, what to do is the gravest line's
                cause.entry = replace(cause.entry, rule=worse.rule, remark=worse.remark)
            else:
                cause.entry = worse
            return
    if len(found) < MAX_BURST_CAUSES:
        found.append(Cause(entry, [xid], address=xid.address))
    elif found[-1].entry.kind is Kind.UNKNOWN:
        found[-1].lines.append(xid)
    else:
        known = replace(read_text(xid.number, ""), kind=Kind.UNKNOWN, rule=Rule.SERVICE)
        found.append(Cause(replace(known, remark="one of more errors than can be told apart"), [xid]))


def _same(cause: Cause, xid: Xid, entry: Entry) -> bool:
    if entry.kind is Kind.MEMORY and cause.entry.kind is Kind.MEMORY:
        return None in (cause.address, xid.address) or cause.address == xid.address
    return cause.first.number == xid.number and cause.first.link == xid.link


def _explained(found: list[Cause]) -> list[Xid]:
    """Takes out what explains nothing where something else does: a killed channel (43), a sympathetic link error."""
    mute = [c for c in found if c.entry.sympathetic]
    if not any(c.entry.counts for c in found if c not in mute):
        return []
    for cause in mute:
        found.remove(cause)
    return [xid for cause in mute for xid in cause.lines]


def _cause_of(xid: Xid, found: list[Cause]) -> Cause | None:
    """The cause in the same burst: the one it names, else the last before it, else the first after it."""
    if xid.caused_by is not None:
        return next((c for c in reversed(found) if any(x.number == xid.caused_by for x in c.lines)), None)
    grave = [c for c in found if c.entry.counts] or found
    before = [c for c in grave if c.first.line < xid.line]
    return before[-1] if before else grave[0] if grave else None


def _alone(xid: Xid, found: list[Cause]) -> None:
    for cause in found:
        if cause.lines and cause.first.number == xid.number and cause.first.pci == xid.pci and near(cause.last, xid):
            cause.lines.append(xid)
            return
    known = read_text(xid.number, xid.text)
    found.append(Cause(replace(known, kind=Kind.DRIVER) if known.kind is Kind.CONSEQUENCE else known, [xid]))


def _file(victim: Xid, found: list[Cause]) -> None:
    """A victim without a cause on its own GPU: by the number it names, or by a link that failed just then."""
    beside = [c for c in found if near(c.first, victim) or near(c.last, victim)]
    if victim.caused_by is None:
        link = next((c for c in beside if c.entry.kind is Kind.LINK), None)
        if link is not None:
            link.followers.append(victim)
        else:
            _alone(victim, found)
        return
    cause = next((c for c in beside if c.entry.number == victim.caused_by), None)
    if cause is not None:
        cause.followers.append(victim)
    else:
        found.append(Cause(read_text(victim.caused_by, ""), [], [victim], burst=-1, seen=False))
