"""Connections of testinfra's that verify host keys, bound what a node sends, and put no password on a command line.

testinfra's own paramiko connection only warns of a host key that it does not know, and its ssh does as the operator's
configuration says. While this plugin is loaded, `ssh`, `safe-ssh` and `paramiko` are the connection below, for the
hosts of an Ansible inventory too; `rackproof` is the one of this installation. Other connections are refused.
"""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import testinfra.backend
from testinfra.backend.ansible import AnsibleBackend
from testinfra.backend.base import BaseBackend
from testinfra.backend.base import CommandResult as TestinfraResult
from testinfra.backend.local import LocalBackend
from testinfra.backend.ssh import SshBackend

from toolkit.errors import RackproofError, UndecidedError, UnreachableError, UsageError
from toolkit.infra.targets import OWN, Named, Target
from toolkit.rack.model import Unit
from toolkit.runners.inventory import LOGIN_KEY
from toolkit.runners.shell import MAX_OUTPUT_BYTES, CommandResult, Shell
from toolkit.settings import Settings

CONNECT_SECONDS = 10
RUN_SECONDS = 120.0  # of a command that a test of the user's own gives
_SSH_FAILED = 255  # exit status of ssh itself
_CHUNK_BYTES = 1 << 16
_KEY_WORDS = ("host key verification failed", "no matching host key", "identification has changed")
# The first value of an option counts in ssh: these go before an inventory's.
_STRICT = "-o StrictHostKeyChecking=yes -o BatchMode=yes -o ServerAliveInterval=10 -o ServerAliveCountMax=3"


class RackBackend(BaseBackend):
    """Hosts of the rack as rackproof reaches them. `reached` answers while a session of this plugin runs."""

    NAME = OWN
    reached: ClassVar[Callable[[str], tuple[Shell, Unit] | None] | None] = None

    def __init__(self, hostspec: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(hostspec, *args, **kwargs)

    def run(self, command: str, *args: str, **kwargs: Any) -> TestinfraResult:
        """A command of a user's own test, as root, bounded like every other."""
        reached = RackBackend.reached
        found = reached(self.hostname) if reached is not None else None
        if found is None:
            raise UsageError(f"{OWN}://{self.hostname} is no node of the rack", "name the rack with --rack")
        shell, unit = found
        line = self.get_command(command, *args)
        ran = shell.run(unit, ("sh", "-c", line), RUN_SECONDS)
        return self.result(ran.status, self.encode(line), ran.stdout, ran.stderr)

    def get_encoding(self) -> str:
        """As every node's output is read."""
        return "utf-8"


class StrictSshBackend(SshBackend):
    """ssh that verifies: by the key that rackproof pinned for a node of the rack, else by the user's known_hosts."""

    NAME = "ssh"

    def __init__(self, hostspec: str, *args: Any, **kwargs: Any) -> None:
        extra = kwargs.pop("ssh_extra_args", None) or ""
        self._given = f"{_STRICT} {extra}".strip()
        kwargs["ssh_extra_args"] = self._given
        kwargs["controlpersist"] = 0  # a master would outlive the session
        super().__init__(hostspec, *args, **kwargs)
        if self.host.password:
            raise UsageError(
                f"a password for {self.host.name} would stand on a command line", "use a key, or an SSH certificate"
            )

    def pin(self, unit: Unit | None, settings: Settings, rack: str) -> None:
        """From now on the host must have the key that was pinned for this node; the user's known_hosts tell where none
        was, and of a host that is no node (None). testinfra keeps its connections: an earlier session's pin goes.
        """
        self.ssh_extra_args = " ".join((*(_pinning(unit, settings, rack) if unit else ()), self._given))

    def run_ssh(self, command: str) -> TestinfraResult:
        """A command of a user's own test."""
        ran = self.bounded(command, RUN_SECONDS, MAX_OUTPUT_BYTES)
        return self.result(ran.status, self.encode(command), ran.stdout, ran.stderr)

    def bounded(self, command: str, timeout_s: float, max_bytes: int) -> CommandResult:
        """Runs a shell's command. UnreachableError, or UndecidedError where the host is not the one that was pinned."""
        words, values = self._build_ssh_command(command)
        argv = shlex.split(self.quote(" ".join(words), *values))
        ran = run_bounded(argv, timeout_s + self.timeout, max_bytes, self.host.name)
        if ran.status != _SSH_FAILED:
            return ran
        said = _last_line(ran.stderr)
        if any(word in ran.stderr.decode(errors="replace").lower() for word in _KEY_WORDS):
            raise UndecidedError(
                f"{self.host.name}: its SSH host key is not the pinned one, or none is pinned: {said}",
                "find out who answers there; pin the key of a rented node yourself, from a source you trust",
            )
        raise UnreachableError(f"{self.host.name}: ssh: {said}", f"ssh {self.host.name} by hand, then run this again")


def _pinning(unit: Unit, settings: Settings, rack: str) -> list[str]:
    """Options of ssh for a node: this installation's key beside the user's own, and the pinned host key."""
    pinned, own = settings.known_hosts(rack), settings.keys / LOGIN_KEY
    options = [f"-o IdentityFile={shlex.quote(str(own))}"] if own.is_file() else []
    name = pinned_name(unit, pinned)
    if name:
        options += [f"-o UserKnownHostsFile={shlex.quote(str(pinned))}", "-o GlobalKnownHostsFile=/dev/null"]
        options += [f"-o HostKeyAlias={shlex.quote(name)}", "-o CheckHostIP=no"]
    return options


class StrictAnsibleBackend(AnsibleBackend):
    """Hosts of an Ansible inventory, by the connections above; never through a module run by `ansible` itself."""

    def inner(self) -> BaseBackend:
        """The connection that the inventory names. UsageError for one whose host keys nobody sees verified."""
        host = None
        if not self.force_ansible:
            host = self.ansible_runner.get_host(
                self.host, ssh_config=self.ssh_config, ssh_identity_file=self.ssh_identity_file
            )
        if host is None or not isinstance(host.backend, StrictSshBackend | LocalBackend):
            raise UsageError(
                f"ansible://{self.host}: its connection is not ssh, so nobody sees that its host key is verified",
                "leave out --force-ansible, and use ansible_connection: ssh",
            )
        return host.backend


_OURS: Mapping[str, type[BaseBackend]] = MappingProxyType(
    {
        OWN: RackBackend, "ssh": StrictSshBackend, "safe-ssh": StrictSshBackend, "paramiko": StrictSshBackend,
        "ansible": StrictAnsibleBackend, "local": LocalBackend,
    }
)  # fmt: skip


def install() -> Mapping[str, str]:
    """Puts ours in the place of testinfra's; answers what was there, for `restore`."""
    before = dict(testinfra.backend.BACKENDS)
    testinfra.backend.BACKENDS.update({name: f"{kind.__module__}.{kind.__name__}" for name, kind in _OURS.items()})
    return before


def restore(before: Mapping[str, str]) -> None:
    """Testinfra's own connections again."""
    testinfra.backend.BACKENDS.clear()
    testinfra.backend.BACKENDS.update(before)


def innermost(backend: BaseBackend) -> BaseBackend:
    """The connection itself. UsageError for one that is not among ours."""
    inner = backend.inner() if isinstance(backend, StrictAnsibleBackend) else backend
    if not isinstance(inner, tuple(_OURS.values())):
        raise UsageError(
            f"--hosts={inner.get_pytest_id()}: what it sends is neither bounded nor verified",
            f"use {', '.join(f'{name}://' for name in _OURS)}",
        )
    return inner


def named(backend: BaseBackend) -> Named:
    """The host's names and address."""
    inner = innermost(backend)
    address, port = inner.hostname, None
    if isinstance(inner, StrictSshBackend):
        address, port = inner.host.name, int(inner.host.port) if inner.host.port else None
    names = dict.fromkeys((backend.hostname, address))
    return Named(backend.get_pytest_id(), tuple(names), address, port)


class Connections:
    """A `Shell` over hosts of `--hosts`, by the names of their targets. Commands only: no file is written."""

    def __init__(self, backends: Mapping[str, BaseBackend]) -> None:
        self._backends = backends

    def run(
        self, node: Unit, argv: Sequence[str], timeout_s: float, max_bytes: int = MAX_OUTPUT_BYTES
    ) -> CommandResult:
        """See Shell. UnreachableError for a node that is not among the hosts."""
        backend = self._backends.get(node.name)
        if backend is None:
            raise UnreachableError(f"{node.name} is not among --hosts", "name all nodes of the rack, or leave it out")
        line = shlex.join(argv)
        if isinstance(backend, StrictSshBackend):
            return backend.bounded(backend.get_command(line), timeout_s, max_bytes)
        return run_bounded(("sh", "-c", backend.get_command(line)), timeout_s, max_bytes, node.name)

    def put(self, node: Unit, local: Path, remote: str, mode: int = 0o644) -> None:
        """Refused: checks change nothing."""
        raise RackproofError(f"{remote} would be written to {node.name} by a check", "this is a defect of rackproof")

    def read(self, node: Unit, remote: str, offset: int, max_bytes: int) -> bytes:
        """Refused: what checks read, they read by commands."""
        raise RackproofError(f"{remote} of {node.name} would be read by a check", "this is a defect of rackproof")


def pinned_name(unit: Unit, pinned: Path) -> str:
    """The name that the node's key stands under in the file of pinned keys; empty where it has none there."""
    if unit.host is None or not pinned.is_file():
        return ""
    host = unit.host
    name = host.address if host.ssh_port == 22 else f"[{host.address}]:{host.ssh_port}"
    names = {n for line in pinned.read_text().splitlines() if line.strip() for n in line.split()[0].split(",")}
    return name if name in names else ""


def connections(targets: Sequence[Target], backends: Sequence[BaseBackend]) -> Connections:
    """A shell over the targets, each with its backend."""
    return Connections({t.name: innermost(b) for t, b in zip(targets, backends, strict=True)})


def run_bounded(argv: Sequence[str], timeout_s: float, max_bytes: int, host: str) -> CommandResult:
    """Runs a program here. Both outputs together are bounded; past it, it is ended. UnreachableError past its time."""
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        left = _collect(process, parts, deadline, max_bytes)
        if left is None or left < 0:
            process.kill()
        else:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                left = None
                process.kill()
    if left is None:
        raise UnreachableError(f"{host}: no end within {timeout_s:g} s", "see whether the node is well, then again")
    return CommandResult(process.returncode, b"".join(parts[0]), b"".join(parts[1]), truncated=left < 0)


def _collect(
    process: subprocess.Popen[bytes], parts: tuple[list[bytes], list[bytes]], deadline: float, max_bytes: int
) -> int | None:
    """Both outputs until their end; what is left of the bound (negative: over it), None past the deadline."""
    left = max_bytes
    with selectors.DefaultSelector() as selector:
        for stream, kept in zip((process.stdout, process.stderr), parts, strict=True):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, kept)
        while selector.get_map() and left >= 0:
            if time.monotonic() > deadline:
                return None
            for key, _ in selector.select(min(1.0, max(0.0, deadline - time.monotonic()))):
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.append(chunk[: max(0, left)])
                left -= len(chunk)
    return left


def _last_line(said: bytes) -> str:
    lines = said[-4096:].decode("utf-8", "replace").strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[:200] if lines else "no words"
