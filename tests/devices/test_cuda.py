"""libcuda.so.1 by ctypes: a fill and verify of memory as a burn-in does it, healthy and with each fault."""

from __future__ import annotations

import ctypes
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver_api import MIB, Cuda

from toolkit.virtual.faults import Fault, FaultKind

OUT_OF_MEMORY, UNAVAILABLE, NO_DEVICE, NOT_READY, UNKNOWN = 2, 46, 100, 802, 999


@pytest.fixture(name="cuda")
def _cuda(node: Any, libraries: Path) -> Iterator[Cuda]:
    cuda = Cuda(libraries / "libcuda.so.1")
    cuda.ok("cuInit", 0)
    yield cuda
    cuda.close()


def _filled(cuda: Cuda, word: int, size: int) -> bytes:
    """Fills `size` bytes with a word and reads them back."""
    pointer = cuda.allocate(size)
    cuda.ok("cuMemsetD32_v2", pointer, ctypes.c_uint(word), ctypes.c_size_t(size // 4))
    back = ctypes.create_string_buffer(size)
    cuda.ok("cuMemcpyDtoH_v2", back, pointer, ctypes.c_size_t(size))
    return back.raw


def test_a_device_says_who_it_is(cuda: Cuda) -> None:
    """Name, UUID, bus, memory and capability agree with what NVML says."""
    name, bus, uuid = ctypes.create_string_buffer(64), ctypes.create_string_buffer(16), (ctypes.c_ubyte * 16)()
    count, total, major = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    cuda.ok("cuDeviceGetCount", ctypes.byref(count))
    cuda.ok("cuDeviceGetName", name, 64, 2)
    cuda.ok("cuDeviceGetPCIBusId", bus, 16, 2)
    cuda.ok("cuDeviceGetUuid", uuid, 2)
    cuda.ok("cuDeviceTotalMem_v2", ctypes.byref(total), 2)
    cuda.ok("cuDeviceGetAttribute", ctypes.byref(major), 75, 2)
    assert (count.value, name.value, bus.value) == (8, b"NVIDIA H100 80GB HBM3", b"0000:52:00.0")
    assert (total.value, major.value) == (16 * MIB, 9)
    assert any(uuid)


def test_memory_reads_back_what_was_written(cuda: Cuda, node: Any) -> None:
    """95 % of the free memory, filled and verified; every byte of both ways is in the GPU's load."""
    cuda.open(1)
    free, total = cuda.free_bytes()
    assert free < total
    size = free * 95 // 100 // 4096 * 4096
    assert _filled(cuda, 0xA5A5A5A5, size) == b"\xa5" * size
    assert (node.moved(1), node.moved(0)) == (2 * size, 0)


def test_copies_between_host_and_device_keep_every_byte(cuda: Cuda) -> None:
    """Host to device, device to device, device to host."""
    cuda.open(0)
    data = bytes(range(256)) * 4096
    first, second = cuda.allocate(len(data)), cuda.allocate(len(data))
    back = ctypes.create_string_buffer(len(data))
    cuda.ok("cuMemcpyHtoD_v2", first, data, ctypes.c_size_t(len(data)))
    cuda.ok("cuMemcpyDtoD_v2", second, first, ctypes.c_size_t(len(data)))
    cuda.ok("cuMemcpyDtoH_v2", back, second, ctypes.c_size_t(len(data)))
    assert back.raw == data


def test_memory_runs_out_and_comes_back(cuda: Cuda) -> None:
    """More than is free is refused (2); what is freed can be had again, also in the middle."""
    cuda.open(0)
    free, _ = cuda.free_bytes()
    blocks = [cuda.allocate(4 * MIB) for _ in range(3)]
    pointer = ctypes.c_uint64()
    assert cuda("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(4 * MIB)) == OUT_OF_MEMORY
    cuda.ok("cuMemFree_v2", blocks[1])
    assert cuda.allocate(4 * MIB).value == blocks[1].value
    for block in blocks:
        cuda.ok("cuMemFree_v2", block)
    assert cuda.free_bytes()[0] == free
    assert cuda("cuMemFree_v2", blocks[0]) == 1


def test_an_access_outside_of_its_block_is_refused(cuda: Cuda) -> None:
    """Past the end of an allocation is an invalid value, not somebody else's memory."""
    cuda.open(0)
    pointer = cuda.allocate(4096)
    assert cuda("cuMemsetD8_v2", pointer, 0, ctypes.c_size_t(4097)) == 1
    assert cuda("cuMemsetD8_v2", ctypes.c_uint64(pointer.value + 4096), 0, ctypes.c_size_t(1)) == 1


def test_a_sticky_bit_reads_as_one_whatever_was_written(
    cuda: Cuda, node: Any, make_fault: Callable[..., Fault]
) -> None:
    """One bit of one byte differs with zeros, none with ones; the neighbour GPU is clean; clearing the fault heals."""
    node.set(make_fault(FaultKind.HBM_STICKY_BIT, gpu=2))
    cuda.open(2)
    zeros = _filled(cuda, 0, 15 * MIB)
    wrong = [at for at, byte in enumerate(zeros) if byte]
    assert [at // 16 for at in wrong] == [int(MIB * 0.4)]
    assert zeros[wrong[0]] == 1 << 4
    cuda.ok("cuDevicePrimaryCtxRelease_v2", 2)
    cuda.open(2)
    assert _filled(cuda, 0xFFFFFFFF, 15 * MIB) == b"\xff" * (15 * MIB)
    cuda.open(3)
    assert not any(_filled(cuda, 0, 15 * MIB))


def test_a_gpu_falls_off_the_bus_under_load_and_says_so_once(
    cuda: Cuda, node: Any, make_fault: Callable[..., Fault]
) -> None:
    """Calls fail with 999 from then on, opening it with 46; two kernel log records, however many callers."""
    node.set(make_fault(FaultKind.XID_79, gpu=4, value=10))
    (node.folder / "kmsg").write_text("6,41,100,-;systemd[1]: started\n")
    cuda.open(4)
    pointer = cuda.allocate(4 * MIB)
    codes = [cuda("cuMemsetD8_v2", pointer, 0, ctypes.c_size_t(4 * MIB)) for _ in range(5)]
    assert codes == [0, 0, 0, UNKNOWN, UNKNOWN]
    assert cuda("cuCtxSynchronize") == UNKNOWN
    assert cuda("cuDevicePrimaryCtxRetain", ctypes.byref(ctypes.c_void_p()), 4) == UNAVAILABLE
    records = [line.split(";", 1) for line in node.kernel_log()[1:]]
    assert [text for _, text in records] == [
        "NVRM: Xid (PCI:0000:9d:00): 79, GPU has fallen off the bus.",
        "NVRM: GPU 0000:9d:00.0: GPU has fallen off the bus.",
    ]
    assert [head.split(",")[:2] for head, _ in records] == [["3", "42"], ["3", "43"]]


def test_load_is_counted_exactly_by_many_threads(cuda: Cuda, node: Any) -> None:
    """Eight threads on one GPU lose no byte."""
    cuda.open(0)
    context = ctypes.c_void_p()
    cuda.ok("cuCtxGetCurrent", ctypes.byref(context))
    pointer = cuda.allocate(4096)

    def work() -> None:
        cuda.ok("cuCtxSetCurrent", context)
        for _ in range(50):
            cuda.ok("cuMemsetD8_v2", pointer, 0, ctypes.c_size_t(4096))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert node.moved(0) == 8 * 50 * 4096


def test_streams_and_events_measure_time(cuda: Cuda) -> None:
    """Record, query, elapsed, destroy."""
    cuda.open(0)
    stream, first, last = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    cuda.ok("cuStreamCreate", ctypes.byref(stream), 0)
    for event in (first, last):
        cuda.ok("cuEventCreate", ctypes.byref(event), 0)
    pointer = cuda.allocate(8 * MIB)
    cuda.ok("cuEventRecord", first, stream)
    cuda.ok("cuMemsetD8_v2", pointer, 1, ctypes.c_size_t(8 * MIB))
    cuda.ok("cuEventRecord", last, stream)
    cuda.ok("cuEventQuery", last)
    milliseconds = ctypes.c_float()
    cuda.ok("cuEventElapsedTime", ctypes.byref(milliseconds), first, last)
    assert milliseconds.value > 0
    for name, thing in (("cuEventDestroy_v2", first), ("cuEventDestroy_v2", last), ("cuStreamDestroy_v2", stream)):
        cuda.ok(name, thing)


def test_an_error_has_its_name_and_its_sentence(cuda: Cuda) -> None:
    """As the real driver gives them; a number that is no error has neither."""
    name, sentence = ctypes.c_char_p(), ctypes.c_char_p()
    cuda.ok("cuGetErrorName", 214, ctypes.byref(name))
    cuda.ok("cuGetErrorString", 214, ctypes.byref(sentence))
    assert (name.value, sentence.value) == (b"CUDA_ERROR_ECC_UNCORRECTABLE", b"uncorrectable ECC error encountered")
    assert cuda("cuGetErrorName", 12345, ctypes.byref(name)) == 1


def test_visible_devices_are_chosen_by_index_and_by_uuid(
    cuda: Cuda, node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is in the order given and ends at the first entry that names no GPU."""
    state = dict(line.split(" ", 1) for line in (node.folder / "state").read_text().splitlines())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"5,{state['gpu1.uuid'][:12]},99,2")
    cuda.ok("cuInit", 0)
    count, bus = ctypes.c_int(), ctypes.create_string_buffer(16)
    cuda.ok("cuDeviceGetCount", ctypes.byref(count))
    cuda.ok("cuDeviceGetPCIBusId", bus, 16, 1)
    assert (count.value, bus.value) == (2, b"0000:43:00.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    cuda.ok("cuInit", 0)


def test_cuda_does_not_start_before_the_fabric_does(node: Any, cuda: Cuda) -> None:
    """802 after a fabric manager has failed; 100 without hardware."""
    (node.folder / "load/fabric_manager").write_text("failed\n")
    assert cuda("cuInit", 0) == NOT_READY
    (node.folder / "state").unlink()
    assert cuda("cuInit", 0) == NO_DEVICE


def test_bytes_that_cannot_be_counted_are_an_error(cuda: Cuda, node: Any) -> None:
    """No evidence, no success: 304 where the load cannot be written down."""
    cuda.open(0)
    pointer = cuda.allocate(4096)
    shutil.rmtree(node.folder / "load")
    (node.folder / "load").write_text("in the way")
    assert cuda("cuMemsetD8_v2", pointer, 0, ctypes.c_size_t(4096)) == 304
