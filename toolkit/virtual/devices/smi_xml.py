"""`nvidia-smi -q -x`: the document of schema v13, as driver 580 writes it for an H100 in a DGX."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from .state import SHUTDOWN_MARGIN_C, SLOWDOWN_MARGIN_C, Gpu, State

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
    yield "gpu_recovery_action", _or_lost(gpu, "Reset" if gpu.remembers("remap_pending") else "None")
    yield "gsp_firmware_version", gpu.state.values["driver"]


def _bus(gpu: Gpu) -> Iterator[Node]:
    pci, generation, width = gpu.need("pci"), gpu.need("pcie_gen"), f"{gpu.need('pcie_width')}x"
    domain, bus, device = pci.split(":")
    link = (
        ("pcie_gen", (("max_link_gen", generation), ("current_link_gen", _or_lost(gpu, generation)),
                      ("device_current_link_gen", _or_lost(gpu, generation)), ("max_device_link_gen", generation),
                      ("max_host_link_gen", _NA))),
        ("link_widths", (("max_link_width", width), ("current_link_width", _or_lost(gpu, f"{gpu.pcie_lanes}x")))),
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
    braked, hot = gpu.busy and gpu.clock_fraction < 1, gpu.margin_c <= SLOWDOWN_MARGIN_C
    active = {
        "gpu_idle": not gpu.busy, "hw_slowdown": braked or hot, "hw_power_brake_slowdown": braked,
        "hw_thermal_slowdown": hot, "sw_thermal_slowdown": gpu.margin_c <= 0,
    }  # fmt: skip
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
    software, hardware = gpu.slowed_microseconds(0), gpu.slowed_microseconds(SLOWDOWN_MARGIN_C)
    held = (("sw_power_cap", 0), ("sync_boost", 0), ("sw_therm_slowdown", software), ("hw_therm_slowdown", hardware))
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
    no = _or_lost(gpu, "No")
    volatile = _counts(gpu, gpu.corrected_errors, gpu.uncorrected_errors)
    life = _counts(gpu, gpu.remembers("dram_corrected") + gpu.corrected_errors, gpu.remembers("dram_uncorrected"))
    yield (
        "ecc_errors",
        (
            ("volatile", volatile),
            ("aggregate", (*life, ("sram_threshold_exceeded", no))),
            ("channel_repair_pending", no),
            ("tpc_repair_pending", no),
        ),
    )
    yield "remapped_rows", _LOST if gpu.lost else _remapped(gpu)


def _counts(gpu: Gpu, corrected: int, uncorrected: int) -> tuple[Node, ...]:
    return (
        ("sram_correctable", _or_lost(gpu, "0")),
        ("sram_uncorrectable_parity", _or_lost(gpu, "0")),
        ("sram_uncorrectable_secded", _or_lost(gpu, "0")),
        ("dram_correctable", _or_lost(gpu, str(corrected))),
        ("dram_uncorrectable", _or_lost(gpu, str(uncorrected))),
    )


def _remapped(gpu: Gpu) -> tuple[Node, ...]:
    corrected, uncorrected = gpu.remembers("remapped_corrected"), gpu.remembers("remapped_uncorrected")
    used = corrected + uncorrected  # a bank each
    banks = (("max", gpu.number("remap_banks") - used), ("high", used), ("partial", 0), ("low", 0), ("none", 0))
    return (
        ("remapped_row_corr", str(corrected)),
        ("remapped_row_unc", str(uncorrected)),
        ("remapped_row_pending", "Yes" if gpu.remembers("remap_pending") else "No"),
        ("remapped_row_failure", "No"),
        ("row_remapper_histogram", tuple((f"row_remapper_histogram_{n}", f"{c} bank(s)") for n, c in banks)),
    )


def _thermals(gpu: Gpu) -> Iterator[Node]:
    limit = f"{gpu.number('power_limit_mw') / 1000:.2f} W"
    yield (
        "temperature",
        (
            ("gpu_temp", _or_lost(gpu, f"{gpu.celsius} C")),
            ("gpu_temp_tlimit", _or_lost(gpu, f"{gpu.margin_c} C")),
            ("gpu_temp_max_tlimit_threshold", f"{SHUTDOWN_MARGIN_C} C"),
            ("gpu_temp_slow_tlimit_threshold", f"{SLOWDOWN_MARGIN_C} C"),
            ("gpu_temp_max_gpu_tlimit_threshold", "0 C"),
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
    cluster = gpu.text("fabric_cluster")
    if cluster is not None:
        return _fabric_across(gpu, cluster)
    health = ("summary", "bandwidth", "route_recovery_in_progress", "route_unhealthy", "access_timeout_recovery",
              "incorrect_configuration")  # fmt: skip
    return (
        ("state", _or_lost(gpu, "Completed" if ready else "In Progress")),
        ("status", _or_lost(gpu, "Success" if ready else _NA)),
        ("cliqueId", _or_lost(gpu, "0")),
        ("clusterUuid", _or_lost(gpu, "00000000-0000-0000-0000-000000000000")),
        ("health", tuple((name, _or_lost(gpu, _NA)) for name in health)),
    )


def _fabric_across(gpu: Gpu, cluster: str) -> tuple[Node, ...]:
    """Of a GPU in an NVLink domain of several nodes: its health is that of its links."""
    state = gpu.text("fabric_state") or "Completed"
    done = state == "Completed"
    full = all(gpu.nvlinks.values())
    health = (
        ("summary", "Healthy" if full else "Unhealthy"), ("bandwidth", "Full" if full else "Degraded"),
        ("route_recovery_in_progress", "False"), ("route_unhealthy", "False"), ("access_timeout_recovery", "False"),
        ("incorrect_configuration", "None"),
    )  # fmt: skip
    return (
        ("state", _or_lost(gpu, state)),
        ("status", _or_lost(gpu, "Success" if done else _NA)),
        ("cliqueId", _or_lost(gpu, gpu.need("fabric_clique") if done else "0")),
        ("clusterUuid", _or_lost(gpu, cluster if done else "00000000-0000-0000-0000-000000000000")),
        ("health", tuple((name, _or_lost(gpu, word if done else _NA)) for name, word in health)),
    )


def _or_lost(gpu: Gpu, value: str) -> str:
    return _LOST if gpu.lost else value
