"""Names the process that holds a lease, so that one on this machine that died is known to be gone."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path


def this_process() -> str:
    """`user@host pid N (...)`: unique over reused process ids, containers and restarts of the machine."""
    pid = os.getpid()
    return f"{getpass.getuser()}@{socket.gethostname()} pid {pid} ({_identity(pid)})"


def is_gone(holder: str) -> bool:
    """True only where it is certain: this boot, this process namespace, and no such process runs any more.

    A holder elsewhere, or from before a restart of the machine, is left to its expiry. So is any where /proc hides
    other users' processes (hidepid=, systemd's ProtectProc=): there one that lives looks like one that is gone.
    """
    if not Path("/proc/1/stat").exists():
        return False
    name, _, identity = holder.removesuffix(")").partition(" (")
    pid = name.rpartition(" ")[2]
    if not pid.isdigit() or identity.partition(" ")[2] != _place():
        return False
    return _identity(int(pid)) != identity


def _identity(pid: int) -> str:
    return f"{_started(pid)} {_place()}"


def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _started(pid: int) -> str:
    """Clock ticks since boot; `-` if there is no such process, or only what its parent has not buried yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return "-"
    # The second field, the program's name, may hold spaces and brackets: count from its end.
    fields = status.rpartition(")")[2].split()
    return "-" if fields[0] in ("Z", "X") else fields[19]
