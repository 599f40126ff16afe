"""`nvidia-smi -q -x`: every GPU of a node as its driver sees it. XML in, `GpuReport` out.

Fields come and go with driver and board: what is absent, `N/A`, `GPU is lost` or `Unknown Error` is None, never 0.
Words (ECC mode, fabric state, recovery action) stay as printed.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.facts import xml_tree
from toolkit.facts.unreadable import UnreadableError
from toolkit.facts.xml_tree import Element

MAX_GPUS = 256
_NUMBER = re.compile(r"-?\d{1,19}(?:\.\d{1,9})?(?=x|\s|$)")
_LOST = "GPU is lost"


@dataclass(frozen=True, slots=True)
class EccCounts:
    """Errors counted since the driver loaded (volatile) or ever (aggregate)."""

    sram_correctable: int | None
    sram_uncorrectable_parity: int | None
    sram_uncorrectable_secded: int | None
    dram_correctable: int | None
    dram_uncorrectable: int | None


@dataclass(frozen=True, slots=True)
class RemappedRows:
    """Rows replaced after correctable and uncorrectable errors, and what a reset or a repair still has to do."""

    corr: int | None
    unc: int | None
    pending: bool | None
    failure: bool | None


@dataclass(frozen=True, slots=True)
class Pcie:
    """Link generation and width (lanes), now and at most; replays since the driver loaded."""

    gen: int | None
    gen_max: int | None
    width: int | None
    width_max: int | None
    replay: int | None


@dataclass(frozen=True, slots=True)
class Fabric:
    """The NVLink fabric as the GPU was registered in it. `health` is the summary; the rest is its details."""

    state: str | None
    status: str | None
    clique: str | None
    cluster: str | None
    health: str | None
    bandwidth: str | None
    route_recovery_in_progress: str | None
    route_unhealthy: str | None
    access_timeout_recovery: str | None
    incorrect_configuration: str | None


@dataclass(frozen=True, slots=True)
class Throttle:
    """Time spent below the asked clock, by reason, in microseconds since the driver loaded."""

    sw_power_cap: int | None
    sw_therm_slowdown: int | None
    hw_therm_slowdown: int | None
    hw_power_brake: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. `index` is its position in the report, which is the driver's; `id` its PCI address as printed."""

    index: int
    id: str
    name: str | None
    lost: bool
    uuid: str | None
    serial: str | None
    vbios: str | None
    persistence_mode: str | None
    recovery_action: str | None
    pcie: Pcie
    fb_total_mib: int | None
    fb_free_mib: int | None
    ecc: str | None
    volatile: EccCounts
    aggregate: EccCounts
    sram_threshold_exceeded: bool | None
    channel_repair_pending: bool | None
    tpc_repair_pending: bool | None
    remapped: RemappedRows | None
    temp_c: int | None
    tlimit_c: int | None
    memory_temp_c: int | None
    power_limit_w: float | None
    fabric: Fabric
    throttle_us: Throttle


@dataclass(frozen=True, slots=True)
class GpuReport:
    """What one call of nvidia-smi says. `attached` is its own count of the GPUs."""

    driver: str | None
    cuda: str | None
    attached: int | None
    gpus: tuple[Gpu, ...]

    def as_json(self) -> dict[str, Any]:
        """Every field, under its name."""
        return asdict(self) | {"gpus": [asdict(g) for g in self.gpus]}

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting the numbers."""
        found = [f"GPU {g.id} is lost" for g in self.gpus if g.lost]
        if self.attached != len(self.gpus):
            found.append(f"{self.attached} GPUs attached, {len(self.gpus)} described")
        return tuple(found)


def parse(text: str) -> GpuReport:
    """Reads the XML; warnings the tool prints around it are skipped. Raises UnreadableError for anything else."""
    start, end = text.find("<nvidia_smi_log"), text.find("</nvidia_smi_log>")
    if start < 0:
        raise UnreadableError("no <nvidia_smi_log> in it: not the output of `nvidia-smi -q -x`")
    if end < 0:
        raise UnreadableError("no </nvidia_smi_log>: the output was cut", line=text.count("\n") + 1)
    declared = text[:start]
    if "<!ENTITY" in declared:
        raise UnreadableError("it declares an entity, which nvidia-smi does not")
    log = xml_tree.parse(text[start : end + len("</nvidia_smi_log>")])
    gpus = [c for c in log.children if c.tag == "gpu"]
    if len(gpus) > MAX_GPUS:
        raise UnreadableError(f"{len(gpus)} GPUs, more than {MAX_GPUS}")
    return GpuReport(
        driver=log.word("driver_version"),
        cuda=log.word("cuda_version"),
        attached=_int(log, "attached_gpus"),
        gpus=tuple(_gpu(index, g) for index, g in enumerate(gpus)),
    )


def _gpu(index: int, gpu: Element) -> Gpu:
    return Gpu(
        index=index,
        id=gpu.attributes.get("id", "")[:32],
        name=gpu.word("product_name"),
        lost=_says(gpu, _LOST),
        uuid=gpu.word("uuid"),
        serial=gpu.word("serial"),
        vbios=gpu.word("vbios_version"),
        persistence_mode=gpu.word("persistence_mode"),
        recovery_action=gpu.word("gpu_recovery_action"),
        pcie=_pcie(gpu),
        fb_total_mib=_int(gpu, "fb_memory_usage/total"),
        fb_free_mib=_int(gpu, "fb_memory_usage/free"),
        ecc=gpu.word("ecc_mode/current_ecc"),
        volatile=_ecc(gpu, "ecc_errors/volatile"),
        aggregate=_ecc(gpu, "ecc_errors/aggregate"),
        sram_threshold_exceeded=_yes(gpu, "ecc_errors/aggregate/sram_threshold_exceeded"),
        channel_repair_pending=_yes(gpu, "ecc_errors/channel_repair_pending"),
        tpc_repair_pending=_yes(gpu, "ecc_errors/tpc_repair_pending"),
        remapped=_remapped(gpu),
        temp_c=_int(gpu, "temperature/gpu_temp"),
        tlimit_c=_int(gpu, "temperature/gpu_temp_tlimit"),
        memory_temp_c=_int(gpu, "temperature/memory_temp"),
        power_limit_w=_power_limit(gpu),
        fabric=_fabric(gpu),
        throttle_us=_throttle(gpu),
    )


def _pcie(gpu: Element) -> Pcie:
    link = "pci/pci_gpu_link_info"
    return Pcie(
        gen=_int(gpu, f"{link}/pcie_gen/current_link_gen"),
        gen_max=_int(gpu, f"{link}/pcie_gen/max_link_gen"),
        width=_int(gpu, f"{link}/link_widths/current_link_width"),
        width_max=_int(gpu, f"{link}/link_widths/max_link_width"),
        replay=_int(gpu, "pci/replay_counter"),
    )


def _ecc(gpu: Element, path: str) -> EccCounts:
    return EccCounts(
        sram_correctable=_int(gpu, f"{path}/sram_correctable"),
        sram_uncorrectable_parity=_int(gpu, f"{path}/sram_uncorrectable_parity"),
        sram_uncorrectable_secded=_int(gpu, f"{path}/sram_uncorrectable_secded"),
        dram_correctable=_int(gpu, f"{path}/dram_correctable"),
        dram_uncorrectable=_int(gpu, f"{path}/dram_uncorrectable"),
    )


def _remapped(gpu: Element) -> RemappedRows | None:
    rows = RemappedRows(
        corr=_int(gpu, "remapped_rows/remapped_row_corr"),
        unc=_int(gpu, "remapped_rows/remapped_row_unc"),
        pending=_yes(gpu, "remapped_rows/remapped_row_pending"),
        failure=_yes(gpu, "remapped_rows/remapped_row_failure"),
    )
    return rows if rows != RemappedRows(None, None, None, None) else None


def _power_limit(gpu: Element) -> float | None:
    # the block was renamed in driver 530; `enforced_power_limit` is what older boards print
    paths = (
        "gpu_power_readings/current_power_limit",
        "power_readings/power_limit",
        "power_readings/enforced_power_limit",
    )
    return next((value for path in paths if (value := _number(gpu, path)) is not None), None)


def _fabric(gpu: Element) -> Fabric:
    return Fabric(
        state=gpu.word("fabric/state"),
        status=gpu.word("fabric/status"),
        clique=gpu.word("fabric/cliqueId"),
        cluster=gpu.word("fabric/clusterUuid"),
        health=gpu.word("fabric/health/summary"),
        bandwidth=gpu.word("fabric/health/bandwidth"),
        route_recovery_in_progress=gpu.word("fabric/health/route_recovery_in_progress"),
        route_unhealthy=gpu.word("fabric/health/route_unhealthy"),
        access_timeout_recovery=gpu.word("fabric/health/access_timeout_recovery"),
        incorrect_configuration=gpu.word("fabric/health/incorrect_configuration"),
    )


def _throttle(gpu: Element) -> Throttle:
    prefix = "clocks_event_reasons_counters/clocks_event_reasons_counters_"
    return Throttle(
        sw_power_cap=_int(gpu, f"{prefix}sw_power_cap"),
        sw_therm_slowdown=_int(gpu, f"{prefix}sw_therm_slowdown"),
        hw_therm_slowdown=_int(gpu, f"{prefix}hw_therm_slowdown"),
        hw_power_brake=_int(gpu, f"{prefix}hw_power_brake"),
    )


def _says(element: Element, words: str) -> bool:
    return words in element.text or any(_says(child, words) for child in element.children)


def _number(gpu: Element, path: str) -> float | None:
    """The number a text begins with, its unit left off; None for words such as N/A."""
    match = _NUMBER.match(gpu.word(path) or "")
    value = float(match[0]) if match else None
    return value if value is not None and math.isfinite(value) else None


def _int(gpu: Element, path: str) -> int | None:
    match = _NUMBER.match(gpu.word(path) or "")
    return int(match[0].split(".")[0]) if match else None


def _yes(gpu: Element, path: str) -> bool | None:
    return {"yes": True, "no": False}.get((gpu.word(path) or "").lower())
