"""Where each GPU sat, by its serial: what every burn-in on record found in which place of which node.

The journal is read once, from its beginning, in pieces; after that only what is new. Until it is read, an answer says
how far the reading has come: a board whose past is not read yet is not a board without a past.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from toolkit.ledger import Event, EventKind, Ledger
from toolkit.report.text import printable

BURNIN = "burnin"  # what the ledger files a node's own burn-in under
_BATCH = 200
_MOST_GPUS = 64  # of a node
_LONGEST = 64  # characters of a serial
MOST_SEATS = 200_000


@dataclass(frozen=True, slots=True)
class Seat:
    """A place, and the first and the last burn-in that found the board there.

    first_event, last_event  of the burn-ins' records in the journal
    """

    rack: str
    node: str
    gpu: int
    pci: str
    first_event: int
    last_event: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Past:
    """Where a board sat, oldest first. `read`: how much of the journal it rests on, 0..1."""

    seats: tuple[Seat, ...]
    read: float


@dataclass(slots=True)
class SeatIndex:
    """All boards of all racks. Safe for threads."""

    ledger: Ledger
    _by_serial: dict[str, list[Seat]] = field(default_factory=dict)
    _held: int = 0
    _to: int = 0
    _newest: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, serial: str) -> Past:
        """Where the board of that serial sat."""
        with self._lock:
            read = 1.0 if self._newest == 0 else min(1.0, self._to / self._newest)
            return Past(tuple(self._by_serial.get(serial, ())), read)

    def read_some(self, newest: int) -> bool:
        """Reads a piece of the journal up to that event; False where nothing is left to read."""
        with self._lock:
            self._newest = max(self._newest, newest)
            if self._to >= self._newest:
                return False
            found = self.ledger.events(kind=EventKind.OBSERVED, what=BURNIN, after=self._to, limit=_BATCH)
            for event in found:
                self._take(event)
            self._to = found[-1].id if len(found) == _BATCH else self._newest
            return self._to < self._newest

    def _take(self, event: Event) -> None:
        for gpu, serial, pci in gpus_of(event):
            seats = self._by_serial.setdefault(serial, [])
            if seats and (seats[-1].rack, seats[-1].node, seats[-1].gpu) == (event.rack, event.node, gpu):
                seats[-1] = replace(seats[-1], last_event=event.id, last_at=event.at, pci=pci)
            elif self._held < MOST_SEATS:
                self._held += 1
                seats.append(Seat(event.rack, event.node, gpu, pci, event.id, event.id, event.at, event.at))


def gpus_of(event: Event) -> Iterator[tuple[int, str, str]]:
    """(GPU, serial, PCI address) as a burn-in's record has them; what is no serial is left out."""
    details = event.body.get("details")
    gpus = details.get("gpus") if isinstance(details, dict) else None
    for gpu, told in list(gpus.items())[:_MOST_GPUS] if isinstance(gpus, dict) else ():
        if str(gpu).isdigit() and isinstance(told, list) and len(told) == 2:
            serial = printable(str(told[0]), _LONGEST)
            if serial:
                yield int(gpu), serial, printable(str(told[1]), _LONGEST)


def names(part: str, serial: str) -> bool:
    """Whether the serial stands in the words as a word of its own: 1234 is not named by 12345."""
    return serial in "".join(c if c.isalnum() or c in "._:-/" else " " for c in part).split()
