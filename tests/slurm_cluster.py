"""A real Slurm for tests: slurmctld and munged of its own, and a slurmd for each member, on ports that are free.

All slurmds may run on this machine (Debian builds Slurm --enable-multiple-slurmd), or each in a host of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "salloc", "sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol")
LOOPBACK = "127.0.0.1"
GPUS = 8
PARTITION = "burnin"
# 16 CPUs a node, for eight ranks; a node that is gone is DOWN after seconds, not after five minutes
_CONFIG = """ClusterName=rackproof
SlurmctldHost={machine}({controller})
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/%n
TmpFS={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmctldLogFile={folder}/slurmctld.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
GresTypes=gpu
MailProg=/bin/true
SlurmdTimeout={silent_s}
MessageTimeout={message_s}
KillWait=2
ReturnToService=1
SchedulerParameters=batch_sched_delay=0,sched_interval=2
{more}
{nodes}
PartitionName={partition} Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Member:
    """A node. `enter`: argv before slurmd's, into the host that it runs in; `port` 0: slurmd's own."""

    name: str
    address: str = LOOPBACK
    port: int = 0
    enter: tuple[str, ...] = ()


@dataclass
class Cluster:
    """A Slurm that runs. Daemons are known by their names: `munged`, `slurmctld`, and a slurmd by its node's."""

    folder: Path
    members: tuple[Member, ...]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config(self) -> str:
        """Path of slurm.conf."""
        return str(self.folder / "slurm.conf")

    def ask(self, *argv: str) -> str:
        """Output of one of Slurm's programs on this machine."""
        environment = {"SLURM_CONF": self.config, "PATH": os.environ["PATH"]}
        return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, timeout=30).stdout

    def begin(self, name: str, *argv: str) -> None:
        """A daemon that ends with the test."""
        environment = {"SLURM_CONF": self.config, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )

    def begin_slurmctld(self, *options: str) -> None:
        """The controller, anew or again; `-R` as it left off."""
        self.begin("slurmctld", "slurmctld", "-D", *options)

    def begin_slurmd(self, name: str) -> None:
        """A node's daemon."""
        (member,) = (m for m in self.members if m.name == name)
        self.begin(name, *member.enter, "slurmd", "-D", "-N", name)

    def kill(self, name: str) -> None:
        """A daemon dies, and what it was entered through."""
        daemon = self.daemons.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()

    def stop(self, name: str) -> None:
        """A daemon is asked to end, and does: slurmctld writes its state, which a killed one may have lost 5 s of."""
        self.daemons[name].terminate()
        self.daemons.pop(name).wait(30)

    def await_idle(self, count: int) -> None:
        """Until so many nodes would take a job."""

        def idle() -> bool:
            return len(self.ask("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split()) == count

        self.until(idle, f"{count} idle nodes")

    def until(self, true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Waits until something holds; RuntimeError, with the daemons' logs, where it does not come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(subprocess.CalledProcessError):  # slurmctld is not there at once
                if true():
                    return
            time.sleep(0.1)
        with suppress(subprocess.SubprocessError):
            what += "\n" + self.ask("sinfo", "--Node", "--noheader", "--Format=NodeList: ,StateComplete: ,Reason:")
        said = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-500:]}" for log in self.folder.glob("*.out"))
        raise RuntimeError(f"Slurm never came to {what}\n{said}")

    @property
    def queue(self) -> str:
        """Jobs and steps there are."""
        jobs = self.ask("squeue", "--noheader", "--format=%i %j %T")
        return jobs + self.ask("squeue", "--noheader", "--steps", "--format=%i %j")


def on_loopback(names: Sequence[str]) -> tuple[Member, ...]:
    """Members whose slurmds all run on this machine."""
    return tuple(Member(name, LOOPBACK, port) for name, port in zip(names, _free(LOOPBACK, len(names)), strict=True))


@contextmanager
def slurm(
    members: Sequence[Member],
    controller: str = LOOPBACK,
    more: str = "",
    silent_s: int = 10,
    message_s: int = 10,
    beside: Sequence[Path] = (),
) -> Iterator[Cluster]:
    """A Slurm whose nodes are all idle; it ends with the block, every process of it.

    more       lines of slurm.conf
    silent_s   after which a node that does not answer is DOWN (SlurmdTimeout)
    message_s  after which Slurm's programs give slurmctld up (MessageTimeout)
    beside     files that lie beside slurm.conf
    """
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"Slurm is not installed, {', '.join(missing)} (slurmctld, slurmd, slurm-client, munge)")
    folder = Path(tempfile.mkdtemp(prefix="rpslurm-"))  # a socket's path is 107 bytes at most: pytest's are longer
    made = Cluster(folder, tuple(members))
    try:
        _configure(made, controller, more=more, silent_s=silent_s, message_s=message_s)
        for file in beside:
            shutil.copy(file, folder)
        munge = folder / "munge"
        made.begin("munged", "munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={munge}/key",
                   f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", f"--log-file={munge}/log")  # fmt: skip
        made.until((munge / "socket").exists, "a munged", 20)
        made.begin_slurmctld()
        for member in members:
            made.begin_slurmd(member.name)
        made.await_idle(len(members))
        yield made
    finally:
        for name in reversed(tuple(made.daemons)):
            made.kill(name)
        _end_steps(made)
        shutil.rmtree(folder, ignore_errors=True)


def _end_steps(made: Cluster) -> None:
    """Jobs outlive their slurmd: each step has a process of its own, known by the configuration it was given."""
    mark = f"SLURM_CONF={made.config}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def _configure(made: Cluster, controller: str, **settings: object) -> None:
    folder = made.folder
    folder.chmod(0o755)
    for inner in ("state", "munge", *(member.name for member in made.members)):
        (folder / inner).mkdir()
    (folder / "munge").chmod(0o711)
    (folder / "munge/key").write_bytes(os.urandom(128))
    (folder / "munge/key").chmod(0o600)
    nodes = [
        f"NodeName={m.name} NodeAddr={m.address} CPUs=16 RealMemory=4096 Gres=gpu:{GPUS}"
        + (f" Port={m.port}" if m.port else "")
        for m in made.members
    ]
    (port,) = _free(controller, 1)
    (folder / "slurm.conf").write_text(
        _CONFIG.format(machine=os.uname().nodename, controller=controller, port=port, folder=folder,
                       nodes="\n".join(nodes), partition=PARTITION, **settings)
    )  # fmt: skip
    for number in range(GPUS):  # any character device will do: gres.conf(5) asks for no more
        os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    # nothing of it is used, and where it is not said slurmd looks for what a network namespace's /sys has not
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")


def _free(address: str, count: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((address, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
