"""What a node does between power-on and its operating system: self-test, boot order, network boot, disk boot."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

from toolkit.errors import RackproofError
from toolkit.virtual import dhcp, disk, network
from toolkit.virtual.ipxe import Exit, Interpreter, Kernel, ScriptError
from toolkit.virtual.layout import Layout, NodeLayout
from toolkit.virtual.machine import Bind, End
from toolkit.virtual.programs import environment

# tmpfs takes memory for what is in it only; the bound keeps a broken ramdisk from taking all of the host's
_RAMDISK_BYTES = 256 * 1024 * 1024
_INITRD_MAX_BYTES = 128 * 1024 * 1024
_SCRIPT_MAX_BYTES = 64 * 1024
_CHUNK_BYTES = 256 * 1024
_HTTP_TIMEOUT_S = 20.0
_UNPACK_DEADLINE_S = 60.0
_RAMDISK_MAGICS = (b"\x28\xb5\x2f\xfd", b"070701")  # RFC 8878; cpio(5), "new ASCII": what a kernel takes
_INIT_PATHS = ("usr/lib/systemd/systemd", "lib/systemd/systemd", "sbin/init")


class Phase(StrEnum):
    """How far a node's boot has come."""

    OFF = "off"
    SELF_TEST = "self_test"
    NETWORK_BOOT = "network_boot"
    RAMDISK = "ramdisk"
    OPERATING_SYSTEM = "operating_system"
    HUNG = "hung"
    NO_BOOT_DEVICE = "no_boot_device"
    CRASHED = "crashed"


class BootTarget(StrEnum):
    """Redfish BootSourceOverrideTarget, as far as this firmware knows it."""

    NONE = "None"
    PXE = "Pxe"
    HDD = "Hdd"


class BootEnabled(StrEnum):
    """Redfish BootSourceOverrideEnabled."""

    DISABLED = "Disabled"
    ONCE = "Once"
    CONTINUOUS = "Continuous"


@dataclass(frozen=True, slots=True)
class BootOverride:
    """What the BMC was told about the next boot."""

    target: BootTarget = BootTarget.NONE
    enabled: BootEnabled = BootEnabled.DISABLED

    @property
    def active(self) -> bool:
        """Whether it changes the boot order."""
        return self.enabled is not BootEnabled.DISABLED and self.target is not BootTarget.NONE

    def consumed(self) -> BootOverride:
        """What is left of it after a boot: `Once` is used up."""
        return BootOverride() if self.enabled is BootEnabled.ONCE else self


class Board(Protocol):
    """The mainboard, as its firmware sees it. Every method may raise to say that the power is gone."""

    @property
    def layout(self) -> Layout:
        """The rack's places."""
        ...

    @property
    def name(self) -> str:
        """The node's name."""
        ...

    @property
    def mac(self) -> str:
        """MAC of the boot interface."""
        ...

    @property
    def serial(self) -> str:
        """Serial of the machine."""
        ...

    @property
    def uuid(self) -> str:
        """UUID of the machine, with dashes."""
        ...

    @property
    def hangs(self) -> bool:
        """Whether the operating system never comes up (fault BOOT_HANG)."""
        ...

    def take_override(self) -> BootOverride:
        """The boot override for this boot; `Once` is used up by asking."""
        ...

    def self_test(self) -> None:
        """Takes the time a power-on self-test takes."""
        ...

    def enter(self, phase: Phase) -> None:
        """The boot has come to this phase."""
        ...

    def say(self, text: str) -> None:
        """A line on the console."""
        ...

    def check(self) -> None:
        """Returns while there is power."""
        ...

    def stay(self, phase: Phase) -> None:
        """Stays in this phase until the power goes; never returns."""
        ...

    def run(self, root: Path, init: tuple[str, ...], binds: tuple[Bind, ...]) -> End:
        """Runs a machine to its end."""
        ...


def boot_order(override: BootOverride) -> tuple[BootTarget, ...]:
    """Devices to try: disk before network, unless the override puts one first."""
    default = (BootTarget.HDD, BootTarget.PXE)
    if not override.active:
        return default
    return (override.target, *(device for device in default if device is not override.target))


def boot(board: Board) -> End:
    """One boot, from self-test to the end of whatever was booted. Stays for ever where nothing can be booted."""
    board.enter(Phase.SELF_TEST)
    network.power_cycle(board.layout, board.name)
    network.link_up(board.layout, board.name)  # now, so that it forwards by the time the self-test is over
    board.say(f"power-on self-test: {board.serial}")
    board.self_test()
    override = board.take_override()
    for device in boot_order(override):
        end = _from_network(board) if device is BootTarget.PXE else _from_disk(board)
        if end is not None:
            return end
    board.say("No bootable device")
    board.stay(Phase.NO_BOOT_DEVICE)
    raise AssertionError("a board without power came back from stay()")


def _from_network(board: Board) -> End | None:
    board.enter(Phase.NETWORK_BOOT)
    board.say(">>Start HTTP Boot over IPv4")
    lease = dhcp.ask(network.NODE_INTERFACE, board.mac, board.check)
    if lease is None:
        board.say("no DHCP offer")
        return None
    board.say(f"address {lease.address}/{lease.prefix}, boot file {lease.boot_file or '(none)'}")
    if not lease.boot_file:
        return None
    network.configure(board.layout, board.name, str(lease.address), lease.prefix)
    initrd = board.layout.node(board.name).folder / "initrd"
    try:
        kernel = _interpreter(board).boot(lease.boot_file)
        if isinstance(kernel, Exit):
            board.say("boot script: exit")
            return None
        _download(board, kernel, initrd)
    except (ScriptError, OSError, HTTPException, ValueError) as error:
        board.say(f"network boot: {error}")
        return None
    finally:
        network.release(board.layout, board.name)
    return _run_ramdisk(board, kernel, initrd)


def _interpreter(board: Board) -> Interpreter:
    settings = {
        "net0/mac": board.mac,
        "mac": board.mac,
        "mac:hexhyp": board.mac.replace(":", "-"),
        "net0/mac:hexhyp": board.mac.replace(":", "-"),
        "netX/mac:hexhyp": board.mac.replace(":", "-"),  # netX: the interface that it boots from
        "serial": board.serial,
        "uuid": board.uuid,
    }
    return Interpreter(settings, lambda url: _fetch_text(board, url), board.say)


def _fetch_text(board: Board, url: str) -> str:
    return b"".join(_fetch(board, url, _SCRIPT_MAX_BYTES)).decode("utf-8", "replace")


def _download(board: Board, kernel: Kernel, target: Path) -> None:
    """The ramdisk. The kernel is asked for too (its absence stops the boot), but the host's kernel runs."""
    if kernel.initrd is None:
        raise ScriptError("the boot script names no initrd")
    with target.open("wb") as file:
        for chunk in _fetch(board, kernel.initrd, _INITRD_MAX_BYTES):
            file.write(chunk)
    board.say(f"{kernel.initrd}... ok, {target.stat().st_size} bytes")


def _fetch(board: Board, url: str, max_bytes: int) -> Iterator[bytes]:
    if not url.startswith("http://"):
        raise ScriptError(f"{url}: this firmware speaks http only")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    total = 0
    with opener.open(url, timeout=_HTTP_TIMEOUT_S) as answer:
        while chunk := answer.read(_CHUNK_BYTES):
            board.check()
            total += len(chunk)
            if total > max_bytes:
                raise ScriptError(f"{url}: more than {max_bytes} bytes")
            yield chunk


def _run_ramdisk(board: Board, kernel: Kernel, initrd: Path) -> End | None:
    places = board.layout.node(board.name)
    options = f"size={_RAMDISK_BYTES},mode=0755"
    with disk.mounted("tmpfs", places.ramdisk, "tmpfs", options) as root, disk.attached(places.disk) as device:
        try:
            _unpack(initrd, root)
        except RackproofError as error:
            board.say(f"network boot: {error.message}")
            return None
        finally:
            initrd.unlink()
        (root / "usr").mkdir(exist_ok=True)  # systemd-nspawn takes a folder without /usr for no root at all
        board.enter(Phase.RAMDISK)
        return board.run(root, ("/init", *kernel.arguments), _device_binds(places, device))


def _unpack(initrd: Path, root: Path) -> None:
    """zstd or plain cpio, as a kernel takes it."""
    with initrd.open("rb") as file:
        magic = file.read(8)
    if not magic.startswith(_RAMDISK_MAGICS):  # cpio(1) would look for an archive in it, byte by byte
        raise RackproofError("the ramdisk is no zstd-compressed cpio archive: it begins otherwise")
    zstd = subprocess.Popen(
        ["zstd", "--decompress", "--force", "--stdout", "--quiet", str(initrd)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        with zstd:
            cpio = subprocess.run(
                ["cpio", "--extract", "--make-directories", "--no-absolute-filenames", "--quiet"],
                stdin=zstd.stdout,
                cwd=root,
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # of a damaged archive it has no end
                timeout=_UNPACK_DEADLINE_S,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise RackproofError(f"the ramdisk was not unpacked within {_UNPACK_DEADLINE_S:.0f} s") from error
    if cpio.returncode != 0 or zstd.returncode != 0:
        statuses = f"zstd ended with {zstd.returncode}, cpio with {cpio.returncode}"
        raise RackproofError(f"the ramdisk is no zstd-compressed cpio archive: {statuses}")
    if not (root / "init").exists():
        raise RackproofError("the ramdisk has no /init")


def _from_disk(board: Board) -> End | None:
    places = board.layout.node(board.name)
    partition = disk.first_partition(places.disk)
    if partition is None:
        board.say("disk: no partition to boot from")
        return None
    board.say("booting from disk")
    if board.hangs:
        board.stay(Phase.HUNG)
    with ExitStack() as held:
        try:
            device = held.enter_context(disk.attached(places.disk))
            part = held.enter_context(disk.attached(places.disk, partition))
            root = held.enter_context(disk.mounted(str(part), places.root, "ext4", "noatime"))
        except RackproofError as error:
            board.say(f"disk: {error.message}")
            return None
        if not any((root / path).exists() for path in _INIT_PATHS):
            board.say("disk: no operating system")
            return None
        board.enter(Phase.OPERATING_SYSTEM)
        return board.run(root, (), (*_device_binds(places, device), Bind(part, "/dev/nvme0n1p1")))


def _device_binds(places: NodeLayout, device: Path) -> tuple[Bind, ...]:
    """What the machine sees of its hardware."""
    return (
        Bind(device, "/dev/nvme0n1"),
        Bind(places.hardware, "/run/hardware"),
        # Read-only: systemd would write lines of its own over the records. The devices append to /run/hardware/kmsg.
        Bind(places.hardware / "kmsg", "/dev/kmsg", read_only=True),
    )
