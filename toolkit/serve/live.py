"""What happens while a page is open, pushed to it: server-sent events (html.spec.whatwg.org, 9.2) from the journal.

One poller for all pages, and none while no page is open. A page that was away says which event it saw last and is told
the rest; one that was away too long, or reads too slowly, is told to load itself anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import RackproofError
from toolkit.ledger import Event, EventKind, Ledger
from toolkit.report.progress import progress_file
from toolkit.report.text import printable
from toolkit.serve.activity import words_of
from toolkit.settings import Settings

MAX_CLIENTS = 64
POLL_S = 1.0
HEARTBEAT_S = 15.0  # proxies cut a connection that says nothing for a minute or less
RETRY_MS = 2_000
_BATCH = 500
_MOST_MISSED = 1_000
_QUEUE = 256
_SHOWN = frozenset(EventKind) - {EventKind.ARTIFACT_STORED}


class TooManyError(Exception):
    """As many pages are open as are served."""


@dataclass(frozen=True, slots=True)
class Told:
    """One message. `number`: the event's id; None: of something that is not in the journal."""

    name: str
    rack: str
    body: dict[str, Any]
    number: int | None = None

    def text(self) -> bytes:
        """As it goes over the wire. JSON has no line breaks, so that nothing in it can begin another message."""
        head = "" if self.number is None else f"id: {self.number}\n"
        return f"{head}event: {self.name}\ndata: {json.dumps(self.body)}\n\n".encode()


_RESYNC = Told("resync", "", {})


@dataclass(eq=False, slots=True)
class _Client:
    rack: str
    queue: asyncio.Queue[Told | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE))


@dataclass(slots=True)
class Hub:
    """Pages that are open. All of it runs in the server's loop."""

    ledger: Ledger
    settings: Settings
    _clients: set[_Client] = field(default_factory=set)
    _poller: asyncio.Task[None] | None = None
    _after: int = 0
    _said: dict[str, int] = field(default_factory=dict)  # rack -> mtime_ns of its progress
    _stopped: bool = False
    _joining: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def stream(self, rack: str, after: int | None) -> AsyncIterator[bytes]:
        """What a page is sent until it goes away, or the server does.

        rack   of which; empty: of all
        after  the event that it saw last; None: it is new
        Raises TooManyError before anything is sent.
        """
        if len(self._clients) >= MAX_CLIENTS or self._stopped:
            raise TooManyError
        client = _Client(rack)
        try:
            missed = await self._join(client, after)
        except BaseException:
            self._clients.discard(client)
            raise
        return self._sent(client, missed)

    def stop(self) -> None:
        """Ends every stream at once."""
        self._stopped = True
        if self._poller is not None:
            self._poller.cancel()
        self._end_streams()

    def _end_streams(self) -> None:
        """Whoever is there comes again: to a new poller, or to no server."""
        for client in self._clients:
            _put(client, None)

    async def _sent(self, client: _Client, missed: list[Told]) -> AsyncIterator[bytes]:
        try:
            yield f"retry: {RETRY_MS}\n: rackproof\n\n".encode()
            for told in missed:
                yield told.text()
            while not self._stopped:
                try:
                    next_one = await asyncio.wait_for(client.queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if next_one is None:
                    return
                yield next_one.text()
        finally:
            self._clients.discard(client)

    async def _join(self, client: _Client, after: int | None) -> list[Told]:
        """What it missed up to now. All that comes later the poller tells it: no event is lost, none comes twice."""
        async with self._joining:
            if not self._clients:
                self._after = await asyncio.to_thread(self.ledger.last_event)
            if self._poller is None or self._poller.done():
                self._poller = asyncio.create_task(self._poll())
                self._poller.add_done_callback(lambda _: self._end_streams())
            self._clients.add(client)
            until = self._after
        if after is None or after >= until:
            return []
        if until - after > _MOST_MISSED:
            return [_RESYNC]
        found = await asyncio.to_thread(self.ledger.events, after=after, limit=until - after)
        return [told for event in found if event.id <= until for told in _told(event) if _concerns(told, client)]

    async def _poll(self) -> None:
        while not self._stopped:
            await asyncio.sleep(POLL_S)
            if not self._clients:
                continue
            with suppress(RackproofError):  # the page says so itself when it is loaded; the next look may go well
                events = await asyncio.to_thread(self.ledger.events, after=self._after, limit=_BATCH)
                if events:
                    self._after = events[-1].id
                for told in (told for event in events for told in _told(event)):
                    self._tell(told)
            for told in await asyncio.to_thread(self._progress):
                self._tell(told)

    def _tell(self, told: Told) -> None:
        for client in self._clients:
            if _concerns(told, client):
                _put(client, told)

    def _progress(self) -> list[Told]:
        """Racks whose driver said something since the last look."""
        found: dict[str, int] = {}
        with suppress(OSError):
            for file in progress_file(self.settings, "x").parent.glob("*.json"):
                with suppress(OSError):
                    found[file.stem] = file.stat().st_mtime_ns
        before, self._said = self._said, found
        return [Told("progress", rack, {"rack": rack}) for rack, at in found.items() if before.get(rack) != at]


def _concerns(told: Told, client: _Client) -> bool:
    return not client.rack or told.rack in ("", client.rack)


def _put(client: _Client, told: Told | None) -> None:
    """A page that does not keep up loses what it has not read, and is told so."""
    try:
        client.queue.put_nowait(told)
    except asyncio.QueueFull:
        while not client.queue.empty():
            client.queue.get_nowait()
        client.queue.put_nowait(None if told is None else _RESYNC)


def _told(event: Event) -> list[Told]:
    if event.kind not in _SHOWN:
        return []
    rack = event.rack.removeprefix("rack/")
    body = {
        "rack": printable(rack, 80),
        "node": printable(event.node, 80),
        "kind": event.kind.value,
        "words": words_of(event),
        "at": event.at.isoformat(timespec="seconds"),
    }
    return [Told("ledger", rack, body, event.id)]
