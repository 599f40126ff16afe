"""Width, speed and state of the cables that are there, against the plan's rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.judge.fabric.design import DesignedLink
from toolkit.judge.fabric.line import Action
from toolkit.judge.fabric.picture import Picture
from toolkit.judge.fabric.sheet import Sheet, count, some
from toolkit.judge.fabric.speeds import GBIT_PER_LANE, LANES, speed_name
from toolkit.rack.model import Port

ALL_ALIKE = 3  # so many cables, and all of them slow alike: it is the plan or a setting


@dataclass(frozen=True, slots=True)
class Trained:
    """A planned cable in its place and how it trained; a lane's rate is None where neither tool showed it."""

    link: DesignedLink
    lanes: int | None
    gbit_per_lane: float | None

    @property
    def known(self) -> bool:
        """Whether it can be judged."""
        return self.lanes is not None and self.gbit_per_lane is not None

    @property
    def short(self) -> bool:
        """Whether it carries less than planned."""
        return self.lanes is not None and self.gbit_per_lane is not None and (
            self.lanes * self.gbit_per_lane < self.link.gbit
        )  # fmt: skip


def judge_health(picture: Picture, sheet: Sheet, active: frozenset[Port]) -> int:
    """Lines for narrow and slow cables. Returns how many planned cables are in place, at rate and Active.

    `active` holds the ports that were seen Active.
    """
    trained = list(_trained(picture))
    unknown = [_name(t, picture) for t in trained if not t.known]
    if unknown:
        sheet.doubts.append(f"width or speed not shown of {count(len(unknown), 'cable')}: {some(unknown)}")
    short = [t for t in trained if t.short]
    rates = Counter((t.lanes, t.gbit_per_lane) for t in trained)
    if len(short) >= ALL_ALIKE and len(short) == len(trained) and len(rates) == 1:
        _all_slow(short, picture, sheet)
    else:
        for cable in short:
            _narrow_or_slow(cable, picture, sheet)
    return sum(t.known and not t.short and t.link.a in active and t.link.b in active for t in trained)


def _trained(picture: Picture) -> Iterator[Trained]:
    for link in picture.design.links:
        seen = picture.links.get(link.a)
        if seen is None or (link.a, link.b) not in picture.cables:
            continue
        states = [s for s in (picture.states.get(link.a), picture.states.get(link.b)) if s is not None]
        lanes = [s.lanes for s in states if s.lanes is not None] + ([seen.lanes] if seen.lanes is not None else [])
        speeds = [s.gbit_per_lane for s in states if s.gbit_per_lane is not None]
        speeds += [GBIT_PER_LANE[seen.speed]] if seen.speed in GBIT_PER_LANE else []
        yield Trained(link, min(lanes, default=None), min(speeds, default=None))


def _narrow_or_slow(cable: Trained, picture: Picture, sheet: Sheet) -> None:
    link, lanes, lane = cable.link, cable.lanes or 0, cable.gbit_per_lane or 0.0
    near, far = sorted((link.a, link.b), key=lambda port: not port.port.isdigit())
    could = [f"{picture.word(p)}: {s.could_be}" for p in (near, far) if (s := picture.states.get(p)) and s.could_be]
    evidence = [
        f"trained {lanes}X {speed_name(lane)}, planned {LANES}X {link.speed or f'{link.gbit:g} Gbit/s'}",
        *could,
    ]
    name = f"{picture.word(near)} - {picture.word(far)}"
    ends = (picture.end(near), picture.end(far))
    proof = f"`iblinkinfo` shows {LANES}X {link.speed} at both ends; {sheet.again}"
    if lanes < LANES:
        also = f" at {speed_name(lane)} of {link.speed}" if lane < link.gbit_per_lane else ""
        sheet.add(
            "FABRIC_LINK_NARROW", Action.REPLACE, f"replace cable {name}: {lanes}X of {LANES}X{also}", ends,
            [*evidence, "lanes are dead in the cable, a connector or a port: if a new one is narrow too, a port"],
            proof, "cable",
        )  # fmt: skip
        return
    sheet.add(
        "FABRIC_LINK_SLOW", Action.RESEAT,
        f"reseat the cable {name}: {speed_name(lane)} of {link.speed or f'{link.gbit:g} Gbit/s'}", ends,
        [*evidence, "if it stays: the speeds enabled at both ports (`smpquery portinfo`), the cable's rating"],
        proof, "cable",
    )  # fmt: skip


def _all_slow(short: list[Trained], picture: Picture, sheet: Sheet) -> None:
    first = short[0]
    sheet.add(
        "FABRIC_LINK_SLOW", Action.CONFIGURE,
        f"all {len(short)} cables trained {first.lanes}X {speed_name(first.gbit_per_lane or 0)}, planned {LANES}X "
        f"{first.link.speed}: the plan's rate, or the speeds the ports are allowed",
        [picture.end(p) for t in short for p in (t.link.a, t.link.b)],
        ["all alike: a setting or the plan before any cable"],
        f"`iblinkinfo` shows {first.link.speed}; {sheet.again}", "software",
    )  # fmt: skip


def _name(cable: Trained, picture: Picture) -> str:
    return f"{picture.word(cable.link.a)} - {picture.word(cable.link.b)}"
