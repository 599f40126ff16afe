"""Bytes that NVLinks and HCAs have carried so far, read before and after a test: the proof of the way it took.

Values are lifetime counts: only differences mean something. What cannot be read is None with a word why, never 0.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

SYSFS = Path("/sys/class/infiniband")

_MAX_PORTS = 256  # more than any node has: bounds what we read of a folder
# /sys/class/infiniband/*/ports/*/counters counts in words of four octets (InfiniBand specification, PortCounters)
_WORD_BYTES = 4
# Errors of the port itself, by their names in the same folder (kernel: Documentation/ABI/stable/sysfs-class-infiniband;
# InfiniBand specification, PortCounters). The last is of packets another port had marked bad already.
ERRORS = (
    "symbol_error", "link_error_recovery", "link_downed", "port_rcv_errors", "local_link_integrity_errors",
    "excessive_buffer_overrun_errors", "port_rcv_remote_physical_errors",
)  # fmt: skip


def read(infiniband: Path = SYSFS, *, nvlinks: bool = True) -> dict[str, Any]:
    """All counters of this node as JSON: `gpus` with their links, `hcas` with their ports, in bytes and in errors.

    `nvlinks` False leaves the GPUs alone: their driver is slow to ask, and a test of one rail crosses no NVLink.
    """
    gpus, why = _gpus() if nvlinks else ([], "not asked")
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"at": at, "gpus": gpus, "missing": why, "hcas": _hcas(infiniband)}


def main(arguments: list[str] | None = None) -> int:
    """Print `read()`. Arguments: the folder of the HCAs, then `hcas` where no NVLink is to be read."""
    given = sys.argv[1:] if arguments is None else arguments
    told = read(Path(given[0]) if given else SYSFS, nvlinks="hcas" not in given[1:])
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _gpus() -> tuple[list[dict[str, Any]], str]:
    from burnin.nccl import nvlinks  # NVML takes longer to load than the HCAs to read: only where it is asked for

    return nvlinks.read()


def _hcas(folder: Path) -> list[dict[str, Any]]:
    ports = sorted(folder.glob("*/ports/*/counters"))[:_MAX_PORTS]
    return [
        {
            "hca": port.parent.parent.parent.name,
            "port": port.parent.name,
            "sent": _words(port / "port_xmit_data"),
            "received": _words(port / "port_rcv_data"),
            "errors": {name: _count(port / name) for name in ERRORS},
        }
        for port in ports
    ]


def _words(counter: Path) -> int | None:
    count = _count(counter)
    return None if count is None else count * _WORD_BYTES


def _count(counter: Path) -> int | None:
    try:
        text = counter.read_text(errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isascii() and text.isdecimal() else None
