"""What was wrong, what was said of it, and sums of both over trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from toolkit.judge.locate import Fabric, Part, PartKind, Plane
from toolkit.virtual.fault_model import Trouble


@dataclass(frozen=True, slots=True)
class Said:
    """What a method says of a rack.

    parts       by name of a convicted segment: its likeliest part
    exchanges   names of segments whose cables it says may be in each other's port
    unmeasured  planes and nodes it says were not measured
    suspected   names of segments that it suspects and has not proven
    """

    parts: dict[str, str] = field(default_factory=dict)
    exchanges: tuple[frozenset[str], ...] = ()
    unmeasured: frozenset[tuple[Plane, str]] = frozenset()
    suspected: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Truth:
    """What is wrong with a rack.

    parts       by name of the segment that holds it: the bad part, or a cable that is in the wrong port
    faults      names of segments with a bad part
    exchanges   names of segments whose cables are in each other's port
    unmeasured  planes and nodes whose tests cannot take their way
    """

    parts: dict[str, str]
    faults: frozenset[str]
    exchanges: tuple[frozenset[str], ...]
    unmeasured: frozenset[tuple[Plane, str]]

    @classmethod
    def of(cls, fabric: Fabric, trouble: Trouble) -> Truth:
        """Of a fabric with that trouble."""
        bad = {f.part for f in trouble.faults}
        faults = {s.name: str(p) for s in fabric.segments for p in s.parts if p in bad} if bad else {}
        crossed = [[fabric.segments[fabric.attachment[e]] for e in pair] for pair in trouble.exchanged]
        cables = {s.name: str(_cable(s.parts)) for pair in crossed for s in pair}
        return cls(
            faults | cables,
            frozenset(faults),
            tuple(frozenset(s.name for s in pair) for pair in crossed),
            frozenset((d.plane, d.node) for d in trouble.detours),
        )

    @property
    def count(self) -> int:
        """Things to find. A wrong configuration is one, wherever it is."""
        return len(self.faults) + len(self.exchanges) + bool(self.unmeasured)

    def found(self, said: Said) -> int:
        """How many of them were."""
        crossed = sum(any(pair <= group for group in said.exchanges) for pair in self.exchanges)
        configured = bool(self.unmeasured) and self.unmeasured == said.unmeasured
        return len(self.faults & said.parts.keys()) + crossed + configured


def _cable(parts: Sequence[Part]) -> Part:
    return next(p for p in parts if p.kind is PartKind.CABLE)


@dataclass(slots=True)
class Tally:
    """Sums over the trials of a method on a fault class in a place."""

    trials: int = 0
    faults: int = 0
    recalled: int = 0
    named: int = 0
    true: int = 0
    exact: int = 0
    blamed: int = 0  # racks in which something healthy was convicted
    clean: int = 0  # racks with nothing wrong
    alarmed: int = 0  # of those, racks in which something was convicted or called unmeasured
    unsettled: int = 0  # racks left with a fault that is suspected, not proven
    named_in: list[int] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    tests: list[int] = field(default_factory=list)
    decisions_s: list[float] = field(default_factory=list)  # longest decision of each trial, CPU seconds

    def take(self, truth: Truth, said: Said, rounds: int, tests: int, named_in: int | None = None) -> None:
        """One more rack. `named_in`: rounds after which all was said that is wrong, and stayed said."""
        right = truth.parts.keys() & said.parts.keys()
        self.trials += 1
        self.faults += truth.count
        self.recalled += truth.found(said)
        self.named += len(said.parts)
        self.true += len(right)
        self.exact += sum(truth.parts[name] == said.parts[name] for name in right)
        self.blamed += bool(said.parts.keys() - truth.parts.keys())
        self.clean += not truth.count
        self.alarmed += not truth.count and bool(said.parts or said.unmeasured)
        self.unsettled += bool(said.suspected & truth.faults)
        self.rounds.append(rounds)
        self.tests.append(tests)
        if named_in is not None:
            self.named_in.append(named_in)

    def row(self) -> dict[str, object]:
        """For JSON; None where there is nothing to divide by."""
        return {
            "trials": self.trials,
            "faults": self.faults,
            "recall": _share(self.recalled, self.faults),
            "recall_at_least": _bound(self.recalled, self.faults, -1),
            "segment_precision": _share(self.true, self.named),
            "part_precision": _share(self.exact, self.named),
            "racks_with_healthy_parts_blamed": self.blamed,
            "clean_racks": self.clean,
            "false_alarms_per_1000_clean": _share(1000 * self.alarmed, self.clean),
            "false_alarms_per_1000_clean_at_most": _bound(self.alarmed, self.clean, 1, per=1000),
            "unsettled": self.unsettled,
            "rounds_to_name": _spread(self.named_in),
            "rounds": _spread(self.rounds),
            "tests": _spread(self.tests),
            "decision_cpu_s": round(max(self.decisions_s), 3) if self.decisions_s else None,
        }

    @classmethod
    def sum(cls, tallies: Sequence[Tally]) -> Tally:
        """Of several classes."""
        whole = cls()
        for tally in tallies:
            for each in fields(cls):
                setattr(whole, each.name, getattr(whole, each.name) + getattr(tally, each.name))
        return whole


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _bound(part: int, whole: int, side: int, per: int = 1) -> float | None:
    """One-sided 95 % bound of a share (Wilson): below it for side -1, above it for 1."""
    if not whole:
        return None
    z, share = 1.6449, part / whole
    centre = share + z * z / (2 * whole)
    reach = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return round(per * (centre + side * reach) / (1 + z * z / whole), 4)


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max": ordered[-1],
    }
