"""A collective over many nodes of a rack: started on one, followed, stopped everywhere, and the way it took proved.

mpirun reaches the other nodes by SSH, so the first node is given a key for the time of the run: made there, never
leaving it, let in on each other node from that address only, for the MPI daemon only, until it is dismissed or expires.
Whoever held it could start ranks as root on these nodes for so long; it opens no shell and forwards nothing.

The run belongs to the nodes: it has its own systemd unit and its own deadline there. At the end, whatever it was, each
node is asked to stop what carries the run's mark and to tell what would not stop: a rank that is left over holds GPUs
and would be measured with everything that follows, so that it is an ERROR that names its host.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.facts import nccl_tests, nccl_transport
from toolkit.facts.nccl_counters import Carried, between
from toolkit.facts.nccl_path import Fabric, Run, Shape, prove
from toolkit.rack.model import Slurm, Unit
from toolkit.stages import mpi_command, slurm, srun_command
from toolkit.stages.collective_result import Collected, Remains
from toolkit.stages.context import Context
from toolkit.stages.mpi_command import Order

COMMAND_SECONDS = 60.0
POLL_SECONDS = 1.0
MARGIN_SECONDS = 30.0  # the node's own deadline comes first
SIDE_BY_SIDE = 32
# A file is cheap to ask for, systemd is not: on a small node that carries many tests at once, asking would cost more
# than the tests. A unit that is gone two looks in succession writes its end no more.
POLLS_A_LOOK = 4
GONE_TWICE = 2
MAX_OUTPUT_BYTES = 4 * 1024 * 1024
MAX_LOG_BYTES = 16 * 1024 * 1024
# IBV_WC_RETRY_EXC_ERR is 12 (rdma-core, verbs.h). NCCL (net_ib) prints `error 12`, since 2.12 `status=12`, and newer
# versions `status=IBV_WC_RETRY_EXC_ERR(12)`.
_RETRIES = re.compile(rb"Got completion from peer [^\n]{0,200}(?:status=(?:IBV_WC_RETRY_EXC_ERR\()?|error )12\b")


@dataclass(frozen=True, slots=True)
class Site:
    """Where things are on the nodes."""

    archive: str = "/opt/rackproof/burnin.pyz"
    folder: str = "/var/lib/rackproof/collectives"
    python: str = "/usr/bin/python3"
    infiniband: str = "/sys/class/infiniband"
    user: str = "root"


def measure(context: Context, order: Order, fabric: Fabric = Fabric.NIC, site: Site | None = None) -> Collected:
    """Run the order. Blocks until every node has said that nothing of it is left, or could not be asked.

    UsageError: the order cannot be carried out. UndecidedError: a node did not answer before anything was started, or
    is busy with another run of ours.
    """
    hosts = _Hosts(context, mpi_command.checked(order), site or Site(), fabric)
    pinned = mpi_command.known_hosts(order, _pinned(context))
    command, environment = _launch(hosts)
    details = {
        "argv": command,
        "env": environment,
        "nodes": [n.name for n in order.nodes],
        "deadline_s": order.deadline_s,
    }
    context.ledger.intent(context.rack.name, hosts.first.name, _filed(order), details)
    hosts.each(lambda node: _require_idle(hosts, node))
    before = hosts.counters()
    problem, end = "", {}
    try:
        _prepare(hosts, {"argv": command, "env": environment, "deadline_s": order.deadline_s}, pinned)
        _start(hosts)
        end = _follow(hosts)
    except UndecidedError as caught:
        problem = caught.message
    finally:
        remains = _stop(hosts)
    collected = _collect(hosts, fabric, before, end, remains, problem)
    told = {"how": collected.how, "outcome": collected.outcome, "artifacts": dict(collected.artifacts)}
    context.ledger.observed(context.rack.name, hosts.first.name, _filed(order), told)
    return collected


def end(context: Context, order: Order, site: Site | None = None) -> tuple[Remains, ...]:
    """Ends what an earlier controller left of the order on its nodes; nothing where nothing is left. Each answers."""
    return _stop(_Hosts(context, mpi_command.checked(order), site or Site()))


class _Hosts:
    """The nodes of a run, spoken to side by side."""

    def __init__(self, context: Context, order: Order, site: Site, fabric: Fabric = Fabric.NIC) -> None:
        self.context = context
        self.fabric = fabric
        self.order = order
        self.site = site
        self.first = order.nodes[0]
        self.folder = f"{site.folder}/{order.identity}"
        self.unit = f"rackproof-collective-{order.identity}"
        self.slurm: Slurm | None = context.rack.slurm

    def ask(self, *argv: str) -> bytes:
        """The command's output on the node that launches."""
        return self.run(self.first, *argv)

    def each(self, do: Callable[[Unit], Any], nodes: Sequence[Unit] | None = None) -> list[Any]:
        """What `do` answers, node by node. The first error is raised when all have ended."""
        chosen = self.order.nodes if nodes is None else nodes
        with ThreadPoolExecutor(min(SIDE_BY_SIDE, max(1, len(chosen)))) as pool:
            return list(pool.map(do, chosen))

    def run(
        self, node: Unit, *argv: str, timeout_s: float = COMMAND_SECONDS, max_bytes: int = MAX_OUTPUT_BYTES
    ) -> bytes:
        """The command's output. UndecidedError with its own words where it fails."""
        answer = self.context.hands.shell.run(node, argv, timeout_s, max_bytes)
        if answer.status != 0:
            said = (answer.stderr or answer.stdout)[-300:].decode("utf-8", "replace").strip()
            raise UndecidedError(f"{argv[0]} on {node.name} for {self.order.identity}: {said}", "look at the node")
        return answer.stdout

    def ours(self, node: Unit, module: str, *arguments: str, timeout_s: float = COMMAND_SECONDS) -> bytes:
        """The output of a program of the burn-in that was shipped to the node."""
        argv = self.program(module, *arguments)
        return self.run(node, *argv, timeout_s=timeout_s, max_bytes=MAX_LOG_BYTES)

    def program(self, module: str, *arguments: str) -> tuple[str, ...]:
        """argv of a module of burnin.nccl on a node."""
        code = f"import sys; sys.path[0] = {self.site.archive!r}; from burnin.nccl import {module}; "
        return (self.site.python, "-S", "-c", f"{code}sys.exit({module}.main())", *arguments)

    def counters(self) -> dict[str, object]:
        """The counters by node."""
        texts = self.each(self.counted)
        return {node.name: _json(text) for node, text in zip(self.order.nodes, texts, strict=True)}

    def counted(self, node: Unit) -> bytes:
        """One node's; those of its NVLinks where they are to prove the way, for the driver is slow to tell them."""
        alone = ("hcas",) if self.fabric is Fabric.NIC else ()
        return self.ours(node, "counters", self.site.infiniband, *alone)


def _filed(order: Order) -> str:
    return f"collective {order.identity}"


def _pinned(context: Context) -> str:
    file = context.settings.known_hosts(context.rack.name)
    return file.read_text() if file.is_file() else ""


def _launch(hosts: _Hosts) -> tuple[tuple[str, ...], dict[str, str]]:
    """argv and the whole environment of what starts the ranks: Slurm where the rack says so, else mpirun over SSH."""
    order, folder = hosts.order, hosts.folder
    if hosts.slurm is None:
        return mpi_command.command(order, folder, _generation(hosts)), mpi_command.environment(order, folder)
    seat = slurm.seat(hosts.ask, order, hosts.slurm)
    environment = srun_command.environment(order, hosts.slurm, folder)
    return srun_command.command(order, hosts.slurm, folder, seat), environment


def _generation(hosts: _Hosts) -> int:
    """Open MPI's major version on the first node."""
    said = hosts.run(hosts.first, f"{hosts.order.mpi}/mpirun", "--version")
    found = mpi_command.generation(said)
    if found is None:
        words = said[:100].decode("utf-8", "replace").strip()
        raise UndecidedError(f"mpirun of {hosts.first.name} is not Open MPI: {words}", "give the folder of Open MPI")
    return found


def _require_idle(hosts: _Hosts, node: Unit) -> None:
    """Two tests on one node would measure each other, unless they are on GPUs and HCAs of their own."""
    units = ["rackproof-burnin-*.service", "rackproof-collective-*.service"]
    argv = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", *units]
    said = hosts.context.hands.shell.run(node, argv, COMMAND_SECONDS).stdout.decode("utf-8", "replace")
    busy = [line.split()[0] for line in said.splitlines() if line.startswith("rackproof-")]
    if hosts.order.beside:
        busy = [unit for unit in busy if not unit.startswith(f"rackproof-collective-{hosts.order.beside}")]
    if busy:
        words = f"{node.name} is busy with {busy[0][:100]}: {hosts.order.identity} was not started"
        raise UndecidedError(words, "the same command again, when it has ended")


def _prepare(hosts: _Hosts, job: Mapping[str, object], pinned: str) -> None:
    """Folders on all nodes; key, hosts and job on the first; the key let in on the others."""
    hosts.each(lambda node: hosts.run(node, "mkdir", "-p", hosts.site.folder))
    hosts.each(lambda node: hosts.run(node, "mkdir", "-m", "0700", hosts.folder))  # fails for a name used before
    files = {"job.json": json.dumps(job, indent=1)}
    if hosts.slurm is not None:
        files["ranks"] = srun_command.ranks(hosts.order)
    else:
        files["hostfile"] = mpi_command.hostfile(hosts.order)
        files["known_hosts"] = pinned
        files["ssh_config"] = mpi_command.ssh_config(hosts.order, hosts.folder, hosts.site.user)
    with tempfile.TemporaryDirectory(prefix="rackproof-") as aside:
        for name, text in files.items():
            (Path(aside) / name).write_text(text)
            hosts.context.hands.shell.put(hosts.first, Path(aside) / name, f"{hosts.folder}/{name}", 0o600)
    if hosts.slurm is not None:  # its daemons are there, and are asked with its own credentials
        return
    key = f"{hosts.folder}/key"
    mark = f"rackproof:{hosts.order.identity}"
    hosts.run(hosts.first, "rm", "-f", key, f"{key}.pub")
    hosts.run(hosts.first, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", mark, "-f", key)
    public = hosts.run(hosts.first, "cat", f"{key}.pub").decode("ascii", "replace").strip()
    assert hosts.first.host is not None  # noqa: S101 - the order was checked
    arguments = (hosts.folder, hosts.first.host.address, str(_longest(hosts)), hosts.order.mpi, public)
    hosts.each(lambda node: hosts.ours(node, "guest", "admit", *arguments), hosts.order.nodes[1:])


def _longest(hosts: _Hosts) -> float:
    return hosts.order.deadline_s + MARGIN_SECONDS


def _start(hosts: _Hosts) -> None:
    """Under systemd, which ends it too if the program that watches the deadline does not."""
    hosts.run(
        hosts.first, "systemd-run", f"--unit={hosts.unit}", "--collect", "--quiet", "--property=KillMode=control-group",
        f"--property=RuntimeMaxSec={_longest(hosts):.0f}", *hosts.program("launch", hosts.folder),
    )  # fmt: skip


def _follow(hosts: _Hosts) -> dict[str, Any]:
    """The launcher's end; empty where it did not come in time, or its unit is gone without one."""
    clock, shell = hosts.context.clock, hosts.context.hands.shell
    until, polls, gone = clock().timestamp() + _longest(hosts), 0, 0
    while clock().timestamp() < until and gone < GONE_TWICE:
        try:
            text = shell.read(hosts.first, f"{hosts.folder}/end.json", 0, 4096)
        except FileNotFoundError:
            text = b""
        if text:
            return _json(text)
        polls += 1
        if polls % POLLS_A_LOOK == 0:
            active = ["systemctl", "is-active", "--quiet", f"{hosts.unit}.service"]
            gone = 0 if shell.run(hosts.first, active, COMMAND_SECONDS).status == 0 else gone + 1
        hosts.context.sleep(POLL_SECONDS)
    return {}


def _stop(hosts: _Hosts) -> tuple[Remains, ...]:
    """The unit is stopped, the key forgotten, every node asked for what is left. Raises nothing: each node answers."""

    def one(node: Unit) -> Remains:
        try:
            if node is hosts.first:
                hosts.context.hands.shell.run(node, ["systemctl", "stop", f"{hosts.unit}.service"], COMMAND_SECONDS)
                hosts.run(node, "rm", "-f", f"{hosts.folder}/key", f"{hosts.folder}/key.pub")
            told = _json(hosts.ours(node, "guest", "stop", hosts.folder))
        except UndecidedError as problem:
            return Remains(node.name, problem=problem.message)
        alive, found = told.get("alive"), told.get("found")
        if not isinstance(alive, list) or not isinstance(found, int):
            return Remains(node.name, problem="its answer cannot be read")
        return Remains(node.name, found, tuple(str(words)[:200] for words in alive[:64]))

    remains = tuple(hosts.each(one))
    return remains if hosts.slurm is None else (*remains, *_stop_slurm(hosts, hosts.slurm))


def _stop_slurm(hosts: _Hosts, settings: Slurm) -> tuple[Remains, ...]:
    """Nothing where Slurm has neither a job nor a step of the run; else a word on the node that launched it."""
    try:
        words = slurm.left(hosts.ask, hosts.order, settings, hosts.context.sleep)
    except UndecidedError as problem:
        words = problem.message
    return (Remains(hosts.first.name, problem=words),) if words else ()


def _collect(
    hosts: _Hosts,
    fabric: Fabric,
    before: Mapping[str, object],
    end: Mapping[str, Any],
    remains: tuple[Remains, ...],
    problem: str,
) -> Collected:
    """Everything that tells what was measured, on record. A node that is gone by now tells nothing."""
    order = hosts.order
    output = _whole(hosts, f"{hosts.folder}/output.txt")
    run = nccl_tests.parse(output.decode("utf-8", "replace"))
    gone = {r.node for r in remains if r.problem}
    there = [node for node in order.nodes if node.name not in gone]
    logs = {
        node.name: text for node, text in zip(there, hosts.each(lambda n: _told(hosts, n, "logs"), there), strict=True)
    }
    after = dict(zip((n.name for n in there), hosts.each(lambda n: _told(hosts, n, "counters"), there), strict=True))
    carried = [_of(order, between(n.name, before.get(n.name), _json(after.get(n.name, b"")))) for n in order.nodes]
    transport = nccl_transport.parse([text.decode("utf-8", "replace") for text in logs.values()])
    tested = Run(
        Shape(order.collective, order.ranks, len(order.nodes)), [row.size for row in run.rows], order.iterations
    )
    keep = hosts.context.ledger.artifacts.put
    kept = {f"{order.collective}.txt": keep(output)} | {f"nccl.{name}.txt": keep(text) for name, text in logs.items()}
    counted = {"before": before, "after": {name: _json(text) for name, text in after.items()}}
    kept["counters.json"] = keep(json.dumps(counted, indent=1).encode())
    return Collected(
        order, run, prove(tested, fabric, transport, carried), str(end.get("how", ""))[:32], _number(end.get("status")),
        float(_number(end.get("seconds"))), output.decode("utf-8", "replace"), remains, problem, kept,
        tuple(carried), any(_RETRIES.search(text) for text in logs.values()), _unfit(hosts, end),
    )  # fmt: skip


def _unfit(hosts: _Hosts, end: Mapping[str, Any]) -> tuple[str, ...]:
    """What Slurm has against the nodes, where it is the launcher and did not come to a good end."""
    if hosts.slurm is None or (end.get("how") == "exited" and end.get("status") == 0):
        return ()
    return slurm.unfit(hosts.ask, hosts.order, hosts.slurm)


def _of(order: Order, carried: Carried) -> Carried:
    """Without the HCAs that NCCL may not use: where the order names whole names (`=mlx5_3`), those alone count."""
    wanted = order.environment.get("NCCL_IB_HCA", "")
    if not wanted.startswith("="):
        return carried
    names = {name.partition(":")[0] for name in wanted[1:].split(",")}
    return replace(carried, hcas={hca: count for hca, count in carried.hcas.items() if hca in names})


def _told(hosts: _Hosts, node: Unit, what: str) -> bytes:
    try:
        if what == "logs":
            return hosts.ours(node, "guest", "logs", hosts.folder)
        return hosts.counted(node)
    except UndecidedError:
        return b""


def _whole(hosts: _Hosts, path: str) -> bytes:
    data = b""
    try:
        while len(data) < MAX_OUTPUT_BYTES:
            more = hosts.context.hands.shell.read(hosts.first, path, len(data), MAX_OUTPUT_BYTES - len(data))
            if not more:
                break
            data += more
    except (FileNotFoundError, UnreachableError, UndecidedError):
        pass
    return data


def _json(text: bytes) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | float) and abs(value) < 1 << 31 else 0
