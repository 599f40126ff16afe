"""A QEMU machine that is given kernel and ramdisk directly, with as many NVMe disks as a test plugs in."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.qemu.deploy_parts import Netboot
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.firmware import BootTarget
from toolkit.virtual.qemu import console
from toolkit.virtual.qemu.console import Console, Line
from toolkit.virtual.qemu.machine import Firmware, MachineSpec, command, lay_out
from toolkit.virtual.qemu.processes import start
from toolkit.virtual.qemu.qmp import Qmp

# 0 is the kernel's: QEMU boots what `-kernel` names before any device.
_ORDER = (BootTarget.NONE, BootTarget.HDD, BootTarget.PXE)


class Ending(StrEnum):
    """How the machine lost its power."""

    REBOOT = "reboot"  # it asked for a reset; here it goes off
    POWER_OFF = "power off"  # it switched itself off
    CUT = "cut"  # somebody took it away


_REASONS = {"guest-reset": Ending.REBOOT, "guest-shutdown": Ending.POWER_OFF}


@dataclass(frozen=True, slots=True)
class Plugged:
    """An NVMe disk: its file, and the serial that it tells; with that of the disk before it, its second namespace."""

    file: Path
    serial: str


@dataclass
class Metal:
    """A machine: its disks and its firmware's variables outlive the power. `disks[0]` is named nvme0n1."""

    folder: Path
    namespace: Path
    group: ControlGroup
    serial: str
    mac: str
    tap: str
    disks: list[Plugged]
    firmware: Firmware = Firmware.BIOS
    runs: int = 0

    @property
    def spec(self) -> MachineSpec:
        """As the virtual rack's machines have it."""
        return MachineSpec(
            "deploy", self.serial, "6f7a9f6e-0000-4000-8000-00000000000d", "Virtual DGXH100", self.mac, self.tap,
            self.disks[0].file, self.disks[0].serial, self.folder / "variables.fd", self.firmware, memory_mib=512,
        )  # fmt: skip

    @contextlib.contextmanager
    def powered(self, netboot: Netboot | None, arguments: Mapping[str, str]) -> Iterator[Run]:
        """Power on; from its disks where there is no `netboot`. Without power when the block is left."""
        lay_out(self.spec, 0)
        self.runs += 1
        run = Run(self, netboot, arguments, self.folder / f"console-{self.runs}")
        try:
            yield run
        finally:
            run.cut_power()
            run.join()

    def argv(self, netboot: Netboot | None, arguments: Mapping[str, str], qmp: int) -> list[str]:
        """QEMU's command line."""
        more = ["-no-reboot"]
        for number, disk in enumerate(self.disks[1:], 1):
            drive = f"if=none,id=image{number},file={disk.file},format=raw,discard=unmap,detect-zeroes=unmap"
            device = f"nvme,id=disk{number},drive=image{number},serial={disk.serial}"
            if disk.serial == self.disks[number - 1].serial:
                device = f"nvme-ns,drive=image{number},bus=disk{number - 1},nsid=2"
            more += ["-drive", drive, "-device", device]
        if netboot is not None:
            told = " ".join(f"{name}={value}" for name, value in arguments.items())
            more += ["-kernel", str(netboot.kernel), "-initrd", str(netboot.ramdisk)]
            more += ["-append", f"console=ttyS0,115200n8 quiet panic=-1 {told}"]
        return [*command(self.spec, _ORDER, qmp), *more]


@dataclass
class Run:
    """One run of a machine, from power-on to power-off."""

    metal: Metal
    netboot: Netboot | None
    arguments: Mapping[str, str]
    file: Path
    began: float = field(default_factory=time.monotonic)
    was_cut: bool = False

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = self.metal.argv(self.netboot, self.arguments, theirs.fileno())
            self._process = start(
                argv, self.metal.namespace, self.metal.group, log=self.file.with_suffix(".errors"),
                stdout=subprocess.PIPE, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        assert self._process.stdout is not None
        self.file.touch()
        self._console = Console(self._process.stdout, self.file, lambda _phase: None)
        self.qmp = Qmp(ours)
        self.qmp.execute("cont")

    @property
    def lines(self) -> tuple[Line, ...]:
        """The serial line so far."""
        return console.read(self.file)

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(line.text for line in self.lines)

    def at_s(self, text: str) -> float:
        """Seconds from power-on to the first line with this text."""
        return next(line.at_s for line in self.lines if text in line.text)

    def wait_for(self, text: str, seconds: float = 120.0) -> None:
        """Until the console shows this; AssertionError with the console when it does not, or the power goes."""
        end = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < end and self._process.poll() is None, f"no {text!r}:\n{self.text}"
            time.sleep(0.02)

    def cut_power(self) -> None:
        """SIGKILL: nothing is flushed, nothing says goodbye."""
        if self._process.poll() is None:
            self.was_cut = True
            self._process.kill()
            self._process.wait()

    def ending(self, seconds: float = 180.0) -> Ending:
        """Waits until the machine has no power; how it lost it."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs after {seconds} s:\n{self.text}") from None
        self.join()
        if self.was_cut:
            return Ending.CUT
        while (event := self.qmp.events.get(timeout=10)) is not None:
            if event.name == "SHUTDOWN":
                return _REASONS[str(event.data.get("reason"))]
        raise AssertionError(f"QEMU ended by itself: {self.file.with_suffix('.errors').read_text()[-500:]}")

    def join(self) -> None:
        """The console is on file whole."""
        self._process.wait()
        self._console.join(10)

    @property
    def seconds(self) -> float:
        """Since power-on."""
        return time.monotonic() - self.began
