"""The next round: disjoint tests, run in parallel, that tell most. None when more rounds cannot change the verdict.

Suspects come first, each beside partners that are ruled out; of several ways to group them, the one with the greatest
expected gain of information is taken. Endpoints that no suspect needs are screened where something is still open.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from toolkit.judge.locate.evidence import SMALL_TEST
from toolkit.judge.locate.fabric import Block, Plane, Test
from toolkit.judge.locate.observation import CORRUPT, ERRORS, FIRST_LEVEL, INTERMITTENT, LEVELS, SPREAD
from toolkit.judge.locate.parts import SegmentKind
from toolkit.judge.locate.posterior import Belief
from toolkit.judge.locate.suspects import convicted

_WORTH_A_TEST = 0.003  # probability from which on a segment gets a test of its own
_MOST_SUSPECTS = 512
_GROUPINGS = (1, 2, SMALL_TEST - 1)  # suspects a test
_TEST_COST = 0.002  # bits: of two rounds that tell the same, the one with fewer tests
_NEVER_SURE = 0.9  # a suspect that is likely but lacks a second reading is still worth a test
_MOST_READINGS = 12  # of one segment: noise that has not settled by then is not settled by one more
_MOST_READINGS_SHARED = 400


@dataclass(frozen=True, slots=True)
class Round:
    """Tests that share no endpoint. Empty: the verdict stands. `gain_bits` is what they are expected to tell."""

    tests: tuple[Test, ...]
    gain_bits: float
    reason: str


def next_round(belief: Belief, soak: int = 0) -> Round:
    """What to run next.

    soak   readings that every endpoint's own segment gets at least, however well the first ones were: a link that is
           down in three tests of ten is missed by eight of them in 6 racks of 100, by one in 70
    """
    proven = {s for s in belief.probability if convicted(belief, s)}
    usable = _usable(belief, proven)
    strays = tuple(belief.evidence.ways.tests(belief.evidence.fabric, usable))
    held = {e for t in strays for e in t.members}
    usable = {plane: ends - held for plane, ends in usable.items()}
    suspects = _suspects(belief, proven)
    readable = _readable(belief, proven, usable, held)
    wanted = _endpoints_of(belief, suspects, readable)
    gain, focus = _focus(belief, suspects, wanted, (usable, readable))
    busy = {e for t in focus for e in t.members}
    if focus:
        busy |= {e for _, e in wanted}  # a suspect left over would only spoil a screen
    asked = belief.open | _too_seldom_read(belief, usable, soak)
    tests = (*strays, *focus, *_screens(belief, usable, busy | held, asked))
    reason = f"{len(suspects)} suspects, {len(belief.open)} segments not ruled out" if tests else "settled"
    if strays:
        reason += f", {len(strays)} tests to tell whose configuration takes them another way"
    return Round(tests, gain, reason)


def _too_seldom_read(belief: Belief, usable: dict[Plane, frozenset[int]], soak: int) -> frozenset[int]:
    """Endpoints' own segments with fewer readings than that."""
    evidence = belief.evidence
    own = {evidence.fabric.columns(plane)[0][e] for plane, ends in usable.items() for e in ends}
    return frozenset(s for s in own if len(evidence.full.get(s, ())) < soak)


def _focus(
    belief: Belief,
    suspects: dict[int, float],
    wanted: Sequence[tuple[Plane, int]],
    partners: tuple[dict[Plane, frozenset[int]], dict[Plane, frozenset[int]]],
) -> tuple[float, list[Test]]:
    """Tests of the suspects in the grouping that tells most, and the bits it is expected to tell.

    `partners`: usable ones, and those for a block that has none of these.
    """
    best: tuple[float, list[Test]] = (0.0, [])
    for size in _GROUPINGS:
        tests = list(_group(belief, wanted, partners, size))
        value = _gain(belief, suspects, tests)
        if value - _TEST_COST * len(tests) > best[0] - _TEST_COST * len(best[1]):
            best = (value, tests)
    return best


def _usable(belief: Belief, proven: set[int]) -> dict[Plane, frozenset[int]]:
    """Endpoints whose tests no known fault or configuration spoils.

    A GPU that hangs or corrupts spoils those on its rail too.
    """
    fabric, ways = belief.evidence.fabric, belief.evidence.ways
    fatal = {s for s in proven if belief.mode[s] >= CORRUPT}
    usable = {}
    for plane in Plane:
        members = {e for b in fabric.blocks if b.plane is plane for e in b.members}
        if proven:
            spoilt = {e for column in fabric.columns(plane) for e in members if column[e] in proven}
            members -= spoilt | {e for e in members if fabric.gpu[e] in fatal}
        usable[plane] = frozenset(members - ways.unmeasured(plane))
    return usable


def _readable(
    belief: Belief, proven: set[int], usable: dict[Plane, frozenset[int]], held: set[int]
) -> dict[Plane, frozenset[int]]:
    """Endpoints where a suspect can be read: a node or a leaf that is only slow hides no worse, and no counter."""
    fabric, ways = belief.evidence.fabric, belief.evidence.ways
    slow = {s for s in proven if belief.mode[s] < CORRUPT}
    readable = {}
    for plane, ends in usable.items():
        own, *shared = fabric.columns(plane)
        hidden = {
            e
            for e in {e for b in fabric.blocks if b.plane is plane for e in b.members} - ends - held
            if own[e] not in proven and not any(c[e] in proven - slow for c in (*shared, fabric.gpu))
        }
        readable[plane] = ends | (hidden - ways.unmeasured(plane))
    return readable


def _suspects(belief: Belief, proven: set[int]) -> dict[int, float]:
    """Segments that are neither proven nor ruled out and may yet be told apart, likeliest first."""
    found = [
        (p, s)
        for s, p in belief.probability.items()
        if p >= _WORTH_A_TEST and s not in proven and _worth_reading(belief, s)
    ]
    found.sort(key=lambda pair: (-pair[0], pair[1]))
    return {s: p for p, s in found[:_MOST_SUSPECTS]}


def _worth_reading(belief: Belief, segment: int) -> bool:
    """Whether another reading may change what is said of it. Shared segments are in many tests a round anyway."""
    kind = belief.evidence.fabric.segments[segment].kind
    most = _MOST_READINGS if kind in (SegmentKind.GPU, SegmentKind.ATTACHMENT) else _MOST_READINGS_SHARED
    return len(belief.evidence.full.get(segment, ())) < most


def _endpoints_of(
    belief: Belief, suspects: dict[int, float], usable: dict[Plane, frozenset[int]]
) -> list[tuple[Plane, int]]:
    """Where the suspects are tested, likeliest first; an endpoint is tested on one plane a round."""
    fabric, readings = belief.evidence.fabric, belief.evidence.readings
    at: dict[int, list[tuple[Plane, int]]] = defaultdict(list)
    columns = ((Plane.NVLINK, fabric.gpu), (Plane.RAIL, fabric.attachment), *((p, fabric.node) for p in Plane))
    for plane, column in columns:
        for e in sorted(e for e in usable[plane] if column[e] in suspects):
            at[column[e]].append((plane, e))
    wanted: dict[int, tuple[Plane, int]] = {}
    for s in suspects:
        # What is suspected on both planes is tested on the one that knows it least: that tells the two apart.
        for plane, e in sorted(at[s], key=lambda where: readings[where[0]][where[1]]):
            known = wanted.setdefault(e, (plane, e))
            if readings[plane][e] < readings[known[0]][e]:
                wanted[e] = plane, e
    return list(wanted.values())


def _group(
    belief: Belief,
    wanted: Sequence[tuple[Plane, int]],
    partners: tuple[dict[Plane, frozenset[int]], dict[Plane, frozenset[int]]],
    size: int,
) -> Iterator[Test]:
    """Tests of `size` wanted endpoints and a partner that is ruled out; without such, of two wanted ones."""
    fabric, met = belief.evidence.fabric, belief.evidence.met
    asked = {plane: {e for p, e in wanted if p is plane} for plane in Plane}
    taken = {e for _, e in wanted}
    for block in fabric.blocks:
        if asked[block.plane].isdisjoint(block.members):
            continue
        here = [e for e in block.members if e in asked[block.plane]]
        usable, readable = (p[block.plane] for p in partners)
        source = readable if usable.isdisjoint(block.members) else usable
        free = [e for e in block.members if e in source and e not in taken]
        free.sort(key=lambda e: _doubt(belief, block.plane, e))
        yield from _fill(block.plane, here, free, met, size)


def _fill(plane: Plane, here: list[int], free: list[int], met: dict[int, set[int]], size: int) -> Iterator[Test]:
    left = list(here)
    while left:
        chosen, left = left[:size], left[size:]
        if free:
            partner = next((e for e in free if e not in met[chosen[0]]), free[0])
            free.remove(partner)
            chosen.append(partner)
        while len(chosen) < 2 and left:
            other = next((e for e in left if e not in met[chosen[0]]), left[0])
            left.remove(other)
            chosen.append(other)
        if len(chosen) > 1:
            yield Test(plane, tuple(sorted(chosen)))


def _doubt(belief: Belief, plane: Plane, endpoint: int) -> tuple[int, float]:
    """How little an endpoint is known to be good: whether it is still open, and its probability."""
    fabric = belief.evidence.fabric
    own = fabric.columns(plane)[0][endpoint], fabric.node[endpoint]
    return sum(s in belief.open for s in own), max(belief.probability.get(s, 0.0) for s in own)


def _gain(belief: Belief, suspects: dict[int, float], tests: Sequence[Test]) -> float:
    """Bits the tests are expected to tell: entropy of who is in which test, less what noise hides.

    An approximation: the suspects are weighed as if one of them were the fault, and a level's power as for one reading.
    """
    total = sum(suspects.values())
    if not tests or total <= 0:
        return 0.0
    crossed: dict[int, list[int]] = defaultdict(list)
    for t, test in enumerate(tests):
        for s in belief.evidence.path(test).full:
            if s in suspects:
                crossed[s].append(t)
    mass: dict[tuple[int, ...], float] = defaultdict(float)
    for s, p in suspects.items():
        mass[tuple(crossed[s])] += min(p, _NEVER_SURE) * _power(belief.mode[s]) / max(total, 1.0)
    rest = max(0.0, 1.0 - sum(m for key, m in mass.items() if key))
    mass[()] = rest
    return -sum(m * math.log2(m) for m in mass.values() if m > 0)


def _power(mode: int) -> float:
    """Chance that one reading shows the mode."""
    if mode == ERRORS:
        return 0.7
    if mode == INTERMITTENT:
        return 0.4
    if FIRST_LEVEL <= mode < FIRST_LEVEL + len(LEVELS):
        distance = (1.0 - LEVELS[mode - FIRST_LEVEL]) / SPREAD
        return 0.5 * (1.0 + math.erf((distance - 2.0) / math.sqrt(2.0)))
    return 0.9


def _screens(
    belief: Belief, usable: dict[Plane, frozenset[int]], busy: set[int], asked: frozenset[int]
) -> Iterator[Test]:
    """Groups that read the segments asked for: first the plane where most of them has never been tested."""
    evidence = belief.evidence
    blocks = list(zip(evidence.fabric.blocks, evidence.blocks, strict=True))
    lacking: dict[Plane, tuple[int, int]] = {}
    for plane in Plane:
        still = {s for block, crossed in blocks if block.plane is plane for s in crossed & asked}
        lacking[plane] = (sum(s not in evidence.full for s in still), len(still))
    for plane in sorted(Plane, key=lambda p: lacking[p], reverse=True):
        for block, crossed in blocks:
            if block.plane is plane and not crossed.isdisjoint(asked):
                yield from _screen(belief, block, usable[plane], busy, asked)


def _screen(
    belief: Belief, block: Block, usable: frozenset[int], busy: set[int], asked: frozenset[int]
) -> Iterator[Test]:
    """The block's next pattern, for groups with something in them that is asked for. Adds to `busy`."""
    done = _patterns_done(belief, block, usable)
    groups = [[e for e in group if e in usable and e not in busy] for group in _pattern(block, done)]
    for group in _in_company(groups):
        test = Test(block.plane, tuple(sorted(group)))
        crossed = belief.evidence.path(test).full
        if any(s in asked and _worth_reading(belief, s) for s in crossed):
            busy.update(group)
            yield test


def _patterns_done(belief: Belief, block: Block, usable: frozenset[int]) -> int:
    """How often the block was screened: readings of its least read member that can be read at all."""
    evidence, fabric = belief.evidence, belief.evidence.fabric
    column = fabric.columns(block.plane)[0]
    return min((len(evidence.full.get(column[e], ())) for e in block.members if e in usable), default=0)


def _pattern(block: Block, number: int) -> Iterable[Sequence[int]]:
    """Groups of pattern 0 (rows), 1 (columns), 2 and on (diagonals): no two share a pair while they last."""
    rows = block.rows
    if number == 0 or len(rows) == 1:
        return rows
    width = max(len(r) for r in rows)
    groups: list[list[int]] = [[] for _ in range(width)]
    for r, row in enumerate(rows):
        for c, e in enumerate(row):
            groups[(c + (number - 1) * r) % width].append(e)
    return _in_company(groups)


def _in_company(groups: Iterable[list[int]]) -> list[list[int]]:
    """Groups of two and more: whoever is alone joins the last of them, or others that are."""
    found = list(groups)
    whole = [g for g in found if len(g) > 1]
    lonely = [e for g in found if len(g) == 1 for e in g]
    if lonely and whole:
        whole[-1].extend(lonely)
    elif len(lonely) > 1:
        whole.append(lonely)
    return whole
