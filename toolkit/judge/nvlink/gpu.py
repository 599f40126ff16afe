"""Fabric state of every GPU, judged by platform mode; and the NVLink domain, judged against the planned partitions.

A zero cluster UUID is healthy where the NVSwitches are inside the node and fatal on an NVL72 rack. States, statuses and
health masks: nvml.h, `nvmlGpuFabricInfoV_t`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolkit.judge.nvlink.finding import Blame, NvlinkFinding, Standing, shortened
from toolkit.judge.nvlink.seen import ZERO_UUID, FabricBlock, TraySeen
from toolkit.rack.model import MNNVL, Mode, Partition, Rack

_ESCALATE = (
    "look at the switch side: cluster state, applications and `sdn partition`; a GPU reset does not help, and NCCL or "
    "DCGM would only end with CUDA error 802"
)
_LOCAL = "look at /var/log/fabricmanager.log; CUDA answers error 802 until the fabric manager has programmed the switch"
_HEALTH = (
    "health masks need driver 550 or newer (nvmlDeviceGetGpuFabricInfoV, nvml.h) and nvidia-smi of the same release"
)
_ALL_WELL = ("None", "Not Supported")  # words of health/incorrect_configuration
_FALSE, _TRUE = "False", "True"
_RIGHT_MODE = "correct `mode` of the profile, or the machine in this slot: the two contradict each other"


@dataclass(frozen=True, slots=True)
class _Sign:
    """What the block of one GPU says; equal signs of many GPUs are one finding."""

    code: str
    standing: Standing
    blame: Blame
    words: str
    settled_by: str


def judge_gpus(rack: Rack, trays: Sequence[TraySeen]) -> Iterator[NvlinkFinding]:
    """GPUs that are missing, cannot be read, or whose fabric block is not as the mode demands."""
    blocks: dict[_Sign, list[tuple[str, int]]] = defaultdict(list)
    for tray in trays:
        yield from _missing(rack, tray)
        for gpu in tray.gpus or ():
            for sign in signs_of(gpu.fabric, rack.profile.mode):
                blocks[sign].append((tray.node, gpu.index))
    for sign, places in blocks.items():
        nodes = tuple(dict.fromkeys(node for node, _ in places))
        counted = f"{len(places)} GPU{'s' if len(places) > 1 else ''} of {shortened(nodes)}"
        yield NvlinkFinding(
            sign.code, sign.standing, sign.blame, f"{counted}: {sign.words}", nodes,
            evidence=tuple(f"{node} gpu{gpu}" for node, gpu in places[:16]), settled_by=sign.settled_by,
        )  # fmt: skip


def _missing(rack: Rack, tray: TraySeen) -> Iterator[NvlinkFinding]:
    planned = rack.profile.gpus_per_node
    if not tray.gpus:
        why = "; ".join(tray.problems) or ("not read" if tray.gpus is None else "no GPU was described")
        yield NvlinkFinding(
            "FABRIC_UNREADABLE", Standing.UNKNOWN, Blame.EVIDENCE,
            f"{tray.node}: no fabric block of any GPU: {why}", (tray.node,),
            settled_by="nvidia-smi -q -x on the node; no output is no verdict and never a pass",
        )  # fmt: skip
        return
    absent = sorted(set(range(planned)) - {gpu.index for gpu in tray.gpus})
    # The driver numbers what it enumerates: with one missing, the last index is free, whichever GPU it is.
    if absent or len(tray.gpus) != planned:
        yield NvlinkFinding(
            "GPU_MISSING", Standing.FAIL, Blame.GPU,
            f"{tray.node}: {len(tray.gpus)} of {planned} GPUs answer", (tray.node,),
            part=f"a GPU of {tray.node}", evidence=(f"{len(tray.gpus)} blocks read, {planned} planned",),
            settled_by="nvidia-smi -q -x: the PCI address that is not listed names the GPU",
        )  # fmt: skip


def signs_of(block: FabricBlock, mode: Mode) -> Iterator[_Sign]:
    """What is wrong with one block under a mode; nothing for a healthy one."""
    if mode is Mode.PCIE:
        if block.state not in (None, "Not Supported"):
            yield _software("MODE_CONTRADICTED", f"fabric state {block.state} without an NVSwitch", _RIGHT_MODE)
        return
    state = tuple(_state(block, mode))
    yield from state
    if state or block.state != "Completed":
        return
    yield from _membership(block) if mode in MNNVL else _local(block)
    yield from _health(block, required=mode in MNNVL)


def _state(block: FabricBlock, mode: Mode) -> Iterator[_Sign]:
    """State and status: Completed and Success, or why not."""
    hint = _ESCALATE if mode in MNNVL else _LOCAL
    match block.state:
        case None:
            yield _unknown("FABRIC_UNREADABLE", "the fabric block names no state", "nvidia-smi -q -x on the node")
        case "In Progress":
            yield _hold("FABRIC_IN_PROGRESS", "the fabric is In Progress", hint)
        case "Not Started" if mode in MNNVL:
            yield _hold("FABRIC_NOT_STARTED", "the fabric is Not Started", hint)
        case "Not Supported":
            yield _software("MODE_CONTRADICTED", f"the GPU knows no NVLink fabric, and the mode is {mode}", _RIGHT_MODE)
        case "Completed":
            yield from _status(block.status, hint)
        case other:
            yield _symptom("FABRIC_NOT_COMPLETED", f"fabric state {other}", hint)


def _status(status: str | None, hint: str) -> Iterator[_Sign]:
    if status is None:
        yield _unknown("FABRIC_UNREADABLE", "the fabric block names no status", "nvidia-smi -q -x on the node")
    elif status == "Insufficient Resources":
        # Completed with this status was passed as healthy once, and the node went back to work (azhpc-images#506).
        yield _software(
            "FABRIC_INSUFFICIENT_RESOURCES",
            "Completed, and Insufficient Resources: the partition or its multicast teams do not suffice",
            "`nv show sdn partition` on the control tray: num-gpus, mcast-limit, and whether NMX-C has all its files",
        )
    elif status != "Success":
        yield _symptom("FABRIC_REFUSED", f"Completed, and {status}", hint)


def _membership(block: FabricBlock) -> Iterator[_Sign]:
    """On an NVL72 rack: in a domain and in a partition of it."""
    if not block.cluster or block.cluster == ZERO_UUID:
        yield _software("FABRIC_UUID_ZERO", "in no NVLink domain: the cluster UUID is zero", _ESCALATE)
    elif not block.clique or block.clique == "0":
        yield _software("FABRIC_CLIQUE_ZERO", "in no partition of the domain: the clique is 0 or empty", _ESCALATE)


def _local(block: FabricBlock) -> Iterator[_Sign]:
    """With the NVSwitches inside the node there is no cluster: a UUID is another machine's."""
    if block.cluster not in (None, ZERO_UUID):
        yield _software(
            "MODE_CONTRADICTED", f"the GPU is in the NVLink domain {block.cluster}, which only NVL72 racks have",
            _RIGHT_MODE,
        )  # fmt: skip


def _health(block: FabricBlock, *, required: bool) -> Iterator[_Sign]:
    """The health masks. Where the mode requires them, one that is not said is no verdict."""
    links = "the links that are down or slow name the part; where all are up: nvidia-smi nvlink -e, and the switch side"
    for name, value, good in (
        ("bandwidth", block.bandwidth, "Full"), ("route unhealthy", block.route_unhealthy, _FALSE)
    ):  # fmt: skip
        if value is None and required:
            yield _unknown("FABRIC_HEALTH_UNREAD", f"the health block does not say {name}", _HEALTH)
        elif value not in (None, good):
            code = "FABRIC_BANDWIDTH_DEGRADED" if name == "bandwidth" else "FABRIC_ROUTE_UNHEALTHY"
            yield _symptom(code, f"{name}: {value}", links)
    if block.route_recovery == _TRUE:
        yield _hold("FABRIC_ROUTE_RECOVERY", "a route recovery is in progress", _ESCALATE)
    if block.access_timeout == _TRUE:
        yield _hold("FABRIC_ACCESS_TIMEOUT", "an access-timeout recovery is in progress", _ESCALATE)
    if block.configuration is not None and block.configuration not in _ALL_WELL:
        yield _software("FABRIC_MISCONFIGURED", f"incorrect configuration: {block.configuration}", _ESCALATE)
    if block.summary in ("Unhealthy", "Limited Capacity"):
        yield _symptom("FABRIC_UNHEALTHY", f"health: {block.summary}", links)


def judge_domain(rack: Rack, trays: Sequence[TraySeen]) -> Iterator[NvlinkFinding]:
    """One `UUID.clique` across each planned partition, one UUID across the rack. Of GPUs that are in a domain."""
    seen = {
        (tray.node, gpu.index): (gpu.fabric.cluster, gpu.fabric.clique or "")
        for tray in trays
        for gpu in tray.gpus or ()
        if gpu.fabric.cluster not in (None, "", ZERO_UUID) and gpu.fabric.clique not in (None, "", "0")
    }
    clusters = Counter(cluster for cluster, _ in seen.values())
    if len(clusters) > 1:
        yield _differ(
            "FABRIC_TWO_DOMAINS", "NVLink domains in one rack",
            {place: str(cluster) for place, (cluster, _) in seen.items()}, (),
            "is the cluster enabled on two switch trays, or a tray cabled to another rack? `nv show cluster` on all",
        )  # fmt: skip
        return
    homes: dict[str, list[str]] = defaultdict(list)
    for partition in planned_partitions(rack):
        inside = {place: clique for place, (_, clique) in seen.items() if place[0] in partition.nodes}
        cliques = sorted(set(inside.values()))
        for clique in cliques:
            homes[clique].append(partition.name)
        if len(cliques) > 1:
            yield _differ(
                "FABRIC_CLIQUES_DIFFER", f"partitions where the plan has one ({partition.name})", inside,
                partition.nodes, "`nv show sdn partition` on the control tray, or `partitions:` of the rack file",
            )  # fmt: skip
    for clique, names in homes.items():
        if len(names) > 1:
            yield NvlinkFinding(
                "FABRIC_PARTITIONS_MERGED", Standing.FAIL, Blame.SOFTWARE,
                f"the planned partitions {', '.join(names)} are one: clique {clique}", (),
                settled_by="`nv show sdn partition` on the control tray, or `partitions:` of the rack file",
            )  # fmt: skip


def planned_partitions(rack: Rack) -> tuple[Partition, ...]:
    """The rack file's, or one of all its nodes."""
    return rack.partitions or (Partition("default", tuple(node.name for node in rack.nodes)),)


def _differ(
    code: str, what: str, values: Mapping[tuple[str, int], str], nodes: Iterable[str], settled_by: str
) -> NvlinkFinding:
    """Values that should be one: the most common first, everybody else named. `values` are by node and GPU."""
    groups: dict[str, set[str]] = defaultdict(set)
    for (node, gpu), value in values.items():
        whole = all(v == value for (n, _), v in values.items() if n == node)
        groups[value].add(node if whole else f"{node} gpu{gpu}")
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    odd = sorted(place for _, members in ordered[1:] for place in members)
    return NvlinkFinding(
        code, Standing.FAIL, Blame.SOFTWARE,
        f"{len(ordered)} {what}: {shortened(odd)} apart from the others", tuple(nodes),
        evidence=tuple(f"{value}: {shortened(sorted(members))}" for value, members in ordered[:8]),
        settled_by=settled_by,
    )  # fmt: skip


def _software(code: str, words: str, settled_by: str) -> _Sign:
    return _Sign(code, Standing.FAIL, Blame.SOFTWARE, words, settled_by)


def _symptom(code: str, words: str, settled_by: str) -> _Sign:
    return _Sign(code, Standing.FAIL, Blame.SYMPTOM, words, settled_by)


def _hold(code: str, words: str, settled_by: str) -> _Sign:
    return _Sign(code, Standing.HOLD, Blame.SYMPTOM, words, settled_by)


def _unknown(code: str, words: str, settled_by: str) -> _Sign:
    return _Sign(code, Standing.UNKNOWN, Blame.EVIDENCE, words, settled_by)
