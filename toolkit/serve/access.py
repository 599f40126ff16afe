"""Who may look: by what address the pages are reached, by what names, with what token. Nothing here is ever logged.

A token is made by us, kept in a file that only its owner reads, and typed once into a form (or sent as a Bearer token
by a program). What the browser keeps is the number of a session, which dies with the server.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import UsageError

TOKEN_BYTES = 32
SHORTEST_TOKEN = 24  # characters of one that the operator wrote
LONGEST_TOKEN = 512
MAX_SESSIONS = 256
SESSION_S = 12 * 3600.0


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine reaches that address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def token_of(file: Path) -> str:
    """The token in that file; makes the file, for its owner alone, where it is missing.

    UsageError for one that others may read or write, that is no plain file, or whose token is too short to be one.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return _made(file)
    except OSError as failure:
        raise UsageError(f"the token file {file} cannot be read: {failure.strerror}", _HINT) from failure
    with open(handle, encoding="ascii", errors="replace") as opened:  # noqa: PTH123 - a descriptor, not a path
        told = os.fstat(handle)
        if not stat.S_ISREG(told.st_mode) or told.st_uid != os.geteuid() or stat.S_IMODE(told.st_mode) & 0o077:
            raise UsageError(f"the token file {file} is not its owner's alone", f"chmod 600 {file}; {_HINT}")
        token = opened.read(LONGEST_TOKEN + 2).strip()
    if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN or not token.isprintable() or " " in token:
        raise UsageError(
            f"the token in {file} is not {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters in one word", _HINT
        )
    return token


_HINT = "remove it, and a new one is made"


def _made(file: Path) -> str:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="ascii") as opened:  # noqa: PTH123 - a descriptor, not a path
            opened.write(token + "\n")
    except OSError as failure:
        raise UsageError(
            f"the token file {file} cannot be made: {failure.strerror}", "name one by --token"
        ) from failure
    return token


def host_names(bind: str, names: Iterable[str]) -> frozenset[str]:
    """What a browser may call this server by: any other name leads here by a trick with DNS ("rebinding").

    On a loopback address also `localhost`; on any other, its address and the machine's own names.
    """
    found = {bind.lower(), *(name.lower().rstrip(".") for name in names)}
    if is_loopback(bind):
        found |= {"localhost", "127.0.0.1", "::1"}
    else:
        found |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(found - {"0.0.0.0", "::", ""})  # noqa: S104 - told apart, not bound to


def host_of(header: str) -> str:
    """The name in a Host header, without its port; empty where it is none."""
    if header.startswith("["):
        name, bracket, port = header[1:].partition("]")
        wrong = not bracket or (port and not port.startswith(":"))
        return "" if wrong else name.lower()
    return header.partition(":")[0].lower().rstrip(".")


@dataclass(slots=True)
class Access:
    """What a request must bring.

    names  hosts that it may name
    token  None: everybody on this machine may look
    """

    names: frozenset[str]
    token: str | None = None
    _sessions: dict[bytes, float] = field(default_factory=dict)  # sha256 of a session's number -> its end

    def knows(self, token: str) -> bool:
        """Whether that is the token. Takes the same time whatever is wrong with it."""
        if self.token is None:
            return True
        return hmac.compare_digest(_digest(token), _digest(self.token))

    def begin(self) -> str:
        """A new session's number. The oldest one ends where there are too many."""
        self._end_old()
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        number = secrets.token_urlsafe(TOKEN_BYTES)
        self._sessions[_digest(number)] = time.monotonic() + SESSION_S
        return number

    def end(self, number: str) -> None:
        """Ends a session."""
        self._sessions.pop(_digest(number), None)

    def holds(self, number: str) -> bool:
        """Whether such a session was begun here and has not ended. Looked up by its hash: no comparison leaks it."""
        end = self._sessions.get(_digest(number))
        return end is not None and end > time.monotonic()

    def _end_old(self) -> None:
        now = time.monotonic()
        self._sessions = {number: end for number, end in self._sessions.items() if end > now}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
