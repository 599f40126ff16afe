"""One run of a machine: systemd-nspawn from a root folder to its end, in control groups of its own."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from toolkit.virtual.cgroups import ControlGroup, kill_all
from toolkit.virtual.programs import environment

# systemd-nspawn --keep-unit: the machine asked for a reboot (systemd.exec(5), EXIT_FORCE_RESTART)
_EXIT_REBOOT = 133
# Page cache counts too: a node that writes its disk is throttled at this, not refused.
MEMORY_LIMIT_BYTES = 1024 * 1024 * 1024
_NSPAWN_EXIT_DEADLINE_S = 5.0
_POLL_S = 0.02

# Joins the control groups, then becomes the machine: argv is GROUP-FOLDER... -- PROGRAM ARGUMENT...
# (subprocess's preexec_fn is not safe in a process with threads).
_JOIN_AND_EXEC = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


class End(StrEnum):
    """How a run of a machine ended."""

    REBOOT = "reboot"
    POWER_OFF = "power_off"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path that the machine sees at `inside`."""

    host: Path
    inside: str
    read_only: bool = False

    def option(self) -> str:
        """As systemd-nspawn takes it."""
        return f"--bind{'-ro' if self.read_only else ''}={self.host}:{self.inside}"


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What to run.

    root       folder that becomes `/`
    init       program and arguments to run as PID 1; empty: the operating system's own init
    namespace  path of the network namespace it lives in
    uuid       the machine's UUID, 32 hex digits
    console    file that gets what the machine prints
    """

    name: str
    root: Path
    init: tuple[str, ...]
    namespace: Path
    uuid: str
    binds: tuple[Bind, ...]
    console: Path
    group: ControlGroup


def command(spec: MachineSpec) -> list[str]:
    """The systemd-nspawn command line."""
    # SIGTERM to systemd-nspawn presses the power button: it passes this signal to the machine's PID 1,
    # where SIGRTMIN+4 means "power off" to systemd. A ramdisk does not listen: it is killed.
    button = "SIGKILL" if spec.init else "SIGRTMIN+4"
    return [
        "systemd-nspawn",
        "--quiet",
        f"--directory={spec.root}",
        *(() if spec.init else ("--boot",)),
        "--register=no",
        "--keep-unit",
        f"--machine={spec.name}",
        f"--uuid={spec.uuid}",
        # Hardware gives no host name: "localhost" is what systemd takes as "none yet".
        "--hostname=localhost",
        f"--network-namespace-path={spec.namespace}",
        "--console=pipe",
        "--capability=CAP_NET_ADMIN",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        f"--kill-signal={button}",
        *(bind.option() for bind in spec.binds),
        *spec.init,
    ]


class Machine:
    """A running machine. Started by the constructor; `wait` must be called once."""

    def __init__(self, spec: MachineSpec) -> None:
        self._group = spec.group
        self._group.create(MEMORY_LIMIT_BYTES)
        folders = [str(folder) for folder in self._group.folders]
        with spec.console.open("ab") as console:
            self._process = subprocess.Popen(
                ["/bin/sh", "-ec", _JOIN_AND_EXEC, "machine", *folders, "--", *command(spec)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env=environment(SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1", SYSTEMD_NSPAWN_API_VFS_WRITABLE="network"),
            )

    def wait(self) -> End:
        """Blocks until the machine has stopped and no process of it is left."""
        status = self._process.wait()
        self._group.kill()
        if status == _EXIT_REBOOT:
            return End.REBOOT
        return End.POWER_OFF if status == 0 else End.CRASH

    def press_power_button(self) -> None:
        """Asks the operating system to power off; it may take its time, or not listen."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def cut_power(self) -> None:
        """Ends the machine now; `wait` in another thread returns soon after.

        SIGKILL to systemd-nspawn alone would leave the machine running: its processes are killed, PID 1 with them,
        and systemd-nspawn then ends by itself. Only if it does not is it killed too.
        """
        end = time.monotonic() + _NSPAWN_EXIT_DEADLINE_S
        started = False
        while self._process.poll() is None:
            payload = self._group.pids("payload")
            started = started or bool(payload)
            if payload:
                kill_all(payload)
            elif not started or time.monotonic() > end:
                kill_all(self._group.pids())
            time.sleep(_POLL_S)
