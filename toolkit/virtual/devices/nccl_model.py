"""How fast a collective goes on this node, and the lines NCCL writes about the path it takes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .state import Gpu, State

_CHANNELS = 24  # of 8 H100 over NVSwitch, NCCL 2.28
_SOCKET_CHANNELS = 2
NCCL_VERSION = "2.28.9+cuda13.0"


@dataclass(frozen=True)
class Collective:
    """One of the nccl-tests programs.

    bus_share(n)   busbw / algbw over n ranks (nccl-tests doc/PERFORMANCE.md)
    by_switch      whether NVSwitch reduces in the fabric for it (NVLS)
    """

    program: str
    redop: str
    scale: float
    share: bool  # (n-1)/n of the bytes cross the bus
    by_switch: bool = False

    def bus_share(self, ranks: int) -> float:
        """busbw divided by algbw."""
        return self.scale * ((ranks - 1) / ranks if self.share else 1.0)


COLLECTIVES = {
    c.program: c
    for c in (
        Collective("all_reduce_perf", "sum", 2.0, share=True, by_switch=True),
        Collective("all_gather_perf", "none", 1.0, share=True),
        Collective("reduce_scatter_perf", "sum", 1.0, share=True),
        Collective("alltoall_perf", "none", 1.0, share=True),
        Collective("sendrecv_perf", "sum", 1.0, share=False),
        Collective("broadcast_perf", "none", 1.0, share=False),
    )
}


@dataclass(frozen=True)
class Path:
    """The way NCCL goes between these GPUs: `nvls`, `ring` or `socket`, and the busbw it reaches at large sizes."""

    kind: str
    gb_per_s: float

    @property
    def crosses_nvlink(self) -> bool:
        """Whether the bytes show in the GPUs' NVLink counters."""
        return self.kind != "socket"


def choose_path(state: State, gpus: Sequence[Gpu], collective: Collective, environment: Mapping[str, str]) -> Path:
    """Sockets where the fault or the environment says so; else NVLink, with reduction in the switch if it may.

    The slowest GPU sets the pace: its clocks, and the share of its links that are up.
    """
    values = state.values
    no_peer = environment.get("NCCL_P2P_DISABLE") == "1" and environment.get("NCCL_SHM_DISABLE") == "1"
    if values["nccl.transport"] == "socket" or no_peer:
        return Path("socket", float(values["nccl.socket_gb_per_s"]))
    pace = min(gpu.clock_fraction * _links_up(gpu) for gpu in gpus)
    if collective.by_switch and environment.get("NCCL_NVLS_ENABLE") != "0":
        return Path("nvls", float(values["nccl.nvls_gb_per_s"]) * pace)
    return Path("ring", float(values["nccl.ring_gb_per_s"]) * pace)


def seconds(path: Path, collective: Collective, size: int, ranks: int) -> float:
    """Time of one operation: a latency that grows to a plateau, and the bytes over the path.

    Fitted to 8 H100 with NVLS (NVIDIA dgxc-benchmarking, nccl/README.md): 13 us at 8 B, 67 GB/s at 1 MiB, 480 at 8 GiB.
    """
    growing = 14e-6 + 105e-6 * size / (size + (16 << 20))
    latency = 60e-6 if path.kind == "socket" else growing
    return latency + size * collective.bus_share(ranks) / (path.gb_per_s * 1e9)


def channel_lines(state: State, gpus: Sequence[Gpu], path: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """What NCCL_DEBUG=INFO logs while a communicator of these GPUs is made."""
    host, pid, count = socket.gethostname().split(".")[0], os.getpid(), len(gpus)
    hcas = " ".join(f"[{at}]{name}:1/IB" for at, name in enumerate(state.hcas))
    first = f"{host}:{pid}:{pid} [0] NCCL INFO "
    yield f"{first}NCCL version {NCCL_VERSION}"
    yield f"{first}NCCL_DEBUG set by environment to {environment.get('NCCL_DEBUG')}"
    if path.kind == "socket" or not hcas:
        yield f"{first}NET/IB : No device found."
        yield f"{first}NET/Socket : Using [0]host0:{host}<0>"
        yield f"{first}Using network Socket"
    else:
        yield f"{first}NET/IB : Using {hcas} [RO]; OOB host0:{host}<0>"
        yield f"{first}Using network IB"
    channels = _SOCKET_CHANNELS if path.kind == "socket" else _CHANNELS
    for rank in range(count):
        mine = f"{host}:{pid}:{pid + 1 + rank} [{rank}] NCCL INFO "
        if path.kind == "nvls":
            yield f"{mine}NVLS multicast support is available on dev {rank} (NVLS_NCHANNELS 16)"
        place = f"rank {rank} nRanks {count} nNodes 1 localRanks {count} localRank {rank} MNNVL 0"
        yield f"{mine}comm 0x{pid:08x}{rank:04x} {place}"
        yield from (f"{mine}{line}" for line in _rank_lines(rank, count, channels, path))


def _rank_lines(rank: int, count: int, channels: int, path: Path) -> Iterator[str]:
    after = (rank + 1) % count
    if rank == 0:
        order = " ".join(f"{r:3d}" for r in range(count))
        yield from (f"Channel {channel:02d}/{channels:02d} : {order}" for channel in range(channels))
    for channel in range(channels):
        if path.kind == "socket":
            yield f"Channel {channel:02d}/0 : {rank}[{rank}] -> {after}[{after}] [send] via NET/Socket/0"
        else:
            yield f"Channel {channel:02d}/0 : {rank}[{rank}] -> {after}[{after}] via P2P/CUMEM/read"
    yield "Connected all rings, use ring PXN 0 GDR 1"
    if path.kind == "nvls":
        yield "Connected NVLS tree"
    switched = 16 if path.kind == "nvls" else 0
    yield f"{channels} coll channels, {channels} collnet channels, {switched} nvls channels, {channels} p2p channels"


def _links_up(gpu: Gpu) -> float:
    links = gpu.nvlinks
    return sum(links.values()) / len(links) if links else 1.0
