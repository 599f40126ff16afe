"""What an admission would do: its waves, why these, and how long each is watched. Reads the ledger, changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from toolkit.ledger import Ledger
from toolkit.pool.policy import PoolKind, PoolPolicy
from toolkit.pool.wave_log import WaveLog
from toolkit.pool.waves import Wave, candidate, plan_waves, spread
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.model import Rack


@dataclass(frozen=True, slots=True)
class Underway:
    """A wave that was cut off: what the next admission begins with. `halted`: it will be taken out, for this reason."""

    number: int
    nodes: tuple[str, ...]
    watched_s: float
    halted: str


@dataclass(frozen=True, slots=True)
class AdmissionPlan:
    """What `rackproof admit` would do if nothing halts it and no certificate is refused.

    soak_s    each wave is watched this long
    no_smoke  why no wave runs a smoke collective; empty: each does
    held      nodes that are not let in, each with where it stands
    """

    rack: str
    site: str
    pool: PoolKind
    soak_s: float
    no_smoke: str
    underway: Underway | None
    waves: tuple[Wave, ...]
    held: tuple[tuple[str, NodeState], ...]

    @property
    def seconds(self) -> float:
        """How long the waves are watched together; what letting in and smoke collectives take comes on top."""
        left = 0.0
        if self.underway and not self.underway.halted:
            left = max(0.0, self.soak_s - self.underway.watched_s)
        return left + self.soak_s * len(self.waves)


def plan_admission(ledger: Ledger, rack: Rack, policy: PoolPolicy, now: datetime) -> AdmissionPlan:
    """The waves over the rack's certified nodes. After a wave that must be taken out none is planned."""
    states = ledger.node_states(rack.name)
    standing = {n.name: states[n.name].state if n.name in states else NodeState.PLANNED for n in rack.nodes}
    certified = [n for n in rack.nodes if standing[n.name] is NodeState.CERTIFIED]
    past = WaveLog(ledger, rack.name).rollout(now)
    underway, size = None, past.before
    if past.open is not None:
        left = tuple(n.name for n in certified if n.name in past.open.nodes)
        halted = past.open.halt.text if past.open.halt else ""
        # With nobody left of it, all of it was counted or went another way: there is nothing to go on with.
        underway = Underway(past.open.number, left, past.open.watched_s, halted) if left else None
        size = len(past.open.nodes) or size
    waiting = [candidate(rack, n) for n in certified if underway is None or n.name not in underway.nodes]
    waves = () if underway and underway.halted else plan_waves(spread(waiting), policy.regulation, size)
    begun = past.begun
    return AdmissionPlan(
        rack.name,
        rack.site,
        policy.kind,
        policy.regulation.soak_s,
        policy.no_smoke,
        underway,
        tuple(Wave(wave.number + begun, wave.nodes, wave.why) for wave in waves),
        tuple((name, state) for name, state in standing.items() if state is not NodeState.CERTIFIED),
    )
