"""The record file of one run: one writer at a time, append-only, on disk when it says so."""

from __future__ import annotations

import fcntl
import os
from datetime import datetime, timezone
from pathlib import Path

from burnin import record

RECORDS = "records.jsonl"
_LOCK = "lock"


class JournalError(Exception):
    """The records cannot be kept: what failed, on which file, what next."""


class BusyError(JournalError):
    """Another process runs a suite in this folder."""


def utc_now() -> str:
    """The time as records carry it: RFC 3339, UTC, milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # noqa: UP017 - 3.10


class Journal:
    """Appends records to FOLDER/records.jsonl under an exclusive lock held until the process ends.

    `ended` is true when the run has its `end` record already; `attempt` counts from 1.
    """

    def __init__(self, folder: Path, run: str) -> None:
        """Open the folder for `run`. Raises BusyError, or JournalError if it holds another run or is unusable."""
        self.folder = folder
        self._path = folder / RECORDS
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _take(self._lock, folder)
            starts, self.ended = _history(self._path, run)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if not self.ended:
                _cut_torn_line(self._fd)
            _sync_folder(folder)
        except OSError as error:
            raise _unusable(self._path, error) from error
        self.attempt = starts + 1

    def append(self, item: record.Record, *, durable: bool = False) -> None:
        """Add a record; `durable` waits until it is on disk. Raises JournalError (disk full, folder gone)."""
        line = record.dump(item).encode()
        try:
            while line:  # a disk that is nearly full takes a part, and says why at the next try
                line = line[os.write(self._fd, line) :]
            if durable:
                os.fsync(self._fd)
        except OSError as error:
            raise _unusable(self._path, error) from error

    def artifact_path(self, name: str) -> Path:
        """Where an artifact of this attempt goes: a later attempt never overwrites an earlier one's evidence."""
        return self.folder / f"{self.prefix}{name}"

    @property
    def prefix(self) -> str:
        """What the names of this attempt's artifacts begin with."""
        return "" if self.attempt == 1 else f"attempt{self.attempt}-"

    def close(self) -> None:
        """Give the folder back."""
        os.close(self._fd)
        os.close(self._lock)


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(f"another process runs a suite in {folder}; next: wait for its end record") from error


def _history(path: Path, run: str) -> tuple[int, bool]:
    """How many attempts the file holds, and whether the run ended. Raises JournalError for a foreign file."""
    if not path.exists():
        return 0, False
    starts, ended = 0, False
    with path.open("rb") as stream:
        try:
            for item in record.read(stream):
                if isinstance(item, record.Start):
                    starts += 1
                    if item.run != run:
                        raise JournalError(f"{path} holds run {item.run}, not {run}; next: give each run its own --out")
                ended = ended or isinstance(item, record.End)
        except record.RecordError as error:
            raise JournalError(f"{path} is not a record file ({error}); next: give another --out") from error
    return starts, ended


def _cut_torn_line(fd: int) -> None:
    """A writer that was killed can leave half a line: no record, and it would spoil the next one."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, record.MAX_LINE_BYTES, max(0, size - record.MAX_LINE_BYTES))
    os.ftruncate(fd, size - len(tail) + tail.rfind(b"\n") + 1)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unusable(path: Path, error: OSError) -> JournalError:
    return JournalError(f"cannot keep records in {path}: {error.strerror or error}; next: free or mount the disk")
