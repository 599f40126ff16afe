"""`fabric`: what is wrong with a rack's cables, as a work order."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli.output import json_option, stderr, stdout
from toolkit.cli.wiring import context_of, rack_named
from toolkit.errors import EvidenceError, UndecidedError, UsageError

if TYPE_CHECKING:
    from toolkit.judge.fabric.work_order import WorkOrder

COUNTED_SECONDS = 10.0
LONGEST_SECONDS = 3600.0


@click.command()
@click.argument("name", metavar="RACK")
@click.option(
    "--seconds", type=click.FloatRange(0, LONGEST_SECONDS), default=COUNTED_SECONDS, show_default=True,
    help="How long error counters are watched. Under load they say more.",
)  # fmt: skip
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Also as a spreadsheet.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Also as a page to print.")
@json_option
def fabric(name: str, seconds: float, csv_file: Path | None, page: Path | None, as_json: bool) -> None:
    """Compare RACK's fabrics with its plan and print what to do about it: the cable work order.

    It reads NVLink, InfiniBand and in-band Ethernet from the nodes and changes nothing. Nodes that are not up are
    left out, and what only they could tell is undecided. Swaps come out as swaps, with both ends and rack positions.
    """
    from toolkit.report.work_order import work_order_csv, work_order_json, work_order_page, work_order_view
    from toolkit.stages.fabric_order import order_of

    rack = rack_named(name)
    if not rack.nodes:
        raise UsageError(f"{rack.name} has no nodes to look from", "add them to its rack file")
    with context_of(rack) as context:
        stderr().print(f"looking at {rack.name}, {len(rack.nodes)} nodes; counters over {seconds:g} s")
        order = order_of(context, seconds)
    if csv_file is not None:
        _write(csv_file, work_order_csv(order))
    if page is not None:
        _write(page, work_order_page(order, datetime.now(UTC)))
    if as_json:
        _print_json(work_order_json(order))
    else:
        stdout().print(work_order_view(order))
    sys.exit(_exit_code(order))


def _print_json(value: dict[str, Any]) -> None:
    from toolkit.cli.output import emit

    emit(value, True, str)


def _write(path: Path, text: str) -> None:
    from toolkit.durable import write_whole

    try:
        write_whole(path, text.encode())
    except OSError as failure:
        raise UsageError(f"{path} cannot be written: {failure.strerror}", "name another file") from failure
    stderr().print(f"written: {path}")


def _exit_code(order: WorkOrder) -> int:
    """0 as designed, 1 something is wrong, 3 undecided."""
    from toolkit.judge.verdict import Answer

    codes: dict[Answer, int] = {Answer.PASS: 0, Answer.FAIL: EvidenceError.exit_code}
    return codes.get(order.answer, UndecidedError.exit_code)
