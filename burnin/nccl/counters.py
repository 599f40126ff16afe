"""Bytes that NVLinks and HCAs have carried so far, read before and after a test: the proof of the way it took.

Values are lifetime counts: only differences mean something. What cannot be read is None with a word why, never 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from burnin.device.nvml import Gpu, Missing, Nvml, NvmlUnavailableError, Reading
from burnin.journal import utc_now

SYSFS = Path("/sys/class/infiniband")

_MAX_LINKS = 36  # nvml.h NVML_NVLINK_MAX_LINKS
_MAX_PORTS = 256  # more than any node has: bounds what we read of a folder
# nvml.h, field ids of what is sent and received over one link (scope: the link), and the unit in bytes. To Hopper
# the throughput counters of payload, in KiB; from Blackwell the packet counters, in bytes.
_COUNTERS = ((138, 139, 1024), (202, 204, 1))
# /sys/class/infiniband/*/ports/*/counters counts in words of four octets (InfiniBand specification, PortCounters)
_WORD_BYTES = 4


def read(infiniband: Path = SYSFS) -> dict[str, Any]:
    """All counters of this node as JSON: `gpus` with their links, `hcas` with their ports, all in bytes."""
    gpus, why = _gpus()
    return {"at": utc_now(), "gpus": gpus, "missing": why, "hcas": _hcas(infiniband)}


def main(arguments: list[str] | None = None) -> int:
    """Print `read()`; the one argument, if any, is the folder of the HCAs."""
    given = sys.argv[1:] if arguments is None else arguments
    sys.stdout.write(json.dumps(read(Path(given[0]) if given else SYSFS)) + "\n")
    return 0


def _gpus() -> tuple[list[dict[str, Any]], str]:
    try:
        nvml = Nvml()
    except NvmlUnavailableError as error:
        return [], error.word
    count = nvml.count()
    if isinstance(count, Missing):
        return [], count.word
    return [{"gpu": index, "links": _links(nvml.gpu(index))} for index in range(count)], ""


def _links(gpu: Gpu) -> list[dict[str, Any]]:
    """The GPU's links that are up; empty where it has none, or is lost: then it has carried nothing for us."""
    found = []
    for link in range(_MAX_LINKS):
        state = gpu.call("GetNvLinkState", link)
        if isinstance(state, Missing):
            break
        if state:
            found.append({"link": link, **_of_link(gpu, link)})
    return found


def _of_link(gpu: Gpu, link: int) -> dict[str, Any]:
    sent: Reading = Missing(0)
    for sent_id, received_id, unit in _COUNTERS:
        values = gpu.fields(((sent_id, link), (received_id, link)))
        sent, received = values[sent_id, link], values[received_id, link]
        if isinstance(sent, int | float) and isinstance(received, int | float):
            return {"sent": int(sent) * unit, "received": int(received) * unit}
    return {"sent": None, "received": None, "missing": sent.word if isinstance(sent, Missing) else "not a number"}


def _hcas(folder: Path) -> list[dict[str, Any]]:
    ports = sorted(folder.glob("*/ports/*/counters"))[:_MAX_PORTS]
    return [
        {
            "hca": port.parent.parent.parent.name,
            "port": port.parent.name,
            "sent": _words(port / "port_xmit_data"),
            "received": _words(port / "port_rcv_data"),
        }
        for port in ports
    ]


def _words(counter: Path) -> int | None:
    try:
        text = counter.read_text(errors="replace").strip()
    except OSError:
        return None
    return int(text) * _WORD_BYTES if text.isascii() and text.isdecimal() else None
