"""`power`: a rack's power on and off in the order that its parts need, and where it stands."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import context_of, rack_named
from toolkit.errors import UndecidedError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.rack.model import Rack, Unit
    from toolkit.rack.power_sequence import PowerPlan
    from toolkit.stages.bmc_reach import Reach
    from toolkit.stages.rack_power import PowerDone

AT_ONCE = 32


@click.group()
def power() -> None:
    """Switch a rack on or off, shelves first or last, or show the power of each of its units."""


@power.command("on")
@click.argument("name", metavar="RACK")
@click.option("--plan", "only_plan", is_flag=True, help="Show the steps; press nothing.")
@click.option("--confirm", metavar="RACK", help="Type the rack's name: its power is switched.")
@click.option("--budget-kw", type=float, default=0.0, help="What the site gives this rack; more than it is refused.")
@json_option
def on(name: str, only_plan: bool, confirm: str | None, budget_kw: float, as_json: bool) -> None:
    """Power shelves, then wait for every BMC, then the leak check, then switch trays, then compute trays.

    A detector that is wet, or that does not say that it is dry, ends it before a board is live. What is on stays on:
    the same command again is the resume.
    """
    from toolkit.rack.power_sequence import plan_on

    rack = rack_named(name)
    _run(rack, plan_on(rack, budget_kw * 1000), only_plan, confirm, False, as_json)


@power.command("off")
@click.argument("name", metavar="RACK")
@click.option("--plan", "only_plan", is_flag=True, help="Show the steps; press nothing.")
@click.option("--confirm", metavar="RACK", help="Type the rack's name: its power is switched.")
@click.option("--shelves", is_flag=True, help="The power shelves too: the trays' BMCs go with them.")
@click.option("--force", is_flag=True, help="Cut the power of what does not end by itself in time.")
@json_option
def off(name: str, only_plan: bool, confirm: str | None, shelves: bool, force: bool, as_json: bool) -> None:
    """Compute trays, then switch trays, and with --shelves the power shelves. Refused while a node takes jobs."""
    from toolkit.rack.power_sequence import plan_off

    rack = rack_named(name)
    _run(rack, plan_off(rack, shelves=shelves), only_plan, confirm, force, as_json)


@power.command("status")
@click.argument("name", metavar="RACK")
@json_option
def status(name: str, as_json: bool) -> None:
    """Ask every BMC of RACK for its unit's power. Changes nothing; what does not answer is told as that."""
    from toolkit.stages.bmc_reach import SiteReach

    rack = rack_named(name)
    units = [unit for unit in rack.units if unit.bmc is not None]
    with context_of(rack) as context, ThreadPoolExecutor(AT_ONCE) as pool:
        reach = SiteReach(context.settings, rack)
        found = list(pool.map(lambda unit: _asked(reach, unit), units))
    shown = {"rack": rack.name, "units": found}
    emit(shown, as_json, lambda: _status_view(found))
    sys.exit(UndecidedError.exit_code if any(row["problem"] for row in found) else 0)


def _asked(reach: Reach, unit: Unit) -> dict[str, str]:
    try:
        said, problem = reach.bmc(unit).power().value, ""
    except UndecidedError as failure:
        said, problem = "", failure.message
    return {"unit": unit.name, "kind": unit.kind, "power": said, "problem": problem}


def _run(rack: Rack, plan: PowerPlan, only_plan: bool, confirm: str | None, force: bool, as_json: bool) -> None:
    from toolkit.driving import driving
    from toolkit.stages.bmc_reach import SiteReach
    from toolkit.stages.rack_power import Doing, carry_out

    if confirm is not None and confirm != rack.name:
        raise UsageError(f"--confirm {confirm!a} does not repeat the rack's name", f"--confirm {rack.name}")
    if only_plan:
        emit({"plan": plan, "done": None, "exit_code": 0}, as_json, lambda: _plan_view(plan))
        return
    if confirm is None:
        verb = "on" if plan.on else "off"
        raise UsageError(
            f"{rack.name} would be switched {verb}", f"--plan shows the steps; --confirm {rack.name} does them"
        )
    with context_of(rack) as context, driving(context) as driven:
        reach = SiteReach(installed.load(), rack)
        doing = Doing(
            rack, reach, driven.ledger, time.monotonic, time.sleep, lambda u, t: stderr().print(f"{u}: {t}"),
            force=force,
        )  # fmt: skip
        done = carry_out(doing, plan)
    shown = {"plan": plan, "done": done, "exit_code": done.exit_code}
    emit(shown, as_json, lambda: _done_view(done))
    sys.exit(done.exit_code)


def _plan_view(plan: PowerPlan) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for step in plan.steps:
        gap = f", {step.gap_s:.1f} s apart" if step.gap_s else ""
        table.add_row(step.kind, f"{len(step.units)}: {_folded(step.units)}{gap}", step.why)
    if plan.watts:
        budget = f" of {plan.budget_watts / 1000:.1f} kW" if plan.budget_watts else ""
        table.add_row("power", f"up to {plan.watts / 1000:.1f} kW{budget}", "what the nodes take at most")
    return table


def _done_view(done: PowerDone) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.report.text import printable
    from toolkit.stages.rack_power import GOOD

    table = Table.grid(padding=(0, 2))
    for step in done.steps:
        good = [unit.unit for unit in step.units if unit.end in GOOD]
        if good:
            ends = sorted({unit.end for unit in step.units if unit.end in GOOD})
            table.add_row(step.kind, Text(", ".join(ends), "green"), f"{len(good)}: {_folded(good)}")
        for unit in step.units:
            if unit.end not in GOOD:
                table.add_row(step.kind, Text(unit.end, "red"), printable(f"{unit.unit}: {unit.said}", 400))
    for kind in done.left:
        table.add_row(kind, Text("not begun", "yellow"), "")
    return table


def _status_view(found: list[dict[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.report.text import printable

    table = Table.grid(padding=(0, 2))
    for row in found:
        told = Text(row["power"], "green" if row["power"] == "On" else "") if row["power"] else Text("?", "red")
        table.add_row(row["unit"], row["kind"], told, printable(row["problem"], 200))
    return table


def _folded(names: list[str] | tuple[str, ...]) -> str:
    from toolkit.rack.nodeset import fold

    return fold(names)
