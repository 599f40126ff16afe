"""Ranks of one run of the nccl-tests stand-in, started by mpirun or srun: how they find one another, what they tell.

The real ones meet through MPI. These meet at rank 0, which mpirun puts on the first host of the hostfile, the one it
runs on itself: Open MPI tells every rank that host's addresses (OMPI_MCA_orte_hnp_uri), and the port follows from the
job's number. Slurm tells every rank the address of the host that srun runs on. A rank that dies closes its connection;
rank 0 then tells all others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .state import State

_FIRST_PORT, _PORTS = 20_000, 12_000  # below the ephemeral ones
_RETRY_S = 0.05
_WORD_BYTES = 4  # of InfiniBand's data counters


class LostError(Exception):
    """Another rank is gone."""


@dataclass(frozen=True)
class Member:
    """One rank: where it runs, its GPU, the path inside its node (GB/s), and the rates of its node's HCAs in GB/s."""

    host: str
    pid: int
    device: int
    pci: str
    name: str
    serial: str
    path: str
    gb_per_s: float
    nics: tuple[float, ...]
    crowded: tuple[float, ...]  # the same, in a collective of more than two nodes
    hangs: bool
    absent: bool = False


class Ranks:
    """This process among the ranks."""

    def __init__(self, rank: int, count: int, local_rank: int, addresses: list[str], port: int, beside: int) -> None:
        """`beside`: ranks on this node, this one included."""
        self.rank = rank
        self.local_rank = local_rank
        self.beside = beside
        self._count = count
        self._addresses = addresses
        self._port = port
        self._links: list[socket.socket] = []

    def gather(self, mine: Member) -> tuple[Member, ...]:
        """All ranks in order; waits until the last of them is there, however long that takes."""
        if self.rank:
            self._links = [self._connect()]
            _send(self._links[0], {"rank": self.rank, "member": asdict(mine)})
            return tuple(_member(m) for m in _receive(self._links[0])["members"])
        members = {0: asdict(mine)}
        with socket.create_server(("", self._port), backlog=self._count) as server:
            while len(members) < self._count:
                link, _ = server.accept()
                told = _receive(link)
                members[int(told["rank"])] = told["member"]
                self._links.append(link)
        ordered = [members[rank] for rank in range(self._count)]
        for link in self._links:
            _send(link, {"members": ordered})
        return tuple(_member(m) for m in ordered)

    def any_lost(self, lost: bool) -> bool:
        """Whether any rank's GPU is lost: asked of all at every step, so that they go on together. LostError."""
        if self.rank:
            _send(self._links[0], {"lost": lost})
            return bool(_receive(self._links[0])["lost"])
        lost = any([bool(_receive(link)["lost"]) for link in self._links]) or lost
        for link in self._links:
            _send(link, {"lost": lost})
        return lost

    def _connect(self) -> socket.socket:
        while True:
            for address in self._addresses:
                with contextlib.suppress(OSError):
                    return socket.create_connection((address, self._port))
            time.sleep(_RETRY_S)


def joined(environment: Mapping[str, str]) -> Ranks | None:
    """The ranks mpirun or srun started us among; None where neither did, or started one alone."""
    return _by_mpirun(environment) or _by_slurm(environment)


def _by_slurm(environment: Mapping[str, str]) -> Ranks | None:
    """Through PMIx, as Open MPI: without it every process of a step is a communicator of its own."""
    count = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if count < 2 or "PMIX_RANK" not in environment:
        return None
    return Ranks(
        int(environment["PMIX_RANK"]),
        count,
        int(environment["SLURM_LOCALID"]),
        [environment["SLURM_LAUNCH_NODE_IPADDR"]],
        _FIRST_PORT + (int(environment["SLURM_JOB_ID"]) * 64 + int(environment["SLURM_STEP_ID"])) % _PORTS,
        count // int(environment["SLURM_STEP_NUM_NODES"]),
    )


def _by_mpirun(environment: Mapping[str, str]) -> Ranks | None:
    count = int(environment.get("OMPI_COMM_WORLD_SIZE", "1"))
    uri = re.match(r"(\d+)\.0;tcp://([^:;]+):", environment.get("OMPI_MCA_orte_hnp_uri", ""))
    if count < 2 or uri is None:
        return None
    job = int(environment.get("OMPI_MCA_ess_base_jobid", uri[1]))
    return Ranks(
        int(environment["OMPI_COMM_WORLD_RANK"]),
        count,
        int(environment["OMPI_COMM_WORLD_LOCAL_RANK"]),
        uri[2].split(","),
        _FIRST_PORT + (job >> 16) % _PORTS,
        int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")),
    )


def count_on_rails(state: State, hcas: Sequence[str], sent: int) -> None:
    """Adds bytes sent and received to the counters of these HCAs, in equal shares.

    They lie as in sysfs, under the hardware folder: infiniband/HCA/ports/1/counters/port_xmit_data.
    """
    for hca in hcas:
        folder = state.home / "infiniband" / hca / "ports/1/counters"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("port_xmit_data", "port_rcv_data"):
            with (folder / name).open("a+") as counter:
                fcntl.flock(counter, fcntl.LOCK_EX)
                counter.seek(0)
                before = int(counter.read() or 0)
                counter.truncate(0)
                counter.write(f"{before + sent // len(hcas) // _WORD_BYTES}\n")


def _member(told: Mapping[str, Any]) -> Member:
    return Member(**{**told, "nics": tuple(told["nics"]), "crowded": tuple(told["crowded"])})


def _send(link: socket.socket, what: Mapping[str, object]) -> None:
    try:
        link.sendall(json.dumps(what).encode() + b"\n")
    except OSError as error:
        raise LostError(os.strerror(error.errno or 0)) from error


def _receive(link: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        try:
            more = link.recv(65536)
        except OSError as error:
            raise LostError(os.strerror(error.errno or 0)) from error
        if not more:
            raise LostError("a connection was closed")
        data += more
    answer: dict[str, Any] = json.loads(data)
    return answer
