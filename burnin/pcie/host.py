"""The host's side of a copy: page-locked memory, and the two asynchronous copies of the driver."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import c_int, c_size_t, c_uint64, c_void_p

from burnin.device.cuda import Cuda, CudaError, CudaUnavailableError

WORD_BYTES = 8
_PAGE = 4096
_LIBRARY = "libcuda.so.1"
_PROTOTYPES: dict[str, tuple[type, ...]] = {
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
}

_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = (c_void_p, c_void_p, c_size_t)
_libc.memcmp.restype = c_int


class Copies:
    """Copies that return at once, in order within their stream. The GPU must be current in the calling thread.

    A synchronous copy goes through the default stream, so two of them never run at the same time; these do.
    """

    def __init__(self, library: str = _LIBRARY) -> None:
        """Raises CudaUnavailableError."""
        try:
            self._library = ctypes.CDLL(library)  # the library that Cuda has loaded: one per process
            for name, arguments in _PROTOTYPES.items():
                function = getattr(self._library, name)
                function.argtypes, function.restype = arguments, c_int
        except (OSError, AttributeError) as error:
            raise CudaUnavailableError(str(error)) from error

    def to_device(self, device: int, host: int, size: int, stream: int) -> None:
        """Start copying `size` bytes of page-locked memory to the GPU. Raises CudaError."""
        self._call("cuMemcpyHtoDAsync_v2", device, host, size, stream)

    def to_host(self, host: int, device: int, size: int, stream: int) -> None:
        """Start copying `size` bytes of the GPU's memory to page-locked memory. Raises CudaError."""
        self._call("cuMemcpyDtoHAsync_v2", host, device, size, stream)

    def _call(self, name: str, *arguments: int) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise CudaError(name, code, "")


class Pinned:
    """Page-locked host memory, `size` bytes at `address`."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.size = size
        self.address = cuda.allocate_host(size)
        self._view = memoryview((ctypes.c_ubyte * size).from_address(self.address)).cast("B")

    def put(self, data: bytes) -> None:
        """Fill from the start."""
        self._view[: len(data)] = data

    def equals(self, other: Pinned) -> bool:
        """Compare all bytes, at memcmp's speed."""
        return bool(_libc.memcmp(self.address, other.address, self.size) == 0)

    def differences(self, other: Pinned) -> Iterator[tuple[int, int, int]]:
        """(word index, ours, theirs) of each 64-bit word that differs. Equal pages are passed over."""
        for page in range(0, self.size, _PAGE):
            ours, theirs = bytes(self._view[page : page + _PAGE]), bytes(other._view[page : page + _PAGE])
            if ours == theirs:
                continue
            for at in range(0, len(ours), WORD_BYTES):
                one, two = ours[at : at + WORD_BYTES], theirs[at : at + WORD_BYTES]
                if one != two:
                    yield (page + at) // WORD_BYTES, int.from_bytes(one, "little"), int.from_bytes(two, "little")
