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

from .ports import PortStatus, port_status

FOLDER = Path("/run/hardware")
PLACE = "RACKPROOF_HARDWARE"  # variable with the hardware folder, where it lies elsewhere: in tests

# The same numbers as in nvml_health.c and hardware_load.c.
_IDLE_C, _FULL_LOAD_C, _MEMORY_OFFSET_C, LIMIT_C = 29, 67, 8, 87
SLOWDOWN_MARGIN_C, SHUTDOWN_MARGIN_C = -2, -8
_COOLING_SECONDS = 20.0
_WARMING_BYTES = 256 * 1024 * 1024
_BUSY_SECONDS = 2.0
_BUSY_POWER_SHARE, _WARM_POWER_SHARE = 0.93, 0.1


class NoDriverError(Exception):
    """There is no hardware state: this machine has no GPUs, or no driver for them."""


def folder() -> Path:
    """The hardware folder: /run/hardware, or $RACKPROOF_HARDWARE where a test sets it."""
    return Path(os.environ.get(PLACE) or FOLDER)


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
        return self._counter("load", "")

    @property
    def nvlinks(self) -> dict[int, bool]:
        """Links by number: up or not."""
        found = (self.text(f"nvlink.{link}") for link in range(self.number("nvlinks")))
        return {link: up == "1" for link, up in enumerate(found)}

    @property
    def corrected_errors(self) -> int:
        """Corrected DRAM errors since power-on or reset."""
        return int(self.moved / 2**30 * float(self.text("ecc_corrected_per_gib") or 0))

    @property
    def uncorrected_errors(self) -> int:
        """Uncorrected DRAM errors since power-on or reset."""
        return self._counter("load", "dram_uncorrected")

    def remembers(self, name: str) -> int:
        """A number of the InfoROM: remapped_corrected, remapped_uncorrected, remap_pending, dram_corrected, ..."""
        return self._counter("inforom", name)

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
        return _IDLE_C + self.index % 4 + int(self._rise_c * self._heat)

    @property
    def margin_c(self) -> int:
        """Degrees it may still get warmer at full speed."""
        return LIMIT_C - self.celsius

    def slowed_microseconds(self, margin: int) -> int:
        """For how long its margin was that small or smaller: a nanosecond a byte, as in nvml_health.c."""
        share = (LIMIT_C - margin - _IDLE_C - self.index % 4) / self._rise_c
        reached = -math.log(1 - share) * _WARMING_BYTES if share < 1 else math.inf
        return int(max(0.0, self.moved - reached) // 1000)

    @property
    def memory_celsius(self) -> int:
        """Temperature of its memory."""
        return self.celsius + _MEMORY_OFFSET_C

    @property
    def watts(self) -> float:
        """Power drawn."""
        idle, limit = self.number("idle_power_mw"), self.number("power_limit_mw")
        share = _BUSY_POWER_SHARE * self._clock_share if self.busy else _WARM_POWER_SHARE * self._heat
        return (idle + (limit - idle) * share) / 1000

    @property
    def sm_mhz(self) -> int:
        """Clock of the SMs now."""
        return int(self.number("sm_clock_mhz") * self._clock_share) if self.busy else self.number("idle_clock_mhz")

    @property
    def pcie_lanes(self) -> str:
        """Width of its link now: a faulty one is narrow when it has work to do."""
        return (self.text("pcie_width_loaded") if self.busy else None) or self.need("pcie_width")

    def add_moved(self, count: int) -> None:
        """Adds to the bytes moved. Whoever takes the GPU over its limit writes the Xid 79 to the kernel log, once."""
        limit = self.text("falls_off_after_bytes")
        before = self._add("load", "", count)
        if limit is not None and before < int(limit) <= before + count:
            pci = self.need("pci").lower()[4:]  # DDDD:BB:DD.F
            home = self.state.home
            log_kernel(home, f"NVRM: Xid (PCI:{pci[:10]}): 79, GPU has fallen off the bus.")
            log_kernel(home, f"NVRM: GPU {pci}: GPU has fallen off the bus.")

    def add_nvlink(self, count: int) -> None:
        """Adds to the bytes sent over NVLink."""
        self._add("load", "nvlink", count)

    def in_use(self) -> bool:
        """Whether a process has a CUDA context on it: it then holds this file's lock."""
        try:
            with self._path("load", "users").open() as users:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def reset(self) -> None:
        """What a reset and a power cycle do: counts begin anew, rows that waited for it are remapped.

        The InfoROM keeps what is remapped, the errors of before, and how often a fault has struck that is still there.
        """
        self._add("inforom", "dram_corrected", self.corrected_errors)
        self._path("inforom", "remap_pending").unlink(missing_ok=True)
        for fault in ("double_bit", "row_remap"):
            if self.text(f"{fault}_times") is None:
                self._path("inforom", fault).unlink(missing_ok=True)
        for name in ("", "nvlink", "dram_uncorrected"):
            self._path("load", name).unlink(missing_ok=True)

    @property
    def _rise_c(self) -> float:
        return float(self.text("full_load_celsius") or _FULL_LOAD_C) - _IDLE_C

    @property
    def _heat(self) -> float:
        """0 idle, 1 long under load."""
        idle = self._idle_seconds()
        return 0.0 if idle < 0 else (1 - math.exp(-self.moved / _WARMING_BYTES)) * math.exp(-idle / _COOLING_SECONDS)

    @property
    def _clock_share(self) -> float:
        """Share of its clocks it has now: a hot one halves them itself."""
        return self.clock_fraction / 2 if self.margin_c <= SLOWDOWN_MARGIN_C else self.clock_fraction

    def _idle_seconds(self) -> float:
        """Seconds since it last moved a byte; negative where it has not since power-on."""
        try:
            return max(0.0, time.time() - self._path("load", "").stat().st_mtime)
        except FileNotFoundError:
            return -1.0

    def _path(self, place: str, name: str) -> Path:
        return self.state.home / place / f"gpu{self.index}{'.' if name else ''}{name}"

    def _counter(self, place: str, name: str) -> int:
        try:
            with self._path(place, name).open() as counter:
                fcntl.flock(counter, fcntl.LOCK_SH)
                return int(counter.read() or 0)
        except FileNotFoundError:
            return 0

    def _add(self, place: str, name: str, count: int) -> int:
        """Adds to a counter under its lock; returns what it was before."""
        path = self._path(place, name)
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir()
            path.parent.chmod(0o777)
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


@dataclass(frozen=True)
class State:
    """The state file's values by key, and the hardware folder it lies in."""

    values: dict[str, str]
    home: Path

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Every GPU, lost ones included, as a driver lists them until the next boot."""
        return tuple(Gpu(index, self) for index in range(int(self.values["count"])))

    @property
    def hcas(self) -> tuple[str, ...]:
        """Names of the host channel adapters, in the order of the rails."""
        found = (re.fullmatch(r"hca\.([^.]+)\.guid", key) for key in self.values)
        return tuple(match[1] for match in found if match)

    def chosen_hcas(self, wanted: str) -> tuple[str, ...]:
        """Those with an active port that $NCCL_IB_HCA names: prefixes, `=` whole names, `^` all but these; or all."""
        exactly, but = "=" in wanted[:2], wanted.startswith("^")
        names = [name.partition(":")[0] for name in wanted.lstrip("^=").split(",") if name]
        named = [h for h in self.hcas if any(h == name if exactly else h.startswith(name) for name in names)]
        chosen = (h for h in self.hcas if (h in named) is not but) if names else iter(self.hcas)
        return tuple(h for h in chosen if self.port(h).active)

    def port(self, hca: str) -> PortStatus:
        """The HCA's port now, as the rack's fabric has it."""
        return port_status(self.values, self.home, hca)

    def carried_gb_per_s(self, hca: str, *, crowded: bool = False) -> float:
        """What the port carries, alone or among many nodes: its rate, or less where something of its rail is slow;
        nothing where it is down.
        """
        port = self.port(hca)
        rate = float(port.rate_gbit) if port.active else 0.0
        limits = ("carried_gbit", "crowded_gbit") if crowded else ("carried_gbit",)
        return min(rate, *(float(self.values.get(f"hca.{hca}.{limit}", rate)) for limit in limits)) / 8

    @property
    def fabric_ready(self) -> bool:
        """Whether a fabric manager of the driver's version has programmed the NVSwitches."""
        manager = self.values.get("fabric_manager")
        if manager is None:
            return True
        if manager not in ("installed", self.values["driver"]):
            return False
        try:
            return (self.home / "load/fabric_manager").read_text().startswith("running")
        except FileNotFoundError:
            # A test's folder has no service manager that could have started one.
            return PLACE in os.environ


def parse(text: str, home: Path | None = None) -> State:
    """The state of its text: `key value` a line."""
    return State(dict(line.split(" ", 1) for line in text.splitlines() if " " in line), home or folder())


def read(home: Path | None = None) -> State:
    """The state now. Raises NoDriverError where the machine has none."""
    place = home or folder()
    try:
        return parse((place / "state").read_text(), place)
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


def log_kernel(home: Path, text: str) -> None:
    """Appends a record of priority `err` to the kernel log, as /dev/kmsg shows it."""
    with (home / "kmsg").open("a+b") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(max(0, log.tell() - 4096))
        last = [int(found) for found in re.findall(rb"^\d+,(\d+),", log.read(), re.MULTILINE)]
        sequence = last[-1] + 1 if last else 0
        log.write(f"3,{sequence},{time.monotonic_ns() // 1000},-;{text}\n".encode())
