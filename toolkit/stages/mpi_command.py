"""How the ranks of a collective over many nodes are started: command lines and files, from an order. Pure.

Open MPI over SSH: mpirun on the first node starts a daemon on each other node and ranks on all. It is told which
configuration of ssh to use and which hosts: nothing of the operator's, no agent, no unknown host key. By Slurm:
srun_command. The environment is made here, name by name, and is on record with the command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from toolkit.errors import UsageError
from toolkit.rack.model import Unit

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv")
# INIT: channels and NVLS; GRAPH: rings and trees; NET: the HCAs; ENV: what NCCL took from its environment and files
DEBUG_SUBSYSTEMS = "INIT,GRAPH,NET,NVLS,ENV"
# What may be set for ranks. Everything else of an operator's environment could make another fabric be measured.
_ALLOWED = re.compile(
    r"NCCL_[A-Z0-9_]+|UCX_[A-Z0-9_]+|CUDA_(?:VISIBLE_DEVICES|DEVICE_ORDER|MODULE_LOADING)|LD_LIBRARY_PATH"
)
_OURS = ("NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_VALUE = re.compile(r"[^\x00-\x1f\x7f]{0,4096}")
MARK = "RACKPROOF_COLLECTIVE"  # burnin/nccl/guest.py finds a run's processes by it
_VERSION = re.compile(rb"\(Open MPI\) (\d{1,3})\.|PRRTE\) (\d{1,3})\.")


@dataclass(frozen=True, slots=True)
class Order:
    """A collective over all GPUs of some nodes.

    identity     the run's name on the nodes; never used twice
    nodes        in rank order; the first one launches
    deadline_s   from the start of the launcher to the end of the last rank
    environment  beside what is always set; only names that are allowed
    programs     folder of the nccl-tests built with MPI, the same on all nodes; `suffix` of their names
    mpi          folder of mpirun and its daemon, the same on all nodes
    network      the network of the nodes' addresses, as 10.0.0.0/16: MPI then speaks over no other; empty: as it finds
    beside       what the names of runs begin with that may be on the nodes at the same time, on GPUs and HCAs of their
                 own; empty: none may
    """

    identity: str
    collective: str
    nodes: tuple[Unit, ...]
    gpus_per_node: int
    deadline_s: float
    smallest: int = 128 << 10
    largest: int = 8 << 30
    iterations: int = 20
    environment: Mapping[str, str] = field(default_factory=dict)
    programs: str = "/usr/bin"
    suffix: str = ""
    mpi: str = "/usr/bin"
    network: str = ""
    beside: str = ""

    @property
    def ranks(self) -> int:
        """Ranks of the one communicator."""
        return len(self.nodes) * self.gpus_per_node

    @property
    def test(self) -> tuple[str, ...]:
        """argv of a rank: one GPU a rank."""
        program = f"{self.programs}/{self.collective}_perf{self.suffix}"
        sizes = ("-b", str(self.smallest), "-e", str(self.largest), "-f", "2")
        return (program, *sizes, "-g", "1", "-n", str(self.iterations), "-c", "1")


def checked(order: Order) -> Order:
    """The order, if it can be carried out. UsageError says why not."""
    if not _ID.fullmatch(order.identity):
        raise UsageError(f"collective {order.identity!r}: not a name", "letters, digits, '.', '_' and '-'")
    if order.collective not in COLLECTIVES:
        raise UsageError(f"collective {order.collective}: not one that is known", f"one of {', '.join(COLLECTIVES)}")
    if len(order.nodes) < 2 or order.gpus_per_node < 1:
        raise UsageError(f"collective {order.identity} is over {len(order.nodes)} nodes", "it takes two or more")
    homeless = [node.name for node in order.nodes if node.host is None]
    if homeless:
        raise UsageError(f"collective over {', '.join(homeless)}: no host", "give them a `host` in the rack file")
    return order


def environment(order: Order, folder: str) -> dict[str, str]:
    """The whole environment of the launcher and of every rank. UsageError for a name that may not be set."""
    for name, value in order.environment.items():
        if not _ALLOWED.fullmatch(name) or name in _OURS:
            raise UsageError(
                f"environment of collective {order.identity}: {name} may not be set",
                "NCCL_*, UCX_*, CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER and LD_LIBRARY_PATH may, NCCL_DEBUG* are ours",
            )
        if not _VALUE.fullmatch(value):
            raise UsageError(f"environment of collective {order.identity}: {name} has a control character", "")
    return {
        "PATH": f"{order.mpi}:/usr/bin:/bin",
        "HOME": "/root",
        **order.environment,
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": DEBUG_SUBSYSTEMS,
        "NCCL_DEBUG_FILE": f"{folder}/nccl.%h.%p",
        MARK: order.identity,
    }


def command(order: Order, folder: str, generation: int) -> tuple[str, ...]:
    """argv of mpirun; `generation` is Open MPI's major version.

    Flat: the first node alone has the key, so no daemon may start another (no_tree_spawn). What the daemon says is
    kept by staying attached to it. Called by its name: by its path it would ask for a shell on the other nodes, to set
    PATH in, and the key opens none.
    """
    agent = f"ssh -F {folder}/ssh_config"
    flat = ["--mca", "plm_rsh_agent", agent, "--mca", "plm_rsh_no_tree_spawn", "1"]
    flat += ["--mca", "orte_leave_session_attached", "1"]
    if generation >= 5:  # PRRTE starts the daemons
        flat = ["--prtemca", "plm_ssh_agent", agent, "--prtemca", "plm_ssh_no_tree_spawn", "1"]
        flat += ["--leave-session-attached"]
    # MPI carries NCCL's unique id and barriers: over TCP, so that the HCAs' counters are NCCL's alone
    speaks = ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self"]
    if order.network:
        daemons = "--prtemca" if generation >= 5 else "--mca"
        speaks += [daemons, "oob_tcp_if_include", order.network, "--mca", "btl_tcp_if_include", order.network]
    exported = tuple(word for name in sorted(environment(order, folder)) if name != "HOME" for word in ("-x", name))
    return (
        "mpirun", "--allow-run-as-root", "--hostfile", f"{folder}/hostfile", "-np", str(order.ranks),
        "--map-by", f"ppr:{order.gpus_per_node}:node", "--bind-to", "none", *flat, *speaks, *exported,
        *order.test,
    )  # fmt: skip


def generation(said: bytes) -> int | None:
    """Major version in what `mpirun --version` prints; None for a launcher that is not Open MPI."""
    found = _VERSION.search(said)
    return int(found[1] or found[2]) if found else None


def hostfile(order: Order) -> str:
    """By address: a name would be looked up by whatever resolves names on the first node."""
    return "".join(f"{_host(node)[0]} slots={order.gpus_per_node}\n" for node in order.nodes)


def ssh_config(order: Order, folder: str, user: str = "root") -> str:
    """For ssh as mpirun calls it: this run's key, pinned host keys, nothing forwarded, no waiting for ever."""
    common = (
        f"User {user}", f"IdentityFile {folder}/key", "IdentitiesOnly yes", "IdentityAgent none",
        "PreferredAuthentications publickey", "BatchMode yes", "ForwardAgent no", "ForwardX11 no",
        "StrictHostKeyChecking yes", f"UserKnownHostsFile {folder}/known_hosts", "GlobalKnownHostsFile /dev/null",
        "UpdateHostKeys no", "ConnectTimeout 10", "ServerAliveInterval 10", "ServerAliveCountMax 3", "LogLevel ERROR",
    )  # fmt: skip
    ports = [f"Host {address}\n  Port {port}\n" for address, port in map(_host, order.nodes) if port != 22]
    return "".join(ports) + "Host *\n" + "".join(f"  {line}\n" for line in common)


class UnpinnedError(UsageError):
    """Nodes whose host keys nobody pinned: ranks cannot be started there. Imaging pins a key; of a rented node, whose
    disk is not ours to write, its operator does.
    """

    def __init__(self, identity: str, nodes: tuple[str, ...]) -> None:
        names = ", ".join(nodes)
        hint = "image them; of a rented node, put the host key its owner tells into known_hosts/RACK of RACKPROOF_HOME"
        super().__init__(f"collective {identity}: no host key is pinned for {names}", hint)
        self.nodes = nodes


def known_hosts(order: Order, pinned: str) -> str:
    """The lines of the rack's pinned keys that are of these nodes. UnpinnedError where one has none."""
    names = {_pinned_name(node): node.name for node in order.nodes}
    lines = [line for line in pinned.splitlines() if line.split(" ", 1)[0] in names]
    unknown = sorted(set(names) - {line.split(" ", 1)[0] for line in lines})
    if unknown:
        raise UnpinnedError(order.identity, tuple(names[name] for name in unknown))
    return "".join(f"{line}\n" for line in lines)


def _host(node: Unit) -> tuple[str, int]:
    if node.host is None:
        raise UsageError(f"{node.name} has no host", "give it a `host` in the rack file")
    return node.host.address, node.host.ssh_port


def _pinned_name(node: Unit) -> str:
    address, port = _host(node)
    return address if port == 22 else f"[{address}]:{port}"
