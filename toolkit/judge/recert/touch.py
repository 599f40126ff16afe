"""Which evidence a change takes the ground from, by the topology; what it does not touch stays good. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from toolkit.judge import levels
from toolkit.judge.evidence import Subject
from toolkit.judge.locate.outside import with_leaves
from toolkit.judge.recert.changes import Change, Part, link_at
from toolkit.judge.subjects import planned_subjects
from toolkit.rack.gate import Gate, Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Link, LinkKind, Port, Profile, Rack, UnitKind, WideLevel

CARTRIDGE = "cartridge"  # as rack files name the part between a tray and the NVLink switch trays


class Proof(StrEnum):
    """What gives a piece of evidence, and gives it anew."""

    FACTS = "facts"  # read from a node at rest, and from the fabric
    SUITE = "suite"
    COLLECTIVES = "collectives"  # of a node's suite: what crosses its NVLinks
    RAILS = "rails"
    DOMAIN = "domain"
    LEAF = "leaf"
    UNIT = "unit"


_OF_LEVEL = {WideLevel.DOMAIN: Proof.DOMAIN, WideLevel.LEAF: Proof.LEAF, WideLevel.UNIT: Proof.UNIT}
_OF_SCOPE: Mapping[Scope, tuple[Proof, ...]] = {
    Scope.NODE: (Proof.FACTS, Proof.SUITE, Proof.COLLECTIVES),
    Scope.GPU: (Proof.FACTS, Proof.SUITE, Proof.COLLECTIVES),
    Scope.LINK: (Proof.FACTS,),
    Scope.HCA: (Proof.FACTS, Proof.RAILS),
}


def proof_of(gate: Gate) -> Proof:
    """What measures a gate's metric."""
    if gate.stage != Stage.BURNIN:
        return Proof.FACTS
    if gate.scope is Scope.HCA:
        return Proof.RAILS
    wide = next((_OF_LEVEL[level] for level, scope in levels.SCOPES.items() if scope is gate.scope), None)
    return wide or (Proof.COLLECTIVES if gate.metric.startswith(("nccl_", "nvlink")) else Proof.SUITE)


@dataclass(frozen=True, slots=True, order=True)
class Evidence:
    """All that one kind of test says of one subject."""

    proof: Proof
    subject: Subject

    def gates(self, profile: Profile) -> tuple[Gate, ...]:
        """The gates that rest on it."""
        return tuple(g for g in profile.gates if g.scope is self.subject.scope and proof_of(g) is self.proof)


@dataclass(frozen=True, slots=True)
class Touched:
    """Evidence that no longer holds.

    through  nodes whose own way into what was measured is not what it was: a test that renews it has all of them
    why      a reason for each change
    """

    evidence: Evidence
    through: tuple[str, ...]
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Touch:
    """What changes do to a rack's evidence.

    holds    what stays good
    remarks  what a change touches that no gate speaks of
    """

    changes: tuple[Change, ...]
    touched: tuple[Touched, ...]
    holds: tuple[Evidence, ...]
    remarks: tuple[str, ...]

    def of(self, proof: Proof) -> tuple[Touched, ...]:
        """What this kind of test has to give anew."""
        return tuple(t for t in self.touched if t.evidence.proof is proof)


def touch(rack: Rack, changes: Sequence[Change]) -> Touch:
    """Everything that these changes touch, each piece of evidence once with all its reasons."""
    ground = _Ground(rack)
    through: dict[Evidence, dict[str, None]] = {}
    why: dict[Evidence, dict[str, None]] = {}
    remarks: dict[str, None] = {}
    for change in changes:
        for effect in _EFFECTS[change.part](ground, change):
            if isinstance(effect, str):
                remarks[f"{change.words}: {effect}"] = None
            elif effect.evidence in ground.all:
                through.setdefault(effect.evidence, {}).update(dict.fromkeys(effect.through))
                why.setdefault(effect.evidence, {})[f"{change.words}: {effect.why}"] = None
    slot = {node.name: number for number, node in enumerate(rack.nodes)}
    touched = tuple(
        Touched(found, tuple(sorted(through[found], key=slot.__getitem__)), tuple(why[found]))
        for found in sorted(through)
    )
    return Touch(tuple(changes), touched, tuple(e for e in ground.all if e not in through), tuple(remarks))


@dataclass(frozen=True, slots=True)
class _Effect:
    evidence: Evidence
    through: tuple[str, ...]
    why: str


_Effects = Iterator[_Effect | str]


@dataclass(slots=True)
class _Ground:
    """The evidence that a whole burn-in of the rack gives, and who takes part in which of it."""

    rack: Rack
    outside: Rack = field(init=False)  # with leaves, where the rails leave the rack
    names: tuple[str, ...] = field(init=False)
    present: frozenset[WideLevel] = field(init=False)
    all: dict[Evidence, None] = field(init=False)
    leaf_of: dict[Port, str] = field(init=False)

    def __post_init__(self) -> None:
        self.outside = with_leaves(self.rack)
        ends = [(k.a, k.b) for k in self.outside.links] + [(k.b, k.a) for k in self.outside.links]
        self.leaf_of = {near: far.unit for near, far in ends}
        self.names = tuple(node.name for node in self.rack.nodes)
        profile = self.rack.profile
        tests = levels.wide(self.rack, self.names, profile.suite, None)
        self.present = frozenset(w for w in profile.levels if not isinstance(tests[w], str))
        self.all = dict.fromkeys(self._all())

    def _all(self) -> Iterator[Evidence]:
        for node in self.rack.nodes:
            for subject in planned_subjects(node, self.rack.profile):
                for proof in _OF_SCOPE[subject.scope]:
                    if proof is not Proof.RAILS or self.rack.profile.rail_test:
                        yield Evidence(proof, subject)
        for level in self.present:
            leaves = sorted({leaf for leaf, _ in levels.rails(self.rack, self.names)})
            for leaf in leaves if level is WideLevel.LEAF else [""]:
                yield Evidence(_OF_LEVEL[level], Subject(levels.SCOPES[level], leaf))

    def nodes(self, change: Change) -> tuple[str, ...]:
        """Those that are meant."""
        return (change.unit,) if change.unit else self.names

    def of_node(self, name: str, proofs: Iterable[Proof], why: str) -> Iterator[_Effect]:
        """What such tests say of the node and its parts."""
        wanted = frozenset(proofs)
        for subject in planned_subjects(self.rack.unit(name), self.rack.profile):
            for proof in _OF_SCOPE[subject.scope]:
                if proof in wanted:
                    yield _Effect(Evidence(proof, subject), (name,), why)

    def of_hca(
        self, name: str, hca: str, why: str, proofs: Iterable[Proof] = _OF_SCOPE[Scope.HCA]
    ) -> Iterator[_Effect]:
        """A rail's end, its leaf, and the unit that it is one way into."""
        for proof in proofs:
            yield _Effect(Evidence(proof, Subject(Scope.HCA, name, hca=hca)), (name,), why)
        leaf = self.leaf_of.get(Port(name, hca))
        if leaf is not None:
            yield _Effect(Evidence(Proof.LEAF, Subject(Scope.LEAF, leaf)), (name,), why)
        yield from self.of_unit((name,), why)

    def of_unit(self, through: tuple[str, ...], why: str) -> Iterator[_Effect]:
        """The scalable unit."""
        yield _Effect(Evidence(Proof.UNIT, Subject(Scope.RACK)), through, why)

    def of_domain(self, through: tuple[str, ...], why: str) -> Iterator[_Effect]:
        """The NVLink domain of several nodes."""
        yield _Effect(Evidence(Proof.DOMAIN, Subject(Scope.DOMAIN)), through, why)


# What each kind of change touches


def _node(ground: _Ground, change: Change, why: str = "every part of the node is another, or was handled") -> _Effects:
    for name in ground.nodes(change):
        yield from ground.of_node(name, Proof, why)
        for hca in ground.rack.unit(name).hcas:
            yield from ground.of_hca(name, hca.name, why)
        yield from ground.of_domain((name,), why)


def _driver(ground: _Ground, change: Change) -> _Effects:
    return _node(ground, change, "every number was measured with the driver that was")


def _gpu(ground: _Ground, change: Change) -> _Effects:
    profile, name = ground.rack.profile, change.unit
    gpus = [int(change.at.removeprefix("gpu"))] if change.at else list(range(profile.gpus_per_node))
    why = "this GPU" if change.at else "which of its GPUs is not known"
    for effect in ground.of_node(name, _OF_SCOPE[Scope.GPU], why):
        if effect.evidence.subject.gpu in gpus:
            yield effect
        elif effect.evidence.subject.scope is Scope.NODE:
            yield _Effect(effect.evidence, (name,), f"{why}; the node is measured with all its GPUs")
    for hca in ground.rack.unit(name).hcas:
        if hca.rail % max(1, profile.gpus_per_node) in gpus:
            rail = f"{why}; its rail is measured from it"
            yield from ground.of_hca(name, hca.name, rail, (Proof.RAILS,))
    yield from ground.of_unit((name,), why)
    yield from ground.of_domain((name,), why)


def _hca(ground: _Ground, change: Change) -> _Effects:
    yield _Effect(Evidence(Proof.FACTS, Subject(Scope.NODE, change.unit)), (change.unit,), "the node is another by it")
    yield from ground.of_hca(change.unit, change.at, "this HCA")


def _bmc(ground: _Ground, change: Change) -> _Effects:
    return ground.of_node(change.unit, (Proof.FACTS, Proof.SUITE), "fans and power limits are the BMC's")


def _cable(ground: _Ground, change: Change) -> _Effects:
    link = link_at(ground.rack, Port(change.unit, change.at))
    if link is None:
        raise ValueError(f"no cable ends on {change.unit}:{change.at}")  # parse_change asked
    if link.kind is LinkKind.NVLINK:
        yield from _nvlinks(ground, _beside(ground.rack, link))
        return
    if link.kind is not LinkKind.INFINIBAND:
        yield f"no gate speaks of a cable of {link.kind}"
        return
    ends = [(end.unit, end.port) for end in (link.a, link.b) if end.unit in ground.names]
    for name, hca in ends:
        yield from ground.of_hca(name, hca, "this cable")
    if not ends:
        # Which pair of nodes crosses one of many cables between two switches, routing decides: all are asked.
        leaves = {link.a.unit, link.b.unit}
        yield from ground.of_unit(_on(ground, leaves) or ground.names, "a cable between switches")


def _beside(rack: Rack, link: Link) -> tuple[Link, ...]:
    """The links that go with it: a rack file does not say which share a cartridge."""
    if link.part != CARTRIDGE:
        return (link,)
    return tuple(k for k in rack.links if k.kind is LinkKind.NVLINK and k.part == CARTRIDGE)


def _leaf(ground: _Ground, change: Change) -> _Effects:
    for (leaf, rail), nodes in levels.rails(ground.outside, ground.names).items():
        if leaf != change.unit:
            continue
        for name in nodes:
            for hca in ground.rack.unit(name).hcas:
                if hca.rail == rail:
                    yield from ground.of_hca(name, hca.name, f"a port of {leaf}")


def _spine(ground: _Ground, change: Change) -> _Effects:
    return ground.of_unit(ground.names, f"what goes from rail to rail crosses {change.unit}")


def _nvlink_switch(ground: _Ground, change: Change) -> _Effects:
    return _nvlinks(ground, [k for k in ground.rack.links if change.unit in (k.a.unit, k.b.unit)])


def _nvlinks(ground: _Ground, links: Iterable[Link]) -> _Effects:
    why, names = "an NVLink to it", set(ground.names)
    for link in links:
        for end in (link.a, link.b):
            gpu, _, number = end.port.partition(".")
            if end.unit not in names or not gpu.startswith("gpu"):
                continue
            place, through = (end.unit, int(gpu.removeprefix("gpu"))), (end.unit,)
            yield _Effect(
                Evidence(Proof.FACTS, Subject(Scope.LINK, *place, int(number.removeprefix("nvlink")))), through, why
            )
            yield _Effect(Evidence(Proof.COLLECTIVES, Subject(Scope.GPU, *place)), through, why)
            yield _Effect(Evidence(Proof.COLLECTIVES, Subject(Scope.NODE, end.unit)), through, why)
            yield from ground.of_domain(through, why)


def _power_shelf(_: _Ground, change: Change) -> _Effects:
    yield f"no gate speaks of {change.unit}: how it carries the rack's load is not measured again"


def _profile(ground: _Ground, _: Change) -> _Effects:
    for name in ground.names:
        yield from ground.of_node(name, (Proof.FACTS,), "its gates are asked anew")
    yield "what was measured stays; its gates are asked of it again, and one whose metric was not measured is open"


def _package(ground: _Ground, change: Change) -> _Effects:
    effect = next((made for prefixes, made in _PACKAGES if change.name.startswith(prefixes)), None)
    if effect is None:
        return _node(ground, change, f"what {change.name} touches is not known here")
    return effect(ground, change)


def _fabric_package(ground: _Ground, change: Change) -> _Effects:
    for name in ground.nodes(change):
        for hca in ground.rack.unit(name).hcas:
            yield from ground.of_hca(name, hca.name, "what the HCAs are driven by")


def _nccl_package(ground: _Ground, change: Change) -> _Effects:
    why = "what collectives are measured with"
    for name in ground.nodes(change):
        yield from ground.of_node(name, (Proof.COLLECTIVES,), why)
        for hca in ground.rack.unit(name).hcas:
            yield from ground.of_hca(name, hca.name, why, (Proof.RAILS,))
        yield from ground.of_domain((name,), why)


def _monitor_package(ground: _Ground, change: Change) -> _Effects:
    for name in ground.nodes(change):
        yield from ground.of_node(name, (Proof.FACTS, Proof.SUITE), "its diagnostics are part of the suite")


def _cluster_package(ground: _Ground, change: Change) -> _Effects:
    for name in ground.nodes(change):
        yield _Effect(Evidence(Proof.FACTS, Subject(Scope.NODE, name)), (name,), "nothing is measured with it")


# By what names of packages begin with; what is in none of these touches everything. infiniband-diags looks at a fabric
# and carries nothing over it.
_PACKAGES: tuple[tuple[tuple[str, ...], Callable[[_Ground, Change], _Effects]], ...] = (
    (("infiniband-diags", "kube", "containerd", "cri-", "runc"), _cluster_package),
    (("doca", "mlnx", "ofed", "rdma", "libibverbs", "opensm", "ucx"), _fabric_package),
    (("nccl", "libnccl", "openmpi"), _nccl_package),
    (("datacenter-gpu-manager",), _monitor_package),
)


_EFFECTS: Mapping[Part, Callable[[_Ground, Change], _Effects]] = {
    Part.NODE: _node,
    Part.GPU: _gpu,
    Part.HCA: _hca,
    Part.CABLE: _cable,
    Part.LEAF: _leaf,
    Part.SPINE: _spine,
    Part.NVLINK_SWITCH: _nvlink_switch,
    Part.POWER_SHELF: _power_shelf,
    Part.BMC: _bmc,
    Part.DRIVER: _driver,
    Part.PACKAGE: _package,
    Part.PROFILE: _profile,
}


def _on(ground: _Ground, switches: Iterable[str]) -> tuple[str, ...]:
    """The nodes with a cable to one of these leaves."""
    wanted = {u.name for u in ground.outside.units if u.kind is UnitKind.LEAF} & set(switches)
    found = {
        n for (leaf, _), nodes in levels.rails(ground.outside, ground.names).items() if leaf in wanted for n in nodes
    }
    return tuple(n for n in ground.names if n in found)
