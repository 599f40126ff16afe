"""Whether a pool takes a node whose certificate says that something was not verified: its policy decides. Pure."""

from __future__ import annotations

from collections.abc import Collection

from toolkit.certificate.reading import Verified
from toolkit.certificate.unverified import NotVerified, Unverified


def unaccepted(certificate: Verified, node: str, accepts: Collection[Unverified]) -> tuple[NotVerified, ...]:
    """What the certificate leaves unverified of this node and the policy does not accept; empty: it may come in."""
    return tuple(line for line in certificate.not_verified if line.concerns(node) and line.kind not in accepts)
