"""The use case "keep the door": watches a cluster's nodes and the ledger, and shuts out whom no certificate lets in.

It opens nothing. What it does not know it does not touch: an API server or a ledger that is away is waited for, and a
ledger without a single certificate takes nobody's away. Shutting is at once; the jobs of nodes that are shut are moved
as the capacity floor allows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from toolkit.errors import RackproofError
from toolkit.kubernetes.errors import ExpiredError
from toolkit.ledger import Ledger, LedgerError
from toolkit.pool.clearing import clear
from toolkit.pool.door import CERTIFICATE, CORDONED, is_tainted
from toolkit.pool.door_record import DoorRecord
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.lapsing import lapse
from toolkit.pool.model import DrainEnd
from toolkit.pool.node_object import NodeObject, read_node
from toolkit.pool.policy import Regulation
from toolkit.pool.vouched import Known, is_stranger, wrong

_LOOK_S = 0.5  # how old the ledger's word may be
_WATCH_S = 30.0
_SETTLE_S = 3.0  # a node that is shut is marked so a moment after its taint came; only what stays is wrong
_AGAIN_S = 5.0  # after a node, or the API server, that could not be dealt with
_AT_ONCE = 8  # batches of nodes; each batch is shut side by side
_CLEAR_S = 2.0
_TURN_S = 60.0  # of moving jobs, so that a node whose budget holds out does not hold up the others
_HELD_S = 300.0  # a node that was asked about is asked about again after this


@dataclass(slots=True)
class _Seen:
    """The cluster's nodes as last heard of, and what is being done.

    unrecorded  nodes that were shut, and why, while the ledger could not be told that they lapsed
    """

    nodes: dict[str, NodeObject] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    not_before: dict[str, float] = field(default_factory=dict)
    unsettled: dict[str, float] = field(default_factory=dict)
    unrecorded: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)


class Doorkeeper:
    """One cluster's. `run` until told to stop; several may run side by side, as each shuts only what is wrong."""

    def __init__(
        self,
        open_pool: Callable[[], KubernetesPool],
        ledger: Ledger,
        racks: Mapping[str, str],
        tell: Callable[[str], None],
        clock: Callable[[], datetime],
        clears: Regulation | None = None,
    ) -> None:
        """open_pool  connects anew, as after a login that was renewed
        racks      rack of each node of the site, by the node's name
        tell       is told one line of whatever an operator should know; called from several threads
        clears     floor and deadline by which jobs are moved off nodes that were shut; None: they are left
        """
        self._open_pool = open_pool
        self._pool = open_pool()
        self._ledger = ledger
        self._record = DoorRecord(ledger, racks)
        self._racks = frozenset(racks)
        self._tell = tell
        self._clock = clock
        self._clears = clears
        self._seen = _Seen()
        self._known = Known()
        self._stop = threading.Event()
        self._look = threading.Event()
        self._workers: ThreadPoolExecutor | None = None

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. A cluster or a ledger that is away is told of and asked again."""
        self._stop = stop
        watch = threading.Thread(target=self._watch, name="door watch", daemon=True)
        clearing = threading.Thread(target=self._clear, name="door clearing", daemon=True)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="door") as workers:
            self._workers = workers
            watch.start()
            clearing.start()
            while not stop.is_set():
                if not watch.is_alive():
                    raise RackproofError(
                        "the watch over the cluster's nodes ended by itself: what is judged would be what they were",
                        "its trace stands above; start the doorkeeper again",
                    )
                try:
                    self._judge_all()
                except LedgerError as away:
                    self._tell(f"the ledger does not answer; nobody is judged for now: {away.message}")
                    stop.wait(_AGAIN_S)
                self._look.wait(_LOOK_S)
                self._look.clear()

    # What is heard

    def _watch(self) -> None:
        """Keeps `_seen.nodes` in step with the cluster, for ever: lists, watches on, lists again where it must."""
        since = ""
        while not self._stop.is_set():
            try:
                since = since or self._list()
                for kind, node in self._pool.api.watch("v1", "Node", since=since, timeout_s=_WATCH_S):
                    since = str((node.get("metadata") or {}).get("resourceVersion") or since)
                    self._heard(kind, read_node(node))
                    if self._stop.is_set():
                        return
            except ExpiredError:
                since = ""  # what happened meanwhile is in the next list
            except RackproofError as away:
                since = ""
                self._tell(f"the cluster does not tell about its nodes: {away.message}; {away.hint}")
                self._stop.wait(_AGAIN_S)
                self._reconnect()

    def _list(self) -> str:
        listing = self._pool.api.listing("v1", "Node")
        with self._seen.lock:
            self._seen.nodes = {node.name: node for node in map(read_node, listing.objects)}
        self._look.set()
        return listing.version

    def _heard(self, kind: str, node: NodeObject) -> None:
        if kind == "BOOKMARK":
            return
        with self._seen.lock:
            if kind == "DELETED":
                self._seen.nodes.pop(node.name, None)
            else:
                self._seen.nodes[node.name] = node
        if kind == "DELETED" and node.name in self._known.racks:
            self._tell(f"{node.name} is gone from the cluster: deleted, or its kubelet has another name")
        self._look.set()

    def _reconnect(self) -> None:
        """By the kubeconfig as it is now: an expired login is replaced in the file, not in a process."""
        try:
            self._pool = self._open_pool()
        except RackproofError as wrong_file:
            self._tell(wrong_file.message)

    # What is done

    def _judge_all(self) -> None:
        with self._seen.lock:
            nodes = [n for n in self._seen.nodes.values() if n.name not in self._seen.busy]
        # The ledger after the nodes: whoever opens one has written so before.
        self._known = self._record.refresh()
        self._lapse()
        now = self._clock()
        due: dict[str, tuple[NodeObject, str]] = {}
        for node in nodes:
            why = wrong(node, self._known, now)
            if not why:
                self._seen.unsettled.pop(node.name, None)
            elif self._is_due(node) and not self._is_anothers(node):
                due[node.name] = (node, why)
            if is_stranger(node, self._known):
                self._once(f"{node.name} has GPUs and is of no rack of this site: it is left alone")
        self._shut(due)

    def _is_due(self, node: NodeObject) -> bool:
        """At once for a node that is open; for one that is shut, once its marks had time to follow its taint."""
        now = time.monotonic()
        if is_tainted(node) and now - self._seen.unsettled.setdefault(node.name, now) < _SETTLE_S:
            return False
        return now >= self._seen.not_before.get(node.name, 0.0)

    def _is_anothers(self, node: NodeObject) -> bool:
        """Whether nothing is known against it but by a ledger that has no certificate at all: told, never touched."""
        if self._known.issued or not node.annotation(CERTIFICATE):
            return False
        self._once(
            f"{node.name} names a certificate, and this ledger has none at all: is RACKPROOF_HOME or "
            "RACKPROOF_LEDGER another installation's? It is left alone"
        )
        return True

    def _shut(self, due: Mapping[str, tuple[NodeObject, str]]) -> None:
        if self._workers is None or not due:
            return
        with self._seen.lock:
            self._seen.busy.update(due)
        self._workers.submit(self._work, due)

    def _work(self, due: Mapping[str, tuple[NodeObject, str]]) -> None:
        try:
            failed = self._pool.evict_all({name: why for name, (_, why) in due.items()})
            for name, (node, why) in due.items():
                if name in failed:
                    self._seen.not_before[name] = time.monotonic() + _AGAIN_S
                    self._tell(f"{name} could not be shut ({why}): {failed[name].message}")
                    continue
                self._tell(f"{name} is shut: {why}")
                if not is_tainted(node):
                    with self._seen.lock:
                        self._seen.unrecorded[name] = why
            self._lapse()
            for name in due.keys() - failed.keys():
                self._await(due[name][0])
        except LedgerError as away:
            self._tell(f"what was shut has not lapsed on record yet: {away.message}")
        finally:
            with self._seen.lock:
                self._seen.busy.difference_update(due)

    def _await(self, before: NodeObject) -> None:
        """Until the watch has told of our own change, so that the node is not judged by what it was."""
        end = time.monotonic() + _AGAIN_S
        while time.monotonic() < end and not self._stop.is_set():
            with self._seen.lock:
                now = self._seen.nodes.get(before.name)
            if now is None or now.version != before.version:
                return
            time.sleep(0.01)

    def _lapse(self) -> None:
        """What is out of the pool is no longer admitted on record. What a LedgerError leaves is for the next look."""
        with self._seen.lock:
            out, self._seen.unrecorded = self._seen.unrecorded, {}
        alike: dict[tuple[str, str], list[str]] = {}
        for name, why in out.items():
            if name in self._known.racks:
                alike.setdefault((self._known.racks[name], why), []).append(name)
        try:
            for (rack, why), names in alike.items():
                lapse(self._ledger, rack, names, why)
        except LedgerError:
            with self._seen.lock:
                self._seen.unrecorded = out | self._seen.unrecorded
            raise

    def _clear(self) -> None:
        """Moves jobs off members that we cordoned, for ever; by their marks, so it goes on where another stopped."""
        again: dict[str, float] = {}
        while self._clears is not None and not self._stop.wait(_CLEAR_S):
            with self._seen.lock:
                shut = sorted(n.name for n in self._seen.nodes.values() if _is_shut_by_us(n) and n.name in self._racks)
            again = {name: at for name, at in again.items() if name in shut}
            due = [name for name in shut if time.monotonic() >= again.get(name, 0.0)]
            deadline_s = min(self._clears.drain_s, _TURN_S)
            try:
                done = clear(self._pool, due, "it takes no more jobs", self._clears.floor, deadline_s)
            except RackproofError as away:
                self._tell(f"nothing is moved off nodes that are shut for now: {away.message}")
                self._stop.wait(_AGAIN_S)
                continue
            for name, cleared in done.items():
                again[name] = time.monotonic() + _HELD_S
                drained = cleared.drained
                if drained is None or drained.end is not DrainEnd.EMPTY:
                    self._tell(f"{name} still runs jobs: {drained.why if drained else cleared.trouble}")

    def _once(self, line: str) -> None:
        with self._seen.lock:
            if line in self._seen.told:
                return
            self._seen.told.add(line)
        self._tell(line)


def _is_shut_by_us(node: NodeObject) -> bool:
    return is_tainted(node) and node.annotation(CORDONED) == "true"
