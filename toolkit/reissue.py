"""The use case "certify": a certificate from the evidence on record, with nothing measured under load again.

Nodes whose burn-in is done get their first one; nodes that have one get another, under the key of today: after a
theft of the key, or before the old one expires, as long as gates let the evidence be as old as it is. A node in the
pool stays there, by its new certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from toolkit.certificate.rotation import installed_trust
from toolkit.certificate.verify import verify
from toolkit.driving import carry_out, close_interrupted, driving
from toolkit.errors import RackproofError, UndecidedError
from toolkit.ledger import Event, EventKind, NewEvent
from toolkit.pool.acceptance import unaccepted
from toolkit.rack import topology
from toolkit.rack.lifecycle import NodeState, Stage
from toolkit.rack.model import Unit
from toolkit.report.certificate_record import last_issued
from toolkit.report.standing import Standing, standings
from toolkit.stages import certify
from toolkit.stages.context import Context

_CERTIFIED = frozenset({NodeState.CERTIFIED, NodeState.ADMITTED})


@dataclass(frozen=True, slots=True)
class Certified:
    """What it came to.

    digest  sha256 of the new certificate; empty where nobody passed
    nodes   whom it names
    kept    who has an earlier one and is not named by this, with the reason
    pool    node -> how the pool took its new certificate, for those that it lets in
    away    nodes that have none, as they stand
    """

    rack: str
    digest: str
    nodes: tuple[str, ...]
    kept: Mapping[str, str]
    pool: Mapping[str, str]
    away: tuple[Standing, ...]

    @property
    def exit_code(self) -> int:
        """0 every node that may be certified is named by the new one and stands by it in the pool, 1 one failed on
        evidence, 3 undecided.
        """
        if any(one.state is NodeState.QUARANTINED for one in self.away):
            return 1
        taken = all(how == TAKEN for how in self.pool.values())
        return 0 if self.digest and not self.kept and taken else UndecidedError.exit_code


TAKEN = "stands by it"


def certify_rack(context: Context) -> Certified:
    """Judges what is on record and what the nodes are now, and signs.

    Raises BusyError when somebody else drives the rack, UndecidedError where no node is TESTED, CERTIFIED or ADMITTED.
    """
    rack = context.rack
    with driving(context) as driven:
        ledger = driven.ledger
        close_interrupted(ledger, rack)
        before = last_issued(ledger, rack.name)
        states = {name: row.state for name, row in ledger.node_states(rack.name).items()}
        tested = tuple(n for n in rack.nodes if states.get(n.name) is NodeState.TESTED)
        certified = [n.name for n in rack.nodes if states.get(n.name) in _CERTIFIED]
        if not tested and not certified:
            raise UndecidedError(
                f"no node of {rack.name} has evidence to certify: none is TESTED, CERTIFIED or ADMITTED",
                f"rackproof bringup {rack.name}",
            )
        if tested:
            carry_out(driven, Stage.CERTIFY, tested, certify.run)
        if certified and last_issued(ledger, rack.name) == before:
            certify.again(driven)
        issued = last_issued(ledger, rack.name)
        return _told(driven, issued if issued != before else None, certified, {n.name for n in tested})


def _told(context: Context, issued: Event | None, certified: list[str], tested: set[str]) -> Certified:
    ledger, rack = context.ledger, context.rack
    names: set[str] = set(issued.body["nodes"]) if issued is not None else set()
    nodes = tuple(n.name for n in rack.nodes if n.name in names)
    kept = {}
    for name in certified:
        if name not in names:
            run = ledger.last_run(rack.name, name, Stage.CERTIFY)
            kept[name] = run.message if run is not None else "it was not judged"
    pool = _into_the_pool(context, issued.what, nodes) if issued is not None else {}
    away = tuple(s for s in standings(ledger, rack) if s.node in tested and s.node not in names)
    return Certified(rack.name, issued.what if issued is not None else "", nodes, kept, pool, away)


def _into_the_pool(context: Context, digest: str, nodes: tuple[str, ...]) -> dict[str, str]:
    """The new certificate in the place of the old one, for nodes that take jobs; the others wait for `admit`."""
    rack, pool = context.rack, context.hands.pool
    states = context.ledger.node_states(rack.name)
    inside = [rack.unit(name) for name in nodes if states[name].state is NodeState.ADMITTED]
    if not inside:
        return {}
    certificate = verify(context.ledger.artifacts.get(digest), installed_trust(context.settings.keys, context.clock()),
                         context.clock())  # fmt: skip
    try:
        members = pool.nodes()
    except RackproofError as failure:
        return {unit.name: f"not asked: {failure.message}" for unit in inside}
    accepts, found = context.hands.policy.accepts, dict[str, str]()
    for unit in inside:
        member, missing = members.get(unit.name), unaccepted(certificate, unit.name, accepts)
        if member is None or not member.admitted:
            found[unit.name] = "the pool does not let it in"
        elif missing:
            found[unit.name] = f"stands by its earlier one: the pool does not accept {'; '.join(map(str, missing))}"
        else:
            found[unit.name] = _renamed(context, unit, digest, certificate.expires_at)
    return found


def _renamed(context: Context, unit: Unit, digest: str, expires: datetime) -> str:
    """Intent first: a doorkeeper shuts a node that stands by a certificate of which no admission is on record."""
    rack, ledger = context.rack, context.ledger
    body = {"certificate": digest, "expires": expires.isoformat()}
    ledger.intent(rack.name, unit.name, "admit", body)
    try:
        labels = topology.labels(rack, unit)
        context.hands.pool.admit(unit.name, digest, expires, labels)
    except RackproofError as failure:
        return f"not written: {failure.message}"
    ledger.append(NewEvent(EventKind.ADMISSION, rack.name, unit.name, body, "admitted"))
    return TAKEN
