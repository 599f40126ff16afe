"""The switch side of an NVL72 rack: one control tray, its applications, the partitions, firmware, health.

Sources: NVIDIA NVOS User Manual for NVLink Switches v25.02, cluster and SDN chapters; NVIDIA GB200 NVL Partition User
Guide DU-12143. NVLink recovery needs switch trays of one release.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from toolkit.judge.nvlink.finding import Blame, NvlinkFinding, Standing, shortened
from toolkit.judge.nvlink.gpu import planned_partitions
from toolkit.judge.nvlink.seen import CLUSTER_APPS, CONTROLLER, AppSeen, PartitionSeen, SwitchSeen
from toolkit.rack.model import Rack

CHASSIS_MISSING = "Chassis mapping is missing"


def judge_switches(rack: Rack, switches: Sequence[SwitchSeen]) -> Iterator[NvlinkFinding]:
    """Findings of all switch trays together."""
    for switch in switches:
        yield from _one(rack, switch)
    yield from _control(rack, switches)
    yield from _firmware(switches)


def _one(rack: Rack, switch: SwitchSeen) -> Iterator[NvlinkFinding]:
    if switch.problems:
        yield NvlinkFinding(
            "SWITCH_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE, f"{switch.unit}: {switch.problems[0]}",
            evidence=switch.problems[:8], settled_by=f"reach NVUE of {switch.unit}, then run this again",
        )  # fmt: skip
    if switch.healthy is False:
        unit = rack.unit(switch.unit)
        told = "; ".join(f"{what}: {wrong}" for what, wrong in switch.issues[:6]) or "no issue is named"
        yield NvlinkFinding(
            "SWITCH_UNHEALTHY", Standing.FAIL, Blame.SWITCH_TRAY, f"{switch.unit} reports itself not OK: {told}",
            part=f"switch tray {unit.name} (slot {unit.slot}, serial {unit.serial}): {told}",
            evidence=tuple(f"{what}: {wrong}" for what, wrong in switch.issues[:8]),
            settled_by=f"`nv show system health` on {switch.unit}",
        )  # fmt: skip


def _control(rack: Rack, switches: Sequence[SwitchSeen]) -> Iterator[NvlinkFinding]:
    """The cluster is enabled on exactly one tray."""
    enabled = [s for s in switches if s.controls]
    unknown = [s.unit for s in switches if s.cluster is None]
    if len(enabled) > 1:
        yield _config(
            "NMX_CLUSTER_TWICE", f"the cluster is enabled on {shortened([s.unit for s in enabled])}: two controllers",
            "`nv set cluster state disabled` on all but one: that stops its applications, so first see which one the "
            "GPUs are in (their cluster UUID), and that nothing runs",
        )  # fmt: skip
    elif not enabled and unknown:
        yield NvlinkFinding(
            "NMX_CLUSTER_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE,
            f"no switch tray that was read has the cluster enabled; not read: {shortened(unknown)}",
            settled_by="reach NVUE of these trays",
        )  # fmt: skip
    elif not enabled:
        yield _config(
            "NMX_CLUSTER_OFF", "the cluster is enabled on no switch tray: nobody manages the NVLink domain",
            "`nv set cluster state enabled` and `nv config apply` on one tray; rackproof bringup does it",
        )  # fmt: skip
    else:
        yield from _controller(enabled[0])
        yield from _partitions(rack, enabled[0])


def _controller(switch: SwitchSeen) -> Iterator[NvlinkFinding]:
    """The control tray's applications and its connection to them."""
    if switch.apps is None:
        return  # SWITCH_UNREAD says it
    connection = switch.cluster.connection if switch.cluster else None
    if connection != "up":
        yield _hold(
            "NMX_NOT_CONNECTED", f"{switch.unit}: its connection to NMX-C is {connection or 'not said'}",
            f"`nv show cluster` and `nv show cluster apps` on {switch.unit}",
        )  # fmt: skip
    apps = {app.name: app for app in switch.apps}
    for name in CLUSTER_APPS:
        app = apps.get(name)
        if app is None:
            yield _hold("NMX_APP_MISSING", f"{switch.unit}: {name} is not listed", "`nv show cluster apps installed`")
        else:
            yield from _app(switch, app)


def _app(switch: SwitchSeen, app: AppSeen) -> Iterator[NvlinkFinding]:
    if app.name == CONTROLLER and CHASSIS_MISSING in app.info:
        yield _config(
            "CHASSIS_MAPPING_MISSING", f"{switch.unit}: {app.name} says: {CHASSIS_MISSING}",
            f"`nv action update cluster chassis-id N` on {switch.unit}; rackproof bringup does it",
        )  # fmt: skip
    elif app.status != "ok":
        told = ", ".join(word for word in (app.reason, app.info) if word) or "no reason given"
        yield _hold(
            "NMX_APP_NOT_OK", f"{switch.unit}: {app.name} is {app.status}: {told}",
            f"`nv show cluster apps {app.name}`, and /var/log/nmx/nmx-c on {switch.unit}",
        )  # fmt: skip


def _partitions(rack: Rack, switch: SwitchSeen) -> Iterator[NvlinkFinding]:
    """As many GPUs in each partition as planned, all of them healthy."""
    if switch.partitions is None:
        return
    per_node = rack.profile.gpus_per_node
    planned = Counter(len(partition.nodes) * per_node for partition in planned_partitions(rack))
    seen = Counter(p.gpus for p in switch.partitions if p.gpus)
    if planned != seen:
        yield NvlinkFinding(
            "NMX_PARTITION_WRONG", Standing.HOLD, Blame.SOFTWARE,
            f"{switch.unit} has partitions of {_sizes(seen)} GPUs, planned: {_sizes(planned)}",
            evidence=tuple(_told(p) for p in switch.partitions[:8]),
            settled_by="`nv show sdn partition`: a GPU that is missing has no NVLink or is of another partition; or "
            "correct `partitions:` of the rack file",
        )  # fmt: skip
    for partition in switch.partitions:
        if partition.health != "healthy" or partition.resiliency == "user_action_required":
            yield NvlinkFinding(
                "NMX_PARTITION_DEGRADED" if partition.health == "degraded" else "NMX_PARTITION_UNHEALTHY",
                Standing.FAIL, Blame.SYMPTOM,
                f"{switch.unit}: partition {partition.name or partition.number} is {partition.health}"
                + (f" ({partition.resiliency})" if partition.resiliency else ""),
                evidence=(_told(partition),),
                settled_by="its GPUs without NVLink, or a switch that is lost: the link findings name the part",
            )  # fmt: skip


def _firmware(switches: Sequence[SwitchSeen]) -> Iterator[NvlinkFinding]:
    versions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for switch in switches:
        for component, version in switch.firmware or ():
            versions[component][version].append(switch.unit)
    for component, by_version in sorted(versions.items()):
        if len(by_version) > 1:
            ordered = sorted(by_version.items(), key=lambda item: (-len(item[1]), item[0]))
            odd = [unit for _, units in ordered[1:] for unit in units]
            yield _config(
                "SWITCH_FIRMWARE_SKEW", f"{component} of {shortened(odd)} is not of the other switch trays' version",
                "one release on all switch trays: "
                + "; ".join(f"{version} on {shortened(units)}" for version, units in ordered[:4]),
            )  # fmt: skip


def _told(partition: PartitionSeen) -> str:
    return (
        f"partition {partition.number} {partition.name!r}: {partition.gpus} GPUs, {partition.health}, "
        f"{partition.resiliency or 'no mode'}, {partition.kind or 'no type'}"
    )


def _sizes(counted: Counter[int]) -> str:
    words = [f"{count} x {gpus}" if count > 1 else str(gpus) for gpus, count in sorted(counted.items(), reverse=True)]
    return " + ".join(words) or "0"


def _config(code: str, text: str, fix: str) -> NvlinkFinding:
    return NvlinkFinding(code, Standing.FAIL, Blame.SOFTWARE, text, settled_by=fix)


def _hold(code: str, text: str, fix: str) -> NvlinkFinding:
    return NvlinkFinding(code, Standing.HOLD, Blame.SOFTWARE, text, settled_by=fix)
