"""What of a node's collectives may be judged: a bandwidth speaks of NVLink only where its way is proven. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from toolkit.judge.evidence import Measurement, Value
from toolkit.rack.metric import COLLECTIVES, METRICS, collective_metric

WHATS = tuple(name.removeprefix("nccl_all_gather_") for name in METRICS if name.startswith("nccl_all_gather_"))
PATHS = tuple(collective_metric(collective, "path") for collective in COLLECTIVES)
_OF_THE_WAY = ("path", "path_bytes_fraction", "transport")
_BANDWIDTHS = ("busbw_gb_per_s", "busbw_p50_gb_per_s")


def believed(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Without bandwidths whose way is not proven, and without anything else of a collective that took a wrong one."""
    told = list(measurements)
    away = doubted({m.metric: m.value for m in told if m.metric.endswith("_path")})
    return [m for m in told if m.metric not in away]


def doubted(paths: Mapping[str, Value]) -> frozenset[str]:
    """Metrics of a node's collectives that prove nothing. `paths`: `proven`, `wrong` or `unproven`, by metric."""
    found: set[str] = set()
    for collective in COLLECTIVES:
        path = paths.get(collective_metric(collective, "path"))
        if path != "proven":
            found |= {collective_metric(collective, what) for what in _BANDWIDTHS}
        if path == "wrong":
            found |= {collective_metric(collective, what) for what in WHATS if what not in _OF_THE_WAY}
    return frozenset(found)
