"""What a burn-in of a rack will take, before it runs: minutes, energy and power of every test that it can have.

Minutes of a node's suite are its budget; those of a collective follow from the bytes it moves and the rate of healthy
hardware on its route, or where nobody has published one from the ceiling. Energy is time under load at the power that
the profile states. What is not known is said, and added up as nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from toolkit.judge.lint import reference_of, sku_named
from toolkit.judge.route import COLLECTIVES, route
from toolkit.rack.burnin_plan import (
    BUDGETS,
    RUN_TODAY,
    Budget,
    BurninPlan,
    Collective,
    Cost,
    Figure,
    Level,
    LevelName,
    PlannedTest,
    Ramp,
    together,
    total,
    unknown,
)
from toolkit.rack.claim import Claim, Sku, Span
from toolkit.rack.gate import Operator
from toolkit.rack.model import LinkKind, Mode, Profile, Rack, Suite, UnitKind
from toolkit.rack.power import ramp_seconds

_DOMAIN_IS_RACK = (Mode.MNNVL_HOST_IMEX, Mode.MNNVL_DRA)
# SSH to every node, MPI's daemons, NCCL's bootstrap: what a collective's deadline has beyond that of one node. Policy
# of this project: nobody publishes a figure.
LAUNCH_S = 60.0
# A slow rail is to be measured, not cut off: a deadline is twice what the test takes, or the node's if that is longer.
_PATIENCE = 2
# From this size of a share on, as the node's own collectives do (burnin/nccl/collective.py)
_SMALLEST = 128 << 10
_SPREAD = (
    "all_reduce",
    "alltoall",
)  # all_reduce crosses every cable evenly, alltoall joins every port with every other
_LINK_OFF = (("NCCL_MNNVL_ENABLE", "0"),)  # or NCCL would carry between trays over NVLink what is to cross the rails


@dataclass(frozen=True, slots=True)
class _Group:
    """One communicator: `ranks` GPUs on `nodes` nodes, `nics` HCAs of each (0: all)."""

    span: Span
    nodes: int
    ranks: int
    nics: int = 0
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
    """What all levels are made from. `rails` are the nodes of the plan by (leaf, rail)."""

    rack: Rack
    nodes: tuple[str, ...]
    suite: Suite
    sku: Sku | None
    others: tuple[Rack, ...]
    ramp: Ramp
    rails: Mapping[tuple[str, int], tuple[str, ...]]

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
        _ramp(rack.profile, len(nodes), step), _rails(rack, nodes),
    )  # fmt: skip
    levels = tuple(_level(name, made(case)) for name, made in _LEVELS.items())
    there = [level for level in levels if not level.absent]
    return BurninPlan(
        rack=rack.name,
        suite=suite,
        nodes=case.nodes,
        gpus=len(nodes) * rack.profile.gpus_per_node,
        levels=levels,
        today=together(level.cost for level in there if level.runs_today),
        whole=together(level.cost for level in there),
        ramp=case.ramp,
        power=_whose_power(rack.profile),
        aside=_aside(case.budget),
    )


def _level(name: LevelName, made: tuple[PlannedTest, ...] | str) -> Level:
    tests, absent = ((), made) if isinstance(made, str) else (made, "")
    return Level(name, name in RUN_TODAY, tests, together(t.cost for t in tests), absent)


def _aside(budget: Budget) -> tuple[str, ...]:
    found = ["starting programs, NCCL and its data check", "switches and cooling", "what runs again on a doubt"]
    return (*found, f"{' and '.join(budget.where_installed)}, where installed") if budget.where_installed else (*found,)


# levels: tests, or why there are none


def _on_nodes(case: _Case) -> tuple[PlannedTest, ...] | str:
    if not case.nodes:
        return "no node is to be burnt in"
    budget, gpus = case.budget, case.profile.gpus_per_node
    busy = Figure(budget.load_s, " + ".join(f"{name} {seconds:g} s" for name, seconds in budget.load))
    group = _Group(Span.NODE, 1, gpus)
    busy = _summed(busy, *(_seconds(case, c, group) for c in budget.collectives if gpus > 1))
    seconds = _summed(busy, Figure(budget.rest_s, f"rest {budget.rest_s:g} s"), case.ramp.seconds)
    if not budget.load_s:
        busy = seconds = unknown(f"time of a {case.suite}: it runs every workload once, as fast as the nodes are")
    limit = Figure(budget.deadline_s, f"deadline of suite {case.suite}, {budget.deadline_s:g} s")
    limit = _summed(limit, case.ramp.seconds)
    on = f"{_count(len(case.nodes), 'node')} at once" if len(case.nodes) > 1 else case.nodes[0]
    cost = _cost(case, busy, seconds, limit, len(case.nodes), len(case.nodes) * gpus)
    return (PlannedTest(f"suite {case.suite}", on, len(case.nodes), 1, gpus, cost),)


def _in_domain(case: _Case) -> tuple[PlannedTest, ...] | str:
    if case.profile.mode is Mode.PCIE:
        return "its GPUs have no NVLink"
    if case.profile.mode not in _DOMAIN_IS_RACK:
        return "NVLink ends at the node, whose suite measures it"
    if len(case.nodes) < 2:
        return _alone(case)
    ranks = len(case.nodes) * case.profile.gpus_per_node
    group = _Group(Span.DOMAIN, len(case.nodes), ranks)
    on = f"{ranks} GPUs of {len(case.nodes)} trays"
    return tuple(_collective(case, kind, group, on, group.nodes) for kind in COLLECTIVES)


def _on_rails(case: _Case) -> tuple[PlannedTest, ...] | str:
    if why := _without_leaves(case):
        return why
    shared = [nodes for nodes in case.rails.values() if len(nodes) > 1]
    if not shared:
        return "no two nodes of the plan share a leaf"
    # a rail needs a GPU of its own on each of the two nodes: more rails than GPUs take turns
    turns = -(-len(shared) // max(1, case.profile.gpus_per_node))
    pairs = -(-sum(len(nodes) // 2 for nodes in shared) // turns)
    rounds = max(_pair_rounds(len(nodes)) for nodes in shared)
    partners = "each HCA with two partners" if rounds > 1 else "each HCA with its one partner"
    on = f"{_count(pairs, 'pair')} at once over {_count(len(shared), 'rail')}, {partners}"
    group = _Group(Span.FABRIC, 2, 2, 1, _LINK_OFF)
    nodes = len(set().union(*shared))
    return (_collective(case, "sendrecv", group, on, nodes, pairs, turns * rounds),)


def _on_leaves(case: _Case) -> tuple[PlannedTest, ...] | str:
    if why := _without_leaves(case):
        return why
    by_leaf: dict[str, list[tuple[str, ...]]] = {}
    for (leaf, _), joined in sorted(case.rails.items()):
        by_leaf.setdefault(leaf, []).append(joined)
    most = max((len(set().union(*rails)) for rails in by_leaf.values()), default=0)
    nodes = len(set().union(*case.rails.values()))
    if most < 3:
        return "no leaf joins more than two nodes of the plan: their pairs are all there is"
    rails = max(len(r) for r in by_leaf.values())
    ranks = max(sum(map(len, r)) for r in by_leaf.values())
    group = _Group(Span.FABRIC, most, ranks, rails, _LINK_OFF)
    on = f"{_count(len(by_leaf), 'leaf')} at once, {ranks} HCAs each"
    return tuple(_collective(case, kind, group, on, nodes, len(by_leaf)) for kind in _SPREAD)


def _on_unit(case: _Case) -> tuple[PlannedTest, ...] | str:
    if case.profile.mode in _DOMAIN_IS_RACK:
        return "NVLink joins the whole rack; a scalable unit is several such racks"
    if why := _without_leaves(case):
        return why
    if len({leaf for leaf, _ in case.rails}) < 2:
        return "one leaf joins all of it: its level is this one"
    ranks = len(case.nodes) * case.profile.gpus_per_node
    group = _Group(Span.FABRIC, len(case.nodes), ranks, case.profile.hcas_per_node)
    on = f"{ranks} GPUs of {len(case.nodes)} nodes, all rails"
    return tuple(_collective(case, kind, group, on, group.nodes) for kind in COLLECTIVES)


def _between_racks(case: _Case) -> tuple[PlannedTest, ...] | str:
    if not case.others:
        return f"one rack is planned; with another: rackproof burnin {case.rack.name} --plan --with RACK"
    unlike = [other.name for other in case.others if other.profile.name != case.profile.name]
    if unlike:
        return f"{', '.join(unlike)} is not of profile {case.profile.name}: nothing says what the two should reach"
    if not case.profile.hcas_per_node:
        return "its nodes have no HCA"
    kinds = {unit.kind for unit in case.rack.units}
    if UnitKind.LEAF in kinds and UnitKind.SPINE not in kinds:
        return f"no spine is among the units of {case.rack.name}: its leaves reach no other rack"
    racks, nodes = 1 + len(case.others), max(len(case.nodes), *(len(other.nodes) for other in case.others))
    group = _Group(Span.FABRIC, 2 * nodes, 2 * nodes * case.profile.gpus_per_node, case.profile.hcas_per_node)
    on = f"{_count(racks // 2, 'pair')} of racks at once, {group.ranks} GPUs each"
    everyone = len(case.nodes) + sum(len(other.nodes) for other in case.others)
    rounds = _pair_rounds(racks)
    return tuple(_collective(case, kind, group, on, everyone, racks // 2, rounds) for kind in _SPREAD)


_LEVELS: Mapping[LevelName, Callable[[_Case], tuple[PlannedTest, ...] | str]] = {
    LevelName.NODES: _on_nodes,
    LevelName.DOMAIN: _in_domain,
    LevelName.RAILS: _on_rails,
    LevelName.LEAF: _on_leaves,
    LevelName.UNIT: _on_unit,
    LevelName.RACKS: _between_racks,
}


def _alone(case: _Case) -> str:
    return f"{case.nodes[0]} is alone: it has no partner" if case.nodes else "no node is to be burnt in"


def _without_leaves(case: _Case) -> str:
    """Why nothing can be tested over leaves; empty where it can."""
    if len(case.nodes) < 2:
        return _alone(case)
    if not case.profile.hcas_per_node:
        return "its nodes have no HCA"
    if all(unit.kind is not UnitKind.LEAF for unit in case.rack.units):
        return "its rails leave the rack: no leaf is among its units"
    return "" if case.rails else "no cable from a node of the plan to a leaf is declared"


def _rails(rack: Rack, nodes: Iterable[str]) -> dict[tuple[str, int], tuple[str, ...]]:
    """By leaf and rail: the nodes among these that have a cable there."""
    leaves = {unit.name for unit in rack.units if unit.kind is UnitKind.LEAF}
    rail_of = {(unit.name, hca.name): hca.rail for unit in rack.nodes for hca in unit.hcas}
    wanted, found = set(nodes), dict[tuple[str, int], list[str]]()
    for link in rack.links:
        for near, far in ((link.a, link.b), (link.b, link.a)):
            rail = rail_of.get((near.unit, near.port))
            if link.kind is LinkKind.INFINIBAND and far.unit in leaves and near.unit in wanted and rail is not None:
                found.setdefault((far.unit, rail), []).append(near.unit)
    return {where: tuple(at) for where, at in found.items()}


def _pair_rounds(members: int) -> int:
    """Rounds of disjoint pairs in which each member meets both its neighbours on a ring: a link between two ends is
    not blamed on one of them before a third partner was heard.
    """
    return 1 if members == 2 else 2 + members % 2


# numbers


def _collective(
    case: _Case, kind: str, group: _Group, on: str, nodes: int, groups: int = 1, rounds: int = 1
) -> PlannedTest:
    """A collective, with the sizes and iterations of the suite's own. All `nodes` are powered in all its rounds."""
    own = case.budget.collectives[0]
    seconds = _seconds(case, replace(own, kind=kind, smallest=_SMALLEST), group)
    limit = _deadline(own.deadline_s, seconds, rounds)
    if rounds > 1 and seconds.value is not None:
        seconds = replace(seconds, value=rounds * seconds.value, source=f"{rounds} x {seconds.source}")
    gpus = min(groups * group.ranks, nodes * case.profile.gpus_per_node)
    return PlannedTest(kind, on, groups, rounds, group.ranks, _cost(case, seconds, seconds, limit, nodes, gpus))


def _deadline(on_node_s: float, seconds: Figure, rounds: int) -> Figure:
    """Of all rounds, from the deadline of a node's collective and the seconds that one round takes."""
    limit_s, words = on_node_s, f"{on_node_s:g} s as on a node"
    if seconds.value is not None and _PATIENCE * seconds.value > on_node_s:
        limit_s, words = _PATIENCE * seconds.value, f"{_PATIENCE} x {seconds.value:.0f} s"
    times = f"{rounds} x " if rounds > 1 else ""
    launch = f"{LAUNCH_S:g} s to launch, policy of this project"
    return Figure(rounds * (limit_s + LAUNCH_S), f"deadline {times}({words} + {launch})")


def _seconds(case: _Case, asked: Collective, group: _Group) -> Figure:
    """Time of a collective at the rate of healthy hardware: nccl-tests' bus bandwidth, turned back into time."""
    if case.profile.virtual:
        return unknown("time of collectives: on a virtual rack a stand-in makes up their numbers")
    if case.sku is None:
        return unknown(f"time of collectives: {case.profile.sku} is not among the SKUs of the inventory")
    rate = float(dict(case.profile.expected).get("hca_rate_gbit_per_s", 0)) / 8
    claim = Claim(
        case.profile.sku, asked.kind, group.span, Operator.AT_LEAST, None, "GB/s", "", "",
        group.ranks, group.nodes, group.environment, asked.largest, group.nics, rate,
    )  # fmt: skip
    taken = route(claim, case.sku)
    if taken is None or taken.ceiling.gb_per_s <= 0:
        return unknown(f"time of {asked.kind}: no closed form for {group.ranks} GPUs of {case.sku.name}")
    healthy = reference_of(claim, case.sku, taken)
    gb_per_s = healthy.gb_per_s if healthy else taken.ceiling.gb_per_s
    source = f"healthy, {healthy.source}" if healthy else f"no published figure: ceiling {taken.ceiling.formula}"
    share = _share(asked.kind, group.ranks)
    moved = asked.bytes_moved
    return Figure(
        moved * share / gb_per_s / 1e9,
        f"{asked.kind} {moved / 1e9:,.0f} GB x {share:.3g} / {gb_per_s:.4g} GB/s ({source})",
    )


def _share(kind: str, ranks: int) -> float:
    """Bytes on the busiest link for a byte of size (NVIDIA/nccl-tests doc/PERFORMANCE.md)."""
    if kind == "sendrecv":
        return 1.0
    return (2 if kind == "all_reduce" else 1) * (ranks - 1) / ranks


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
