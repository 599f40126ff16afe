"""Among which nodes does a collective go wrong? Halving, and then one by one beside nodes that are well. Pure.

A collective that is bad among many names nobody. Halves of its nodes are measured side by side; the bad half is halved
again, for as long as exactly one half is bad. What is left over is measured by itself: if it is well, those that are
left are added to it one at a time. A node with which it is bad, and without which it is not, is a suspect. That is no
verdict on its hardware: the leaf's port, the cable and the path to it are among what came along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Nodes = tuple[str, ...]
Round = Callable[[Sequence[Nodes]], Sequence[bool | None]]
"""Measures groups that have no node in common, side by side: whether each is bad; None: it told nothing."""
FEWEST = 2
_HALVES: Mapping[tuple[bool | None, ...], str] = {
    (True, True): "both halves are bad",
    (False, False): "neither half of them is bad alone",
}
MOST_ONE_BY_ONE = 4  # beyond that, so many nodes are bad together that the fault is in what they share


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What halving came to.

    suspects  nodes that it is bad among, or with; the others are `cleared`
    cleared   nodes that were measured together without the suspects, and are well
    rounds    of tests
    why       what it rests on, in words
    """

    suspects: Nodes
    cleared: Nodes
    rounds: int
    why: str


def narrow(nodes: Nodes, measure: Round, out_of_time: Callable[[], bool]) -> Narrowed:
    """The fewest nodes that the collective is bad among. All of them, where nothing could be told apart."""
    left, rounds, why = nodes, 0, "they are too few to be told apart"
    while len(left) >= 2 * FEWEST:
        if out_of_time():
            why = "there was no time"
            break
        half = len(left) // 2
        one, other = left[:half], left[half:]
        rounds += 1
        bad = tuple(measure((one, other)))
        if bad not in ((True, False), (False, True)):
            why = _HALVES.get(bad, "a half of them told nothing")
            break
        left = one if bad[0] else other
    rest = tuple(n for n in nodes if n not in left)
    if len(rest) < FEWEST:
        return Narrowed(nodes, (), rounds, why)
    rounds += 1
    (still,) = measure((rest,))
    if still is not False:
        return Narrowed(nodes, (), rounds, f"it is bad among {_some(left)} and not only among them")
    return _one_by_one(left, rest, rounds, measure, out_of_time)


def _one_by_one(left: Nodes, rest: Nodes, rounds: int, measure: Round, out_of_time: Callable[[], bool]) -> Narrowed:
    """Each of what is left beside those that are well."""
    guilty: list[str] = []
    for node in left if len(left) <= MOST_ONE_BY_ONE else ():
        if out_of_time():
            guilty = list(left)
            break
        rounds += 1
        (bad,) = measure(((*rest, node),))
        guilty += [] if bad is False else [node]
    suspects = tuple(guilty) or left
    cleared = tuple(n for n in (*rest, *left) if n not in suspects)
    lone = guilty and len(guilty) < len(left)
    how = "with it and not without it" if lone and len(guilty) == 1 else "among them and not without them"
    return Narrowed(suspects, cleared if lone else rest, rounds, f"it is bad {how}")


def _some(nodes: Nodes) -> str:
    return ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")
