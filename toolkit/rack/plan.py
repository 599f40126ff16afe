"""What would be done to a rack and why: a value, made without looking at anything but its arguments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from toolkit.rack.lifecycle import MOVE_AFTER, MOVES, STAGES_OF, NodeState, Stage, reached
from toolkit.rack.model import Rack


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What the ledger says of a node.

    passed  stages that passed since it entered its state (the first fabric of two)
    reason  why it rests where it rests, if that is worth saying: code and part of the last failure
    """

    state: NodeState = NodeState.PLANNED
    passed: frozenset[Stage] = frozenset()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A node of a step and why it is there."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """One stage on some nodes. `destructive`: what was on their disks is gone afterwards."""

    stage: Stage
    targets: tuple[Target, ...]
    destructive: bool


@dataclass(frozen=True, slots=True)
class Held:
    """A node the plan leaves alone, and why."""

    node: str
    state: NodeState
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order. `digest` names the plan in the ledger and the certificate."""

    rack: str
    rack_digest: str
    goal: NodeState
    steps: tuple[Step, ...]
    held: tuple[Held, ...]

    @property
    def digest(self) -> str:
        """sha256 of the canonical form."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @property
    def destructive(self) -> bool:
        """Whether anything on a disk will be lost."""
        return any(step.destructive for step in self.steps)

    def canonical(self) -> str:
        """Canonical JSON: what is stored and hashed."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


def make_plan(rack: Rack, status: Mapping[str, NodeStatus], goal: NodeState = NodeState.ADMITTED) -> Plan:
    """The shortest way from `status` to `goal` for every node that may move. A node without status is PLANNED."""
    targets: dict[Stage, list[Target]] = {stage: [] for stage in Stage}
    held: list[Held] = []
    for node in rack.nodes:
        now = status.get(node.name, NodeStatus())
        if reached(now.state, goal) or now.state not in STAGES_OF:
            held.append(Held(node.name, now.state, _why_held(node.name, now, goal)))
            continue
        for stage, why in _way(now, goal):
            targets[stage].append(Target(node.name, why))
    steps = tuple(
        Step(stage, tuple(found), destructive=stage is Stage.IMAGE) for stage, found in targets.items() if found
    )
    return Plan(rack.name, rack.digest, goal, steps, tuple(held))


def due(now: NodeStatus) -> tuple[Stage, ...]:
    """Stages a node has to pass where it rests, in order: all of its state, but a first fabric that passed already."""
    return tuple(s for s in STAGES_OF.get(now.state, ()) if MOVE_AFTER[s] is not None or s not in now.passed)


def _way(now: NodeStatus, goal: NodeState) -> list[tuple[Stage, str]]:
    way: list[tuple[Stage, str]] = []
    state, first = now.state, True
    while state is not goal and state in STAGES_OF:
        for stage in due(now) if first else STAGES_OF[state]:
            note = f" ({now.reason})" if first and now.reason else ""
            way.append((stage, f"is {state}{note}" if first else f"will be {state}"))
        move = MOVE_AFTER[STAGES_OF[state][-1]]
        state, first = MOVES[state, move] if move else goal, False
    return way


def _why_held(node: str, now: NodeStatus, goal: NodeState) -> str:
    if reached(now.state, goal):
        return "at its goal" if now.state is goal else f"past its goal {goal}"
    if now.state is NodeState.QUARANTINED:
        return f"{now.reason or 'set aside'}; after the repair: rackproof release {node}"
    return now.reason or "out of the rack"
