"""Leak detectors of a liquid-cooled chassis: Chassis/ThermalSubsystem/LeakDetection/LeakDetectors (DSP0268)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from toolkit.redfish.text import printable
from toolkit.redfish.wire import ROOT, Document, Wire, each, last, link


class DetectorState(StrEnum):
    """What a detector says. UNKNOWN is never dry: disabled, absent, or a word we have no name for."""

    DRY = "dry"
    LEAK = "leak"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector: `chassis/id`, what it says, and the BMC's own words for it."""

    chassis: str
    id: str
    state: DetectorState
    said: str

    @property
    def name(self) -> str:
        """As the chassis calls it: `Chassis_0/LeakDetector_2`."""
        return f"{self.chassis}/{self.id}"


def read_detectors(wire: Wire) -> tuple[Detector, ...]:
    """Every detector of every chassis, by name; () where the BMC lists none."""
    doing = "reading the leak detectors"
    found: list[Detector] = []
    chassis = link(wire.get(ROOT, doing), "Chassis") or f"{ROOT}/Chassis"
    for path, document in each(wire, chassis, doing):
        found += _of_chassis(wire, path, document, doing)
    return tuple(sorted(found, key=lambda detector: detector.name))


def _of_chassis(wire: Wire, path: str, chassis: Document, doing: str) -> Iterator[Detector]:
    thermal = link(chassis, "ThermalSubsystem")
    subsystem = wire.get_or_none(thermal, doing) if thermal else None
    detection = link(subsystem, "LeakDetection")
    service = wire.get_or_none(detection, doing) if detection else None
    listed = link(service, "LeakDetectors")
    # A service without a collection says in its own health that something is wet, and not where.
    if service is not None and not listed:
        yield Detector(last(path), last(detection), *_state(service.get("Status"), None))
    for member, document in each(wire, listed, doing) if listed else ():
        yield Detector(last(path), last(member), *_state(document.get("Status"), document.get("DetectorState")))


def _state(status: object, detector_state: object) -> tuple[DetectorState, str]:
    """DetectorState is `OK`, `Warning`, `Critical` (LeakDetector v1); older BMCs have it in Status.Health only."""
    told = status if isinstance(status, Mapping) else {}
    state, health = told.get("State"), told.get("Health")
    said = printable(" ".join(str(word) for word in (detector_state, state, health) if word))
    if detector_state in ("Warning", "Critical") or health in ("Warning", "Critical"):
        return DetectorState.LEAK, said
    if state not in (None, "Enabled") or detector_state not in (None, "OK") or "OK" not in (detector_state, health):
        return DetectorState.UNKNOWN, said or "says nothing"
    return DetectorState.DRY, said
