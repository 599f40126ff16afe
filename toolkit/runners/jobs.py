"""Burn-in on a live cluster, without SSH: a Kubernetes Job for each node. Implements `carrier.Carrier`.

A Job asks for every GPU of its node and is pinned there; it tolerates our taint and a cordon, preempts nobody and is
preempted by everybody. While another pod has GPUs of the node it waits, for a while; then it is taken back, and the
node is undecided. The program comes in ConfigMaps, and what it wrote goes out through the pod's log (burnin/frames.py),
where it stays until it is on record here.

Rights that the login needs, in our namespace: create, get, list and delete on jobs and (DRA) resourceclaimtemplates,
create and get on configmaps, get and list on pods, pods/log and events; beside it get on nodes, and to name who holds
a node, list on all pods.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import burnin
from toolkit.errors import RackproofError, UndecidedError
from toolkit.kubernetes.client import ApiServer, Object
from toolkit.kubernetes.errors import ApiRefusedError, ConflictError
from toolkit.rack.model import Unit
from toolkit.runners.carrier import RECORDS, Task
from toolkit.runners.job_manifest import (
    CLAIM_VERSIONS,
    LABEL,
    NODE,
    RUN,
    JobSite,
    Program,
    claim_template,
    job,
    job_name,
)
from toolkit.runners.job_run import JOBS, JobRun, Patience
from toolkit.runners.job_state import Phase, is_of, is_unfinished, note

_CLAIMS = "ResourceClaimTemplate"
# Images are pulled before a load can begin: nodes that are to begin together wait for it.
SHIPPING_SECONDS = 180.0
_GOING_S = 90.0  # for a Job that is being deleted; its pod has a minute


class JobCarrier:
    """Kubernetes Jobs. `by_claim`: GPUs come by DRA where the server has it, as in the platform mode mnnvl_dra."""

    name = "Kubernetes Jobs"
    shipping_s = SHIPPING_SECONDS

    def __init__(
        self,
        api: ApiServer,
        site: JobSite,
        *,
        by_claim: bool = False,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._site = site
        self._by_claim = by_claim
        self._patience = patience or Patience()
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._program: Program | None = None
        self._runs: dict[str, JobRun] = {}

    @property
    def poll_s(self) -> float:
        """Between two looks."""
        return self._patience.poll

    def ship(self, node: Unit, archive: Path, digest: str) -> None:
        """The program into ConfigMaps, once for all nodes."""
        with self._lock:
            if self._program is not None and self._program.digest == digest:
                return
            program = Program.of(archive.read_bytes())
            if program.digest != digest:
                raise RackproofError(f"{archive} changed while it was shipped", "the same command again")
            for document in program.config_maps(self._site.namespace):
                self._keep(document)
            self._program = program

    def start(self, node: Unit, task: Task) -> None:
        """Makes the Job, unless there is one of this run already: running, ended, or made by somebody a moment ago."""
        program, claim = self._program, self._claim_version()
        if program is None:
            raise RackproofError(f"burn-in of {node.name} was started before its program was shipped")
        boot = (Path(burnin.__file__).parent / "boot.py").read_text()
        wanted = job(self._site, node.name, task, program, boot, claim)
        deadline = self._clock() + _GOING_S
        while not self._is_there(node, task.identity):
            with _refusals(f"burn-in of {node.name} was refused by the cluster"):
                if claim:
                    self._keep(claim_template(self._site, task, claim))
                try:
                    self._api.create(wanted, namespace=self._site.namespace)
                    with self._lock:
                        self._runs.pop(task.identity, None)  # what we knew of an earlier Job of this run
                    return
                except ConflictError:  # another controller was quicker, or one of that name is still going
                    if self._clock() > deadline:
                        raise
            self._sleep(self._patience.poll)

    def is_active(self, node: Unit, identity: str) -> bool:
        """Whether the Job waits or runs."""
        run = self._run(node, identity)
        seen = run.look()
        if seen is None:
            return True
        if seen.phase is Phase.WAITING:
            run.give_up_in_time()
        return run.may_bring_more(seen)

    def waits_for(self, node: Unit, identity: str) -> str:
        """What the last look said."""
        return self._run(node, identity).waits

    def others(self, node: Unit, identity: str) -> tuple[str, ...]:
        """Unfinished burn-ins' Jobs on that node."""
        jobs = self._api.list(JOBS, "Job", self._site.namespace, labels=LABEL)
        found = [j for j in jobs if is_of(j, node.name) and is_unfinished(j)]
        return tuple(f"Job {j['metadata']['name']}" for j in found if j["metadata"]["name"] != job_name(identity))

    def read(self, node: Unit, identity: str, name: str, offset: int, max_bytes: int) -> bytes:
        """Out of the pod's log, as far as it has come."""
        run = self._run(node, identity)
        if name == RECORDS:
            # Half a line is nothing to whoever reads records: the log may have been read between two of its own lines.
            if run.output is None or run.output.records.find(b"\n", offset) < 0:
                run.poll()
            return bytes(run.output.records[offset : offset + max_bytes]) if run.output is not None else b""
        if run.output is None:
            run.poll()
        run.await_end()
        content = run.output.artifacts.get(name) if run.output is not None else None
        if content is None:
            left = run.output.end["left_out"] if run.output is not None and run.output.end is not None else {}
            raise FileNotFoundError(f"{name}: {left.get(name, 'not in the log')}")
        return bytes(content[offset : offset + max_bytes])

    def stop(self, node: Unit, identity: str) -> None:
        """Deletes the Job, and with it the log."""
        self._run(node, identity).end()
        if self._claim_version():
            self._api.delete(self._claim_version(), _CLAIMS, job_name(identity), self._site.namespace)

    def doubt(self, node: Unit, identity: str) -> str:
        """Missing lines, a missing end, a program that failed; why the pod ended, as far as the cluster tells."""
        return self._run(node, identity).doubt()

    def forget(self, node: Unit, identity: str) -> None:
        """Deletes the Job; one that could not be deleted goes after a week."""
        try:
            self.stop(node, identity)
        except UndecidedError:
            return
        with self._lock:
            self._runs.pop(identity, None)

    def where(self, node: Unit, identity: str) -> str:
        """The Job's log."""
        return f"kubectl logs -n {self._site.namespace} job/{job_name(identity)} (node {node.name})"

    def _run(self, node: Unit, identity: str) -> JobRun:
        with self._lock:
            if identity not in self._runs:
                self._runs[identity] = JobRun(
                    self._api, self._site, node, identity, self._patience, self._clock, self._sleep
                )
            return self._runs[identity]

    def _is_there(self, node: Unit, identity: str) -> bool:
        """Whether the run has its Job. One of that name that is not this run's is refused."""
        found = self._api.get(JOBS, "Job", job_name(identity), self._site.namespace)
        if found is None or found["metadata"].get("deletionTimestamp"):
            return False
        if (note(found, RUN), note(found, NODE)) != (identity, node.name):
            raise UndecidedError(
                f"the Job {job_name(identity)} is not of burn-in {identity} on {node.name}",
                "somebody else made it: delete it, then the same command again",
            )
        return True

    def _claim_version(self) -> str:
        """The newest API that claims are served in; empty where GPUs are asked for by their number."""
        if not self._by_claim:
            return ""
        return next((v for v in CLAIM_VERSIONS if self._api.serves(v, _CLAIMS)), "")

    def _keep(self, document: Object) -> None:
        """Makes an object of ours, or sees that the one that is there is the same."""
        name, namespace = document["metadata"]["name"], self._site.namespace
        try:
            self._api.create(document, namespace=namespace)
        except ConflictError:
            found = self._api.get(document["apiVersion"], document["kind"], name, namespace) or {}
            if not all(_is_within(document[key], found.get(key)) for key in ("binaryData", "spec") if key in document):
                raise UndecidedError(
                    f"the {document['kind']} {namespace}/{name} is not what we put there",
                    f"find out who did; kubectl delete -n {namespace} {document['kind'].lower()} {name}, then again",
                ) from None


@contextmanager
def _refusals(doing: str) -> Iterator[None]:
    """A quota, an admission rule or a missing right: the cluster's own words with what we were doing."""
    try:
        yield
    except ConflictError:
        raise
    except ApiRefusedError as refused:
        raise UndecidedError(f"{doing}: {refused.message}", refused.hint) from refused


def _is_within(ours: object, theirs: object) -> bool:
    """Whether the cluster's object says what ours does; a server adds fields of its own."""
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and all(_is_within(value, theirs.get(key)) for key, value in ours.items())
    if isinstance(ours, list):
        if not isinstance(theirs, list) or len(theirs) != len(ours):
            return False
        return all(_is_within(mine, other) for mine, other in zip(ours, theirs, strict=True))
    return ours == theirs
