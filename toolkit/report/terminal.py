"""Plans, progress and results on a terminal. Everything a node said goes through `printable` first."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from toolkit.certificate.reading import Verified
from toolkit.rack.burnin_plan import BurninPlan
from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.plan import Plan
from toolkit.report.burnin_plan import burnin_plan_view
from toolkit.report.standing import Standing
from toolkit.report.text import printable
from toolkit.report.why import Why

STATE_STYLE = {NodeState.ADMITTED: "bold green", NodeState.CERTIFIED: "green", NodeState.QUARANTINED: "bold red"}
FAILED_STYLE, TROUBLE_STYLE = "bold red", "yellow"


def plan_view(plan: Plan, burnin: BurninPlan | None = None) -> RenderableType:
    """The plan as a table: stage, nodes, why; below it what its burn-in will take."""
    table = Table(title=f"plan for {plan.rack} to {plan.goal}  [{plan.digest[:12]}]", title_justify="left")
    for column in ("stage", "nodes", "why"):
        table.add_column(column, overflow="fold")
    for step in plan.steps:
        names = ", ".join(t.node for t in step.targets)
        reasons = ", ".join(sorted({t.why for t in step.targets}))
        stage = Text(str(step.stage)) + Text(" (erases disks)" if step.destructive else "", "bold red")
        table.add_row(stage, printable(names), printable(reasons))
    for held in plan.held:
        table.add_row(Text("-", "dim"), held.node, Text(printable(f"{held.state}: {held.why}"), "dim"))
    return Group(table, burnin_plan_view(burnin)) if burnin else table


def standings_view(title: str, nodes: Sequence[Standing]) -> RenderableType:
    """Where every node stands: state, and where it is not at its goal, code, part and next command."""
    table = Table(title=title, title_justify="left")
    for column, width in (("node", None), ("state", None), ("stage", None), ("code", None), ("part", 30), ("next", 46)):
        table.add_column(column, overflow="fold", max_width=width)
    for node in nodes:
        style = TROUBLE_STYLE if node.outcome is not Outcome.FAILED else FAILED_STYLE
        table.add_row(
            node.node,
            Text(node.state, STATE_STYLE.get(node.state, "")),
            Text(str(node.stage or "") if node.trouble else "", style),
            Text(printable(node.code), style),
            printable(node.part),
            printable(node.next if node.trouble else ""),
        )
    return table


def why_view(why: Why) -> RenderableType:
    """One node's answer, as lines."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column(overflow="fold")
    table.add_row("node", Text(f"{why.node} is {why.state}", STATE_STYLE.get(why.state, "bold")))
    rows = [
        ("unmet", f"{why.code} {why.unmet}".strip()),
        ("stage", why.stage),
        ("part", why.part),
        ("owner", why.owner),
    ]
    rows += [("evidence", line) for line in why.evidence] + [("next", why.next)]
    for name, text in rows:
        if text:
            table.add_row(name, printable(text))
    return table


def certificate_view(verified: Verified) -> RenderableType:
    """What a verified certificate proves, and what it does not."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column(overflow="fold")
    coverage = "named partial" if verified.partial else "whole rack"
    table.add_row("certificate", Text(f"VALID  {verified.digest[:16]}", "bold green"))
    table.add_row("rack", printable(f"{verified.rack}: {verified.result}, {coverage}"))
    table.add_row("in force", f"{verified.issued_at:%Y-%m-%d %H:%M}Z to {verified.expires_at:%Y-%m-%d %H:%M}Z")
    for facts in verified.fingerprint.nodes:
        table.add_row(
            "certified", printable(f"{facts.node}  {facts.serial}  {len(facts.gpus)} GPUs, driver {facts.driver}")
        )
    for node, reason in verified.left_out:
        table.add_row("left out", Text(printable(f"{node}: {reason}"), "yellow"))
    for words in verified.not_verified:
        table.add_row("not verified", Text(printable(words), "dim"))
    table.add_row("signed by", verified.keyid[:16])
    return table


class Watch:
    """Live progress of a stage: one line a node on a terminal, one line an end elsewhere. Safe across threads."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.lock = threading.Lock()
        self.lines: dict[str, tuple[str, float | None]] = {}
        self.stage: Stage | None = None
        self.began = time.monotonic()
        self.live: Live | None = None

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self.live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self.live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close_stage()
        if self.live:
            self.live.__exit__(kind, value, at)

    def open_stage(self, stage: Stage, nodes: Sequence[str]) -> None:
        """A stage begins on these nodes."""
        self.close_stage()
        with self.lock:
            self.stage, self.began = stage, time.monotonic()
            self.lines = {node: ("", None) for node in nodes}
        self.console.print(Text(f"{stage:<11}", "bold") + Text(f" {len(nodes)} nodes"))

    def close_stage(self) -> None:
        """The stage ended: its time is printed."""
        with self.lock:
            stage, self.stage = self.stage, None
            ended = {node: text for node, (text, done) in self.lines.items() if done == 1.0}
        if stage is None:
            return
        good = sum(text == Outcome.PASSED.lower() for text in ended.values())
        bad = "".join(f"  {n}: {t}" for n, t in ended.items() if t != Outcome.PASSED.lower())
        took = f"{time.monotonic() - self.began:6.1f} s"
        self.console.print(Text(f"{'':<11} {good} passed", "green") + Text(bad, "yellow") + Text(f"  {took}", "dim"))

    def show(self, node: str, text: str, done: float | None) -> None:
        """A node's newest line."""
        with self.lock:
            if node in self.lines and self.lines[node][1] != 1.0:
                self.lines[node] = (printable(text, 80), done)

    def _render(self) -> RenderableType:
        with self.lock:
            rows = list(self.lines.items()) if self.stage else []
        table = Table.grid(padding=(0, 1))
        for node, (text, done) in rows[:40]:
            share = "" if done is None else f"{done:4.0%}"
            table.add_row(Text(f"  {node}"), Text(share, "cyan"), Text(text, "green" if done == 1.0 else "dim"))
        more = [Text(f"  … and {len(rows) - 40} more", "dim")] if len(rows) > 40 else []
        return Group(table, *more)
