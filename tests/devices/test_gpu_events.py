"""What befalls a virtual GPU as it works: double-bit errors, remapped rows, resets, hangs, heat, a narrow link."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver_api import MIB, Cuda

from toolkit.virtual import hardware_files
from toolkit.virtual.devices import nvidia_smi, state
from toolkit.virtual.faults import Fault, FaultKind

ECC, NOT_READY, UNKNOWN = 214, 600, 999
U64 = ctypes.c_uint64
READ = """
import json, pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(3)
ecc = lambda kind, life: n.nvmlDeviceGetMemoryErrorCounter(h, kind, life, n.NVML_MEMORY_LOCATION_DRAM)
fields = n.nvmlDeviceGetFieldValues(h, [230, 142, 143, 144, 145, 269, 270, 193, 194, 195, 196])
margin = n.c_nvmlMarginTemperature_v1_t()
histogram = n.nvmlDeviceGetRowRemapperHistogram(h)
try:
    platform = n.nvmlDeviceGetPlatformInfo(h, n.c_nvmlPlatformInfo_v2_t()) and "known"
except n.NVMLError as error:
    platform = error.value
print(json.dumps({
    "corrected": [ecc(0, 0), ecc(0, 1)], "uncorrected": [ecc(1, 0), ecc(1, 1)],
    "remapped": n.nvmlDeviceGetRemappedRows(h), "histogram": [histogram.max, histogram.high],
    "recovery": fields[0].value.uiVal, "remapped_fields": [f.value.uiVal for f in fields[1:5]],
    "slowed": [f.value.ullVal for f in fields[5:7]], "limits": [f.value.siVal for f in fields[7:]],
    "celsius": n.nvmlDeviceGetTemperature(h, 0), "margin": n.nvmlDeviceGetMarginTemperature(h),
    "reasons": n.nvmlDeviceGetCurrentClocksEventReasons(h), "sm": n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM),
    "lanes": [n.nvmlDeviceGetCurrPcieLinkWidth(h), n.nvmlDeviceGetMaxPcieLinkWidth(h)],
    "energy": n.nvmlDeviceGetTotalEnergyConsumption(h), "module": n.nvmlDeviceGetModuleId(h), "platform": platform,
}))
"""


@pytest.fixture(name="cuda")
def _cuda(node: Any, probing: Path) -> Iterator[Cuda]:
    cuda = Cuda(probing)
    cuda.ok("cuInit", 0)
    cuda.open(3)
    yield cuda
    cuda.close()


@pytest.fixture(name="nvml")
def _nvml(node: Any, libraries: Path) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
        command = [sys.executable, "-c", READ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return read


@pytest.fixture(name="reset")
def _reset(node: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*arguments: str) -> tuple[int, str]:
        code = nvidia_smi.main(["--gpu-reset", "-i", "3", *arguments])
        return code, capsys.readouterr().out

    return run


def _move(cuda: Cuda, mib: int) -> int:
    """The GPU moves so much; the code of the first call that failed, else 0."""
    pointer = cuda.allocate(MIB)
    codes = [cuda("cuMemsetD8_v2", pointer, 0, ctypes.c_size_t(MIB)) for _ in range(mib)]
    cuda("cuMemFree_v2", pointer)
    return next((code for code in codes if code), 0)


def _xids(node: Any) -> list[str]:
    return [line.split(": ", 2)[2] for line in node.kernel_log() if "Xid" in line]


def _again(cuda: Cuda) -> None:
    """A new context, as a new process has one."""
    cuda.close()
    cuda.open(3)


def test_a_double_bit_error_ends_the_work_for_good(
    cuda: Cuda, node: Any, nvml: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """214 from every call until the context is gone; then the GPU works again, while a row waits for a reset."""
    node.set(make_fault(FaultKind.HBM_DOUBLE_BIT, value=4))
    pointer = cuda.allocate(MIB)
    codes = [cuda("cuMemsetD8_v2", pointer, 0, ctypes.c_size_t(MIB)) for _ in range(6)]
    assert codes == [0, 0, 0, 0, ECC, ECC]
    free = (ctypes.byref(ctypes.c_size_t()), ctypes.byref(ctypes.c_size_t()))
    assert [cuda("cuCtxSynchronize"), cuda("cuMemGetInfo_v2", *free), cuda("cuMemFree_v2", pointer)] == [ECC] * 3
    _again(cuda)
    assert _move(cuda, 10) == 0
    found = nvml()
    assert (found["uncorrected"], found["remapped"], found["recovery"]) == ([1, 1], [0, 1, 1, 0], 1)
    assert (found["histogram"], found["remapped_fields"]) == ([2559, 1], [0, 1, 1, 0])


def test_a_double_bit_error_is_one_event_of_five_lines(cuda: Cuda, node: Any, make_fault: Callable[..., Fault]) -> None:
    """Xids 171, 48, 63, 94 and 154; the same physical address in the three that tell it."""
    node.set(make_fault(FaultKind.HBM_DOUBLE_BIT, value=1))
    _move(cuda, 2)
    lines = _xids(node)
    assert [line.split(",")[0] for line in lines] == ["171", "48", "63", "94", "154"]
    address = lines[0].rpartition("physAddr 0x")[2]
    assert f"physAddr 0x{address} partition 3" in lines[1]
    assert f"New row (0x{int(address, 16):016x}) marked for remapping, reset gpu to activate." in lines[2]
    assert all("Xid (PCI:0000:61:00): " in line for line in node.kernel_log())


def test_a_kernel_that_meets_it_is_launched_and_fails_later(
    cuda: Cuda, node: Any, make_fault: Callable[..., Fault]
) -> None:
    """As on a GPU: the launch is taken, the event behind it says 214."""
    node.set(make_fault(FaultKind.HBM_DOUBLE_BIT, value=0))
    event, out = ctypes.c_void_p(), cuda.allocate(64)
    cuda.ok("cuEventCreate", ctypes.byref(event), 0)
    arguments = (out, ctypes.c_ubyte(), ctypes.c_ushort(), ctypes.c_uint(), U64(), ctypes.c_float())
    assert cuda.launch(cuda.function("probe_arguments"), 1, *arguments) == 0
    assert [cuda("cuEventRecord", event, None), cuda("cuEventQuery", event), cuda("cuStreamQuery", None)] == [ECC] * 3


def test_a_reset_activates_the_remapped_row_and_clears_what_is_volatile(
    cuda: Cuda, node: Any, nvml: Callable[[], dict[str, Any]], reset: Any, make_fault: Callable[..., Fault]
) -> None:
    """Nothing pending, no action, volatile 0; aggregate and the remapped row stay; it does not strike again."""
    node.set(make_fault(FaultKind.HBM_DOUBLE_BIT, value=2), make_fault(FaultKind.ECC_DRIP, value=1024))
    assert _move(cuda, 3) == ECC
    cuda.close()
    assert nvml()["corrected"] == [2, 2]
    assert reset() == (0, "GPU 00000000:61:00.0 was successfully reset.\nAll done.\n")
    found = nvml()
    assert (found["uncorrected"], found["corrected"]) == ([0, 1], [0, 2])
    assert (found["remapped"], found["recovery"]) == ([0, 1, 0, 0], 0)
    cuda.open(3)
    assert _move(cuda, 10) == 0
    assert len(_xids(node)) == 5


@pytest.mark.parametrize("kind", [FaultKind.HBM_DOUBLE_BIT, FaultKind.ROW_REMAP])
def test_a_fault_strikes_as_often_as_it_says_with_a_reset_between(
    cuda: Cuda, node: Any, nvml: Callable[[], dict[str, Any]], reset: Any, make_fault: Callable[..., Fault],
    kind: FaultKind,
) -> None:  # fmt: skip
    """Two times: two rows, two addresses; then never again."""
    node.set(make_fault(kind, value=1, times=2))
    for _ in range(3):
        _move(cuda, 4)
        cuda.close()
        assert reset()[0] == 0
        cuda.open(3)
    assert sum(nvml()["remapped"]) == 2
    rows = {line for line in _xids(node) if "marked for remapping" in line}
    assert len({line.partition("New row")[2] for line in rows}) == len(rows) == 2


def test_corrected_errors_remap_a_row_and_nobody_fails(
    cuda: Cuda, node: Any, nvml: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """Remapped for correctable errors, pending, reset wanted; the work goes on."""
    node.set(make_fault(FaultKind.ROW_REMAP, value=2))
    assert _move(cuda, 8) == 0
    found = nvml()
    assert (found["remapped"], found["recovery"], found["uncorrected"]) == ([1, 0, 1, 0], 1, [0, 0])
    assert [line.split(",")[0] for line in _xids(node)] == ["63", "154"]


def test_a_power_cycle_is_a_reset_of_every_gpu(
    cuda: Cuda, node: Any, nvml: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """The pending row is remapped, what was counted is forgotten, the kernel log is empty."""
    node.set(make_fault(FaultKind.ROW_REMAP, value=1))
    _move(cuda, 3)
    cuda.close()
    hardware_files.power_on(node.folder)
    found = nvml()
    assert (found["remapped"], found["recovery"], node.moved(3)) == ([1, 0, 0, 0], 0, 0)
    assert node.kernel_log() == []
    assert not list((node.folder / "load").iterdir())


def test_a_fault_that_was_taken_away_may_strike_again_when_it_is_set_again(
    cuda: Cuda, node: Any, reset: Any, make_fault: Callable[..., Fault]
) -> None:
    """How often it struck is forgotten at the reset that finds it gone."""
    fault = make_fault(FaultKind.HBM_DOUBLE_BIT, value=1)
    for expected in (ECC, ECC):
        node.set(fault)
        assert _move(cuda, 3) == expected
        cuda.close()
        node.set()
        assert reset()[0] == 0
        cuda.open(3)


def test_a_gpu_in_use_or_lost_is_not_reset(cuda: Cuda, node: Any, reset: Any, make_fault: Callable[..., Fault]) -> None:
    """A process holds a context; the GPU is gone. Then none of those asked for is touched."""
    _move(cuda, 1)
    code, said = reset()
    assert code != 0
    assert "GPU 00000000:61:00.0: In use by another client" in said
    assert node.moved(3) == MIB
    cuda.close()
    node.set(make_fault(FaultKind.XID_79, value=0))
    code, said = reset()
    assert code != 0
    assert "GPU is lost" in said


HANG = """
import ctypes, os, sys, time
sys.path.insert(0, sys.argv[1])
from driver_api import MIB, Cuda
cuda = Cuda(sys.argv[2])
cuda.ok("cuInit", 0)
cuda.open(3)
memory, stream = cuda.allocate(4 * MIB), ctypes.c_void_p()
events = [ctypes.c_void_p() for _ in range(3)]
cuda.ok("cuStreamCreate", ctypes.byref(stream), 1)
for event in events:
    cuda.ok("cuEventCreate", ctypes.byref(event), 0)
write = cuda.function("probe_write")
vectors, word, codes = ctypes.c_uint64(MIB // 4), ctypes.c_uint64(1), []
for event in events:
    codes.append(cuda.launch(write, 4, memory, vectors, word))
    cuda.ok("cuEventRecord", event, stream)
codes += [cuda("cuEventQuery", event) for event in events] + [cuda("cuStreamQuery", stream)]
codes.append(cuda("cuMemsetD32Async", memory, 0, ctypes.c_size_t(4), stream))
time.sleep(0.2)
codes.append(cuda("cuEventQuery", events[2]))
print(codes, flush=True)
{call}
print("came back")
"""
WAITS = (
    'cuda("cuCtxSynchronize")', 'cuda("cuStreamSynchronize", stream)', 'cuda("cuEventSynchronize", events[2])',
    "cuda.get(memory, 16)", 'cuda("cuMemFree_v2", memory)', "cuda.close()",
)  # fmt: skip


@pytest.mark.parametrize("call", WAITS)
def test_a_hang_never_ends_and_burns_no_cpu(
    node: Any, probing: Path, make_fault: Callable[..., Fault], call: str
) -> None:
    """The second kernel hangs: its event and the next are never ready (600), whoever waits sleeps until killed."""
    node.set(make_fault(FaultKind.KERNEL_HANG, value=4))
    script = HANG.replace("{call}", call)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", script, str(Path(__file__).parents[1]), str(probing)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == f"{[0, 0, 0, 0, NOT_READY, NOT_READY, NOT_READY, 0, NOT_READY]}\n"
        used = _cpu_seconds(child.pid)
        time.sleep(1)
        assert child.poll() is None
        assert _cpu_seconds(child.pid) - used < 0.2
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == -signal.SIGTERM
        assert child.stdout.read() == ""
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before.ru_utime < 10


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_next_process_hangs_too_until_the_gpu_is_reset(
    cuda: Cuda, node: Any, reset: Any, make_fault: Callable[..., Fault]
) -> None:
    """The limit is of bytes since the last reset."""
    _move(cuda, 5)
    cuda.close()
    assert reset()[0] == 0
    node.set(make_fault(FaultKind.KERNEL_HANG, value=4))
    cuda.open(3)
    memory, event = cuda.allocate(MIB), ctypes.c_void_p()
    cuda.ok("cuEventCreate", ctypes.byref(event), 0)
    assert cuda.launch(cuda.function("probe_write"), 4, memory, U64(MIB // 16), U64(0)) == 0
    cuda.ok("cuEventRecord", event, None)
    assert cuda("cuEventQuery", event) == 0


@pytest.mark.parametrize("code", [3, 100, 214, 802, 999])
def test_cuda_fails_at_its_start_with_the_code_that_was_set(
    cuda: Cuda, node: Any, make_fault: Callable[..., Fault], code: int
) -> None:
    """Without a GPU at cuInit, for everybody; with one when that GPU is opened, the others being whole."""
    context = ctypes.c_void_p()
    node.set(make_fault(FaultKind.CUDA_ERROR, gpu=None, value=code))
    assert cuda("cuInit", 0) == code
    node.set(make_fault(FaultKind.CUDA_ERROR, gpu=5, value=code))
    cuda.ok("cuInit", 0)
    assert cuda("cuDevicePrimaryCtxRetain", ctypes.byref(context), 5) == code
    cuda.ok("cuDevicePrimaryCtxRetain", ctypes.byref(context), 4)


def test_a_hot_gpu_warms_until_it_is_slowed_down(
    node: Any, nvml: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """At first like any other; then margin gone, thermal slowdown by itself, half the clock, counters that grow."""
    node.set(make_fault(FaultKind.HOT_GPU))
    counter = node.folder / "load/gpu3"
    counter.write_text(f"{32 * MIB}\n")
    early = nvml()
    assert early["celsius"] < 60 and early["reasons"] == 0 and early["slowed"] == [0, 0]
    counter.write_text(f"{1024 * MIB}\n")
    in_a_minute = time.time() + 60  # under load all the while: it does not cool between two looks
    os.utime(counter, (in_a_minute, in_a_minute))
    late = nvml()
    assert late["celsius"] > 89 and late["margin"] == 87 - late["celsius"]
    assert late["reasons"] == 0x20 | 0x40 | 0x8
    assert late["sm"] == 1980 // 2
    assert late["slowed"][0] > late["slowed"][1] > 0
    assert late["limits"] == [-8, -2, 0, 0]
    gpu = state.read().gpus[3]
    assert (gpu.celsius, gpu.sm_mhz) == (late["celsius"], late["sm"])
    assert [gpu.slowed_microseconds(margin) for margin in (0, -2)] == [count // 1000 for count in late["slowed"]]


def test_a_healthy_gpu_never_gets_that_hot(node: Any, nvml: Callable[[], dict[str, Any]]) -> None:
    """A tebibyte later the margin is there and nothing has slowed it down; what it used has grown."""
    idle = nvml()
    (node.folder / "load/gpu3").write_text(f"{1 << 40}\n")
    found = nvml()
    assert found["margin"] > 10 and found["reasons"] == 0 and found["slowed"] == [0, 0]
    assert found["energy"] > idle["energy"] > 0
    assert (found["module"], found["platform"]) == (4, 3)


def test_a_narrow_link_shows_while_the_gpu_is_busy(
    cuda: Cuda, node: Any, nvml: Callable[[], dict[str, Any]], make_fault: Callable[..., Fault]
) -> None:
    """Sixteen lanes at rest, eight at work; copies over it take longer."""
    node.set(make_fault(FaultKind.PCIE_NARROW))
    assert nvml()["lanes"] == [16, 16]
    _move(cuda, 1)
    assert nvml()["lanes"] == [8, 16]
    node.set(make_fault(FaultKind.PCIE_NARROW, value=1))
    pointer, data = cuda.allocate(8 * MIB), bytes(8 * MIB)

    def seconds() -> float:
        started = time.perf_counter()
        cuda.put(pointer, data)
        return time.perf_counter() - started

    slow = min(seconds() for _ in range(3))
    node.set()
    assert slow > 4 * min(seconds() for _ in range(3))
