"""/var/log/fabricmanager.log: known lines since the fabric manager last started. Text in, `ManagerLog` out.

    [Jul 23 2024 07:53:55] [ERROR] [tid 841] detected NVSwitch fatal error 20034 on fid 0 on NVSwitch pci bus id ...

The file outlives reboots: what stands before the last start is history and no evidence. `NV_WARN_NOTHING_TO_DO` (no
NVSwitch to manage) is no error. Patterns: NVIDIA Fabric Manager user guide; leptonai/gpud components/accelerator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

MAX_CHARACTERS = 1024 * 1024
MAX_LINE = 400
_STARTED = re.compile(r"Fabric Manager version \S{1,40} is running")
_KNOWN = (
    ("FM_NVSWITCH_FATAL", re.compile(r"detected NVSwitch fatal error \d{1,9}")),
    ("FM_NVSWITCH_NON_FATAL", re.compile(r"detected NVSwitch non-fatal error \d{1,9}")),
    ("FM_MULTICAST_GPU_LOST", re.compile(r"failed to find the GPU handle \d{1,20} in the multicast team")),
    (
        "FM_TOPOLOGY_UNKNOWN",
        re.compile(r"detected number of NVSwitches don't match with any supported system topology"),
    ),
    ("FM_VERSION_SKEW", re.compile(r"don't match with driver version")),
    ("FM_PRE_NVL5", re.compile(r"Detected Pre-NVL5 system")),
    ("FM_NOTHING_TO_DO", re.compile(r"NV_WARN_NOTHING_TO_DO")),
)
# Printed by nvidia-fabricmanager-start.sh, before the manager says that it runs.
_OF_NEXT_START = ("FM_PRE_NVL5",)


@dataclass(frozen=True, slots=True)
class ManagerLog:
    """Known lines: code, how often, the last of them. `started` is whether a start stands in what was read."""

    lines: tuple[tuple[str, int, str], ...]
    started: bool

    def as_json(self) -> dict[str, Any]:
        """The lines by code."""
        found = [{"code": code, "count": count, "line": line} for code, count, line in self.lines]
        return {"started": self.started, "lines": found}

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting it."""
        return () if self.started else ("no start of the fabric manager in it: lines may be old",)


def parse(text: str) -> ManagerLog:
    """Reads the log's end. Never raises: text without a known line gives none."""
    found: dict[str, tuple[int, str]] = {}
    announced: dict[str, tuple[int, str]] = {}
    started = False
    for line in text[-MAX_CHARACTERS:].split("\n"):
        if _STARTED.search(line):
            announced = {code: told for code, told in found.items() if code in _OF_NEXT_START}
            found, started = {}, True
        for code, pattern in _KNOWN:
            if pattern.search(line):
                shown = "".join(c if c.isprintable() else "?" for c in line[:MAX_LINE]).strip()
                found[code] = (found.get(code, (0, ""))[0] + 1, shown)
    return ManagerLog(tuple((code, count, line) for code, (count, line) in (announced | found).items()), started)
