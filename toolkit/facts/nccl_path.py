"""Was the right fabric measured? NCCL's channels and the byte counters, against what the collective must move.

A bandwidth is of a fabric only if its bytes crossed it. Two witnesses must agree: the log, which names the way between
each pair of ranks but calls PCIe and NVLink alike `P2P`, and the counters of NVLinks and HCAs before and after. What
must cross is known in closed form (S: the size nccl-tests prints; n ranks, N nodes, g ranks a node), per operation:

    NVLink, one GPU, sent + received          ring                the switches reduce (NVLS)
      all_reduce                              4 (n-1)/n S         2 (n+1)/n S
      all_gather, reduce_scatter              2 (n-1)/n S           (n+1)/n S
      alltoall                                2 (n-1)/n S
      sendrecv                                2 S
    HCAs, all nodes together, sent            at most: rings      at least: trees, hierarchical
      all_reduce                              2 (n-1)/n S N       2 (N-1) S        (SHARP: N S)
      all_gather, reduce_scatter                (n-1)/n S N         (N-1) S
      alltoall                                g (N-1) S
      sendrecv                                N S

A tuner may take another algorithm at every size, so what is known is a range. NVLS: a GPU's whole buffer goes to the
switch (S), and its share of the result back out to be spread (S/n); all_gather and reduce_scatter are a half of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from toolkit.facts.nccl_counters import Carried
from toolkit.facts.nccl_transport import DIRECT, Kind, Transport

# Of the least that must cross, what must have been counted. The counters leave out nothing (payload, in KiB), and what
# is not in the sum makes the count larger: the checked operation, warm-ups, LL128's 8 bytes in 120. One channel of 24
# on another way makes it 4 % smaller, but the log names it: a tenth is left for counters that are written late.
LEAST_FRACTION = 0.9
# Of the most: LL128 sends 128 bytes for 120 (1.07), LL 8 for 4, at sizes that do not count in the sum.
MOST_FRACTION = 1.2
# An HCA that carried less than this of its fair share was not measured. Rails carry equal shares, but for rings that
# are not a multiple of them.
LEAST_RAIL_SHARE = 0.5


class Answer(StrEnum):
    """What the two witnesses come to."""

    PROVEN = "proven"
    WRONG = "wrong fabric"
    UNPROVEN = "unproven"  # a witness is silent: no number may be believed


class Fabric(StrEnum):
    """What was meant to be measured."""

    NVLINK = "nvlink"  # one NVLink domain, of one node or many
    NIC = "nic"  # between nodes over HCAs; NVLink inside


@dataclass(frozen=True, slots=True)
class Volume:
    """Bytes that an operation, or a run, moves: the least and the most of NCCL's algorithms."""

    least: float
    most: float

    def times(self, least: float, most: float) -> Volume:
        """The volume of so many operations."""
        return Volume(self.least * least, self.most * most)


@dataclass(frozen=True, slots=True)
class Shape:
    """A collective over n ranks on N nodes."""

    collective: str
    ranks: int
    nodes: int = 1

    def over_nvlink(self, size: float, nvls: bool) -> Volume:
        """Sent and received by one GPU of an NVLink domain that holds all ranks."""
        n = self.ranks
        ring = {"all_reduce": 4 * (n - 1) / n, "sendrecv": 2.0}.get(self.collective, 2 * (n - 1) / n)
        switch = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}.get(self.collective)
        least = min(ring, switch * (n + 1) / n) if nvls and switch else ring
        return Volume(least * size, max(ring, least) * size)

    def over_nics(self, size: float, in_network: bool) -> Volume:
        """Sent by all nodes together over their HCAs."""
        n, nodes = self.ranks, self.nodes
        if self.collective == "alltoall":
            return Volume(*[n // nodes * (nodes - 1) * size] * 2)
        if self.collective == "sendrecv":
            return Volume(nodes * size, nodes * size)
        twice = 2 if self.collective == "all_reduce" else 1
        least = min(twice * (nodes - 1), nodes if in_network else twice * (nodes - 1))
        return Volume(least * size, twice * (n - 1) / n * nodes * size)


@dataclass(frozen=True, slots=True)
class Proof:
    """What carried a run's bytes.

    fractions   by GPU (`node1/gpu3`) or `HCAs`: counted bytes / the least that had to cross; None: not counted
    text        why it is not proven, with what was measured instead; or what proves it
    """

    answer: Answer
    text: str
    fractions: Mapping[str, float | None]

    @property
    def fraction(self) -> float | None:
        """The smallest fraction: a fabric is measured where all of it is. None where one is not known."""
        known = [f for f in self.fractions.values() if f is not None]
        return min(known) if known and len(known) == len(self.fractions) else None


@dataclass(frozen=True, slots=True)
class Run:
    """What was run: sizes as nccl-tests printed them, each timed `iterations` times out of place and in place."""

    shape: Shape
    sizes: Sequence[int]
    iterations: int
    warmups: int = 1

    @property
    def timed(self) -> float:
        """Bytes of data of the timed operations: the least that was run."""
        return 2.0 * self.iterations * sum(self.sizes)

    @property
    def all(self) -> float:
        """The same with the checked operations and the warm-ups at the largest and the smallest size (common.cu)."""
        ends = max(self.sizes, default=0) + min(self.sizes, default=0)
        return 2.0 * (self.iterations + 1) * sum(self.sizes) + self.warmups * ends


def prove(run: Run, fabric: Fabric, transport: Transport, carried: Sequence[Carried], *, gdr: bool = True) -> Proof:
    """Whether `fabric` carried the run. `carried`: each node's counters over it; `gdr`: HCAs must reach GPU memory.

    A log that is silent or cut does not say whether switches reduced: then the least is that of switches that did, so
    that counts alone call no fabric wrong.
    """
    unsaid = transport.cut or transport.word is None
    if fabric is Fabric.NVLINK:
        volume = run.shape.over_nvlink(1, transport.nvls or unsaid)
        fractions = _per_gpu(carried, volume.least * run.timed, run.shape)
    else:
        volume = run.shape.over_nics(1, transport.collnet or unsaid)
        fractions = {"HCAs": _over(_sent(carried), volume.least * run.timed)}
    most = volume.most * run.all / (volume.least * run.timed) if volume.least and run.timed else None
    wrong = [*_wrong_ways(fabric, transport, gdr), *_wrong_counts(fractions, most), *_idle_rails(fabric, carried)]
    if wrong:
        return Proof(Answer.WRONG, f"measured the wrong fabric: {'; '.join(wrong)}", fractions)
    silent = _silent(fabric, transport, fractions, run)
    if silent:
        return Proof(Answer.UNPROVEN, f"nothing proves what carried it: {'; '.join(silent)}", fractions)
    least = min(f for f in fractions.values() if f is not None)
    return Proof(
        Answer.PROVEN, f"{transport.word}, {fabric} counted {least:.2f} of the bytes it had to carry", fractions
    )


def _wrong_ways(fabric: Fabric, transport: Transport, gdr: bool) -> list[str]:
    """What the log names and was not meant."""
    meant = DIRECT if fabric is Fabric.NVLINK else DIRECT | {Kind.IB, Kind.COLLNET}
    found = [_named(transport, kind) for kind in Kind if kind not in meant and transport.of((kind,))]
    if fabric is Fabric.NIC:
        staged = [via for via in transport.ways if via.kind is Kind.IB and not via.gdr]
        if gdr and staged:
            found.append(f"{len(staged)} ways over HCAs without GPUDirect RDMA, through host memory")
        if transport.pairs and not transport.of((Kind.IB, Kind.COLLNET)):
            found.append("no channel between nodes takes an HCA")
    return found


def _named(transport: Transport, kind: Kind) -> str:
    pairs = transport.of((kind,))
    more = f" and {len(pairs) - 1} other pairs" if len(pairs) > 1 else ""
    return f"{kind} between ranks {pairs[0][0]} and {pairs[0][1]}{more}"


def _wrong_counts(fractions: Mapping[str, float | None], most: float | None) -> list[str]:
    low = {name: f for name, f in fractions.items() if f is not None and f < LEAST_FRACTION}
    high = {name: f for name, f in fractions.items() if f is not None and most and f > most * MOST_FRACTION}
    found = []
    if low:
        name = min(low, key=low.__getitem__)
        found.append(f"{name} counted {low[name]:.2f} of the bytes it had to carry{_others(len(low))}")
    if high:
        name = max(high, key=high.__getitem__)
        found.append(f"{name} counted {high[name]:.2f} times them: something else used it{_others(len(high))}")
    return found


def _others(count: int) -> str:
    return f", and so {count - 1} others" if count > 1 else ""


def _idle_rails(fabric: Fabric, carried: Sequence[Carried]) -> list[str]:
    """HCAs that carried much less than their node's others: a rail that was not measured."""
    if fabric is Fabric.NVLINK:
        return []
    found = []
    for node in carried:
        sent = {hca: bytes_ for hca, bytes_ in node.hcas.items() if bytes_ is not None}
        fair = sum(sent.values()) / len(sent) if sent else 0
        found += [
            f"{node.node}/{hca} carried {b / fair:.2f} of its share"
            for hca, b in sent.items()
            if b < LEAST_RAIL_SHARE * fair
        ]
    return found


def _silent(fabric: Fabric, transport: Transport, fractions: Mapping[str, float | None], run: Run) -> list[str]:
    found = []
    if transport.word is None:
        found.append("NCCL's log names no way")
    if transport.cut:
        found.append("NCCL's log is longer than we read")
    if transport.ranks is not None and transport.ranks != run.shape.ranks:
        found.append(f"NCCL's log is of {transport.ranks} ranks, not {run.shape.ranks}")
    if not run.sizes:
        found.append("no size was measured")
    unknown = [name for name, f in fractions.items() if f is None]
    if unknown or not fractions:
        what = ", ".join(unknown[:4]) or "any GPU"
        found.append(f"no byte counter of {what}" if fabric is Fabric.NVLINK else "no byte counter of the HCAs")
    return found


def _per_gpu(carried: Iterable[Carried], least: float, shape: Shape) -> dict[str, float | None]:
    """By GPU; the GPUs that the counters lack are there, without a value."""
    found = {f"{node.node}/gpu{gpu}": _over(b, least) for node in carried for gpu, b in sorted(node.gpus.items())}
    missing = shape.ranks - len(found)
    return found | {f"{missing} of {shape.ranks} GPUs": None} if missing > 0 else found


def _sent(carried: Sequence[Carried]) -> float | None:
    """Bytes that all nodes sent over all their HCAs; None where one of them is not known."""
    values = [b for node in carried for b in node.hcas.values()]
    whole = carried and all(node.hcas for node in carried) and all(b is not None for b in values)
    return float(sum(b for b in values if b is not None)) if whole else None


def _over(bytes_: float | None, least: float) -> float | None:
    return None if bytes_ is None or least <= 0 else bytes_ / least
