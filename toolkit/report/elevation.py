"""A rack's units in their slots, highest on top, on a terminal: state by letter and by colour, so that either will do.

A rack that is taller than a screen is folded into columns, read down and then to the right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from toolkit.rack.lifecycle import NodeState, Outcome
from toolkit.rack.model import Rack, UnitKind
from toolkit.report.standing import LETTERS, Standing
from toolkit.report.text import printable

STATE_STYLE = {NodeState.ADMITTED: "bold green", NodeState.CERTIFIED: "green", NodeState.QUARANTINED: "bold red"}
FAILED_STYLE, TROUBLE_STYLE = "bold red", "yellow"
# What no run moves: it has no state of its own, and its kind stands in the state's place.
KIND_LETTERS: Mapping[UnitKind, str] = {
    UnitKind.NVLINK_SWITCH: "s", UnitKind.POWER_SHELF: "w", UnitKind.LEAF: "l", UnitKind.SPINE: "p",
}  # fmt: skip
AT_WORK, TROUBLE = "*", "!"
TALL = 20  # rows: with what stands above and below, a rack fits into a terminal of 24 lines, or nearly
_GAP = 2


@dataclass(frozen=True, slots=True)
class Slot:
    """A unit in its place, or slots that nobody planned anything for (`name` empty, `slots` says which)."""

    slots: str
    letter: str = ""
    mark: str = ""
    name: str = ""
    style: str = ""
    words: str = ""

    def text(self, number: int, name: int) -> Text:
        """The cell: slot number, letter, mark, name; columns of these widths."""
        if not self.name:
            return Text(f"{'-':>{number}}  {self.slots}", "dim")
        made = Text.assemble((f"{self.slots:>{number}} ", "dim"))
        made.append(self.letter or " ", self.style)
        made.append(self.mark or " ", TROUBLE_STYLE if self.mark == TROUBLE else "cyan")
        made.append(f" {self.name:<{name}}", self.style)
        return made


def slots_of(rack: Rack, nodes: Iterable[Standing], at_work: Iterable[str] = ()) -> tuple[Slot, ...]:
    """Every unit, highest slot first, with one entry for each stretch that nothing is planned in."""
    stood, busy = {s.node: s for s in nodes}, frozenset(at_work)
    found: list[Slot] = []
    above = 0
    for unit in sorted(rack.units, key=lambda u: -u.slot):
        if above - unit.slot > 1:
            found.append(Slot(_stretch(unit.slot + 1, above - 1)))
        above = unit.slot
        s, name = stood.get(unit.name), printable(unit.name, 32)
        if s is None:
            kind = unit.kind.replace("_", " ")
            found.append(Slot(str(unit.slot), KIND_LETTERS.get(unit.kind, "-"), "", name, "dim", kind))
            continue
        mark = AT_WORK if unit.name in busy else TROUBLE if s.trouble and s.state is not NodeState.QUARANTINED else ""
        found.append(Slot(str(unit.slot), LETTERS[s.state], mark, name, _style(s), str(s.state)))
    return tuple(found)


def _stretch(first: int, last: int) -> str:
    return f"{first} is empty" if first == last else f"{first}-{last} are empty"


def _style(s: Standing) -> str:
    if s.outcome is Outcome.FAILED:
        return FAILED_STYLE
    return TROUBLE_STYLE if s.trouble else STATE_STYLE.get(s.state, "")


def legend(slots: Sequence[Slot]) -> str:
    """What the letters mean that are there, each once."""
    used = {slot.letter for slot in slots}
    marks = {slot.mark for slot in slots}
    words = [f"{letter} {state}" for state, letter in LETTERS.items() if letter in used]
    words += [f"{letter} {kind.replace('_', ' ')}" for kind, letter in KIND_LETTERS.items() if letter in used]
    words += [f"{TROUBLE} last run did not pass"] if TROUBLE in marks else []
    words += [f"{AT_WORK} at work now"] if AT_WORK in marks else []
    return "   ".join(words)


@dataclass(frozen=True, slots=True)
class Elevation:
    """The picture, as wide as there is room. `tall`: rows at most, as long as the width allows it."""

    slots: tuple[Slot, ...]
    tall: int = TALL

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.rows(options.max_width)
        yield Text(legend(self.slots), "dim")

    def rows(self, width: int) -> Iterator[Text]:
        """Each row of the picture, none of them wider than `width`."""
        number = max((len(s.slots) for s in self.slots if s.name), default=1)
        name = max((len(s.name) for s in self.slots), default=1)
        cell = max([number + 4 + name, *(number + 2 + len(s.slots) for s in self.slots if not s.name)])
        most = max(1, (width + _GAP) // (cell + _GAP))
        columns = min(most, -(-len(self.slots) // self.tall)) or 1
        height = -(-len(self.slots) // columns)
        for row in range(height):
            made = Text()
            for column, slot in enumerate(self.slots[row::height]):
                text = slot.text(number, name)
                if columns == 1:
                    text = Text.assemble(text, "  ", (slot.words if slot.name else "", slot.style))
                else:
                    text.pad_right(cell - text.cell_len)
                made.append_text(Text(" " * _GAP) if column else Text()).append_text(text)
            made.rstrip()
            made.truncate(width, overflow="ellipsis")
            yield made
