"""What is left to do for the NVLink control plane, from a look at all switch trays. Pure; never a destructive step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from toolkit.judge.nvlink.finding import shortened
from toolkit.judge.nvlink.seen import CONTROLLER, SwitchSeen
from toolkit.judge.nvlink.switch import CHASSIS_MISSING
from toolkit.rack.model import Rack, UnitKind

# The rack is one NVLink domain of one chassis, as the vendor's own example numbers it (NVOS, `cluster chassis-id`).
CHASSIS_ID = 1


class Step(StrEnum):
    """What is done on the control tray."""

    ENABLE_CLUSTER = "enable_cluster"
    SET_CHASSIS_ID = "set_chassis_id"
    START_APP = "start_app"


@dataclass(frozen=True, slots=True)
class ControlStep:
    """One step on one tray. `app` where it starts one."""

    step: Step
    tray: str
    app: str = ""

    def __str__(self) -> str:
        return f"{self.step} {self.app}".strip() + f" on {self.tray}"


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """The steps, in order; or why there is none to take. `tray` is the control tray, where it is known."""

    steps: tuple[ControlStep, ...] = ()
    tray: str = ""
    refused: str = ""
    code: str = ""
    fix: str = ""


def control_plan(rack: Rack, switches: Sequence[SwitchSeen]) -> ControlPlan:
    """The cluster on exactly one tray, its chassis numbered, its applications started."""
    enabled = [s for s in switches if s.controls]
    if len(enabled) > 1:
        return ControlPlan(
            code="NMX_CLUSTER_TWICE",
            refused=f"the cluster is enabled on {shortened([s.unit for s in enabled])}",
            fix="switching one off stops the control plane of whatever it manages: decide that by hand",
        )
    if not enabled:
        return _first(rack, switches)
    (control,) = enabled
    steps = []
    for app in control.apps or ():
        if app.name == CONTROLLER and CHASSIS_MISSING in app.info:
            steps.append(ControlStep(Step.SET_CHASSIS_ID, control.unit))
        elif app.status == "stopped" or "stopped" in app.reason:
            steps.append(ControlStep(Step.START_APP, control.unit, app.name))
    return ControlPlan(tuple(steps), control.unit)


def _first(rack: Rack, switches: Sequence[SwitchSeen]) -> ControlPlan:
    """No tray that was read controls: the lowest does it, where none that was not read could."""
    trays = sorted((u for u in rack.units if u.kind is UnitKind.NVLINK_SWITCH), key=lambda unit: unit.slot)
    known = {s.unit for s in switches if s.cluster is not None}
    unknown = [unit.name for unit in trays if unit.name not in known]
    if unknown or not trays:
        return ControlPlan(
            code="NMX_CLUSTER_UNREAD",
            refused=f"whether {shortened(unknown)} has the cluster enabled is not known",
            fix="reach NVUE of every switch tray: a second controller would split the rack",
        )
    return ControlPlan((ControlStep(Step.ENABLE_CLUSTER, trays[0].name),), trays[0].name)
