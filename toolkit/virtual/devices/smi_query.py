"""`nvidia-smi --query-gpu=...`: the fields it can be asked for, and its three shapes of CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .state import Gpu, State

_MIB = 1 << 20
# Known of a GPU without asking it, so a lost one still has them.
_STATIC = {
    "index", "name", "gpu_name", "uuid", "gpu_uuid", "serial", "gpu_serial", "pci.bus_id", "gpu_bus_id", "pci.domain",
    "pci.bus", "driver_version", "count", "vbios_version", "compute_cap",
}  # fmt: skip


class UnknownFieldError(Exception):
    """The tool has no such field."""


def _plain(key: str, unit: str = "") -> Callable[[Gpu], tuple[str, str]]:
    return lambda gpu: (gpu.need(key), unit)


def _fixed(value: str, unit: str = "") -> Callable[[Gpu], tuple[str, str]]:
    return lambda _: (value, unit)


def _fabric(ready: str, waiting: str) -> Callable[[Gpu], tuple[str, str]]:
    return lambda gpu: (ready if gpu.state.fabric_ready else waiting, "")


def _free_mib(gpu: Gpu) -> str:
    return str((gpu.number("memory_bytes") - gpu.number("memory_reserved_bytes")) // _MIB)


def _remembered(name: str) -> Callable[[Gpu], tuple[str, str]]:
    return lambda gpu: (str(gpu.remembers(name)), "")


_COUNTS: dict[tuple[str, str], Callable[[Gpu], tuple[str, str]]] = {
    ("corrected", "volatile"): lambda gpu: (str(gpu.corrected_errors), ""),
    ("corrected", "aggregate"): lambda gpu: (str(gpu.remembers("dram_corrected") + gpu.corrected_errors), ""),
    ("uncorrected", "volatile"): lambda gpu: (str(gpu.uncorrected_errors), ""),
    ("uncorrected", "aggregate"): _remembered("dram_uncorrected"),
}
_ECC = {
    f"ecc.errors.{kind}.{life}.{place}": _fixed("0") if place == "sram" else count
    for (kind, life), count in _COUNTS.items()
    for place in ("dram", "sram", "device_memory", "total")
}
_FIELDS: dict[str, Callable[[Gpu], tuple[str, str]]] = {
    "index": lambda gpu: (str(gpu.index), ""),
    "name": _plain("name"),
    "uuid": _plain("uuid"),
    "serial": _plain("serial"),
    "pci.bus_id": _plain("pci"),
    "pci.domain": lambda gpu: (f"0x{gpu.need('pci')[4:8]}", ""),
    "pci.bus": lambda gpu: (f"0x{gpu.need('pci')[9:11]}", ""),
    "driver_version": lambda gpu: (gpu.state.values["driver"], ""),
    "count": lambda gpu: (str(len(gpu.state.gpus)), ""),
    "vbios_version": _plain("vbios"),
    "inforom.image": _plain("inforom"),
    "inforom.img": _plain("inforom"),
    "compute_cap": lambda gpu: (f"{gpu.number('compute_capability') / 10:.1f}", ""),
    "persistence_mode": _fixed("Enabled"),
    "compute_mode": _fixed("Default"),
    "mig.mode.current": _fixed("Disabled"),
    "pstate": _fixed("P0"),
    "memory.total": lambda gpu: (str(gpu.number("memory_bytes") // _MIB), "MiB"),
    "memory.reserved": lambda gpu: (str(gpu.number("memory_reserved_bytes") // _MIB), "MiB"),
    "memory.used": _fixed("0", "MiB"),
    "memory.free": lambda gpu: (_free_mib(gpu), "MiB"),
    "utilization.gpu": lambda gpu: ("100" if gpu.busy else "0", "%"),
    "utilization.memory": lambda gpu: ("87" if gpu.busy else "0", "%"),
    "temperature.gpu": lambda gpu: (str(gpu.celsius), ""),
    "temperature.memory": lambda gpu: (str(gpu.memory_celsius), ""),
    "power.draw": lambda gpu: (f"{gpu.watts:.2f}", "W"),
    "power.limit": lambda gpu: (f"{gpu.number('power_limit_mw') / 1000:.2f}", "W"),
    "enforced.power.limit": lambda gpu: (f"{gpu.number('power_limit_mw') / 1000:.2f}", "W"),
    "clocks.gr": lambda gpu: (str(gpu.sm_mhz), "MHz"),
    "clocks.sm": lambda gpu: (str(gpu.sm_mhz), "MHz"),
    "clocks.mem": _plain("memory_clock_mhz", "MHz"),
    "clocks.max.gr": _plain("sm_clock_mhz", "MHz"),
    "clocks.max.sm": _plain("sm_clock_mhz", "MHz"),
    "clocks.max.mem": _plain("memory_clock_mhz", "MHz"),
    "pcie.link.gen.current": _plain("pcie_gen"),
    "pcie.link.gen.max": _plain("pcie_gen"),
    "pcie.link.width.current": lambda gpu: (gpu.pcie_lanes, ""),
    "pcie.link.width.max": _plain("pcie_width"),
    "ecc.mode.current": _fixed("Enabled"),
    "ecc.mode.pending": _fixed("Enabled"),
    "remapped_rows.correctable": _remembered("remapped_corrected"),
    "remapped_rows.uncorrectable": _remembered("remapped_uncorrected"),
    "remapped_rows.pending": lambda gpu: ("Yes" if gpu.remembers("remap_pending") else "No", ""),
    "remapped_rows.failure": _fixed("No"),
    "fabric.state": _fabric("Completed", "In Progress"),
    "fabric.status": _fabric("Success", "[N/A]"),
    "fabric.cliqueId": _fixed("0"),
    "fabric.clusterUuid": _fixed("00000000-0000-0000-0000-000000000000"),
} | _ECC
_ALIASES = {
    "gpu_name": "name",
    "gpu_uuid": "uuid",
    "gpu_serial": "serial",
    "gpu_bus_id": "pci.bus_id",
    "clocks.current.sm": "clocks.sm",
    "clocks.current.graphics": "clocks.gr",
    "clocks.current.memory": "clocks.mem",
}
_UNITS = {"MiB": "[MiB]", "%": "[%]", "W": "[W]", "MHz": "[MHz]"}


def csv(state: State, gpus: Sequence[Gpu], fields: Sequence[str], header: bool, units: bool) -> str:
    """The table, one line a GPU. Raises UnknownFieldError with the first field the tool does not have."""
    for field in fields:
        if _ALIASES.get(field, field) not in _FIELDS:
            raise UnknownFieldError(field)
    lines = [", ".join(_title(field, state.gpus[0], units) for field in fields)] if header else []
    lines += [", ".join(_value(field, gpu, units) for field in fields) for gpu in gpus]
    return "".join(f"{line}\n" for line in lines)


def _title(field: str, gpu: Gpu, units: bool) -> str:
    unit = _FIELDS[_ALIASES.get(field, field)](gpu)[1]
    return f"{field} {_UNITS[unit]}" if units and unit else field


def _value(field: str, gpu: Gpu, units: bool) -> str:
    if gpu.lost and field not in _STATIC:
        return "[GPU is lost]"
    value, unit = _FIELDS[_ALIASES.get(field, field)](gpu)
    return f"{value} {unit}" if units and unit else value
