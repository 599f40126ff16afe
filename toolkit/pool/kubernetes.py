"""The pool that a Kubernetes cluster keeps: its nodes, our taint, our condition. Acts; `door` says what is written.

Requests for an admission: read the node, apply the marks, lift the taint: three. For a shutting: read, taint, marks; of
many nodes: list them, taint them all, then mark them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from toolkit.errors import RackproofError, UndecidedError
from toolkit.kubernetes.client import ApiServer, Object
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError, ConflictError
from toolkit.ledger.holder import is_gone
from toolkit.pool import demand, smoke_job
from toolkit.pool.budgets import stays
from toolkit.pool.door import (
    CERTIFIED,
    CONDITION,
    CORDONED,
    REASON,
    is_cordoned_by_others,
    is_member,
    is_tainted,
    lift_patch,
    open_document,
    pool_node,
    shut_because,
    shut_document,
    shut_patch,
)
from toolkit.pool.drain import Drain
from toolkit.pool.election import USUAL, Election, Terms, elected
from toolkit.pool.floor import Capacity
from toolkit.pool.marks import holds
from toolkit.pool.model import Drained, PoolNode, Sign, Smoked, SmokeEnd
from toolkit.pool.node_object import NodeObject, read_node
from toolkit.pool.policy import NO_SMOKE, KubernetesSite, PoolKind, PoolPolicy
from toolkit.pool.side_by_side import side_by_side
from toolkit.pool.signs import event_signs, node_signs, pod_signs

TRIES = 6
_FIRST_PAUSE_S = 0.05
_FEW = 4  # nodes that are read one by one; more are listed
_AT_ONCE = 32
_V1, _NODE = "v1", "Node"


class KubernetesPool:
    """A `Pool`. Thread-safe. Raises UndecidedError where the API server does not answer or refuses."""

    def __init__(
        self,
        api: ApiServer,
        site: KubernetesSite,
        *,
        terms: Terms = USUAL,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        keep: Callable[[bytes], str] | None = None,
    ) -> None:
        """`keep` stores a smoke collective's output and answers its sha256."""
        self.api = api
        self._site = site
        self._terms = terms
        self._clock = clock
        self._keep = keep
        self._lead: Election | None = None

    @classmethod
    def open(cls, policy: PoolPolicy, secrets: Path, keep: Callable[[bytes], str] | None = None) -> KubernetesPool:
        """The cluster of the site's kubeconfig; sends nothing yet. UsageError or InputError for one of no use."""
        site = policy.kubernetes
        return cls(ApiServer.connect(secrets / site.kubeconfig, site.context), site, keep=keep)

    def nodes(self) -> Mapping[str, PoolNode]:
        """Nodes that bear any mark of ours; the cluster's others are none of the pool."""
        found = (read_node(node) for node in self.api.list(_V1, _NODE))
        return {node.name: pool_node(node) for node in found if is_member(node)}

    def register(self, node: str, reason: str, labels: Mapping[str, str] | None = None) -> None:
        """Taint, labels and condition on a Node that its kubelet has made. One that was admitted is cordoned too."""

        def attempt(turn: int) -> None:
            seen = self._see(node)
            if seen is None:
                raise UndecidedError(
                    f"{node} has not joined the cluster: no Node has that name",
                    f"on the node: systemctl status kubelet; then again: rackproof bringup, or kubectl get node {node}",
                )
            self._shut(seen, reason, cordon=seen.label(CERTIFIED) == "true", labels=labels, bound=turn == 0)

        self._settled(node, "register", attempt)

    def admit(self, node: str, certificate: str, expires: datetime, labels: Mapping[str, str]) -> None:
        """Marks first, taint last. Not while others hold the node, cordoned it, or its kubelet is silent."""
        first: list[NodeObject] = []
        written: list[NodeObject] = []

        def attempt(turn: int) -> None:
            self._require_lead()
            seen = self._see(node)
            if seen is None:
                raise UndecidedError(f"{node} is not in the cluster", "let it join first: rackproof bringup")
            first.append(seen)
            if seen.uid != first[0].uid:
                raise UndecidedError(
                    f"{node} was deleted and made anew while it was admitted; it is not admitted",
                    "read it again: rackproof bringup",
                )
            _require_free(seen)
            written.append(seen)
            marked = read_node(self._apply(open_document(seen, certificate, expires, labels, self._clock())))
            _require_free(marked)
            self._require_lead()
            after = self._patch(marked, lift_patch(marked))
            shut = shut_because(after)
            if shut:
                raise UndecidedError(f"{node} was opened, and is not open: {shut}", f"kubectl describe node {node}")

        try:
            self._settled(node, "admit", attempt)
        except UndecidedError as failure:
            if written:
                self._unmark(node, failure)
            raise

    def evict(self, node: str, reason: str) -> None:
        """Taint and cordon at once, then label, annotations and condition. Running pods stay."""
        for failure in self.evict_all({node: reason}).values():
            raise failure

    def evict_all(self, reasons: Mapping[str, str]) -> Mapping[str, RackproofError]:
        """Taint and cordon of all, side by side: one write a node. Then label, annotations and condition of each."""
        try:
            seen = self._found(reasons)
        except RackproofError as failure:
            return dict.fromkeys(reasons, failure)

        def taint(node: str) -> None:
            def attempt(turn: int) -> None:
                now = self._see(node) if turn else seen[node]
                if now is None:
                    del seen[node]  # deleted meanwhile
                else:
                    seen[node] = self._patch(now, shut_patch(now, cordon=True, bound=turn == 0))

            self._settled(node, "shut", attempt)

        def mark(node: str) -> None:
            def attempt(turn: int) -> None:
                now = self._see(node) if turn else seen[node]
                if now is not None:
                    self._shut(now, reasons[node], cordon=True, bound=turn == 0)

            self._settled(node, "shut", attempt)

        failed = side_by_side(tuple(seen), taint, _AT_ONCE)
        return failed | side_by_side(seen.keys() - failed.keys(), mark, _AT_ONCE)

    def drain(self, node: str, reason: str, deadline_s: float) -> Drained:
        """Shuts the node if it is open, then evicts its pods until the deadline."""
        seen = self._see(node)
        if seen is not None and not shut_because(seen):
            self.evict(node, reason)
        return Drain(self.api, node).run(deadline_s)

    def capacity(self) -> Capacity:
        """The pool's nodes that were let in once; those that we shut are known by our cordon."""
        found = [node for node in map(read_node, self.api.list(_V1, _NODE)) if is_member(node)]
        admitted = {node.name for node in found if not shut_because(node)}
        shut = {node.name for node in found if node.annotation(CORDONED) == "true"} - admitted
        draining = self.running(shut)
        return Capacity(len(admitted), len(draining), len(shut - draining))

    def running(self, nodes: Collection[str]) -> frozenset[str]:
        """Which of these nodes have pods that a drain would have to move."""
        pods = self.api.list(_V1, "Pod", fields="status.phase=Running") if nodes else ()
        return frozenset(str(pod["spec"].get("nodeName") or "") for pod in pods if not stays(pod)) & frozenset(nodes)

    def signs(self, nodes: Sequence[str], since: datetime) -> tuple[Sign, ...]:
        """Three requests for any number of nodes; a few nodes are read one by one instead of listing all."""
        names = frozenset(nodes)
        found = self._found(names)
        pods = self.api.list(_V1, "Pod", fields="status.phase=Failed")
        events = self.api.list(_V1, "Event", fields="involvedObject.kind=Node,type=Warning")
        return (
            *(sign for name in sorted(names) for sign in node_signs(name, found.get(name))),
            *pod_signs(pods, names, since),
            *event_signs(events, names, since),
        )

    def smoke(self, nodes: Sequence[str], deadline_s: float) -> Smoked:
        """A Job over the nodes, of the policy's `smoke_image`; NOT_ASKED where it names none."""
        if not self._site.smoke_image:
            return Smoked(SmokeEnd.NOT_ASKED, NO_SMOKE[PoolKind.KUBERNETES])
        found = [self._see(name) for name in nodes]
        gone = [name for name, node in zip(nodes, found, strict=True) if node is None]
        if gone:
            return Smoked(SmokeEnd.UNDECIDED, f"not in the cluster any more: {', '.join(gone)}")
        allocatable = {node.name: node.gpus[1] for node in found if node is not None}
        without = [name for name, gpus in allocatable.items() if not gpus]
        if without or not allocatable:
            what = f"no GPUs are given out on {', '.join(without) or 'no nodes'}: is the device plugin up there?"
            return Smoked(SmokeEnd.UNDECIDED, what)
        gpus, image = min(allocatable.values()), self._site.smoke_image
        order = smoke_job.Order(self._site.namespace, image, tuple(nodes), gpus, deadline_s)
        return smoke_job.run(self.api, order, self._keep)

    def wanted(self, node: str) -> str | None:
        """By the pods on it, then by those that no node takes: three requests."""
        seen = self._see(node)
        if seen is None:
            raise UndecidedError(f"{node} is not in the cluster", f"kubectl get node {node}")
        there = self.api.list(_V1, "Pod", fields=f"spec.nodeName={node}")
        waiting = self.api.list(_V1, "Pod", fields="status.phase=Pending")
        return demand.in_use(there) or demand.waited_for(seen, waiting) or None

    @contextmanager
    def leading(self, holder: str) -> Iterator[None]:
        """The Lease in our namespace. While it is held, `admit` refuses once it was lost."""
        with elected(self.api, self._site.namespace, holder, is_gone, self._terms) as held:
            self._lead = held
            try:
                yield
            finally:
                self._lead = None

    def _require_lead(self) -> None:
        if self._lead is not None:
            self._lead.require()

    def _see(self, node: str) -> NodeObject | None:
        found = self.api.get(_V1, _NODE, node)
        return None if found is None else read_node(found)

    def _found(self, names: Collection[str]) -> dict[str, NodeObject]:
        """Those of these nodes that are there: a few are read one by one, more are picked from a list of all."""
        if len(names) <= _FEW:
            return {node.name: node for node in map(self._see, names) if node is not None}
        return {node.name: node for node in map(read_node, self.api.list(_V1, _NODE)) if node.name in names}

    def _apply(self, document: Object) -> Object:
        # Through the status: it takes labels and annotations as well, so that all marks change in one write. Forced:
        # these fields are ours by name, whoever wrote them last.
        meta = document["metadata"]
        try:
            return self.api.apply(document, subresource="status", force=True)
        except ApiRefusedError as no:
            if no.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            # A uid is immutable: under this name stands another object by now, or the values are bad.
            now = self._see(meta["name"])
            if now is not None and now.uid == meta["uid"]:
                raise
            raise ConflictError(no.message, no.hint, status=no.status) from no

    def _patch(self, node: NodeObject, patch: list[Object]) -> NodeObject:
        """The node afterwards. ConflictError where the patch no longer fits, for others wrote the node first."""
        try:
            return read_node(self.api.patch(_V1, _NODE, node.name, patch, how="json")) if patch else node
        except ApiRefusedError as no:
            if no.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            # A place in a list that is gone, a taint that is there by now; or values that are bad.
            now = self._see(node.name)
            if now is not None and now.version == node.version:
                raise
            raise ConflictError(no.message, no.hint, status=no.status) from no

    def _shut(
        self,
        seen: NodeObject,
        reason: str,
        *,
        cordon: bool,
        labels: Mapping[str, str] | None = None,
        bound: bool = True,
    ) -> None:
        shut = self._patch(seen, shut_patch(seen, cordon=cordon, bound=bound))
        document = shut_document(shut, reason, self._clock(), labels)
        if not _is_marked(shut, document):
            shut = read_node(self._apply(document))
        if not is_tainted(shut):
            # Until 1.26 the node lifecycle controller writes the taints that it read without naming the version that
            # it read them at (kubernetes/kubernetes#113136): it takes ours off a node that becomes ready just then.
            raise ConflictError(f"{shut.name}: another's write took our taint off", status=HTTPStatus.CONFLICT)

    def _unmark(self, node: str, failure: UndecidedError) -> None:
        """Takes the marks of an admission off that did not come to its end. The taint is on: it may also fail."""
        with suppress(ApiUnreachableError, ApiRefusedError):
            seen = self._see(node)
            said = seen.condition(CONDITION) if seen else None
            if seen is not None and (said is None or said.status != "False" or not is_tainted(seen)):
                self._shut(seen, failure.message, cordon=False)

    def _settled(self, node: str, doing: str, attempt: Callable[[int], None]) -> None:
        """Until it is done: a node that others write at the same moment is read again, a bounded number of times."""
        for turn in range(TRIES):
            try:
                attempt(turn)
            except ConflictError as conflict:
                if turn == TRIES - 1:
                    raise UndecidedError(
                        f"{node}: {TRIES} attempts to {doing} it met another's write: {conflict.message}",
                        f"who writes it all the time? kubectl get node {node} --show-managed-fields -o yaml",
                    ) from conflict
                time.sleep(_FIRST_PAUSE_S * 2**turn)
            else:
                return


def _require_free(node: NodeObject) -> None:
    """UndecidedError while anybody else has a say: a certificate does not overrule them."""
    why = list(holds(node))
    if is_cordoned_by_others(node):
        why.append("somebody else cordoned it")
    if not node.ready:
        why.append("its kubelet does not say that it is ready")
    if why:
        raise UndecidedError(
            f"{node.name} is certified, but not admitted: {'; '.join(why)}",
            f"look with its owner: kubectl describe node {node.name}; then the same command again",
        )


def _is_marked(node: NodeObject, document: Object) -> bool:
    """Whether the node says already what the document would write; its heartbeat aside."""
    meta = document["metadata"]
    said = node.condition(CONDITION)
    return (
        said is not None
        and (said.status, said.message) == ("False", meta["annotations"][REASON])
        and all(node.label(key) == value for key, value in meta["labels"].items())
        and node.annotation(REASON) == meta["annotations"][REASON]
    )
