"""Lets certified nodes into the pool wave by wave, watches each wave, and takes it back out at the first bad sign.

What is decided is in `waves`, what is recorded in `wave_log`; here it is carried out, so that it may be cut off at any
instant: an intent stands before every act, and a wave without an end on record is gone on with or taken out first.

A node that its own certificate keeps out halts nobody, the canary neither: the next node is then the canary. A pool
that refuses everybody of a wave halts: it would refuse the others too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from toolkit.errors import BusyError, RackproofError, UndecidedError, UnreachableError
from toolkit.judge.verdict import CLOCK_SKEW
from toolkit.ledger import EventKind, NewEvent
from toolkit.pool.desk import VOID, Desk, Entry, KeptOut, Site
from toolkit.pool.leadership import Leadership
from toolkit.pool.letting_in import LettingIn
from toolkit.pool.model import PoolNode, Sign, Smoked, SmokeEnd
from toolkit.pool.patience import Patience
from toolkit.pool.policy import SMOKE_OFF
from toolkit.pool.soak import Soak
from toolkit.pool.wave_log import Halt, WaveEnd, WaveLog, WaveRecord
from toolkit.pool.waves import Candidate, Mark, marks_before, most_now, spread, unfit
from toolkit.rack.lifecycle import NodeState

POOL_SILENT = "POOL_SILENT"


class Regulator:
    """One rollout over one rack's nodes, or what is left of one that was cut off."""

    def __init__(self, site: Site, desk: Desk) -> None:
        self._site = site
        self._desk = desk
        self._pool, self._regulation = site.pool, site.regulation
        self._log = WaveLog(site.ledger, site.rack)
        self._lead = Leadership(site.pool, site.holder)
        self._patience = Patience(self._regulation.patience_s, self._regulation.poll_s, site.clock, site.sleep)
        self._earlier: frozenset[str] = frozenset()

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Blocks until every node has its result at the desk. Raises LedgerError where nothing can be recorded."""
        waiting = {c.name: c for c in candidates}
        try:
            self._lead.take()
        except UndecidedError as refused:
            busy = isinstance(refused, BusyError)
            self._keep_out(waiting, Halt("REGULATOR_BUSY" if busy else POOL_SILENT, refused.message), refused.hint)
            return
        try:
            halt = self._rollout(waiting)
        finally:
            self._lead.drop()
        if halt is not None:
            not_begun = Halt("ADMISSION_NOT_BEGUN", f"its wave was not begun: {halt.text}")
            self._keep_out(waiting, not_begun, f"first see to that; then: {self._again_by}")

    @property
    def _again_by(self) -> str:
        return f"rackproof admit {self._site.rack}"

    def _keep_out(self, nodes: Iterable[str], halt: Halt, hint: str) -> None:
        for node in nodes:
            self._desk.kept_out(node, KeptOut(halt.code, halt.text, hint or self._again_by))

    def _rollout(self, waiting: dict[str, Candidate]) -> Halt | None:
        """Wave after wave; takes from `waiting` whoever has a result. Answers what halted it."""
        try:
            members = self._patience.ask(self._pool.nodes)
        except UndecidedError as silent:
            return _silent(silent)
        for node in [n for n in waiting if n not in members]:
            del waiting[node]
            text = f"{node} is no member of the pool yet"
            self._desk.kept_out(node, KeptOut("NODE_NOT_JOINED", text, f"rackproof bringup {self._site.rack}"))
        past = self._log.rollout(self._site.clock())
        self._earlier = frozenset(node for wave in past.counted for node in wave)
        before, number = past.before, past.begun
        if past.open is not None:
            came = self._go_on(past.open, waiting, members)
            if isinstance(came, Halt):
                return came
            before = came or before
        order = spread(waiting.values())
        while order:
            most = most_now(self._regulation, before)
            names, order, number = [c.name for c in order[:most]], order[most:], number + 1
            for name in names:
                del waiting[name]
            came = self._begin(number, names)
            if isinstance(came, Halt):
                return came
            before = came or before
        self._log.over()
        return None

    # A wave

    def _begin(self, number: int, names: Sequence[str]) -> Halt | int:
        """A new wave: nodes that are bad already stay out of it. Answers how many it brought in, or what halted it."""
        halt = self._lead_on()
        found = halt or self._fit(names)
        if isinstance(found, Halt):
            self._keep_out(names, Halt("ADMISSION_NOT_BEGUN", f"its wave was not begun: {found.text}"), "")
            return found
        fit, before = found
        if not fit:
            return 0
        wave = self._log.begin(number, fit, before, self._regulation.soak_s)
        return self._carry_out(wave, fit, {})

    def _fit(self, names: Sequence[str]) -> Halt | tuple[list[str], frozenset[Mark]]:
        """Those that may be let in, and what is known already of all that will be watched."""
        now = self._site.clock()
        bad = self._look(names, now)
        if isinstance(bad, Halt):
            return bad
        # A cluster's clock may be behind ours: what is asked for later reaches back, so what is known must too.
        known = self._look([*names, *sorted(self._earlier)], now - CLOCK_SKEW)
        if isinstance(known, Halt):
            return known
        kept_out = unfit(names, bad)
        for node, sign in kept_out.items():
            again = f"see to it: rackproof facts {node}; then: {self._again_by}"
            self._desk.kept_out(node, KeptOut(sign.code, f"not let in: {_said(sign)}", again))
        return [name for name in names if name not in kept_out], marks_before(names, known)

    def _go_on(self, wave: WaveRecord, waiting: dict[str, Candidate], members: Mapping[str, PoolNode]) -> Halt | int:
        """A wave that was cut off: goes on with what is left of it, or with taking it out."""
        states = self._site.ledger.node_states(self._site.rack)
        counted = tuple(n for n in wave.nodes if n in states and states[n].state is NodeState.ADMITTED)
        open_ones = [n for n in wave.nodes if n not in counted]
        inside = {n: members[n] for n in open_ones if n in members and members[n].admitted}
        mine = [n for n in open_ones if waiting.pop(n, None) is not None]
        if wave.halt is not None:
            return self._take_out(wave, wave.halt, inside, mine)
        strays = inside.keys() - set(mine)
        left = self._shut({node: "its admission was cut off, and nobody asks for it any more" for node in strays})
        if left:
            return self._take_out(wave, _silent(next(iter(left.values()))), inside, mine)
        outside = [n for n in mine if n not in inside]
        found = self._fit(outside) if outside else (outside, wave.before)
        if isinstance(found, Halt):
            return self._take_out(wave, found, inside, mine)
        names = [n for n in mine if n in inside or n in found[0]]
        return self._carry_out(wave, names, {n: inside[n] for n in mine if n in inside}, counted)

    def _carry_out(
        self, wave: WaveRecord, names: Sequence[str], inside: Mapping[str, PoolNode], counted: Sequence[str] = ()
    ) -> Halt | int:
        """Lets in, watches, and counts the wave or takes it out. `inside`, `counted`: what was done before a cut."""
        let_in = LettingIn(self._site, self._desk, self._patience, wave, inside)
        let_in.all(names)
        doubted = let_in.worth_again()
        halt = self._lead_on(anew=bool(doubted))
        if halt is None and doubted:
            let_in.all(doubted)
        left = self._shut(let_in.doubtful())
        entries, refused = {n: let_in.entries[n] for n in names if n in let_in.entries}, dict(let_in.refused)
        for node, failure in refused.items():
            code = POOL_SILENT if isinstance(failure, UnreachableError) else "POOL_REFUSED"
            again = failure.hint or self._again_by
            self._desk.kept_out(node, self._or_stays(KeptOut(code, failure.message, again), left.get(node)))
        halt = halt or self._doubt(refused, left, entries)
        if halt is None and not entries:
            was = wave.smoked.words if wave.smoked else ""
            self._log.ended(wave, WaveEnd.COUNTED if counted else WaveEnd.EMPTY, counted, was)
            return len(counted)
        end = halt or self._watched(wave, entries)
        if isinstance(end, Halt):
            return self._take_out(wave, end, entries, tuple(entries), left)
        for node, entry in entries.items():
            self._desk.admitted(node, entry, end)
        self._log.ended(wave, WaveEnd.COUNTED, (*counted, *entries), end.words)
        self._earlier |= {*counted, *entries}
        return len(counted) + len(entries)

    def _doubt(
        self, refused: Mapping[str, RackproofError], left: Mapping[str, RackproofError], entries: Collection[str]
    ) -> Halt | None:
        """Whether what the pool would not do stands for what it will not do for the next wave either."""
        if left:
            return _silent(next(iter(left.values())))
        unreachable = [f for f in refused.values() if isinstance(f, UnreachableError)]
        if unreachable:
            return _silent(unreachable[0])
        if refused and not entries:
            node, failure = next(iter(refused.items()))
            return Halt("POOL_REFUSED", f"the pool let nobody of the wave in; {node}: {failure.message}")
        return None

    # Acts

    def _lead_on(self, *, anew: bool = False) -> Halt | None:
        """After a silence, or a refusal, the lead may be another's: it is taken anew before anything more is done."""
        if not (anew or self._patience.tried):
            return None
        self._patience.tried = False
        self._lead.drop()
        try:
            self._lead.take()
        except UndecidedError as refused:
            busy = isinstance(refused, BusyError)
            return Halt("REGULATOR_BUSY" if busy else POOL_SILENT, f"the lead was lost: {refused.message}")
        return None

    def _look(self, nodes: Sequence[str], since: datetime) -> Halt | tuple[Sign, ...]:
        try:
            return self._patience.ask(lambda: self._pool.signs(nodes, since))
        except UndecidedError as silent:
            return _silent(silent)

    def _watched(self, wave: WaveRecord, entries: Mapping[str, Entry]) -> Halt | Smoked:
        """The wave's smoke collective, then its soak. Answers what halted it, or what the collective came to."""
        smoked = self._smoke(wave, entries)
        if isinstance(smoked, Halt):
            return smoked
        return Soak(self._site, self._desk, self._log, wave, self._earlier).watch(entries, self._look) or smoked

    def _smoke(self, wave: WaveRecord, entries: Mapping[str, Entry]) -> Halt | Smoked:
        """A small collective over the wave, as an ordinary job; once for a wave, whoever recorded its end."""
        smoked = wave.smoked
        if smoked is None or smoked.end is SmokeEnd.NOT_ASKED:
            try:
                smoked = self._collective(wave, entries)
            except UndecidedError as unknown:
                return Halt("SMOKE_UNDECIDED", f"the smoke collective had no end: {unknown.message}")
            self._log.smoked(wave, smoked)
        for node in entries:
            self._desk.tell(node, f"wave {wave.number}: {smoked.words}")
        what = f"the smoke collective over {len(entries)} nodes"
        if smoked.end is SmokeEnd.FAILED:
            return Halt("SMOKE_FAILED", f"{what} failed: {smoked.detail}"[:1000])
        if smoked.end is SmokeEnd.UNDECIDED:
            return Halt("SMOKE_UNDECIDED", f"{what} had no end: {smoked.detail}"[:1000])
        return smoked

    def _collective(self, wave: WaveRecord, entries: Mapping[str, Entry]) -> Smoked:
        if not self._regulation.smoke:
            return Smoked(SmokeEnd.NOT_ASKED, SMOKE_OFF)
        for node in entries:
            self._desk.tell(node, f"wave {wave.number}: smoke collective over {len(entries)} nodes")
        return self._patience.ask(lambda: self._pool.smoke(tuple(entries), self._regulation.smoke_s))

    def _take_out(
        self,
        wave: WaveRecord,
        halt: Halt,
        inside: Collection[str],
        results: Collection[str],
        left: Mapping[str, RackproofError] | None = None,
    ) -> Halt:
        """Takes `inside` back out; `results` get theirs. A node that stays in keeps its wave without an end."""
        if wave.halt is None:
            self._log.halts(wave, halt)
        failed = self._shut(dict.fromkeys(inside, f"wave {wave.number} was taken out: {halt.text}"[:300]))
        told = {sign.node: sign for sign in reversed(halt.signs)}
        for node in results:
            self._desk.kept_out(node, self._result(node, wave, halt, told.get(node), failed.get(node)))
        if not failed and not left:
            self._log.taken_out(wave, halt)
        return halt

    def _result(
        self, node: str, wave: WaveRecord, halt: Halt, sign: Sign | None, stays: RackproofError | None
    ) -> KeptOut:
        out = f"wave {wave.number} was taken back out of the pool"
        again = f"see to it: rackproof facts {node}; then: {self._again_by}"
        if sign is None:
            message, code, then = f"{out}: {halt.text}", halt.code, f"first see to that; then: {self._again_by}"
        else:
            message, code, then = f"{_said(sign)}; {out}", sign.code, again
        lapsed = sign is not None and sign.code == VOID
        return self._or_stays(KeptOut(code, message, then, lapsed), stays)

    def _or_stays(self, why: KeptOut, stays: RackproofError | None) -> KeptOut:
        """The same, or that it may still be in the pool."""
        if stays is None:
            return why
        message = f"{why.message}; NOT taken out of the pool: {stays.message}"
        return KeptOut(why.code, message, f"{self._again_by}: it takes the wave out first")

    def _shut(self, reasons: Mapping[str, str]) -> dict[str, RackproofError]:
        """Takes nodes out, all at once. Answers those that may still be in, each with what stood in the way."""
        left: dict[str, RackproofError] = {}
        waiting = dict(reasons)

        def evict() -> None:
            left.clear()
            left.update(self._pool.evict_all(waiting))
            for node in waiting.keys() - left.keys():
                del waiting[node]
            silent = next((why for why in left.values() if isinstance(why, UnreachableError)), None)
            if silent is not None:
                raise silent

        if waiting:
            with suppress(UnreachableError):  # it is among those that are answered
                self._patience.ask(evict)
        out = [
            NewEvent(EventKind.ADMISSION, self._site.rack, node, {"reason": reason}, "taken out")
            for node, reason in reasons.items()
            if node not in left
        ]
        if out:
            self._site.ledger.append_all(out)
        return left


def _silent(failure: RackproofError) -> Halt:
    return Halt(POOL_SILENT, f"the pool does not answer: {failure.message}")


def _said(sign: Sign) -> str:
    return f"{sign.detail} ({sign.source})"[:500]
