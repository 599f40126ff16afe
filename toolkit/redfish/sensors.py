"""Sensors of a machine that its BMC calls unwell: Chassis/Sensors, each with its own thresholds (Sensor, DSP0268)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from toolkit.redfish.text import printable
from toolkit.redfish.wire import MAX_MEMBERS, ROOT, Document, Wire, each, last, link


class SensorState(StrEnum):
    """What a sensor's own thresholds say of it. UNKNOWN is never well: no reading, no health, disabled."""

    WELL = "well"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SensorReading:
    """One sensor. `reading` is None where it shows none; `unit` as the BMC writes it: Cel, W, RPM."""

    chassis: str
    id: str
    kind: str
    reading: float | None
    unit: str
    state: SensorState


def read_sensors(wire: Wire) -> tuple[SensorReading, ...]:
    """Every sensor of every chassis, bounded, by chassis and id; () where the BMC serves none."""
    doing = "reading the sensors"
    found: list[SensorReading] = []
    chassis = link(wire.get(ROOT, doing), "Chassis") or f"{ROOT}/Chassis"
    for path, document in each(wire, chassis, doing):
        place = link(document, "Sensors")
        for member, sensor in each(wire, place, doing) if place else ():
            found.append(_sensor(last(path), last(member), sensor))
            if len(found) >= MAX_MEMBERS:
                return tuple(found)
    return tuple(sorted(found, key=lambda one: (one.chassis, one.id)))


def _sensor(chassis: str, identity: str, document: Document) -> SensorReading:
    reading = document.get("Reading")
    shown = float(reading) if isinstance(reading, int | float) and not isinstance(reading, bool) else None
    status = document.get("Status")
    told = status if isinstance(status, Mapping) else {}
    kind, unit = printable(document.get("ReadingType"), 40), printable(document.get("ReadingUnits"), 20)
    return SensorReading(chassis, identity, kind, shown, unit, _state(told.get("State"), told.get("Health"), shown))


def _state(state: object, health: object, reading: float | None) -> SensorState:
    if health == "Critical":
        return SensorState.CRITICAL
    if health == "Warning":
        return SensorState.WARNING
    if health != "OK" or reading is None or state not in (None, "Enabled"):
        return SensorState.UNKNOWN
    return SensorState.WELL
