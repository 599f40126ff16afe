"""The smallest set of tests that gives a changed rack its evidence back, with what it takes and why. Pure.

A test has those nodes whose own way into it changed, and so many others that were well before that a bad answer can be
placed. A level that a single node was changed of is measured in a small group: every byte on the new part's ports and
links is the same in a group of four as of thirty. What a small group does not show, all loading the switches at once
with the new part among them, is named as not verified. A switch has changed for all nodes, and all are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from toolkit.judge import levels
from toolkit.judge.forecast import forecast
from toolkit.judge.lint import sku_named
from toolkit.judge.locate.measured import FEWEST
from toolkit.judge.locate.outside import with_leaves
from toolkit.judge.pace import Shape, seconds_of
from toolkit.judge.recert.touch import Proof, Touch, Touched
from toolkit.rack.burnin_plan import BUDGETS, Cost, Figure, Level, LevelName, total, unknown
from toolkit.rack.claim import Sku, Span
from toolkit.rack.gate import Operator
from toolkit.rack.model import Rack

# Three whose rails are well tell a fourth's from their own in one round, whoever of them is slow
# (toolkit/stages/rail_partners.py, which a test holds this equal to).
AT_LEAST = 4
_LEVELS = {
    Proof.SUITE: LevelName.NODES,
    Proof.COLLECTIVES: LevelName.NODES,
    Proof.RAILS: LevelName.RAILS,
    Proof.DOMAIN: LevelName.DOMAIN,
    Proof.LEAF: LevelName.LEAF,
    Proof.UNIT: LevelName.UNIT,
}
_WIDE = (Proof.DOMAIN, Proof.LEAF, Proof.UNIT)


@dataclass(frozen=True, slots=True)
class Step:
    """One test, or the tests of one level.

    nodes     that take part; `changed` of them have to, the others are partners that were well before
    of        the rails or leaves that it is of; empty: all that its nodes have
    rails     the same as (leaf, rail); empty: all
    minutes   from beginning to end; node_minutes: times the nodes
    why       what it gives anew, and for which change
    """

    proof: Proof
    level: LevelName
    tests: str
    nodes: tuple[str, ...]
    changed: tuple[str, ...]
    of: tuple[str, ...]
    minutes: Figure
    node_minutes: Figure
    kwh: Figure
    why: tuple[str, ...]
    rails: tuple[tuple[str, int], ...] = ()

    @property
    def partners(self) -> tuple[str, ...]:
        """Nodes that are measured against: no job may run on them meanwhile."""
        return tuple(n for n in self.nodes if n not in self.changed)


@dataclass(frozen=True, slots=True)
class Differential:
    """What makes the rack whole again.

    steps         in order; facts are read again besides, which loads nothing
    node_minutes  of all steps; `full`: of a whole burn-in of the rack
    share         of the one in the other; None where either is not known as a whole
    unverified    what then stays without evidence with the new part in it
    """

    rack: str
    touch: Touch
    steps: tuple[Step, ...]
    node_minutes: Figure
    kwh: Figure
    full: Figure
    full_kwh: Figure
    unverified: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """0 where nothing has to be measured."""
        if self.full.value is None or self.full.lacking or self.node_minutes.lacking:
            return None
        return (self.node_minutes.value or 0.0) / self.full.value


def enough(rails: int) -> int:
    """Nodes that a search of rails wants: as toolkit.stages.rail_partners has it."""
    return max(AT_LEAST, 2 * -(-FEWEST // max(1, rails)))


def differential(
    rack: Rack, found: Touch, skus: Iterable[Sku] = (), partners: Sequence[str] | None = None, *, whole: bool = False
) -> Differential:
    """The steps that renew what was touched.

    partners  nodes that were well before, the most welcome first; None: all of the rack
    whole     wide levels with every node that can take part, whatever was changed
    """
    known = tuple(skus)
    names = tuple(node.name for node in rack.nodes)
    case = _Case(rack, found, known, names if partners is None else tuple(partners), whole)
    steps: list[Step] = []
    for proof in _LEVELS:
        step = _MAKERS.get(proof, _level)(case, proof) if found.of(proof) else None
        if step is not None:
            steps.append(step)
    plan = forecast(rack, names, rack.profile.suite, known)
    today = [level for level in plan.levels if level.runs_today and not level.absent]
    minutes, energy = (Figure(0.0), Figure(0.0)) if not steps else (
        total(s.node_minutes for s in steps), total(s.kwh for s in steps)
    )  # fmt: skip
    return Differential(
        rack.name, found, tuple(steps), minutes, energy,
        total(_times(level.cost.minutes, len(names)) for level in today), total(level.cost.kwh for level in today),
        tuple(dict.fromkeys((*case.unverified, *_of_siblings(case), *found.remarks))),
    )  # fmt: skip


@dataclass(slots=True)
class _Case:
    rack: Rack
    found: Touch
    skus: tuple[Sku, ...]
    welcome: tuple[str, ...]
    whole: bool
    unverified: list[str] = field(default_factory=list)

    def changed(self, proof: Proof) -> tuple[str, ...]:
        """Nodes that every test of the kind has to have, in slot order."""
        through = {node for touched in self.found.of(proof) for node in touched.through}
        return tuple(node.name for node in self.rack.nodes if node.name in through)

    def group(self, changed: Sequence[str], joined: Mapping[str, int]) -> tuple[str, ...]:
        """These and partners, of those that share most with them. `joined`: by node, how much it shares; 0: nothing."""
        lacking = enough(self.rack.profile.hcas_per_node) - len(changed)
        free = [n for n in self.welcome if n not in changed and joined.get(n, 0) > 0]
        free.sort(key=lambda n: -joined[n])  # stable: then by how welcome they are
        chosen = {*changed, *free[: max(0, lacking)]}
        return tuple(node.name for node in self.rack.nodes if node.name in chosen)

    def shared(self, changed: Iterable[str]) -> dict[str, int]:
        """By node, the rails that it has on leaves of the changed ones."""
        rails = levels.rails(with_leaves(self.rack), [n.name for n in self.rack.nodes])
        wanted = set(changed)
        counts: dict[str, int] = {}
        for nodes in rails.values():
            for node in nodes if wanted & set(nodes) else ():
                counts[node] = counts.get(node, 0) + 1
        return counts

    def forecast(self, rack: Rack, nodes: Sequence[str], name: LevelName) -> Level:
        """The level of a burn-in of these nodes alone."""
        plan = forecast(rack, nodes, rack.profile.suite, self.skus)
        return next(level for level in plan.levels if level.name is name)


# steps


def _suite(case: _Case, proof: Proof) -> Step:
    """On the nodes themselves, at once: nobody else is needed."""
    nodes = case.changed(proof)
    level = case.forecast(case.rack, nodes, LevelName.NODES)
    return _step(proof, level.tests[0].name, nodes, nodes, (), level.cost, case.found.of(proof))


def _collectives(case: _Case, proof: Proof) -> Step | None:
    """The suite's collectives, on nodes that need not run the whole suite."""
    own = set(case.changed(Proof.SUITE))
    nodes = tuple(n for n in case.changed(proof) if n not in own)
    if not nodes:
        return None
    profile = case.rack.profile
    shape = Shape(Span.NODE, 1, profile.gpus_per_node)
    sku = sku_named(profile.sku, case.skus)
    asked = BUDGETS[profile.suite].collectives
    seconds = total(seconds_of(profile, sku, collective, shape) for collective in asked)
    minutes = replace(seconds, value=None if seconds.value is None else seconds.value / 60)
    power = case.forecast(case.rack, nodes, LevelName.NODES).cost.kw
    kwh = Figure(
        None if minutes.value is None or power.value is None else power.value * minutes.value / 60,
        power.source, tuple(dict.fromkeys((*minutes.lacking, *power.lacking))),
    )  # fmt: skip
    cost = Cost(minutes, unknown("deadline"), kwh, unknown("deadline"), power)
    words = f"collectives of suite {profile.suite}: {', '.join(c.kind for c in asked)}"
    return _step(proof, words, nodes, nodes, (), cost, [t for t in case.found.of(proof) if set(t.through) - own])


def _rails(case: _Case, proof: Proof) -> Step | None:
    """Only the rails that were changed, where they give a round tests enough; else all rails of the group, whose tests
    say what is healthy.
    """
    changed = case.changed(proof)
    nodes = case.group(changed, case.shared(changed))
    wanted = enough(case.rack.profile.hcas_per_node)
    if len(nodes) < wanted:
        case.unverified.append(f"rails: {len(nodes)} nodes where {wanted} are wanted: a slow rail may not be placed")
    outside = with_leaves(case.rack)
    ends = {(t.evidence.subject.node, t.evidence.subject.hca) for t in case.found.of(proof)}
    rail_of = {(u.name, h.name): h.rail for u in case.rack.nodes for h in u.hcas}
    leaf_of = {(k.a.unit, k.a.port): k.b.unit for k in outside.links} | {
        (k.b.unit, k.b.port): k.a.unit for k in outside.links
    }
    asked = {(leaf_of[end], rail_of[end]) for end in ends if end in leaf_of}
    joined = levels.rails(outside, nodes)
    alone = sum(len(joined.get(one, ())) // 2 for one in asked) >= FEWEST
    of = tuple(sorted({f"rail {rail} on {leaf}" for leaf, rail in asked})) if alone and asked != set(joined) else ()
    rack = with_rails(outside, asked) if alone else outside
    return _of_level(case, proof, rack, nodes, changed, of, asked if of else ())


def _level(case: _Case, proof: Proof) -> Step | None:
    """A level among those that changed and their partners, or all of them."""
    changed, names = case.changed(proof), tuple(node.name for node in case.rack.nodes)
    rack, of, kept = case.rack, tuple[str, ...](), set[tuple[str, int]]()
    all_of = names
    if proof is Proof.LEAF:
        of = tuple(sorted(t.evidence.subject.node for t in case.found.of(proof)))
        rails = levels.rails(case.rack, names)
        kept = {key for key in rails if key[0] in of}
        rack = with_rails(case.rack, kept)
        on = {node for (leaf, _), nodes in rails.items() if leaf in of for node in nodes}
        all_of = tuple(n for n in names if n in on)
        of = () if set(of) == {leaf for leaf, _ in rails} else of
    joined = dict.fromkeys(all_of, 1) if proof is Proof.DOMAIN else case.shared(changed)
    welcome = set(case.welcome) | set(changed)
    nodes = tuple(n for n in all_of if n in welcome) if case.whole else case.group(changed, joined)
    step = _of_level(case, proof, rack, nodes, changed, of, kept if of else ())
    if step is not None and set(nodes) != set(all_of):
        case.unverified.append(
            f"{_LEVELS[proof]}: {len(nodes)} of {len(all_of)} nodes take part; that all of them load it at once with "
            f"{_names(changed)} as it is now is not measured{_looser(proof)}"
        )
    return step


_MAKERS: Mapping[Proof, Callable[[_Case, Proof], Step | None]] = {
    Proof.SUITE: _suite,
    Proof.COLLECTIVES: _collectives,
    Proof.RAILS: _rails,
}


def _of_level(
    case: _Case, proof: Proof, rack: Rack, nodes: tuple[str, ...], changed: tuple[str, ...], of: tuple[str, ...],
    rails: Iterable[tuple[str, int]],
) -> Step | None:  # fmt: skip
    level = case.forecast(rack, nodes, _LEVELS[proof])
    if level.absent:
        case.unverified.append(f"{level.name}: {level.absent}")
        return None
    step = _step(proof, ", ".join(t.name for t in level.tests), nodes, changed, of, level.cost, case.found.of(proof))
    return replace(step, rails=tuple(sorted(rails)))


def _step(
    proof: Proof, tests: str, nodes: tuple[str, ...], changed: tuple[str, ...], of: tuple[str, ...], cost: Cost,
    touched: Sequence[Touched],
) -> Step:  # fmt: skip
    why = tuple(dict.fromkeys(words for t in touched for words in t.why))
    minutes = _times(cost.minutes, len(nodes))
    return Step(proof, _LEVELS[proof], tests, nodes, changed, of, cost.minutes, minutes, cost.kwh, why)


def with_rails(rack: Rack, kept: Set[tuple[str, int]]) -> Rack:
    """The rack without the cables from its nodes to leaves of other rails."""
    rail_of = {(u.name, h.name): h.rail for u in rack.nodes for h in u.hcas}
    names = {u.name for u in rack.nodes}

    def stays(near: tuple[str, str], far: str) -> bool:
        return near[0] not in names or near not in rail_of or (far, rail_of[near]) in kept

    links = tuple(
        k for k in rack.links
        if stays((k.a.unit, k.a.port), k.b.unit) and stays((k.b.unit, k.b.port), k.a.unit)
    )  # fmt: skip
    return replace(rack, links=links)


def _of_siblings(case: _Case) -> Iterator[str]:
    """Gates that set a node against its siblings want their numbers fresh, and these are not measured again."""
    nodes, profile = case.changed(Proof.SUITE), case.rack.profile
    codes = dict.fromkeys(g.code for g in profile.gates if g.operator is Operator.PEERS)
    if nodes and codes and len(nodes) < len(case.rack.nodes):
        hours = profile.evidence_max_age.total_seconds() / 3600
        yield (
            f"{', '.join(codes)}: asked against siblings whose own burn-in is under {hours:g} h old; with too few of "
            "them it is not asked, and the certificate says so"
        )


def _looser(proof: Proof) -> str:
    """The closed form of few nodes is above that of many where each has several GPUs: less of a byte leaves a node."""
    return "" if proof is Proof.LEAF else ", and few nodes meet the limits of all more easily"


def _times(figure: Figure, nodes: int) -> Figure:
    return figure if figure.value is None else replace(figure, value=figure.value * nodes)


def _names(nodes: Sequence[str]) -> str:
    return ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")
