"""Sessions at a BMC (DSP0266, "Session management"): one for a dialogue, ended with it, and none left behind.

A BMC has few, and one whose owner was killed stays open until it times out. So every session has a file, locked while
its owner lives, from before it is asked for: whoever comes next ends at the BMC what a dead owner's file names. What
remains is a kill between the BMC's answer and our line in the file; that one the BMC's own SessionTimeout ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from toolkit.errors import UndecidedError
from toolkit.redfish.failures import BmcAnswerError
from toolkit.redfish.wire import ROOT, Wire, is_path, link

_MAX_BYTES = 4096


class Login(StrEnum):
    """How a dialogue is authenticated."""

    SESSION = "session"
    NO_SESSIONS = "basic: the BMC has no sessions"
    SESSIONS_FULL = "basic: the BMC has no session left"


@contextmanager
def dialogue(wire: Wire, folder: Path) -> Iterator[Login]:
    """What is asked inside is asked in one session, whose file is in `folder` (mode 0700); else by Basic, and says so.

    A BMC without sessions, or with none left, is no reason not to ask it: every request then has the password in it,
    under the same TLS.
    """
    where = sessions_path(wire)
    if not where:
        yield Login.NO_SESSIONS
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    end_abandoned(wire, folder)
    with _locked_file(wire, folder) as file:
        try:
            made = wire.log_in(where)
        except BmcAnswerError as refusal:
            file.unlink(missing_ok=True)
            yield Login.SESSIONS_FULL if refusal.status == 503 else Login.NO_SESSIONS
            return
        file.write_text(json.dumps({"bmc": wire.url, "session": made}))
        try:
            yield Login.SESSION
        finally:
            _end(wire, made, file)


def sessions_path(wire: Wire) -> str:
    """The collection that sessions are made in; empty where the BMC has none."""
    root = wire.get(ROOT, "looking for sessions")
    found = link(root, "Links", "Sessions")
    service = "" if found else link(root, "SessionService")
    return found or (link(wire.get_or_none(service) or {}, "Sessions") if service else "")


def end_abandoned(wire: Wire, folder: Path) -> int:
    """Ends sessions at this BMC whose owner died; how many. A BMC that cannot be asked keeps them on our record."""
    ended = 0
    for file in sorted(folder.glob(f"{_prefix(wire)}-*.json")):
        with suppress(OSError), file.open("r+") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its owner lives
            if _forget(wire, _session_of(held.read(_MAX_BYTES))):
                file.unlink(missing_ok=True)
                ended += 1
    return ended


def _forget(wire: Wire, session: str) -> bool:
    """Whether the BMC has it no more."""
    if not session:
        return True  # killed before the BMC's answer was written down
    try:
        wire.delete(session, "ending a session that was left open")
    except BmcAnswerError as answer:
        return answer.status == 404
    except UndecidedError:
        return False
    return True


def _end(wire: Wire, session: str, file: Path) -> None:
    """Logs out. What cannot be ended now stays on record, and whoever comes next ends it."""
    try:
        wire.delete(session, "ending the session")
    except BmcAnswerError as answer:
        if answer.status != 404:
            return
    except UndecidedError:
        return
    finally:
        wire.use_token("")
    file.unlink(missing_ok=True)


@contextmanager
def _locked_file(wire: Wire, folder: Path) -> Iterator[Path]:
    """A file of this dialogue's own, locked for as long as the process lives."""
    file = folder / f"{_prefix(wire)}-{os.getpid()}-{os.urandom(4).hex()}.json"
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield file


def _prefix(wire: Wire) -> str:
    return hashlib.sha256(wire.url.encode()).hexdigest()[:16]


def _session_of(text: str) -> str:
    with suppress(ValueError):
        found = json.loads(text)
        session = found.get("session") if isinstance(found, dict) else None
        if isinstance(session, str) and is_path(session):
            return session
    return ""
