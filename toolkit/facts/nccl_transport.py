"""How the ranks of a communicator were joined, by NCCL's own log (NCCL_DEBUG=INFO, subsystems INIT, GRAPH, NET).

    node1:4711:4720 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read            src/transport/p2p.cc
    node1:4711:4720 [0] NCCL INFO Channel 03/0 : 7[7] -> 8[0] [send] via NET/IB/3/GDRDMA    src/transport/net.cc
    node1:4711:4720 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct           src/transport/shm.cc
    node1:4711:4720 [0] NCCL INFO Connected NVLS tree                                       src/init.cc
    node1:4711:4711 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/RoCE [RO]; OOB eth0:10.0.0.1<0>

`P2P` says that one GPU reaches the other's memory, not over what: it is PCIe as well as NVLink. The byte counters tell
them apart. From NCCL 2.22 on only what is used is connected: where the switches reduce, there may be no channel at all.
The log is a node's: it is read to a bound, and what cannot be read is counted, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MAX_CHARACTERS = 16 * 1024 * 1024
MAX_PAIRS = 1 << 17
MAX_LINE = 4096

_CHANNEL = re.compile(
    r"NCCL INFO Channel \d{1,4}(?:/\d{1,4})? : (\d{1,6})\[[0-9a-f]{1,16}\] -> (\d{1,6})\[[0-9a-f]{1,16}\]"
    r"(?: \[(?:send|receive)\])? via (\S.{0,200})"
)
_COMM = re.compile(r"\brank (\d{1,6}) n[rR]anks (\d{1,6})\b(?:.{0,40}\bnNodes (\d{1,6}))?")
_NVLS = re.compile(r"NCCL INFO (?:Connected NVLS tree|NVLS comm )")
_COLLNET = re.compile(r"via COLLNET/|NCCL INFO Connected collnet", re.IGNORECASE)
_HCAS = re.compile(r"NCCL INFO NET/IB : Using (.{1,3000})")
_HCA = re.compile(r"\[(\d{1,3})\]([\w.\-]{1,64}):\d{1,3}/")
_NET = re.compile(r"NET/([^/]{1,64})/(\d{1,4})(?:\(\d{1,6}\))?(/GDRDMA)?")
_HOST = re.compile(r"([A-Za-z0-9][\w.\-]{0,252}):\d{1,10}:\d{1,10} \[")


class Kind(StrEnum):
    """What joins two ranks, as NCCL names it; from the worst to the best."""

    UNKNOWN = "unknown"
    SOCKET = "NET/Socket"
    OTHER_NET = "NET"  # a plugin of another name
    IB = "NET/IB"
    COLLNET = "COLLNET"
    SHM = "SHM"
    P2P_INDIRECT = "P2P/indirect"  # through a third GPU
    P2P_DIRECT = "P2P/direct"  # GPUs of one process
    P2P_IPC = "P2P/IPC"
    P2P_CUMEM = "P2P/CUMEM"
    MNNVL = "P2P/MNNVL"  # NVLink between nodes


DIRECT = frozenset({Kind.P2P_DIRECT, Kind.P2P_IPC, Kind.P2P_CUMEM, Kind.MNNVL})
_P2P = {"direct pointer": Kind.P2P_DIRECT, "IPC": Kind.P2P_IPC, "CUMEM": Kind.P2P_CUMEM, "MNNVL": Kind.MNNVL}
_SEVERITY = {kind: position for position, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True, order=True)
class Via:
    """One way between two ranks. `hca` and `gdr` (straight from the GPU's memory) are of NET alone."""

    kind: Kind
    hca: str = ""
    gdr: bool = False

    def __str__(self) -> str:
        return f"{self.kind}{f'/{self.hca}' if self.hca else ''}{'/GDRDMA' if self.gdr else ''}"


@dataclass(frozen=True, slots=True)
class Transport:
    """What one or many processes of a communicator logged.

    pairs     ways by (from, to) rank; several where channels differ
    nvls      the NVSwitches reduce; collnet: the InfiniBand switches do
    ranks     size of the communicator and its hosts by rank; None and empty where the log does not say
    cut       the log was longer than we read
    """

    pairs: Mapping[tuple[int, int], frozenset[Via]] = field(default_factory=dict)
    nvls: bool = False
    collnet: bool = False
    ranks: int | None = None
    nodes: int | None = None
    hosts: Mapping[int, str] = field(default_factory=dict)
    cut: bool = False

    @property
    def ways(self) -> frozenset[Via]:
        """All ways that any pair takes."""
        return frozenset(via for ways in self.pairs.values() for via in ways)

    @property
    def hcas(self) -> frozenset[str]:
        """HCAs that carry a channel."""
        return frozenset(via.hca for via in self.ways if via.kind in (Kind.IB, Kind.COLLNET) and via.hca)

    @property
    def word(self) -> str | None:
        """The worst way; NVLS where none is worse than a direct one and the switches reduce. None: the log has none."""
        if not self.pairs:
            return "NVLS" if self.nvls else None
        worst = min((via.kind for via in self.ways), key=_SEVERITY.__getitem__)
        if self.nvls and worst in DIRECT:
            return "NVLS"
        return "Socket" if worst is Kind.SOCKET else str(worst)

    def of(self, kinds: Iterable[Kind]) -> list[tuple[int, int]]:
        """Pairs of ranks with a way of one of these kinds, in order."""
        wanted = frozenset(kinds)
        return sorted(pair for pair, ways in self.pairs.items() if any(via.kind in wanted for via in ways))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting it."""
        found = [f"longer than {MAX_CHARACTERS >> 20} MiB, or more pairs than we keep: the rest was not read"]
        return (*(found if self.cut else ()), *(() if self.word else ("no line names a way between two ranks",)))

    def as_json(self) -> dict[str, Any]:
        """What was found, by way."""
        ways = sorted(self.ways)
        return {
            "transport": self.word,
            "ranks": self.ranks,
            "nodes": self.nodes,
            "nvls": self.nvls,
            "collnet": self.collnet,
            "ways": {str(via): sum(via in ways for ways in self.pairs.values()) for via in ways},
        }


def parse(logs: Iterable[str]) -> Transport:
    """What the logs of a run's processes (one of NCCL_DEBUG_FILE each) say together. Never raises."""
    reading = _Reading()
    for text in logs:
        left = MAX_CHARACTERS - reading.characters
        reading.cut = reading.cut or len(text) > left
        reading.characters += len(text)
        names: dict[str, str] = {}
        for line in text[: max(0, left)].splitlines():
            _read(line[:MAX_LINE], names, reading)
    pairs = {pair: frozenset(ways) for pair, ways in reading.pairs.items()}
    counts = {ranks for ranks, _ in reading.sizes}
    nodes = {nodes for _, nodes in reading.sizes if nodes}
    return Transport(
        pairs, reading.nvls, reading.collnet,
        counts.pop() if len(counts) == 1 else None, nodes.pop() if len(nodes) == 1 else None,
        reading.hosts, reading.cut,
    )  # fmt: skip


@dataclass(slots=True)
class _Reading:
    pairs: dict[tuple[int, int], set[Via]] = field(default_factory=dict)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    hosts: dict[int, str] = field(default_factory=dict)
    nvls: bool = False
    collnet: bool = False
    cut: bool = False
    characters: int = 0


def _read(line: str, names: dict[str, str], reading: _Reading) -> None:
    """One line; `names` are this process's HCAs by NCCL's number."""
    if " via " in line and (channel := _CHANNEL.search(line)):
        pair = (int(channel[1]), int(channel[2]))
        if pair in reading.pairs or len(reading.pairs) < MAX_PAIRS:
            reading.pairs.setdefault(pair, set()).add(_via(channel[3], names))
        else:
            reading.cut = True
    elif found := _HCAS.search(line):
        names.update({number: name for number, name in _HCA.findall(found[1])})
    elif (comm := _COMM.search(line)) and len(reading.sizes) < MAX_PAIRS:
        reading.sizes.add((int(comm[2]), int(comm[3] or 0)))
        if (host := _HOST.match(line)) and len(reading.hosts) < MAX_PAIRS:
            reading.hosts[int(comm[1])] = host[1]
    reading.nvls = reading.nvls or bool(_NVLS.search(line))
    reading.collnet = reading.collnet or bool(_COLLNET.search(line))


def _via(words: str, names: Mapping[str, str]) -> Via:
    if words.startswith("P2P/indirect"):
        return Via(Kind.P2P_INDIRECT)
    if words.startswith("P2P/"):
        way = words.removeprefix("P2P/").split("/")[0].strip()
        return Via(_P2P.get(way, Kind.UNKNOWN))
    if words.startswith("SHM"):
        return Via(Kind.SHM)
    if words.startswith("COLLNET"):
        return Via(Kind.COLLNET, gdr="/GDRDMA" in words)
    if net := _NET.match(words):
        name, device, gdr = net[1], net[2], net[3] is not None
        if name == "Socket":
            return Via(Kind.SOCKET)
        kind = Kind.IB if name == "IB" or name.startswith("IBext") else Kind.OTHER_NET
        return Via(kind, names.get(device, device) if kind is Kind.IB else f"{name}/{device}", gdr)
    return Via(Kind.UNKNOWN)
