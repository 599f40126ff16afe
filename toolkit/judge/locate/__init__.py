"""Which part is bad: tests over groups, a posterior over parts, and the next round that tells most. Pure.

`fabric_of` derives from a rack what may be bad and which parts a test's traffic crosses; `localise` turns observations
into suspects; `next_round` says which disjoint tests to run next, or that more tests cannot change the verdict.
"""

from __future__ import annotations

from toolkit.judge.locate.fabric import Fabric, Plane, Test
from toolkit.judge.locate.observation import Counter, Observation, Outcome
from toolkit.judge.locate.parts import Part, PartKind, Segment
from toolkit.judge.locate.posterior import Belief, believe
from toolkit.judge.locate.rounds import next_round
from toolkit.judge.locate.suspects import Localisation, Suspect, localise
from toolkit.judge.locate.topology import fabric_of

__all__ = [
    "Belief",
    "Counter",
    "Fabric",
    "Localisation",
    "Observation",
    "Outcome",
    "Part",
    "PartKind",
    "Plane",
    "Segment",
    "Suspect",
    "Test",
    "believe",
    "fabric_of",
    "localise",
    "next_round",
]
