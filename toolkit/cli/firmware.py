"""`firmware`: what a rack's BMCs have installed against its lock, and bringing it there."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import context_of, rack_named
from toolkit.errors import EvidenceError, UndecidedError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.rack.firmware_plan import FirmwareRow
    from toolkit.rack.model import Rack
    from toolkit.stages.rack_firmware import FirmwareDone


@click.group()
def firmware() -> None:
    """Compare a rack's firmware with its lock through its BMCs, and update what differs, in the rack's order."""


@firmware.command("plan")
@click.argument("name", metavar="RACK")
@json_option
def plan(name: str, as_json: bool) -> None:
    """Read every BMC's inventory and show what differs from RACK's lock, in the order of update. Changes nothing."""
    from toolkit.rack.firmware_plan import Standing
    from toolkit.stages.bmc_reach import SiteReach
    from toolkit.stages.rack_firmware import read_rack

    rack = rack_named(name)
    if not rack.profile.bmc.firmware:
        raise UsageError(f"profile {rack.profile.name} locks no firmware of BMCs", "bmc: {firmware: [...]}, sourced")
    with context_of(rack) as context:
        rows = read_rack(rack, SiteReach(context.settings, rack))
    standings = {row.standing for row in rows}
    code = 0
    if Standing.DIFFERS in standings:
        code = EvidenceError.exit_code
    elif standings != {Standing.AS_LOCKED}:
        code = UndecidedError.exit_code
    emit({"rack": rack.name, "rows": rows, "exit_code": code}, as_json, lambda: _plan_view(rows))
    sys.exit(code)


@firmware.command("update")
@click.argument("name", metavar="RACK")
@click.option("--component", required=True, metavar="ID", help="As the inventory and the lock call it: HostBIOS_0.")
@click.option("--unit", "names", multiple=True, metavar="UNIT", help="These alone; by default all that lock it.")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Pushed to each BMC.")
@click.option("--uri", default="", help="Fetched by each BMC.")
@click.option("--at-once", type=click.IntRange(1, 16), default=4, show_default=True, help="Units side by side.")
@click.option("--again", is_flag=True, help="Also where an earlier update is staged, or ended unknown.")
@click.option("--confirm", metavar="RACK", help="Type the rack's name: its firmware is written.")
@json_option
def update(
    name: str, component: str, names: tuple[str, ...], file: Path | None, uri: str, at_once: int, again: bool,
    confirm: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Bring one component to RACK's lock: shelves, switch trays, compute trays; in a unit BMC, CPLD, BIOS.

    Killed in between, the same command goes on: it reads inventory and tasks first, and sends nothing twice.
    """
    from toolkit.driving import driving
    from toolkit.stages.bmc_reach import SiteReach
    from toolkit.stages.rack_firmware import Flashing, Source
    from toolkit.stages.rack_firmware import update as carry_out

    rack = rack_named(name)
    if confirm != rack.name:
        raise UsageError(f"firmware of {rack.name} would be written", f"--confirm {rack.name}")
    if (file is None) == (not uri):
        raise UsageError("where the firmware comes from is not clear", "one of --file and --uri")
    with context_of(rack) as context, driving(context) as driven:
        flashing = Flashing(
            rack, SiteReach(installed.load(), rack), driven.ledger, time.monotonic, time.sleep,
            lambda unit, text: stderr().print(f"{unit}: {text}"), again=again, at_once=at_once,
        )  # fmt: skip
        done = carry_out(flashing, component, Source(file, uri), names or _lockers(rack, component))
    emit({"done": done, "exit_code": done.exit_code}, as_json, lambda: _done_view(done))
    sys.exit(done.exit_code)


def _lockers(rack: Rack, component: str) -> tuple[str, ...]:
    kinds = {pin.kind for pin in rack.profile.bmc.firmware if pin.component == component}
    return tuple(unit.name for unit in rack.units if unit.kind in kinds and unit.bmc is not None)


def _plan_view(rows: tuple[FirmwareRow, ...]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.rack.firmware_plan import Standing
    from toolkit.report.text import printable

    table = Table.grid(padding=(0, 2))
    table.add_row("unit", "component", "lock", "found", "", style="dim")
    for row in rows:
        style = {Standing.AS_LOCKED: "green", Standing.DIFFERS: "red"}.get(row.standing, "yellow")
        table.add_row(row.unit, row.component, row.locked, printable(row.found, 60), Text(row.standing, style))
    return table


def _done_view(done: FirmwareDone) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.report.text import printable

    good = {"as locked", "updated"}
    table = Table.grid(padding=(0, 2))
    for one in done.updates:
        style = "green" if one.end in good else "red" if one.end == "failed" else "yellow"
        change = f"{one.before} -> {one.locked}" if one.before != one.locked else one.locked
        table.add_row(one.unit, one.component, printable(change, 80), Text(one.end, style), printable(one.said, 300))
    return table
