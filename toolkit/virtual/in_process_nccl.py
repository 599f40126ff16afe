"""What the collectives of a node of files leave behind: nccl-tests' tables, NCCL's log, the byte counters around them.

Written by the closed forms of the stand-in's model, so that the controller proves from them what it would of a node.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from toolkit.rack.metric import COLLECTIVES, collective_metric
from toolkit.virtual.devices.nccl_model import COLLECTIVES as MODELS
from toolkit.virtual.devices.nccl_model import Path

GIB = 1 << 30
_SIZES = (GIB, 2 * GIB, 4 * GIB, 8 * GIB)
_ITERATIONS = 20
_NVLS_GB_PER_S, _RING_GB_PER_S, _SOCKET_GB_PER_S, _SLOW_GB_PER_S = 478.0, 369.0, 3.1, 250.0
_LEAD_IN = 1 << 40  # what the links have carried before


@dataclass(frozen=True, slots=True)
class Collectives:
    """The five collectives over a node's GPUs.

    sockets   NCCL took TCP where NVLink was meant
    slow      one GPU sets the pace of all
    paces     of each collective, its share of what healthy GPUs reach; 1 where it is not named
    hung      none of them returned
    """

    gpus: int
    sockets: bool = False
    slow: bool = False
    hung: bool = False
    paces: Mapping[str, float] = field(default_factory=dict)

    def measured(self) -> Iterator[tuple[str, float | int | str]]:
        """(metric, value) as the node itself reads them; nothing of a table that was cut."""
        for name in COLLECTIVES:
            if self.hung:
                continue
            path = self._path(name)
            for what, value in (
                ("busbw_gb_per_s", path.gb_per_s),
                ("busbw_p50_gb_per_s", path.gb_per_s),
                ("largest_bytes", max(_SIZES)),
                ("wrong_values", 0),
                ("ranks", self.gpus),
                ("transport", {"socket": "Socket", "nvls": "NVLS"}.get(path.kind, "P2P/direct")),
            ):
                yield collective_metric(name, what), value

    def files(self) -> Iterator[tuple[str, str, bytes]]:
        """(workload, name, content) of what the node keeps of each."""
        for name in COLLECTIVES:
            command = {"argv": [f"{name}_perf", "-n", str(_ITERATIONS), "-c", "1"], "gpus": self.gpus}
            for suffix, text in (
                ("txt", "".join(f"{line}\n" for line in self._table(name))),
                ("command.json", json.dumps(command)),
                ("nccl.txt", "".join(f"{line}\n" for line in self._log(name))),
                ("counters.json", json.dumps(self._counters(name))),
            ):
                yield f"nccl_{name}", f"{name}_perf.{suffix}", text.encode()

    def _path(self, name: str) -> Path:
        if self.sockets:
            return Path("socket", _SOCKET_GB_PER_S)
        kind, rate = ("nvls", _NVLS_GB_PER_S) if MODELS[f"{name}_perf"].by_switch else ("ring", _RING_GB_PER_S)
        rate = round(rate * self.paces.get(name, 1.0), 2)  # to what a table prints
        return Path(kind, min(rate, _SLOW_GB_PER_S) if self.slow else rate)

    def _table(self, name: str) -> Iterator[str]:
        yield "# nThread 1 nGpus 8 minBytes 1073741824 maxBytes 8589934592 step: 2(factor) iters: 20 validation: 1"
        yield "# Using devices"
        yield from (
            f"#  Rank {r:2d} Group  0 Pid 4711 on node device {r:2d} [0000:{r:02x}:00] H100" for r in self._ranks
        )
        yield "#  size count type redop root time algbw busbw #wrong time algbw busbw #wrong"
        if self.hung:
            return
        model, path = MODELS[f"{name}_perf"], self._path(name)
        for size in _SIZES:
            algbw = path.gb_per_s / (model.bus_share(self.gpus) or 1)
            half = f"{size / algbw / 1e3:.2f} {algbw:.2f} {path.gb_per_s:.2f}"
            yield f"  {size} {size // 4} float {model.redop} -1 {half} 0 {half} {'0' if model.by_switch else 'N/A'}"
        yield "# Out of bounds values : 0 OK"
        yield f"# Avg bus bandwidth    : {path.gb_per_s:g}"

    def _log(self, name: str) -> Iterator[str]:
        kind = self._path(name).kind
        for rank in self._ranks:
            said = f"node:4711:{4712 + rank} [{rank}] NCCL INFO "
            yield f"{said}comm 0x4711 rank {rank} nRanks {self.gpus} nNodes 1 localRanks {self.gpus}"
            after = (rank + 1) % self.gpus
            via = "[send] via NET/Socket/0" if kind == "socket" else "via P2P/direct pointer"
            yield f"{said}Channel 00/0 : {rank}[{rank}] -> {after}[{after}] {via}"
            if kind == "nvls":
                yield f"{said}Connected NVLS tree"

    def _counters(self, name: str) -> dict[str, object]:
        """The readings of before and after; a program that was stopped has no second one."""
        model, path = MODELS[f"{name}_perf"], self._path(name)
        moved = sum(path.nvlink_bytes(model, size, self.gpus) for size in _SIZES) * 2 * (_ITERATIONS + 1)
        first = self._reading(_LEAD_IN)
        return {"before": first} if self.hung else {"before": first, "after": self._reading(_LEAD_IN + moved)}

    def _reading(self, carried: int) -> dict[str, object]:
        link = {"link": 0, "sent": carried, "received": carried}
        return {"gpus": [{"gpu": gpu, "links": [link]} for gpu in self._ranks], "hcas": []}

    @property
    def _ranks(self) -> range:
        return range(self.gpus)
