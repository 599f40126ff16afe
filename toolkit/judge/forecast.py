"""What a burn-in of a rack will take, before it runs: minutes, energy and power of every test that it can have.

Minutes of a node's suite are its budget; those of a collective follow from the bytes it moves and the rate of healthy
hardware on its route, or where nobody has published one from the ceiling. Energy is time under load at the power that
the profile states. What is not known is said, and added up as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from toolkit.judge import levels
from toolkit.judge.levels import WideTest
from toolkit.judge.lint import sku_named
from toolkit.judge.locate.outside import with_leaves
from toolkit.judge.pace import Shape, deadline_of, seconds_of
from toolkit.rack.burnin_plan import (
    BUDGETS,
    RAIL_SEARCH_S,
    RAIL_TEST,
    RAIL_TESTS_AT_ONCE,
    Budget,
    BurninPlan,
    Cost,
    Figure,
    Level,
    LevelName,
    PlannedTest,
    Ramp,
    rail_readings,
    run_today,
    together,
    total,
    unknown,
)
from toolkit.rack.claim import Sku, Span
from toolkit.rack.model import Profile, Rack, Suite, UnitKind, WideLevel
from toolkit.rack.power import ramp_seconds


@dataclass(frozen=True, slots=True)
class _Case:
    """What all levels are made from."""

    rack: Rack
    nodes: tuple[str, ...]
    suite: Suite
    sku: Sku | None
    others: tuple[Rack, ...]
    ramp: Ramp

    @property
    def profile(self) -> Profile:
        return self.rack.profile

    @property
    def budget(self) -> Budget:
        return BUDGETS[self.suite]


def forecast(
    rack: Rack,
    nodes: Sequence[str],
    suite: Suite,
    skus: Iterable[Sku],
    others: Sequence[Rack] = (),
    *,
    step: bool = False,
) -> BurninPlan:
    """The burn-in of these nodes of the rack. `others` are racks to measure it against; `step`: without its ramp."""
    case = _Case(
        rack, tuple(nodes), suite, sku_named(rack.profile.sku, skus), tuple(others),
        _ramp(rack.profile, len(nodes), step),
    )  # fmt: skip
    today = run_today(rack.profile, suite)
    planned = tuple(_level(name, name in today, made(case)) for name, made in _LEVELS.items())
    there = [level for level in planned if not level.absent]
    return BurninPlan(
        rack=rack.name,
        suite=suite,
        nodes=case.nodes,
        gpus=len(nodes) * rack.profile.gpus_per_node,
        levels=planned,
        today=together(level.cost for level in there if level.runs_today),
        whole=together(level.cost for level in there),
        ramp=case.ramp,
        power=_whose_power(rack.profile),
        aside=_aside(case.budget),
        held=_held(case),
    )


def _level(name: LevelName, runs: bool, made: tuple[PlannedTest, ...] | str) -> Level:
    tests, absent = ((), made) if isinstance(made, str) else (made, "")
    return Level(name, runs, tests, together(t.cost for t in tests), absent)


def _held(case: _Case) -> str:
    """Why what could be run is only planned."""
    own = case.profile.suite
    if case.suite is not own:
        return f"with suite {case.suite} the nodes alone are measured; the other levels follow suite {own}"
    return f"profile {case.profile.name} does not ask for these levels (rail_test, levels)"


def _aside(budget: Budget) -> tuple[str, ...]:
    found = ["starting programs, NCCL and its data check", "switches and cooling", "what runs again on a doubt"]
    return (*found, f"{' and '.join(budget.where_installed)}, where installed") if budget.where_installed else (*found,)


# levels: tests, or why there are none


def _on_nodes(case: _Case) -> tuple[PlannedTest, ...] | str:
    if not case.nodes:
        return "no node is to be burnt in"
    budget, gpus = case.budget, case.profile.gpus_per_node
    busy = Figure(budget.load_s, " + ".join(f"{name} {seconds:g} s" for name, seconds in budget.load))
    shape = Shape(Span.NODE, 1, gpus)
    busy = _summed(busy, *(seconds_of(case.profile, case.sku, c, shape) for c in budget.collectives if gpus > 1))
    seconds = _summed(busy, Figure(budget.rest_s, f"rest {budget.rest_s:g} s"), case.ramp.seconds)
    if not budget.load_s:
        busy = seconds = unknown(f"time of a {case.suite}: it runs every workload once, as fast as the nodes are")
    limit = Figure(budget.deadline_s, f"deadline of suite {case.suite}, {budget.deadline_s:g} s")
    limit = _summed(limit, case.ramp.seconds)
    on = f"{_count(len(case.nodes), 'node')} at once" if len(case.nodes) > 1 else case.nodes[0]
    cost = _cost(case, busy, seconds, limit, len(case.nodes), len(case.nodes) * gpus)
    return (PlannedTest(f"suite {case.suite}", on, len(case.nodes), 1, gpus, cost),)


def _on_rails(case: _Case) -> tuple[PlannedTest, ...] | str:
    """Pairs, each on one rail of two nodes, until each HCA was read often enough. Doubts take longer."""
    rack = with_leaves(case.rack)
    if why := levels.without_leaves(rack, case.nodes):
        return why
    shared = [nodes for nodes in levels.rails(rack, case.nodes).values() if len(nodes) > 1]
    if not shared:
        return "no two nodes of the plan share a leaf"
    # a rail needs a GPU of its own on each of the two nodes: more rails than GPUs take turns
    turns = -(-len(shared) // max(1, case.profile.gpus_per_node))
    pairs = -(-sum(len(nodes) // 2 for nodes in shared) // turns)
    fewest = max(_pair_rounds(len(nodes)) for nodes in shared)
    rounds = max(fewest, rail_readings(case.suite))
    partners = "each HCA with others in turn" if fewest > 1 else "each HCA with its one partner"
    at_once = min(RAIL_TESTS_AT_ONCE, pairs)
    times = turns * rounds * -(-pairs // at_once)
    on = f"{_count(at_once, 'pair')} at once over {_count(len(shared), 'rail')}, {partners}"
    shape = Shape(Span.FABRIC, 2, 2, 1, levels.ALONE)
    seconds = seconds_of(case.profile, case.sku, RAIL_TEST, shape)
    longest = min(times * RAIL_TEST.deadline_s, RAIL_SEARCH_S)
    limit = Figure(longest, f"{times} x {RAIL_TEST.deadline_s:g} s, the whole search {RAIL_SEARCH_S:g} s")
    nodes = set().union(*shared)
    return (_planned(case, RAIL_TEST.kind, on, (at_once, times, 2), seconds, limit, len(nodes)),)


def _wide(level: WideLevel) -> Callable[[_Case], tuple[PlannedTest, ...] | str]:
    """What the stage runs of this level: made by the same function."""

    def tests(case: _Case) -> tuple[PlannedTest, ...] | str:
        found = levels.wide(case.rack, case.nodes, case.suite, case.sku)[level]
        return found if isinstance(found, str) else tuple(_of_wide(case, test) for test in found)

    return tests


def _of_wide(case: _Case, test: WideTest) -> PlannedTest:
    side_by_side = max(len(wave) for wave in test.waves)
    ranks = max(c.ranks for wave in test.waves for c in wave)
    what = {
        WideLevel.DOMAIN: f"{ranks} GPUs of {len(test.nodes)} trays",
        WideLevel.LEAF: f"{_count(side_by_side, 'rail')} at once, each on its leaf, {ranks} HCAs each",
        WideLevel.UNIT: f"{ranks} GPUs of {len(test.nodes)} nodes, all rails",
    }
    waves = len(test.waves)
    limit = _times(test.deadline, waves)
    return _planned(
        case, test.kind, what[test.level], (side_by_side, waves, ranks), test.seconds, limit, len(test.nodes)
    )


def _between_racks(case: _Case) -> tuple[PlannedTest, ...] | str:
    if not case.others:
        return f"not run: it takes two racks; planned: rackproof burnin {case.rack.name} --plan --with RACK"
    unlike = [other.name for other in case.others if other.profile.name != case.profile.name]
    if unlike:
        return f"{', '.join(unlike)} is not of profile {case.profile.name}: nothing says what the two should reach"
    if not case.profile.hcas_per_node:
        return "its nodes have no HCA"
    kinds = {unit.kind for unit in case.rack.units}
    if UnitKind.LEAF in kinds and UnitKind.SPINE not in kinds:
        return f"no spine is among the units of {case.rack.name}: its leaves reach no other rack"
    racks, nodes = 1 + len(case.others), max(len(case.nodes), *(len(other.nodes) for other in case.others))
    group = Shape(Span.FABRIC, 2 * nodes, 2 * nodes * case.profile.gpus_per_node, case.profile.hcas_per_node)
    on = f"{_count(racks // 2, 'pair')} of racks at once, {group.ranks} GPUs each"
    everyone = len(case.nodes) + sum(len(other.nodes) for other in case.others)
    rounds = _pair_rounds(racks)
    return tuple(_collective(case, kind, group, on, everyone, racks // 2, rounds) for kind in levels.SPREAD)


_LEVELS: Mapping[LevelName, Callable[[_Case], tuple[PlannedTest, ...] | str]] = {
    LevelName.NODES: _on_nodes,
    LevelName.DOMAIN: _wide(WideLevel.DOMAIN),
    LevelName.RAILS: _on_rails,
    LevelName.LEAF: _wide(WideLevel.LEAF),
    LevelName.UNIT: _wide(WideLevel.UNIT),
    LevelName.RACKS: _between_racks,
}


def _pair_rounds(members: int) -> int:
    """Rounds of disjoint pairs in which each member meets both its neighbours on a ring: a link between two ends is
    not blamed on one of them before a third partner was heard.
    """
    return 1 if members == 2 else 2 + members % 2


# numbers


def _collective(
    case: _Case, kind: str, shape: Shape, on: str, nodes: int, groups: int = 1, rounds: int = 1
) -> PlannedTest:
    """A collective, with the sizes and iterations of the suite's own. All `nodes` are powered in all its rounds."""
    own = case.budget.collectives[0]
    asked = replace(own, kind=kind, smallest=levels.SMALLEST)
    seconds = seconds_of(case.profile, case.sku, asked, shape)
    limit = deadline_of(own.deadline_s, seconds, rounds)
    return _planned(case, kind, on, (groups, rounds, shape.ranks), seconds, limit, nodes)


def _planned(
    case: _Case, kind: str, on: str, size: tuple[int, int, int], seconds: Figure, limit: Figure, nodes: int
) -> PlannedTest:
    """`size`: groups side by side, rounds, ranks of a group; `seconds` of one round, `limit` of all."""
    groups, rounds, ranks = size
    seconds = _times(seconds, rounds)
    gpus = min(groups * ranks, nodes * case.profile.gpus_per_node)
    return PlannedTest(kind, on, groups, rounds, ranks, _cost(case, seconds, seconds, limit, nodes, gpus))


def _times(figure: Figure, rounds: int) -> Figure:
    if rounds == 1 or figure.value is None:
        return figure
    return replace(figure, value=rounds * figure.value, source=f"{rounds} x {figure.source}")


def _summed(*figures: Figure) -> Figure:
    added = total(figures)
    return replace(added, source=" + ".join(f.source for f in figures if f.source))


def _cost(case: _Case, busy: Figure, seconds: Figure, limit: Figure, nodes: int, gpus: int) -> Cost:
    """`busy` seconds under load, `seconds` from beginning to end, `limit` until it is ended."""
    kw = _power(case.profile, nodes, gpus)
    return Cost(_minutes(seconds), _minutes(limit), _energy(kw, busy), _energy(kw, limit), kw)


def _minutes(seconds: Figure) -> Figure:
    return replace(seconds, value=None if seconds.value is None else seconds.value / 60)


def _energy(kw: Figure, seconds: Figure) -> Figure:
    """kWh; what time or power lack, it lacks."""
    lacking = tuple(dict.fromkeys((*kw.lacking, *seconds.lacking)))
    if kw.value is None or seconds.value is None:
        return Figure(None, "", lacking)
    source = f"{kw.value:,.1f} kW x {seconds.value:,.0f} s"
    return Figure(kw.value * seconds.value / 3600, source, lacking)


def _power(profile: Profile, nodes: int, gpus: int) -> Figure:
    """At most: whole nodes where the profile states what a node takes, else their GPUs alone."""
    if profile.node_power_watts:
        watts = profile.node_power_watts
        return Figure(nodes * watts / 1000, f"{nodes} nodes x {watts:,.0f} W")
    return _gpu_power(profile, gpus)


def _gpu_power(profile: Profile, gpus: int) -> Figure:
    watts = dict(profile.expected).get("gpu_power_watts")
    if watts is None:
        return unknown(f"power: profile {profile.name} states no gpu_power_watts")
    return Figure(gpus * float(watts) / 1000, f"{gpus} GPUs x {float(watts):,.0f} W")


def _whose_power(profile: Profile) -> str:
    if profile.node_power_watts:
        return f"whole nodes at {profile.node_power_watts:,.0f} W, the most that profile {profile.name} states"
    watts = dict(profile.expected).get("gpu_power_watts")
    if watts is None:
        return f"unknown: profile {profile.name} states neither node_power_watts nor gpu_power_watts"
    return f"GPUs only, at their {float(watts):,.0f} W: profile {profile.name} states no node_power_watts"


def _ramp(profile: Profile, nodes: int, step: bool) -> Ramp:
    bounded = 0.0 if step else profile.power_ramp_kw_per_s
    if not bounded:
        return Ramp(_gpu_power(profile, nodes * profile.gpus_per_node), 0.0, Figure(0.0, ""))
    seconds = ramp_seconds(nodes, profile)
    words = f"ramp {seconds:.0f} s at {bounded:g} kW/s"
    return Ramp(_gpu_power(profile, nodes * profile.gpus_per_node), bounded, Figure(seconds, words))


def _count(number: int, of: str) -> str:
    plural = "leaves" if of == "leaf" else f"{of}s"
    return f"{number} {of if number == 1 else plural}"
