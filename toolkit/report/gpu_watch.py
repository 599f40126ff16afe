"""Live progress of a burn-in: a line a GPU on a terminal; elsewhere a line whenever a GPU takes up another workload."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from toolkit.report.text import printable

SHOWN = 64  # lines: more than a terminal has; the rest is counted
BAR = 24


class GpuWatch:
    """Takes what the nodes say of their GPUs. Safe across threads."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._lines: dict[tuple[str, int], tuple[str, float]] = {}
        self._live: Live | None = None

    def __enter__(self) -> GpuWatch:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.__exit__(kind, value, at)

    def show(self, node: str, gpu: int | None, text: str, done: float | None) -> None:
        """A GPU's newest word; `gpu` None is the node's own."""
        words = printable(text, 60)
        key = node, -1 if gpu is None else gpu
        with self._lock:
            before, _ = self._lines.get(key, ("", 0.0))
            self._lines[key] = words, done or 0.0
        if self._live is None and words.partition(" ")[0] != before.partition(" ")[0]:
            self._console.print(f"{_name(*key)}: {words}")

    def _render(self) -> RenderableType:
        with self._lock:
            lines = sorted(self._lines.items())
        table = Table.grid(padding=(0, 1))
        for key, (text, done) in lines[:SHOWN]:
            bar = ProgressBar(total=1.0, completed=min(done, 1.0), width=BAR)
            table.add_row(Text(f"  {_name(*key)}"), bar, Text(f"{done:4.0%}", "cyan"), Text(text, "dim"))
        if len(lines) > SHOWN:
            table.add_row(Text(f"  and {len(lines) - SHOWN} more", "dim"))
        return table


def _name(node: str, gpu: int) -> str:
    return node if gpu < 0 else f"{node} gpu{gpu}"
