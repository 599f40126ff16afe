"""Resets the GPUs that ask for it, once for one cause: intent on record before the act, what was seen after it.

A cause is a burn-in by its id. Whoever comes back after being killed looks at the GPUs before touching them: the
counters of a reset that worked tell that it was done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolkit.facts.measure import measurements_of
from toolkit.facts.probe import GPUS, read
from toolkit.judge.recovery import RESETS, Recovery
from toolkit.ledger import Event, EventKind
from toolkit.rack.lifecycle import Move, Stage
from toolkit.rack.model import Mode, Unit
from toolkit.stages.context import Context, Progress, Result, error

WHAT = "gpu recovery"
BY_HAND = "GPU_RESET_BY_HAND"
RESET_SECONDS = 180.0
SETTLE_POLLS, POLL_SECONDS = 60, 1.0  # GPUs join the NVLink fabric again some seconds after their reset


def spent(context: Context, node: Unit, cause: str) -> frozenset[int]:
    """GPUs whose recovery for another cause was done since the node's certification began.

    It begins when the node is new, repaired, or certified before.
    """
    rack, ledger = context.rack.name, context.ledger
    moved = ledger.events(rack, node.name, kind=EventKind.NODE_MOVED, limit=100_000)
    began = max((e.id for e in moved if e.body.get("move") in (Move.REPAIR, Move.CERTIFY)), default=0)
    seen = ledger.events(rack, node.name, kind=EventKind.OBSERVED, after=began, limit=100_000)
    done = [_details(e) for e in seen if e.what == WHAT and _details(e)["done"]]
    return frozenset(int(gpu) for details in done if details["cause"] != cause for gpu in details["gpus"])


def recover(context: Context, node: Unit, cause: str, due: Recovery) -> Result | None:
    """Does what is due and not yet done for this cause. None: the suite may run again; else why it may not."""
    if node.host is None:
        return _by_hand(node, due)
    rack, ledger = context.rack.name, context.ledger
    intent = ledger.find(rack, node.name, EventKind.INTENT, WHAT)
    seen = ledger.find(rack, node.name, EventKind.OBSERVED, WHAT)
    known = intent is not None and _details(intent)["cause"] == cause
    if known and seen is not None and intent is not None and seen.id > intent.id and _details(seen)["done"]:
        return None
    together = _together(context, due)
    base = {"cause": cause, "gpus": list(due.gpus), "reset": list(together)}
    if not known:
        ledger.intent(rack, node.name, WHAT, base)
    said = ""
    if due.reset and not (known and settled(context, node, due.reset).done):
        context.progress(Progress(node.name, Stage.BURNIN, f"resetting GPUs {_names(together)}"))
        argv = ["nvidia-smi", "--gpu-reset", "-i", ",".join(map(str, together))]
        answer = context.hands.shell.run(node, argv, RESET_SECONDS)
        said = (answer.stdout + b" " + answer.stderr)[:300].decode("utf-8", "replace").strip()
        if answer.status != 0:
            ledger.observed(rack, node.name, WHAT, base | {"done": False, "said": said})
            return _refused(node, together, f"nvidia-smi ended with {answer.status}: {said}")
    look = settled(context, node, due.reset, SETTLE_POLLS)
    found = {"done": look.done, "said": said, "artifact": look.artifact, "problem": look.problem}
    ledger.observed(rack, node.name, WHAT, base | found)
    return None if look.done else _refused(node, together, look.problem)


def _details(event: Event) -> dict[str, Any]:
    details: dict[str, Any] = event.body["details"]
    return details


def _together(context: Context, due: Recovery) -> tuple[int, ...]:
    """Which GPUs are reset. Those that share NVLink go together: the fabric between them is trained anew, and a node
    in burn-in has no other program on them (nvidia-smi(1), --gpu-reset; Fabric Manager user guide)."""
    if not due.reset or context.rack.profile.mode is Mode.PCIE:
        return due.reset
    return tuple(range(context.rack.profile.gpus_per_node))


def _names(gpus: Iterable[int]) -> str:
    return ", ".join(map(str, gpus))


def _by_hand(node: Unit, due: Recovery) -> Result:
    """SSH does not reach the node, and a pod that holds a GPU cannot reset it."""
    return error(
        BY_HAND,
        f"GPUs {_names(due.gpus)} of {node.name} wait for a reset, and rackproof does not reach it to do that",
        f"drain {node.name} and reboot it, or nvidia-smi --gpu-reset there; then burn it in again",
    )


def _refused(node: Unit, gpus: Iterable[int], why: str) -> Result:
    return error(
        "GPU_RESET_FAILED",
        f"GPUs {_names(gpus)} of {node.name} wait for a reset that was not done: {why}",
        f"end what holds them (nvidia-smi on {node.name}), or reboot it; then run the same command again",
    )


@dataclass(frozen=True, slots=True)
class Look:
    """GPUs as nvidia-smi shows them. `problem`: the first thing that still waits, in words; `artifact`: its output."""

    done: bool
    problem: str
    artifact: str


def settled(context: Context, node: Unit, gpus: Iterable[int], polls: int = 1) -> Look:
    """Looks until the GPUs ask for nothing and their fabric stands, at most so often."""
    look = Look(False, "nobody looked", "")
    for poll in range(polls):
        if poll:
            context.sleep(POLL_SECONDS)
        fact = read(context.hands.shell, node, GPUS, context.clock)
        artifact = context.ledger.artifacts.put(fact.raw)
        problem = fact.problem or _unsettled(fact.value["gpus"], gpus, measurements_of(fact, node, "", artifact))
        look = Look(not problem, problem, artifact)
        # One that fell off the bus is away until a boot: waiting brings nothing (nvidia-smi: "GPU is lost").
        if look.done or (fact.problem is None and any(g["lost"] for g in fact.value["gpus"])):
            break
    return look


def _unsettled(reported: list[dict[str, Any]], gpus: Iterable[int], measured: Iterable[Any]) -> str:
    """The first thing that still waits, in words; empty where nothing does."""
    values = {(m.subject.gpu, m.metric): m.value for m in measured}
    by_index = {g["index"]: g for g in reported}
    for gpu in gpus:
        if gpu not in by_index or by_index[gpu]["lost"]:
            return f"GPU {gpu} does not answer"
        if values.get((gpu, "row_remap_pending"), 1):
            return f"GPU {gpu} still has a row remap pending, or does not say"
        if values.get((gpu, "recovery_action")) in RESETS:
            return f"GPU {gpu} still asks for a reset"
        if by_index[gpu]["channel_repair_pending"] or by_index[gpu]["tpc_repair_pending"]:
            return f"GPU {gpu} still has a repair pending: it may need the node to reboot"
    waiting = [g for g, metric in values if metric == "fabric_state" and values[g, metric] == "In Progress"]
    return f"GPU {waiting[0]} is still joining the NVLink fabric" if waiting else ""
