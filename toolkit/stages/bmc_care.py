"""What an operator asks of one unit's BMC: BIOS against the profile, its log as evidence, factory logins, a CD."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from toolkit.errors import UndecidedError, UsageError
from toolkit.judge.verdict import Answer
from toolkit.ledger import Ledger
from toolkit.rack.model import Rack, Unit, UnitKind
from toolkit.redfish import BootOverride, BootTarget, Credentials, Reset, Wire
from toolkit.redfish.bios import BiosAttribute, BiosState, compare, read_bios, stage, system_path
from toolkit.redfish.event_log import Harvest, harvest
from toolkit.redfish.media import eject, insert
from toolkit.redfish.quirks import factory_logins, look
from toolkit.redfish.rotation import opens
from toolkit.redfish.sensors import SensorReading, SensorState, read_sensors
from toolkit.redfish.sushy_bmc import SushyBmc
from toolkit.stages.bmc_reach import Reach
from toolkit.stages.leak_check import LeakReport, check_leaks

BIOS, LOG, MEDIA = "bios", "bmc-log", "bmc-media"  # the ledger's keys
# Ten wrong passwords lock an account of a BlueField BMC for ten minutes (docs.nvidia.com/networking, "Connecting to
# BMC Interfaces"); other makers lock after three.
MOST_TRIES = 2


@dataclass(frozen=True, slots=True)
class BiosReport:
    """A node's BIOS against its profile. INCONCLUSIVE where an attribute is pending or this BIOS has it not."""

    unit: str
    answer: Answer
    attributes: tuple[BiosAttribute, ...]
    sources: Mapping[str, str]


def check_bios(rack: Rack, unit: Unit, wire: Wire) -> BiosReport:
    """Reads and compares. UsageError where the profile says nothing of its BIOS."""
    wanted = rack.profile.bmc.bios
    if not wanted or unit.kind is not UnitKind.NODE:
        raise UsageError(f"profile {rack.profile.name} says nothing of the BIOS of {unit.name}", "bmc: {bios: [...]}")
    found = compare(read_bios(wire, system_path(wire)), ((s.attribute, s.value) for s in wanted))
    states = {attribute.state for attribute in found}
    if BiosState.DIFFERS in states:
        answer = Answer.FAIL
    elif states <= {BiosState.AS_WANTED}:
        answer = Answer.PASS
    else:
        answer = Answer.INCONCLUSIVE
    return BiosReport(unit.name, answer, found, {s.attribute: s.source for s in wanted})


def stage_bios(rack: Rack, unit: Unit, wire: Wire, ledger: Ledger) -> BiosReport:
    """Asks for what differs, from the next start on; intent before, what the BMC then shows after."""
    report = check_bios(rack, unit, wire)
    changes = {
        a.name: a.wanted for a in report.attributes if a.state is not BiosState.AS_WANTED and a.staged != a.wanted
    }
    if changes:
        before = {a.name: a.found for a in report.attributes if a.name in changes}
        ledger.intent(rack.name, unit.name, BIOS, {"changes": changes, "before": before})
        stage(wire, read_bios(wire, system_path(wire)), changes)
        report = check_bios(rack, unit, wire)
        ledger.observed(rack.name, unit.name, BIOS, {a.name: a.state for a in report.attributes})
        dropped = [a.name for a in report.attributes if a.state is BiosState.DIFFERS]
        if dropped:
            raise UndecidedError(
                f"{unit.name}: its BMC accepted {', '.join(dropped)} and shows them neither in force nor pending",
                "look at Bios/Settings of its system; a BMC reset often helps",
            )
    return report


@dataclass(frozen=True, slots=True)
class SensorReport:
    """A unit's sensors by their own thresholds, and its leak detectors. INCONCLUSIVE where one says nothing."""

    unit: str
    answer: Answer
    sensors: tuple[SensorReading, ...]
    leaks: LeakReport


def check_sensors(rack: Rack, unit: Unit, reach: Reach) -> SensorReport:
    """FAIL for a critical sensor or a wet detector; a warning fails nobody; no sensor at all proves nothing."""
    sensors = read_sensors(reach.wire(unit))
    leaks = check_leaks(rack, reach, [unit.name])
    states = {sensor.state for sensor in sensors}
    cooled = rack.profile.bmc.detectors_of(unit.kind) > 0
    if SensorState.CRITICAL in states or leaks.answer is Answer.FAIL:
        answer = Answer.FAIL
    elif not sensors or SensorState.UNKNOWN in states or (cooled and leaks.answer is not Answer.PASS):
        answer = Answer.INCONCLUSIVE
    else:
        answer = Answer.PASS
    return SensorReport(unit.name, answer, sensors, leaks)


@dataclass(frozen=True, slots=True)
class LogKept:
    """A harvest that was kept. `artifact`: its sha256 in the ledger's artifacts."""

    unit: str
    artifact: str
    harvest: Harvest


def keep_log(rack: Rack, unit: Unit, wire: Wire, ledger: Ledger) -> LogKept:
    """Reads the BMC's logs and keeps them as an artifact: the BMC's word, and nothing is judged by it alone."""
    found = harvest(wire)
    lines = [json.dumps(asdict(entry), sort_keys=True) for entry in found.entries]
    digest = ledger.store_artifact(rack.name, unit.name, LOG, "\n".join([*lines, ""]).encode())
    told = {"artifact": digest, "entries": len(found.entries), "severities": dict(found.severities), "cut": found.cut}
    ledger.observed(rack.name, unit.name, LOG, told)
    return LogKept(unit.name, digest, found)


@dataclass(frozen=True, slots=True)
class FactoryLoginFound:
    """A login that a maker ships, and that opens this BMC. No password in it."""

    unit: str
    username: str
    source: str


def check_factory_logins(unit: Unit, wire_as: Callable[[Credentials], Wire]) -> tuple[FactoryLoginFound, ...]:
    """Tries what this maker ships, each once. Raises what a BMC that does not answer raises: silence is no refusal."""
    root = wire_as(Credentials("", "")).public_root()
    found = []
    for login in factory_logins(str(root.get("Vendor") or ""), str(root.get("Product") or ""))[:MOST_TRIES]:
        if opens(wire_as(Credentials(login.username, login.password))):
            found.append(FactoryLoginFound(unit.name, login.username, login.source))
    return tuple(found)


def boot_from_image(rack: Rack, unit: Unit, reach: Reach, ledger: Ledger, uri: str) -> BootOverride:
    """Puts an image in the node's virtual drive and starts it from there once; answers the override as it stands.

    The image is ejected by `eject_image` when the machine has come that far. Raises UndecidedError, and nothing was
    restarted, where the BMC does not show image or override.
    """
    wire = reach.wire(unit)
    ledger.intent(rack.name, unit.name, MEDIA, {"image": uri, "action": "insert and boot"})
    insert(wire, uri)
    bmc = reach.bmc(unit)
    if not isinstance(bmc, SushyBmc):
        raise UsageError(f"{unit.name}: its BMC cannot boot from an image", "boot it from the network")
    shown = bmc.boot_from(BootTarget.CD)
    if shown.target is not BootTarget.CD or not shown.active:
        eject(wire)
        raise UndecidedError(f"{unit.name}: its BMC accepted to boot from the image and shows {shown}", "look at Boot")
    bmc.reset(Reset.ON if bmc.power().value == "Off" else Reset.FORCE_RESTART)
    ledger.observed(rack.name, unit.name, MEDIA, {"image": uri, "override": str(shown)})
    return shown


def eject_image(rack: Rack, unit: Unit, reach: Reach, ledger: Ledger) -> None:
    """Takes the image out and clears the override: the next start is from the disk."""
    ledger.intent(rack.name, unit.name, MEDIA, {"action": "eject"})
    eject(reach.wire(unit))
    bmc = reach.bmc(unit)
    if isinstance(bmc, SushyBmc):
        bmc.clear_boot_override()
    ledger.observed(rack.name, unit.name, MEDIA, {"action": "ejected"})


@dataclass(frozen=True, slots=True)
class UnitLook:
    """One unit, as `bmc check` shows it. Empty texts: not told. `trouble`: what could not be read, by name."""

    unit: str
    kind: str
    shape: str
    vendor: str
    product: str
    serial: str
    power: str
    override: str
    firmware: str
    quirks: tuple[str, ...]
    factory_logins: tuple[FactoryLoginFound, ...]
    trouble: tuple[str, ...]


def look_at(
    unit: Unit, reach: Reach, wire_as: Callable[[Credentials], Wire] | None
) -> UnitLook:  # fmt: skip
    """Reads one unit, going on where one thing cannot be read. `wire_as`: factory logins are tried with it."""
    trouble: list[str] = []
    told: dict[str, str] = {}
    wire, bmc = reach.wire(unit), reach.bmc(unit)

    def read(name: str, how: Callable[[], str]) -> None:
        try:
            told[name] = how()
        except UndecidedError as problem:
            trouble.append(f"{name}: {problem.message}")

    read("power", lambda: bmc.power().value)
    read("serial", lambda: bmc.identity().serial)
    if isinstance(bmc, SushyBmc):
        read("override", lambda: str(bmc.boot_override()))
    seen = None
    logins: tuple[FactoryLoginFound, ...] = ()
    try:
        seen = look(wire)
        logins = check_factory_logins(unit, wire_as) if wire_as is not None else ()
    except UndecidedError as problem:
        trouble.append(problem.message)
    if told.get("serial") and told["serial"] != unit.serial:
        trouble.append(f"the BMC says serial {told['serial']}, the plan says {unit.serial}")
    if seen is not None and seen.shape is not None and seen.shape.kind != unit.kind:
        trouble.append(f"this looks like a {seen.shape.kind}, the plan has a {unit.kind} here")
    return UnitLook(
        unit.name, unit.kind, seen.shape.name if seen and seen.shape else "", seen.vendor if seen else "",
        seen.product if seen else "", told.get("serial", ""), told.get("power", ""), told.get("override", ""),
        seen.firmware if seen else "", tuple(sorted(seen.quirks)) if seen else (), logins, tuple(trouble),
    )  # fmt: skip
