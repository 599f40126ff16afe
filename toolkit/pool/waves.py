"""How nodes are let in: a canary, then growing waves; and what a look at a wave means. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from toolkit.pool.model import NODE_SHUT, Sign
from toolkit.pool.policy import Regulation
from toolkit.rack import topology
from toolkit.rack.model import Rack, Unit

Mark = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A certified node that is to be let in.

    leaf    what its rails share with other nodes: a leaf, or the group of leaves that its rails end on
    domain  the NVLink domain it is in; empty where NVLink ends in the node
    Places that nobody told are one place: the empty text.
    """

    name: str
    leaf: str = ""
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Wave:
    """Nodes let in together, and why these and so many."""

    number: int
    nodes: tuple[str, ...]
    why: tuple[str, ...]


def candidate(rack: Rack, node: Unit) -> Candidate:
    """The node with the places that it shares with others, by the rack file."""
    labels = topology.labels(rack, node)
    leaf, domain = labels.get(f"{topology.PREFIX}rail-group", ""), labels.get(f"{topology.PREFIX}nvlink-domain", "")
    return Candidate(node.name, leaf, domain)


def spread(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The order to let them in, so that what is bad about a place shows early and never costs all of it.

    No leaf has its second node before every leaf has its first; then the same for domains; after that each leaf and
    domain fills in step with its size. Among equals the given order decides.
    """
    given = tuple(dict.fromkeys(candidates))
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in given:
        groups.setdefault((candidate.leaf, candidate.domain), []).append(candidate)
    for members in groups.values():
        members.reverse()  # the next one is taken from the end
    position = {candidate: number for number, candidate in enumerate(given)}
    of_leaf, of_domain = Counter(c.leaf for c in given), Counter(c.domain for c in given)
    from_leaf, from_domain = Counter[str](), Counter[str]()

    def rank(group: tuple[str, str]) -> tuple[bool, bool, float, float, int]:
        leaf, domain = group
        filled = ((from_leaf[leaf] + 1) / of_leaf[leaf], (from_domain[domain] + 1) / of_domain[domain])
        return from_leaf[leaf] > 0, from_domain[domain] > 0, max(filled), min(filled), position[groups[group][-1]]

    order: list[Candidate] = []
    while groups:
        group = min(groups, key=rank)
        order.append(groups[group].pop())
        if not groups[group]:
            del groups[group]
        from_leaf[group[0]] += 1
        from_domain[group[1]] += 1
    return tuple(order)


def most_now(regulation: Regulation, before: int) -> int:
    """How many nodes the next wave may have, where the last one brought `before` in; 0: none did yet, a canary is due.

    At most `growth` times as many, or one more where that is less than one more, and never over `most`.
    """
    size = max(int(before * regulation.growth), before + 1) if before else regulation.canary
    return max(1, size if regulation.most is None else min(size, regulation.most))


def plan_waves(candidates: Sequence[Candidate], regulation: Regulation, before: int = 0) -> tuple[Wave, ...]:
    """The waves that bring everybody in, if nothing halts them and nobody's certificate is refused."""
    order, waves, size = spread(candidates), list[Wave](), before
    places = _Places(order)
    while order:
        most = most_now(regulation, size)
        now, order = order[:most], order[most:]
        why = (_why_so_many(regulation, size, len(now), most), *places.after(now))
        waves.append(Wave(len(waves) + 1, tuple(c.name for c in now), why))
        size = len(now)
    return tuple(waves)


def _why_so_many(regulation: Regulation, before: int, size: int, most: int) -> str:
    if not before:
        return "canary"
    if size < most:
        return "the rest"
    if most == regulation.most:
        return f"most: {most}"
    grown = int(before * regulation.growth) > before
    return f"at most {regulation.growth:g} x the {before} before" if grown else f"one more than the {before} before"


class _Places:
    """How far the waves have come in each place, in words."""

    def __init__(self, everybody: Sequence[Candidate]) -> None:
        self._of = {
            "rail groups": (Counter(c.leaf for c in everybody), Counter[str]()),
            "NVLink domains": (Counter(c.domain for c in everybody), Counter[str]()),
        }

    def after(self, wave: Sequence[Candidate]) -> tuple[str, ...]:
        """With this wave in: how many places are reached, and the fullest. Nothing where there is one place."""
        self._of["rail groups"][1].update(c.leaf for c in wave)
        self._of["NVLink domains"][1].update(c.domain for c in wave)
        return tuple(_reach(name, total, taken) for name, (total, taken) in self._of.items() if len(total) > 1)


def _reach(name: str, total: Counter[str], taken: Counter[str]) -> str:
    fullest = max(taken, key=lambda place: (taken[place] / total[place], place))
    most = f"{taken[fullest]} of {total[fullest]} nodes of {fullest or 'those without one'}"
    return f"{len(taken)} of {len(total)} {name}, at most {most}"


# What a look means


class Step(StrEnum):
    """What comes after a look at a wave."""

    SOAK = "soak"  # look again later
    COUNT = "count"  # it was watched long enough: its nodes are admitted
    HALT = "halt"  # it is taken back out, and no other is begun


@dataclass(frozen=True, slots=True)
class Decision:
    """The step, and the signs that halt where it is HALT."""

    step: Step
    signs: tuple[Sign, ...] = ()


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at.

    nodes    of the wave, in the pool
    earlier  let in by earlier waves of the same rollout: what goes bad there now halts too, for it may be the wave
    before   marks of what was told of all of them before the wave was let in: not of its doing
    """

    nodes: frozenset[str]
    earlier: frozenset[str] = frozenset()
    before: frozenset[Mark] = frozenset()


def mark(sign: Sign) -> Mark:
    """What makes two looks' signs one: the same happening, not another of its kind at another time."""
    return sign.node, sign.code, sign.source, sign.at.isoformat() if sign.at else ""


def marks_before(nodes: Collection[str], signs: Iterable[Sign]) -> frozenset[Mark]:
    """What a look before the wave leaves known. That a node of the wave takes no jobs yet must not be among it."""
    return frozenset(mark(sign) for sign in signs if sign.code != NODE_SHUT or sign.node not in nodes)


def unfit(nodes: Collection[str], signs: Iterable[Sign]) -> dict[str, Sign]:
    """By node, what was bad about it before it was let in: it stays out, and is no fault of any wave.

    That it takes no jobs is not bad: it is why it is let in.
    """
    found: dict[str, Sign] = {}
    for sign in signs:
        if sign.node in nodes and sign.code != NODE_SHUT:
            found.setdefault(sign.node, sign)
    return found


def decide(watched: Watched, signs: Iterable[Sign], watched_s: float, soak_s: float) -> Decision:
    """What to do after a look that showed `signs`, `watched_s` into a soak of `soak_s`. A bad sign outweighs time."""
    halting = tuple(sign for sign in signs if _halts(watched, sign))
    if halting:
        return Decision(Step.HALT, halting)
    return Decision(Step.COUNT if watched_s >= soak_s else Step.SOAK)


def _halts(watched: Watched, sign: Sign) -> bool:
    if mark(sign) in watched.before:
        return False
    # A node of an earlier wave that somebody took out is somebody's decision about that node.
    return sign.node in watched.nodes or (sign.node in watched.earlier and sign.code != NODE_SHUT)
