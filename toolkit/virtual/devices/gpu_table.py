"""The device plugin of a node: how many GPUs its kubelet offers, and which pod has which."""

from __future__ import annotations

import threading

from .state import NoDriverError, State, read

GPU = "nvidia.com/gpu"


def hardware() -> State | None:
    """The node's GPUs as they are now; None where it has no driver for any."""
    try:
        return read()
    except NoDriverError:
        return None


def gpus(state: State | None) -> tuple[int, int]:
    """GPUs that the device plugin reports: all, and those that are healthy. None of either without a driver."""
    if state is None:
        return 0, 0
    if state.values.get("kubelet.device_plugin") == "gone":
        return len(state.gpus), 0
    return len(state.gpus), sum(not gpu.lost for gpu in state.gpus)


class GpuTable:
    """Which pod has which GPUs: the device plugin's side of a kubelet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[int, ...]] = {}

    def take(self, pod: str, count: int) -> tuple[tuple[int, ...], str]:
        """GPUs by index for a pod, or why it gets none."""
        with self._lock:
            if pod in self._held:
                return self._held[pod], ""
            used = {index for held in self._held.values() for index in held}
            state = hardware()
            healthy = gpus(state)[1]
            found = [g.index for g in (state.gpus if state else ()) if not g.lost and g.index not in used]
            free = found[: max(0, healthy - len(used))]
            if len(free) < count:
                return (), (
                    f"Allocate failed due to requested number of devices unavailable for {GPU}. "
                    f"Requested: {count}, Available: {len(free)}, which is unexpected"
                )
            self._held[pod] = tuple(free[:count])
            return self._held[pod], ""

    def restore(self, pod: str, held: tuple[int, ...]) -> None:
        """What a pod had when the kubelet was restarted."""
        with self._lock:
            self._held[pod] = held

    def give_back(self, pod: str) -> None:
        """The pod is over."""
        with self._lock:
            self._held.pop(pod, None)
