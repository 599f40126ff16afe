"""Rules between the fields of a rack or a profile. Each notes what is wrong where; none stops at the first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from toolkit.rack.again import AGAIN
from toolkit.rack.document import Problems, shown
from toolkit.rack.gate import Limit, Operator, WithoutPeers
from toolkit.rack.lifecycle import Stage
from toolkit.rack.metric import METRICS
from toolkit.rack.metric import Unit as MetricUnit
from toolkit.rack.model import Mode, Profile, Suite, UnitKind, WideLevel
from toolkit.rack.skew import driver_packages, skews, upstream

if TYPE_CHECKING:
    from toolkit.rack.schema import DiskFile, GateFile, HostFile, ProfileFile, RackFile, UnitFile

_MNNVL = (Mode.MNNVL_HOST_IMEX, Mode.MNNVL_DRA)
Loc = tuple[str | int, ...]


def check_counts(rack: RackFile, profile: Profile, problems: Problems) -> None:
    """As many of each kind as the profile's whole rack; fewer only where the file says `partial: true`."""
    planned = dict(profile.units)
    for kind, count in sorted(Counter(unit.kind for unit in rack.units).items()):
        most = planned.get(kind, 0)
        if count > most:
            first = [i for i, u in enumerate(rack.units) if u.kind is kind][most]
            wrong = f"{count:,} units of kind {kind}, and a rack of {profile.name} has {most}"
            problems.add(("units", first), wrong, "split them into racks, or choose another profile")
    if rack.partial:
        return
    for kind, most in profile.units:
        count = sum(unit.kind is kind for unit in rack.units)
        if count < most:
            wrong = f"{count} of {most} units of kind {kind}"
            problems.add(
                ("units",), wrong, f"a rack of {profile.name} has {most}; say `partial: true` if fewer are meant", True
            )


def check_units(rack: RackFile, profile: Profile, problems: Problems) -> None:
    """Everything about units but their cables."""
    if rack.mode is not None and rack.mode is not profile.mode:
        problems.add(("mode",), f"{rack.mode}, and {profile.name} is {profile.mode}", "one of the two is wrong")
    check_duplicates(enumerate(rack.units), problems)
    for number, unit in enumerate(rack.units):
        loc: Loc = ("units", number)
        if unit.guid and unit.kind not in (UnitKind.LEAF, UnitKind.SPINE):
            problems.add((*loc, "guid"), f"a {unit.kind} has no GUID of its own", "that of an HCA goes to hcas", True)
        if unit.nvos and unit.kind is not UnitKind.NVLINK_SWITCH:
            problems.add((*loc, "nvos"), f"a {unit.kind} runs no NVOS", "NVLink switch trays do", True)
        if unit.kind is UnitKind.NODE:
            _check_node(unit, loc, profile, problems)
            continue
        for name in ("host", "gpus", "hcas"):
            if getattr(unit, name):
                problems.add((*loc, name), f"a {unit.kind} has no {name}", "remove it; only a node runs an OS", True)


def _check_node(unit: UnitFile, loc: Loc, profile: Profile, problems: Problems) -> None:
    if unit.host is None:
        problems.add(loc, f"{unit.name} has no host", "a node needs host: {address, mac, disk: {device, serial}}")
    elif unit.bmc and not (unit.host.mac and unit.host.disk):
        wrong = f"{unit.name} has a BMC and will be imaged, and its host has no mac or no disk"
        problems.add((*loc, "host"), wrong, "host: {address, mac, disk: {device, serial}}; a rented node has no bmc")
    _check_disks(unit, loc, profile, problems)
    if unit.gpus is not None:
        indices = sorted(gpu.index for gpu in unit.gpus)
        if len(set(indices)) != len(indices) or any(i >= profile.gpus_per_node for i in indices):
            wrong = f"GPU indices {', '.join(map(str, indices))}"
            problems.add((*loc, "gpus"), wrong, f"each of 0 to {profile.gpus_per_node - 1} at most once", True)
    if len(unit.hcas) != profile.hcas_per_node:
        wrong = f"{unit.name} has {len(unit.hcas)} HCAs, {profile.name} has {profile.hcas_per_node}"
        problems.add((*loc, "hcas"), wrong, "name every HCA of the compute fabric", True)
        return
    rails = [hca.rail for hca in unit.hcas]
    if sorted(rails) != list(range(profile.hcas_per_node)):
        wrong = f"rails {', '.join(map(str, rails))}"
        problems.add((*loc, "hcas"), wrong, f"each of 0 to {profile.hcas_per_node - 1} once", True)


def written_disks(host: HostFile, loc: Loc) -> Iterator[tuple[DiskFile, Loc]]:
    """All disks that the file plans for a host, each with its place; `loc` is the host's."""
    if host.disk:
        yield host.disk, (*loc, "disk")
    if host.mirror_disk:
        yield host.mirror_disk, (*loc, "mirror_disk")
    for number, disk in enumerate(host.data_disks):
        yield disk, (*loc, "data_disks", number)


def _check_disks(unit: UnitFile, loc: Loc, profile: Profile, problems: Problems) -> None:
    """Each can be told apart from all others, and those that the profile's layout needs are there."""
    if unit.host is None:
        return
    for disk, place in written_disks(unit.host, (*loc, "host")):
        if not (disk.serial or disk.wwn):
            wrong = "a disk by its device name alone: the kernel gives that to another one tomorrow"
            problems.add(place, wrong, "serial: or wwn:, as `lsblk -o NAME,SERIAL,WWN` prints them", True)
    if profile.imaging.storage.mirrored and unit.host.disk and not unit.host.mirror_disk:
        wrong = f"{profile.name} mirrors the system disk, and {unit.name} has one disk for it"
        problems.add((*loc, "host"), wrong, "mirror_disk: {serial}")
    if unit.host.mirror_disk and not unit.host.disk:
        problems.add((*loc, "host", "mirror_disk"), "a mirror of no disk", "disk: {serial}", True)


def check_duplicates(units: Iterable[tuple[int, UnitFile]], problems: Problems) -> None:
    """No two parts share what tells them apart. `units` come with their place in the file's list."""
    seen: dict[tuple[str, object], Loc] = {}
    for what, value, loc in _identities(units):
        first = seen.setdefault((what, value), loc)
        if first != loc:
            line, _ = problems.document.place(first)
            problems.add(loc, f"the {what} {value} is used twice", f"line {line} has it too")


def _identities(units: Iterable[tuple[int, UnitFile]]) -> Iterator[tuple[str, object, Loc]]:
    """What must be unique: its kind, its value, where it is written."""
    for number, unit in units:
        loc: Loc = ("units", number)
        yield "name", unit.name, (*loc, "name")
        yield "slot", unit.slot, (*loc, "slot")
        yield "serial", unit.serial, (*loc, "serial")
        if unit.bmc:
            yield (
                "address",
                (unit.bmc.address if unit.bmc.port == 443 else f"{unit.bmc.address}:{unit.bmc.port}"),
                (*loc, "bmc", "address"),
            )
        if unit.nvos:
            yield "address", unit.nvos.address, (*loc, "nvos", "address")
        if unit.host:
            yield "address", unit.host.address, (*loc, "host", "address")
            if unit.host.mac:
                yield "MAC", unit.host.mac, (*loc, "host", "mac")
            yield from _disk_identities(unit.host, (*loc, "host"))
        if unit.guid:
            yield "GUID", unit.guid, (*loc, "guid")
        for index, gpu in enumerate(unit.gpus or ()):
            yield "GPU serial", gpu.serial, (*loc, "gpus", index, "serial")
        for index, hca in enumerate(unit.hcas):
            yield "GUID", hca.guid, (*loc, "hcas", index, "guid")
            yield f"HCA name on {unit.name}", hca.name, (*loc, "hcas", index, "name")


def _disk_identities(host: HostFile, loc: Loc) -> Iterator[tuple[str, object, Loc]]:
    for disk, place in written_disks(host, loc):
        if disk.serial:
            yield "disk serial", disk.serial, (*place, "serial")
        if disk.wwn:
            yield "WWN", disk.wwn.lower(), (*place, "wwn")


def check_profile(profile: ProfileFile, problems: Problems) -> None:
    """Mode against units, links against mode, gates against metrics and expected facts."""
    switches = UnitKind.NVLINK_SWITCH in profile.units
    if (profile.mode in _MNNVL) is not switches:
        right = "mnnvl_* modes have NVLink switch trays in the rack, the others have none"
        problems.add(
            ("mode",), f"{profile.mode} {'with' if switches else 'without'} units of kind nvlink_switch", right
        )
    _check_manager(profile, problems)
    if (profile.mode is Mode.PCIE) is not (profile.nvlinks_per_gpu == 0):
        problems.add(
            ("nvlinks_per_gpu",), f"{profile.nvlinks_per_gpu} in mode {profile.mode}", "0 in mode pcie, and only there"
        )
    if WideLevel.DOMAIN in profile.levels and profile.mode not in _MNNVL:
        right = "leaf and unit; a domain of several nodes is there in mnnvl_* modes only"
        problems.add(("levels",), f"domain in mode {profile.mode}: NVLink ends at the node", right)
    if profile.suite is Suite.REHEARSAL and not profile.virtual:
        right = "quick, standard or long; a rehearsal runs every workload once and proves no hardware"
        problems.add(("suite",), "a rehearsal is for virtual racks", right)
    if profile.power_ramp_kw_per_s and "gpu_power_watts" not in profile.expected:
        right = "expected: {gpu_power_watts: ...}, which the ramp is reckoned from"
        problems.add(("power_ramp_kw_per_s",), "how much a GPU takes is not said", right)
    _check_lock(profile, problems)
    seen: dict[tuple[str, str], int] = {}
    for number, gate in enumerate(profile.gates):
        first = seen.setdefault((gate.code, gate.metric), number)
        if first != number:
            line, _ = problems.document.place(("gates", first))
            problems.add(
                ("gates", number, "code"), f"{gate.code} on {gate.metric} is written twice", f"line {line} has it too"
            )
        _check_gate(gate, ("gates", number), problems)


def _check_lock(profile: ProfileFile, problems: Problems) -> None:
    """The one version lock of the rack: nothing in it that does not go together, and the facts that repeat it do."""
    for skew in skews(profile.versions, profile.mode, profile.firmware):
        place = ("firmware" if skew.pin in profile.firmware else "versions", skew.pin)
        problems.add(place, skew.wrong, "; ".join(filter(None, (skew.right, f"source: {skew.source}"))))
    pins = {name: profile.versions[name] for name in driver_packages(profile.versions)}
    manager = {name: v for name, v in profile.versions.items() if name == "nvidia-fabricmanager"}
    for fact, locked in (("driver_version", pins), ("fabric_manager_version", manager)):
        expected = profile.expected.get(fact)
        for name, version in locked.items():
            if expected is not None and expected != upstream(version):
                problems.add(("expected", fact), f"{shown(expected)}, and the lock has {name} {version}", "the lock's")


def _check_manager(profile: ProfileFile, problems: Problems) -> None:
    """The version lock has what manages NVLink in the mode, and not what must not run in it (mode table)."""
    if profile.mode in _MNNVL and "nvidia-fabricmanager" in profile.versions:
        wrong = f"nvidia-fabricmanager in mode {profile.mode}: the fabric is managed on a switch tray"
        problems.add(("versions", "nvidia-fabricmanager"), wrong, "remove it, or correct the mode", True)
    if profile.mode is Mode.NVLINK5_SINGLE and profile.versions and "nvlsm" not in profile.versions:
        wrong = f"no nvlsm in mode {profile.mode}: its fabric manager needs it"
        problems.add(("versions",), wrong, "pin nvlsm beside nvidia-fabricmanager, or correct the mode", True)


def _check_gate(gate: GateFile, loc: Loc, problems: Problems) -> None:
    metric = METRICS[gate.metric]
    if gate.unit is not metric.unit:
        problems.add(
            (*loc, "unit"),
            f"{gate.metric} is in {metric.unit}, not {gate.unit}",
            f"unit: {metric.unit}, and the limit in it",
        )
    if gate.scope is not metric.scope:
        problems.add(
            (*loc, "scope"),
            f"{gate.metric} is measured of each {metric.scope}, not {gate.scope}",
            f"scope: {metric.scope}",
        )
    if gate.operator in (Operator.AT_LEAST, Operator.AT_MOST) and metric.unit.is_text:
        problems.add(
            (*loc, "operator"), f"{gate.operator} does not order a {metric.unit}", "equals, one_of or same_across"
        )
    _check_relative(gate, loc, problems)
    typed = typed_limit(gate, metric.unit)
    if isinstance(typed, UnfitLimit):
        problems.add((*loc, "limit"), typed.wrong, typed.right)


def _check_relative(gate: GateFile, loc: Loc, problems: Problems) -> None:
    """A gate relative to peers is of a rate that a suspect can be measured for again, after a burn-in."""
    if gate.operator is not Operator.PEERS:
        if gate.without_peers is not WithoutPeers.INCONCLUSIVE:
            wrong = f"{gate.operator} compares with no peers"
            problems.add((*loc, "without_peers"), wrong, "remove it; it goes with `operator: peers`", True)
        return
    if gate.metric not in AGAIN:
        right = "one of: " + ", ".join(sorted(AGAIN))
        problems.add((*loc, "metric"), f"no workload measures {gate.metric} of a suspect again by itself", right)
    if gate.stage is not Stage.BURNIN:
        problems.add((*loc, "stage"), f"peers are compared after a burn-in, not after {gate.stage}", "stage: burnin")


class UnfitLimit:
    """Why a limit does not fit its operator and unit."""

    def __init__(self, wrong: str, right: str) -> None:
        self.wrong = wrong
        self.right = right


class Limited(Protocol):
    """What states a limit: a gate of a profile, a criterion of a contract."""

    @property
    def operator(self) -> Operator | None:
        """How values compare with it."""
        ...

    @property
    def limit(self) -> Any:
        """As it is written."""
        ...


def typed_limit(gate: Limited, unit: MetricUnit) -> Limit | UnfitLimit:
    """The limit in the type its unit asks for: 580.95.05 and 1.10 stay text where the unit is a version."""
    raw = gate.limit
    if gate.operator is Operator.SAME_ACROSS:
        return None if raw is None else UnfitLimit("same_across takes no limit", "limit: null")
    if raw is None:
        return None
    if gate.operator is Operator.PEERS:
        return _share(raw)
    if gate.operator is Operator.ONE_OF:
        return raw if isinstance(raw, tuple) else UnfitLimit("one_of takes a list", "[a, b]")
    if not isinstance(raw, str):
        return UnfitLimit(f"{gate.operator} takes one value", "a list goes with one_of")
    if unit.is_text:
        return raw
    if unit is MetricUnit.FLAG:
        return (
            {"true": 1, "false": 0}.get(raw)
            if raw in ("true", "false")
            else UnfitLimit(f"{shown(raw)} is not a flag", "true or false")
        )
    return _number(raw, unit)


def _share(raw: object) -> Limit | UnfitLimit:
    """Of `peers`: how far below its siblings, in whatever unit they are measured."""
    right = "a share of the siblings' rate, above 0 and under 1: 0.03 is 3 %"
    if not isinstance(raw, str) or not re.fullmatch(r"\d{1,3}(\.\d{1,6})?", raw, re.ASCII):
        return UnfitLimit(f"{shown(raw)} is not a share", right)
    share = float(raw)
    return share if 0 < share < 1 else UnfitLimit(f"{raw} is not a share", right)


def _number(raw: str, unit: MetricUnit) -> Limit | UnfitLimit:
    digits = raw.removeprefix("-").replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 15) or raw.endswith("."):
        return UnfitLimit(f"{shown(raw)} is not a number", f"a number of {unit}")
    if not unit.is_whole:
        return float(raw)
    return UnfitLimit(f"{raw} is not whole", f"a whole number of {unit}") if "." in raw else int(raw)
