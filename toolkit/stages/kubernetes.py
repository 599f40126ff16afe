"""kubernetes: container runtime and a kubelet that registers tainted; the node becomes a member that takes no jobs.

Into a cluster nodes go with a ticket, made for this play: its file is private, and only its path is told to anybody.
A node is a member when the cluster has it as the very machine that was played on, tainted and ready.

Into Slurm a site's own means bring slurmd: no kubelet is played there, and the node becomes a drained member.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from toolkit.errors import UnreachableError
from toolkit.facts import host, probe
from toolkit.kubernetes.errors import printable
from toolkit.pool.door import TAINT
from toolkit.pool.join import Joins, Member
from toolkit.pool.policy import PoolKind
from toolkit.rack import topology
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import Unit
from toolkit.stages.context import Context, Progress, Result, Work, error, passed
from toolkit.stages.readback import PLAY_SECONDS, Configuration, play_and_judge, take

CONFIGURATION = Configuration(Stage.KUBERNETES, "kubernetes.yml", (probe.STATES, probe.KUBELET))
MACHINE = probe.Probe("machine_id", ("cat", "/etc/machine-id"), host.word, 20)
# A first pod network has images to pull before a node is ready.
READY_SECONDS = 600.0
_LOOK_SECONDS = 1.0
_SLACK = timedelta(minutes=5)
_JOURNAL = ("journalctl", "--unit=kubelet.service", "--lines=12", "--no-pager", "--output=cat")
_WORDS = 300


def run(context: Context, work: Work) -> None:
    """Plays kubernetes.yml, reads the taint back, and registers with the pool those that have it."""
    if context.hands.policy.kind is PoolKind.SLURM:
        work.each(work.nodes, lambda node: _drained(context, node))
        return
    joins = context.hands.joins
    units = {unit.name: unit for unit in work.nodes}

    def finish(node: str, result: Result) -> None:
        if result.outcome is Outcome.PASSED and joins is None:
            labels = topology.labels(context.rack, units[node])
            context.hands.pool.register(node, "joined; not certified yet", labels)
        elif result.outcome is Outcome.PASSED and joins is not None:
            result = _joined(context, work, joins, units[node], result)
        work.finish(node, result)

    with _ticket(context, joins) as variables:
        play_and_judge(context, work, CONFIGURATION, finish, variables)


def _drained(context: Context, node: Unit) -> Result:
    """The result of a node that Slurm knows: drained there, by us, until it is admitted."""
    context.hands.pool.register(node.name, "joined", topology.labels(context.rack, node))
    return passed(f"{node.name} is drained in Slurm")


@contextmanager
def _ticket(context: Context, joins: Joins | None) -> Iterator[Mapping[str, object]]:
    """The play's variables: the path of the ticket's file, which is there for the block only.

    A file that a killed run left is overwritten by the next; its token has ended by then.
    """
    if joins is None:
        yield {}
        return
    path = context.settings.secrets(context.rack.site) / f"join-{context.rack.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with joins.ticket(timedelta(seconds=PLAY_SECONDS) + _SLACK) as ticket:
            path.unlink(missing_ok=True)
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(ticket.text())
            yield {"kubeadm_node_join_file": str(path)}
    finally:
        path.unlink(missing_ok=True)


def _joined(context: Context, work: Work, joins: Joins, node: Unit, result: Result) -> Result:
    """The result of a node that was played on: a member of the cluster now, or why not."""
    machine = take(context, work.runs[node.name], node, (MACHINE,)).fact(MACHINE.name)
    again = f"rackproof bringup {context.rack.name}"
    if machine.problem:
        return error("EVIDENCE_MISSING", f"{node.name}: its machine-id could not be read: {machine.problem}", again)
    member = _wait(context, joins, node, str(machine.value))
    if member is None:
        return error("NODE_NOT_JOINED", f"{node.name} is not in the cluster; {_words(context, node)}", again)
    if member.machine != machine.value:
        return error(
            "NODE_OF_ANOTHER_MACHINE",
            f"the cluster's node {node.name} has machine-id {printable(member.machine) or 'none'}, the machine has "
            f"{machine.value}; {_words(context, node)}",
            f"kubectl get node {node.name} -o wide",
        )
    if TAINT.key not in member.taints:
        return error(
            "NODE_JOINED_UNTAINTED",
            f"{node.name} is in the cluster without the taint {TAINT.key}: it takes jobs that nobody admitted it for",
            f"kubectl cordon {node.name}",
        )
    if not member.ready:
        said = f"{node.name} is in the cluster and not ready: {member.words}"
        return error("NODE_NOT_READY", said, f"kubectl describe node {node.name}")
    context.hands.pool.register(node.name, "joined; not certified yet", topology.labels(context.rack, node))
    return result


def _wait(context: Context, joins: Joins, node: Unit, machine: str) -> Member | None:
    """The member as it is once it is this machine and ready, or when the time for that is over."""
    end = context.clock() + timedelta(seconds=READY_SECONDS)
    context.progress(Progress(node.name, Stage.KUBERNETES, "waiting for the cluster to have it ready"))
    while True:
        late = context.clock() > end
        try:
            if node.host is not None:
                joins.approve_serving(node.name, node.host.address)
            member = joins.member(node.name)
        except UnreachableError:
            if late:
                raise
        else:
            if late or (member is not None and member.ready and member.machine == machine):
                return member
        context.sleep(_LOOK_SECONDS)


def _words(context: Context, node: Unit) -> str:
    """The last words of its kubelet."""
    said = context.hands.shell.run(node, _JOURNAL, 20.0)
    text = printable(said.stdout.decode(errors="replace"))
    return f"its kubelet says: {text[-_WORDS:]}" if text else "its kubelet says nothing"
