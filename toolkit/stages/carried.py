"""Evidence that is not measured again: taken from the certificate before, and believed no longer than that one.

A node that is certified anew after a few tests rests on what they measured, and for everything they do not measure on
the evidence of the certificate in force. Nothing that a test was meant to measure is ever taken from before: what it
did not give is missing. The new certificate says what was carried, and ends where the one before would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.recert.touch import Proof
from toolkit.ledger import EventKind, Run
from toolkit.pool.admission import revocations
from toolkit.rack.gate import WIDE, Scope
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.metric import COLLECTIVES, collective_metric
from toolkit.rack.model import Profile, Rack, Suite, Unit
from toolkit.stages.burnin_collectives import left_out
from toolkit.stages.burnin_records import last_burnin
from toolkit.stages.context import Context, Result, StageRunner, Work, holding
from toolkit.stages.level_records import LEFT_OUT
from toolkit.stages.peer_records import comparisons, keep_comparisons

_MAX_EVENTS = 100_000
# From here to the certificate: evidence that is just young enough now must be so then, and what ends with the
# certificate before must not end after it.
_SLACK = timedelta(minutes=10)
_OF_SCOPE = {Scope.HCA: Proof.RAILS, Scope.DOMAIN: Proof.DOMAIN, Scope.LEAF: Proof.LEAF, Scope.RACK: Proof.UNIT}
LEVELS = frozenset({Proof.DOMAIN, Proof.LEAF, Proof.UNIT})
WHOLE = frozenset(Proof)


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a run measures of a node: the rest is carried.

    suite  collectives that it does not run are not fresh
    hcas   of its rails, those that are measured; None: all
    """

    proofs: frozenset[Proof]
    suite: Suite
    hcas: frozenset[Subject] | None = None

    def measures(self, told: Measurement) -> bool:
        """Whether a number of this kind is the run's own to give."""
        proof = proof_of(told)
        if proof is Proof.COLLECTIVES and Proof.SUITE in self.proofs:
            skipped = tuple(collective_metric(c, "") for c in left_out(self.suite))
            return not told.metric.startswith(skipped) if skipped else True
        if proof is Proof.RAILS and self.hcas is not None:
            return told.subject in self.hcas
        return proof in self.proofs


def proof_of(told: Measurement) -> Proof:
    """What measured a number. That levels were left out is said beside the levels."""
    if told.metric == LEFT_OUT:
        return Proof.UNIT
    wide = _OF_SCOPE.get(told.subject.scope)
    return wide or (Proof.COLLECTIVES if told.metric.startswith(_COLLECTIVE) else Proof.SUITE)


_COLLECTIVE = tuple(collective_metric(c, "") for c in COLLECTIVES)


def after(burn_in: StageRunner, fresh: Mapping[str, Fresh]) -> StageRunner:
    """The burn-in with what it does not measure put beside it, for each node that passed. `fresh`: by node."""

    def runner(context: Context, work: Work) -> None:
        before = {n.name: last_burnin(context, n) for n in work.nodes}
        waiting, held = holding(work)
        burn_in(context, waiting)
        work.each(
            [n for n in work.nodes if n.name in held],
            lambda node: _with(context, node, work.runs[node.name], before[node.name], fresh[node.name], held),
        )

    return runner


def _with(
    context: Context, node: Unit, run: Run, before: Run | None, fresh: Fresh, held: Mapping[str, Result]
) -> Result:
    if before is not None:
        carry(context, node, run, before, fresh)
    return held[node.name]


def carry(context: Context, node: Unit, run: Run, before: Run, fresh: Fresh) -> tuple[Measurement, ...]:
    """Puts on record for the run what the burn-in before measured and this one does not; answers it."""
    rack, ledger = context.rack.name, context.ledger
    mine = {(m.metric, m.subject) for m in ledger.measurements(rack, None, run.id)}
    old = [m for m in ledger.measurements(rack, None, before.id) if (m.metric, m.subject) not in mine]
    carried = tuple(replace(m, run=run.id) for m in old if not fresh.measures(m) and _of(node, m))
    if carried:
        ledger.record_measurements(run, carried)
    if Proof.SUITE not in fresh.proofs:
        keep_comparisons(context, run, comparisons(context, node, before))
    return carried


def _of(node: Unit, told: Measurement) -> bool:
    return told.subject.scope in WIDE or told.subject.node == node.name


# The certificate


@dataclass(frozen=True, slots=True)
class Carried:
    """What a certificate would rest on beside what is fresh.

    oldest  when the oldest of it was measured; None: everything is fresh
    proofs  kinds of it
    until   where the certificates before end: the first of them; None: there is none, or a node that the next one
            may name has none in force
    names   of these certificates
    """

    oldest: datetime | None = None
    proofs: frozenset[Proof] = frozenset()
    until: datetime | None = None
    names: tuple[str, ...] = ()


def on_record(context: Context, nodes: Sequence[Unit]) -> Carried:
    """What these nodes' newest burn-ins have that is older than the profile lets evidence be."""
    now, most = context.clock(), context.rack.profile.evidence_max_age
    old: list[Measurement] = []
    for node in nodes:
        run = last_burnin(context, node)
        told = context.ledger.measurements(context.rack.name, None, run.id) if run else ()
        old += [m for m in told if now - m.at > most and _of(node, m)]
    if not old:
        return Carried()
    ends = _ends(context)
    until = None if _unvouched(context, ends, nodes) else min((at for at, _ in ends.values()), default=None)
    names = tuple(sorted({name for _, name in ends.values()}))
    return Carried(min(m.at for m in old), frozenset(map(proof_of, old)), until, names)


def _ends(context: Context) -> dict[str, tuple[datetime, str]]:
    """By node that a certificate names in the next one's place: when its certificate ends, and its name."""
    rack, ledger = context.rack.name, context.ledger
    issued = ledger.events(rack, kind=EventKind.CERTIFICATE_ISSUED, limit=_MAX_EVENTS)
    revoked = revocations(e.body for e in ledger.events(rack, kind=EventKind.CERTIFICATE_REVOKED, limit=_MAX_EVENTS))
    states = ledger.node_states(rack)
    found = {}
    for event in issued:
        for node in event.body.get("nodes") or ():
            row = states.get(str(node))
            live = row is not None and row.state in (NodeState.TESTED, NodeState.CERTIFIED, NodeState.ADMITTED)
            if live and (event.what, str(node)) not in revoked:
                found[str(node)] = (datetime.fromisoformat(str(event.body["expires"])), event.what)
    return found


def _unvouched(context: Context, ends: Mapping[str, object], nodes: Sequence[Unit]) -> bool:
    """Whether a node that the next certificate may name has none in force: revoked, but not yet moved. Old evidence of
    it must not be believed for the sake of the others.
    """
    states = context.ledger.node_states(context.rack.name)
    live = {n for n, row in states.items() if row.state in (NodeState.CERTIFIED, NodeState.ADMITTED)}
    return bool((live | {n.name for n in nodes}) - ends.keys())


def certifying(context: Context, nodes: Sequence[Unit]) -> Context:
    """The context in which these nodes are certified: as it is, where all their evidence is fresh.

    Where some is carried, evidence may be as old as that, and the certificate ends with the first of those before: what
    was believed until then is believed until then, and not a day longer. It says so in its own words.
    """
    carried = on_record(context, nodes)
    if carried.oldest is None or carried.until is None:
        return context
    now, profile = context.clock(), context.rack.profile
    left = carried.until - now - _SLACK
    if left <= timedelta(0):
        return context  # the one before has ended: nothing is carried from it, and what is stale stays so
    return replace(context, rack=replace(context.rack, profile=_until(profile, carried, now, left)))


def _until(profile: Profile, carried: Carried, now: datetime, left: timedelta) -> Profile:
    if carried.oldest is None:
        return profile
    kinds = ", ".join(sorted(carried.proofs))
    of = ", ".join(name[:12] for name in carried.names[:4])
    words = f"{kinds} not measured since {carried.oldest:%Y-%m-%d}: carried from certificate {of}, and ends with it"
    return replace(
        profile,
        evidence_max_age=max(profile.evidence_max_age, now - carried.oldest + _SLACK),
        certificate_lifetime=min(profile.certificate_lifetime, left),
        certificate_lifetime_source=words,
    )


@dataclass(slots=True)
class Ends:
    """When nodes' newest certificates end, for whoever asks whether they were renewed."""

    at: dict[str, datetime] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Context, nodes: Iterable[str]) -> Ends:
        """As it is now."""
        ends = _ends(context)
        return cls({node: ends[node][0] for node in nodes if node in ends})


def without_wide(rack: Rack) -> Rack:
    """The rack for tests of single nodes: rails and levels are carried."""
    return replace(rack, profile=replace(rack.profile, rail_test=False, levels=()))
