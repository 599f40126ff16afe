"""Everything NVML can say of a node's GPUs at one moment: identity, health counters, limits, links, fabric.

A reading is a value or why there is none (Missing); which of the two is never guessed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from burnin import VERSION
from burnin.device.nvml import Gpu, Missing, Nvml, Reading, text_of
from burnin.journal import utc_now
from burnin.record import GpuIdentity

Snapshot = dict[str, Reading]  # of one GPU: name of the reading -> value, or why there is none

_MAX_LINKS = 36  # nvml.h NVML_NVLINK_MAX_LINKS
_NOT_SUPPORTED = Missing(3)
_FUNCTION_NOT_FOUND = 13  # nvml.h NVML_ERROR_FUNCTION_NOT_FOUND
_CORRUPTED_INFOROM = 14  # nvml.h NVML_ERROR_CORRUPTED_INFOROM

# nvml.h, field ids
_HBM_CELSIUS = 82
_RECOVERY_ACTION = 230
_POWER_CAP_NS, _SW_THERMAL_NS, _HW_THERMAL_NS, _HW_BRAKE_NS = 74, 269, 270, 271
_TLIMITS = {"tlimit_shutdown": 193, "tlimit_slowdown": 194, "tlimit_hbm_max": 195, "tlimit_gpu_max": 196}
_C2C_LINKS = 170
_C2C_ERRORS = (231, 232, 233)  # CRC, replays, replays back to back
_MAX_C2C_LINKS = 32  # more than any board has: bounds what a broken driver can make us ask
# errors of one NVLink: to Hopper by nvmlDeviceGetNvLinkErrorCounter (replay, recovery, CRC flit, CRC data);
# from Blackwell by field: malformed, overrun, receive, recoveries that worked and that did not, effective errors
_LINK_COUNTERS = (0, 1, 2, 3)
_LINK_FIELDS = (206, 207, 208, 213, 214, 219)
_DL_RECOVERY = 1  # among _LINK_COUNTERS
_LINK_RECOVERY_FIELDS = (213, 214)


def snapshots(nvml: Nvml, at_least: int = 0) -> dict[int, Snapshot]:
    """Every GPU's readings by index: as many as the driver lists, and no fewer than `at_least`."""
    count = nvml.count()
    listed = 0 if isinstance(count, Missing) else count
    return {index: _of_gpu(nvml, nvml.gpu(index)) for index in range(max(listed, at_least))}


def load(nvml: Nvml, gpu: Gpu) -> Snapshot:
    """The readings that are worth sampling once a second under load: a dozen cheap calls."""
    utilization = gpu.call("GetUtilizationRates")
    return {
        "gpu_celsius": gpu.call("GetTemperature", nvml.constant("NVML_TEMPERATURE_GPU")),
        "hbm_celsius": gpu.fields((_HBM_CELSIUS,))[_HBM_CELSIUS],
        "margin_celsius": gpu.call("GetMarginTemperature"),
        "power_mw": gpu.call("GetPowerUsage"),
        "gpu_percent": utilization if isinstance(utilization, Missing) else int(utilization.gpu),
        "sm_mhz": gpu.call("GetClockInfo", nvml.constant("NVML_CLOCK_SM")),
        "hbm_mhz": gpu.call("GetClockInfo", nvml.constant("NVML_CLOCK_MEM")),
        "throttle_reasons": gpu.call("GetCurrentClocksEventReasons"),
        "pcie_generation": gpu.call("GetCurrPcieLinkGeneration"),
        "pcie_width": gpu.call("GetCurrPcieLinkWidth"),
        **_ecc(nvml, gpu, "VOLATILE", ("dram",)),
    }


def nvlink_errors(gpu: Gpu, links: int) -> Reading:
    """Errors of links 0 to `links` - 1 together, since the driver was loaded: some dozens of calls."""
    return _sum([_link_errors(gpu, link) for link in range(links)])


def document(nvml: Nvml, taken: dict[int, Snapshot]) -> dict[str, Any]:
    """Snapshots as JSON: a value, or {"missing": why, "code": NVML's number}."""
    return {
        "at": utc_now(),
        "version": VERSION,
        "driver": _plain(nvml.system("GetDriverVersion")),
        "nvml": _plain(nvml.system("GetNVMLVersion")),
        "gpus": [{"index": i, **{k: _plain(v) for k, v in s.items()}} for i, s in taken.items()],
    }


def from_document(found: Any) -> dict[int, Snapshot]:
    """The snapshots that `document` wrote. Raises KeyError, TypeError or ValueError for what is none."""
    taken: dict[int, Snapshot] = {}
    for gpu in found["gpus"]:
        readings = {k: Missing(int(v["code"])) if isinstance(v, dict) else v for k, v in gpu.items() if k != "index"}
        taken[int(gpu["index"])] = readings
    return taken


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
    ecc = gpu.call("GetEccMode")
    return {
        **_who(nvml, gpu),
        "ecc_mode": _item(ecc, 0),
        "ecc_mode_pending": _item(ecc, 1),
        "mig_mode": _item(gpu.call("GetMigMode"), 0),
        "persistence_mode": gpu.call("GetPersistenceMode"),
        **_ecc(nvml, gpu, "VOLATILE", ("dram", "sram")),
        **_ecc(nvml, gpu, "AGGREGATE", ("dram", "sram")),
        **_repairs(nvml, gpu),
        **_limits(nvml, gpu),
        **load(nvml, gpu),
        "energy_mj": gpu.call("GetTotalEnergyConsumption"),
        "pcie_replays": gpu.call("GetPcieReplayCounter"),
        **_fabric(nvml, gpu),
        **_links(gpu),
        **_c2c(gpu),
    }


def _who(nvml: Nvml, gpu: Gpu) -> Snapshot:
    """Identity, by which a GPU is found again; the place in the rack where the board says it."""
    pci = gpu.call("GetPciInfo")
    return {
        "name": text_of(gpu.call("GetName")),
        "uuid": text_of(gpu.call("GetUUID")),
        "serial": text_of(gpu.call("GetSerial")),
        "pci": pci if isinstance(pci, Missing) else text_of(pci.busId),
        "vbios": text_of(gpu.call("GetVbiosVersion")),
        "board_part_number": text_of(gpu.call("GetBoardPartNumber")),
        "module_id": gpu.call("GetModuleId"),
        "inforom_version": text_of(gpu.call("GetInforomImageVersion")),
        "inforom_valid": _inforom_valid(gpu),
        **_platform(nvml, gpu),
    }


def _inforom_valid(gpu: Gpu) -> Reading:
    """1 when NVML finds the InfoROM's checksums right, 0 when it finds them wrong."""
    answer = gpu.call("ValidateInforom")
    if isinstance(answer, Missing):
        return 0 if answer.code == _CORRUPTED_INFOROM else answer
    return 1


def _platform(nvml: Nvml, gpu: Gpu) -> Snapshot:
    """Where in its rack the board is; from Blackwell on."""
    return _of_struct(
        gpu,
        "GetPlatformInfo",
        "c_nvmlPlatformInfo_v2_t",
        {
            "chassis_serial": lambda s: text_of(s.chassisSerialNumber),
            "slot_number": lambda s: ord(s.slotNumber),
            "tray_index": lambda s: ord(s.trayIndex),
            "host_id": lambda s: ord(s.hostId),
            "platform_module_id": lambda s: ord(s.moduleId),
        },
        nvml,
    )


def _ecc(nvml: Nvml, gpu: Gpu, counter: str, memories: tuple[str, ...]) -> Snapshot:
    """Counts of errors: VOLATILE since the driver was loaded, AGGREGATE (`aggregate_ecc_...`) of the board's life."""
    since = nvml.constant(f"NVML_{counter}_ECC")
    prefix = "ecc" if counter == "VOLATILE" else "aggregate_ecc"
    found: Snapshot = {}
    for memory in memories:
        location = nvml.constant(f"NVML_MEMORY_LOCATION_{memory.upper()}")
        for kind in ("corrected", "uncorrected"):
            error = nvml.constant(f"NVML_MEMORY_ERROR_TYPE_{kind.upper()}")
            found[f"{prefix}_{memory}_{kind}"] = gpu.call("GetMemoryErrorCounter", error, since, location)
    return found


def _repairs(nvml: Nvml, gpu: Gpu) -> Snapshot:
    """What the GPU has repaired, has still to repair, and cannot repair any more."""
    remaps = gpu.call("GetRemappedRows")
    histogram = gpu.call("GetRowRemapperHistogram")
    repair = gpu.call("GetRepairStatus")
    return {
        "remaps_corrected": _item(remaps, 0),
        "remaps_uncorrected": _item(remaps, 1),
        "remap_pending": _item(remaps, 2),
        "remap_failure": _item(remaps, 3),
        # banks by what is left of their spare rows; the sum is the number of banks the board has
        **{
            f"remap_banks_{left}": histogram if isinstance(histogram, Missing) else int(getattr(histogram, left))
            for left in ("max", "high", "partial", "low", "none")
        },
        "channel_repair_pending": _item(repair, 0),
        "tpc_repair_pending": _item(repair, 1),
        "recovery_action": gpu.fields((_RECOVERY_ACTION,))[_RECOVERY_ACTION],
        **_of_struct(
            gpu,
            "GetSramEccErrorStatus",
            "c_nvmlEccSramErrorStatus_v1_t",
            {
                "sram_threshold_exceeded": lambda s: int(s.bThresholdExceeded),
                "sram_parity_aggregate": lambda s: int(s.aggregateUncParity),
                "sram_secded_aggregate": lambda s: int(s.aggregateUncSecDed),
            },
            nvml,
        ),
    }


def _limits(nvml: Nvml, gpu: Gpu) -> Snapshot:
    """What the board is allowed and able to do, and the time it was held back so far."""
    throttled = gpu.fields((_POWER_CAP_NS, _SW_THERMAL_NS, _HW_THERMAL_NS, _HW_BRAKE_NS))
    tlimits = gpu.fields(tuple(_TLIMITS.values()))

    def threshold(name: str) -> Reading:
        value: Reading = gpu.call("GetTemperatureThreshold", nvml.constant(f"NVML_TEMPERATURE_THRESHOLD_{name}"))
        return value

    return {
        "power_cap_ns": throttled[_POWER_CAP_NS],
        "sw_thermal_ns": throttled[_SW_THERMAL_NS],
        "hw_thermal_ns": throttled[_HW_THERMAL_NS],
        "hw_brake_ns": throttled[_HW_BRAKE_NS],
        "slowdown_celsius": threshold("SLOWDOWN"),
        "shutdown_celsius": threshold("SHUTDOWN"),
        "hbm_max_celsius": threshold("MEM_MAX"),
        **{name: tlimits[field] for name, field in _TLIMITS.items()},
        "power_limit_mw": gpu.call("GetEnforcedPowerLimit"),
        "sm_mhz_max": gpu.call("GetMaxClockInfo", nvml.constant("NVML_CLOCK_SM")),
        "hbm_mhz_max": gpu.call("GetMaxClockInfo", nvml.constant("NVML_CLOCK_MEM")),
        "memory_bus_bits": gpu.call("GetMemoryBusWidth"),
        "pcie_generation_max": gpu.call("GetMaxPcieLinkGeneration"),  # of GPU and slot together
        "pcie_generation_max_gpu": gpu.call("GetGpuMaxPcieLinkGeneration"),
        "pcie_width_max": gpu.call("GetMaxPcieLinkWidth"),
    }


_FABRIC = ("fabric_state", "fabric_status", "fabric_clique", "fabric_cluster", "fabric_health")


def _fabric(nvml: Nvml, gpu: Gpu) -> Snapshot:
    info = nvml.struct("c_nvmlGpuFabricInfo_v2_t")
    answer = gpu.call("GetGpuFabricInfoV", ctypes.byref(info))
    if isinstance(answer, Missing):
        return dict.fromkeys(_FABRIC, answer)
    return {
        "fabric_state": int(info.state),
        "fabric_status": int(info.status),
        "fabric_clique": int(info.cliqueId),
        "fabric_cluster": bytes(info.clusterUuid).hex(),
        "fabric_health": int(info.healthMask),
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
            found[f"nvlink_recoveries.{link}"] = _link_recoveries(gpu, link)
    found["nvlinks_active"] = active if found else _NOT_SUPPORTED
    return found


def _link_errors(gpu: Gpu, link: int) -> Reading:
    counts = [gpu.call("GetNvLinkErrorCounter", link, counter) for counter in _LINK_COUNTERS]
    if all(isinstance(c, Missing) and c.absent for c in counts):
        counts = list(gpu.fields([(field, link) for field in _LINK_FIELDS]).values())
    return _sum(counts)


def _link_recoveries(gpu: Gpu, link: int) -> Reading:
    """How often the link went down and was trained again, or was not; these are among its errors too."""
    count: Reading = gpu.call("GetNvLinkErrorCounter", link, _DL_RECOVERY)
    if isinstance(count, Missing) and count.absent:
        return _sum(list(gpu.fields([(field, link) for field in _LINK_RECOVERY_FIELDS]).values()))
    return count


def _c2c(gpu: Gpu) -> Snapshot:
    """The link between GPU and Grace, where there is one."""
    info = gpu.call("GetC2cModeInfoV")
    links = gpu.fields((_C2C_LINKS,))[_C2C_LINKS]
    errors: Reading = _NOT_SUPPORTED
    if isinstance(links, Missing):
        errors = links
    elif isinstance(links, int | float) and 0 < links <= _MAX_C2C_LINKS:
        errors = _sum([v for i in range(int(links)) for v in gpu.fields([(f, i) for f in _C2C_ERRORS]).values()])
    return {
        "c2c_enabled": info if isinstance(info, Missing) else int(info.isC2cEnabled),
        "c2c_links": links,
        "c2c_errors": errors,
    }


def _sum(counts: list[Reading]) -> Reading:
    """The sum of those that exist; why not, when one that exists could not be read, or none exists."""
    failed = [c for c in counts if isinstance(c, Missing) and not c.absent]
    known = [c for c in counts if isinstance(c, int | float)]
    if failed or not known:
        return failed[0] if failed else _NOT_SUPPORTED
    total: float = sum(known)
    return total


def _of_struct(
    gpu: Gpu, function: str, struct: str, members: dict[str, Callable[[Any], Reading]], nvml: Nvml
) -> Snapshot:
    """Readings out of a structure that NVML fills; all of them Missing when it does not, or pynvml lacks it."""
    try:
        filled = nvml.struct(struct)
    except AttributeError:  # an older pynvml
        return dict.fromkeys(members, Missing(_FUNCTION_NOT_FOUND))
    answer = gpu.call(function, ctypes.byref(filled))
    if isinstance(answer, Missing):
        return dict.fromkeys(members, answer)
    return {name: read(filled) for name, read in members.items()}


def _item(values: Any, position: int) -> Reading:
    """One of a tuple of numbers, or why there is no tuple."""
    return values if isinstance(values, Missing) else int(values[position])


def _plain(value: Reading) -> Any:
    return {"missing": value.word, "code": value.code} if isinstance(value, Missing) else value
