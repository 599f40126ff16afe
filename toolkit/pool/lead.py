"""One regulator of a pool at a time, on one machine: a lock on a file that the kernel gives back however we end."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from toolkit.errors import BusyError, UndecidedError

_MAX_HOLDER = 200


@contextmanager
def lead(path: Path, holder: str, pool: str) -> Iterator[None]:
    """Holds the lead of `pool` for the block. BusyError, naming the holder, where another process holds it."""
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _take(held.enter_context(path.open("a+", encoding="utf-8", errors="replace")), holder, pool)
        except OSError as exc:
            raise UndecidedError(
                f"{path}, by which regulators of {pool} take turns, cannot be written: {exc.strerror}",
                "free space or correct its owner and permissions; then the same command again",
            ) from exc
        yield


def _take(lock: IO[str], holder: str, pool: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        other = lock.read(_MAX_HOLDER).strip() or "another regulator"
        raise BusyError(
            f"{other} admits nodes to {pool}", "wait for it to end, or stop it; then run the same command again"
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{holder[:_MAX_HOLDER]}\n")
    lock.flush()
