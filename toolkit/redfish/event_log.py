"""A BMC's event logs: evidence, by its own word. Bounded, each entry once, newest kept (LogService, DSP0268)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolkit.redfish.text import printable
from toolkit.redfish.wire import ROOT, Document, Wire, each, is_path, last, link

MAX_ENTRIES = 2000
MAX_PAGES = 64
_MAX_MESSAGE = 500
SEVERITIES = ("OK", "Warning", "Critical")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry. `created` is the BMC's own clock, as it wrote it; `severity` is empty for a word that is none."""

    log: str
    id: str
    created: str
    severity: str
    message: str


@dataclass(frozen=True, slots=True)
class Harvest:
    """What the logs held. `cut`: there was more than is kept, and the oldest are left out."""

    entries: tuple[LogEntry, ...]
    logs: tuple[str, ...]
    cut: bool

    @property
    def severities(self) -> Mapping[str, int]:
        """How many of each; `""` are those that name no severity."""
        return dict(Counter(entry.severity for entry in self.entries))


def harvest(wire: Wire, most: int = MAX_ENTRIES) -> Harvest:
    """All logs of systems and managers, each entry once by id and date, oldest first, at most `most` of the newest."""
    found: dict[tuple[str, str, str], LogEntry] = {}
    logs = tuple(dict.fromkeys(_logs(wire)))
    cut = False
    for log in logs:
        pages = 0
        for document in _pages(wire, log):
            pages += 1
            for raw in document:
                entry = _entry(log, raw)
                if entry is not None:
                    found[(entry.log, entry.id, entry.created)] = entry
        cut = cut or pages >= MAX_PAGES
    ordered = sorted(found.values(), key=lambda e: (e.created, e.log, len(e.id), e.id))
    return Harvest(tuple(ordered[-most:]), logs, cut or len(ordered) > most)


def _logs(wire: Wire) -> Iterator[str]:
    """Paths of collections of entries."""
    doing = "looking for event logs"
    root = wire.get(ROOT, doing)
    for name in ("Systems", "Managers"):
        place = link(root, name)
        for _, owner in each(wire, place, doing) if place else ():
            services = link(owner, "LogServices")
            for _, service in each(wire, services, doing) if services else ():
                entries = link(service, "Entries")
                if entries:
                    yield entries


def _pages(wire: Wire, path: str) -> Iterator[list[object]]:
    for _ in range(MAX_PAGES):
        document = wire.get_or_none(path, "reading an event log")
        listed = document.get("Members") if document else None
        if not isinstance(listed, list):
            return
        yield [_whole(wire, one) for one in listed[:MAX_ENTRIES]]
        following = document.get("Members@odata.nextLink") if document else None
        if not is_path(following) or not listed:
            return
        path = str(following)


def _whole(wire: Wire, member: object) -> object:
    """Most BMCs expand entries in place; of others each is asked for."""
    if isinstance(member, Mapping) and "Message" not in member and "Created" not in member and link(member):
        return wire.get_or_none(link(member), "reading an event log")
    return member


def _entry(log: str, raw: object) -> LogEntry | None:
    if not isinstance(raw, Mapping):
        return None
    told: Document = raw
    severity = told.get("Severity")
    identity = printable(told.get("Id")) or last(link(told))
    if not identity:
        return None
    return LogEntry(
        log, identity, printable(told.get("Created")), severity if severity in SEVERITIES else "",
        printable(told.get("Message"), _MAX_MESSAGE),
    )  # fmt: skip
