"""How fast a collective goes, what it moves over which wires, and the lines NCCL writes about the path it takes.

Within a node one process holds all GPUs; between nodes there is a process (rank) a GPU, and rank 0 knows of all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .state import Gpu, State

_CHANNELS = 24  # of 8 H100 over NVSwitch, NCCL 2.28
_SOCKET_CHANNELS = 2
_SOCKET_GB_PER_S = 3.0
_NIC_EFFICIENCY = 0.95  # of the port's rate that RDMA carries at large sizes: 380 of 400 Gbit/s (Azure health checks)
CROWD = 2  # nodes: a fault of crowded switch buffers shows among more (FaultKind.CROWDED_RAIL)
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
    """The way NCCL goes between these GPUs: `nvls`, `ring`, `nic` or `socket`, and the busbw it reaches at large sizes.

    `nic` is between nodes: NVLink inside them, HCAs outside.
    """

    kind: str
    gb_per_s: float

    @property
    def crosses_nvlink(self) -> bool:
        """Whether the bytes show in the GPUs' NVLink counters."""
        return self.kind != "socket"

    def nvlink_bytes(self, collective: Collective, size: int, ranks: int) -> int:
        """Bytes a GPU sends over NVLink in one operation, and receives. A switch that reduces takes all data of every
        GPU (S) and its share of the result (S/n) back to spread it.
        """
        if not self.crosses_nvlink:
            return 0
        if self.kind == "nvls":
            return size + size // ranks
        return int(size * collective.bus_share(ranks))

    def nic_bytes(self, collective: Collective, size: int, nodes: int, ranks: int) -> int:
        """Bytes a node sends over all its HCAs in one operation: each ring leaves every node once."""
        if self.kind != "nic":
            return 0
        if collective.program == "alltoall_perf":  # each of its ranks to every rank of the other nodes
            return ranks // nodes * size * (nodes - 1) // nodes
        return int(size * collective.bus_share(ranks))


def choose_path(
    state: State, gpus: Sequence[Gpu], collective: Collective, environment: Mapping[str, str], *, alone: bool = False
) -> Path:
    """Sockets where the fault or the environment says so; else NVLink, with reduction in the switch if it may.

    The slowest GPU sets the pace: its clocks, and the share of its links that are up. A rank that is `alone` on its
    node has no peer to reach, whatever the environment forbids between peers.
    """
    values = state.values
    no_peer = not alone and environment.get("NCCL_P2P_DISABLE") == "1" and environment.get("NCCL_SHM_DISABLE") == "1"
    if values["nccl.transport"] == "socket" or no_peer:
        return Path("socket", float(values["nccl.socket_gb_per_s"]))
    pace = min(gpu.clock_fraction * _links_up(gpu) for gpu in gpus)
    if collective.by_switch and environment.get("NCCL_NVLS_ENABLE") != "0":
        return Path("nvls", float(values["nccl.nvls_gb_per_s"]) * pace)
    return Path("ring", float(values["nccl.ring_gb_per_s"]) * pace)


def between_nodes(inside: Iterable[Path], nics: Iterable[Sequence[float]], collective: Collective, ranks: int) -> Path:
    """The path of ranks on several nodes: `inside` of each of them, `nics` the GB/s of each node's HCAs.

    Data is cut evenly over the rails, so that the slowest one paces all: hierarchical, R x N/(N-1) x (n-1)/n.
    """
    paths, rails = list(inside), list(nics)
    sockets = [path.gb_per_s for path in paths if path.kind == "socket"]
    if sockets or not all(rails):
        return Path("socket", min(sockets, default=_SOCKET_GB_PER_S))
    nodes = len(rails)
    node_rate = min(len(rail) * min(rail) for rail in rails) * _NIC_EFFICIENCY
    spread = ranks // nodes if collective.program in ("alltoall_perf", "sendrecv_perf") else 1
    bound = node_rate / spread * nodes / (nodes - 1) * (ranks - 1) / ranks
    return Path("nic", min(bound, *(path.gb_per_s for path in paths)))


def seconds(path: Path, collective: Collective, size: int, ranks: int) -> float:
    """Time of one operation: a latency that grows to a plateau, and the bytes over the path.

    Fitted to 8 H100 with NVLS (NVIDIA dgxc-benchmarking, nccl/README.md): 13 us at 8 B, 67 GB/s at 1 MiB, 480 at 8 GiB.
    """
    growing = 14e-6 + 105e-6 * size / (size + (16 << 20))
    latency = 60e-6 if path.kind in ("socket", "nic") else growing
    return latency + size * collective.bus_share(ranks) / (path.gb_per_s * 1e9)


def start_lines(hosts: Sequence[str], mine: Sequence[int]) -> Iterator[str]:
    """What NCCL logs in the process of the ranks `mine` before it has met the others (2.20 and later)."""
    host, pid, count = hosts[mine[0]], os.getpid(), len(hosts)
    local = [rank for rank in range(count) if hosts[rank] == host]
    for rank in mine:
        device = local.index(rank)
        yield (
            f"{host}:{pid}:{pid + 1 + rank} [{device}] NCCL INFO ncclCommInitRank comm 0x{pid:08x}{rank:04x} "
            f"rank {rank} nranks {count} cudaDev {device} nvmlDev {device} - Init START"
        )


def channel_lines(
    rails: Sequence[str], hosts: Sequence[str], mine: Sequence[int], path: Path, environment: Mapping[str, str]
) -> Iterator[str]:
    """What NCCL_DEBUG=INFO logs in the process of the ranks `mine` while a communicator is made; `hosts` by rank,
    `rails` the names of the HCAs it may use.
    """
    host, pid, count = hosts[mine[0]], os.getpid(), len(hosts)
    hcas = " ".join(f"[{at}]{name}:1/IB" for at, name in enumerate(rails))
    local = [rank for rank in range(count) if hosts[rank] == hosts[mine[0]]]
    first = f"{host}:{pid}:{pid} [{local.index(mine[0])}] NCCL INFO "
    yield f"{first}NCCL version {NCCL_VERSION}"
    yield f"{first}NCCL_DEBUG set by environment to {environment.get('NCCL_DEBUG')}"
    if path.kind == "socket" or not hcas:
        yield f"{first}NET/IB : No device found."
        yield f"{first}NET/Socket : Using [0]host0:{host}<0>"
        yield f"{first}Using network Socket"
    else:
        yield f"{first}NET/IB : Using {hcas} [RO]; OOB host0:{host}<0>"
        yield f"{first}Using network IB"
    nodes = len(set(hosts))
    for rank in mine:
        device = local.index(rank)
        said = f"{host}:{pid}:{pid + 1 + rank} [{device}] NCCL INFO "
        if path.kind == "nvls":
            yield f"{said}NVLS multicast support is available on dev {device} (NVLS_NCHANNELS 16)"
        yield f"{said}comm 0x{pid:08x}{rank:04x} rank {rank} nRanks {count} nNodes {nodes} localRanks {len(local)} " + (
            f"localRank {device} MNNVL 0"
        )
        via = _Via("P2P/direct pointer/read" if len(mine) > 1 else "P2P/CUMEM/read", len(rails))
        yield from (f"{said}{line}" for line in _rank_lines(rank, hosts, path, via))


@dataclass(frozen=True)
class _Via:
    """How NCCL names the way to a GPU of this node (transport/p2p.cc), and over how many rails it leaves the node."""

    peer: str
    rails: int


def _rank_lines(rank: int, hosts: Sequence[str], path: Path, via: _Via) -> Iterator[str]:
    count = len(hosts)
    channels = _SOCKET_CHANNELS if path.kind == "socket" else _CHANNELS
    if rank == 0:
        order = " ".join(f"{r:3d}" for r in range(count))
        yield from (f"Channel {channel:02d}/{channels:02d} : {order}" for channel in range(channels))
    devices = [hosts[:r].count(hosts[r]) for r in range(count)]
    for channel in range(channels):
        for one, other in ((rank, (rank + 1) % count), ((rank - 1) % count, rank)):
            ends = f"Channel {channel:02d}/0 : {one}[{devices[one]}] -> {other}[{devices[other]}]"
            way = "send" if one == rank else "receive"
            if path.kind == "socket":
                yield f"{ends} [{way}] via NET/Socket/0"
            elif hosts[one] != hosts[other]:
                yield f"{ends} [{way}] via NET/IB/{channel % via.rails}/GDRDMA"
            elif one == rank:  # who sends says it
                yield f"{ends} via {via.peer}"
    yield "Connected all rings, use ring PXN 0 GDR 1"
    if path.kind == "nvls":
        yield "Connected NVLS tree"
    switched = 16 if path.kind == "nvls" else 0
    yield f"{channels} coll channels, {channels} collnet channels, {switched} nvls channels, {channels} p2p channels"


def _links_up(gpu: Gpu) -> float:
    links = gpu.nvlinks
    return sum(links.values()) / len(links) if links else 1.0
