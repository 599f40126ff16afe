"""What was sampled under load: extremes and means over all samples, and a trace of them that does not grow for ever.

A GPU is under load in a sample when NVML says that it was busy; clocks and power of an idle GPU say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from burnin.snapshot import Snapshot

_MOST_KEPT = 3600  # samples of all GPUs: an hour's worth a second, a day's worth thinned
_BUSY_PERCENT = 50

# nvml.h, nvmlClocksEventReason...; several hold at once
_REASONS = (
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x20, "sw_thermal"),
    (0x40, "hw_thermal"),
    (0x80, "power_brake"),
    (0x200, "board_limit"),
    (0x400, "reliability"),
)
_COLUMNS = (
    "power_mw", "gpu_celsius", "hbm_celsius", "margin_celsius", "gpu_percent", "sm_mhz", "hbm_mhz",
    "throttle_reasons", "pcie_generation", "pcie_width", "ecc_dram_corrected", "ecc_dram_uncorrected",
    "nvlink_errors",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A number or word of a GPU, or (gpu None) of the node."""

    name: str
    unit: str
    value: float | str
    gpu: int | None = None


@dataclass
class _Range:
    """Of one reading of one GPU, over all samples that have it."""

    least: float
    most: float
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.least, self.most = min(self.least, value), max(self.most, value)
        self.total += value
        self.count += 1


# metric, unit, reading, divisor, which of its range; the second table counts samples under load alone
_ALWAYS = (
    ("gpu_celsius_max", "celsius", "gpu_celsius", 1, "most"),
    ("hbm_celsius_max", "celsius", "hbm_celsius", 1, "most"),
    ("margin_celsius_min", "celsius", "margin_celsius", 1, "least"),
    ("gpu_watts_max", "watt", "power_mw", 1000, "most"),
)
_LOADED = (
    ("gpu_watts_mean_loaded", "watt", "power_mw", 1000, "mean"),
    ("sm_mhz_min_loaded", "MHz", "sm_mhz", 1, "least"),
    ("sm_mhz_mean_loaded", "MHz", "sm_mhz", 1, "mean"),
    ("hbm_mhz_min_loaded", "MHz", "hbm_mhz", 1, "least"),
)


@dataclass
class Samples:
    """Takes samples as they come, each of every GPU; `metrics` and `csv` at the end."""

    most_kept: int = _MOST_KEPT
    _kept: list[tuple[str, dict[int, Snapshot]]] = field(default_factory=list)
    _seen: int = 0
    _every: int = 1
    _ranges: dict[tuple[int, str, bool], _Range] = field(default_factory=dict)  # gpu, reading, under load
    _reasons: dict[int, int] = field(default_factory=dict)  # gpu: all reasons of its samples

    def add(self, at: str, sample: dict[int, Snapshot]) -> None:
        """Take a sample: readings by GPU, at a time as records carry it."""
        if self._seen % self._every == 0:
            self._kept.append((at, {gpu: {k: s[k] for k in _COLUMNS if k in s} for gpu, s in sample.items()}))
        self._seen += 1
        if len(self._kept) > self.most_kept:  # thin evenly: the ends of the run stay as dense as its middle
            self._kept, self._every = self._kept[::2], 2 * self._every
        for gpu, readings in sample.items():
            self._measure(gpu, readings)

    def metrics(self) -> Iterator[Metric]:
        """Extremes and means by GPU; nothing for a reading that was never had."""
        for loaded, table in ((False, _ALWAYS), (True, _LOADED)):
            for name, unit, key, divisor, which in table:
                for gpu in sorted({g for g, k, under_load in self._ranges if k == key and under_load is loaded}):
                    value = _pick(self._ranges[gpu, key, loaded], which)
                    yield Metric(name, unit, value / divisor if divisor > 1 else value, gpu)
        for gpu, bits in self._reasons.items():
            words = [word for bit, word in _REASONS if bits & bit]
            yield Metric("throttle_reasons", "word", " ".join(words) or "none", gpu)

    def state(self) -> dict[str, Any]:
        """What `metrics` is made of, as JSON: an attempt that goes on from this one takes it in."""
        ranges = [[*key, r.least, r.most, r.total, r.count] for key, r in self._ranges.items()]
        return {"ranges": ranges, "reasons": list(self._reasons.items())}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Take in what an earlier attempt saw. Raises ValueError, TypeError or KeyError for what is no state."""
        for gpu, key, loaded, least, most, total, count in state["ranges"]:
            self._ranges[int(gpu), str(key), bool(loaded)] = _Range(
                float(least), float(most), float(total), int(count)
            )  # fmt: skip
        for gpu, bits in state["reasons"]:
            self._reasons[int(gpu)] = self._reasons.get(int(gpu), 0) | int(bits)

    def csv(self) -> str:
        """The trace: one line a sample and GPU, an empty field where there was no value."""
        lines = [",".join(("at", "gpu", *_COLUMNS))]
        for at, sample in self._kept:
            for gpu, readings in sample.items():
                lines.append(",".join((at, str(gpu), *(_cell(readings, key) for key in _COLUMNS))))
        return "\n".join(lines) + "\n"

    def _measure(self, gpu: int, readings: Snapshot) -> None:
        busy = readings.get("gpu_percent")
        loaded = isinstance(busy, int | float) and busy >= _BUSY_PERCENT
        for key in {key for _, _, key, _, _ in (*_ALWAYS, *_LOADED)}:
            value = readings.get(key)
            if isinstance(value, int | float):
                for under_load in (False, True) if loaded else (False,):
                    self._ranges.setdefault((gpu, key, under_load), _Range(value, value)).add(value)
        reasons = readings.get("throttle_reasons")
        if isinstance(reasons, int | float):
            self._reasons[gpu] = self._reasons.get(gpu, 0) | int(reasons)


def _pick(found: _Range, which: str) -> float:
    if which == "mean":
        return found.total / found.count
    return found.most if which == "most" else found.least


def _cell(readings: Snapshot, key: str) -> str:
    value = readings.get(key)
    return str(value) if isinstance(value, int | float) else ""
