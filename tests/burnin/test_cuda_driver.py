"""The door to CUDA's driver: what it asks of a library, how it waits, what it calls the failures."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from ctypes import c_uint32, c_uint64, c_void_p
from pathlib import Path

import pytest

from burnin.device import cuda as door
from burnin.device.cuda import Cuda, CudaError, CudaHungError, CudaUnavailableError
from burnin.device.kernels import Kernels
from toolkit.rack.model import Rack
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.hardware import render_state

PCI = "00000000:1B:00.0"
FATBIN = b"\x50\xed\x55\xba" + bytes(60)
MIB = 1 << 20


@pytest.fixture(name="break_by")
def _break_by(tmp_path: Path, rack: Rack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the virtual node's faults; without any it is healthy."""
    (tmp_path / "load").mkdir()
    (tmp_path / "kmsg").touch()
    monkeypatch.setenv("RACKPROOF_HARDWARE", str(tmp_path))
    node = next(u for u in rack.units if u.name == "node1")

    def set_state(*faults: Fault) -> None:
        (tmp_path / "state").write_text(render_state(node, rack.profile, faults))

    set_state()
    return set_state


@pytest.fixture(name="cuda")
def _cuda(vendor: Path, break_by: Callable[..., None]) -> Cuda:
    """The driver of a healthy virtual node."""
    return Cuda(str(vendor / "libcuda.so.1"))


# C of the functions that must answer something; the others say yes.
ANSWERS = {
    "cuDeviceGetAttribute": "(int *out, int number, int device) { *out = number + device; return 0; }",
    "cuModuleLoadData": "(void **module, const int *image) { *module = module; return image[0]; }",
}


def driver(folder: Path, *, without: str = "", **codes: int) -> Path:
    """A driver that lacks a function, or gives codes in place of success; an image is answered with its first word."""
    bodies = {name: ANSWERS.get(name, f"(void) {{ return {codes.get(name, 0)}; }}") for name in door._PROTOTYPES}
    source, target = folder / "driver.c", folder / "driver.so"
    source.write_text("".join(f"int {name}{body}\n" for name, body in bodies.items() if name != without))
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    return target


def image(code: int) -> bytes:
    return code.to_bytes(4, "little")


@pytest.mark.parametrize("name", ["cuEventQuery", "cuLaunchKernel", "cuModuleLoadData", "cuDeviceGetAttribute"])
def test_a_driver_without_a_function_is_named_and_not_used(tmp_path: Path, name: str) -> None:
    """An old libcuda: the operator reads which function it lacks."""
    with pytest.raises(CudaUnavailableError, match=f"has no {name}: its driver is too old"):
        Cuda(str(driver(tmp_path, without=name)))


def test_a_node_without_the_library_is_unavailable(tmp_path: Path) -> None:
    """No driver installed: no traceback."""
    with pytest.raises(CudaUnavailableError, match=r"nothing\.so"):
        Cuda(str(tmp_path / "nothing.so"))


@pytest.mark.parametrize(
    ("code", "word", "unavailable"),
    [
        (200, "invalid_image", True),
        (218, "invalid_ptx", True),
        (221, "jit_compiler_not_found", True),
        (222, "unsupported_ptx_version", True),
        (214, "ecc_uncorrectable", False),
        (802, "fabric_not_ready", True),
        (999, "unknown_error", False),
    ],
)
def test_kernels_that_a_driver_refuses_have_its_word(tmp_path: Path, code: int, word: str, unavailable: bool) -> None:
    """A driver older than the kernels, or a GPU that fails just then."""
    cuda = Cuda(str(driver(tmp_path)))
    with pytest.raises(CudaError) as raised:
        Kernels(cuda, {"hbm": image(code)})
    assert (raised.value.word, raised.value.unavailable) == (word, unavailable)


def test_an_image_without_code_for_this_gpu_is_passed_over(tmp_path: Path) -> None:
    """FP8 of another generation; with nothing left it is an error that says so."""
    cuda = Cuda(str(driver(tmp_path)))
    assert Kernels(cuda, {"fp8_sm90": image(209), "hbm": image(0)}).loaded == ("hbm",)
    with pytest.raises(CudaError) as raised:
        Kernels(cuda, {"hbm": image(209)})
    assert (raised.value.word, raised.value.unavailable) == ("no_binary_for_gpu", True)


def test_a_burnin_without_kernels_says_so(tmp_path: Path) -> None:
    """A source tree has sources only."""
    with pytest.raises(CudaUnavailableError, match="no kernels are packed"):
        Kernels(Cuda(str(driver(tmp_path))), {})


def test_a_gpu_says_what_it_is(cuda: Cuda) -> None:
    """The attributes that peaks are computed from."""
    with cuda.gpu(PCI):
        assert (cuda.attribute(door.MAJOR), cuda.attribute(door.MINOR)) == (9, 0)
        assert cuda.attribute(door.MEMORY_CLOCK_KHZ) == 2_619_000 and cuda.attribute(door.MEMORY_BUS_BITS) == 5120
        assert Kernels(cuda, {"hbm": FATBIN}).sms == cuda.attribute(door.SM_COUNT) > 0


def test_a_kernel_is_started_by_name_and_timed(cuda: Cuda) -> None:
    """Its time is between the events around it; memory that was freed is free."""
    with cuda.gpu(PCI):
        kernels, stream = Kernels(cuda, {"hbm": FATBIN}), cuda.stream()
        before, _ = cuda.memory()
        address = cuda.allocate(MIB)
        first, last = cuda.event(), cuda.event()
        cuda.record(first, stream)
        kernels.launch(
            "hbm_write", 8, c_void_p(address), c_uint64(64), c_uint32(0), c_uint64(0), c_uint32(4), c_uint64(0),
            c_uint64(2**64 - 1), stream=stream,
        )  # fmt: skip
        cuda.record(last, stream)
        cuda.await_event(last, 5)
        assert 0 < cuda.elapsed_ms(first, last) < 5000
        host = cuda.allocate_host(8)
        cuda.read(host, address + MIB - 8, 8)
        assert c_uint64.from_address(host).value == 2**64 - 1
        cuda.free(address)
        assert cuda.memory()[0] == before


def test_a_kernel_that_does_not_exist_is_an_error(cuda: Cuda) -> None:
    """A burn-in whose parts do not belong together."""
    with cuda.gpu(PCI), pytest.raises(CudaError) as raised:
        Kernels(cuda, {"hbm": FATBIN}).launch("no_such_kernel", 1)
    assert (raised.value.call, raised.value.word) == ("cuModuleGetFunction", "not_found")


def test_waiting_ends_at_its_deadline_and_serves_meanwhile(
    vendor: Path, tmp_path: Path, break_by: Callable[..., None]
) -> None:
    """A kernel that never ends: hung, after the time that was given, and leaving does not wait for it either."""
    break_by(Fault(FaultKind.KERNEL_HANG, "node1", gpu=0, value=0))
    # a driver of its own: a context that hangs does so as long as the process lives, for whoever comes next
    own = shutil.copy(vendor / "libcuda.so.1", tmp_path / "libcuda-hangs.so")
    cuda, served = Cuda(str(own)), []
    begun = time.monotonic()
    with pytest.raises(CudaHungError, match=r"within 0\.3 s"), cuda.gpu(PCI):
        kernels, done = Kernels(cuda, {"hbm": FATBIN}), cuda.event()
        kernels.launch("hbm_warm", 1, c_uint32(1), c_void_p(cuda.allocate_host(8)))
        cuda.record(done)
        cuda.await_event(done, 0.3, lambda: served.append(time.monotonic()))
    assert 0.3 <= time.monotonic() - begun < 10 and len(served) > 10


def test_an_error_of_the_work_is_learnt_while_waiting(tmp_path: Path) -> None:
    """The event's query gives the code of the kernel that failed."""
    cuda = Cuda(str(driver(tmp_path, cuEventQuery=214)))
    with pytest.raises(CudaError) as raised:
        cuda.await_event(1, 1)
    assert (raised.value.call, raised.value.word) == ("cuEventQuery", "ecc_uncorrectable")
