"""Command lines and files of a launch: whole, flat, with no environment but the one on record."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from toolkit.errors import UsageError
from toolkit.rack.model import Disk, Host, Unit, UnitKind
from toolkit.stages import mpi_command
from toolkit.stages.mpi_command import Order

FOLDER = "/var/lib/rackproof/collectives/c1"
DISK = Disk("/dev/nvme0n1", "D")


def node(number: int, port: int = 22) -> Unit:
    """A node with a host."""
    return Unit(f"node{number}", UnitKind.NODE, f"S{number}", number, host=Host(f"10.0.0.{number}", "", DISK, port))


ORDER = Order("c1", "alltoall", (node(1), node(2), node(3, 2222)), 8, 600.0)


def test_mpirun_starts_every_rank_flat_with_its_own_ssh() -> None:
    """Open MPI 4: all daemons from the first node, every variable by name, no operator's ssh."""
    command = mpi_command.command(ORDER, FOLDER, 4)
    assert command[0] == "mpirun" and command[-13:] == (
        "/usr/bin/alltoall_perf", "-b", "131072", "-e", "8589934592", "-f", "2", "-g", "1", "-n", "20", "-c", "1",
    )  # fmt: skip
    text = shlex.join(command)
    assert "-np 24 --map-by ppr:8:node" in text and f"--hostfile {FOLDER}/hostfile" in text
    assert f"--mca plm_rsh_agent 'ssh -F {FOLDER}/ssh_config' --mca plm_rsh_no_tree_spawn 1" in text
    names = {command[i + 1] for i, word in enumerate(command) if word == "-x"}
    assert names == set(mpi_command.environment(ORDER, FOLDER)) - {"HOME"}


def test_open_mpi_5_is_told_the_same_in_its_own_words() -> None:
    """PRRTE starts its daemons."""
    text = shlex.join(mpi_command.command(replace(ORDER, network="10.0.0.0/24"), FOLDER, 5))
    assert f"--prtemca plm_ssh_agent 'ssh -F {FOLDER}/ssh_config' --prtemca plm_ssh_no_tree_spawn 1" in text
    assert "--prtemca oob_tcp_if_include 10.0.0.0/24" in text and "plm_rsh" not in text


@pytest.mark.parametrize(
    ("said", "version"),
    [(b"mpirun (Open MPI) 4.1.4\n", 4), (b"mpirun (Open MPI) 5.0.11\n", 5), (b"HYDRA build details:\n", None)],
)
def test_the_launchers_generation_is_read(said: bytes, version: int | None) -> None:
    """Another MPI is not driven by guesses."""
    assert mpi_command.generation(said) == version


def test_the_environment_is_what_was_allowed_and_nothing_of_ours() -> None:
    """What is not named is not there; NCCL's log goes to a file of its own, for in the table it tears rows."""
    found = mpi_command.environment(replace(ORDER, environment={"NCCL_IB_HCA": "mlx5_0"}), FOLDER)
    assert set(found) == {"PATH", "HOME", "NCCL_IB_HCA", "NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE",
                          "RACKPROOF_COLLECTIVE"}  # fmt: skip
    assert found["NCCL_DEBUG_FILE"] == f"{FOLDER}/nccl.%h.%p"


@pytest.mark.parametrize(
    "given",
    [{"LD_PRELOAD": "x"}, {"NCCL_DEBUG": "WARN"}, {"PATH": "/tmp"}, {"NCCL_X": "a\nb"}, {"nccl_x": "1"}],
)
def test_an_environment_that_could_belie_the_measurement_is_refused(given: dict[str, str]) -> None:
    """By name, before anything is started."""
    with pytest.raises(UsageError, match=next(iter(given))):
        mpi_command.environment(replace(ORDER, environment=given), FOLDER)


def test_ssh_learns_no_host_key_and_forwards_nothing() -> None:
    """The run's key, the pinned keys, and a node's own port."""
    text = mpi_command.ssh_config(ORDER, FOLDER)
    assert text.startswith("Host 10.0.0.3\n  Port 2222\nHost *\n")
    for line in ("StrictHostKeyChecking yes", "ForwardAgent no", "IdentityAgent none", "IdentitiesOnly yes",
                 f"UserKnownHostsFile {FOLDER}/known_hosts", f"IdentityFile {FOLDER}/key"):  # fmt: skip
        assert f"  {line}\n" in text
    assert "StrictHostKeyChecking no" not in text


def test_only_the_nodes_own_pinned_keys_go_along() -> None:
    """The keys of the rest of the rack are nobody's business; a node without one is named."""
    pinned = "10.0.0.1 ssh-ed25519 A\n10.0.0.2 ssh-ed25519 B\n[10.0.0.3]:2222 ssh-ed25519 C\n10.0.0.9 ssh-ed25519 D\n"
    assert mpi_command.known_hosts(ORDER, pinned).splitlines() == pinned.splitlines()[:3]
    with pytest.raises(UsageError, match="no host key is pinned for node3"):
        mpi_command.known_hosts(ORDER, pinned.replace("[10.0.0.3]:2222", "10.0.0.3"))


def test_the_hostfile_is_by_address_with_a_slot_for_each_gpu() -> None:
    """In rank order."""
    assert mpi_command.hostfile(ORDER) == "10.0.0.1 slots=8\n10.0.0.2 slots=8\n10.0.0.3 slots=8\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"collective": "broadcast"}, "not one that is known"),
        ({"nodes": (node(1),)}, "over 1 nodes"),
        ({"nodes": (node(1), replace(node(2), host=None))}, "over node2: no host"),
        ({"identity": "../c1"}, "not a name"),
        ({"identity": "c1; id"}, "not a name"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused(change: dict[str, object], words: str) -> None:
    """Before anything is started."""
    with pytest.raises(UsageError, match=words):
        mpi_command.checked(replace(ORDER, **change))  # type: ignore[arg-type]
