"""The NVLink control plane of an NVL72 rack: brought up on one switch tray before the trays are configured.

Every step is written to the ledger before it is taken, and its effect read back after. A run that was killed in
between finds the state as it is and goes on from there.
"""

from __future__ import annotations

from dataclasses import asdict

from toolkit.errors import UndecidedError
from toolkit.facts.nvue import look
from toolkit.judge.nvlink.control import CHASSIS_ID, ControlPlan, ControlStep, Step, control_plan
from toolkit.judge.nvlink.seen import CONTROLLER, SwitchSeen
from toolkit.judge.nvlink.switch import CHASSIS_MISSING
from toolkit.ledger import EventKind, NewEvent
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Unit, UnitKind
from toolkit.stages.context import Context, Progress, Result, error

POLL_S = 2.0
_MOST_STEPS = 4  # enable, number, and one start for each application


def switch_trays(context: Context) -> tuple[Unit, ...]:
    """Switch trays that the rack file gives access to."""
    return tuple(u for u in context.rack.units if u.kind is UnitKind.NVLINK_SWITCH and u.nvos is not None)


def bring_up(context: Context) -> Result | None:
    """Takes the steps that are left. None: the control plane is up, or nobody gave us access to it."""
    trays = switch_trays(context)
    if not trays:
        return None
    again = f"rackproof bringup {context.rack.name}"
    for _ in range(_MOST_STEPS):
        plan = control_plan(context.rack, tuple(look(unit.name, context.hands.nvue(unit)) for unit in trays))
        if plan.refused:
            return error(plan.code, f"{plan.refused}: {plan.fix}", again)
        if not plan.steps:
            break
        for step in plan.steps:
            _take(context, step)
        _wait(context, plan)
    return None


def _take(context: Context, step: ControlStep) -> None:
    """Intent, deed, and what was seen after. Raises UndecidedError where the switch does not take it."""
    rack, unit = context.rack, context.rack.unit(step.tray)
    client = context.hands.nvue(unit)
    body = {"step": step.step.value, "app": step.app, "tray": step.tray}
    context.ledger.append(NewEvent(EventKind.INTENT, rack.name, unit.name, body, f"nvue {step.step}"))
    context.progress(Progress(unit.name, Stage.NVLINK, str(step)))
    match step.step:
        case Step.ENABLE_CLUSTER:
            client.enable_cluster()
        case Step.SET_CHASSIS_ID:
            client.set_chassis_id(CHASSIS_ID)
        case Step.START_APP:
            client.start_app(step.app)
    cluster, apps = client.cluster(), client.apps()
    seen = {"cluster": asdict(cluster), "apps": [asdict(app) for app in apps]}
    context.ledger.append(NewEvent(EventKind.OBSERVED, rack.name, unit.name, body | seen, f"nvue {step.step}"))


def _wait(context: Context, plan: ControlPlan) -> None:
    """Until the control tray's applications are ok, or the fabric's time is over: the verdict says what is left."""
    client = context.hands.nvue(context.rack.unit(plan.tray))
    until = context.clock() + context.rack.profile.fabric_wait
    for _ in range(1 + int(context.rack.profile.fabric_wait.total_seconds() / POLL_S)):
        if context.clock() >= until:
            return
        try:
            cluster, apps = client.cluster(), client.apps()
        except UndecidedError:
            return  # the look that follows says why
        stuck = any(app.name == CONTROLLER and CHASSIS_MISSING in app.info for app in apps)
        if stuck or (cluster.connection == "up" and apps and all(app.status == "ok" for app in apps)):
            return
        context.sleep(POLL_S)


def seen_of(context: Context, unit: Unit) -> SwitchSeen:
    """One look at a switch tray."""
    return look(unit.name, context.hands.nvue(unit))
