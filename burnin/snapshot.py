"""Everything NVML can say of a node's GPUs at one moment: identity, health counters, links, fabric."""

from __future__ import annotations

import ctypes
from typing import Any

from burnin import VERSION
from burnin.device.nvml import Gpu, Missing, Nvml, Reading, text_of
from burnin.journal import utc_now
from burnin.record import GpuIdentity

Snapshot = dict[str, Reading]  # of one GPU: name of the reading -> value, or why there is none

_MAX_LINKS = 36  # nvml.h NVML_NVLINK_MAX_LINKS
_NOT_SUPPORTED = Missing(3)

# nvml.h, field ids
_HBM_CELSIUS = 82
_RECOVERY_ACTION = 230
_SW_THERMAL_NS, _HW_THERMAL_NS, _HW_BRAKE_NS = 269, 270, 271
# errors of one NVLink: to Hopper by nvmlDeviceGetNvLinkErrorCounter (replay, recovery, CRC flit, CRC data);
# from Blackwell by field: malformed, overrun, receive, recoveries that worked and that did not, effective errors
_LINK_COUNTERS = (0, 1, 2, 3)
_LINK_FIELDS = (206, 207, 208, 213, 214, 219)


def snapshots(nvml: Nvml, at_least: int = 0) -> dict[int, Snapshot]:
    """Every GPU's readings by index: as many as the driver lists, and no fewer than `at_least`."""
    count = nvml.count()
    listed = 0 if isinstance(count, Missing) else count
    return {index: _of_gpu(nvml, nvml.gpu(index)) for index in range(max(listed, at_least))}


def warmth(nvml: Nvml, gpu: Gpu) -> Snapshot:
    """The readings that are worth sampling under load: a few cheap calls."""
    return {
        "gpu_celsius": gpu.call("GetTemperature", nvml.constant("NVML_TEMPERATURE_GPU")),
        "hbm_celsius": gpu.fields((_HBM_CELSIUS,))[_HBM_CELSIUS],
        "power_mw": gpu.call("GetPowerUsage"),
    }


def document(nvml: Nvml, taken: dict[int, Snapshot]) -> dict[str, Any]:
    """Snapshots as JSON: a value, or {"missing": why, "code": NVML's number}."""
    return {
        "at": utc_now(),
        "version": VERSION,
        "driver": _plain(nvml.system("GetDriverVersion")),
        "nvml": _plain(nvml.system("GetNVMLVersion")),
        "gpus": [{"index": i, **{k: _plain(v) for k, v in s.items()}} for i, s in taken.items()],
    }


def identity(index: int, taken: Snapshot) -> GpuIdentity:
    """Who the GPU says it is; empty where it does not say."""

    def text(key: str) -> str:
        value = taken[key]
        return "" if isinstance(value, Missing) else str(value)

    return GpuIdentity(index, text("uuid"), text("serial"), text("pci"))


def answered(taken: Snapshot) -> bool:
    """True when the GPU could say who it is."""
    return not isinstance(taken["uuid"], Missing)


def _of_gpu(nvml: Nvml, gpu: Gpu) -> Snapshot:
    pci = gpu.call("GetPciInfo")
    remaps = gpu.call("GetRemappedRows")
    fields = gpu.fields((_RECOVERY_ACTION, _SW_THERMAL_NS, _HW_THERMAL_NS, _HW_BRAKE_NS))
    return {
        "name": text_of(gpu.call("GetName")),
        "uuid": text_of(gpu.call("GetUUID")),
        "serial": text_of(gpu.call("GetSerial")),
        "pci": pci if isinstance(pci, Missing) else text_of(pci.busId),
        "vbios": text_of(gpu.call("GetVbiosVersion")),
        "ecc_mode": _item(gpu.call("GetEccMode"), 0),
        **_ecc(nvml, gpu),
        "remaps_corrected": _item(remaps, 0),
        "remaps_uncorrected": _item(remaps, 1),
        "remap_pending": _item(remaps, 2),
        "remap_failure": _item(remaps, 3),
        "recovery_action": fields[_RECOVERY_ACTION],
        "sw_thermal_ns": fields[_SW_THERMAL_NS],
        "hw_thermal_ns": fields[_HW_THERMAL_NS],
        "hw_brake_ns": fields[_HW_BRAKE_NS],
        **warmth(nvml, gpu),
        "pcie_generation": gpu.call("GetCurrPcieLinkGeneration"),
        "pcie_width": gpu.call("GetCurrPcieLinkWidth"),
        "pcie_replays": gpu.call("GetPcieReplayCounter"),
        **_fabric(nvml, gpu),
        **_links(gpu),
    }


def _ecc(nvml: Nvml, gpu: Gpu) -> Snapshot:
    """Volatile counts, since the driver was loaded: only their growth is used."""
    volatile = nvml.constant("NVML_VOLATILE_ECC")
    found: Snapshot = {}
    for memory in ("dram", "sram"):
        location = nvml.constant(f"NVML_MEMORY_LOCATION_{memory.upper()}")
        for kind in ("corrected", "uncorrected"):
            error = nvml.constant(f"NVML_MEMORY_ERROR_TYPE_{kind.upper()}")
            found[f"ecc_{memory}_{kind}"] = gpu.call("GetMemoryErrorCounter", error, volatile, location)
    return found


def _fabric(nvml: Nvml, gpu: Gpu) -> Snapshot:
    info = nvml.struct("c_nvmlGpuFabricInfo_v2_t")
    answer = gpu.call("GetGpuFabricInfoV", ctypes.byref(info))
    if isinstance(answer, Missing):
        return dict.fromkeys(("fabric_state", "fabric_status", "fabric_clique", "fabric_cluster"), answer)
    return {
        "fabric_state": int(info.state),
        "fabric_status": int(info.status),
        "fabric_clique": int(info.cliqueId),
        "fabric_cluster": bytes(info.clusterUuid).hex(),
    }


def _links(gpu: Gpu) -> Snapshot:
    """Active links, and the errors of each (`nvlink_errors.L`); a board without NVLink has no such keys."""
    found: Snapshot = {}
    active = 0
    for link in range(_MAX_LINKS):
        state = gpu.call("GetNvLinkState", link)
        if isinstance(state, Missing):
            if state.absent:
                break
            found["nvlinks_active"] = state
            return found
        found[f"nvlink_active.{link}"] = state
        active += state
        errors = _link_errors(gpu, link)
        if state or not isinstance(errors, Missing):
            found[f"nvlink_errors.{link}"] = errors
    found["nvlinks_active"] = active if found else _NOT_SUPPORTED
    return found


def _link_errors(gpu: Gpu, link: int) -> Reading:
    counts = [gpu.call("GetNvLinkErrorCounter", link, counter) for counter in _LINK_COUNTERS]
    if all(isinstance(c, Missing) and c.absent for c in counts):
        counts = list(gpu.fields([(field, link) for field in _LINK_FIELDS]).values())
    known = [c for c in counts if not isinstance(c, Missing)]
    failed = [c for c in counts if isinstance(c, Missing) and not c.absent]
    if failed or not known:
        return failed[0] if failed else _NOT_SUPPORTED
    total: float = sum(known)
    return total


def _item(values: Any, position: int) -> Reading:
    """One of a tuple of numbers, or why there is no tuple."""
    return values if isinstance(values, Missing) else int(values[position])


def _plain(value: Reading) -> Any:
    return {"missing": value.word, "code": value.code} if isinstance(value, Missing) else value
