"""Whether a node may take jobs: from its certificate and from what it is now. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from toolkit.certificate.fingerprint import NodeFacts, drift
from toolkit.certificate.reading import Verified
from toolkit.judge.verdict import CLOCK_SKEW


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer and its reason, for the pool and for the operator."""

    allowed: bool
    reason: str


def may_admit(certificate: Verified, node: NodeFacts, now: datetime) -> Admission:
    """Only a verified certificate in force that names the node, whose every bound fact is what it is now."""
    name = f"certificate {certificate.digest[:12]}"
    if certificate.issued_at > now + CLOCK_SKEW:
        return Admission(False, f"{name} is valid from {certificate.issued_at.isoformat()} only")
    if certificate.expires_at <= now:
        return Admission(False, f"{name} expired at {certificate.expires_at.isoformat()}")
    certified = certificate.fingerprint.node(node.node)
    if certified is None:
        why = dict(certificate.left_out).get(node.node, "it is not one of its rack")
        return Admission(False, f"{name} of {certificate.rack} does not name {node.node}: {why}")
    changes = drift(certified, node)
    if changes:
        return Admission(False, f"{node.node} is not as {name} certified it: " + "; ".join(changes[:8]))
    return Admission(True, f"{name} is in force until {certificate.expires_at.isoformat()}")
