"""`revoke` and `drain`: nodes out of the pool, by an operator, with a reason on record."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.look import node_named, resolve
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import ledger_of, pool_of
from toolkit.errors import UsageError
from toolkit.rack.model import Rack
from toolkit.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.pool.model import Pool
    from toolkit.withdrawal import Order, Target, Withdrawn

reason_option = click.option("--reason", required=True, help="Why; it is kept in the ledger and stands on the node.")
deadline_option = click.option("--deadline", "deadline_s", type=float, help="Seconds for the drain; else the policy's.")
force_option = click.option(
    "--force", metavar="NAMES", help="Type the names again: running jobs are evicted below the capacity floor too."
)
rack_option = click.option("--rack", "rack_name", help="The rack of NODE, where several have one of that name.")


@click.command()
@click.argument("names", metavar="RACK|NODE...", nargs=-1, required=True)
@reason_option
@deadline_option
@force_option
@rack_option
@json_option
def revoke(
    names: tuple[str, ...], reason: str, deadline_s: float | None, force: str | None, rack_name: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Revoke the certificates of RACK or NODE: no new jobs at once, then their jobs are moved off them."""
    from toolkit import withdrawal

    settings = installed.load()
    found = [resolve(settings, name, rack_name) for name in names]
    rack, targets = _targets([(rack, node) for rack, nodes in found for node in nodes])
    order = _order(settings, rack, names, (reason, deadline_s, force))
    with ledger_of(settings) as ledger:
        rows = withdrawal.revoke(ledger, _pool(settings, rack), targets, order)
    _end(rows, as_json)


@click.command()
@click.argument("name", metavar="NODE")
@reason_option
@deadline_option
@force_option
@rack_option
@json_option
def drain(
    name: str, reason: str, deadline_s: float | None, force: str | None, rack_name: str | None, as_json: bool
) -> None:
    """Take NODE out of the pool and its jobs off it, within their budgets and the pool's capacity floor."""
    from toolkit import withdrawal

    settings = installed.load()
    rack, targets = _targets([node_named(settings, name, rack_name)])
    order = _order(settings, rack, (name,), (reason, deadline_s, force))
    with ledger_of(settings) as ledger:
        rows = withdrawal.drain(ledger, _pool(settings, rack), targets, order)
    _end(rows, as_json)


def _targets(found: Sequence[tuple[Rack, str]]) -> tuple[Rack, list[Target]]:
    """One of the racks, and each node once. All must be of one site: one pool, one reach."""
    from toolkit.withdrawal import Target

    racks = {rack.name: rack for rack, _ in found}
    first = next(iter(racks.values()))
    if len({rack.site for rack in racks.values()}) > 1 or (first.profile.virtual and len(racks) > 1):
        raise UsageError(f"{', '.join(racks)} are not in one pool", "give the command once for each")
    return first, list(dict.fromkeys(Target(rack.name, node) for rack, node in found))


def _order(settings: Settings, rack: Rack, names: Sequence[str], how: tuple[str, float | None, str | None]) -> Order:
    from toolkit.pool.policy_file import load_policy
    from toolkit.withdrawal import Order

    reason, deadline_s, force = how
    typed = " ".join(names)
    if force is not None and force != typed:
        raise UsageError(f"--force {force!a} does not repeat the names", f"--force '{typed}'")
    if deadline_s is not None and not 0 <= deadline_s <= 7 * 86400:
        raise UsageError(f"--deadline {deadline_s:g} is no number of seconds", "0 to 604800")
    regulation = load_policy(settings, rack.site).regulation
    wanted = regulation.drain_s if deadline_s is None else deadline_s
    return Order(reason, regulation, wanted, below_floor=force is not None, on_shut=_tell_shut)


def _pool(settings: Settings, rack: Rack) -> Pool:
    """The rack's pool; a virtual rack's is in its own network."""
    if rack.profile.virtual:
        from toolkit.virtual.lab import enter_namespace

        enter_namespace(settings, rack.name)
    return pool_of(settings, rack)


def _tell_shut(rows: Sequence[Withdrawn]) -> None:
    shut = [row.node for row in rows if row.shut]
    stderr().print(f"{len(shut)} of {len(rows)} take no more jobs; now those that run there")


def _end(rows: Sequence[Withdrawn], as_json: bool) -> None:
    from toolkit.withdrawal import exit_code

    emit({"nodes": rows}, as_json, lambda: _view(rows))
    sys.exit(exit_code(rows))


def _view(rows: Sequence[Withdrawn]) -> Table:
    from rich.table import Table

    from toolkit.report.text import printable

    table = Table()
    for column in ("node", "certificate", "new jobs", "running jobs", "note"):
        table.add_column(column, overflow="fold")
    for row in rows:
        jobs = row.drained.end if row.drained else "LEFT"
        left = "; ".join((*row.drained.left[:4], row.drained.why)) if row.drained else ""
        table.add_row(
            row.node, row.certificate[:12], "none" if row.shut else "UNKNOWN", jobs, printable(row.trouble or left, 600)
        )
    return table
