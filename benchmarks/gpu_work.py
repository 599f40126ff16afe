"""What benchmarks/gpu.py does on a GPU by itself, each in a fork: rates against copies, and errors put in by hand.

Every function opens the GPU at a PCI address, and answers with plain values.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from library_product import KINDS, LibraryProduct, NoLibraryError, library_bytes

from burnin.device.cuda import L2_BYTES, MAJOR, MEMORY_CLOCK_KHZ, MINOR, SM_CLOCK_KHZ, Cuda
from burnin.device.kernels import Kernels
from burnin.device.nvml import Missing, Nvml, NvmlUnavailableError
from burnin.hbm.memory import Chunk, take_memory
from burnin.hbm.patterns import VECTOR_BYTES, Kind, Pattern
from burnin.hbm.sweeper import Sweep, Sweeper, peak_gb_per_s
from burnin.snapshot import Snapshot, snapshots

_DEADLINE_S = 60.0
_LARGEST_PRODUCT = 8192
_INJECTED = 32  # errors a step


@dataclass(frozen=True, slots=True)
class Opened:
    """A GPU with our kernels on it, and nearly all of its memory."""

    cuda: Cuda
    kernels: Kernels
    chunks: tuple[Chunk, ...]

    def sweeper(self) -> Sweeper:
        """A fresh one: it knows nothing of what is in memory."""
        return Sweeper(self.cuda, self.kernels, self.chunks)


@contextmanager
def opened(pci: str, share: float = 1.0) -> Iterator[Opened]:
    """Take the GPU and a share of its free memory."""
    cuda = Cuda()
    with cuda.gpu(pci):
        kernels = Kernels(cuda)
        free, _ = cuda.memory()
        yield Opened(cuda, kernels, take_memory(cuda, free, share))


def gpus() -> list[dict[str, object]] | str:
    """What NVML says of each GPU; or why it says nothing."""
    try:
        nvml = Nvml()
    except NvmlUnavailableError as error:
        return str(error)
    driver = nvml.system("GetDriverVersion")
    return [_facts(index, taken, driver) for index, taken in snapshots(nvml).items()] or "NVML lists no GPU"


def _facts(index: int, taken: Snapshot, driver: object) -> dict[str, object]:
    keys = ("name", "pci", "uuid", "ecc_mode", "mig_mode", "power_limit_mw", "gpu_celsius", "pcie_width")
    known = {key: taken[key] for key in keys if key in taken and not isinstance(taken[key], Missing)}
    return {"index": index, "driver": str(driver), **known}


def device(pci: str) -> dict[str, object]:
    """What CUDA says of the GPU, and which of our images have code for it."""
    cuda = Cuda()
    with cuda.gpu(pci):
        free, total = cuda.memory()
        kernels = Kernels(cuda)
        return {
            "compute_capability": f"{cuda.attribute(MAJOR)}.{cuda.attribute(MINOR)}",
            "sms": kernels.sms,
            "images": list(kernels.loaded),
            "free_bytes": free,
            "total_bytes": total,
            "l2_bytes": cuda.attribute(L2_BYTES),
            "sm_clock_mhz": cuda.attribute(SM_CLOCK_KHZ) / 1000,
            "memory_clock_mhz": cuda.attribute(MEMORY_CLOCK_KHZ) / 1000,
            "peak_gb_per_s": peak_gb_per_s(cuda),
        }


def rates(pci: str, seconds: float) -> dict[str, float | None]:
    """Median GB/s of sweeps, of verifying, of our moves and of the driver's copies: they take turns."""
    found: dict[str, list[float]] = {"sweep": [], "verify": [], "move": [], "copy": []}
    with opened(pci) as gpu:
        _sweeps(gpu.sweeper(), {}, 2)  # the driver loads kernels late, and clocks need a moment
        limit = time.monotonic() + seconds
        while True:
            _sweeps(gpu.sweeper(), found, 8)
            found["copy"] += [rate for rate in (_copy(gpu.cuda, chunk) for chunk in gpu.chunks[:1]) if rate]
            if time.monotonic() >= limit:
                return {name: median(values) if values else None for name, values in found.items()}


def _sweeps(sweeper: Sweeper, found: dict[str, list[float]], count: int) -> None:
    sweeper.write(Pattern(Kind.RANDOM, 0), 0, down=False)
    for number in range(1, count + 1):
        pattern = Pattern(Kind.RANDOM, number // 2, inverted=bool(number % 2))
        _note(found, "sweep", sweeper.write(pattern, number, down=bool(number % 2)))
        _note(found, "verify", sweeper.verify(down=not number % 2))
        _note(found, "move", sweeper.move(down=bool(number % 2)))
    if sweeper.findings.words:
        raise RuntimeError(f"{sweeper.findings.words} words of this GPU's memory were wrong: {sweeper.findings}")


def _note(found: dict[str, list[float]], name: str, sweep: Sweep) -> None:
    rate = sweep.gb_per_s
    if rate is not None and name in found:
        found[name].append(rate)


def _copy(cuda: Cuda, chunk: Chunk) -> float | None:
    """cuMemcpyDtoD of half an allocation to its other half, read and written: GB/s."""
    half, first, last = chunk.size // 2, cuda.event(), cuda.event()
    cuda.record(first)
    cuda.copy(chunk.address + half, chunk.address, half)
    cuda.record(last)
    cuda.await_event(last, _DEADLINE_S)
    ms = cuda.elapsed_ms(first, last)
    return 2 * half / ms / 1e6 if ms > 0 else None


def sweep_rate(pci: str, seconds: float) -> float | None:
    """Median GB/s of sweeps alone."""
    rates_seen: list[float] = []
    with opened(pci) as gpu:
        sweeper = gpu.sweeper()
        sweeper.write(Pattern(Kind.RANDOM, 0), 0, down=False)
        limit, number = time.monotonic() + seconds, 0
        while number < 4 or time.monotonic() < limit:
            number += 1
            rate = sweeper.write(Pattern(Kind.RANDOM, number), number, down=bool(number % 2)).gb_per_s
            rates_seen += [rate] if rate else []
    return median(rates_seen) if rates_seen else None


def detection(pci: str, seed: int) -> dict[str, int]:
    """Single bits that the host turns between two steps: how many, how many of them were found, how many others."""
    draw = random.Random(seed)
    injected = found = others = 0
    patterns = [Pattern(kind, 7 if kind is Kind.CHECKERBOARD else 0) for kind in Kind]
    with opened(pci) as gpu:
        sweeper = gpu.sweeper()
        for number, pattern in enumerate([*patterns, patterns[0]]):
            before = len(sweeper.findings.miscompares())
            places = {} if number == 0 else dict(_turn(gpu, draw) for _ in range(_INJECTED))
            sweeper.write(pattern, number, down=bool(number % 2))
            seen = {m.index: m.xor for m in sweeper.findings.miscompares()[before:]}
            right = sum(seen.get(index) == xor for index, xor in places.items())
            injected, found, others = injected + len(places), found + right, others + len(seen) - right
    return {"injected": injected, "found": found, "others": others}


def _turn(gpu: Opened, draw: random.Random) -> tuple[int, str]:
    """Turn one bit of one vector: its number, and the difference as findings write it."""
    chunk = draw.choices(gpu.chunks, [c.size for c in gpu.chunks])[0]
    at, bit = draw.randrange(chunk.size // VECTOR_BYTES), draw.randrange(8 * VECTOR_BYTES)
    vector = (ctypes.c_ubyte * VECTOR_BYTES)()
    address = chunk.address + at * VECTOR_BYTES
    gpu.cuda.read(ctypes.addressof(vector), address, VECTOR_BYTES)
    vector[bit // 8] ^= 1 << bit % 8
    gpu.cuda.write(address, ctypes.addressof(vector), VECTOR_BYTES)
    words = [1 << bit % 64 if word == bit // 64 else 0 for word in range(2)]
    return chunk.first + at, " ".join(f"{word:016x}" for word in words)


def library(pci: str, seconds: float, given: str | None) -> dict[str, object]:
    """TFLOP/s of a library's products, by unit; or why there are none."""
    cuda = Cuda()
    with cuda.gpu(pci):
        free, _ = cuda.memory()
        try:
            product = LibraryProduct(cuda, given)
        except NoLibraryError as error:
            return {"absent": str(error)}
        found: dict[str, object] = {"path": product.path, "version": product.version}
        for unit in KINDS:
            size = _LARGEST_PRODUCT
            while library_bytes(unit, size) > free // 2:
                size //= 2
            try:
                found[unit] = product.tflop_per_s(unit, size, seconds)
            except NoLibraryError as error:
                found[f"{unit}_absent"] = str(error)
        return found
