"""`nvidia-smi -q -x`: the document of schema v13, as driver 580 writes it for an H100 in a DGX."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from .state import LIMIT_C, Gpu, State

_LOST = "GPU is lost"
_NA = "N/A"
Node = tuple[str, "str | Sequence[Node]"]


def document(state: State, gpus: Sequence[Gpu]) -> str:
    """The whole document for some of the node's GPUs."""
    cuda = int(state.values["cuda"])
    top: list[Node] = [
        ("timestamp", time.strftime("%a %b %e %H:%M:%S %Y")),
        ("driver_version", state.values["driver"]),
        ("cuda_version", f"{cuda // 1000}.{cuda % 1000 // 10}"),
        ("attached_gpus", str(len(state.gpus))),
    ]
    lines = ['<?xml version="1.0" ?>', '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">', "<nvidia_smi_log>"]
    for node in top:
        lines.extend(_lines(node, 1))
    for gpu in gpus:
        lines.append(f'\t<gpu id="{gpu.need("pci")}">')
        for node in _gpu(gpu):
            lines.extend(_lines(node, 2))
        lines.append("\t</gpu>\n")
    return "\n".join([*lines, "</nvidia_smi_log>", ""])


def _lines(node: Node, depth: int) -> Iterator[str]:
    name, value = node
    indent = "\t" * depth
    if isinstance(value, str):
        yield f"{indent}<{name}>{value}</{name}>"
        return
    yield f"{indent}<{name}>"
    for child in value:
        yield from _lines(child, depth + 1)
    yield f"{indent}</{name}>"


def _gpu(gpu: Gpu) -> Iterator[Node]:
    """What stays known of a lost GPU is what the tool had read when it found it; the rest says `GPU is lost`."""
    yield from _identity(gpu)
    yield from _bus(gpu)
    yield "performance_state", "P0"
    yield "clocks_event_reasons", _reasons(gpu)
    yield "clocks_event_reasons_counters", _reason_counters(gpu)
    yield from _memory(gpu)
    yield from _errors(gpu)
    yield from _thermals(gpu)
    yield from _clocks(gpu)
    yield "fabric", _fabric(gpu)
    yield "processes", ()


def _identity(gpu: Gpu) -> Iterator[Node]:
    yield "product_name", gpu.need("name")
    yield "product_brand", "NVIDIA"
    yield "product_architecture", "Hopper"
    yield "display_mode", "Requested functionality has been deprecated"
    yield "display_attached", "No"
    yield "display_active", "Disabled"
    yield "persistence_mode", "Enabled"
    yield "addressing_mode", "HMM"
    yield "mig_mode", (("current_mig", "Disabled"), ("pending_mig", "Disabled"))
    yield "serial", gpu.need("serial")
    yield "uuid", gpu.need("uuid")
    yield "minor_number", gpu.need("minor")
    yield "vbios_version", gpu.need("vbios")
    yield "multigpu_board", "No"
    yield "board_part_number", gpu.need("board_part")
    yield "gpu_part_number", gpu.need("part_number")
    absent = ("chassis_serial_number", "slot_number", "tray_index", "host_id", "peer_type")
    yield "platformInfo", (*((key, _NA) for key in absent), ("module_id", str(gpu.index + 1)), ("gpu_fabric_guid", _NA))
    yield "inforom_version", (("img_version", gpu.need("inforom")), ("oem_object", "2.1"), ("ecc_object", "7.16"))
    yield "c2c_mode", "Disabled"
    yield "gpu_virtualization_mode", (("virtualization_mode", "None"), ("host_vgpu_mode", _NA))
    yield "gpu_recovery_action", _LOST if gpu.lost else "None"
    yield "gsp_firmware_version", gpu.state.values["driver"]


def _bus(gpu: Gpu) -> Iterator[Node]:
    pci, generation, width = gpu.need("pci"), gpu.need("pcie_gen"), f"{gpu.need('pcie_width')}x"
    domain, bus, device = pci.split(":")
    link = (
        ("pcie_gen", (("max_link_gen", generation), ("current_link_gen", _or_lost(gpu, generation)),
                      ("device_current_link_gen", _or_lost(gpu, generation)), ("max_device_link_gen", generation),
                      ("max_host_link_gen", _NA))),
        ("link_widths", (("max_link_width", width), ("current_link_width", _or_lost(gpu, width)))),
    )  # fmt: skip
    yield (
        "pci",
        (
            ("pci_bus", bus),
            ("pci_device", device.split(".")[0]),
            ("pci_domain", domain[4:]),
            ("pci_device_id", f"{gpu.number('pci_device_id'):08X}"),
            ("pci_bus_id", pci),
            ("pci_sub_system_id", f"{gpu.number('pci_subsystem_id'):08X}"),
            ("pci_gpu_link_info", link),
            ("replay_counter", _or_lost(gpu, gpu.need("pcie_replays"))),
            ("replay_rollover_counter", _or_lost(gpu, "0")),
        ),
    )


def _reasons(gpu: Gpu) -> tuple[Node, ...]:
    braked = gpu.busy and gpu.clock_fraction < 1
    active = {"gpu_idle": not gpu.busy, "hw_slowdown": braked, "hw_power_brake_slowdown": braked}
    names = (
        "gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "hw_thermal_slowdown",
        "hw_power_brake_slowdown", "sync_boost", "sw_thermal_slowdown", "display_clocks_setting",
    )  # fmt: skip
    return tuple(
        (f"clocks_event_reason_{name}", _or_lost(gpu, "Active" if active.get(name) else "Not Active")) for name in names
    )


def _reason_counters(gpu: Gpu) -> tuple[Node, ...]:
    """Microseconds each reason held. A braked GPU's grows by a nanosecond a byte, as NVML's field 271 does."""
    braked = gpu.moved // 1000 if gpu.clock_fraction < 1 else 0
    held = (("sw_power_cap", 0), ("sync_boost", 0), ("sw_therm_slowdown", 0), ("hw_therm_slowdown", 0))
    return tuple(
        (f"clocks_event_reasons_counters_{name}", _or_lost(gpu, f"{microseconds} us"))
        for name, microseconds in (*held, ("hw_power_brake", braked))
    )


def _memory(gpu: Gpu) -> Iterator[Node]:
    total, reserved = gpu.number("memory_bytes") >> 20, gpu.number("memory_reserved_bytes") >> 20
    sizes = (("total", total), ("reserved", reserved), ("used", 0), ("free", total - reserved))
    yield "fb_memory_usage", tuple((name, _or_lost(gpu, f"{mib} MiB")) for name, mib in sizes)
    yield "compute_mode", "Default"
    share = 100 if gpu.busy else 0
    yield "utilization", (("gpu_util", _or_lost(gpu, f"{share} %")), ("memory_util", _or_lost(gpu, f"{share} %")))


def _errors(gpu: Gpu) -> Iterator[Node]:
    yield "ecc_mode", (("current_ecc", "Enabled"), ("pending_ecc", "Enabled"))
    counts: tuple[Node, ...] = (
        ("sram_correctable", _or_lost(gpu, "0")),
        ("sram_uncorrectable_parity", _or_lost(gpu, "0")),
        ("sram_uncorrectable_secded", _or_lost(gpu, "0")),
        ("dram_correctable", _or_lost(gpu, str(gpu.corrected_errors))),
        ("dram_uncorrectable", _or_lost(gpu, "0")),
    )
    no = _or_lost(gpu, "No")
    yield (
        "ecc_errors",
        (
            ("volatile", counts),
            ("aggregate", (*counts, ("sram_threshold_exceeded", no))),
            ("channel_repair_pending", no),
            ("tpc_repair_pending", no),
        ),
    )
    if gpu.lost:
        yield "remapped_rows", _LOST
        return
    banks = (("max", gpu.number("remap_banks")), ("high", 0), ("partial", 0), ("low", 0), ("none", 0))
    yield (
        "remapped_rows",
        (
            ("remapped_row_corr", "0"),
            ("remapped_row_unc", "0"),
            ("remapped_row_pending", "No"),
            ("remapped_row_failure", "No"),
            ("row_remapper_histogram", tuple((f"row_remapper_histogram_{n}", f"{c} bank(s)") for n, c in banks)),
        ),
    )


def _thermals(gpu: Gpu) -> Iterator[Node]:
    limit = f"{gpu.number('power_limit_mw') / 1000:.2f} W"
    yield (
        "temperature",
        (
            ("gpu_temp", _or_lost(gpu, f"{gpu.celsius} C")),
            ("gpu_temp_tlimit", _or_lost(gpu, f"{LIMIT_C - gpu.celsius} C")),
            ("memory_temp", _or_lost(gpu, f"{gpu.memory_celsius} C")),
        ),
    )
    yield (
        "gpu_power_readings",
        (
            ("power_state", "P0"),
            ("average_power_draw", _or_lost(gpu, f"{gpu.watts:.2f} W")),
            ("instant_power_draw", _or_lost(gpu, f"{gpu.watts:.2f} W")),
            ("current_power_limit", limit),
            ("requested_power_limit", limit),
            ("default_power_limit", limit),
            ("max_power_limit", limit),
        ),
    )


def _clocks(gpu: Gpu) -> Iterator[Node]:
    now, top, memory = (
        f"{mhz} MHz" for mhz in (gpu.sm_mhz, gpu.number("sm_clock_mhz"), gpu.number("memory_clock_mhz"))
    )
    current = (("graphics_clock", now), ("sm_clock", now), ("mem_clock", memory))
    yield "clocks", tuple((name, _or_lost(gpu, value)) for name, value in current)
    yield "max_clocks", (("graphics_clock", top), ("sm_clock", top), ("mem_clock", memory))


def _fabric(gpu: Gpu) -> tuple[Node, ...]:
    ready = gpu.state.fabric_ready
    health = ("summary", "bandwidth", "route_recovery_in_progress", "route_unhealthy", "access_timeout_recovery",
              "incorrect_configuration")  # fmt: skip
    return (
        ("state", _or_lost(gpu, "Completed" if ready else "In Progress")),
        ("status", _or_lost(gpu, "Success" if ready else _NA)),
        ("cliqueId", _or_lost(gpu, "0")),
        ("clusterUuid", _or_lost(gpu, "00000000-0000-0000-0000-000000000000")),
        ("health", tuple((name, _or_lost(gpu, _NA)) for name in health)),
    )


def _or_lost(gpu: Gpu, value: str) -> str:
    return _LOST if gpu.lost else value
