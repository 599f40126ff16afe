"""A node's resting states and the only moves between them. Progress belongs to runs, not here.

`MOVES` is the one table; README's picture is drawn from it (`diagram`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from toolkit.errors import RackproofError


class NodeState(StrEnum):
    """Where a node rests."""

    PLANNED = "PLANNED"  # on paper; nothing is known of the machine
    IMAGED = "IMAGED"  # runs the planned image; a rented node enters here
    CONFIGURED = "CONFIGURED"  # driver, services and settings as planned
    CONNECTED = "CONNECTED"  # NVLink and InfiniBand as planned
    JOINED = "JOINED"  # a tainted member of the cluster
    TESTED = "TESTED"  # burn-in measured everything it planned to
    CERTIFIED = "CERTIFIED"  # a verified certificate names it
    ADMITTED = "ADMITTED"  # takes training jobs
    QUARANTINED = "QUARANTINED"  # failed on evidence, or set aside by the operator
    RETIRED = "RETIRED"  # out of the rack for good


class Outcome(StrEnum):
    """How a run ended. FAILED only from evidence about the hardware; everything else that went wrong is ERROR."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    ERROR = "ERROR"


class Stage(StrEnum):
    """The verbs of the pipeline, in the order they are run."""

    IMAGE = "image"
    BASE = "base"
    NVLINK = "nvlink"
    INFINIBAND = "infiniband"
    KUBERNETES = "kubernetes"
    BURNIN = "burnin"
    CERTIFY = "certify"
    ADMIT = "admit"


class Move(StrEnum):
    """Why a node changes its state."""

    IMAGE = "image"
    CONFIGURE = "configure"
    CONNECT = "connect"
    JOIN = "join"
    TEST = "test"
    RETEST = "retest"  # the evidence was inconclusive
    KEEP = "keep"  # it was so while an earlier certificate stands: that one goes on
    CERTIFY = "certify"
    ADMIT = "admit"
    ASIDE = "aside"  # out of the pool to be measured again; its certificate stands
    LAPSE = "lapse"  # certificate expired, or a bound fact drifted
    QUARANTINE = "quarantine"
    REPAIR = "repair"
    RETIRE = "retire"


S, M = NodeState, Move
_LIVE = tuple(s for s in S if s not in (S.QUARANTINED, S.RETIRED))

MOVES: dict[tuple[NodeState, Move], NodeState] = {
    (S.PLANNED, M.IMAGE): S.IMAGED,
    (S.IMAGED, M.CONFIGURE): S.CONFIGURED,
    (S.CONFIGURED, M.CONNECT): S.CONNECTED,
    (S.CONNECTED, M.JOIN): S.JOINED,
    (S.JOINED, M.TEST): S.TESTED,
    (S.TESTED, M.RETEST): S.JOINED,
    (S.TESTED, M.CERTIFY): S.CERTIFIED,
    (S.TESTED, M.KEEP): S.CERTIFIED,
    (S.CERTIFIED, M.TEST): S.TESTED,
    (S.CERTIFIED, M.ADMIT): S.ADMITTED,
    (S.ADMITTED, M.ASIDE): S.CERTIFIED,
    (S.CERTIFIED, M.LAPSE): S.JOINED,
    (S.ADMITTED, M.LAPSE): S.JOINED,
    (S.QUARANTINED, M.REPAIR): S.PLANNED,
    **{(state, M.QUARANTINE): S.QUARANTINED for state in _LIVE},
    **{(state, M.RETIRE): S.RETIRED for state in (*_LIVE, S.QUARANTINED)},
}

# The stages that may run in a state, in order, and the move the last of them makes.
# CONFIGURED needs both fabrics before it moves: the first of the two makes none.
STAGES_OF: dict[NodeState, tuple[Stage, ...]] = {
    S.PLANNED: (Stage.IMAGE,),
    S.IMAGED: (Stage.BASE,),
    S.CONFIGURED: (Stage.NVLINK, Stage.INFINIBAND),
    S.CONNECTED: (Stage.KUBERNETES,),
    S.JOINED: (Stage.BURNIN,),
    S.TESTED: (Stage.CERTIFY,),
    S.CERTIFIED: (Stage.ADMIT,),
}
MOVE_AFTER: dict[Stage, Move | None] = {
    Stage.IMAGE: M.IMAGE,
    Stage.BASE: M.CONFIGURE,
    Stage.NVLINK: None,
    Stage.INFINIBAND: M.CONNECT,
    Stage.KUBERNETES: M.JOIN,
    Stage.BURNIN: M.TEST,
    Stage.CERTIFY: M.CERTIFY,
    Stage.ADMIT: M.ADMIT,
}


def reached(state: NodeState, goal: NodeState) -> bool:
    """Whether a node in `state` is at `goal` or past it on the way to ADMITTED."""
    way = (*STAGES_OF, NodeState.ADMITTED)
    return state in way and goal in way and way.index(state) >= way.index(goal)


@dataclass(frozen=True, slots=True)
class Moved:
    """One move a node made, for its story."""

    at: str
    before: NodeState
    move: Move
    after: NodeState


class IllegalMoveError(RackproofError):
    """A move the table does not have. Carries the node's story: it is a defect of ours."""

    def __init__(self, node: str, state: NodeState, move: Move, history: Iterable[Moved]) -> None:
        story = "; ".join(f"{m.at} {m.before} -{m.move}-> {m.after}" for m in history) or "no moves yet"
        super().__init__(
            f"{node}: {state} has no move '{move}'. Its story: {story}",
            "this is a defect of rackproof: keep the ledger and report it",
        )


def after(node: str, state: NodeState, move: Move, history: Iterable[Moved] = ()) -> NodeState:
    """The state `move` leads to. Raises IllegalMoveError with the node's history if there is none."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise IllegalMoveError(node, state, move, history) from None


def diagram() -> str:
    """The table as a mermaid state diagram, for the README."""
    lines = ["stateDiagram-v2", "    [*] --> PLANNED"]
    for (before, move), target in MOVES.items():
        if move in (M.QUARANTINE, M.RETIRE):
            continue
        lines.append(f"    {before} --> {target}: {move}")
    lines.append("    note right of QUARANTINED: from any live state, on failed evidence or by the operator")
    lines.append("    note right of RETIRED: from any state")
    return "\n".join(lines)
