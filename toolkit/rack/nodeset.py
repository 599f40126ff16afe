"""Folded names, in ClusterShell's NodeSet syntax: `node[1-6]`, `leaf[01-08]`, `gpu[0-3].nvlink0`, `a1,b[2-4/2]`.

The expansion is ours for three reasons. A cable's two ends are paired by position, and NodeSet sorts, which would
silently pair `[6,1-5]` wrongly. NodeSet expands before anybody can count, and `node[1-999999999]` is one line of a
file. And NodeSet's `@group` runs a command of the site's configuration, which a rack file must not do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

MAX_NAMES = 4096
_ENDS_IN_NUMBER = re.compile(r"(?P<stem>.*?)(?P<number>\d{1,9})")
_TOKEN = re.compile(r"\[(?P<fold>[^\[\]]*)\]|(?P<text>[A-Za-z0-9._/-]+)")
_RANGE = re.compile(r"(?P<first>\d{1,9})(?:-(?P<last>\d{1,9})(?:/(?P<step>[1-9]\d{0,8}))?)?")


class FoldError(ValueError):
    """The text is not a folded name, or it unfolds to more names than allowed."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Numbers of one range, not yet written out: a billion of them cost nothing."""

    numbers: range
    width: int

    def __iter__(self) -> Iterator[str]:
        return (f"{n:0{self.width}d}" for n in self.numbers)


def expand(text: str, most: int = MAX_NAMES) -> tuple[str, ...]:
    """The names in the order written, the leftmost fold turning slowest. Raises FoldError."""
    patterns = [_parse(part) for part in _split(text)]
    count = sum(
        prod(sum(len(run.numbers) for run in piece) for piece in p if not isinstance(piece, str)) for p in patterns
    )
    if count > most:
        raise FoldError(f"{_shown(text)} unfolds to {count:,} names, the limit is {most:,}")
    return tuple(name for pattern in patterns for name in _names(pattern))


def fold(names: Iterable[str]) -> str:
    """The names folded by the number they end with, in natural order, each once: what `expand` takes back."""
    found = {name: _ENDS_IN_NUMBER.fullmatch(name) for name in names}
    plain = sorted(name for name, match in found.items() if match is None)
    parts = [(match["stem"], match["number"]) for match in found.values() if match]
    padded = {(stem, len(number)) for stem, number in parts if len(number) > 1 and number.startswith("0")}
    numbers: dict[tuple[str, int], set[int]] = {}
    for stem, number in parts:
        width = len(number) if (stem, len(number)) in padded else 0
        numbers.setdefault((stem, width), set()).add(int(number))
    folded = [f"{stem}{_folded(sorted(of), width)}" for (stem, width), of in sorted(numbers.items())]
    return ",".join((*plain, *folded))


def _folded(numbers: Sequence[int], width: int) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{r[0]:0{width}d}" if len(r) == 1 else f"{r[0]:0{width}d}-{r[-1]:0{width}d}" for r in runs]
    return texts[0] if len(numbers) == 1 else f"[{','.join(texts)}]"


def _split(text: str) -> list[str]:
    """At the commas that are outside brackets."""
    return re.split(r",(?![^\[]*\])", text)


_Pattern = list[str | list[_Run]]


def _parse(text: str) -> _Pattern:
    pattern: _Pattern = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise FoldError(f"{_shown(text)}: {text[at]!r} does not belong in a name")
        at = token.end()
        fold = token["fold"]
        pattern.append(token["text"] if fold is None else [_run(part, text) for part in fold.split(",")])
    if not pattern:
        raise FoldError("a name is empty")
    return pattern


def _run(text: str, whole: str) -> _Run:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise FoldError(f"{_shown(whole)}: {_shown(text)} is not a number or a range like 1-6")
    first, last = found["first"], found["last"] or found["first"]
    padded = any(len(n) > 1 and n.startswith("0") for n in (first, last))
    if padded and len(first) != len(last):
        raise FoldError(f"{_shown(whole)}: {text} pads its two ends to different widths")
    if int(first) > int(last):
        raise FoldError(f"{_shown(whole)}: {text} counts backwards")
    return _Run(range(int(first), int(last) + 1, int(found["step"] or 1)), len(first) if padded else 0)


def _names(pattern: _Pattern) -> Iterator[str]:
    choices = [[piece] if isinstance(piece, str) else [n for run in piece for n in run] for piece in pattern]
    return ("".join(chosen) for chosen in product(*choices))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
