"""The fewest moves from cables as seen to cables as planned.

Ports are the points of a graph, planned and seen cables its two kinds of edges; what is on both is right and left
alone. Every port has one edge of each kind at most, so what is left falls apart into rings and chains whose edges
alternate, and each is mended by itself:

- a ring of k cables: k - 1 swaps, all on one side of the cables. No exchange of two ends can make more than one ring
  of one, and k rings are wanted;
- a chain that ends in a free port and a port that the plan does not use: as many moves as cables;
- a chain between two free ports: as many moves as cables, and one planned cable is missing in the end;
- a chain between two ports that the plan does not use: one cable is too many and comes out, the others move.

The same counting as the distance of two genomes under double cut and join (Bergeron, Mixtacki, Stoye 2006); the tests
compare it with a search through all ways of working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

P = TypeVar("P")  # a port: anything that hashes
Pair = tuple[P, P]


class StepKind(StrEnum):
    """What is done with the hands."""

    SWAP = "swap"  # exchange the ends in ports a and b
    MOVE = "move"  # the end in port a goes to port b, which is free by then
    UNPLUG = "unplug"  # the cable a - b is one too many
    PLUG = "plug"  # no cable is seen between a and b: it is out, dead or dark


@dataclass(frozen=True, slots=True)
class Step(Generic[P]):
    """One act. far_a, far_b: where the other ends of the cables in a and b are; None where there is none."""

    kind: StepKind
    a: P
    b: P
    far_a: P | None = None
    far_b: P | None = None


@dataclass(frozen=True, slots=True)
class Job(Generic[P]):
    """Steps that belong together, in the order to do them. ring: k for a ring of k cables, 0 for a chain.

    instead   a ring's same work at the other ends
    frees     free ports that a chain relies on
    """

    steps: tuple[Step[P], ...]
    ring: int = 0
    instead: tuple[Step[P], ...] = ()
    frees: tuple[P, ...] = ()


@dataclass(frozen=True, slots=True)
class Site(Generic[P]):
    """What is known of ports beyond their cables.

    where    the position a technician stands at for this port
    order    sorts ports, so that the same fabric always gives the same work
    effort   how unwelcome work at this port is: the lesser is preferred where positions are as many
    dark     its device is not seen at all: a cable to it may as well stay missing
    foreign  not of the plan's devices
    """

    where: Callable[[P], Any]
    order: Callable[[P], Any]
    effort: Callable[[P], int]
    dark: Callable[[P], bool]
    foreign: Callable[[P], bool]


def plan_moves(planned: Iterable[Pair[P]], seen: Iterable[Pair[P]], site: Site[P]) -> tuple[Job[P], ...]:
    """Jobs that turn `seen` into `planned`. ValueError where a port has two cables of one kind."""
    wanted, there = {frozenset(pair) for pair in planned}, {frozenset(pair) for pair in seen}
    to_be, is_now = _partners(wanted - there, "planned"), _partners(there - wanted, "seen")
    left = sorted({*to_be, *is_now}, key=site.order)
    done: set[P] = set()
    jobs = []
    for start in [p for p in left if (p in to_be) is not (p in is_now)]:  # ends of chains
        if start not in done:
            chain = _walk(start, to_be, is_now, start in is_now)
            done.update(chain)
            jobs.append(_chain(chain, start in is_now, site))
    for start in left:
        if start not in done:
            ring = _walk(start, to_be, is_now, True)
            done.update(ring)
            jobs.append(_ring(ring, site))
    return tuple(jobs)


def _partners(edges: Iterable[frozenset[P]], kind: str) -> dict[P, P]:
    partner: dict[P, P] = {}
    for edge in edges:
        a, b = edge
        for port, other in ((a, b), (b, a)):
            if port in partner:
                raise ValueError(f"the port {port} has two {kind} cables, to {partner[port]} and {other}")
            partner[port] = other
    return partner


def _walk(start: P, to_be: Mapping[P, P], is_now: Mapping[P, P], seen_next: bool) -> list[P]:
    """The ports of a chain from its end, or of a ring from `start`, along edges of alternating kind."""
    ports = [start]
    while True:
        after = (is_now if seen_next else to_be).get(ports[-1])
        if after is None or after == start:
            return ports
        ports.append(after)
        seen_next = not seen_next


def _ring(ports: Sequence[P], site: Site[P]) -> Job[P]:
    """ports: seen edge, planned edge, seen edge, ...: the cable in ports[2i] has its other end in ports[2i+1]."""
    even = _swaps(ports[0::2], ports[1::2])
    # From the other side the ring runs backwards: the cable in ports[2i+1] belongs into ports[2i-1].
    back = [ports[0], *reversed(ports[1:])]
    odd = _swaps(back[1::2], back[2::2] + back[:1])
    best, other = sorted((even, odd), key=lambda steps: _walking(steps, site))
    return Job(best, ring=len(ports) // 2, instead=other)


def _walking(steps: Sequence[Step[P]], site: Site[P]) -> tuple[int, int]:
    touched = {port for step in steps for port in (step.a, step.b)}
    return len({site.where(port) for port in touched}), sum(site.effort(port) for port in touched)


def _swaps(near: Sequence[P], far: Sequence[P]) -> tuple[Step[P], ...]:
    """The cable near[i] - far[i] belongs into near[i+1], round the ring: every swap sets one right, the last two."""
    pivot = near[0]
    return tuple(Step(StepKind.SWAP, pivot, near[i], far[i - 1], far[i]) for i in range(1, len(near)))


def _chain(ports: list[P], seen_first: bool, site: Site[P]) -> Job[P]:
    seen_last = seen_first is (len(ports) % 2 == 0)
    if seen_first and seen_last:
        return _surplus(ports, site)
    if seen_first or seen_last:
        ports = ports if seen_first else ports[::-1]
        return Job(_shifts(ports), frees=(ports[-1],))
    return _short(ports, site)


def _shifts(ports: Sequence[P]) -> tuple[Step[P], ...]:
    """Seen, planned, ..., planned; the last port is free. From there on back, each end moves up by one."""
    return tuple(Step(StepKind.MOVE, ports[i], ports[i + 2], far_a=ports[i + 1]) for i in range(len(ports) - 3, -1, -2))


def _surplus(ports: list[P], site: Site[P]) -> Job[P]:
    """Seen, planned, ..., seen: the last cable comes out, then its port is free for the one before."""
    if len(ports) > 2 and (site.foreign(ports[0]), site.effort(ports[-1])) > (
        site.foreign(ports[-1]),
        site.effort(ports[0]),
    ):
        ports = ports[::-1]
    out: Step[P] = Step(StepKind.UNPLUG, ports[-2], ports[-1])
    return Job((out, *_shifts(ports[:-1])))


def _short(ports: list[P], site: Site[P]) -> Job[P]:
    """Planned, seen, ..., planned: one planned cable stays missing, best the one to a device nobody sees."""
    if len(ports) > 2:
        moved = ports[0:-2:2], ports[3::2]  # where ends go if the last, or if the first, stays missing
        dark = site.dark(ports[0]) - site.dark(ports[-1])
        effort = sum(map(site.effort, moved[0])) - sum(map(site.effort, moved[1]))
        if (dark, effort) > (0, 0):
            ports = ports[::-1]
    moves = _shifts(ports[-2::-1])  # seen from its far end: the port before the last is its first, ports[0] is free
    missing: Step[P] = Step(StepKind.PLUG, ports[-2], ports[-1])
    return Job((*moves, missing), frees=(ports[0],) if moves else ())
