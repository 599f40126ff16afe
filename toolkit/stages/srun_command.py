"""A collective over many nodes by Slurm: command lines, files, and what Slurm's programs print, read. Pure.

salloc takes the nodes, alone, and srun starts the ranks in that allocation; where a running job already holds the
nodes, srun starts them as a step of it, beside other steps. The ranks find one another by PMIx: without it they end in
MPI_Init, or each is a communicator of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from toolkit.errors import UndecidedError, UsageError
from toolkit.rack.model import Slurm
from toolkit.stages import mpi_command
from toolkit.stages.mpi_command import Order

# Slurm's own end comes after ours: it is for the case that neither we nor the node are there to end it.
_SPARE_SECONDS = 60
# A node that is free is granted in a second or two; slurmctld may be at a scheduling round of its own meanwhile.
GRANT_SECONDS = 30
# sinfo(1), NODE STATE CODES: those in which a node takes a job at once; `*`, `~`, `$` and so on after them are flags
_FIT = frozenset({"idle", "mixed", "allocated"})
_FLAGS = "*~#!%$@^-+"
_PLUGIN = re.compile(r"pmix(?:_v(\d{1,3}))?")
_CONFIG = "SLURM_CONF"
_MOST_TEXT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Seat:
    """Where the ranks are started. `plugin`: of MPI, as srun names it; `job`: that holds the nodes; None: take them."""

    plugin: str
    job: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A job or a step (`12.0`) of Slurm's queue."""

    identity: str
    name: str
    state: str
    nodes: str


def plugin(said: bytes, node: str) -> str:
    """The PMIx plugin in what `srun --mpi=list` prints (22.05: a type a line; before: `srun: pmix_v4`).

    `pmix` is the newest one that was built; where only versions are offered, the highest. UndecidedError where there is
    none: pmi2 is no substitute, for Open MPI has spoken PMIx alone since version 5, and version 4 speaks pmi2 only
    where it was built --with-pmi (Debian's was not).
    """
    text = said[:_MOST_TEXT].decode("utf-8", "replace")
    words = [line.removeprefix("srun: ").strip() for line in text.splitlines()]
    offered = [word for word in words if re.fullmatch(r"[a-z0-9_]{1,32}", word)]
    found = sorted((int(m[1] or 1 << 10), m[0]) for word in offered if (m := _PLUGIN.fullmatch(word)))
    if found:
        return found[-1][1]
    says = f"offers {', '.join(offered[:16])}" if offered else f"says {' '.join(text.split())[:200] or 'nothing'}"
    raise UndecidedError(
        f"srun of {node} has no PMIx: it {says}. Ranks of nccl-tests built with Open MPI would not meet",
        "install Slurm's PMIx plugin on all nodes (`srun --mpi=list` shows it), or take `slurm` from the rack file",
    )


def checked(order: Order, slurm: Slurm) -> None:
    """UsageError for an order that Slurm could not carry out as it is meant."""
    if order.beside and not slurm.allocation:
        first = hold(order, replace(slurm, allocation="NAME"))
        raise UsageError(
            f"collective {order.identity} is to run beside others on its nodes, and Slurm gives a node to one job",
            f"write `allocation: NAME` under `slurm` in the rack file, then {first}",
        )


def hold(order: Order, slurm: Slurm) -> str:
    """The command by which an operator has a job hold the order's nodes."""
    given = (f"--job-name={slurm.allocation}", *_gres(order, slurm), *_site(slurm))
    return f"salloc --no-shell --exclusive --mem=0 {' '.join(given)} --nodelist=, with the rack's nodes"


def environment(order: Order, slurm: Slurm, folder: str) -> dict[str, str]:
    """The launcher's; of every rank too, but for what tells Slurm's programs where their configuration is.

    MPI carries NCCL's unique id and barriers: over TCP, so that the HCAs' counters are NCCL's alone. mpirun is told so
    by options, and Open MPI under Slurm by its variables.
    """
    found = mpi_command.environment(order, folder) | {"PATH": f"{slurm.programs}:/usr/bin:/bin"}
    found |= {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "tcp,self"}
    found |= {"OMPI_MCA_btl_tcp_if_include": order.network} if order.network else {}
    return found | ({_CONFIG: slurm.config} if slurm.config else {})


def ask(slurm: Slurm, program: str, *arguments: str) -> tuple[str, ...]:
    """argv of one of Slurm's programs, all it says in one stream."""
    where = ("/usr/bin/env", f"SLURM_CONF={slurm.config}") if slurm.config else ()
    return ("/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *where, f"{slurm.programs}/{program}", *arguments)


def command(order: Order, slurm: Slurm, folder: str, seat: Seat) -> tuple[str, ...]:
    """argv of the launcher.

    Ranks are placed by the list in `folder`, for Slurm sorts the names it is given. A rank that fails takes the others
    with it. What the order sets is set once more for the program itself: a site's task prolog or the GPUs' plugin
    (CUDA_VISIBLE_DEVICES) would otherwise have the last word. Not --unbuffered: srun then passes on what comes as it
    comes, and the ranks' lines tear one another.
    """
    exported = sorted(set(environment(order, slurm, folder)) - {_CONFIG})
    own = tuple(f"{name}={value}" for name, value in sorted(order.environment.items()))
    held = (f"--jobid={seat.job}",) if seat.job is not None else ()
    step = (
        f"{slurm.programs}/srun", *held, f"--mpi={seat.plugin}", f"--job-name={order.identity}", "--overlap",
        f"--nodes={len(order.nodes)}", f"--ntasks={order.ranks}", "--distribution=arbitrary",
        f"--nodelist={folder}/ranks", *_gres(order, slurm), "--cpu-bind=none", "--chdir=/",
        "--kill-on-bad-exit=1", f"--export={','.join(exported)}", *(("/usr/bin/env", *own) if own else ()), *order.test,
    )  # fmt: skip
    return step if held else (*_allocate(order, slurm), *step)


def ranks(order: Order) -> str:
    """A node's name for each rank, in order (srun(1), --distribution=arbitrary)."""
    return "".join(f"{node.name}\n" * order.gpus_per_node for node in order.nodes)


def unfit(said: bytes) -> tuple[str, ...]:
    """Of what `sinfo --Node --noheader --format=%N|%T|%E` prints: the nodes that take no job, and why."""
    found = {}
    for line in said[:_MOST_TEXT].decode("utf-8", "replace").splitlines():
        name, _, rest = line.partition("|")
        state, _, reason = rest.partition("|")
        if rest and (state.rstrip(_FLAGS) not in _FIT or "*" in state):
            because = f": {reason.strip()[:200]}" if reason.strip().lower() not in ("", "none") else ""
            found[name] = f"Slurm has {name} as {state}{because}"
    return tuple(found.values())


def queue(said: bytes) -> tuple[Held, ...]:
    """Of what `squeue --noheader --format=%i|%j|%T|%N` prints, or with --steps `%i|%j|STEP|%N`."""
    lines = said[:_MOST_TEXT].decode("utf-8", "replace").splitlines()
    parts = [line.split("|", 3) for line in lines]
    return tuple(Held(*p) for p in parts if len(p) == 4 and re.fullmatch(r"\d{1,10}(\.[\w+]{1,20})?", p[0]))


def _allocate(order: Order, slurm: Slurm) -> tuple[str, ...]:
    """salloc: whole nodes with all their memory, at once or not at all, and given back when srun ends."""
    minutes = -(-int(order.deadline_s + _SPARE_SECONDS) // 60)
    wait = max(1, min(GRANT_SECONDS, int(order.deadline_s / 2)))
    return (
        f"{slurm.programs}/salloc", f"--job-name={order.identity}", f"--nodes={len(order.nodes)}",
        f"--nodelist={','.join(node.name for node in order.nodes)}", "--exclusive", "--mem=0", *_gres(order, slurm),
        f"--immediate={wait}", f"--time={minutes}", *_site(slurm),
    )  # fmt: skip


def _site(slurm: Slurm) -> tuple[str, ...]:
    given = {"partition": slurm.partition, "account": slurm.account, "reservation": slurm.reservation}
    return tuple(f"--{name}={value}" for name, value in given.items() if value)


def _gres(order: Order, slurm: Slurm) -> tuple[str, ...]:
    """All GPUs of a node, however few ranks there are: which of them a rank takes is the order's matter."""
    count = len(order.nodes[0].gpus) or order.gpus_per_node
    return (f"--gres={slurm.gres}:{count}",) if slurm.gres else ()
