"""libnvidia-ml.so.1 under the real pynvml, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.virtual.faults import Fault, FaultKind

READ = """
import ctypes, json, pynvml as n

def ask(call, *arguments):
    try:
        value = getattr(n, call)(*arguments)
    except n.NVMLError as error:
        return f"error {error.value}"
    return value

n.nvmlInit()
found = {"driver": n.nvmlSystemGetDriverVersion(), "count": n.nvmlDeviceGetCount(), "gpus": []}
for index in range(found["count"]):
    handle = ask("nvmlDeviceGetHandleByIndex", index)
    if isinstance(handle, str):
        found["gpus"].append({"handle": handle})
        continue
    fabric = n.c_nvmlGpuFabricInfo_v3_t()
    n.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(fabric))
    wanted = [230, 82, 94, (164, 4), (165, 4), (161, 4), (161, 99), 91, (138, 99), 271, 300]
    fields = [[v.nvmlReturn, v.value.uiVal if v.valueType == 1 else v.value.ullVal]
              for v in n.nvmlDeviceGetFieldValues(handle, wanted)]
    memory, memory2 = n.nvmlDeviceGetMemoryInfo(handle), n.nvmlDeviceGetMemoryInfo(handle, version=n.nvmlMemory_v2)
    ecc = (n.NVML_MEMORY_ERROR_TYPE_CORRECTED, n.NVML_VOLATILE_ECC, n.NVML_MEMORY_LOCATION_DRAM)
    found["gpus"].append({
        "name": n.nvmlDeviceGetName(handle), "uuid": n.nvmlDeviceGetUUID(handle),
        "serial": n.nvmlDeviceGetSerial(handle), "pci": n.nvmlDeviceGetPciInfo(handle).busId,
        "vbios": n.nvmlDeviceGetVbiosVersion(handle), "inforom": n.nvmlDeviceGetInforomImageVersion(handle),
        "board_part": n.nvmlDeviceGetBoardPartNumber(handle), "total": memory.total, "free": memory.free,
        "total2": memory2.total, "reserved2": memory2.reserved, "ecc_mode": n.nvmlDeviceGetEccMode(handle),
        "corrected": n.nvmlDeviceGetMemoryErrorCounter(handle, *ecc),
        "total_corrected": n.nvmlDeviceGetTotalEccErrors(handle, 0, 0),
        "l2": ask("nvmlDeviceGetMemoryErrorCounter", handle, 0, 0, 1),
        "remapped": n.nvmlDeviceGetRemappedRows(handle), "banks": n.nvmlDeviceGetRowRemapperHistogram(handle).max,
        "links": [n.nvmlDeviceGetNvLinkState(handle, link) for link in range(18)],
        "link18": ask("nvmlDeviceGetNvLinkState", handle, 18),
        "replays4": ask("nvmlDeviceGetNvLinkErrorCounter", handle, 4, 0),
        "fabric": [fabric.state, fabric.status, fabric.cliqueId], "fields": fields,
        "celsius": n.nvmlDeviceGetTemperature(handle, n.NVML_TEMPERATURE_GPU),
        "watts": n.nvmlDeviceGetPowerUsage(handle) / 1000, "sm": n.nvmlDeviceGetClockInfo(handle, n.NVML_CLOCK_SM),
        "sm_max": n.nvmlDeviceGetMaxClockInfo(handle, n.NVML_CLOCK_SM),
        "reasons": n.nvmlDeviceGetCurrentClocksEventReasons(handle),
        "pcie": [n.nvmlDeviceGetCurrPcieLinkGeneration(handle), n.nvmlDeviceGetCurrPcieLinkWidth(handle),
                 n.nvmlDeviceGetMaxPcieLinkGeneration(handle), n.nvmlDeviceGetPcieReplayCounter(handle)],
        "bus_bits": n.nvmlDeviceGetMemoryBusWidth(handle), "persistence": n.nvmlDeviceGetPersistenceMode(handle),
        "processes": len(n.nvmlDeviceGetComputeRunningProcesses(handle)),
    })
found["events"] = ask("nvmlEventSetCreate")
found["missing"] = ask("nvmlDeviceGetFanSpeed", None)
n.nvmlShutdown()
print(json.dumps(found))
"""


@pytest.fixture(name="read")
def _read(node: Any, libraries: Path) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
        done = subprocess.run(
            [sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


def _load(node: Any, gpu: int, count: int) -> None:
    (node.folder / f"load/gpu{gpu}").write_text(f"{count}\n")


def test_pynvml_reads_a_healthy_node(read: Callable[[], dict[str, Any]]) -> None:
    """Identity, memory, links, fabric, PCIe of eight H100, each GPU with its own serial, UUID and address."""
    answer = read()
    gpu = answer["gpus"][4]
    assert (answer["driver"], answer["count"], len(answer["gpus"])) == ("580.95.05", 8, 8)
    assert (gpu["name"], gpu["serial"], gpu["pci"]) == ("NVIDIA H100 80GB HBM3", "16500000104", "00000000:9D:00.0")
    assert len({g["uuid"] for g in answer["gpus"]}) == 8
    assert gpu["total"] == gpu["total2"] == 16 << 20
    assert gpu["free"] == gpu["total"] - gpu["reserved2"]
    assert (gpu["ecc_mode"], gpu["corrected"], gpu["remapped"], gpu["banks"]) == ([1, 1], 0, [0, 0, 0, 0], 2560)
    assert (gpu["links"], gpu["fabric"]) == ([1] * 18, [3, 0, 0])
    assert gpu["pcie"][:3] == [5, 16, 5]
    assert (gpu["bus_bits"], gpu["sm"], gpu["sm_max"], gpu["reasons"]) == (5120, 345, 1980, 1)
    assert (gpu["persistence"], gpu["processes"]) == (1, 0)


def test_what_the_board_lacks_is_an_error_and_never_zero(read: Callable[[], dict[str, Any]]) -> None:
    """A link past the last, a part of SRAM, events, an unknown field, a function left out: each says so."""
    answer = read()
    gpu = answer["gpus"][0]
    assert (gpu["link18"], gpu["l2"], answer["events"]) == ("error 2", "error 3", "error 3")
    assert answer["missing"] == "error 13"
    assert gpu["fields"][-1][0] == 3
    assert gpu["fields"][6][0] == 2


def test_fields_answer_one_by_one(read: Callable[[], dict[str, Any]]) -> None:
    """Recovery action none, memory warmer than the GPU, link 4 up at 26,562 MB/s, 18 links."""
    gpu = read()["gpus"][0]
    recovery, memory_celsius, replays, speed, state, errors, _, links = gpu["fields"][:8]
    assert (recovery, speed, state, errors, links) == ([0, 0], [0, 26562], [0, 1], [0, 0], [0, 18])
    assert memory_celsius[1] > gpu["celsius"]
    assert replays[1] == gpu["pcie"][3] > 0


def test_corrected_errors_grow_with_the_bytes_the_gpu_moves(
    node: Any, read: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """64 for every GiB on the dripping GPU, none on its neighbour."""
    node.set(make_fault(FaultKind.ECC_DRIP))
    assert read()["gpus"][3]["corrected"] == 0
    _load(node, 3, 5 << 30)
    _load(node, 2, 5 << 30)
    gpus = read()["gpus"]
    assert (gpus[3]["corrected"], gpus[3]["total_corrected"], gpus[2]["corrected"]) == (320, 320, 0)


def test_a_link_that_is_down_has_no_counters_and_no_speed(
    node: Any, read: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """State 0 on the one link; its error counters cannot be read; the other 17 are up."""
    node.set(make_fault(FaultKind.NVLINK_LANE_DOWN, link=4))
    gpu = read()["gpus"][3]
    assert (gpu["links"][4], sum(gpu["links"])) == (0, 17)
    assert (gpu["replays4"], gpu["fields"][3], gpu["fields"][5][0]) == ("error 3", [0, 0], 3)


def test_a_gpu_is_lost_once_it_has_moved_its_bytes(
    node: Any, read: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """Before: as any other. After: no handle (15), while the others answer and the count stays."""
    node.set(make_fault(FaultKind.XID_79, value=100))
    _load(node, 3, (100 << 20) - 1)
    assert read()["gpus"][3]["serial"] == "16500000103"
    _load(node, 3, 100 << 20)
    answer = read()
    assert (answer["count"], answer["gpus"][3]) == (8, {"handle": "error 15"})
    assert answer["gpus"][2]["serial"] == "16500000102"


def test_load_heats_the_gpu_and_raises_its_clock(node: Any, read: Callable[[], dict[str, Any]]) -> None:
    """A GPU that has just moved a TiB is hot, near its power limit and at full clock."""
    _load(node, 1, 1 << 40)
    busy, idle = read()["gpus"][1], read()["gpus"][5]
    assert busy["celsius"] > idle["celsius"] + 20
    assert busy["watts"] > 600 > idle["watts"]
    assert (busy["sm"], busy["reasons"]) == (1980, 0)


def test_a_slow_gpu_says_under_load_that_its_clocks_are_held_down(
    node: Any, read: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """Half the clock, reason power brake, and the brake's counter grows."""
    node.set(make_fault(FaultKind.SLOW_GPU, value=0.5))
    _load(node, 3, 1 << 30)
    gpu = read()["gpus"][3]
    assert (gpu["sm"], gpu["reasons"]) == (990, 0x8 | 0x80)
    assert gpu["fields"][9][1] > 0


@pytest.mark.parametrize(("word", "state"), [("running 580.95.05", 3), ("failed", 2), ("stopped", 2)])
def test_the_fabric_completes_only_with_a_fabric_manager(
    node: Any, read: Callable[[], dict[str, Any]], word: str, state: int
) -> None:
    """In progress (2) until a fabric manager of the driver's version has run."""
    (node.folder / "load/fabric_manager").write_text(f"{word}\n")
    assert read()["gpus"][0]["fabric"][0] == state


def test_a_skewed_fabric_manager_leaves_the_fabric_in_progress(
    node: Any, read: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """Whatever it says of itself, another version than the driver's programs nothing."""
    node.set(make_fault(FaultKind.FABRIC_MANAGER_SKEW))
    (node.folder / "load/fabric_manager").write_text("running 580.82.07\n")
    assert read()["gpus"][0]["fabric"][0] == 2


def test_without_a_state_the_driver_is_not_loaded(node: Any, libraries: Path) -> None:
    """nvmlInit says 9, as on a machine whose driver is not there."""
    (node.folder / "state").unlink()
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=False)
    assert re.search("Driver Not Loaded", done.stderr)
