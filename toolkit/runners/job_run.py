"""One run of a burn-in in a cluster, followed: its Job and pod looked at, its log read piece by piece, its end awaited.

What we know of it is in the cluster: a controller that was killed reads the log from its beginning and stands where it
stood. A cluster that does not answer is waited for, as long as an API server may be away when it is upgraded; so is a
node whose log cannot be read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.kubernetes.client import ApiServer, Object
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, printable
from toolkit.rack.model import Unit
from toolkit.runners.job_manifest import CONTAINER, LABEL, PROGRAM_OF, JobSite, job_name
from toolkit.runners.job_output import ForgedError, Output
from toolkit.runners.job_state import (
    Look,
    Phase,
    boot_id,
    holders,
    is_going,
    is_unfinished,
    look,
    node_trouble,
    note,
    told,
)

JOBS = "batch/v1"
MAX_LOG_BYTES = 24 << 20  # twice what a node agent keeps by default, and more
_OVERLAP_S = 10  # of two readings: what was written while the first was under way
_NOT_THERE = (400, 404)  # the container has not started; the pod is gone


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for what. Seconds.

    outage  an API server that does not answer, or a log that its node does not give
    end     from the last record to the last line of the log
    poll    between two looks
    """

    outage: float = 300.0
    end: float = 120.0
    poll: float = 2.0


@dataclass(slots=True)
class JobRun:
    """A run by its identity. One thread at a time uses it."""

    api: ApiServer
    site: JobSite
    node: Unit
    identity: str
    patience: Patience
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    waits: str = ""  # what it waits for
    cut: str = ""  # why it ended, or will bring nothing more
    output: Output | None = None
    _pod: str = ""
    _refused: ForgedError | None = None
    _met: bool = False  # the first line was held against the cluster's word
    _over: bool = False  # the pod had ended when we looked last
    _drained: bool = False  # its log was read after that, or is gone
    _reread: bool = False  # a line is missing even from the whole log
    _began: float = field(default=math.nan)  # to wait for its turn
    _heard: float = field(default=math.nan)  # from the API server
    _read: float = field(default=math.nan)  # the log
    _failing: float = field(default=math.nan)  # since when the log cannot be read

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def job(self) -> str:
        """Its Job's name."""
        return job_name(self.identity)

    def look(self) -> Look | None:
        """Where it stands now; None where the API server does not answer, for a while."""
        try:
            job = self.api.get(JOBS, "Job", self.job, self.site.namespace)
            found = look(job, self._pods() if job else (), self._followed)
            if found.phase is Phase.WAITING and found.pod is None:  # a quota, or a class that is not there
                found = Look(Phase.WAITING, told(self._events(self.job), ended=False) or found.words)
            if found.phase is Phase.OVER and not self.cut:
                taken_away = found.pod is None or is_going(found.pod)
                words = self._pod_lost(found.words) if taken_away else found.words
                if taken_away and job is not None and is_unfinished(job):
                    self.end()  # no other pod in its place, whose log nobody would follow
                self.cut = words
        except (ApiUnreachableError, ApiRefusedError) as problem:
            self._away(problem)
            return None
        self._heard = self.clock()
        self.waits = found.words if found.phase is Phase.WAITING else ""
        self._over = found.phase is Phase.OVER
        if found.phase is Phase.RUNNING:
            self._follow(job, found.pod)
        return found

    def may_bring_more(self, seen: Look) -> bool:
        """Whether it waits, runs, or ended and its log could not be read since."""
        if seen.phase is Phase.OVER:
            return seen.pod is not None and not self._drained and self._refused is None
        return seen.phase is not Phase.ABSENT

    def poll(self) -> None:
        """Takes what the log has more. ForgedError, now and for ever, for one that cannot be trusted."""
        if self._refused is not None:
            raise self._refused
        if self.output is None:
            self._find()
        if self.output is None:
            return
        try:
            self._feed(self.output, whole=math.isnan(self._read))
            if self.output.has_gap and not self._reread:
                self._feed(self.output, whole=True)
                self._reread = self.output.has_gap
            self._meet(self.output)
        except ForgedError as forged:
            self._refused = ForgedError(forged.message, self._look_at_it)
            raise self._refused from forged

    def await_end(self) -> None:
        """Reads until the last line has come, or none will."""
        deadline = self.clock() + self.patience.end
        while self.output is not None and self.output.end is None:
            seen = self.look()  # before the log: what is written until the end is in it then
            self.poll()
            over = seen is not None and not self.may_bring_more(seen)
            if self.output.end is not None or over or self.clock() > deadline:
                return
            self.sleep(self.patience.poll)

    def doubt(self) -> str:
        """Why what came is not all; empty where it is."""
        self.await_end()
        said = self.output.doubt() if self.output is not None else "no pod of it was ever seen to run"
        if not said:
            return "" if self._met else f"neither serial nor boot id says that its machine was {self.node.name}"
        return "; ".join(dict.fromkeys(filter(None, (said, self.cut, *self._last_words()))))

    def give_up_in_time(self) -> None:
        """UndecidedError where it has waited for its turn for too long; its Job is taken back then."""
        if self.clock() - self._began < self.site.start_s:
            return
        waited, why = self.clock() - self._began, self.blocked()
        self.end()
        raise UndecidedError(
            f"burn-in of {self.node.name} did not begin within {waited:.0f} s: {why}",
            "when that is over: the same command again",
        )

    def blocked(self) -> str:
        """Who or what holds it back, in words."""
        busy = self._holders()
        if busy:
            return f"{self.node.name} is busy with pod {', pod '.join(busy[:4])}"
        return self.waits or "nobody says why"

    def end(self) -> None:
        """Deletes its Job, with its pod."""
        self.api.delete(JOBS, "Job", self.job, self.site.namespace)

    @property
    def _look_at_it(self) -> str:
        place = f"-n {self.site.namespace} job/{self.job}"
        return f"nothing of it is used. kubectl logs {place}; then kubectl delete {place}, and the same command again"

    # --- the cluster ---------------------------------------------------------------------------------------------

    @property
    def _followed(self) -> str:
        return self.output.carrier if self.output is not None else ""

    def _pods(self) -> tuple[Object, ...]:
        return self.api.list("v1", "Pod", self.site.namespace, labels=f"{LABEL}={self.job}")

    def _find(self) -> None:
        """The pod whose log is read, once its container has started. Another node's is nobody's evidence here."""
        seen = self.look()
        if self.output is not None or seen is None or seen.phase is not Phase.OVER or seen.pod is None:
            return
        try:
            self._follow(self.api.get(JOBS, "Job", self.job, self.site.namespace), seen.pod)
        except (ApiUnreachableError, ApiRefusedError) as problem:
            self._away(problem)

    def _follow(self, job: Object | None, pod: object) -> None:
        if self.output is not None or job is None or not isinstance(pod, dict):
            return
        where = str((pod.get("spec") or {}).get("nodeName", ""))
        if where != self.node.name:
            self._refused = ForgedError(
                f"burn-in {self.identity}: its pod ran on {printable(where) or 'no node'}, not on {self.node.name}: "
                "what it measured is another node's",
                self._look_at_it,
            )
            raise self._refused
        self._pod = str(pod["metadata"]["name"])
        self.output = Output(self.identity, str(pod["metadata"]["uid"]), note(job, PROGRAM_OF))

    def _pod_lost(self, words: str) -> str:
        """Why a pod was deleted in the middle, as far as anybody said."""
        said = told(self._events(self._pod or self.job), ended=True)
        return f"{words}: {said}" if said else words

    def _holders(self) -> tuple[str, ...]:
        try:
            pods = self.api.list("v1", "Pod", fields=f"spec.nodeName={self.node.name}")
        except ApiRefusedError:
            return ()  # this login may not look into other namespaces: the scheduler's words have to do
        return holders(pods, self.job)

    def _events(self, of: str) -> tuple[Object, ...]:
        """Events of a Job or pod by its name."""
        try:
            return self.api.list("v1", "Event", self.site.namespace, fields=f"involvedObject.name={of}")
        except ApiRefusedError:
            return ()

    def _away(self, problem: UndecidedError) -> None:
        """An API server that answered before is waited for; for a moment after it came back it refuses everybody, until
        it has read who may do what.
        """
        if math.isnan(self._heard) or self.clock() - self._heard > self.patience.outage:
            raise problem

    # --- the log -------------------------------------------------------------------------------------------------

    def _feed(self, output: Output, *, whole: bool) -> None:
        now, over = self.clock(), self._over
        since = None if whole else math.ceil(now - self._read) + _OVERLAP_S
        namespace = self.site.namespace
        try:
            log = self.api.logs(self._pod, namespace, container=CONTAINER, max_bytes=MAX_LOG_BYTES, since_s=since)
        except ApiRefusedError as refused:
            if refused.status not in _NOT_THERE:
                self._silent(refused)
            else:
                self._drained = over
            return
        except ApiUnreachableError as problem:  # also where the API server waits for the node for longer than we do
            self._silent(problem)
            return
        self._read = self._heard = now
        self._failing, self._drained = math.nan, over
        output.feed(log)

    def _silent(self, problem: UndecidedError) -> None:
        """The node does not give the log: it is lost, or its agent is away for a moment. The run may go on there."""
        self._failing = self.clock() if math.isnan(self._failing) else self._failing
        try:
            trouble = node_trouble(self.api.get("v1", "Node", self.node.name))
        except (ApiUnreachableError, ApiRefusedError) as away:
            self._away(away)
            return
        since = self.clock() - self._failing
        if since > self.patience.outage or (trouble and since > self.patience.outage / 4):
            raise UnreachableError(
                f"burn-in {self.identity} on {self.node.name}: its log cannot be read: {trouble or problem.message}",
                f"see whether {self.node.name} is up; then the same command again goes on with this run",
            )

    def _meet(self, output: Output) -> None:
        """Holds the first line against the cluster's word and the rack file: which machine was this?"""
        if self._met or output.hello is None:
            return
        try:
            node = self.api.get("v1", "Node", self.node.name)
        except (ApiUnreachableError, ApiRefusedError) as problem:
            self._away(problem)
            return
        told = output.hello
        both = {
            "node": (told["node"], self.node.name),
            "serial": (told["serial"], self.node.serial),
            "boot id": (told["boot"], boot_id(node)),
        }
        held = {what: pair for what, pair in both.items() if all(pair)}
        for what, (said, wanted) in held.items():
            if said != wanted:
                raise ForgedError(
                    f"burn-in {self.identity}: its pod ran on a machine of {what} {printable(said)}, and "
                    f"{self.node.name} has {wanted}: what it measured is another machine's"
                )
        # The name is what we told the pod ourselves: which machine it was only these tell.
        self._met = bool(held.keys() & {"serial", "boot id"})

    def _last_words(self) -> list[str]:
        """What the program, or its container, said on its own."""
        if self.output is None or not self.output.words:
            return []
        return [printable(f"it said: {self.output.words[-1]}")]
