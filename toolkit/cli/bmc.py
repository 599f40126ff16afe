"""`bmc`: one unit's BMC, looked at and looked after."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import context_of, rack_named
from toolkit.errors import EvidenceError, UndecidedError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.judge.verdict import Answer
    from toolkit.ledger import Ledger
    from toolkit.rack.model import Rack, Unit
    from toolkit.stages.bmc_care import BiosReport, LogKept, SensorReport, UnitLook
    from toolkit.stages.bmc_reach import SiteReach

FACTORY_LOGIN = "BMC_FACTORY_LOGIN"
_SHOWN = 20


@click.group()
def bmc() -> None:
    """Look at a unit's BMC, keep its log, set its BIOS, change its password, boot from an image."""


@bmc.command("check")
@click.argument("rack_name", metavar="RACK")
@click.argument("unit_name", metavar="UNIT", required=False)
@click.option("--check-default-passwords", "factory", is_flag=True, help="Try what its maker ships; each once.")
@json_option
def check(rack_name: str, unit_name: str | None, factory: bool, as_json: bool) -> None:
    """Read what the BMC of UNIT, or each of RACK, says that it is. Changes nothing.

    Exit 1 where a factory login opens one, 3 where something could not be read or is not as planned.
    """
    from concurrent.futures import ThreadPoolExecutor

    from toolkit.stages.bmc_care import look_at

    rack = rack_named(rack_name)
    units = [_unit(rack, unit_name)] if unit_name else [unit for unit in rack.units if unit.bmc is not None]
    with _site(rack) as (reach, _), ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda u: look_at(u, reach, reach.wire_as(u) if factory else None), units))
    code = 0
    if any(one.factory_logins for one in found):
        code = EvidenceError.exit_code
    elif any(one.trouble for one in found):
        code = UndecidedError.exit_code
    emit({"rack": rack.name, "units": found, "exit_code": code}, as_json, lambda: _check_view(found))
    sys.exit(code)


@bmc.command("sensors")
@click.argument("rack_name", metavar="RACK")
@click.argument("unit_name", metavar="UNIT")
@json_option
def sensors(rack_name: str, unit_name: str, as_json: bool) -> None:
    """Read UNIT's sensors and leak detectors. Exit 1 where one is critical or wet, 3 where one says nothing."""
    from toolkit.stages.bmc_care import check_sensors

    rack = rack_named(rack_name)
    unit = _unit(rack, unit_name)
    with _site(rack) as (reach, _):
        report = check_sensors(rack, unit, reach)
    code = _exit_code(report.answer)
    emit({"report": report, "exit_code": code}, as_json, lambda: _sensors_view(report))
    sys.exit(code)


@bmc.command("log")
@click.argument("rack_name", metavar="RACK")
@click.argument("unit_name", metavar="UNIT")
@json_option
def log(rack_name: str, unit_name: str, as_json: bool) -> None:
    """Keep UNIT's event logs as an artifact and show the newest entries. The BMC's word: nothing is judged by it."""
    from toolkit.stages.bmc_care import keep_log

    rack = rack_named(rack_name)
    unit = _unit(rack, unit_name)
    with _site(rack) as (reach, ledger):
        kept = keep_log(rack, unit, reach.wire(unit), ledger)
    shown = {"unit": unit.name, "artifact": kept.artifact, "log": kept.harvest, "severities": kept.harvest.severities}
    emit(shown, as_json, lambda: _log_view(kept))


@bmc.command("bios")
@click.argument("rack_name", metavar="RACK")
@click.argument("unit_name", metavar="NODE")
@click.option("--stage", "do_stage", is_flag=True, help="Ask for what differs, in force after the next restart.")
@click.option("--confirm", metavar="NODE", help="Type the node's name: its BIOS will be another one.")
@json_option
def bios(rack_name: str, unit_name: str, do_stage: bool, confirm: str | None, as_json: bool) -> None:
    """Compare NODE's BIOS attributes with its profile. Exit 1 where one differs, 3 where one is pending or missing."""
    from toolkit.stages.bmc_care import check_bios, stage_bios

    rack = rack_named(rack_name)
    unit = _unit(rack, unit_name)
    if do_stage:
        _confirmed(confirm, unit, "BIOS attributes would be staged")
    with _site(rack) as (reach, ledger):
        wire = reach.wire(unit)
        report = stage_bios(rack, unit, wire, ledger) if do_stage else check_bios(rack, unit, wire)
    code = _exit_code(report.answer)
    emit({"report": report, "exit_code": code}, as_json, lambda: _bios_view(report))
    sys.exit(code)


@bmc.command("rotate-password")
@click.argument("rack_name", metavar="RACK")
@click.argument("unit_name", metavar="UNIT")
@click.option("--confirm", metavar="UNIT", help="Type the unit's name: its BMC gets a new password.")
@json_option
def rotate_password(rack_name: str, unit_name: str, confirm: str | None, as_json: bool) -> None:
    """Give UNIT's BMC a new password, kept in the site's bmc.yml before and after. Killed, the same command ends it."""
    from rich.text import Text

    from toolkit.redfish.rotation import make_password, rotate

    rack = rack_named(rack_name)
    unit = _unit(rack, unit_name)
    _confirmed(confirm, unit, "its BMC would get a new password")
    with _site(rack) as (reach, ledger):
        ledger.intent(rack.name, unit.name, "bmc-password", {})
        end = rotate(reach.keeper(unit), reach.wire_as(unit), make_password)
        ledger.observed(rack.name, unit.name, "bmc-password", {"end": end})
    emit({"unit": unit.name, "end": end}, as_json, lambda: Text(f"{unit.name}: {end}"))


@bmc.command("boot")
@click.argument("rack_name", metavar="RACK")
@click.argument("unit_name", metavar="NODE")
@click.option("--image", default="", metavar="URL", help="Inserted as a CD, and booted once.")
@click.option("--eject", "do_eject", is_flag=True, help="Take the image out and clear the boot override.")
@click.option("--confirm", metavar="NODE", help="Type the node's name: it is restarted.")
@json_option
def boot(rack_name: str, unit_name: str, image: str, do_eject: bool, confirm: str | None, as_json: bool) -> None:
    """Boot NODE once from an image in its virtual CD drive, for sites without DHCP; then --eject."""
    from rich.text import Text

    from toolkit.stages.bmc_care import boot_from_image, eject_image

    rack = rack_named(rack_name)
    unit = _unit(rack, unit_name)
    if bool(image) == do_eject:
        raise UsageError("what is to be done is not clear", "one of --image and --eject")
    if image:
        _confirmed(confirm, unit, "it would be restarted from that image")
    with _site(rack) as (reach, ledger):
        if do_eject:
            eject_image(rack, unit, reach, ledger)
            said = "ejected; the next start is from the disk"
        else:
            said = f"starts from the image ({boot_from_image(rack, unit, reach, ledger, image)})"
    emit({"unit": unit.name, "image": image, "said": said}, as_json, lambda: Text(f"{unit.name}: {said}"))


@contextmanager
def _site(rack: Rack) -> Iterator[tuple[SiteReach, Ledger]]:
    from toolkit.stages.bmc_reach import SiteReach

    with context_of(rack) as context:
        yield SiteReach(context.settings, rack), context.ledger


def _unit(rack: Rack, name: str) -> Unit:
    known = [unit for unit in rack.units if unit.bmc is not None]
    found = next((unit for unit in known if unit.name == name), None)
    if found is None:
        names = ", ".join(unit.name for unit in known[:8])
        raise UsageError(f"{rack.name} has no unit {name!a} with a BMC", f"it has {names or 'none'}")
    return found


def _exit_code(answer: Answer) -> int:
    codes = {"PASS": 0, "FAIL": EvidenceError.exit_code, "INCONCLUSIVE": UndecidedError.exit_code}
    return codes[answer]


def _confirmed(confirm: str | None, unit: Unit, what: str) -> None:
    if confirm != unit.name:
        raise UsageError(f"{unit.name}: {what}", f"--confirm {unit.name}")


def _check_view(found: list[UnitLook]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.report.text import printable

    table = Table.grid(padding=(0, 2))
    table.add_row("unit", "is", "power", "override", "BMC firmware", "quirks", style="dim")
    for one in found:
        maker = one.shape or printable(f"{one.vendor} {one.product}".strip(), 40) or "?"
        told = (one.unit, maker, one.power or "?", one.override or "?", printable(one.firmware, 30) or "?")
        table.add_row(*told, ", ".join(one.quirks))
        for login in one.factory_logins:
            table.add_row(
                "", Text(f"{FACTORY_LOGIN}: {login.username}", "red"), "", "", "", printable(login.source, 120)
            )
        for trouble in one.trouble:
            table.add_row("", Text(printable(trouble, 200), "yellow"))
    return table


def _sensors_view(report: SensorReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    styles = {"well": "green", "critical": "red", "dry": "green", "leak": "red"}
    table = Table.grid(padding=(0, 2))
    for one in report.sensors:
        reading = f"{one.reading:g} {one.unit}" if one.reading is not None else "?"
        table.add_row(f"{one.chassis}/{one.id}", reading, Text(one.state, styles.get(one.state, "yellow")))
    for unit in report.leaks.units:
        for wet in unit.detectors:
            table.add_row(wet.name, wet.said, Text(wet.state, styles.get(wet.state, "yellow")))
        if unit.said:
            table.add_row(unit.code, unit.said)
    table.add_row("answer", report.answer)
    return table


def _log_view(kept: LogKept) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.report.text import printable

    styles = {"Critical": "red", "Warning": "yellow"}
    table = Table.grid(padding=(0, 2))
    for entry in kept.harvest.entries[-_SHOWN:]:
        severity = Text(entry.severity or "?", styles.get(entry.severity, ""))
        table.add_row(printable(entry.created, 32), severity, printable(entry.message, 200))
    counts = ", ".join(f"{n} {word or 'without severity'}" for word, n in sorted(kept.harvest.severities.items()))
    cut = "; older ones were left out" if kept.harvest.cut else ""
    table.add_row("kept", kept.artifact[:12], f"{len(kept.harvest.entries)} entries: {counts}{cut}", style="dim")
    return table


def _bios_view(report: BiosReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.report.text import printable

    table = Table.grid(padding=(0, 2))
    table.add_row("attribute", "wanted", "found", "", "source", style="dim")
    for one in report.attributes:
        style = {"as wanted": "green", "differs": "red"}.get(one.state, "yellow")
        source = printable(report.sources.get(one.name, ""), 80)
        table.add_row(one.name, one.wanted, printable(one.found, 40), Text(one.state, style), source)
    return table
