"""What the ledger vouches for, and whether a node is in the pool by right. Pure: the doorkeeper's judgement.

A mark on a node is a claim; whoever may patch nodes can write it. It is held against the ledger's certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from toolkit.pool.door import (
    CERTIFICATE,
    CERTIFIED,
    CONDITION,
    EXEMPT,
    EXPIRES,
    MACHINE,
    RACK,
    is_cordoned_by_others,
    is_member,
    is_tainted,
    rfc3339,
    shut_because,
)
from toolkit.pool.node_object import NodeObject, moment, shown
from toolkit.rack.topology import value

# Between an admission's first write and its last there are two requests; a process that died in between leaves marks.
IN_FLIGHT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Vouched:
    """A certificate that names a node. `revoked` says why it no longer holds; empty while it does."""

    rack: str
    expires: datetime
    revoked: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is on record.

    racks     rack of each node of the site, by the node's name
    issued    (certificate, node) -> what it is worth
    begun     (certificate, node) -> when the last admission by it was begun
    barred    node -> why its place in the ledger is no admitted node's: quarantined, lapsed, never certified
    """

    racks: Mapping[str, str] = field(default_factory=dict)
    issued: Mapping[tuple[str, str], Vouched] = field(default_factory=dict)
    begun: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    barred: Mapping[str, str] = field(default_factory=dict)


def is_guarded(node: NodeObject, known: Known) -> bool:
    """Whether the node is the doorkeeper's business: it bears a mark of ours, or is of a rack of ours by its name."""
    return node.label(EXEMPT) != "true" and (node.name in known.racks or is_member(node))


def is_stranger(node: NodeObject, known: Known) -> bool:
    """A node with GPUs that is not ours and that nobody exempted: told, never touched."""
    return node.gpus[0] > 0 and node.label(EXEMPT) != "true" and not is_guarded(node, known)


def wrong(node: NodeObject, known: Known, now: datetime) -> str:
    """Why the node must be shut (again), for its condition; empty if it stands as it should."""
    if not is_guarded(node, known):
        return ""
    return _wrong_while_shut(node, known, now) if is_tainted(node) else _wrong_while_open(node, known, now)


def _wrong_while_shut(node: NodeObject, known: Known, now: datetime) -> str:
    said = node.condition(CONDITION)
    marked = node.label(CERTIFIED) == "true" or (said is not None and said.status == "True")
    begun = known.begun.get((node.annotation(CERTIFICATE), node.name))
    in_flight = begun is not None and now - begun < IN_FLIGHT
    if marked and not in_flight:
        return "it was marked as certified while its taint is on: by hand, or by an admission that was cut off"
    return ""


def _wrong_while_open(node: NodeObject, known: Known, now: datetime) -> str:
    digest = node.annotation(CERTIFICATE)
    if not digest:
        return f"its taint was off, and it names no certificate ({shut_because(node)})"
    name = f"certificate {shown(digest[:12], 12)}"
    vouched = known.issued.get((digest, node.name))
    if vouched is None:
        return _not_its_own(node, known, digest, name)
    if vouched.revoked:
        return f"{name} is revoked: {vouched.revoked}"
    if vouched.expires <= now:
        return f"{name} expired at {rfc3339(vouched.expires)}"
    if node.label(RACK) not in ("", value(vouched.rack)):
        return f"{name} is of {vouched.rack}; its label says {shown(node.label(RACK), 63)}"
    return _edited(node, known, vouched, digest)


def _not_its_own(node: NodeObject, known: Known, digest: str, name: str) -> str:
    of = sorted({v.rack for (other, _), v in known.issued.items() if other == digest})
    if of:
        return f"{name} is of {', '.join(of)} and does not name {node.name}"
    return f"{name} is not on record: forged, or of another installation"


def _edited(node: NodeObject, known: Known, vouched: Vouched, digest: str) -> str:
    """What somebody changed by hand on a node whose certificate is good."""
    if (digest, node.name) not in known.begun:
        return "its taint was off, but no admission is on record"
    if node.name in known.barred:
        return f"its taint was off, but {known.barred[node.name]}"
    if moment(node.annotation(EXPIRES)) != moment(rfc3339(vouched.expires)):
        return f"its annotation {EXPIRES} was edited: {shown(node.annotation(EXPIRES), 40) or 'missing'}"
    if node.annotation(MACHINE) != node.machine:
        return f"another machine took its name: system UUID {shown(node.machine, 40) or 'unknown'}"
    return "" if is_cordoned_by_others(node) else shut_because(node)
