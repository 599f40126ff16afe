"""Commands and files on nodes over SSH, through paramiko. Host keys are those pinned at imaging; nothing is learned.

A node may be broken or hostile: what it sends is bounded, every wait has an end, and a key that is not the pinned
one is reported as what it is, never as a node that is out of reach.
"""

from __future__ import annotations

import errno
import logging
import secrets
import shlex
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import UndecidedError, UnreachableError, UsageError
from toolkit.rack.model import Host, Unit
from toolkit.runners.inventory import LOGIN_KEY
from toolkit.runners.shell import MAX_OUTPUT_BYTES, CommandResult
from toolkit.settings import Settings

if TYPE_CHECKING:
    import paramiko

CONNECT_SECONDS = 15.0
STALE_SECONDS = 5.0  # a kept connection that opens no channel in this time is of a machine that was rebooted
FILE_SECONDS = 60.0  # of silence while a file moves
KEEPALIVE_SECONDS = 10
# At once on a connection. A server opens ten sessions on one (sshd_config(5), MaxSessions), and refuses the eleventh; a
# file that is written takes two, its own and that of the command that flushes it.
ERRANDS = 5
SIGNALLED = -1  # exit status of a command that a signal ended, or that was cut off

_CHUNK_BYTES = 64 * 1024
_SLICE_SECONDS = 0.2  # how long stderr may wait while stdout is silent


@dataclass(slots=True)
class _Seat:
    """The one connection to a node. The lock is held while it is opened, not while it is used; `room` as long as it is
    used. `slow`: connections that opened no channel in time. Errands that are on one go on: the machine may have been
    busy, not rebooted, and of a rebooted one the keepalive tells them.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(ERRANDS))
    client: paramiko.SSHClient | None = None
    slow: list[paramiko.SSHClient] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Errand:
    """What we are doing where: for the words of an error."""

    node: str
    host: Host
    doing: str

    def unreachable(self, what: object) -> UnreachableError:
        return UnreachableError(
            f"{self.doing} on {self.node} ({self.host.address}:{self.host.ssh_port}): {what}",
            f"see whether {self.node} is up and its SSH server answers, then run the command again",
        )

    def undecided(self, what: object, hint: str) -> UndecidedError:
        return UndecidedError(f"{self.doing} on {self.node} ({self.host.address}:{self.host.ssh_port}): {what}", hint)


class SshShell:
    """Implements `shell.Shell`. One connection to a node, shared by threads; closed by `close` or leaving `with`."""

    def __init__(self, settings: Settings, rack: str, user: str = "root") -> None:
        self._pinned = settings.known_hosts(rack)
        self._key = settings.keys / LOGIN_KEY
        self._rack = rack
        self._user = user
        self._seats: dict[str, _Seat] = {}
        self._lock = threading.Lock()
        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else its threads write to stderr

    def __enter__(self) -> SshShell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        with self._lock:
            seats, self._seats = self._seats, {}
        for seat in seats.values():
            with seat.lock:
                for client in (*seat.slow, *([seat.client] if seat.client is not None else [])):
                    client.close()

    def run(
        self, node: Unit, argv: Sequence[str], timeout_s: float, max_bytes: int = MAX_OUTPUT_BYTES
    ) -> CommandResult:
        """Runs `argv` on the node. stdout and stderr together are bounded by `max_bytes`; past it the command is cut
        off and its status is SIGNALLED.

        UnreachableError: no connection, or no end within `timeout_s` (the command may go on on the node).
        UndecidedError: the host key is not the pinned one, or the node refuses our key. UsageError: we have no key.
        """
        errand = _errand(node, f"running {argv[0]}")
        with self._room(errand):
            return self._run(errand, argv, timeout_s, max_bytes)

    def _run(self, errand: _Errand, argv: Sequence[str], timeout_s: float, max_bytes: int) -> CommandResult:
        deadline = time.monotonic() + timeout_s
        with self._channel(errand, min(timeout_s, CONNECT_SECONDS)) as channel:
            channel.exec_command(shlex.join(argv))
            channel.shutdown_write()
            result = _collect(channel, deadline, max_bytes)
            if result is None:
                raise errand.unreachable(f"no end within {timeout_s:g} s")
            transport = channel.get_transport()
            if result.status == SIGNALLED and not result.truncated and not (transport and transport.is_active()):
                raise errand.unreachable("the connection broke")
            return result

    def put(self, node: Unit, local: Path, remote: str, mode: int = 0o644) -> None:
        """Copies a file to the node: written beside the target, flushed to its disk, then renamed over it."""
        errand = _errand(node, f"writing {remote}")
        beside = f"{remote}.{secrets.token_hex(4)}.part"
        with self._room(errand), self._sftp(errand) as sftp:
            try:
                sftp.put(str(local), beside)  # compares the sizes at the end
                sftp.chmod(beside, mode)
                flushed = self._run(_errand(node, "running sync"), ["sync", beside], FILE_SECONDS, MAX_OUTPUT_BYTES)
                if flushed.status != 0:
                    raise OSError(errno.EIO, flushed.stderr.decode(errors="replace")[:200])
                sftp.posix_rename(beside, remote)
            except OSError:
                with suppress(OSError):
                    sftp.remove(beside)
                raise

    def read(self, node: Unit, remote: str, offset: int, max_bytes: int) -> bytes:
        """At most `max_bytes` of a regular file from `offset`; empty at its end. FileNotFoundError if there is none."""
        errand = _errand(node, f"reading {remote}")
        with self._room(errand), self._sftp(errand) as sftp:
            # Asked before it is opened: opening a FIFO would hang the node's server.
            if not stat.S_ISREG(sftp.stat(remote).st_mode or 0):
                raise OSError(errno.EINVAL, "not a regular file")
            with sftp.open(remote, "rb") as file:
                file.seek(offset)
                parts: list[bytes] = []
                left = max_bytes
                while left > 0 and (part := file.read(min(left, _CHUNK_BYTES))):
                    parts.append(part[:left])
                    left -= len(part)
                return b"".join(parts)

    @contextmanager
    def _room(self, errand: _Errand) -> Iterator[None]:
        """One of the few errands that a connection carries at once; the others wait for their turn."""
        with self._lock:
            seat = self._seats.setdefault(errand.node, _Seat())
        with seat.room:
            yield

    @contextmanager
    def _sftp(self, errand: _Errand) -> Iterator[paramiko.SFTPClient]:
        import paramiko

        with self._channel(errand, CONNECT_SECONDS) as channel:
            channel.settimeout(FILE_SECONDS)
            channel.invoke_subsystem("sftp")
            with paramiko.SFTPClient(channel) as sftp:
                yield sftp

    @contextmanager
    def _channel(self, errand: _Errand, timeout_s: float) -> Iterator[paramiko.Channel]:
        """A channel on the node's connection. What goes wrong on the wire leaves as UnreachableError."""
        import paramiko

        try:
            with self._open(errand, timeout_s) as channel:
                channel.settimeout(timeout_s)
                yield channel
        except FileNotFoundError:
            raise
        except (paramiko.SSHException, EOFError, ConnectionError, TimeoutError) as error:
            raise errand.unreachable(str(error) or "no answer in time") from error
        except OSError as error:
            raise errand.undecided(error, f"ssh {self._user}@{errand.host.address} and look at it") from error

    def _open(self, errand: _Errand, timeout_s: float) -> paramiko.Channel:
        import paramiko

        with self._lock:
            seat = self._seats.setdefault(errand.node, _Seat())
        with seat.lock:
            transport = seat.client.get_transport() if seat.client is not None else None
            if transport is not None and transport.is_active():
                try:
                    return transport.open_session(timeout=min(timeout_s, STALE_SECONDS))
                except paramiko.ChannelException:
                    raise  # it answers, and opens no more sessions: those that are open go on
                except (paramiko.SSHException, EOFError):
                    if seat.client is not None:  # a fresh connection tells
                        seat.slow.append(seat.client)
            seat.client = self._connect(errand, timeout_s)
            transport = seat.client.get_transport()
            if transport is None:
                raise EOFError("the connection closed at once")
            return transport.open_session(timeout=timeout_s)

    def _connect(self, errand: _Errand, timeout_s: float) -> paramiko.SSHClient:
        import paramiko

        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self._require_keys(errand, client)
        try:
            client.connect(
                errand.host.address,
                port=errand.host.ssh_port,
                username=self._user,
                key_filename=str(self._key),
                allow_agent=False,
                look_for_keys=False,
                timeout=timeout_s,
                banner_timeout=timeout_s,
                auth_timeout=timeout_s,
                channel_timeout=timeout_s,
            )
        except paramiko.BadHostKeyException as error:
            client.close()
            raise errand.undecided(
                "the host key is not the one pinned at imaging",
                f"find out who answers at this address. Was {errand.node} imaged by somebody else? "
                f"Then `rackproof bringup {self._rack}` images and pins it anew. Pinned keys: {self._pinned}",
            ) from error
        except paramiko.AuthenticationException as error:
            client.close()
            raise errand.undecided(
                f"it refuses our key for {self._user}: {error}", f"see that {self._key}.pub is authorized on it"
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            client.close()
            raise errand.unreachable(str(error) or type(error).__name__) from error
        transport = client.get_transport()
        if transport is not None:
            transport.set_keepalive(KEEPALIVE_SECONDS)
        return client

    def _require_keys(self, errand: _Errand, client: paramiko.SSHClient) -> None:
        """Our key is there, and the node's is pinned: told before a packet is sent."""
        if not self._key.is_file():
            raise UsageError(f"{errand.doing} on {errand.node}: no login key {self._key}", "image the rack first")
        name = errand.host.address
        if errand.host.ssh_port != 22:
            name = f"[{name}]:{errand.host.ssh_port}"
        if self._pinned.is_file():
            _load_pinned(self._pinned, client.get_host_keys())
        if client.get_host_keys().lookup(name) is None:
            raise errand.undecided(
                f"no host key is pinned for it in {self._pinned}",
                f"rackproof bringup {self._rack}: the image stage pins the key that the node makes at its first boot; "
                "of a rented node, which is not imaged, put the key that its owner tells there",
            )


def _load_pinned(known_hosts: Path, into: paramiko.HostKeys) -> None:
    """The keys that are pinned. Lines with a marker (`@cert-authority`) are for ssh: paramiko cannot read them."""
    from paramiko.hostkeys import HostKeyEntry

    for line in known_hosts.read_text().splitlines():
        entry = None if line.startswith("@") else HostKeyEntry.from_line(line)
        if entry is not None and entry.key is not None:
            for name in entry.hostnames or []:
                into.add(name, entry.key.get_name(), entry.key)


def _errand(node: Unit, doing: str) -> _Errand:
    if node.host is None:
        raise UsageError(f"{doing} on {node.name}: it has no host", "give it a `host` in the rack file")
    return _Errand(node.name, node.host, doing)


def _collect(channel: paramiko.Channel, deadline: float, max_bytes: int) -> CommandResult | None:
    """Both outputs until their end, the bound or the deadline (None)."""
    streams: tuple[list[bytes], list[bytes]] = ([], [])
    left = max_bytes
    ended = False
    channel.settimeout(_SLICE_SECONDS)
    while not ended:
        if time.monotonic() > deadline:
            return None
        part = b""
        try:
            part = channel.recv(_CHUNK_BYTES)
            ended = not part  # of the channel, so of both streams; what stderr has left is still there
        except TimeoutError:
            pass
        parts = [(0, part)]
        while channel.recv_stderr_ready() and sum(len(p) for _, p in parts) <= left:
            parts.append((1, channel.recv_stderr(_CHUNK_BYTES)))
        for stream, text in parts:
            streams[stream].append(text[: max(0, left)])
            left -= len(text)
        if left < 0:
            return CommandResult(SIGNALLED, b"".join(streams[0]), b"".join(streams[1]), truncated=True)
    channel.status_event.wait(max(0.0, deadline - time.monotonic()))
    if not channel.exit_status_ready():
        return None
    return CommandResult(channel.exit_status, b"".join(streams[0]), b"".join(streams[1]))
