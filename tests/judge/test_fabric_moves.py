"""The fewest moves, against a search through all ways of working."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.judge.fabric.moves import Job, Site, StepKind, plan_moves

State = frozenset[frozenset[int]]
PORTS = 6  # three cables: 77 states; a fourth is searched below for rings alone
SITE: Site[int] = Site(
    where=lambda p: p // 2,
    order=lambda p: p,
    effort=lambda p: p % 2,
    dark=lambda p: p % 3 == 0,
    foreign=lambda p: p > 4,
)


def state(cables: Iterable[tuple[int, int]]) -> State:
    return frozenset(frozenset(cable) for cable in cables)


def ways(now: State, ports: int) -> Iterator[State]:
    """Everything that one act can make of the cables: out, to a free port, exchange of two ends, a new cable."""
    used = {port for cable in now for port in cable}
    free = [port for port in range(ports) if port not in used]
    for cable in now:
        yield now - {cable}
        for port in cable:
            (other,) = cable - {port}
            for to in free:
                yield (now - {cable}) | {frozenset((to, other))}
    for one, two in combinations(now, 2):
        for a in one:
            for b in two:
                (far_a,), (far_b,) = one - {a}, two - {b}
                yield (now - {one, two}) | {frozenset((b, far_a)), frozenset((a, far_b))}
    for a, b in combinations(free, 2):
        yield now | {frozenset((a, b))}


def fewest(planned: State, seen: State, ports: int) -> int:
    """By breadth first, so by no idea of rings and chains."""
    steps = {seen: 0}
    queue = deque([seen])
    while queue:
        now = queue.popleft()
        if now == planned:
            return steps[now]
        for after in ways(now, ports):
            if after not in steps:
                steps[after] = steps[now] + 1
                queue.append(after)
    raise AssertionError("every state can be reached")


def done(seen: State, jobs: Iterable[Job[int]]) -> tuple[State, int]:
    """The cables after all steps, each of which must be possible when its turn comes."""
    now, acts = set(seen), 0
    for step in (step for job in jobs for step in job.steps):
        at = {port: cable for cable in now for port in cable}
        acts += 1
        if step.kind is StepKind.SWAP:
            assert at[step.a] == {step.a, step.far_a}
            assert at[step.b] == {step.b, step.far_b}
            now -= {at[step.a], at[step.b]}
            now |= {frozenset((step.b, step.far_a)), frozenset((step.a, step.far_b))}  # type: ignore[arg-type]
        elif step.kind is StepKind.MOVE:
            assert step.b not in at
            assert at[step.a] == {step.a, step.far_a}
            now = (now - {at[step.a]}) | {frozenset((step.b, step.far_a))}  # type: ignore[arg-type]
        elif step.kind is StepKind.UNPLUG:
            now.remove(frozenset((step.a, step.b)))
        else:
            assert not {step.a, step.b} & set(at)
            now.add(frozenset((step.a, step.b)))
    return frozenset(now), acts


@st.composite
def cables(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Some cables among the ports, no port twice."""
    ports = draw(st.permutations(range(PORTS)))
    number = draw(st.integers(0, PORTS // 2))
    return list(zip(ports[: 2 * number : 2], ports[1 : 2 * number : 2], strict=True))


@settings(max_examples=200, deadline=None)
@given(cables(), cables())
def test_no_way_takes_fewer_acts_and_the_steps_lead_to_the_plan(planned, seen):
    """Whatever is planned and whatever is seen: pulled, crossed, moved, one too many, all at once."""
    jobs = plan_moves(planned, seen, SITE)
    after, acts = done(state(seen), jobs)
    assert after == state(planned)
    assert acts == fewest(state(planned), state(seen), PORTS)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_rotation_of_k_takes_k_minus_1_swaps(k):
    """Two crossed cables are one swap; no search finds less."""
    planned = [(2 * i, 2 * i + 1) for i in range(k)]
    seen = [(2 * i, (2 * i + 3) % (2 * k)) for i in range(k)]
    (job,) = plan_moves(planned, seen, SITE)
    assert [step.kind for step in job.steps] == [StepKind.SWAP] * (k - 1)
    assert job.ring == k
    assert done(state(seen), [job])[0] == state(planned)
    assert fewest(state(planned), state(seen), 2 * k) == k - 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 200))
def test_a_permutation_takes_as_many_swaps_as_cables_less_rings(seed, size):
    """Any permutation of many cables: the sum over its rings of k - 1, and a cable in its place is never touched."""
    order = list(range(size))
    random.Random(seed).shuffle(order)
    planned = [(i, 1000 + i) for i in range(size)]
    seen = [(i, 1000 + order[i]) for i in range(size)]
    rings, left = 0, set(range(size))
    while left:
        rings, i = rings + 1, left.pop()
        while order[i] in left:
            i = order[i]
            left.remove(i)
    jobs = plan_moves(planned, seen, SITE)
    steps = [step for job in jobs for step in job.steps]
    assert len(steps) == size - rings
    assert done(state(seen), jobs)[0] == state(planned)
    right = {port for i in range(size) if order[i] == i for port in planned[i]}
    assert not right & {port for step in steps for port in (step.a, step.b)}


def test_the_other_ends_of_a_ring_do_as_well():
    """`instead` is as many swaps, on the far side of the same cables, and ends in the plan too."""
    planned = [(i, 10 + i) for i in range(5)]
    seen = [(i, 10 + (i + 2) % 5) for i in range(5)]
    (job,) = plan_moves(planned, seen, SITE)
    assert done(state(seen), [Job(job.instead)])[0] == state(planned)
    near, far = ({p for s in steps for p in (s.a, s.b)} for steps in (job.steps, job.instead))
    assert not near & far


def test_work_is_where_it_needs_the_fewest_positions():
    """Ports 0 and 1 are at one position, 2 and 5 at two: the swap is at the one."""
    (job,) = plan_moves([(0, 2), (1, 5)], [(0, 5), (1, 2)], SITE)
    assert {job.steps[0].a, job.steps[0].b} == {0, 1}


def test_what_stays_missing_is_what_nobody_sees():
    """Port 3 is dark: the cable in its leaf's port goes home, and the dark one stays missing."""
    (job,) = plan_moves([(3, 1), (5, 2)], [(5, 1)], SITE)
    assert [(step.kind, step.a, step.b) for step in job.steps] == [(StepKind.MOVE, 1, 2), (StepKind.PLUG, 1, 3)]


def test_a_port_with_two_cables_is_refused():
    """Neither a plan nor a picture of a fabric can have it: the caller has to say what it means first."""
    with pytest.raises(ValueError, match="the port 1 has two planned cables"):
        plan_moves([(1, 2), (1, 3)], [], SITE)


def test_cables_that_are_right_give_no_work():
    """Whichever way round they are written."""
    assert plan_moves([(1, 2), (3, 4)], [(4, 3), (2, 1)], SITE) == ()
