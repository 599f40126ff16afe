"""In which order a rack gets its power and loses it, and how much of it at once. Pure: a plan, shown before it is done.

On: power shelves, then every tray's BMC answers, then no detector is wet, then NVLink switch trays, then compute
trays. Off: the other way round. Order: NVIDIA infra-controller's rack power sequence; that switch trays come before
compute trays: NVIDIA Mission Control, "GB200/GB300 Rack Power On and Bring Up".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.errors import UsageError
from toolkit.rack.model import Rack, Unit, UnitKind

# Switched off and on, a tray's power supplies charge: nothing published; a node is taken to draw at once what it takes
# at most, which is above any in-rush that its own supplies limit.
_ON = (UnitKind.POWER_SHELF, UnitKind.NVLINK_SWITCH, UnitKind.NODE)


class StepKind(StrEnum):
    """What a step does."""

    POWER_ON = "power on"
    REACH = "wait for BMCs"
    LEAK_CHECK = "leak check"
    POWER_OFF = "power off"


@dataclass(frozen=True, slots=True)
class PowerStep:
    """One step. `gap_s`: seconds from one unit's button to the next, so that power grows no faster than it may."""

    kind: StepKind
    units: tuple[str, ...]
    why: str
    gap_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """The steps in order. `watts`: what the nodes it switches on take at most; 0 where the profile does not say."""

    rack: str
    on: bool
    steps: tuple[PowerStep, ...]
    watts: float
    budget_watts: float


def plan_on(rack: Rack, budget_watts: float = 0.0) -> PowerPlan:
    """Steps that bring the rack up. UsageError where its nodes would take more than the budget (0: none given)."""
    nodes = _with_bmc(rack, UnitKind.NODE)
    watts = len(nodes) * rack.profile.node_power_watts
    if budget_watts:
        _check_budget(rack, len(nodes), watts, budget_watts)
    steps = []
    shelves = _names(_with_bmc(rack, UnitKind.POWER_SHELF))
    if shelves:
        steps.append(PowerStep(StepKind.POWER_ON, shelves, "trays have no standby power before"))
    switches = _names(_with_bmc(rack, UnitKind.NVLINK_SWITCH))
    trays = (*switches, *_names(nodes))
    steps.append(PowerStep(StepKind.REACH, trays, "nothing is powered that nobody can look at"))
    wet = tuple(u.name for u in rack.units if u.bmc is not None and rack.profile.bmc.detectors_of(u.kind))
    if wet:
        steps.append(PowerStep(StepKind.LEAK_CHECK, wet, "coolant on a live board destroys it"))
    if switches:
        steps.append(PowerStep(StepKind.POWER_ON, switches, "the NVLink domain stands before its GPUs come"))
    steps.append(PowerStep(StepKind.POWER_ON, _names(nodes), "compute last", _gap_s(rack)))
    return PowerPlan(rack.name, True, tuple(steps), watts, budget_watts)


def plan_off(rack: Rack, *, shelves: bool = False) -> PowerPlan:
    """Steps that take the rack down: compute trays, switch trays, and the shelves only where that is asked for."""
    steps = []
    whys = {
        UnitKind.NODE: "operating systems end while everything they use is there",
        UnitKind.NVLINK_SWITCH: "nothing uses the domain any more",
        UnitKind.POWER_SHELF: "standby power goes with them: the trays' BMCs stop answering",
    }
    for kind in reversed(_ON):
        names = _names(_with_bmc(rack, kind))
        if names and (shelves or kind is not UnitKind.POWER_SHELF):
            steps.append(PowerStep(StepKind.POWER_OFF, names, whys[kind]))
    return PowerPlan(rack.name, False, tuple(steps), 0.0, 0.0)


def _check_budget(rack: Rack, nodes: int, watts: float, budget_watts: float) -> None:
    each = rack.profile.node_power_watts
    if not each:
        raise UsageError(
            f"profile {rack.profile.name} does not say what a node takes: nobody can hold a budget",
            "node_power_watts in the profile, with its source; or leave the budget out",
        )
    if watts > budget_watts:
        raise UsageError(
            f"{nodes} nodes take up to {watts / 1000:.1f} kW, the budget is {budget_watts / 1000:.1f} kW: "
            f"{int(budget_watts // each)} would fit",
            "raise the budget, or take nodes out of the rack file",
        )


def _gap_s(rack: Rack) -> float:
    """So that whole nodes, at their most, grow no faster than the profile's ramp."""
    ramp = rack.profile.power_ramp_kw_per_s
    return rack.profile.node_power_watts / 1000 / ramp if ramp and rack.profile.node_power_watts else 0.0


def _with_bmc(rack: Rack, kind: UnitKind) -> tuple[Unit, ...]:
    return tuple(unit for unit in rack.units if unit.kind is kind and unit.bmc is not None)


def _names(units: tuple[Unit, ...]) -> tuple[str, ...]:
    return tuple(unit.name for unit in units)
