"""What the PCIe link is trained to while data moves: an idle GPU lowers its generation, so only load tells."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from burnin.device.nvml import Gpu, Missing, Nvml, NvmlUnavailableError

_PAUSE_S = 0.02


@dataclass(frozen=True)
class Trained:
    """Lanes and generation, once read; None: NVML did not say."""

    width: int | None
    generation: int | None


class LinkWatch:
    """Reads width and generation in a thread of its own, whenever `loaded` is set. A context manager."""

    def __init__(self, pci: str, loaded: threading.Event) -> None:
        self.readings: list[Trained] = []
        self.problem = ""
        self._pci = pci
        self._loaded = loaded
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pcie link", daemon=True)

    def __enter__(self) -> LinkWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # a driver that hangs in NVML must not keep the copies' results from being told
        self._thread.join(timeout=2.0)

    @property
    def lowest(self) -> Trained:
        """The lowest width and generation of all readings under load."""
        return Trained(
            width=min((r.width for r in self.readings if r.width is not None), default=None),
            generation=min((r.generation for r in self.readings if r.generation is not None), default=None),
        )

    def _watch(self) -> None:
        try:
            nvml = Nvml()
        except NvmlUnavailableError as error:
            self.problem = str(error)
            return
        try:
            gpu = _at(nvml, self._pci)
            if gpu is None:
                self.problem = f"NVML lists no GPU at {self._pci}"
                return
            while not self._over.is_set():
                if not self._loaded.wait(_PAUSE_S):
                    continue
                trained = Trained(
                    _number(gpu.call("GetCurrPcieLinkWidth")), _number(gpu.call("GetCurrPcieLinkGeneration"))
                )
                # the load may have ended while NVML was asked: such a reading says nothing
                if self._loaded.is_set():
                    self.readings.append(trained)
                self._over.wait(_PAUSE_S)
        finally:
            nvml.close()


def _at(nvml: Nvml, pci: str) -> Gpu | None:
    count = nvml.count()
    for index in range(0 if isinstance(count, Missing) else count):
        gpu = nvml.gpu(index)
        info = gpu.call("GetPciInfo")
        if not isinstance(info, Missing) and _text(info.busId) == pci:
            return gpu
    return None


def _text(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
