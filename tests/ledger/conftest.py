"""One ledger, two databases: every test that takes `url` or `ledger` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import psycopg
import pytest

from toolkit.ledger import EventKind, Ledger, Run
from toolkit.rack.lifecycle import Outcome

_SCHEMAS = count(1)


@dataclass
class Clock:
    """A clock that stands still unless it is told to move."""

    now: datetime = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Conninfo URL prefix of a PostgreSQL of our own: Unix socket only, gone with this process."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("needs the Debian package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="rackproof-pg-", dir="/tmp"))
    owner: dict[str, int] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        owner = {"user": nobody.pw_uid, "group": nobody.pw_gid}
    data = folder / "data"
    initdb = [binaries[-1] / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
    subprocess.run([*initdb, "--no-sync"], check=True, capture_output=True, cwd=folder, **owner)
    rules = data / "pg_hba.conf"
    rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    server = subprocess.Popen(
        ["setpriv", "--pdeathsig", "INT", binaries[-1] / "postgres", "-D", data, *settings],
        cwd=folder,
        stderr=subprocess.DEVNULL,
        **owner,
    )
    url = f"postgresql:///postgres?host={folder}&user=postgres"
    try:
        _wait_for(url)
        yield url
    finally:
        server.send_signal(2)
        server.wait(30)
        shutil.rmtree(folder)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def postgresql_url(server: str) -> str:
    """A schema of its own in the server."""
    schema = f"test_{os.getpid()}_{next(_SCHEMAS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return f"{server}&options=-csearch_path%3D{schema}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger URL with nothing behind it yet."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def opened(url: str, tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Ledger]]:
    """Opens the same ledger, as often as asked."""
    ledgers: list[Ledger] = []

    def again() -> Ledger:
        ledgers.append(Ledger.open(url, tmp_path / "artifacts", "tester", clock))
        return ledgers[-1]

    yield again
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def ledger(opened: Callable[[], Ledger]) -> Ledger:
    return opened()


@pytest.fixture
def sql(url: str) -> Callable[[str], list[tuple[object, ...]]]:
    """Statements behind the ledger's back, each committed at once."""

    def execute(statement: str) -> list[tuple[object, ...]]:
        if url.startswith("sqlite"):
            import sqlite3

            with sqlite3.connect(url.removeprefix("sqlite://")) as connection:
                return connection.execute(statement).fetchall()
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return execute


@pytest.fixture
def assert_whole() -> Callable[[Ledger, str], None]:
    """Asserts that ids have no gaps and that the query tables say what the events say."""

    def check(ledger: Ledger, rack: str) -> None:
        events = ledger.events(limit=1_000_000)
        assert [e.id for e in events] == list(range(1, len(events) + 1))
        states: dict[str, str] = {}
        runs: dict[str, str | None] = {}
        for event in (e for e in events if e.rack == rack):
            if event.kind is EventKind.NODE_ENTERED:
                states[event.node] = event.body["state"]
            elif event.kind is EventKind.NODE_MOVED:
                assert states.get(event.node, "PLANNED") == event.body["before"]
                states[event.node] = event.body["after"]
            elif event.kind is EventKind.RUN_STARTED:
                runs[event.body["run"]] = None
            elif event.kind is EventKind.RUN_FINISHED:
                assert runs[event.body["run"]] is None
                runs[event.body["run"]] = event.body["outcome"]
        assert {name: row.state.value for name, row in ledger.node_states(rack).items()} == states
        assert {run.id: _outcome(run) for run in ledger.runs(rack)} == runs

    return check


def _outcome(run: Run) -> str | None:
    return run.outcome.value if isinstance(run.outcome, Outcome) else None
