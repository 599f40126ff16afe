"""admit: let certified nodes take jobs. Their certificate is verified again and their facts are read again, now.

Which of them, when and in how many waves is the regulator's; here is what lets each of them in, and its result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from toolkit.certificate.reading import Verified
from toolkit.certificate.rotation import installed_trust
from toolkit.certificate.verify import verify
from toolkit.errors import EvidenceError, UndecidedError
from toolkit.ledger import EventKind
from toolkit.ledger.holder import this_process
from toolkit.pool.acceptance import unaccepted
from toolkit.pool.admission import may_admit, revocations
from toolkit.pool.desk import VOID, Entry, KeptOut, Site
from toolkit.pool.model import Smoked
from toolkit.pool.regulator import Regulator
from toolkit.pool.waves import candidate
from toolkit.rack import topology
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.stages.context import Context, Progress, Result, Work, passed
from toolkit.stages.identity import IDENTITY_PROBES, identity_of
from toolkit.stages.readback import take

MAX_EVENTS = 100_000


def run(context: Context, work: Work) -> None:
    """A canary, then growing waves, each watched, as the site's policy has it."""
    hands = context.hands
    site = Site(
        context.rack.name, hands.pool, hands.policy.regulation, context.ledger, this_process(), context.clock,
        context.sleep,
    )  # fmt: skip
    Regulator(site, _Desk(context, work)).run(tuple(candidate(context.rack, node) for node in work.nodes))


class _Desk:
    """The regulator's `Desk` over a stage's work. What is read once for all nodes is read here."""

    def __init__(self, context: Context, work: Work) -> None:
        self._context = context
        self._work = work
        self._trusted = installed_trust(context.settings.keys, context.clock())
        self._issued = self._events(EventKind.CERTIFICATE_ISSUED)

    def _events(self, kind: EventKind) -> Sequence[Mapping[str, object]]:
        found = self._context.ledger.events(self._context.rack.name, kind=kind, limit=MAX_EVENTS)
        return [{**event.body, "digest": event.what} for event in found]

    def entry(self, node: str) -> Entry | None:
        """By the newest certificate that names the node, verified now against what the node is now."""
        context, unit = self._context, self._context.rack.unit(node)
        try:
            certificate = self._certificate(node)
        except EvidenceError as refused:
            self._refused(node, refused.message)
            return None
        now = identity_of(context, unit, take(context, self._work.runs[node], unit, IDENTITY_PROBES))
        revoked = revocations(self._events(EventKind.CERTIFICATE_REVOKED))
        answer = may_admit(certificate, now, context.clock(), revoked)
        if not answer.allowed:
            self._refused(node, answer.reason)
            return None
        missing = unaccepted(certificate, node, context.hands.policy.accepts)
        if missing:
            self._not_accepted(node, "; ".join(f"{m.kind}: {m}" for m in missing))
            return None
        labels = topology.labels(context.rack, unit)
        return Entry(certificate.digest, certificate.expires_at, labels)

    def _certificate(self, node: str) -> Verified:
        context = self._context
        for issued in reversed(self._issued):
            named = issued.get("nodes")
            if isinstance(named, list) and node in named:
                envelope = context.ledger.artifacts.get(str(issued["digest"]))
                certificate = verify(envelope, self._trusted, context.clock())
                if certificate.rack != context.rack.name:
                    of = f"certificate {certificate.digest[:12]} is of {certificate.rack}, not of {context.rack.name}"
                    raise EvidenceError(of, self._again)
                return certificate
        raise UndecidedError(f"no certificate on record names {node}", self._again)

    @property
    def _again(self) -> str:
        return f"rackproof bringup {self._context.rack.name}"

    def _refused(self, node: str, reason: str) -> None:
        """The certificate no longer fits: back to JOINED, where new evidence can be taken."""
        self._work.finish(node, Result(Outcome.ERROR, VOID, reason, next=self._again, move=Move.LAPSE))

    def _not_accepted(self, node: str, what: str) -> None:
        """The certificate is good, and this pool asks for more."""
        site = self._context.rack.site
        message = f"its certificate leaves unverified what the pool of {site} does not accept: {what}"[:1000]
        hint = f"verify it, or accept it in pools/{site}.yml; then: rackproof admit {self._context.rack.name}"
        self._work.finish(node, Result(Outcome.ERROR, "CERTIFICATE_NOT_ACCEPTED", message, next=hint))

    def each(self, nodes: Sequence[str], do: Callable[[str], None]) -> None:
        """Side by side, as many as a rack's work may be."""
        self._work.each([self._context.rack.unit(node) for node in nodes], lambda unit: do(unit.name))

    def void(self, entries: Mapping[str, Entry]) -> Mapping[str, str]:
        """Revoked by the ledger, run out by the clock, or moved by somebody, while the node was watched."""
        now, revoked = self._context.clock(), revocations(self._events(EventKind.CERTIFICATE_REVOKED))
        states = self._context.ledger.node_states(self._context.rack.name)
        found = {}
        for node, entry in entries.items():
            if (entry.certificate, node) in revoked:
                found[node] = f"its certificate was revoked: {revoked[entry.certificate, node]}"
            elif entry.expires <= now:
                found[node] = f"its certificate expired at {entry.expires.isoformat()}"
            elif states[node].state is not NodeState.CERTIFIED:
                found[node] = f"somebody moved it: it is {states[node].state} on record"
        return found

    def admitted(self, node: str, entry: Entry, smoked: Smoked) -> None:
        """The run passes, and the node moves."""
        certificate = f"certificate {entry.certificate[:12]} is in force until {entry.expires.isoformat()}"
        self._work.finish(node, passed(f"{certificate}; {smoked.words}"[:1000]))

    def kept_out(self, node: str, why: KeptOut) -> None:
        """An ERROR: what the pool shows is no verdict on the hardware."""
        state = self._context.ledger.node_states(self._context.rack.name)[node].state
        # Who revoked it may have moved it already.
        move = Move.LAPSE if why.lapsed and state is NodeState.CERTIFIED else None
        self._work.finish(node, Result(Outcome.ERROR, why.code, why.message, next=why.next, move=move))

    def tell(self, node: str, text: str, done: float | None = None) -> None:
        """As progress of the stage."""
        self._context.progress(Progress(node, Stage.ADMIT, text, done))
