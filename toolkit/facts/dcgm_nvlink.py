"""`dcgmi nvlink -s` and `-e`: states and error counters of NVLinks.

    gpuId 0:
        U U U D X          Up, Down, Disabled (X); `_` is a link the board does not have

`-e` is JSON: {"body": {"Link 0": {"children": {"CRC FLIT Error": {"value": "0"}, ...}}}, "header": [..., "GPU 0"]}.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from toolkit.facts.unreadable import UnreadableError

MAX_GPUS = 256
MAX_LINKS = 64
_GPU = re.compile(r"\s{0,64}gpuId (\d{1,4}):\s{0,8}\Z", re.IGNORECASE)
_LETTERS = re.compile(r"\s{0,64}([UDX_](?:\s{1,4}[UDX_]){0,63})\s{0,8}\Z")
_HEADER_GPU = re.compile(r"GPU (\d{1,4})")
_WORDS = {"U": "up", "D": "down", "X": "disabled"}


@dataclass(frozen=True, slots=True)
class LinkStates:
    """Letters of each GPU's links, in order; a GPU may have none."""

    gpus: tuple[tuple[int, str], ...]

    def as_json(self) -> dict[str, Any]:
        """How many links are up, down, disabled, by GPU."""
        return {
            str(gpu): {word: letters.count(letter) for letter, word in _WORDS.items()} for gpu, letters in self.gpus
        }

    @property
    def doubts(self) -> tuple[str, ...]:
        """GPUs of which no link was printed."""
        return tuple(f"GPU {gpu}: no link was printed" for gpu, letters in self.gpus if not letters)


@dataclass(frozen=True, slots=True)
class LinkErrors:
    """Error counters of one GPU by link and kind; None: no number was printed."""

    gpu: int | None
    links: tuple[tuple[str, tuple[tuple[str, int | None], ...]], ...]

    def as_json(self) -> dict[str, Any]:
        """Counters under DCGM's own names."""
        return {"gpu": self.gpu, "links": {link: dict(kinds) for link, kinds in self.links}}

    @property
    def doubts(self) -> tuple[str, ...]:
        """Counters that are no number."""
        return tuple(f"{link}: {kind} is no number" for link, kinds in self.links for kind, n in kinds if n is None)


def is_states(text: str) -> bool:
    """Whether a text has the head of `dcgmi nvlink -s`."""
    return any(_GPU.match(line) for line in text.split("\n", 256)[:256])


def states(text: str) -> LinkStates:
    """Reads `dcgmi nvlink -s`. Never raises."""
    found: list[tuple[int, str]] = []
    for line in text.split("\n"):
        if head := _GPU.match(line):
            if len(found) >= MAX_GPUS:
                break
            found.append((int(head[1]), ""))
        elif found and (letters := _LETTERS.match(line)):
            found[-1] = (found[-1][0], (found[-1][1] + "".join(letters[1].split()))[:MAX_LINKS])
    return LinkStates(tuple(found))


def errors(value: dict[str, Any]) -> LinkErrors:
    """Reads the JSON of `dcgmi nvlink -e`. Raises UnreadableError where it names no link."""
    links = []
    for link, said in list(value["body"].items())[: MAX_GPUS * MAX_LINKS]:
        children = said.get("children") if isinstance(said, dict) else None
        if isinstance(children, dict):
            links.append((link[:64], tuple((kind[:64], _number(n)) for kind, n in list(children.items())[:64])))
    header = value.get("header")
    heads = [_HEADER_GPU.search(h) for h in header[:16] if isinstance(h, str)] if isinstance(header, list) else []
    gpu = next((int(head[1]) for head in heads if head), None)
    if not links:
        raise UnreadableError("JSON of dcgmi without a link in it")
    return LinkErrors(gpu, tuple(links))


def _number(value: Any) -> int | None:
    said = value.get("value") if isinstance(value, dict) else None
    text = str(said) if isinstance(said, str | int) and not isinstance(said, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None
