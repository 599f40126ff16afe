"""Kernel log of a node: Xids, SXids, lost GPUs, PCIe errors. Text in, `KernelLog` out.

The grammar is the driver's (open-gpu-kernel-modules, `nvErrorLog` and `kernel_rc.c`):

    NVRM: Xid (PCI:dddd:bb:ss[ GPU-I:nn[ GPU-CI:nn]]): N[, pid=P, name=NAME], text[ caused by previous Xid M]
    nvidia-nvswitchN: SXid (PCI:dddd:bb:ss.f): N, Fatal|Non-fatal, Link L text

Where the line came from does not matter: dmesg, `dmesg -T`, `dmesg -x`, /dev/kmsg, syslog, another tool's quotation.
A GPU that is lost at probe, or whose firmware does not boot, prints no Xid at all; those lines are read as well.
A line that speaks of an Xid and cannot be read is kept in `unread`: it is never taken for silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.facts.log_time import seconds_of

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_TEXT = 512  # characters of an event's own words that are kept
MAX_UNREAD = 64

_ADDRESS = r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-7])?"
_XID = re.compile(
    r"(?<![A-Za-z])Xid \((?:PCI:)?" + _ADDRESS + r"(?: GPU-I:(\d{1,4}))?(?: GPU-CI:(\d{1,4}))?\): {0,2}(\d{1,6})(?!\w)"
)
_SXID = re.compile(r"(?:(nvidia-nvswitch\d{0,4}):? {0,2})?SXid \((?:PCI:)?" + _ADDRESS + r"\): {0,2}(\d{1,6})(?!\w)")
_PID = re.compile(r"[,\s]{0,4}pid=([^,]{0,40})")
_NAME = re.compile(r"[,\s]{0,4}name=([^,]{0,64})")
_CAUSED_BY = re.compile(r"caused by previous Xid (\d{1,6})")
_NVLINK_UNIT = re.compile(r"([A-Z][A-Z0-9_/]{1,63})\s{1,8}(Fatal|Non-?[Ff]atal)\b")
_NVLINK_LINK = re.compile(
    r"\s{0,8}(?:XC ?\d{1,4})?\s{0,8}(?:i ?\d{1,4})?\s{0,8}Link (-?\d{1,4})\b\s{0,4}(?:[(\[]([^)\]]{0,400}))?"
)
_LINK_FAULT = re.compile(r"NVLink: .{0,60}?\bon link (\d{1,4})\b\s{0,4}(?:\(([^)]{0,400}))?")
_REGISTER = re.compile(r"0x[0-9a-fA-F]{1,16}")
_MEMORY = re.compile(r"(?:Row Remapper[^(]{0,80}\(|retirement at |physAddr:? )0x([0-9a-fA-F_]{1,24})")
_RECOVERY = re.compile(
    r"recovery action changed from (0x[0-9a-fA-F]{1,8}) \(([^)]{0,64})\) to (0x[0-9a-fA-F]{1,8}) \(([^)]{0,64})\)"
)
_SWITCH_SEVERITY = re.compile(r"[,\s]{0,4}(Fatal|Non-?[Ff]atal)\b")
_SWITCH_LINK = re.compile(r"\bLink (\d{1,4})\b")
_SWITCH_DETAIL = re.compile(r"[,\s]{0,4}(?:Severity \d|Data \{)")
_LOST = re.compile(r"GPU (?:at )?(?:PCI:)?" + _ADDRESS + r":? (?:GPU )?has fallen off the bus")
_LOST_AT_PROBE = re.compile(r"The NVIDIA GPU (?:PCI:)?" + _ADDRESS)
_INIT_FAILED = re.compile(r"GPU (?:at )?(?:PCI:)?" + _ADDRESS + r":? (?:RmInitAdapter|rm_init_adapter) failed")
_RATE_LIMITED = re.compile(r"Rate limiting .{1,60}? for GPU at (?:PCI:)?" + _ADDRESS)
_AER = re.compile(
    r"(?:AER: (?:Multiple )?|PCIe Bus Error: severity=)(Uncorrect(?:ed|able) \((?:Non-)?Fatal\)|Correct(?:ed|able))",
    re.IGNORECASE,
)
_PCIE_LIMITED = re.compile(
    r"pci " + _ADDRESS + r": (\d{1,6}(?:\.\d{1,6})?) Gb/s available PCIe bandwidth, limited by .{1,60}? link at "
    r"(\S{4,20}) \(capable of (\d{1,6}(?:\.\d{1,6})?) Gb/s"
)
_ESCAPE = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")
_NUMBERED_XID_79 = 79  # NVIDIA catalog: ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS
_PROBE_LINES = 8  # the three lines of a GPU lost at probe, with room for other drivers' lines between them


@dataclass(frozen=True, slots=True)
class RecoveryAction:
    """Xid 154: what the driver wants done with the GPU, before and after. Codes as NVML field 230."""

    before: int
    before_text: str
    after: int
    after_text: str


@dataclass(frozen=True, slots=True)
class Xid:
    """One Xid line.

    pci         `dddd:bb:ss`, lower case, without function
    has_process the line carried pid= or name=; `pid` and `process` are None where it said <unknown>
    unit, severity, link, registers   of NVLink errors (74, 144-150); `link` -1 is "no link" in the driver's own words
    address     physical memory address, where the text names one (48, 63, 64, 94, 95, 171)
    line, at_s  where in the log, from 1; when, in seconds of the log's own epoch (None: the line has no time)
    """

    number: int
    pci: str
    text: str
    gpu_instance: int | None = None
    compute_instance: int | None = None
    has_process: bool = False
    pid: int | None = None
    process: str | None = None
    unit: str | None = None
    severity: str | None = None
    link: int | None = None
    registers: tuple[str, ...] = ()
    address: int | None = None
    recovery: RecoveryAction | None = None
    caused_by: int | None = None
    line: int = 0
    at_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Number and address always; everything else only where the line said it."""
        out: dict[str, Any] = {"xid": self.number, "pci": self.pci}
        if self.has_process:
            out |= {"pid": self.pid, "process": self.process}
        for key in ("gpu_instance", "compute_instance", "unit", "severity", "link", "address", "caused_by"):
            value = getattr(self, key)
            if value is not None:
                out[key] = value
        if self.registers:
            out["registers"] = list(self.registers)
        if self.recovery:
            r = self.recovery
            out["recovery_action"] = {
                "from": r.before, "from_text": r.before_text, "to": r.after, "to_text": r.after_text,
            }  # fmt: skip
        return out


@dataclass(frozen=True, slots=True)
class Sxid:
    """One line of an NVSwitch error. `detail`: a Severity or Data line that follows an event and is none itself."""

    number: int
    switch: str | None
    pci: str
    detail: bool
    text: str
    severity: str | None = None
    link: int | None = None
    line: int = 0
    at_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Severity and link only where the line said them."""
        out: dict[str, Any] = {"sxid": self.number, "switch": self.switch, "pci": self.pci}
        if self.severity is not None:
            out["severity"] = self.severity
        if self.link is not None:
            out["link"] = self.link
        return out | {"line": "detail" if self.detail else "event"}


@dataclass(frozen=True, slots=True)
class PcieLimited:
    """A device that trained below its own capability; rates in Gb/s as the kernel prints them."""

    pci: str
    gbps: float
    capable_gbps: float
    limited_at: str


@dataclass(frozen=True, slots=True)
class KernelLog:
    """What a kernel log says about the hardware.

    fallen_off_bus, init_failed   addresses, sorted
    rate_limited   addresses of GPUs whose further messages the driver does not print
    unread      lines that speak of an error of these kinds in no form known here (first 64)
    truncated   the text was longer than 4 MiB; what came after was not read
    """

    xids: tuple[Xid, ...] = ()
    sxids: tuple[Sxid, ...] = ()
    fallen_off_bus: tuple[str, ...] = ()
    init_failed: tuple[str, ...] = ()
    rate_limited: tuple[str, ...] = ()
    aer_corrected: bool = False
    aer_nonfatal: bool = False
    aer_fatal: bool = False
    pcie_limited: tuple[PcieLimited, ...] = ()
    unread: tuple[str, ...] = ()
    truncated: bool = False

    def as_json(self) -> dict[str, Any]:
        """The answer of `rackproof parse kernel-log`. `pcie_limited` only where a device is."""
        out: dict[str, Any] = {
            "xids": [x.as_json() for x in self.xids],
            "sxids": [s.as_json() for s in self.sxids],
            "distinct_xids": sorted({x.number for x in self.xids}),
            "fallen_off_bus": list(self.fallen_off_bus),
            "init_failed": list(self.init_failed),
            "pcie_aer": {"corrected": self.aer_corrected, "fatal": self.aer_fatal},
        }
        if self.pcie_limited:
            out["pcie_limited"] = [
                {"pci": p.pci, "gbps": p.gbps, "capable_gbps": p.capable_gbps, "limited_at": p.limited_at}
                for p in self.pcie_limited
            ]
        return out

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before taking silence for health."""
        found = [f"not understood: {line}" for line in self.unread]
        if self.truncated:
            found.append("longer than 4 MiB: the rest was not read")
        return tuple(found)


@dataclass(slots=True)
class _Reading:
    """What has been read so far; `lost_at_probe` is an address whose fate the next lines tell."""

    xids: list[Xid] = field(default_factory=list)
    sxids: list[Sxid] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    init_failed: set[str] = field(default_factory=set)
    rate_limited: set[str] = field(default_factory=set)
    aer: set[str] = field(default_factory=set)
    pcie_limited: list[PcieLimited] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    lost_at_probe: str | None = None
    probe_lines_left: int = 0


def parse(text: str) -> KernelLog:
    """Reads a kernel log of any origin. Never raises; reads at most 4 MiB."""
    reading = _Reading()
    for number, line in _lines(text[:MAX_CHARACTERS]):
        _read_gpu_errors(line, number, reading)
        _read_switch_errors(line, number, reading)
        _read_lost_gpus(line, reading)
        _read_pcie(line, reading)
        if _speaks_of_an_error(line) and len(reading.unread) < MAX_UNREAD and not _was_read(line):
            reading.unread.append(line[:MAX_TEXT])
    return KernelLog(
        xids=tuple(reading.xids),
        sxids=tuple(reading.sxids),
        fallen_off_bus=tuple(sorted(reading.lost)),
        init_failed=tuple(sorted(reading.init_failed)),
        rate_limited=tuple(sorted(reading.rate_limited)),
        aer_corrected="corrected" in reading.aer,
        aer_nonfatal="nonfatal" in reading.aer,
        aer_fatal="fatal" in reading.aer,
        pcie_limited=tuple(reading.pcie_limited),
        unread=tuple(reading.unread),
        truncated=len(text) > MAX_CHARACTERS,
    )


_INTERESTING = ("Xid", "NVRM", "fallen off", "PCIe", "AER:", "nit_adapter", "Rate limiting")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # /dev/kmsg writes a newline inside a record as \x0a: the three lines of a lost GPU arrive as one
    for number, raw in enumerate(text.replace("\\x0a", "\n").split("\n"), 1):
        if any(word in raw for word in _INTERESTING):
            yield number, _ESCAPE.sub("", raw).rstrip("\r")


def _read_gpu_errors(line: str, number: int, reading: _Reading) -> None:
    seen: list[dict[str, Any]] = []
    for match, rest in _with_rest(_XID, line):
        xid = replace(_xid(match, rest), line=number, at_s=seconds_of(line))
        # a tool that quotes its input prints the same event twice in one line
        if xid.as_json() in seen:
            continue
        seen.append(xid.as_json())
        reading.xids.append(xid)
        if xid.number == _NUMBERED_XID_79:
            reading.lost.add(xid.pci)


def _xid(match: re.Match[str], rest: str) -> Xid:
    pid, rest = _take(_PID, rest)
    name, rest = _take(_NAME, rest)
    unit = _NVLINK_UNIT.search(rest)
    link = _NVLINK_LINK.match(rest, unit.end()) if unit else _LINK_FAULT.search(rest)
    recovery = _RECOVERY.search(rest)
    caused_by = _CAUSED_BY.search(rest)
    return Xid(
        number=int(match[6]),
        pci=_pci(match[1], match[2], match[3]),
        text=rest.lstrip(", ")[:MAX_TEXT],
        gpu_instance=int(match[4]) if match[4] else None,
        compute_instance=int(match[5]) if match[5] else None,
        has_process=pid is not None or name is not None,
        pid=int(pid) if pid and pid.isascii() and pid.isdigit() and len(pid) <= 10 else None,
        process=name if name and name != "<unknown>" else None,
        unit=unit[1] if unit else None,
        severity=_severity(unit[2]) if unit else None,
        link=int(link[1]) if link else None,
        registers=tuple(_REGISTER.findall(link[2])) if link and link[2] else (),
        address=_address(rest),
        recovery=RecoveryAction(int(recovery[1], 16), recovery[2], int(recovery[3], 16), recovery[4])
        if recovery
        else None,
        caused_by=int(caused_by[1]) if caused_by else None,
    )


def _with_rest(pattern: re.Pattern[str], line: str) -> Iterator[tuple[re.Match[str], str]]:
    """Every match with the text that follows it, up to the next match or 4096 characters."""
    matches = list(pattern.finditer(line))
    ends = [m.start() for m in matches[1:]] + [len(line)]
    for match, end in zip(matches, ends, strict=False):
        yield match, line[match.end() : min(end, match.end() + 4096)]


def _take(pattern: re.Pattern[str], text: str) -> tuple[str | None, str]:
    """The field at the start of the text without quotes, and what comes after it; None where it is not there."""
    match = pattern.match(text)
    if match is None:
        return None, text
    return match[1].strip().strip("'\""), text[match.end() :]


def _address(text: str) -> int | None:
    match = _MEMORY.search(text)
    digits = match[1].replace("_", "") if match else ""
    return int(digits, 16) if 0 < len(digits) <= 16 else None


def _severity(word: str) -> str:
    return "fatal" if word == "Fatal" else "nonfatal"


def _pci(domain: str | None, bus: str, slot: str) -> str:
    return f"{(domain or '0000')[-4:]}:{bus}:{slot}".lower()


def _read_switch_errors(line: str, number: int, reading: _Reading) -> None:
    for match, rest in _with_rest(_SXID, line):
        detail = _SWITCH_DETAIL.match(rest) is not None
        severity = _SWITCH_SEVERITY.match(rest)
        link = None if detail else _SWITCH_LINK.search(rest)
        reading.sxids.append(
            Sxid(
                number=int(match[5]),
                switch=match[1],
                pci=_pci(match[2], match[3], match[4]),
                detail=detail,
                text=rest.lstrip(", ")[:MAX_TEXT],
                severity=_severity(severity[1]) if severity else None,
                link=int(link[1]) if link else None,
                line=number,
                at_s=seconds_of(line),
            )
        )


def _read_lost_gpus(line: str, reading: _Reading) -> None:
    reading.lost |= {_pci(*m.groups()) for m in _LOST.finditer(line)}
    reading.init_failed |= {_pci(*m.groups()) for m in _INIT_FAILED.finditer(line)}
    reading.rate_limited |= {_pci(*m.groups()) for m in _RATE_LIMITED.finditer(line)}
    at_probe = _LOST_AT_PROBE.search(line)
    if at_probe:
        reading.lost_at_probe, reading.probe_lines_left = _pci(*at_probe.groups()), _PROBE_LINES
    if reading.lost_at_probe and "fallen off the bus" in line:
        reading.lost.add(reading.lost_at_probe)
        reading.lost_at_probe = None
    reading.probe_lines_left -= 1
    if reading.probe_lines_left <= 0:
        reading.lost_at_probe = None


def _read_pcie(line: str, reading: _Reading) -> None:
    for match in _AER.finditer(line):
        word = match[1].lower()
        kind = "corrected" if word.startswith("correct") else "nonfatal" if "non-fatal" in word else "fatal"
        reading.aer.add(kind)
    for match in _PCIE_LIMITED.finditer(line):
        reading.pcie_limited.append(
            PcieLimited(_pci(match[1], match[2], match[3]), float(match[4]), float(match[6]), match[5])
        )


_SPEAKS = re.compile(r"(?<![A-Za-z])S?Xid\b.{0,40}\d|fallen off the bus|RmInitAdapter failed|rm_init_adapter failed")


def _speaks_of_an_error(line: str) -> bool:
    return _SPEAKS.search(line) is not None


def _was_read(line: str) -> bool:
    known = (_XID, _SXID, _LOST, _INIT_FAILED)
    # the last of the three lines of a GPU lost at probe has no address of its own
    return any(p.search(line) for p in known) or "fallen off the bus and is not responding" in line
