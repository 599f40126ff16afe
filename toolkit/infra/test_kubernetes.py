"""Kubernetes: container runtime and kubelet run, the kubelet registers tainted, the pool sees nothing bad of a member.

A pool of another kind is asked the same of its members; Slurm has no kubelet to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from toolkit.errors import RackproofError
from toolkit.facts import probe
from toolkit.infra import words
from toolkit.infra.areas import KUBERNETES, gates_of
from toolkit.infra.questions import GOOD, Answered, Asking, Plan, Question, asks, of_nodes
from toolkit.infra.readings import Readings, now
from toolkit.infra.targets import Target
from toolkit.pool.policy import PoolKind, PoolPolicy
from toolkit.pool.policy_file import load_policy
from toolkit.rack.model import Rack

SERVICES = ("containerd.service", "kubelet.service")
# A sign that came and went within a job step is still worth a look; one of yesterday is history.
SINCE = timedelta(hours=1)
_NO_KUBELET = "the pool is Slurm: no kubelet is there"


def policy_of(plan: Plan, rack: Rack) -> PoolPolicy | RackproofError:
    """What the site's pool file says, or why it cannot be read."""
    try:
        return load_policy(plan.settings, rack.site)
    except RackproofError as error:
        return error


def unless_slurm(asked: Asking) -> Asking:
    """The questions, skipped where the pool is Slurm."""

    def each(plan: Plan) -> Iterator[Question]:
        policy = policy_of(plan, plan.rack) if plan.rack else None
        slurm = isinstance(policy, PoolPolicy) and policy.kind is PoolKind.SLURM
        for q in asked(plan):
            yield Question(q.target, q.name, q.ask, _NO_KUBELET) if slurm and not q.skip else q

    return each


def services(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """Each service that stage kubernetes installs."""
    for name in SERVICES:
        yield Question(target, name, _running(target, name).ask)


def _running(target: Target, service: str) -> Question:
    def ask(readings: Readings) -> Answered:
        fact = readings.fact(target, probe.STATES)
        next_ = f"ssh {target.name} journalctl -u {service} -n 40"
        state = (fact.value or {}).get(service, {}).get("ActiveState", "")
        if fact.problem is not None or not state:
            what = fact.problem or f"systemctl does not say how {service} is"
            return words.inconclusive("EVIDENCE_MISSING", f"{target.name}: {what}", next_)
        if state == "active":
            return GOOD
        if state in ("activating", "reloading", "deactivating"):
            return words.inconclusive("SERVICE_ON_ITS_WAY", f"{target.name}: {service} is {state}", next_)
        return words.failed("SERVICE_DOWN", f"{target.name}: {service} is {state}, must be active", next_)

    return Question(target, service, ask)


def members(plan: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """What the pool says of a node that it gives jobs to."""

    def ask(readings: Readings) -> Answered:
        pool = readings.hands.pool
        member = pool.nodes().get(target.name)
        if member is None or not member.admitted:
            why = "is no member of the pool" if member is None else f"takes no jobs: {member.reason or 'no reason'}"
            pytest.skip(f"{target.name} {why}")
        signs = pool.signs((target.name,), now() - SINCE)
        if not signs:
            return GOOD
        others = [f"also:   {s.code} ({s.source}): {s.detail}" for s in signs[1 : 1 + words.SHOWN]]
        next_ = f"rackproof why {target.name}; rackproof drain {target.name} --reason {signs[0].code}"
        what = f"{target.name}: {signs[0].detail}"
        return words.failed(signs[0].code, what, next_, f"said by: {signs[0].source}", *others)

    yield Question(target, "", ask, _no_access(plan, rack))


def _no_access(plan: Plan, rack: Rack) -> str:
    policy = policy_of(plan, rack)
    if isinstance(policy, PoolPolicy) and policy.kind is PoolKind.KUBERNETES:
        file = plan.settings.secrets(rack.site) / policy.kubernetes.kubeconfig
        return "" if file.exists() else f"this pipeline has no login of the cluster: {file}"
    return ""


@pytest.mark.smoke
@asks(unless_slurm(gates_of(KUBERNETES)))
def test_gate(answer: Answered) -> None:
    """A gate of the profile about the kubelet."""
    answer.holds()


@pytest.mark.smoke
@asks(unless_slurm(of_nodes(services)))
def test_service(answer: Answered) -> None:
    """A service that pods need is active."""
    answer.holds()


@asks(of_nodes(members))
def test_member(answer: Answered) -> None:
    """The pool that gives the node jobs sees nothing bad of it."""
    answer.holds()
