"""One run of a QEMU machine, from power-on to power-off."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.firmware import BootTarget, Phase
from toolkit.virtual.qemu.console import Console
from toolkit.virtual.qemu.machine import MachineSpec, boot_indexes, command
from toolkit.virtual.qemu.processes import start
from toolkit.virtual.qemu.qmp import Event, Qmp, QmpError

_END_DEADLINE_S = 10.0
_QUOTED_CHARS = 500


class RunningMachine:
    """A machine that has power. The constructor returns when the firmware runs.

    namespace  path of the network namespace that has the tap device
    group      control groups to run in: what is left of a killed rack is found by them
    order      boot order until it is changed: the firmware reads it at a reset
    """

    def __init__(
        self, spec: MachineSpec, namespace: Path, group: ControlGroup, order: Sequence[BootTarget],
        console: Path, entered: Callable[[Phase], None],
    ) -> None:  # fmt: skip
        ours, theirs = socket.socketpair()
        errors = console.with_suffix(".errors")
        with theirs:
            self._process = start(
                command(spec, order, theirs.fileno()), namespace, group,
                log=errors, stdout=subprocess.PIPE, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        self._console = Console(self._process.stdout, console, entered)
        try:
            self._qmp = Qmp(ours)
            self._qmp.execute("cont")
        except QmpError as error:
            self.cut_power()
            self._process.wait()
            said = errors.read_text(errors="replace").strip()[-_QUOTED_CHARS:]
            raise RackproofError(f"{spec.name}: QEMU did not start: {said or error.message}") from error

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._process.pid

    def next_event(self) -> Event | None:
        """Waits for something to happen to the machine; None when it has no power any more."""
        return self._qmp.events.get()

    def set_boot_order(self, order: Sequence[BootTarget]) -> None:
        """The order of the next boot: the firmware is told at a reset, and what it was told then stays."""
        indexes = boot_indexes(order)
        for device in indexes:
            self._qmp.set_property(device, "bootindex", -1)  # two devices may not have the same, even in between
        for device, index in indexes.items():
            self._qmp.set_property(device, "bootindex", index)

    def reset(self) -> None:
        """The reset button: RAM and devices start anew, the power stays."""
        self._qmp.execute("system_reset")

    def press_power_button(self) -> None:
        """Asks the operating system to power off (ACPI); it may take its time, or not listen."""
        self._qmp.execute("system_powerdown")

    def cut_power(self) -> None:
        """Takes the power away, at once: the process is killed. `wait` in another thread returns soon after."""
        if self._process.poll() is None:
            self._process.kill()

    def wait(self) -> int:
        """Blocks until the machine has no power; QEMU's exit status, 0 when the machine switched itself off."""
        status = self._process.wait()
        self._console.join(_END_DEADLINE_S)
        with contextlib.suppress(OSError):
            self._qmp.close()
        return status
