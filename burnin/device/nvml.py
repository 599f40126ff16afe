"""NVML, one guarded call at a time: a value, or why there is none. Never a silent 0.

`nvmlDeviceGetFieldValues` succeeds as a whole while each of its elements fails by itself; both are looked at.
pynvml raises FunctionNotFound when an old driver lacks a symbol, so a new pynvml with an old driver is safe here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

# nvml.h, nvmlReturn_t; the ones an operator should see by name
_WORDS = {
    2: "invalid_argument",
    3: "not_supported",
    4: "no_permission",
    9: "driver_not_loaded",
    10: "timeout",
    12: "library_not_found",
    13: "function_not_found",
    14: "corrupted_inforom",
    15: "gpu_is_lost",
    16: "reset_required",
    17: "operating_system",
    18: "driver_library_mismatch",
    25: "version_mismatch",
    27: "not_ready",
    28: "gpu_not_found",
    999: "unknown",
}
_FUNCTION_NOT_FOUND = 13
_INVALID_ARGUMENT = 2
_NOT_SUPPORTED = 3
GPU_IS_LOST = 15

# nvml.h, nvmlValueType_t -> member of the union
_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


@dataclass(frozen=True)
class Missing:
    """There is no value, and why: NVML's return code."""

    code: int

    @property
    def word(self) -> str:
        """The code's name, e.g. `not_supported`."""
        return _WORDS.get(self.code, f"error_{self.code}")

    @property
    def absent(self) -> bool:
        """The board or driver does not have this at all, as opposed to: it could not be read now."""
        return self.code in (_INVALID_ARGUMENT, _NOT_SUPPORTED, _FUNCTION_NOT_FOUND)


Reading = float | str | Missing
Field = int | tuple[int, int]  # field id, or (field id, scope id: the NVLink)


class NvmlUnavailableError(Exception):
    """NVML cannot be used at all; `word` says why in one word."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(f"{word}: {detail}")
        self.word = word


class Gpu:
    """One GPU's door. Handles that could not be had make every reading Missing with the handle's own error."""

    def __init__(self, pynvml: ModuleType, index: int) -> None:
        self.index = index
        self._pynvml = pynvml
        self._handle: Any = None
        self.lost: Missing | None = None
        try:
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError as error:
            self.lost = Missing(int(error.value))

    def call(self, function: str, *arguments: object) -> Any:
        """`nvmlDevice<function>(handle, *arguments)`: what pynvml returns, or Missing."""
        if self.lost is not None:
            return self.lost
        try:
            return getattr(self._pynvml, f"nvmlDevice{function}")(self._handle, *arguments)
        except AttributeError:  # a pynvml of another version
            return Missing(_FUNCTION_NOT_FOUND)
        except self._pynvml.NVMLError as error:
            return Missing(int(error.value))

    def fields(self, ids: Sequence[Field]) -> dict[Field, Reading]:
        """Values of several fields at once, each with its own fate."""
        values = self.call("GetFieldValues", list(ids))
        if isinstance(values, Missing):
            return dict.fromkeys(ids, values)
        return {key: _field(value) for key, value in zip(ids, values, strict=True)}


class Nvml:
    """The library, initialised; `close` it. Raises NvmlUnavailableError."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise NvmlUnavailableError("pynvml_not_found", str(error)) from error
        self._pynvml: Any = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NvmlUnavailableError(Missing(int(error.value)).word, str(error)) from error

    def system(self, function: str) -> Reading:
        """`nvmlSystem<function>()`, e.g. GetDriverVersion."""
        try:
            value = getattr(self._pynvml, f"nvmlSystem{function}")()
        except self._pynvml.NVMLError as error:
            return Missing(int(error.value))
        return text_of(value)

    def count(self) -> int | Missing:
        """How many GPUs the driver lists."""
        try:
            return int(self._pynvml.nvmlDeviceGetCount())
        except self._pynvml.NVMLError as error:
            return Missing(int(error.value))

    def gpu(self, index: int) -> Gpu:
        """The GPU at NVML's index."""
        return Gpu(self._pynvml, index)

    def constant(self, name: str) -> int:
        """A number of nvml.h by its name."""
        return int(getattr(self._pynvml, name))

    def struct(self, name: str) -> Any:
        """A fresh structure of pynvml, by its name."""
        return getattr(self._pynvml, name)()

    def close(self) -> None:
        """Let the library go."""
        self._pynvml.nvmlShutdown()


def text_of(value: Any) -> Reading:
    """Text of a pynvml answer; older pynvml gives bytes."""
    if isinstance(value, Missing):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _field(value: Any) -> Reading:
    if value.nvmlReturn != 0:
        return Missing(int(value.nvmlReturn))
    member = _MEMBERS.get(int(value.valueType))
    if member is None:
        return Missing(_NOT_SUPPORTED)
    number: float = getattr(value.value, member)
    return number
