"""Waves before they are let in, in 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.pool.admission_plan import AdmissionPlan, Underway
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.nodeset import fold
from toolkit.report.text import printable


def admission_plan_view(plan: AdmissionPlan) -> RenderableType:
    """A line a wave, then how long that takes and who is not among them."""
    title = f"admission of {plan.rack} to the {plan.pool} pool of {plan.site}"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name, right, width in (("wave", True, 4), ("size", True, 4), ("nodes", False, 30), ("why", False, 36)):
        table.add_column(name, justify="right" if right else "left", overflow="fold", max_width=width)
    if plan.underway:
        table.add_row(*_cells(plan.underway.number, plan.underway.nodes, _underway(plan.underway)))
    for wave in plan.waves:
        table.add_row(*_cells(wave.number, wave.nodes, "; ".join(wave.why)))
    lines = [Text(line) for line in _times(plan)] + [Text(line, "dim") for line in _held(plan)]
    if not (plan.underway or plan.waves):
        return Group(Text(f"{title}: no certified node is waiting", "bold"), *lines)
    return Group(Text(title, "bold"), table, *lines)


def _cells(number: int, nodes: tuple[str, ...], why: str) -> tuple[str, str, str, str]:
    return str(number), str(len(nodes)), printable(fold(nodes)), printable(why)


def _underway(wave: Underway) -> str:
    if wave.halted:
        return f"cut off while it was taken out; that is done first, and no wave is begun: {wave.halted}"
    return f"cut off after {wave.watched_s:.0f} s; it goes on"


def _times(plan: AdmissionPlan) -> list[str]:
    if not plan.waves and not plan.underway:
        return []
    each = f"each wave is watched for {_duration(plan.soak_s)}; together {_duration(plan.seconds)} if nothing halts it"
    smoke = f"no smoke collective: {plan.no_smoke}" if plan.no_smoke else "each runs a smoke collective first"
    return [each, smoke]


def _held(plan: AdmissionPlan) -> list[str]:
    by_state: dict[NodeState, list[str]] = {}
    for name, state in plan.held:
        by_state.setdefault(state, []).append(name)
    return [f"not among them, {state}: {printable(fold(names))}" for state, names in by_state.items()]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
