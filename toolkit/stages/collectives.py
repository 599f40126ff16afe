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
from toolkit.rack.model import Unit
from toolkit.stages import mpi_command
from toolkit.stages.collective_result import Collected, Remains
from toolkit.stages.context import Context
from toolkit.stages.mpi_command import Launcher, Order

COMMAND_SECONDS = 60.0
POLL_SECONDS = 1.0
MARGIN_SECONDS = 30.0  # the node's own deadline comes first
SIDE_BY_SIDE = 32
SILENT_POLLS = 5
MAX_OUTPUT_BYTES = 4 * 1024 * 1024
MAX_LOG_BYTES = 16 * 1024 * 1024


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
    hosts = _Hosts(context, mpi_command.checked(order), site or Site())
    pinned = mpi_command.known_hosts(order, _pinned(context))
    command = mpi_command.command(order, hosts.folder, _generation(hosts))
    environment = mpi_command.environment(order, hosts.folder)
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

    def __init__(self, context: Context, order: Order, site: Site) -> None:
        self.context = context
        self.order = order
        self.site = site
        self.first = order.nodes[0]
        self.folder = f"{site.folder}/{order.identity}"
        self.unit = f"rackproof-collective-{order.identity}"

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
        """Byte counters by node."""
        texts = self.each(lambda node: self.ours(node, "counters", self.site.infiniband))
        return {node.name: _json(text) for node, text in zip(self.order.nodes, texts, strict=True)}


def _filed(order: Order) -> str:
    return f"collective {order.identity}"


def _pinned(context: Context) -> str:
    file = context.settings.known_hosts(context.rack.name)
    return file.read_text() if file.is_file() else ""


def _generation(hosts: _Hosts) -> int:
    """Open MPI's major version on the first node."""
    if hosts.order.launcher is Launcher.SRUN:
        return 0
    said = hosts.run(hosts.first, f"{hosts.order.mpi}/mpirun", "--version")
    found = mpi_command.generation(said)
    if found is None:
        words = said[:100].decode("utf-8", "replace").strip()
        raise UndecidedError(f"mpirun of {hosts.first.name} is not Open MPI: {words}", "give the folder of Open MPI")
    return found


def _require_idle(hosts: _Hosts, node: Unit) -> None:
    """Two tests on one node would measure each other."""
    units = ["rackproof-burnin-*.service", "rackproof-collective-*.service"]
    argv = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", *units]
    said = hosts.context.hands.shell.run(node, argv, COMMAND_SECONDS).stdout.decode("utf-8", "replace")
    busy = [line.split()[0] for line in said.splitlines() if line.startswith("rackproof-")]
    if busy:
        words = f"{node.name} is busy with {busy[0][:100]}: {hosts.order.identity} was not started"
        raise UndecidedError(words, "the same command again, when it has ended")


def _prepare(hosts: _Hosts, job: Mapping[str, object], pinned: str) -> None:
    """Folders on all nodes; key, hosts and job on the first; the key let in on the others."""
    hosts.each(lambda node: hosts.run(node, "mkdir", "-p", hosts.site.folder))
    hosts.each(lambda node: hosts.run(node, "mkdir", "-m", "0700", hosts.folder))  # fails for a name used before
    files = {"job.json": json.dumps(job, indent=1)}
    if hosts.order.launcher is Launcher.MPIRUN:
        files["hostfile"] = mpi_command.hostfile(hosts.order)
        files["known_hosts"] = pinned
        files["ssh_config"] = mpi_command.ssh_config(hosts.order, hosts.folder, hosts.site.user)
    with tempfile.TemporaryDirectory(prefix="rackproof-") as aside:
        for name, text in files.items():
            (Path(aside) / name).write_text(text)
            hosts.context.hands.shell.put(hosts.first, Path(aside) / name, f"{hosts.folder}/{name}", 0o600)
    if hosts.order.launcher is Launcher.SRUN:
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
    until, silent = clock().timestamp() + _longest(hosts), 0
    while clock().timestamp() < until and silent < SILENT_POLLS:
        try:
            text = shell.read(hosts.first, f"{hosts.folder}/end.json", 0, 4096)
        except FileNotFoundError:
            text = b""
        if text:
            return _json(text)
        active = ["systemctl", "is-active", "--quiet", f"{hosts.unit}.service"]
        silent = 0 if shell.run(hosts.first, active, COMMAND_SECONDS).status == 0 else silent + 1
        hosts.context.sleep(POLL_SECONDS)
    return {}


def _stop(hosts: _Hosts) -> tuple[Remains, ...]:
    """The unit is stopped, the key forgotten, every node asked for what is left. Raises nothing: each node answers."""

    def one(node: Unit) -> Remains:
        try:
            if node is hosts.first:
                hosts.context.hands.shell.run(node, ["systemctl", "stop", f"{hosts.unit}.service"], COMMAND_SECONDS)
                hosts.run(node, "rm", "-f", f"{hosts.folder}/key", f"{hosts.folder}/key.pub")
            else:
                hosts.ours(node, "guest", "dismiss", hosts.folder)
            told = _json(hosts.ours(node, "guest", "stop", hosts.folder))
        except UndecidedError as problem:
            return Remains(node.name, problem=problem.message)
        alive, found = told.get("alive"), told.get("found")
        if not isinstance(alive, list) or not isinstance(found, int):
            return Remains(node.name, problem="its answer cannot be read")
        return Remains(node.name, found, tuple(str(words)[:200] for words in alive[:64]))

    return tuple(hosts.each(one))


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
    after = {n.name: _told(hosts, n, "counters") for n in there}
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
    )  # fmt: skip


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
        return hosts.ours(node, "counters", hosts.site.infiniband)
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
