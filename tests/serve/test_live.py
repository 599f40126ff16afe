"""What is pushed to open pages: in order, none lost, none twice; and the server ends at once with pages open."""

import asyncio
import json
import signal
import socket
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from rehearsal import now, open_ledger
from serving import END_S, serving

from toolkit.ledger import EventKind, Ledger, NewEvent
from toolkit.ledger.holder import this_process
from toolkit.report.progress import EVERY_S, MAX_BYTES, ProgressWriter, progress_file, read_progress
from toolkit.serve import live
from toolkit.serve.live import MAX_CLIENTS, Hub, Told, TooManyError
from toolkit.serve.site import Site

RACK = "demo-small"


class Stream:
    """A page that listens, as a browser's EventSource does."""

    def __init__(self, server, path, **headers):
        self.socket = socket.create_connection((server.host, server.port), timeout=30)
        lines = [f"GET {path} HTTP/1.1", f"Host: {server.netloc}", "Accept: text/event-stream"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.read = b""

    def until(self, wanted):
        """Everything up to these bytes."""
        while wanted not in self.read:
            piece = self.socket.recv(65_536)
            assert piece, self.read
            self.read += piece
        return self.read.decode()

    def ended(self):
        """Whether the other side ends it."""
        while piece := self.socket.recv(65_536):
            self.read += piece
        return True


def events(text):
    """(id, name, data) of each."""
    found = []
    for block in text.split("\n\n"):
        told = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in told:
            found.append((told.get("id"), told["event"], json.loads(told["data"])))
    return found


@pytest.fixture
def pushing(own_copy):
    """A server, and the ledger that somebody else writes to."""
    with serving(own_copy) as running, open_ledger(own_copy) as ledger:
        yield running, ledger


def note(ledger, words, rack=RACK):
    """Something happens."""
    return ledger.append(NewEvent(EventKind.NOTE, rack, "node1", {}, words)).id


def test_a_page_is_told_what_happens_on_its_rack(pushing):
    """And nothing of another's; text of a node cannot begin another message."""
    server, ledger = pushing
    stream = Stream(server, f"/events?rack={RACK}&after={ledger.last_event()}")
    stream.until(b"retry: ")
    note(ledger, "elsewhere", rack="other")
    number = note(ledger, "one\nevent: forged\ndata: {}\n\n<script>")
    told = events(stream.until(b"<script>").replace("\r\n", "\n"))
    assert [(one, name) for one, name, _ in told] == [(str(number), "ledger")]
    assert "forged" in told[0][2]["words"] and "\n" not in told[0][2]["words"]
    stream.socket.close()


def test_a_page_that_was_away_is_told_the_rest_once(pushing):
    """From the event that it saw last, as its browser says."""
    server, ledger = pushing
    seen = note(ledger, "seen")
    missed = [note(ledger, f"missed {n}") for n in range(3)]
    stream = Stream(server, "/events", Last_Event_ID=seen)
    stream.until(b"missed 2")
    later = note(ledger, "later")
    told = events(stream.until(b"later").replace("\r\n", "\n"))
    assert [int(one) for one, _, _ in told] == [*missed, later]
    stream.socket.close()


def test_a_page_that_was_away_too_long_loads_itself_anew(pushing):
    """It is told nothing else."""
    server, ledger = pushing
    ledger.append_all([NewEvent(EventKind.NOTE, RACK, "node1", {}, "x")] * 1_200)
    assert [name for _, name, _ in events(Stream(server, "/events?after=1").until(b"resync\ndata: {}\n\n"))] == [
        "resync"
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_at_once_with_pages_open(lab, number):
    """With status 0: it was asked to."""
    with serving(lab.settings) as server:
        streams = [Stream(server, "/events") for _ in range(3)]
        for stream in streams:
            stream.until(b"retry: ")
        began = time.monotonic()
        server.process.send_signal(number)
        assert all(stream.ended() for stream in streams)
        assert server.process.wait(END_S) == 0
        assert time.monotonic() - began < 3


def test_no_more_pages_are_served_live_than_it_can_bear(lab):
    """The one too many is told to come later; one that leaves makes room."""

    async def many():
        with Ledger.open_to_read(lab.settings.ledger_url, lab.settings.artifacts, now) as ledger:
            hub = Hub(ledger, lab.settings)
            streams = [await hub.stream("", None) for _ in range(MAX_CLIENTS)]
            for stream in streams:
                await anext(stream)
            with pytest.raises(TooManyError):
                await hub.stream("", None)
            await streams[0].aclose()
            await (await hub.stream("", None)).aclose()
            hub.stop()
            assert [piece async for piece in streams[1]] == []

    asyncio.run(many())


def test_a_page_that_says_nothing_is_kept_alive_and_one_that_does_not_read_is_told_to_begin_anew(lab, monkeypatch):
    """A heartbeat is a comment; what overflows is replaced by one word."""
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.05)

    async def slow():
        with Ledger.open_to_read(lab.settings.ledger_url, lab.settings.artifacts, now) as ledger:
            hub = Hub(ledger, lab.settings)
            stream = await hub.stream("", None)
            await anext(stream)
            assert await anext(stream) == b": still here\n\n"
            for n in range(1_000):
                hub._tell(Told("ledger", RACK, {"n": n}, n))
            found = [await anext(stream)]
            while b"resync" not in found[-1]:
                found.append(await anext(stream))
            assert len(found) < 300
            hub.stop()

    asyncio.run(slow())


def test_progress_is_believed_from_the_holder_of_the_lease_alone(own_copy):
    """Of a driver that was killed a file may be left: it says nothing of now."""
    path = progress_file(own_copy, RACK)
    mine = this_process()
    writer = ProgressWriter(path, RACK, mine, now)
    writer.say("node1", "burnin", "hbm sweep\x1b[2J 3 of 40", 0.5, 3)
    with open_ledger(own_copy) as ledger:
        site = Site(own_copy, ledger, now)
        assert site.board.rack(RACK).driver is None
        lease = ledger.acquire(f"rack/{RACK}", mine, timedelta(minutes=1))
        driver = site.board.rack(RACK).driver
        assert driver.holder == mine
        (line,) = site.progress(RACK, driver).lines
        assert (line.node, line.gpu, line.done) == ("node1", 3, 0.5) and "\x1b" not in line.text
        assert site.progress(RACK, replace(driver, holder="bob@elsewhere pid 1")) is None
        assert site.progress(RACK, None) is None
        writer.close()
        assert site.progress(RACK, driver) is None and not path.exists()
        ledger.release(lease)


def test_the_last_word_is_written_even_if_it_came_soon_after_another(tmp_path):
    """Else a page would show for an hour what was true for a moment."""
    path = tmp_path / "progress" / "demo.json"
    writer = ProgressWriter(path, "demo", "me", now)
    for text in ("first", "second", "last"):
        writer.say("node1", "image", text, None, None)
    until = time.monotonic() + 20 * EVERY_S
    while read_progress(path).lines[0].text != "last" and time.monotonic() < until:
        time.sleep(0.02)
    assert read_progress(path).lines[0].text == "last"
    writer.close()
    writer.say("node1", "image", "too late", None, None)
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b'{"schema": "rackproof.dev/progress/v1"}', b"\xff\xfe", b"[" * 100_000,
     b'{"schema":"rackproof.dev/progress/v1","rack":"d","holder":"h","at":"2026-01-01","lines":[]}',
     b'{"schema":"rackproof.dev/progress/v1","rack":"d","holder":"h","at":"2026-01-01T00:00:00+00:00","lines":[[1]]}',
     b" " * (MAX_BYTES + 1)],
)  # fmt: skip
def test_progress_that_does_not_read_is_none(tmp_path, content):
    """Whoever wrote it."""
    path = tmp_path / "demo.json"
    path.write_bytes(content)
    assert read_progress(path) is None
    assert read_progress(tmp_path / "absent.json") is None
