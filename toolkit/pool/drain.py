"""Takes pods off a node through the eviction API, which honours their disruption budgets; nothing is ever deleted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from toolkit.kubernetes.client import ApiServer, Object
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, ConflictError
from toolkit.pool.budgets import controller_of, holding, is_leaving, pod_name, stays
from toolkit.pool.model import Drained, DrainEnd
from toolkit.pool.node_object import shown

EVICTIONS = ("policy/v1", "policy/v1beta1")  # 1.22 and newer; before
_FIRST_S, _MOST_S = 0.2, 5.0  # between two rounds: pods that end at once, and budgets that free up in minutes
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Drain:
    """One node's drain.

    refused  what the API server says of a pod that it does not evict, by the pod's name
    """

    api: ApiServer
    node: str
    sleep: Callable[[float], None] = time.sleep

    def run(self, deadline_s: float) -> Drained:
        """Until nothing is left to move, or the deadline. An API server that is away is waited for until then."""
        end = time.monotonic() + deadline_s
        version = ""
        left: tuple[Object, ...] | None = None
        refused: dict[str, str] = {}
        pause_s, silent = _FIRST_S, ""
        while True:
            try:
                version = version or self._version()
                left = self.moving()
                if not left:
                    return Drained(self.node, DrainEnd.EMPTY)
                refused = self._evict(left, version)
                silent = ""
            except ApiUnreachableError as away:
                silent = away.message
            if time.monotonic() + pause_s > end:
                break
            self.sleep(pause_s)
            pause_s = min(_MOST_S, pause_s * 2)
        return self._ended(left or (), refused, silent, deadline_s)

    def moving(self) -> tuple[Object, ...]:
        """Pods on the node that a drain has to move: all but static, a DaemonSet's, and ended ones."""
        found = self.api.list("v1", "Pod", fields=f"spec.nodeName={self.node}")
        return tuple(pod for pod in found if not stays(pod))

    def _version(self) -> str:
        return next((v for v in EVICTIONS if self.api.serves(v, "Eviction")), EVICTIONS[-1])

    def _evict(self, pods: tuple[Object, ...], version: str) -> dict[str, str]:
        """Asks for each that may move and has not been asked for; what was refused, and why."""
        refused = {}
        for pod in pods:
            if controller_of(pod) and not is_leaving(pod):
                why = self._one(pod, version)
                if why:
                    refused[pod_name(pod)] = why
        return refused

    def _one(self, pod: Object, version: str) -> str:
        meta = pod["metadata"]
        # The uid: a pod that came after it under the same name is not the one that was looked at.
        body = {
            "apiVersion": version,
            "kind": "Eviction",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
        }
        try:
            self.api.create(body, namespace=meta["namespace"])
        except ConflictError:
            return ""  # looked at again in the next round
        except ApiRefusedError as no:
            if no.status == HTTPStatus.NOT_FOUND:
                return ""
            if no.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.INTERNAL_SERVER_ERROR):
                return no.message  # 500: more than one budget covers the pod; that does not pass by itself
            raise
        return ""

    def _ended(self, left: tuple[Object, ...], refused: dict[str, str], silent: str, deadline_s: float) -> Drained:
        names = tuple(shown(pod_name(pod), 130) for pod in left)
        if silent:
            return Drained(self.node, DrainEnd.UNDECIDED, names, silent)
        try:
            budgets = self._budgets()
        except (ApiUnreachableError, ApiRefusedError) as no:
            return Drained(self.node, DrainEnd.BLOCKED, names, f"after {deadline_s:g} s; who holds it: {no.message}")
        told = [_why(pod, budgets, refused.get(pod_name(pod), "")) for pod in left]
        more = [f"{len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
        return Drained(
            self.node, DrainEnd.BLOCKED, names, f"after {deadline_s:g} s: " + "; ".join([*told[:_SHOWN], *more])
        )

    def _budgets(self) -> tuple[Object, ...]:
        version = next((v for v in EVICTIONS if self.api.serves(v, "PodDisruptionBudget")), EVICTIONS[-1])
        return self.api.list(version, "PodDisruptionBudget")


def _why(pod: Object, budgets: tuple[Object, ...], refused: str) -> str:
    name = shown(pod_name(pod), 130)
    if is_leaving(pod):
        return f"{name} is still ending, within its grace period"
    if not controller_of(pod):
        return f"{name} is nobody's: no controller would start it again, so it was not evicted"
    covers = holding(pod, budgets)
    if len(covers) > 1:
        return f"{name} is under {len(covers)} budgets at once, which Kubernetes never evicts: {'; '.join(covers)}"
    if covers:
        return f"{name} is held by {covers[0]}"
    return f"{name} stays: {refused or 'it was not evicted in time'}"
