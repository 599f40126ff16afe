"""Full disks, wrong files, wrong servers: a clear error each, and nothing half recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from toolkit.errors import BusyError, UndecidedError, UsageError
from toolkit.ledger import EventKind, Ledger, LedgerError, LedgerFullError, NewEvent
from toolkit.ledger.postgresql import PostgreSql

FILL = """
import resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from toolkit.ledger import Change, EventKind, Ledger, LedgerFullError, NewEvent
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage

url, artifacts, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger.open(url, artifacts, "x", lambda: datetime.now(UTC))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
done = 0
try:
    for number in range(100_000):
        node = f"node{number}"
        run = ledger.start_run("demo", node, Stage.IMAGE)
        change = Change(NodeState.PLANNED, Move.IMAGE)
        ledger.finish_run(run, Outcome.PASSED, message="x" * 2000, change=change)
        done += 1
except LedgerFullError as refused:
    print(done, refused)
    try:
        ledger.artifacts.put(b"y" * (8 << 20))
    except LedgerFullError as also:
        print(also)
        sys.exit(refused.exit_code)
"""


def fill(url: str, artifacts: Path, limit: int) -> str:
    child = [sys.executable, "-c", FILL, url, str(artifacts), str(limit)]
    ended = subprocess.run(child, capture_output=True, text=True, check=False)
    assert ended.returncode == UndecidedError.exit_code, ended.stderr
    return ended.stdout


def assert_told_and_whole(
    told: str, reopen: Callable[[], Ledger], assert_whole: Callable[[Ledger, str], None], artifacts: Path
) -> None:
    assert "could not be written" in told
    assert "nothing was recorded" in told
    assert "free space there and run the same command again" in told
    ledger = reopen()
    assert_whole(ledger, "demo")
    assert len(ledger.node_states("demo")) == int(told.split(maxsplit=1)[0]) > 0
    ledger.append(NewEvent(EventKind.NOTE, "demo"))
    assert list((artifacts / "incoming").iterdir()) == []


def test_a_ledger_that_may_not_grow_records_nothing_half(tmp_path: Path, clock, assert_whole) -> None:
    """As under a quota: the run that did not fit is not there, and the ledger goes on once there is room."""
    url, artifacts = f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts"
    told = fill(url, artifacts, 1 << 20)
    assert_told_and_whole(told, lambda: Ledger.open(url, artifacts, "x", clock), assert_whole, artifacts)


@pytest.mark.root
def test_a_full_disk_records_nothing_half(tmp_path: Path, clock, assert_whole) -> None:
    """A file system of 2 MiB, really full."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        url, artifacts = f"sqlite:///{disk}/ledger.db", disk / "artifacts"
        told = fill(url, artifacts, 0)
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        ledgers: list[Ledger] = []

        def reopen() -> Ledger:
            ledgers.append(Ledger.open(url, artifacts, "x", clock))
            return ledgers[0]

        assert_told_and_whole(told, reopen, assert_whole, artifacts)
        ledgers[0].close()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_postgresql_says_the_same() -> None:
    """SQLSTATE 53100 is the server's disk."""
    full = PostgreSql("postgresql://rack@db/ledger").explain(psycopg.errors.DiskFull("No space left on device"))
    assert isinstance(full, LedgerFullError)
    assert "nothing was recorded" in str(full)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, clock) -> None:
    """It is somebody's file."""
    file = tmp_path / "ledger.db"
    file.write_bytes(b"rack: demo\n" * 500)
    with pytest.raises(LedgerError, match="no SQLite database"):
        Ledger.open(f"sqlite:///{file}", tmp_path, "x", clock)
    assert file.read_bytes() == b"rack: demo\n" * 500


def test_a_damaged_ledger_is_said_to_be(tmp_path: Path, clock) -> None:
    """Pages overwritten by something else."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    with Ledger.open(url, tmp_path, "x", clock) as ledger:
        ledger.append_all([NewEvent(EventKind.NOTE, "demo", body={"x": "y" * 3000}) for _ in range(50)])
    file = tmp_path / "ledger.db"
    content = bytearray(file.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    file.write_bytes(content)
    with pytest.raises(LedgerError, match="damaged"), Ledger.open(url, tmp_path, "x", clock) as ledger:
        ledger.events()


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path, clock) -> None:
    """As is a path through a file."""
    with pytest.raises(LedgerError, match="check the owner and the permissions"):
        Ledger.open(f"sqlite:///{tmp_path}", tmp_path, "x", clock)
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be made"):
        Ledger.open(f"sqlite:///{tmp_path}/file/ledger.db", tmp_path, "x", clock)


def test_a_read_only_ledger_is_refused_for_writing(tmp_path: Path, clock) -> None:
    """Another user's file: the error names it and what to check."""
    folder = tmp_path / "theirs"
    url = f"sqlite:///{folder}/ledger.db"
    Ledger.open(url, tmp_path, "x", clock).close()
    script = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from toolkit.errors import RackproofError; from toolkit.ledger import EventKind, Ledger, NewEvent\n"
        "try:\n"
        "    with Ledger.open(sys.argv[1], Path('/nowhere'), 'x', lambda: datetime.now(UTC)) as ledger:\n"
        "        ledger.append(NewEvent(EventKind.NOTE, 'demo'))\n"
        "except RackproofError as refused:\n"
        "    print(type(refused).__name__, refused)\n"
    )
    (folder / "ledger.db").chmod(0o444)
    folder.chmod(0o555)
    # root is not asked for permissions; without this capability it is
    as_a_user = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    child = [*as_a_user, sys.executable, "-c", script, url]
    told = subprocess.run(child, capture_output=True, text=True, check=True).stdout
    folder.chmod(0o755)
    assert told.startswith("LedgerError")
    assert "check the owner and the permissions" in told


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger.db",
        "mysql://root:hunter2@db/x",
        "sqlite://",
        "postgresql://u:hunter2@[h/x",
        "postgres://u:hunter2%zz@h",
    ],
)
def test_a_wrong_url_is_a_usage_error(url: str, tmp_path: Path, clock) -> None:
    """And shows no password."""
    with pytest.raises(UsageError) as refused:
        Ledger.open(url, tmp_path, "x", clock)
    assert "hunter2" not in str(refused.value)


def test_a_wrong_password_is_said_without_it(server: str, tmp_path: Path, clock) -> None:
    """Neither in the message nor in the chain of causes."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS locked")
        connection.execute("CREATE ROLE locked LOGIN PASSWORD 'correct'")
    url = server.replace("user=postgres", "user=locked&password=hunter2")
    with pytest.raises(LedgerError, match="password authentication failed") as refused:
        Ledger.open(url, tmp_path, "x", clock)
    assert "hunter2" not in str(refused.value)
    assert "user=locked" in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_server_that_is_not_there_is_undecided(tmp_path: Path, clock) -> None:
    """Trying again may help."""
    with pytest.raises(LedgerError, match="does not answer"):
        Ledger.open(f"postgresql:///ledger?host={tmp_path}", tmp_path, "x", clock)


def test_a_standby_or_a_reader_may_not_write(postgresql_url: str, tmp_path: Path, clock) -> None:
    """A read-only transaction is refused with the user's remedy."""
    Ledger.open(postgresql_url, tmp_path, "x", clock).close()
    read_only = postgresql_url.replace("options=", "options=-cdefault_transaction_read_only%3Don%20")
    with Ledger.open(read_only, tmp_path, "x", clock) as ledger:
        assert ledger.events() == ()
        with pytest.raises(LedgerError, match="may not be written"):
            ledger.append(NewEvent(EventKind.NOTE, "demo"))


def test_a_server_that_restarted_is_found_again(server: str, postgresql_url: str, tmp_path: Path, clock) -> None:
    """Idle connections died with it; the next call opens new ones."""
    with Ledger.open(postgresql_url, tmp_path, "x", clock) as ledger:
        ledger.append(NewEvent(EventKind.NOTE, "demo"))
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'rackproof' AND pid <> pg_backend_pid()"
            )
        assert ledger.append(NewEvent(EventKind.NOTE, "demo")).id == 2


def test_a_ledger_locked_by_another_is_busy(opened, monkeypatch) -> None:
    """After a patience, and with the way to see who it is."""
    from toolkit.ledger import postgresql, sqlite

    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(postgresql, "BUSY_TIMEOUT_S", 0.2)
    first, second = opened(), opened()
    with first._store.write(), pytest.raises(BusyError, match="locked"):
        second.append(NewEvent(EventKind.NOTE, "demo"))
    assert second.append(NewEvent(EventKind.NOTE, "demo")).id == 1
