"""From a kernel log to events: each with its cause, what followed, the GPU, and what a burn-in does about it.

Forty lines of one failing memory row are one event; a 45 that says what caused it is no event of its own. What comes
twice on one GPU, in two bursts, is judged by the catalog's rule for repeats. `measured` gives the counts that gates
read; a log that was not read completely gives none, for silence in it is no health.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from toolkit.facts import kernel_join, kernel_log
from toolkit.facts.kernel_join import RECOVERY, Cause
from toolkit.facts.kernel_log import KernelLog, Sxid, Xid
from toolkit.judge.xids import Kind, Rule, entry, memory_part, recovery_rule, sxid_rule, worse_recovery

MAX_FOLLOWERS = 16  # lines of an event that are kept by their words; the rest are counted
MAX_EVENTS = kernel_join.MAX_CAUSES
_TEXT = 200
_PART = re.compile(
    r"\b(FBPA|FBP|LTS|[Ss]ubpartition|[Pp]artition|[Cc]hannel|GPC|TPC|SM)\b[ :=#]{0,3}(0x[0-9a-fA-F]{1,8}|\d{1,6})\b"
)
_MEMORY_PARTS = frozenset(("FBPA", "FBP", "LTS", "Subpartition", "subpartition", "Partition", "partition", "Channel"))
_SM_PARTS = frozenset(("GPC", "TPC", "SM"))
_NOT_WHOLE = re.compile(r"^\[\d{1,19} bytes more\]\s*\Z", re.MULTILINE)  # burnin/kernel_log.py, of what it left out
_COUNTED = (Kind.MEMORY, Kind.LOST, Kind.LINK, Kind.HARDWARE, Kind.DRIVER, Kind.APPLICATION)


@dataclass(frozen=True, slots=True)
class Event:
    """One happening.

    source       `xid`, `sxid`, or `line` where the driver printed no number (a GPU lost at probe, an unread line)
    pci          of the GPU or NVSwitch; None where no line names it
    numbers      all Xids of it, the consequences' too, sorted
    text         the words that tell it best; `remark` says what they mean
    ends         both ends of a link: blame stays on both until a third partner settles it
    address      physical address in memory; `location` is the part of the chip, as printed
    recovery     the worst action the driver asked for (Xid 154, codes of NVML field 230)
    consequences what followed, in the driver's words (first 16)
    """

    source: str
    kind: Kind
    rule: Rule
    pci: str | None
    number: int | None
    text: str
    remark: str = ""
    numbers: tuple[int, ...] = ()
    lines: int = 1
    link: int | None = None
    ends: tuple[str, ...] = ()
    address: int | None = None
    location: str | None = None
    recovery: int | None = None
    consequences: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The event; keys without a value are left out."""
        out: dict[str, Any] = {
            "source": self.source, "class": self.kind.value, "rule": self.rule.value, "pci": self.pci,
            "number": self.number, "text": self.text, "lines": self.lines,
        }  # fmt: skip
        for key in ("remark", "link", "address", "location", "recovery"):
            value = getattr(self, key)
            if value is not None and value != "":
                out[key] = value
        for key in ("numbers", "ends", "consequences"):
            if getattr(self, key):
                out[key] = list(getattr(self, key))
        return out

    def __str__(self) -> str:
        """One line for `why`: where, what, what to do."""
        name = self.source.capitalize() if self.source == "xid" else "SXid" if self.source == "sxid" else ""
        what = f"{name} {self.number} " if self.number is not None else ""
        where = f" link {self.link}" if self.link is not None and self.link >= 0 else ""
        places = (self.location or "", f"{self.address:#x}" if self.address is not None else "")
        at = f" at {' '.join(p for p in places if p)}" if any(places) else ""
        then = f"; {len(self.consequences)} consequences" if self.consequences else ""
        said = f"{what}({self.kind.value}) on {self.pci or 'an unknown device'}{where}{at}: {self.text}"
        return f"{said} [{self.rule.value}]{then}"


@dataclass(frozen=True, slots=True)
class KernelEvents:
    """Answer of `rackproof parse kernel-events`: what happened, and what the log leaves open."""

    events: tuple[Event, ...]
    doubts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Events in order, and how many of each class."""
        kinds = [e.kind.value for e in self.events]
        return {
            "events": [e.as_json() for e in self.events],
            "classes": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        }


def parse(text: str) -> KernelEvents:
    """Reads a kernel log of any origin. Never raises; reads at most 4 MiB."""
    log = kernel_log.parse(text)
    found = events(log)
    more = (f"more than {MAX_EVENTS} events: the rest was not joined",) if len(found) >= MAX_EVENTS else ()
    return KernelEvents(found, (*log.doubts, *more))


def events(log: KernelLog, driver: str | None = None) -> tuple[Event, ...]:
    """The log's events, at most 1024. `driver` is its version (580.95.05): it fixes the layout of Xid 144-150."""
    found = [
        *_repeated(kernel_join.causes(log.xids, driver)),
        *_of_switches(log.sxids),
    ]
    found += _lost(log, {e.pci for e in found if e.kind is Kind.LOST})
    found = _limited(log, found)
    found += [
        Event("line", Kind.UNKNOWN, Rule.SERVICE, None, None, line[:_TEXT], "not understood") for line in log.unread
    ]
    return tuple(found[:MAX_EVENTS])


def rules_on(text: str, pci: str, driver: str | None = None) -> tuple[Rule, ...]:
    """What the events of the GPU at this address ask for, in the log's order; empty where the log has none of it."""
    found = events(kernel_log.parse(text), driver)
    return tuple(e.rule for e in found if e.kind is not Kind.NOTE and same_address(e.pci, pci))


def same_address(one: str | None, other: str | None) -> bool:
    """Whether two PCI addresses are of one device, however they are written; nothing is the same as none."""
    return bool(one) and bool(other) and _address(one or "") == _address(other or "")


def measured(
    text: str, gpus: Mapping[str, int], *, complete: bool = True, driver: str | None = None
) -> list[tuple[str, str, int, int | None]]:
    """(metric, unit, value, gpu) of the log of one run; `gpus` are the planned GPUs, PCI address to index.

    Zero is said of every planned GPU, for the whole log was read. Nothing is said at all when it was not: `complete`
    is False (the burn-in's kernel_log workload did not end `completed`), or the text itself was cut. An event of no
    planned GPU, or of a class nobody knows, counts for the node. NVSwitch errors are counted on the node, not here.
    """
    log = kernel_log.parse(text)
    found = events(log, driver)
    unread = log.truncated or len(log.unread) >= kernel_log.MAX_UNREAD or len(found) >= MAX_EVENTS
    if not complete or unread or _NOT_WHOLE.search(text[-512:]):
        return []
    index = {_address(pci): gpu for pci, gpu in gpus.items()}
    counts = {(kind, gpu): 0 for kind in _COUNTED for gpu in sorted(set(gpus.values()))}
    unplaced = 0
    for event in found:
        if event.source == "sxid" or event.kind in (Kind.NOTE, Kind.CONSEQUENCE):
            continue
        place = (event.kind, index.get(_address(event.pci or ""), -1))
        if place in counts:
            counts[place] += 1
        else:
            unplaced += 1
    said: list[tuple[str, str, int, int | None]] = [
        (f"xid_{kind.value}_events", "count", value, gpu) for (kind, gpu), value in counts.items()
    ]
    return [*said, ("xid_unplaced_events", "count", unplaced, None)]


def _address(pci: str) -> str:
    """`dddd:bb:ss`, of an address as NVML (00000000:1B:00.0), CUDA or the kernel write it."""
    parts = pci.lower().split(".")[0].split(":")
    return ":".join((parts[0][-4:].rjust(4, "0"), *parts[1:])) if len(parts) == 3 else pci.lower()


def _of_cause(cause: Cause) -> Event:
    known, first = cause.entry, cause.first
    told = next((x for x in cause.lines if x.address == cause.address and x.address is not None), first)
    all_lines = [*cause.lines, *cause.followers]
    recovery = _worst_recovery(all_lines)
    rule = known.rule if recovery is None else known.rule.worse(recovery_rule(recovery))
    kind = _kind(known.kind, recovery, cause)
    link = first.link if cause.seen else None
    return Event(
        source="xid",
        kind=kind,
        rule=rule,
        pci=first.pci,
        number=48 if any(x.number == 48 for x in cause.lines) else known.number,
        text=(told.text or known.mnemonic)[:_TEXT] if cause.seen else f"named by a follower only: {known.mnemonic}",
        remark=known.remark,
        numbers=tuple(sorted({known.number, *(x.number for x in all_lines)})),
        lines=len(all_lines),
        link=link,
        ends=_ends(kind, first.pci, link),
        address=cause.address,
        location=_location(cause.lines, known.kind),
        recovery=recovery,
        consequences=tuple(f"Xid {x.number} on {x.pci}: {x.text}"[:_TEXT] for x in cause.followers[:MAX_FOLLOWERS]),
    )


def _kind(kind: Kind, recovery: int | None, cause: Cause) -> Kind:
    """A 154 alone tells of a fault by the action it asks for; one that asks for none is a note."""
    if cause.entry.number == RECOVERY:
        return Kind.NOTE if recovery == 0 else Kind.HARDWARE
    return kind


def _worst_recovery(lines: Iterable[Xid]) -> int | None:
    worst: int | None = None
    for xid in lines:
        if xid.recovery is not None:
            both = worse_recovery(xid.recovery.before, xid.recovery.after)
            worst = both if worst is None else worse_recovery(worst, both)
    return worst


def _ends(kind: Kind, pci: str, link: int | None) -> tuple[str, ...]:
    if kind is not Kind.LINK or link is None or link < 0:
        return ()
    return (f"{pci} link {link}", f"what {pci} link {link} is joined to")


def _location(lines: Iterable[Xid], kind: Kind) -> str | None:
    """The part of the chip: DRAM or SRAM by partition (171 and 172 know best), an SM by GPC and TPC."""
    names = _MEMORY_PARTS if kind is Kind.MEMORY else _SM_PARTS
    found: list[tuple[bool, int, str]] = []
    for xid in lines:
        parts = [(name, int(digits, 0) if "x" in digits else int(digits)) for name, digits in _PART.findall(xid.text)]
        words = [f"{name} {number}" for name, number in parts if name in names][:6]
        part = memory_part(xid.text) if kind is Kind.MEMORY else None
        if part or words:
            found.append((xid.number in (171, 172), len(words), " ".join((*((part,) if part else ()), *words))))
    return max(found, key=lambda f: f[:2])[2] if found else None


def _repeated(found: Iterable[Cause]) -> Iterator[Event]:
    """Events; one whose number came in an earlier burst on the same GPU (and link) takes the rule for repeats."""
    bursts: dict[tuple[str | None, int | None, int | None], int] = {}
    for cause in found:
        event = _of_cause(cause)
        key = (event.pci, event.number, event.link if event.kind is Kind.LINK else None)
        known = entry(event.number) if event.number is not None else None
        again = bursts.setdefault(key, cause.burst) != cause.burst
        if known is not None and again and known.repeat is not None and event.kind is not Kind.NOTE:
            rule, kind = event.rule.worse(known.repeat), known.repeat_kind or event.kind
            yield replace(event, rule=rule, kind=kind, remark=f"again on this GPU; {event.remark}".rstrip("; "))
        else:
            yield event


def _of_switches(lines: Iterable[Sxid]) -> Iterator[Event]:
    by_event: dict[tuple[str, int, int | None], list[Sxid]] = {}
    for sxid in lines:
        if not sxid.detail:
            by_event.setdefault((sxid.pci, sxid.number, sxid.link), []).append(sxid)
    for (pci, number, link), same in by_event.items():
        kind, rule = sxid_rule(number, same[0].severity)
        ends = (f"{same[0].switch or pci} port {link}", "the GPU joined to it")[: 2 if link is not None else 0]
        yield Event("sxid", kind, rule, pci, number, same[0].text[:_TEXT], lines=len(same), link=link, ends=ends)


def _lost(log: KernelLog, known: set[str | None]) -> Iterator[Event]:
    """GPUs that are gone without an Xid: lost at probe, or whose firmware does not start."""
    remark = "cold boot once; again: GPU, riser, slot or power"
    for pci in log.fallen_off_bus:
        if pci not in known:
            yield Event("line", Kind.LOST, Rule.REBOOT, pci, None, "fell off the bus, without an Xid", remark)
    for pci in log.init_failed:
        if pci not in known and pci not in log.fallen_off_bus:
            yield Event("line", Kind.LOST, Rule.REBOOT, pci, None, "the driver could not initialise it", remark)


def _limited(log: KernelLog, found: list[Event]) -> list[Event]:
    """A GPU whose errors the driver no longer prints needs the reset that its line speaks of."""
    for pci in log.rate_limited:
        told = next((n for n in reversed(range(len(found))) if found[n].pci == pci and found[n].source == "xid"), None)
        if told is None:
            found.append(Event("line", Kind.DRIVER, Rule.RESET_AND_RERUN, pci, None, "its errors are rate limited"))
        else:
            event = found[told]
            remark = f"{event.remark}; more of it was not printed".lstrip("; ")
            found[told] = replace(event, rule=event.rule.worse(Rule.RESET_AND_RERUN), remark=remark)
    return found
