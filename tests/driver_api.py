"""CUDA's driver API by ctypes, as bare as a test of the stand-in needs it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

MIB = 1 << 20
FATBIN = bytes.fromhex("50ed55ba") + bytes(12)


class Cuda:
    """The driver API; each call answers its CUresult."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))

    def __call__(self, function: str, *arguments: Any) -> int:
        code: int = getattr(self.library, function)(*arguments)
        return code

    def ok(self, function: str, *arguments: Any) -> None:
        """A call that must succeed."""
        assert self(function, *arguments) == 0, function

    def open(self, gpu: int) -> None:
        """Makes the GPU's context the current one."""
        context = ctypes.c_void_p()
        self.ok("cuDevicePrimaryCtxRetain", ctypes.byref(context), gpu)
        self.ok("cuCtxSetCurrent", context)

    def allocate(self, size: int) -> ctypes.c_uint64:
        """Device memory."""
        pointer = ctypes.c_uint64()
        self.ok("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def free_bytes(self) -> tuple[int, int]:
        """Free and total memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.ok("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def close(self) -> None:
        """Lets every GPU go, so that the next test begins with a new context."""
        for gpu in range(8):
            while self("cuDevicePrimaryCtxRelease_v2", gpu) == 0:
                pass
        self("cuCtxSetCurrent", None)

    def function(self, name: str) -> ctypes.c_void_p:
        """A kernel of the current GPU, from an image that holds nothing: the stand-in has its own build of it."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.ok("cuModuleLoadData", ctypes.byref(module), FATBIN)
        self.ok("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def has(self, name: str) -> bool:
        """Whether the current GPU has a kernel of that name."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.ok("cuModuleLoadData", ctypes.byref(module), FATBIN)
        return self("cuModuleGetFunction", ctypes.byref(function), module, name.encode()) == 0

    def launch(self, function: ctypes.c_void_p, blocks: int, *arguments: Any) -> int:
        """Starts a kernel with ctypes values as its arguments."""
        pointers = [ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in arguments]
        packed = (ctypes.c_void_p * len(pointers))(*pointers)
        return self("cuLaunchKernel", function, blocks, 1, 1, 256, 1, 1, 0, None, packed, None)

    def put(self, pointer: ctypes.c_uint64, data: bytes, offset: int = 0) -> None:
        """Host to device."""
        self.ok("cuMemcpyHtoD_v2", ctypes.c_uint64(pointer.value + offset), data, ctypes.c_size_t(len(data)))

    def get(self, pointer: ctypes.c_uint64, size: int, offset: int = 0) -> bytes:
        """Device to host."""
        back = ctypes.create_string_buffer(size)
        self.ok("cuMemcpyDtoH_v2", back, ctypes.c_uint64(pointer.value + offset), ctypes.c_size_t(size))
        return back.raw
