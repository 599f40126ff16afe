"""A PodStatus as a kubelet posts it, from what became of the pod's containers. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .kubelet_container import stamp

Object = dict[str, Any]
_REASONS = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}


@dataclass(frozen=True)
class End:
    """How a pod ended."""

    phase: str
    reason: str = ""
    message: str = ""


def seconds(text: str | None) -> float:
    """A time of the API; now where there is none."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp() if text else time.time()


def status(
    address: str,
    began: float,
    init: Sequence[Object],
    main: Sequence[Object],
    end: End | None,
    before: Mapping[str, Any],
) -> Object:
    """The status of a pod whose containers have these statuses; `before`: the one that was posted last.

    A container that runs is ready: nobody probes it.
    """
    started = any("waiting" not in one["state"] for one in main)
    phase = end.phase if end else ("Running" if started else "Pending")
    ready = end is None and all(one["ready"] for one in main)
    done = all("terminated" in one["state"] and one["state"]["terminated"]["exitCode"] == 0 for one in init)
    reason = _REASONS.get(phase, "ContainersNotReady")
    over = {"ready": False, "started": False} if end else {}
    return {
        "phase": phase,
        "reason": end.reason if end and end.reason else None,
        "message": end.message if end and end.message else None,
        "hostIP": address,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": stamp(began),
        "conditions": [
            _condition("PodScheduled", True, "", before),
            _condition("Initialized", done, "ContainersNotInitialized", before),
            _condition("Ready", ready, reason, before),
            _condition("ContainersReady", ready, reason, before),
        ],
        "initContainerStatuses": [{**one, **over} for one in init],
        "containerStatuses": [{**one, **over} for one in main],
    }


def _condition(kind: str, holds: bool, reason: str, before: Mapping[str, Any]) -> Object:
    word = "True" if holds else "False"
    found: list[Object] = [c for c in before.get("conditions") or () if c.get("type") == kind]
    since = found[0].get("lastTransitionTime") if found and found[0].get("status") == word else None
    return {
        "type": kind,
        "status": word,
        "lastTransitionTime": since or stamp(time.time()),
        "reason": None if holds else reason,
    }
