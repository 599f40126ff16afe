"""What a run of re-certification came to, node by node, and what comes next; in 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.report.text import printable

_LONG = 1000


class End(StrEnum):
    """What a node's turn came to."""

    RENEWED = "RENEWED"
    KEPT = "KEPT"  # it passed, and its certificate ends when the one before does: not all of it was measured
    FAILED = "FAILED"
    YIELDED = "YIELDED"
    IN_USE = "IN_USE"  # not begun: somebody uses it, or nobody can tell
    UNDECIDED = "UNDECIDED"
    NOT_BEGUN = "NOT_BEGUN"  # leaf, domain or capacity floor did not allow it


@dataclass(frozen=True, slots=True)
class Turn:
    """One node's turn. `until`: where its certificate ends now; None: it has none."""

    node: str
    suite: str
    end: End
    why: str
    code: str = ""
    part: str = ""
    message: str = ""
    next: str = ""
    until: datetime | None = None


_STYLES = {End.RENEWED: "green", End.FAILED: "bold red"}


def turns_view(rack: str, turns: Sequence[Turn], ahead: Iterable[str] = ()) -> RenderableType:
    """A line a node; below it, of those that were not renewed, what happened, the part and the next command.

    ahead  what stays uncovered, and what is due next, in words
    """
    counts = Counter(turn.end for turn in turns)
    title = ", ".join(f"{count} {end}" for end, count in sorted(counts.items())) or "nothing was due"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("node", "suite", "came to", "code", "certificate until"):
        table.add_column(name, header_style="dim", overflow="fold", no_wrap=name in ("node", "came to"))
    for turn in turns:
        until = f"{turn.until:%Y-%m-%d %H:%M}Z" if turn.until else "none"
        style = _STYLES.get(turn.end, "yellow")
        table.add_row(turn.node, turn.suite, Text(turn.end, style), printable(turn.code), until)
    told = [turn for turn in turns if turn.end is not End.RENEWED]
    return Group(
        Text(printable(f"re-certification of {rack}: {title}"), "bold"),
        *([table] if turns else []),
        *(line for turn in told for line in _of(turn)),
        *(Text(printable(words, _LONG), "yellow") for words in ahead),
    )


def _of(turn: Turn) -> list[Text]:
    part = f" {turn.part}:" if turn.part else ""
    lines = [Text(printable(f"{turn.node}:{part} {turn.message or turn.end}", _LONG))]
    return [*lines, Text(printable(f"  next: {turn.next}", _LONG), "cyan")] if turn.next else lines
