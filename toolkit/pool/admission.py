"""Whether a node may take jobs: from its certificate and from what it is now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from toolkit.certificate.drifted import drift
from toolkit.certificate.fingerprint import NodeFacts
from toolkit.certificate.reading import Verified
from toolkit.judge.verdict import CLOCK_SKEW


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer and its reason, for the pool and for the operator."""

    allowed: bool
    reason: str


Revoked = Mapping[tuple[str, str], str]
"""(certificate's sha256, node) -> why it was revoked for that node."""

_NONE: Revoked = MappingProxyType({})


def revocations(bodies: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """What the ledger's `certificate_revoked` events say; a certificate is revoked for nodes, not as a whole."""
    found = {}
    for body in bodies:
        for node in body.get("nodes") or ():
            found[str(body.get("certificate", "")), str(node)] = str(body.get("reason", ""))
    return found


def may_admit(certificate: Verified, node: NodeFacts, now: datetime, revoked: Revoked = _NONE) -> Admission:
    """Only a verified certificate in force that names the node, whose every bound fact is what it is now.

    revoked  of this certificate at least; `revocations` reads them. A caller that has a ledger always gives them.
    """
    name = f"certificate {certificate.digest[:12]}"
    gone = dict(certificate.revoked) | {n: why for (d, n), why in revoked.items() if d == certificate.digest}
    if node.node in gone:
        return Admission(False, f"{name} is revoked for {node.node}: {gone[node.node]}")
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
