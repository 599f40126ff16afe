"""Bytes that this node's NVLinks have carried so far, by NVML. Lifetime counts: only differences mean something."""

from __future__ import annotations

from typing import Any

from burnin.device.nvml import Gpu, Missing, Nvml, NvmlUnavailableError, Reading

_MAX_LINKS = 36  # nvml.h NVML_NVLINK_MAX_LINKS
# nvml.h, field ids of what is sent and received over one link (scope: the link), and the unit in bytes. To Hopper
# the throughput counters of payload, in KiB; from Blackwell the packet counters, in bytes.
_COUNTERS = ((138, 139, 1024), (202, 204, 1))


def read() -> tuple[list[dict[str, Any]], str]:
    """The GPUs with their links that are up, in bytes, and why there are none."""
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
