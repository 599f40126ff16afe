"""The door as it stands on a node of Slurm: what makes it open, and what is written to open and to shut it. Pure.

Three things are written, all in one message. The drain, with a reason that begins with our name, keeps jobs off. The
features are what jobs ask for (`--constraint=rackproof_certified`) and are placed by. The record, in brackets in the
node's comment, is what the features are written from: slurmctld forgets features when it is reconfigured, and when it
is restarted without -R (scontrol(1), AvailableFeatures), but neither drains, nor reasons, nor comments.

A node is open only where record and features say the same and no time is up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from toolkit.pool.model import PoolNode
from toolkit.pool.slurm_text import SlurmNode, shown
from toolkit.rack.topology import PREFIX

OURS = "rackproof:"  # every reason of ours begins so
CERTIFIED = "rackproof_certified"  # the feature that jobs may trust
_FEATURE = "rackproof_"
_CERTIFICATE, _UNTIL, _LEFT = "certificate", "until", "left"
_SHORT = 12
_MAX_REASON = 400
_TIME = "%Y%m%dT%H%M%SZ"
_RECORD = re.compile(r" ?\[rackproof((?: [a-z-]{1,40}=[A-Za-z0-9_.-]{1,64}){0,24})\]")
_LABEL = re.compile(r"[a-z-]{1,40}")
_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Those in which a node is given to jobs, by sinfo(1), NODE STATE CODES; a word that is not here keeps it shut
_BASES = frozenset({"idle", "mixed", "allocated"})
_HARMLESS = frozenset(
    {"completing", "planned", "reserved", "cloud", "dynamic_norm", "powered_down", "power_down", "powering_down",
     "powering_up", "power_up"}
)  # fmt: skip
_HELD = frozenset({"drain", "fail", "down", "error"})
# Reasons of slurmctld's own for a node that comes back by itself (ReturnToService, slurm.conf(5)), and for none
SLURMS_OWN = frozenset({"", "Not responding", "Node unexpectedly rebooted"})


class Standing(StrEnum):
    """What a node's marks come to."""

    OPEN = "OPEN"  # record and features agree, and are in force
    SHUT = "SHUT"  # a member without a certificate
    EXPIRED = "EXPIRED"  # the time of its certificate is up
    FEATURES_LOST = "FEATURES_LOST"  # its record is in force, but slurmctld has forgotten its features
    EDITED = "EDITED"  # record and features do not say the same: somebody changed one of them
    STRANGER = "STRANGER"  # nothing on it is ours


@dataclass(frozen=True, slots=True)
class Record:
    """What we wrote of a member. `labels`: topology, without our prefix; no certificate where it has none.

    left  the beginning of the certificate's sha256 that it had when it was shut; empty if it never had one
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    certificate: str = ""
    expires: datetime | None = None
    left: str = ""

    @property
    def features(self) -> frozenset[str]:
        """The features that follow from it."""
        found = {f"{_FEATURE}{name.replace('-', '_')}_{value}" for name, value in self.labels.items()}
        if self.certificate and self.expires is not None:
            found |= {CERTIFIED, f"{_FEATURE}{_CERTIFICATE}_{self.certificate[:_SHORT]}",
                      f"{_FEATURE}{_UNTIL}_{_stamp(self.expires)}"}  # fmt: skip
        return frozenset(found)

    @property
    def text(self) -> str:
        """As it stands in a comment."""
        pairs = dict(self.labels)
        if self.certificate and self.expires is not None:
            pairs |= {_CERTIFICATE: self.certificate, _UNTIL: _stamp(self.expires)}
        pairs |= {_LEFT: self.left} if self.left else {}
        return f"[{' '.join(('rackproof', *(f'{name}={value}' for name, value in sorted(pairs.items()))))}]"

    def without_certificate(self) -> Record:
        """The same member, shut."""
        return replace(self, certificate="", expires=None, left=self.certificate[:_SHORT] or self.left)


def topology(labels: Mapping[str, str]) -> dict[str, str]:
    """Of labels as the stages give them, those that a feature can hold, without our prefix."""
    own = {name.removeprefix(PREFIX): value for name, value in labels.items() if name.startswith(PREFIX)}
    reserved = (_CERTIFICATE, _UNTIL, _LEFT)
    return {n: v for n, v in own.items() if _LABEL.fullmatch(n) and _VALUE.fullmatch(v) and n not in reserved}


def record_of(node: SlurmNode) -> Record | None:
    """The record in its comment; None where there is none, or not exactly one, or one that is not as we write it."""
    found = _RECORD.findall(node.comment)
    if len(found) != 1:
        return None
    pairs = dict(pair.split("=", 1) for pair in found[0].split())
    certificate, until, left = pairs.pop(_CERTIFICATE, ""), pairs.pop(_UNTIL, ""), pairs.pop(_LEFT, "")
    if not certificate and not until:
        return Record(pairs, left=left)
    expires = _moment(until)
    return Record(pairs, certificate, expires) if _DIGEST.fullmatch(certificate) and expires is not None else None


def standing(node: SlurmNode, now: datetime) -> Standing:
    """What its marks come to, whatever its state is."""
    record, features = record_of(node), _our_features(node.active)
    if record is None:
        if features or "[rackproof" in node.comment:
            return Standing.EDITED
        return Standing.SHUT if is_drained_by_us(node) else Standing.STRANGER
    if not record.certificate or record.expires is None:
        return Standing.EDITED if features - record.features else Standing.SHUT
    if record.expires <= now:
        return Standing.EXPIRED
    if not features:
        return Standing.FEATURES_LOST
    return Standing.OPEN if features == record.features else Standing.EDITED


def takes_jobs(node: SlurmNode) -> bool:
    """Whether Slurm gives it to jobs, by its state alone."""
    return len(node.state & _BASES) == 1 and not node.state - _BASES - _HARMLESS


def is_undrained(node: SlurmNode) -> bool:
    """Whether it takes jobs, or will as soon as its slurmd has answered."""
    return takes_jobs(replace(node, state=node.state - {"not_responding"}))


def opening(node: SlurmNode) -> str | None:
    """The State that lets a node take jobs: empty if it does already; None if none of ours would.

    UNDRAIN, which leaves a node DOWN that is DOWN. RESUME only for a drain of ours on a node that is DOWN and answers:
    it was "Not responding" when we drained it, and with our reason in the place of that one slurmctld leaves it DOWN
    when it is back (ReturnToService=1, slurm.conf(5)).
    """
    if takes_jobs(node):
        return ""
    if not is_drained_by_us(node):
        return None
    if takes_jobs(replace(node, state=node.state - {"drain"})):
        return "UNDRAIN"
    return "RESUME" if node.state == {"down", "drain"} else None


def unreserved(node: SlurmNode) -> SlurmNode:
    """The node as it is to the user that it is reserved for."""
    return replace(node, state=node.state - {"maintenance", "reserved"})


def is_busy(node: SlurmNode) -> bool:
    """Whether a job runs there, or is being cleaned up."""
    return bool(node.state & {"allocated", "mixed", "completing"})


def is_drained_by_us(node: SlurmNode) -> bool:
    """Whether it is drained, and it was we who did it."""
    return "drain" in node.state and "fail" not in node.state and node.reason.startswith(OURS)


def held_by_others(node: SlurmNode) -> str:
    """Who else keeps it from jobs, and why, in words; empty if nobody does. Their drain is for them to end."""
    if not node.state & _HELD or node.reason.startswith(OURS):
        return ""
    if "drain" not in node.state and "fail" not in node.state and node.reason in SLURMS_OWN:
        return ""  # down by itself
    since = f" since {node.at.isoformat()}" if node.at else ""
    why = shown(node.reason) or "no reason given"
    return f"{node.name} is {state_of(node)}{since} by {shown(node.by, 40) or 'somebody'}: {why}"


def state_of(node: SlurmNode) -> str:
    """Its state as Slurm has it: the base first."""
    return "+".join(sorted(node.state, key=lambda word: (word not in _BASES | {"down", "unknown"}, word)))


def pool_node(node: SlurmNode, now: datetime) -> PoolNode | None:
    """As the stages see it: admitted only if it takes jobs and its marks are open. None for a stranger."""
    stands, record = standing(node, now), record_of(node)
    if stands is Standing.STRANGER:
        return None
    labels = {PREFIX + name: value for name, value in record.labels.items()} if record else {}
    if stands is Standing.OPEN and takes_jobs(node) and record is not None:
        return PoolNode(True, record.certificate, record.expires, in_force(record), labels)
    return PoolNode(False, reason=shut_because(node, now), labels=labels)


def shut_because(node: SlurmNode, now: datetime) -> str:
    """Why it is no admitted member, for an operator: its drain first, then its state, then its marks."""
    if is_drained_by_us(node):
        return shown(node.reason.removeprefix(OURS))
    other = held_by_others(node)
    if other:
        return other
    if not takes_jobs(node):
        return f"Slurm has it as {state_of(node)}" + (f": {shown(node.reason)}" if node.reason else "")
    return doubt(node, now)


def doubt(node: SlurmNode, now: datetime) -> str:
    """What its marks have against it, where its state has nothing."""
    stands, record = standing(node, now), record_of(node)
    if stands is Standing.EXPIRED and record is not None and record.expires is not None:
        return f"certificate {record.certificate[:_SHORT]} expired at {record.expires.isoformat()}, and it takes jobs"
    if stands is Standing.FEATURES_LOST:
        return "slurmctld was reconfigured, or restarted without -R, and has forgotten its features"
    if stands is Standing.EDITED:
        return f"its features ({', '.join(sorted(_our_features(node.active)))[:200]}) are not those of its record"
    return "it takes jobs without a certificate: somebody has resumed it by hand"


def in_force(record: Record) -> str:
    """Why an admitted node is one."""
    until = record.expires.isoformat() if record.expires else "?"
    return f"certificate {record.certificate[:_SHORT]} in force until {until}"


# What is written


def marks(node: SlurmNode, record: Record) -> dict[str, str]:
    """The changes that put the record and its features on a node, beside what others have put there."""
    foreign = [word for word in node.available if not word.startswith(_FEATURE)]
    foreign_active = [word for word in node.active if not word.startswith(_FEATURE)]
    ours = sorted(record.features)
    comment = _RECORD.sub("", node.comment).replace("[rackproof", "[")
    return {
        "AvailableFeatures": ",".join((*foreign, *ours)),
        "ActiveFeatures": ",".join((*foreign_active, *ours)),
        "Comment": f"{comment} {record.text}".strip(),
    }


def are_marked(node: SlurmNode, record: Record) -> bool:
    """Whether a node bears exactly the record and its features."""
    return record_of(node) == record and _our_features(node.active) == record.features


def our_reason(text: str) -> str:
    """A drain's reason that is known for ours: one line of printable text. Slurm strips quotes at its ends."""
    return f"{OURS} {shown(text.strip(), _MAX_REASON)}".replace('"', "'")


def is_digest(text: str) -> bool:
    """Whether it is a sha256."""
    return _DIGEST.fullmatch(text) is not None


def _our_features(features: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word for word in features if word.startswith(_FEATURE))


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime(_TIME)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
