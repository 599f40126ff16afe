"""`recover`: after a failure, the rungs that can help, one after another."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.look import node_named
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import context_of, ledger_of
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.repair import Recovered

RUNGS = ("gpu_reset", "reboot", "power_cycle")


@click.command()
@click.argument("name", metavar="NODE")
@click.option("--rung", type=click.Choice(RUNGS), help="This one alone; by default from the lowest that can help.")
@click.option("--confirm", metavar="NODE", help="Type the node's name: it is rebooted, or its power is cut.")
@click.option("--plan", "only_plan", is_flag=True, help="Show which rungs can help and why; do nothing.")
@click.option("--rack", "rack_name", help="The rack of NODE, where several have one of that name.")
@json_option
def recover(
    name: str, rung: str | None, confirm: str | None, only_plan: bool, rack_name: str | None, as_json: bool
) -> None:
    """Climb the ladder for NODE's failure: GPU reset, reboot, power cycle by its BMC.

    A rung is tried only where a source says that it can mend the finding, once for a failure; what comes back on the
    same board afterwards is a matter for its maker. Killed in between, the same command goes on: nothing is done twice.
    The node stays where it is: only release, and everything measured anew, brings it back.
    """
    from toolkit.judge.ladder import Rung
    from toolkit.repair import Order, plan
    from toolkit.repair import recover as climb

    settings = installed.load()
    rack, node = node_named(settings, name, rack_name)
    if confirm is not None and confirm != node:
        raise UsageError(f"--confirm {confirm!a} does not repeat the node's name", f"--confirm {node}")
    if only_plan:
        with ledger_of(settings) as ledger:
            found = plan(ledger, rack, rack.unit(node))
    else:
        order = Order(Rung(rung) if rung else None, confirm == node)
        with context_of(rack, lambda p: stderr().print(f"{p.node}: {p.text}")) as context:
            found = climb(context, node, order)
    shown = {"exit_code": found.exit_code, "next": found.next, "recovered": found}
    emit(shown, as_json, lambda: _view(found))
    sys.exit(found.exit_code)


def _view(found: Recovered) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.report.text import printable

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column(overflow="fold")
    failure = found.failure
    table.add_row("node", Text(f"{found.node} is {found.state}", "bold"))
    table.add_row("failure", printable(f"{', '.join(failure.codes)}  {failure.part}  ({failure.incident})"))
    for done in found.climbed:
        words = f"{done.rung}" + (f" ({done.means})" if done.means else "") + f": {done.end}"
        table.add_row("rung", Text(printable(words), "green" if done.end == "settled" else "yellow"))
        for name, text in (("said", done.said), ("boot", _boots(done.boot_before, done.boot_after))):
            if text:
                table.add_row(name, printable(text))
    settled = bool(found.climbed) and found.climbed[-1].end == "settled"
    if found.left.rungs and not settled:
        order = ", then ".join(rung for rung, _ in found.left.rungs)
        table.add_row("can help", printable(f"{order}: {found.left.rungs[0][1]}"))
    for rung, why in () if settled else found.left.passed_over:
        table.add_row("not here", printable(f"{rung}: {why}"))
    for name, text in (("no rung", "" if settled else found.left.why), ("note", found.remark), ("next", found.next)):
        if text:
            table.add_row(name, printable(text, 1000))
    return table


def _boots(before: str, after: str) -> str:
    if not before and not after:
        return ""
    return f"{before[:8] or 'unknown'} before, {after[:8] or 'silent'} after" if before != after else ""
