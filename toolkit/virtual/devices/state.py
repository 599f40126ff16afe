"""The node's hardware as the stand-ins written in Python see it; hardware.c says the same to the C libraries.

Keys are described in toolkit/virtual/hardware.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/run/hardware")

# The same numbers as in nvml_health.c and hardware.c.
_IDLE_C, _RISE_C, _MEMORY_OFFSET_C, LIMIT_C = 29, 38, 8, 87
_COOLING_SECONDS = 20.0
_WARMING_BYTES = 256 * 1024 * 1024
_BUSY_SECONDS = 2.0
_BUSY_POWER_SHARE, _WARM_POWER_SHARE = 0.93, 0.1


class NoDriverError(Exception):
    """There is no hardware state: this machine has no GPUs, or no driver for them."""


def folder() -> Path:
    """The hardware folder: /run/hardware, or $RACKPROOF_HARDWARE where a test sets it."""
    return Path(os.environ.get("RACKPROOF_HARDWARE") or FOLDER)


@dataclass(frozen=True)
class Gpu:
    """One GPU as it is now."""

    index: int
    state: State

    def text(self, key: str) -> str | None:
        """`gpuN.KEY`, else `gpu.KEY`, else None."""
        values = self.state.values
        return values.get(f"gpu{self.index}.{key}", values.get(f"gpu.{key}"))

    def need(self, key: str) -> str:
        """A key every board has. Raises KeyError where the state lacks it."""
        value = self.text(key)
        if value is None:
            raise KeyError(f"gpu{self.index}.{key}")
        return value

    def number(self, key: str) -> int:
        """A whole number every board has."""
        return int(self.need(key))

    @property
    def lost(self) -> bool:
        """Whether the GPU has fallen off the bus."""
        limit = self.text("falls_off_after_bytes")
        return limit is not None and self.moved >= int(limit)

    @property
    def moved(self) -> int:
        """Bytes moved since power-on."""
        return _counter(f"gpu{self.index}")

    @property
    def nvlinks(self) -> dict[int, bool]:
        """Links by number: up or not."""
        found = (self.text(f"nvlink.{link}") for link in range(self.number("nvlinks")))
        return {link: up == "1" for link, up in enumerate(found)}

    @property
    def corrected_errors(self) -> int:
        """Corrected DRAM errors since power-on."""
        return int(self.moved / 2**30 * float(self.text("ecc_corrected_per_gib") or 0))

    @property
    def clock_fraction(self) -> float:
        """Share of its clocks the GPU reaches under load."""
        fraction = float(self.text("clock_fraction") or 1)
        return fraction if 0 < fraction < 1 else 1.0

    @property
    def busy(self) -> bool:
        """Whether it moved a byte in the last two seconds."""
        return 0 <= self._idle_seconds() < _BUSY_SECONDS

    @property
    def celsius(self) -> int:
        """Temperature of the GPU."""
        idle = self._idle_seconds()
        heat = 0.0 if idle < 0 else (1 - math.exp(-self.moved / _WARMING_BYTES)) * math.exp(-idle / _COOLING_SECONDS)
        return _IDLE_C + self.index % 4 + int(_RISE_C * heat)

    @property
    def memory_celsius(self) -> int:
        """Temperature of its memory."""
        return self.celsius + _MEMORY_OFFSET_C

    @property
    def watts(self) -> float:
        """Power drawn."""
        idle, limit = self.number("idle_power_mw"), self.number("power_limit_mw")
        warm = _WARM_POWER_SHARE * (self.celsius - _IDLE_C - self.index % 4) / _RISE_C
        share = _BUSY_POWER_SHARE * self.clock_fraction if self.busy else warm
        return (idle + (limit - idle) * share) / 1000

    @property
    def sm_mhz(self) -> int:
        """Clock of the SMs now."""
        return int(self.number("sm_clock_mhz") * self.clock_fraction) if self.busy else self.number("idle_clock_mhz")

    def add_moved(self, count: int) -> None:
        """Adds to the bytes moved. Whoever takes the GPU over its limit writes the Xid 79 to the kernel log, once."""
        limit = self.text("falls_off_after_bytes")
        before = _add(f"gpu{self.index}", count)
        if limit is not None and before < int(limit) <= before + count:
            pci = self.need("pci").lower()[4:]  # DDDD:BB:DD.F
            log_kernel(f"NVRM: Xid (PCI:{pci[:10]}): 79, GPU has fallen off the bus.")
            log_kernel(f"NVRM: GPU {pci}: GPU has fallen off the bus.")

    def add_nvlink(self, count: int) -> None:
        """Adds to the bytes sent over NVLink."""
        _add(f"gpu{self.index}.nvlink", count)

    def _idle_seconds(self) -> float:
        """Seconds since it last moved a byte; negative where it has not since power-on."""
        try:
            return max(0.0, time.time() - (folder() / f"load/gpu{self.index}").stat().st_mtime)
        except FileNotFoundError:
            return -1.0


@dataclass(frozen=True)
class State:
    """The state file's values by key."""

    values: dict[str, str]

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Every GPU, lost ones included, as a driver lists them until the next boot."""
        return tuple(Gpu(index, self) for index in range(int(self.values["count"])))

    @property
    def hcas(self) -> tuple[str, ...]:
        """Names of the host channel adapters, in the order of the rails."""
        found = (re.fullmatch(r"hca\.([^.]+)\.guid", key) for key in self.values)
        return tuple(match[1] for match in found if match)

    @property
    def fabric_ready(self) -> bool:
        """Whether a fabric manager of the driver's version has programmed the NVSwitches."""
        manager = self.values.get("fabric_manager")
        if manager is None:
            return True
        if manager not in ("installed", self.values["driver"]):
            return False
        try:
            return (folder() / "load/fabric_manager").read_text().startswith("running")
        except FileNotFoundError:
            # A test's folder has no service manager that could have started one.
            return "RACKPROOF_HARDWARE" in os.environ


def parse(text: str) -> State:
    """The state of its text: `key value` a line."""
    return State(dict(line.split(" ", 1) for line in text.splitlines() if " " in line))


def read() -> State:
    """The state now. Raises NoDriverError where the machine has none."""
    try:
        return parse((folder() / "state").read_text())
    except OSError as error:
        raise NoDriverError(str(error)) from error


def packed_version(package: str) -> str:
    """Upstream version of the package these stand-ins were installed with; `unpacked` in a source tree."""
    try:
        return (Path(__file__).parent / "versions" / package).read_text().strip()
    except FileNotFoundError:
        return "unpacked"


def set_fabric_manager(word: str) -> None:
    """Leaves what the fabric manager has come to: `running VERSION`, `failed`, `stopped`."""
    path = folder() / "load/fabric_manager"
    path.parent.mkdir(exist_ok=True)
    aside = path.with_suffix(".new")
    aside.write_text(f"{word}\n")
    aside.replace(path)


def log_kernel(text: str) -> None:
    """Appends a record of priority `err` to the kernel log, as /dev/kmsg shows it."""
    with (folder() / "kmsg").open("a+b") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(max(0, log.tell() - 4096))
        last = [int(found) for found in re.findall(rb"^\d+,(\d+),", log.read(), re.MULTILINE)]
        sequence = last[-1] + 1 if last else 0
        log.write(f"3,{sequence},{time.monotonic_ns() // 1000},-;{text}\n".encode())


def _counter(name: str) -> int:
    try:
        with (folder() / "load" / name).open() as counter:
            fcntl.flock(counter, fcntl.LOCK_SH)
            return int(counter.read() or 0)
    except FileNotFoundError:
        return 0


def _add(name: str, count: int) -> int:
    """Adds to a counter under its lock; returns what it was before."""
    path = folder() / "load" / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        text = counter.read()
        if not text:
            with contextlib.suppress(PermissionError):  # new: users who are not root count too, whatever the umask
                path.chmod(0o666)
        before = int(text or 0)
        counter.truncate(0)
        counter.write(f"{before + count}\n")
    return before
