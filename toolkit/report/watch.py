"""Live progress of a stage: a panel on a terminal, a line at each end elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.report.eta import NO_HISTORY, Usual, lasting
from toolkit.report.text import printable

_PASSED = Outcome.PASSED.lower()
_LEFT = 4  # rows that the panel leaves free of a screen
_LEAST = 6


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    done: float | None

    @property
    def ended(self) -> bool:
        return self.done == 1.0

    @property
    def bad(self) -> bool:
        return self.ended and self.text != _PASSED


class Watch:
    """Live progress of a stage: those that failed first, then those at work. Safe across threads.

    usual  how long each stage takes by what is on record; a stage that is not in it has no history
    """

    def __init__(self, console: Console, usual: Mapping[Stage, Usual] | None = None) -> None:
        self.console = console
        self.usual: Mapping[Stage, Usual] = usual or {}
        self.lock = threading.Lock()
        self.lines: dict[str, _Line] = {}
        self.stage: Stage | None = None
        self.began = time.monotonic()
        self.live: Live | None = None

    def __enter__(self) -> Watch:
        # A terminal that cannot move its cursor, and a file that was told to be coloured, get lines.
        if self.console.is_terminal and not self.console.is_dumb_terminal and self.console.file.isatty():
            self.live = Live(get_renderable=self.panel, console=self.console, refresh_per_second=4, transient=True)
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
            self.lines = {node: _Line("", None) for node in nodes}
        count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
        usual = self.usual.get(stage)
        expected = f"usually {usual.words}" if usual else NO_HISTORY
        self.console.print(Text(f"{stage:<11}", "bold") + Text(f" {count}") + Text(f"  {expected}", "dim"))

    def close_stage(self) -> None:
        """The stage ended: its time is printed."""
        with self.lock:
            stage, self.stage = self.stage, None
            ended = {node: line for node, line in self.lines.items() if line.ended}
        if stage is None:
            return
        good = sum(not line.bad for line in ended.values())
        bad = "".join(f"  {node}: {line.text}" for node, line in ended.items() if line.bad)
        took = f"{time.monotonic() - self.began:6.1f} s"
        self.console.print(Text(f"{'':<11} {good} passed", "green") + Text(bad, "yellow") + Text(f"  {took}", "dim"))

    def show(self, node: str, text: str, done: float | None) -> None:
        """A node's newest line."""
        with self.lock:
            if node in self.lines and not self.lines[node].ended:
                self.lines[node] = _Line(printable(text, 80), done)

    def panel(self) -> RenderableType:
        """What the terminal shows now: counts and what is left, then nodes, as many as there is room for."""
        with self.lock:
            rows = dict(self.lines) if self.stage else {}
            stage, elapsed = self.stage, time.monotonic() - self.began
        if stage is None:
            return Text()
        chosen = sorted(
            ((n, line) for n, line in rows.items() if not line.ended or line.bad), key=lambda r: not r[1].bad
        )
        room = max(_LEAST, self.console.size.height - _LEFT)
        table = Table.grid(padding=(0, 1))
        for _ in range(2):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for node, line in chosen[:room]:
            share = "" if line.done is None or line.ended else f"{line.done:4.0%}"
            table.add_row(Text(f"  {node}"), Text(share, "cyan"), Text(line.text, "yellow" if line.bad else "dim"))
        more = [Text(f"  and {len(chosen) - room} more", "dim")] if len(chosen) > room else []
        return Group(self._summary(stage, rows, elapsed), table, *more)

    def _summary(self, stage: Stage, rows: Mapping[str, _Line], elapsed: float) -> Text:
        bad = sum(line.bad for line in rows.values())
        good = sum(line.ended for line in rows.values()) - bad
        usual = self.usual.get(stage)
        counts = [(f"{good} passed", "green")] if good else []
        counts += [(f"{bad} did not", "yellow")] if bad else []
        counts += [(f"{len(rows) - good - bad} at work", "")] if len(rows) > good + bad else []
        line = Text(f"{stage} {lasting(elapsed)}: ")
        line.append_text(Text(", ").join(Text(words, style) for words, style in counts))
        return line.append(f"; {usual.left(elapsed) if usual else NO_HISTORY}", "dim")
