"""Which part is bad: tests over groups, a posterior over parts, and the next round that tells most. Pure.

`fabric_of` derives from a rack what may be bad and which parts a test's traffic crosses; `next_round` says which
disjoint tests to run next, or that more tests cannot change the verdict; `controls` adds what they are set against, and
`observe` does so; `localise` turns observations into suspects, cables that may be exchanged, and nodes that were not
measured because their tests took another way. Over the rounds of a large fabric one `Evidence` grows,
and `weigh` counts again only what the last round touched.
"""

from __future__ import annotations

from toolkit.judge.locate.evidence import Evidence
from toolkit.judge.locate.exchange import Exchange
from toolkit.judge.locate.fabric import Fabric, Plane, Seat, Test
from toolkit.judge.locate.measured import Bounds, Measured, controls, healthy_rates, observe
from toolkit.judge.locate.observation import Counter, Observation, Outcome
from toolkit.judge.locate.parts import Part, PartKind, Segment
from toolkit.judge.locate.posterior import Belief, believe, weigh
from toolkit.judge.locate.rounds import next_round
from toolkit.judge.locate.suspects import Localisation, Suspect, localise
from toolkit.judge.locate.topology import fabric_of
from toolkit.judge.locate.ways import Unmeasured

__all__ = [
    "Belief",
    "Bounds",
    "Counter",
    "Evidence",
    "Exchange",
    "Fabric",
    "Localisation",
    "Measured",
    "Observation",
    "Outcome",
    "Part",
    "PartKind",
    "Plane",
    "Seat",
    "Segment",
    "Suspect",
    "Test",
    "Unmeasured",
    "believe",
    "controls",
    "fabric_of",
    "healthy_rates",
    "localise",
    "next_round",
    "observe",
    "weigh",
]
