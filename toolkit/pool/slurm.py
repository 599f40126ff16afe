"""Slurm as the pool: members are drained with a reason of ours until a certificate resumes them.

Slurm has no condition on a change ("only if nobody else drained it"): a drain by somebody else between our look and our
change, a few milliseconds, would be lifted with ours.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path

from toolkit.errors import RackproofError, UndecidedError, UnreachableError, UsageError
from toolkit.ledger import Artifacts
from toolkit.pool import slurm_demand, slurm_record, slurm_signs, slurm_smoke
from toolkit.pool.floor import Capacity
from toolkit.pool.lead import lead
from toolkit.pool.model import Drained, DrainEnd, PoolNode, Sign, Smoked, SmokeEnd
from toolkit.pool.policy import NO_SMOKE, PoolKind, PoolPolicy, SlurmSite
from toolkit.pool.side_by_side import side_by_side
from toolkit.pool.slurm_command import Said, SlurmCommands
from toolkit.pool.slurm_record import Record, Standing
from toolkit.pool.slurm_reservation import Reservations
from toolkit.pool.slurm_text import SlurmJob, SlurmNode, shown
from toolkit.settings import Settings

# An undrained node takes no job until its slurmd has answered a ping, which slurmctld sends at once
RESUME_SECONDS = 30.0
SETTLE_SECONDS = 5.0
LOOK_SECONDS = 0.25
DRAIN_LOOK_SECONDS = 1.0
MAX_SMOKE_OUTPUT = 1024 * 1024
_AT_ONCE = 16  # each is a program of its own, and a message that slurmctld takes one after another
_NAMES_AT_ONCE = 1000  # in one argument, which Linux bounds at 128 KiB (MAX_ARG_STRLEN, execve(2))
_CANCEL_SECONDS = 60.0


def _now() -> datetime:
    return datetime.now(UTC)


class SlurmPool:
    """Implements `model.Pool` over slurmctld. Members are the nodes of the site's partition that bear a mark of ours.

    keep      puts a smoke collective's output on record and answers its sha256
    commands  asks slurmctld; None: the site's programs do
    """

    def __init__(
        self,
        policy: PoolPolicy,
        lock: Path,
        keep: Callable[[bytes], str] = lambda output: "",
        *,
        clock: Callable[[], datetime] = _now,
        sleep: Callable[[float], None] = time.sleep,
        commands: SlurmCommands | None = None,
    ) -> None:
        self._site = policy.slurm
        self._commands = commands or SlurmCommands(policy.slurm)
        self._reservations = Reservations(self._commands)
        self._lock = lock
        self._keep = keep
        self._clock = clock
        self._sleep = sleep

    @classmethod
    def open(cls, policy: PoolPolicy, settings: Settings, site: str) -> SlurmPool:
        """A site's. Asks nobody yet."""
        return cls(policy, settings.pool(site).with_suffix(".regulator"), Artifacts(settings.artifacts).put)

    @property
    def site(self) -> SlurmSite:
        """Where it is, and how its jobs are started."""
        return self._site

    @property
    def commands(self) -> SlurmCommands:
        """What asks slurmctld, for those that start jobs there."""
        return self._commands

    def nodes(self) -> Mapping[str, PoolNode]:
        """Every member by name. A node of the partition that nobody registered is none."""
        now = self._clock()
        seen = {name: slurm_record.pool_node(node, now) for name, node in self._commands.nodes().items()}
        return {name: member for name, member in seen.items() if member is not None}

    def register(self, node: str, reason: str, labels: Mapping[str, str] | None = None) -> None:
        """Drains the node, with its topology as features. UndecidedError while slurmctld does not know it."""
        seen = self._commands.nodes((node,)).get(node)
        if seen is None:
            of = f" in partition {self._site.partition}" if self._site.partition else ""
            raise UndecidedError(
                f"slurmctld knows no node {node}{of}",
                "give it a NodeName line in slurm.conf; then scontrol reconfigure",
            )
        known = slurm_record.record_of(seen) or Record()
        record = known.without_certificate() if labels is None else Record(slurm_record.topology(labels))
        self._shut(seen, record, slurm_record.our_reason(f"not certified: {reason}"))

    def admit(self, node: str, certificate: str, expires: datetime, labels: Mapping[str, str]) -> None:
        """Resumes a member that we drained and nobody else holds; waits until it takes jobs.

        UndecidedError: a stranger; held by somebody else, in his words; a slurmd that does not answer. In the last case
        it is drained again.
        """
        if not slurm_record.is_digest(certificate):
            raise UsageError(f"{shown(certificate, 80)} is no sha256: {node} is admitted by a certificate's")
        now = self._clock()
        if expires <= now:
            raise UndecidedError(f"certificate {certificate[:12]} expired at {expires.isoformat()}", "certify it again")
        record = Record(slurm_record.topology(labels), certificate, expires.astimezone(UTC).replace(microsecond=0))
        seen, state = self._admissible(node, now)
        if not state and slurm_record.are_marked(seen, record):
            return
        self._commands.update(node, **slurm_record.marks(seen, record), **({"State": state} if state else {}))
        self._await_open(node, record)

    def evict(self, node: str, reason: str) -> None:
        """Drains the node and takes its certificate off, in one message. What somebody else drained stays his."""
        seen = self._commands.nodes((node,)).get(node)
        if seen is not None and slurm_record.standing(seen, self._clock()) is not Standing.STRANGER:
            record = slurm_record.record_of(seen) or Record()
            self._shut(seen, record.without_certificate(), slurm_record.our_reason(reason))

    def evict_all(self, reasons: Mapping[str, str]) -> Mapping[str, RackproofError]:
        """A drain of all in one message; then each as `evict` does, which also sees whether it is drained."""
        with suppress(UndecidedError):  # `evict` meets the same trouble, and it is told of each node
            self._drain_together(reasons)
        return side_by_side(reasons.keys(), lambda node: self.evict(node, reasons[node]), _AT_ONCE)

    def _drain_together(self, reasons: Mapping[str, str]) -> None:
        """Those of these members that nobody has drained, nor holds by another word of his."""
        seen, now = self._commands.nodes(), self._clock()
        names: dict[str, list[str]] = {}
        for node in (seen[name] for name in reasons if name in seen):
            stranger = slurm_record.standing(node, now) is Standing.STRANGER
            if not (stranger or "drain" in node.state or slurm_record.held_by_others(node)):
                names.setdefault(slurm_record.our_reason(reasons[node.name]), []).append(node.name)
        for reason, alike in names.items():
            for start in range(0, len(alike), _NAMES_AT_ONCE):
                some = alike[start : start + _NAMES_AT_ONCE]
                self._commands.update(",".join(some), State="DRAIN", Reason=reason)

    def drain(self, node: str, reason: str, deadline_s: float) -> Drained:
        """Waits until the jobs of an evicted node have ended: Slurm moves none, and none is cancelled here."""
        self.evict(node, reason)
        until = time.monotonic() + deadline_s
        while True:
            ended, left, why = self._left(node)
            remaining = until - time.monotonic()
            if ended is DrainEnd.EMPTY or remaining <= 0:
                return Drained(node, ended, tuple(str(job) for job in left), why)
            self._sleep(min(DRAIN_LOOK_SECONDS, remaining))

    def capacity(self) -> Capacity:
        """Members that were let in once, as they are now."""
        now = self._clock()
        seen = self._commands.nodes().values()
        admitted = {n.name for n in seen if (member := slurm_record.pool_node(n, now)) is not None and member.admitted}
        records = ((n, slurm_record.record_of(n)) for n in seen if n.name not in admitted)
        shut = [n for n, record in records if record is not None and (record.left or record.certificate)]
        draining = sum(map(slurm_record.is_busy, shut))
        return Capacity(len(admitted), draining, len(shut) - draining)

    def running(self, nodes: Collection[str]) -> frozenset[str]:
        """Which of these run jobs that a drain would wait for; one that Slurm does not know is among them."""
        seen = self._commands.nodes()
        return frozenset(name for name in nodes if name not in seen or slurm_record.is_busy(seen[name]))

    def signs(self, nodes: Sequence[str], since: datetime) -> tuple[Sign, ...]:
        """What is bad about these members now. Jobs that lost a node are known for MinJobAge only (5 min by default):
        a soak that looks more often than that misses none. A batch job that Slurm requeues at once shows by its node.
        """
        found = self._commands.nodes()
        which = "--states=NODE_FAIL,BOOT_FAIL"
        any_lost = bool(self._commands.jobs(which))
        lost = {n: self._commands.jobs(which, f"--nodelist={n}") for n in nodes if any_lost and n in found}
        return slurm_signs.signs_of(nodes, found, lost, self._clock())

    def smoke(self, nodes: Sequence[str], deadline_s: float) -> Smoked:
        """nccl-tests over these members by srun; NOT_ASKED where the pool file names no program."""
        if not self._site.smoke:
            return Smoked(SmokeEnd.NOT_ASKED, NO_SMOKE[PoolKind.SLURM])
        identity = f"rackproof-smoke-{secrets.token_hex(4)}"
        said: Said | None = None
        try:
            said = self._commands.run(slurm_smoke.command(self._site, nodes, identity, deadline_s), deadline_s)
        finally:
            # A killed srun leaves its job to Slurm; one that ended has given its allocation back.
            left = "" if said is not None and said.ended else self.cancel(identity)
        output = self._keep((said.out + said.errors.encode())[:MAX_SMOKE_OUTPUT])
        if not said.ended:
            what = f"no end within {deadline_s:.0f} s; {left or 'it was cancelled'}"
            return Smoked(SmokeEnd.UNDECIDED, what, output)
        judged = slurm_smoke.judged(said.status, said.out.decode("utf-8", "replace"), said.errors)
        return Smoked(judged.end, judged.detail, output)

    def wanted(self, node: str) -> str | None:
        """By the jobs on it, then by those that wait for a node it could be."""
        seen = self._commands.nodes((node,)).get(node)
        if seen is None:
            raise UndecidedError(f"slurmctld knows no node {node}", "give it a NodeName line in slurm.conf")
        there = slurm_demand.in_use(self._commands.jobs(f"--nodelist={node}"))
        return there or slurm_demand.waited_for(seen, self._commands.pending()) or None

    def leading(self, holder: str) -> AbstractContextManager[None]:
        """One regulator of this installation: Slurm has no lease, and the lock is a file under its home."""
        return lead(self._lock, holder, f"Slurm partition {self._site.partition or '(all)'}")

    def mend(self, node: str) -> None:
        """Writes a member's features anew from its record, which the caller has held against the ledger."""
        seen = self._commands.nodes((node,)).get(node)
        record = slurm_record.record_of(seen) if seen is not None else None
        if seen is not None and record is not None:
            self._commands.update(node, **slurm_record.marks(seen, record))

    def lend(self, rack: str, node: str) -> str:
        """Undrains a node without a certificate inside its rack's reservation, for a burn-in; the reservation's name.

        UndecidedError for a node that somebody else holds, or that would not take jobs then.
        """
        seen = self._commands.nodes((node,)).get(node)
        if seen is None:
            raise UndecidedError(f"slurmctld knows no node {node}", "let it join first: rackproof bringup")
        name = self._reservations.hold(rack, node)
        if not self._reservations.has(name, node):
            raise UndecidedError(f"{node} is not in the reservation {name} any more", "somebody else changes it")
        if seen.state & {"drain", "fail", "down", "error"}:  # else it is lent already, or its slurmd is silent
            state = self._admissible(node, self._clock(), ours=True)[1]
            if state:
                self._commands.update(node, State=state)
        return name

    def take_back(self, node: str) -> None:
        """Drains a node that was lent. What runs there runs on."""
        self.evict(node, "not certified: given over to its burn-in")

    def give_back(self, rack: str, node: str) -> None:
        """Drains a node whose burn-in is over, and takes it out of the reservation."""
        self.evict(node, "not certified: its burn-in is over")
        self._reservations.let_go(rack, node)

    def lent(self) -> frozenset[str]:
        """Nodes of our reservations: they may take jobs without a certificate, for these are ours."""
        return self._reservations.ours()

    def cancel(self, name: str) -> str:
        """Cancels jobs of a name until Slurm has none; what it would not let go of, in words, or the empty string."""
        until = time.monotonic() + _CANCEL_SECONDS
        found: tuple[SlurmJob, ...] = ()
        while time.monotonic() < until:
            try:
                found = self._commands.jobs(f"--name={name}")
                if not found:
                    return ""
                self._commands.ask("scancel", "--quiet", f"--name={name}")
            except UndecidedError as problem:
                return f"nobody knows whether it still runs: {problem.message}"
            self._sleep(LOOK_SECONDS)
        return "; ".join(f"Slurm still has {job} on {shown(job.nodes)}" for job in found[:4])

    def _admissible(self, node: str, now: datetime, *, ours: bool = False) -> tuple[SlurmNode, str]:
        """A member that may be resumed as it is now, and the State that does it. `ours`: in a reservation of ours."""
        seen = self._settled(node)
        if seen is None or slurm_record.standing(seen, now) is Standing.STRANGER:
            raise UndecidedError(f"{node} is not a member of Slurm's pool", "let it join first: rackproof bringup")
        other = slurm_record.held_by_others(seen)
        if other:
            raise UndecidedError(
                f"{other}. Its drain is not rackproof's to end",
                f"whoever did it ends it (scontrol update NodeName={node} State=RESUME); then the same command again",
            )
        state = slurm_record.opening(slurm_record.unreserved(seen) if ours else seen)
        if state is None:
            why = f": {shown(seen.reason)}" if seen.reason else ""
            what = "what is not idle, mixed or allocated but for a drain of ours is not resumed"
            raise UndecidedError(
                f"Slurm has {node} as {slurm_record.state_of(seen)}{why}; {what}",
                f"down, not_responding: see slurmd's log on {node}; maintenance: scontrol show reservation",
            )
        return seen, state

    def _settled(self, node: str) -> SlurmNode | None:
        """The node as it is once it answers: one that was undrained a moment ago, and drained again, is silent yet."""
        until = time.monotonic() + SETTLE_SECONDS
        while True:
            seen = self._commands.nodes((node,)).get(node)
            is_silent = seen is not None and "not_responding" in seen.state and "down" not in seen.state
            if not is_silent or time.monotonic() >= until:
                return seen
            self._sleep(LOOK_SECONDS)

    def _await_open(self, node: str, record: Record) -> None:
        until = time.monotonic() + RESUME_SECONDS
        while True:
            seen = self._commands.nodes((node,)).get(node)
            if seen is not None and slurm_record.takes_jobs(seen) and slurm_record.are_marked(seen, record):
                return
            other = slurm_record.held_by_others(seen) if seen is not None else ""
            if other or time.monotonic() >= until:
                break
            self._sleep(LOOK_SECONDS)
        state = slurm_record.state_of(seen) if seen is not None else "gone"
        why = other or f"it did not come up within {RESUME_SECONDS:.0f} s, Slurm has it as {state}"
        self.evict(node, f"not admitted: {why}")
        raise UndecidedError(f"{node} was not admitted: {why}", f"see slurmd's log on {node}")

    def _shut(self, seen: SlurmNode, record: Record, reason: str) -> None:
        """Drains and marks a node in one message, and sees that it is so."""
        others = slurm_record.held_by_others(seen)
        is_shut = bool(others) or ("drain" in seen.state and seen.reason == reason)
        if is_shut and slurm_record.are_marked(seen, record):
            return
        drain = {} if others else {"State": "DRAIN", "Reason": reason}
        self._commands.update(seen.name, **slurm_record.marks(seen, record), **drain)
        now = self._commands.nodes((seen.name,)).get(seen.name)
        if now is not None and (slurm_record.takes_jobs(now) or not slurm_record.are_marked(now, record)):
            raise UndecidedError(
                f"{seen.name} was drained, and is {slurm_record.state_of(now)} with {','.join(now.active)}",
                "somebody else changes it at the same time: find out who, then the same command again",
            )

    def _left(self, node: str) -> tuple[DrainEnd, tuple[SlurmJob, ...], str]:
        """Where a drain stands: its end if nothing more came, the jobs that are left, and who holds it."""
        try:
            jobs = self._commands.jobs(f"--nodelist={node}")
            seen = self._commands.nodes((node,)).get(node)
        except UnreachableError as problem:
            return DrainEnd.UNDECIDED, (), problem.message
        if seen is None:
            return DrainEnd.UNDECIDED, (), f"slurmctld knows no node {node}"
        if jobs:
            users = ", ".join(sorted({shown(job.user, 40) for job in jobs}))
            return DrainEnd.BLOCKED, jobs, f"jobs of {users} run to their end: ask them, or scancel"
        if "not_responding" in seen.state:
            return DrainEnd.UNDECIDED, (), f"slurmd of {node} does not answer: nobody knows what still runs there"
        if slurm_record.is_busy(seen):
            return DrainEnd.BLOCKED, (), f"Slurm has {node} as {slurm_record.state_of(seen)}"
        return DrainEnd.EMPTY, (), ""
