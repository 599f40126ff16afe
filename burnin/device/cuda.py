"""CUDA's driver API by ctypes: memory and copies of one GPU. No toolkit, no Python GPU package, no kernels.

Every call has its prototype set and its result looked at; a failure is a CudaError whose `word` tells the outcomes
that mean something to an operator apart (the fabric is not ready, memory is corrupt, the GPU is gone).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

_LIBRARY = "libcuda.so.1"
OUT_OF_MEMORY = 2
_GPU_ABSENT = 101

# cuda.h, cudaError_enum: what each of these means for the one who runs the rack
_WORDS = {
    OUT_OF_MEMORY: "out_of_memory",
    3: "not_initialized",
    34: "stub_library",
    46: "device_unavailable",
    100: "no_device",
    _GPU_ABSENT: "gpu_absent",
    214: "ecc_uncorrectable",
    220: "nvlink_uncorrectable",
    304: "operating_system",
    700: "illegal_address",
    702: "launch_timeout",
    714: "hardware_stack_error",
    719: "launch_failed",
    721: "contained_error",
    802: "fabric_not_ready",
    803: "driver_mismatch",
    999: "unknown_error",
}
# The GPU was not at fault, or not reachable for us: the workload did not run.
_UNAVAILABLE = {OUT_OF_MEMORY, 3, 34, 46, 100, _GPU_ABSENT, 304, 802, 803}

_PROTOTYPES: dict[str, tuple[type, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetPCIBusId": (c_char_p, c_int, c_int),
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
}


class CudaUnavailableError(Exception):
    """libcuda.so.1, or a function of it that we need, is not on this node."""


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
            for name, arguments in _PROTOTYPES.items():
                function = getattr(self._library, name)
                function.argtypes, function.restype = arguments, c_int
        except (OSError, AttributeError) as error:
            raise CudaUnavailableError(str(error)) from error
        self._call("cuInit", 0)

    @contextmanager
    def gpu(self, pci: str) -> Iterator[None]:
        """Make the GPU at this PCI address (as NVML writes it) the current one.

        The address is the one name that NVML and CUDA agree on: their indices differ by default.
        """
        device, context = self._at(pci), c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        try:
            self._call("cuCtxSetCurrent", context)
            yield
        finally:
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
