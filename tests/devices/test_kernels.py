"""Kernels on a virtual GPU: loaded, launched, counted; and the faults of its SMs."""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver_api import FATBIN, MIB, Cuda

from toolkit.errors import UndecidedError
from toolkit.virtual.device_libraries import CUDA, compile_library, kernel_sources
from toolkit.virtual.faults import Fault, FaultKind

INVALID_VALUE, INVALID_IMAGE, INVALID_HANDLE, NOT_FOUND, NOT_SUPPORTED, UNKNOWN = 1, 200, 400, 500, 801, 999
U64, SMS = ctypes.c_uint64, 4
VECTORS = 14 * MIB // 16


@pytest.fixture(name="cuda")
def _cuda(node: Any, probing: Path) -> Iterator[Cuda]:
    cuda = Cuda(probing)
    cuda.ok("cuInit", 0)
    cuda.open(3)
    yield cuda
    cuda.close()


def _words(cuda: Cuda, pointer: ctypes.c_uint64, count: int) -> list[int]:
    return list((U64 * count).from_buffer_copy(cuda.get(pointer, 8 * count)))


@pytest.mark.parametrize("blocks", [1, 4, 1000])
def test_clean_memory_is_clean_and_every_byte_is_counted(cuda: Cuda, node: Any, blocks: int) -> None:
    """Write and check whatever the grid: no error, and both ways are in the GPU's load to the byte."""
    memory, result = cuda.allocate(16 * VECTORS), cuda.allocate(64)
    cuda.ok("cuMemsetD8_v2", result, 0, ctypes.c_size_t(64))
    before = node.moved(3)
    assert cuda.launch(cuda.function("probe_write"), blocks, memory, U64(VECTORS), U64(7)) == 0
    assert node.moved(3) - before == 16 * VECTORS
    errors, first, bits = (U64(result.value + offset) for offset in (0, 8, 16))
    check = cuda.function("probe_check")
    assert cuda.launch(check, blocks, memory, U64(VECTORS), U64(7), errors, first, bits) == 0
    assert node.moved(3) - before == 32 * VECTORS
    assert _words(cuda, result, 4) == [0, 0, 0, 0]
    assert cuda.launch(check, blocks, memory, U64(VECTORS), U64(6), errors, first, bits) == 0
    assert _words(cuda, result, 4) == [VECTORS, 0, 0, 7 ^ 6]


def test_arguments_of_every_size_come_through(cuda: Cuda) -> None:
    """A byte, a short, a word, a long and a real, by pointers as the driver takes them."""
    out = cuda.allocate(64)
    values = (ctypes.c_ubyte(200), ctypes.c_ushort(60000), ctypes.c_uint(4_000_000_000), U64(1 << 63))
    assert cuda.launch(cuda.function("probe_arguments"), 5, out, *values, ctypes.c_float(2.5)) == 0
    assert _words(cuda, out, 6) == [200, 60000, 4_000_000_000, 1 << 63, 20, 5]


def test_an_image_must_begin_as_one(cuda: Cuda) -> None:
    """A fat binary and a cubin are taken, anything else is CUDA 200; a kernel that is in no source is 500."""
    module = ctypes.c_void_p()
    for image, code in (
        (FATBIN, 0),
        (b"\x7fELF" + bytes(60), 0),
        (b"// PTX", INVALID_IMAGE),
        (b"\x7fEL", INVALID_IMAGE),
    ):
        assert cuda("cuModuleLoadData", ctypes.byref(module), image) == code
    function = ctypes.c_void_p()
    cuda.ok("cuModuleLoadDataEx", ctypes.byref(module), FATBIN, 0, None, None)
    assert cuda("cuModuleGetFunction", ctypes.byref(function), module, b"probe_nothing") == NOT_FOUND
    cuda.ok("cuModuleUnload", module)
    assert cuda("cuModuleUnload", None) == INVALID_HANDLE


def test_a_launch_that_no_gpu_could_do_is_refused(cuda: Cuda) -> None:
    """No function, no blocks, too many threads; and the dimensions that ours never use."""
    function = cuda.function("probe_write")

    def launch(function: Any, grid: tuple[int, int, int], block: tuple[int, int, int]) -> int:
        return cuda("cuLaunchKernel", function, *grid, *block, 0, None, None, None)

    assert launch(None, (1, 1, 1), (256, 1, 1)) == INVALID_HANDLE
    assert launch(function, (0, 1, 1), (256, 1, 1)) == INVALID_VALUE
    assert launch(function, (1, 1, 1), (1025, 1, 1)) == INVALID_VALUE
    assert launch(function, (1, 2, 1), (256, 1, 1)) == NOT_SUPPORTED


def test_every_kernel_of_the_burnin_is_there(node: Any, libraries: Path) -> None:
    """The default build knows each kernel that the burn-in's sources declare, but those of another generation."""
    cuda = Cuda(libraries / "libcuda.so.1")
    cuda.ok("cuInit", 0)
    cuda.open(0)
    declared = re.compile(r"^KERNEL (?:\w+\([^)]*\)\s+)?(\w+)\(", re.MULTILINE)
    found, missing = set(), set()
    for path in kernel_sources():
        for name in declared.findall(path.read_text()):
            (found if cuda.has(name) else missing).add((path.name, name))
    assert len(found) > 3
    assert all(re.search(r"_sm1\d\d\.cu$", source) for source, _ in missing), "an H100 has the rest"
    cuda.close()


def test_a_source_without_a_kernel_is_refused(tmp_path: Path) -> None:
    """Rather than a library that finds nothing; and a source that does not compile says why."""
    source = tmp_path / "empty.cu"
    source.write_text("DEVICE int nothing() { return 0; }\n")
    with pytest.raises(UndecidedError, match="has no kernel"):
        compile_library(CUDA, tmp_path, kernels=[source])
    source.write_text("KERNEL broken(int a) { a = ; }\n")
    with pytest.raises(UndecidedError, match="expected primary-expression"):
        compile_library(CUDA, tmp_path, kernels=[source])


def test_a_slow_gpu_takes_its_time(cuda: Cuda, node: Any, make_fault: Callable[..., Fault]) -> None:
    """At a fiftieth of its clocks a launch takes tens of times longer; by CUDA's own events."""
    memory, write = cuda.allocate(8 * MIB), cuda.function("probe_write")
    events = [ctypes.c_void_p() for _ in range(2)]
    for event in events:
        cuda.ok("cuEventCreate", ctypes.byref(event), 0)

    def milliseconds() -> float:
        cuda.ok("cuEventRecord", events[0], None)
        assert cuda.launch(write, 4, memory, U64(MIB // 2), U64(0)) == 0
        cuda.ok("cuEventRecord", events[1], None)
        took = ctypes.c_float()
        cuda.ok("cuEventElapsedTime", ctypes.byref(took), *events)
        return took.value

    milliseconds()
    healthy = min(milliseconds() for _ in range(5))
    node.set(make_fault(FaultKind.SLOW_GPU, value=0.02))
    assert milliseconds() > 10 * healthy


def test_a_gpu_falls_off_the_bus_after_a_launch(cuda: Cuda, node: Any, make_fault: Callable[..., Fault]) -> None:
    """The launch that takes it over its limit is the last that works."""
    node.set(make_fault(FaultKind.XID_79, value=1))
    memory, write = cuda.allocate(MIB), cuda.function("probe_write")
    codes = [cuda.launch(write, 4, memory, U64(MIB // 16), U64(0)) for _ in range(2)]
    assert codes == [0, UNKNOWN]
    assert sum("Xid" in line for line in node.kernel_log()) == 1


def _wrong_by_sm(cuda: Cuda, times: int, value: float = 3.0) -> list[tuple[int, ...]]:
    """Wrong floats, doubles and ints of each SM; every SM of the board is asked."""
    out = cuda.allocate(512)
    cuda.ok("cuMemsetD8_v2", out, 0, ctypes.c_size_t(512))
    seen = U64(out.value + 256)
    arguments = (ctypes.c_float(value), ctypes.c_double(value), ctypes.c_int(3), U64(times))
    assert cuda.launch(cuda.function("probe_results"), 2 * SMS, *arguments, out, seen) == 0
    assert _words(cuda, seen, SMS + 1) == [2] * SMS + [0]
    words = _words(cuda, out, 3 * SMS)
    cuda.ok("cuMemFree_v2", out)
    return [tuple(words[3 * sm : 3 * sm + 3]) for sm in range(SMS)]


NOTHING = (0, 0, 0)


def test_a_healthy_sm_changes_no_result(cuda: Cuda) -> None:
    """A hundred thousand results of each kind on every SM."""
    assert _wrong_by_sm(cuda, 100_000) == [NOTHING] * SMS


@pytest.mark.parametrize(
    ("kind", "value", "wrong"),
    [
        (FaultKind.GEMM_WRONG_FMA, None, {2: (20, 20, 20)}),
        (FaultKind.GEMM_WRONG_FMA, 0, {0: (20, 20, 20)}),
        (FaultKind.GEMM_NAN, 3, {3: (30, 30, 0)}),
    ],
)
def test_one_result_in_a_thousand_of_the_one_sm_is_wrong(
    cuda: Cuda, node: Any, make_fault: Callable[..., Fault], kind: FaultKind, value: float | None, wrong: dict[int, Any]
) -> None:
    """60,000 results of it: 60 wrong ones by FMA. Whole numbers cannot be NaN, and are not counted towards it."""
    node.set(make_fault(kind, value=value))
    found = dict(enumerate(_wrong_by_sm(cuda, 10_000)))
    sm, expected = next(iter(wrong.items()))
    assert sum(found[sm]) == sum(expected) - (20 if kind is FaultKind.GEMM_NAN else 0)
    assert [found[other] for other in found if other != sm] == [NOTHING] * (SMS - 1)
    assert (found[sm][2] == 0) == (expected[2] == 0)


def test_a_rounding_fault_hides_behind_small_whole_numbers(
    cuda: Cuda, node: Any, make_fault: Callable[..., Fault]
) -> None:
    """3.0 is exact without its last bits; 1/3 is not, and comes out wrong every time in float and double."""
    node.set(make_fault(FaultKind.GEMM_ROUNDING, value=1))
    assert _wrong_by_sm(cuda, 1000) == [NOTHING] * SMS
    found = _wrong_by_sm(cuda, 1000, 1 + 2**-23)
    assert found == [NOTHING, (2000, 0, 0), NOTHING, NOTHING]
    started = time.monotonic()
    node.set()
    assert _wrong_by_sm(cuda, 1000, 1 + 2**-23) == [NOTHING] * SMS
    assert time.monotonic() - started < 60
