"""CUDA's driver API by ctypes: one GPU's memory, copies, kernels and events. No toolkit, no Python GPU package.

Every call has its prototype set and its result looked at; a failure is a CudaError whose `word` tells the outcomes
that mean something to an operator apart (the fabric is not ready, memory is corrupt, the GPU is gone). What a GPU does
is waited for by polling an event against a deadline, so that a GPU that hangs is found and does not hang us.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

_LIBRARY = "libcuda.so.1"
OUT_OF_MEMORY = 2
NO_BINARY_FOR_GPU = 209
_GPU_ABSENT = 101
_NOT_READY = 600
_STREAM_NON_BLOCKING = 1  # cuda.h, CUstream_flags

# cuda.h, CUdevice_attribute
SM_CLOCK_KHZ = 13
SM_COUNT = 16
MEMORY_CLOCK_KHZ = 36
MEMORY_BUS_BITS = 37
L2_BYTES = 38
MAJOR = 75
MINOR = 76

# The first polls of an event are this far apart, the later ones up to the second: a short wait is measured well, a
# long one costs the node's processors nothing.
_POLL_S = (0.0002, 0.002)

# cuda.h, cudaError_enum: what each of these means for the one who runs the rack
_WORDS = {
    OUT_OF_MEMORY: "out_of_memory",
    3: "not_initialized",
    34: "stub_library",
    46: "device_unavailable",
    100: "no_device",
    _GPU_ABSENT: "gpu_absent",
    200: "invalid_image",
    NO_BINARY_FOR_GPU: "no_binary_for_gpu",
    214: "ecc_uncorrectable",
    218: "invalid_ptx",
    220: "nvlink_uncorrectable",
    221: "jit_compiler_not_found",
    222: "unsupported_ptx_version",
    223: "jit_disabled",
    226: "contained_error",
    304: "operating_system",
    500: "not_found",
    700: "illegal_address",
    702: "launch_timeout",
    714: "hardware_stack_error",
    715: "illegal_instruction",
    716: "misaligned_address",
    718: "invalid_pc",
    719: "launch_failed",
    802: "fabric_not_ready",
    803: "driver_mismatch",
    804: "compat_not_supported",
    999: "unknown_error",
}
# The GPU was not at fault, or not reachable for us: the workload did not run.
_UNAVAILABLE = {OUT_OF_MEMORY, 3, 34, 46, 100, _GPU_ABSENT, 304, 802, 803, 804}
# The driver cannot run our kernels: it is older than they are, or without its PTX compiler.
_UNAVAILABLE |= {200, NO_BINARY_FOR_GPU, 218, 221, 222, 223, 500}

_PROTOTYPES: dict[str, tuple[type, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetPCIBusId": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoD_v2": (c_uint64, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, c_uint64, c_size_t),
    "cuMemcpyDtoD_v2": (c_uint64, c_uint64, c_size_t),
    "cuMemsetD32_v2": (c_uint64, c_uint, c_size_t),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventQuery": (c_void_p,),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    # function, blocks x y z, threads x y z, shared bytes, stream, arguments, extra
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, POINTER(c_void_p), POINTER(c_void_p)),
}


class CudaUnavailableError(Exception):
    """libcuda.so.1, a function of it that we need, or our own kernels are not on this node."""


class CudaHungError(Exception):
    """Work did not end by its deadline. Nothing can be cleaned up after it: report, and leave by `os._exit`."""

    word = "hung"


class CudaError(Exception):
    """A driver call failed: `code` is its CUresult, `call` its name, `word` what it means."""

    def __init__(self, call: str, code: int, name: str) -> None:
        self.call = call
        self.code = code
        self.word = _WORDS.get(code, "cuda_error")
        super().__init__(f"{self.word}: {call} gave {code}{f' ({name})' if name else ''}")

    @property
    def unavailable(self) -> bool:
        """True when the GPU could not be used at all, as opposed to: it failed in use."""
        return self.code in _UNAVAILABLE


class Cuda:
    """The driver, initialised, with one GPU's primary context current inside `gpu`."""

    def __init__(self, library: str = _LIBRARY) -> None:
        """Load and initialise. Raises CudaUnavailableError or CudaError."""
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise CudaUnavailableError(str(error)) from error
        for name, arguments in _PROTOTYPES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise CudaUnavailableError(f"{library} has no {name}: its driver is too old for the burn-in")
            function.argtypes, function.restype = arguments, c_int
        self._device = c_int(-1)
        self._call("cuInit", 0)

    @contextmanager
    def gpu(self, pci: str) -> Iterator[None]:
        """Make the GPU at this PCI address (as NVML writes it) the current one.

        The address is the one name that NVML and CUDA agree on: their indices differ by default.
        """
        device, context = self._at(pci), c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        hangs = False
        try:
            self._call("cuCtxSetCurrent", context)
            self._device = device
            yield
        except CudaHungError:
            hangs = True
            raise
        finally:
            if not hangs:  # the release would wait for it
                self._library.cuDevicePrimaryCtxRelease_v2(device)  # a lost GPU fails here too: nothing to add

    def _at(self, pci: str) -> c_int:
        """The device at a PCI address. Raises CudaError (`gpu_absent`) when CUDA does not list it."""
        count, device = c_int(), c_int()
        self._call("cuDeviceGetCount", byref(count))
        for ordinal in range(count.value):
            self._call("cuDeviceGet", byref(device), ordinal)
            text = ctypes.create_string_buffer(32)
            if self._library.cuDeviceGetPCIBusId(text, len(text), device) == 0 and _same(text.value.decode(), pci):
                return device
        raise CudaError("cuDeviceGetPCIBusId", _GPU_ABSENT, f"none of {count.value} devices is at {pci}")

    def attribute(self, number: int) -> int:
        """An attribute of the current GPU by its number, e.g. SM_COUNT."""
        value = c_int()
        self._call("cuDeviceGetAttribute", byref(value), number, self._device)
        return value.value

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes."""
        free, total = c_size_t(), c_size_t()
        self._call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> int:
        """Device memory: its address. Raises CudaError (`code` OUT_OF_MEMORY when there is no such piece)."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), size)
        return address.value

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", address)

    def allocate_host(self, size: int) -> int:
        """Page-locked host memory, which copies at the link's full rate: its address."""
        address = c_void_p()
        self._call("cuMemHostAlloc", byref(address), size, 0)
        if address.value is None:
            raise CudaError("cuMemHostAlloc", OUT_OF_MEMORY, "no address")
        return address.value

    def write(self, device: int, host: int, size: int) -> None:
        """Copy host memory to the device; returns when it is there."""
        self._call("cuMemcpyHtoD_v2", device, host, size)

    def read(self, host: int, device: int, size: int) -> None:
        """Copy device memory to the host; returns when it is there."""
        self._call("cuMemcpyDtoH_v2", host, device, size)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy device memory to device memory; may return before it is done (see `wait`)."""
        self._call("cuMemcpyDtoD_v2", target, source, size)

    def fill(self, device: int, word: int, size: int) -> None:
        """Set device memory to a repeated 32-bit word; may return before it is done (see `wait`)."""
        self._call("cuMemsetD32_v2", device, word, size // 4)

    def wait(self) -> None:
        """Wait until everything asked for is done, and learn of errors in it."""
        self._call("cuCtxSynchronize")

    def stream(self) -> int:
        """A new stream that does not wait for the default one: its handle."""
        return self._handle("cuStreamCreate", _STREAM_NON_BLOCKING)

    def event(self) -> int:
        """A new event that notes its time: its handle."""
        return self._handle("cuEventCreate", 0)

    def record(self, event: int, stream: int = 0) -> None:
        """Let the event happen when all that was asked of the stream before is done."""
        self._call("cuEventRecord", event, stream)

    def await_event(self, event: int, deadline_s: float, serve: Callable[[], None] | None = None) -> None:
        """Wait until the event has happened, at most `deadline_s` from now; `serve` is called between the polls.

        Raises CudaHungError when it has not happened by then, CudaError when what was before it failed.
        """
        limit, (pause, longest) = time.monotonic() + deadline_s, _POLL_S
        while (code := self._library.cuEventQuery(event)) == _NOT_READY:
            if time.monotonic() >= limit:
                raise CudaHungError(f"hung: the GPU did not end its work within {deadline_s:.1f} s")
            if serve is not None:
                serve()
            time.sleep(pause)
            pause = min(2 * pause, longest)
        if code != 0:
            raise CudaError("cuEventQuery", code, self._error_name(code))

    def elapsed_ms(self, first: int, last: int) -> float:
        """Milliseconds between two events that have happened, by the GPU's clock; resolution about 0.5 us."""
        value = c_float()
        self._call("cuEventElapsedTime", byref(value), first, last)
        return value.value

    def load_module(self, image: bytes) -> int:
        """Kernels from a fatbin, cubin or PTX: the module's handle."""
        return self._handle("cuModuleLoadData", image)

    def function(self, module: int, name: str) -> int:
        """A kernel of a module: its handle."""
        return self._handle("cuModuleGetFunction", module, name.encode())

    def launch(
        self,
        function: int,
        blocks: int,
        threads: int,
        arguments: Sequence[ctypes._SimpleCData[Any]],
        stream: int = 0,
    ) -> None:
        """Start a kernel on a one-dimensional grid; returns before it is done. The types must be the kernel's own."""
        values = (c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        self._call("cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, stream, values, None)

    def _handle(self, name: str, *arguments: object) -> int:
        handle = c_void_p()
        self._call(name, byref(handle), *arguments)
        return handle.value or 0

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise CudaError(name, code, self._error_name(code))

    def _error_name(self, code: int) -> str:
        text = c_char_p()
        try:
            self._library.cuGetErrorName(code, byref(text))
        except AttributeError:
            return ""
        return (text.value or b"").decode("ascii", "replace")


def _same(one: str, other: str) -> bool:
    """Whether two PCI addresses are one: NVML writes the domain with eight digits, CUDA with four."""
    return [int(part, 16) for part in one.replace(".", ":").split(":")] == [
        int(part, 16) for part in other.replace(".", ":").split(":")
    ]
