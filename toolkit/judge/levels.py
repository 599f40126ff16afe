"""The collectives of a burn-in over many nodes of a rack: which, among whom, how large, and until when. Pure.

Three levels lie between a pair and two racks. The NVLink domain: all GPUs of all trays, over NVLink alone. A leaf: one
GPU and one HCA of every node on it, so that a number is of that leaf. The scalable unit: every GPU and every HCA, as
a job would use them. The plan shows what is made here, and the stage runs it.

all_reduce crosses every cable evenly and alltoall joins every port with every other. In a rail-optimised unit neither
of them leaves its rail by itself: NCCL hands data to the GPU on the right rail over NVLink first (PXN). Without PXN an
alltoall goes from rail to rail through the spines, which nothing else here does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from toolkit.judge.pace import Shape, deadline_of, seconds_of
from toolkit.rack.burnin_plan import BUDGETS, Collective, Figure
from toolkit.rack.claim import Sku, Span
from toolkit.rack.gate import Scope
from toolkit.rack.model import LinkKind, Mode, Profile, Rack, Suite, UnitKind, WideLevel

DOMAIN_IS_RACK = (Mode.MNNVL_HOST_IMEX, Mode.MNNVL_DRA)
SCOPES = {WideLevel.DOMAIN: Scope.DOMAIN, WideLevel.LEAF: Scope.LEAF, WideLevel.UNIT: Scope.RACK}
# From this size of a share on, as the node's own collectives do (burnin/nccl/collective.py)
SMALLEST = 128 << 10
SPREAD = ("all_reduce", "alltoall")
# NCCL would carry between trays over NVLink what is to cross the rails.
LINK_OFF = (("NCCL_MNNVL_ENABLE", "0"),)
# One GPU of a node: nothing but the rail may be left to it.
ALONE = (*LINK_OFF, ("NCCL_P2P_DISABLE", "1"), ("NCCL_SHM_DISABLE", "1"))
CROSS_SPINES = (("NCCL_PXN_DISABLE", "1"),)
FEWEST_ON_A_LEAF = 3  # two nodes of a leaf are a pair, which the rails measure


@dataclass(frozen=True, slots=True)
class Communicator:
    """The ranks of one collective.

    of       the leaf it is of; empty: the whole rack
    nodes    in rank order
    hca      the only HCA each of them uses, by its name there; empty: all
    gpu      the only GPU each of them uses; None: all
    problem  why it cannot be measured as one collective; empty: it can
    """

    nodes: tuple[str, ...]
    gpus_per_node: int
    of: str = ""
    rail: int | None = None
    hca: str = ""
    gpu: int | None = None
    problem: str = ""

    @property
    def ranks(self) -> int:
        """GPUs that take part."""
        return len(self.nodes) * self.gpus_per_node

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.of}, rail {self.rail}" if self.of else f"all {len(self.nodes)} nodes"


@dataclass(frozen=True, slots=True)
class WideTest:
    """One collective of a level.

    waves        communicators side by side, no GPU and no HCA in two of a wave; waves one after another
    seconds      of a wave, healthy; `deadline_s` of each collective
    environment  beside what keeps a communicator to its GPU and HCA
    """

    level: WideLevel
    collective: Collective
    span: Span
    waves: tuple[tuple[Communicator, ...], ...]
    seconds: Figure
    deadline: Figure
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> str:
        """The collective's name."""
        return self.collective.kind

    @property
    def scope(self) -> Scope:
        """What its measurements and gates are of."""
        return SCOPES[self.level]

    @property
    def deadline_s(self) -> float:
        """Of one communicator, from the launcher's start to the end of its last rank."""
        assert self.deadline.value is not None  # noqa: S101 - a deadline is always known
        return self.deadline.value

    @property
    def nodes(self) -> tuple[str, ...]:
        """All that take part, each once."""
        return tuple(dict.fromkeys(n for wave in self.waves for c in wave for n in c.nodes))


Tests = tuple[WideTest, ...] | str
"""A level's tests, or why it has none."""


def wide(rack: Rack, nodes: Sequence[str], suite: Suite, sku: Sku | None) -> Mapping[WideLevel, Tests]:
    """What each level can be tested by among these nodes of the rack, whatever its profile asks for."""
    return {
        WideLevel.DOMAIN: in_domain(rack, nodes, suite, sku),
        WideLevel.LEAF: on_leaves(rack, nodes, suite, sku),
        WideLevel.UNIT: on_unit(rack, nodes, suite, sku),
    }


def in_domain(rack: Rack, nodes: Sequence[str], suite: Suite, sku: Sku | None) -> Tests:
    """All GPUs of the trays, over NVLink."""
    profile = rack.profile
    if profile.mode is Mode.PCIE:
        return "its GPUs have no NVLink"
    if profile.mode not in DOMAIN_IS_RACK:
        return "NVLink ends at the node, whose suite measures it"
    if len(nodes) < 2:
        return alone(nodes)
    everyone = ((Communicator(tuple(nodes), profile.gpus_per_node),),)
    return tuple(_test(profile, suite, sku, WideLevel.DOMAIN, kind, Span.DOMAIN, everyone) for kind in SPREAD)


def on_leaves(rack: Rack, nodes: Sequence[str], suite: Suite, sku: Sku | None) -> Tests:
    """One GPU and one HCA of every node on a leaf, all leaves and rails side by side."""
    if why := without_leaves(rack, nodes):
        return why
    found = [
        _on_leaf(rack, leaf, rail, joined)
        for (leaf, rail), joined in sorted(rails(rack, nodes).items())
        if len(joined) >= FEWEST_ON_A_LEAF
    ]
    if not found:
        return "no leaf joins more than two nodes of the plan: their pairs are all there is"
    waves = _waves(found)
    return tuple(_test(rack.profile, suite, sku, WideLevel.LEAF, kind, Span.FABRIC, waves, ALONE) for kind in SPREAD)


def on_unit(rack: Rack, nodes: Sequence[str], suite: Suite, sku: Sku | None) -> Tests:
    """Every GPU and every HCA of the nodes."""
    profile = rack.profile
    if profile.mode in DOMAIN_IS_RACK:
        return "NVLink joins the whole rack; a scalable unit is several such racks"
    if why := without_leaves(rack, nodes):
        return why
    if len({leaf for leaf, _ in rails(rack, nodes)}) < 2:
        return "one leaf joins all of it: its level is this one"
    everyone = ((Communicator(tuple(nodes), profile.gpus_per_node),),)
    tests = [_test(profile, suite, sku, WideLevel.UNIT, "all_reduce", Span.FABRIC, everyone)]
    if any(unit.kind is UnitKind.SPINE for unit in rack.units):  # else no way leads from rail to rail
        tests.append(_test(profile, suite, sku, WideLevel.UNIT, "alltoall", Span.FABRIC, everyone, CROSS_SPINES))
    return tuple(tests)


def alone(nodes: Sequence[str]) -> str:
    """Why fewer than two nodes are measured against nobody."""
    return f"{nodes[0]} is alone: it has no partner" if nodes else "no node is to be burnt in"


def without_leaves(rack: Rack, nodes: Sequence[str]) -> str:
    """Why nothing can be tested over leaves; empty where it can."""
    if len(nodes) < 2:
        return alone(nodes)
    if not rack.profile.hcas_per_node:
        return "its nodes have no HCA"
    if all(unit.kind is not UnitKind.LEAF for unit in rack.units):
        return "its rails leave the rack: no leaf is among its units"
    return "" if rails(rack, nodes) else "no cable from a node of the plan to a leaf is declared"


def rails(rack: Rack, nodes: Iterable[str]) -> dict[tuple[str, int], tuple[str, ...]]:
    """By leaf and rail: the nodes among these that have a cable there, in the order of their links."""
    leaves = {unit.name for unit in rack.units if unit.kind is UnitKind.LEAF}
    rail_of = {(unit.name, hca.name): hca.rail for unit in rack.nodes for hca in unit.hcas}
    wanted, found = set(nodes), dict[tuple[str, int], list[str]]()
    for link in rack.links:
        for near, far in ((link.a, link.b), (link.b, link.a)):
            rail = rail_of.get((near.unit, near.port))
            if link.kind is LinkKind.INFINIBAND and far.unit in leaves and near.unit in wanted and rail is not None:
                found.setdefault((far.unit, rail), []).append(near.unit)
    return {where: tuple(at) for where, at in found.items()}


def leaves_of(rack: Rack, node: str) -> tuple[str, ...]:
    """The leaves that a node has a cable to, by name."""
    return tuple(sorted({leaf for leaf, _ in rails(rack, (node,))}))


def among(test: WideTest, nodes: Iterable[str]) -> WideTest:
    """The same test among some of its nodes; communicators of fewer than two of them are not there."""
    kept = set(nodes)
    waves = tuple(tuple(smaller for c in wave if len((smaller := _only(c, kept)).nodes) > 1) for wave in test.waves)
    return replace(test, waves=tuple(wave for wave in waves if wave))


def _only(communicator: Communicator, kept: set[str]) -> Communicator:
    return replace(communicator, nodes=tuple(n for n in communicator.nodes if n in kept))


def _on_leaf(rack: Rack, leaf: str, rail: int, joined: tuple[str, ...]) -> Communicator:
    """mpirun gives all ranks the same environment: a rail's HCA has one name on all nodes, or cannot be chosen."""
    names = {hca.name for node in joined for hca in rack.unit(node).hcas if hca.rail == rail}
    problem = ""
    if len(names) != 1:
        problem = f"rail {rail} is {', '.join(sorted(names))} on its nodes, and mpirun gives all ranks the same name"
    gpu = rail % max(1, rack.profile.gpus_per_node)
    return Communicator(joined, 1, leaf, rail, "" if problem else names.pop(), gpu, problem)


def _waves(communicators: Iterable[Communicator]) -> tuple[tuple[Communicator, ...], ...]:
    """Side by side as far as no GPU of a node is in two of them: HCAs are not, for each has its own rail."""
    waves: list[tuple[set[tuple[str, int | None]], list[Communicator]]] = []
    for one in communicators:
        seats = {(node, one.gpu) for node in one.nodes}
        free = next((w for w in waves if not w[0] & seats), None)
        if free is None:
            waves.append(free := (set(), []))
        free[0].update(seats)
        free[1].append(one)
    return tuple(tuple(members) for _, members in waves)


def _test(
    profile: Profile, suite: Suite, sku: Sku | None, level: WideLevel, kind: str, span: Span,
    waves: tuple[tuple[Communicator, ...], ...], environment: tuple[tuple[str, str], ...] = (),
) -> WideTest:  # fmt: skip
    """With sizes and iterations of the suite's own collectives, and the time that its slowest communicator takes."""
    own = BUDGETS[suite].collectives[0]
    asked = replace(own, kind=kind, smallest=SMALLEST)
    largest = max((c for wave in waves for c in wave), key=lambda c: c.ranks)
    # A communicator of one HCA a node is reckoned as one of one GPU a node: its ceiling is that HCA's rate.
    shape = Shape(span, len(largest.nodes), largest.ranks, 1 if largest.hca else profile.hcas_per_node, environment)
    seconds = seconds_of(profile, sku, asked, shape)
    deadline = deadline_of(own.deadline_s, seconds)
    return WideTest(
        level, replace(asked, deadline_s=deadline.value or 0.0), span, waves, seconds, deadline, environment
    )
