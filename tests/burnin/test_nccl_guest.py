"""What a run's key lets in on another node, over a real sshd, and that everything with the run's mark ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from burnin.nccl import guest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Node:
    """A node with an sshd of its own; `run` is the run's folder on it, `key` the key of the launching node."""

    home: Path
    run: Path
    key: Path
    port: int

    @property
    def authorized(self) -> str:
        """Its file of authorized keys."""
        return (self.home / ".ssh/authorized_keys").read_text()

    def guest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The node's side, as the controller calls it."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-S", "-m", "burnin.nccl.guest", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)

    def admit(self, address: str = "127.0.0.1", seconds: str = "600") -> subprocess.CompletedProcess[str]:
        """Lets the key in."""
        public = self.key.with_suffix(".pub").read_text()
        return self.guest("admit", str(self.run), address, seconds, str(self.home / "bin"), public)

    def ssh(self, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """ssh with the run's key."""
        given = ("-F", "none", "-i", str(self.key), "-p", str(self.port), "-oBatchMode=yes", "-oIdentitiesOnly=yes",
                 "-oIdentityAgent=none", "-oStrictHostKeyChecking=yes",
                 f"-oUserKnownHostsFile={self.home / 'known_hosts'}")  # fmt: skip
        argv = ["ssh", *given, *options, "127.0.0.1", *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)


def _keygen(file: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "x", "-f", file], check=True)
    return file.with_suffix(".pub").read_text().strip()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node whose MPI daemon prints what it was started with."""
    if not Path("/usr/sbin/sshd").exists() or shutil.which("ssh-keygen") is None:
        pytest.skip("openssh-server is not installed")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / ".ssh/authorized_keys").write_text("ssh-ed25519 AAAA somebody else\n")
    (tmp_path / "bin").mkdir()
    daemon = tmp_path / "bin/orted"
    daemon.write_text('#!/bin/sh\nprintf "%s|" "$RACKPROOF_COLLECTIVE" "$@"\n')
    daemon.chmod(0o755)
    host, _ = _keygen(tmp_path / "host"), _keygen(tmp_path / "key")
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {host}\n")
    (tmp_path / "sshd.conf").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/.ssh/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        f"SetEnv HOME={tmp_path}\n"
    )
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", tmp_path / "sshd.conf"], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield Node(tmp_path, tmp_path / "runs/c1", tmp_path / "key", port)
    server.terminate()
    server.wait()


def test_the_key_starts_the_daemon_with_its_arguments_and_the_mark(node: Node) -> None:
    """As mpirun asks for it; quotes are read as a shell would, but by no shell."""
    assert node.admit().returncode == 0
    answer = node.ssh('orted -mca ess "env" -x "a b" \'$(id)\'')
    assert (answer.returncode, answer.stdout) == (0, "c1|-mca|ess|env|-x|a b|$(id)|"), answer.stderr


@pytest.mark.parametrize("asked", ["id", "/bin/sh -c id", "orted; id", "env orted", "", "/usr/bin/orted", "'"])
def test_the_key_starts_nothing_else(node: Node, asked: str) -> None:
    """No shell, no other program, no other way to the same program."""
    node.admit()
    answer = node.ssh(asked) if asked else node.ssh()
    assert answer.returncode != 0 and answer.stdout == ""


def test_the_key_forwards_nothing(node: Node) -> None:
    """`restrict`: no tunnel into the node's networks, no agent."""
    node.admit()
    answer = node.ssh("orted", options=("-oExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"))
    assert answer.returncode != 0 and "forwarding" in answer.stderr
    assert 'restrict,from="127.0.0.1",expiry-time="' in node.authorized


@pytest.mark.parametrize(("address", "seconds"), [("192.0.2.7", "600"), ("127.0.0.1", "-7200")])
def test_another_address_and_a_late_hour_are_refused(node: Node, address: str, seconds: str) -> None:
    """The key is good from the launching node, for the time of the run."""
    assert node.admit(address, seconds).returncode == 0
    answer = node.ssh("orted")
    assert answer.returncode == 255 and "Permission denied" in answer.stderr


def test_a_key_that_is_dismissed_lets_nobody_in_and_others_keys_stay(node: Node) -> None:
    """Twice admitted is one line; what is not ours is not touched."""
    node.admit()
    node.admit()
    assert node.authorized.count("rackproof:c1") == 1
    assert node.guest("dismiss", str(node.run)).returncode == 0
    assert node.authorized == "ssh-ed25519 AAAA somebody else\n"
    assert "Permission denied" in node.ssh("orted").stderr
    assert (node.home / ".ssh/authorized_keys").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ('1.2.3.4",command="id', "ssh-ed25519 " + "A" * 68),
        ("1.2.3.4", "ssh-rsa AAAA"),
        ("1.2.3.4", "ssh-ed25519 " + "A" * 68 + "\nssh-ed25519 " + "B" * 68),
    ],
)
def test_what_is_no_address_and_no_key_is_not_written(node: Node, address: str, key: str) -> None:
    """A line of authorized_keys is a door."""
    answer = node.guest("admit", str(node.run), address, "60", "/usr/bin", key)
    assert answer.returncode == 2 and "expected" in answer.stderr
    assert node.authorized == "ssh-ed25519 AAAA somebody else\n"


def test_everything_with_the_mark_ends_whoever_its_parent_is(node: Node, tmp_path: Path) -> None:
    """A rank that left its session, one that ignores SIGTERM, and its child without an environment."""
    identity = f"c-{os.getpid()}"
    program = "trap '' TERM; env -i /bin/sleep 4711 & while :; do sleep 0.1; done"
    env = {"PATH": os.environ["PATH"], guest.MARK: identity}
    stubborn = subprocess.Popen(["setsid", "-w", "sh", "-c", program], env=env)
    plain = subprocess.Popen(["sleep", "4711"], env=env | {guest.MARK: "another"})
    until = time.monotonic() + 5
    while not guest.marked(identity) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    answer = json.loads(node.guest("stop", str(tmp_path / "runs" / identity)).stdout)
    assert answer["alive"] == [] and answer["found"] >= 1
    assert guest.marked(identity) == [] and stubborn.wait(5) != 0
    assert plain.poll() is None  # another run's
    plain.kill()
    plain.wait()


def test_a_run_that_left_nothing_is_stopped_at_once(node: Node) -> None:
    """Nothing found, nothing alive."""
    begun = time.monotonic()
    assert json.loads(node.guest("stop", str(node.run)).stdout) == {"found": 0, "alive": []}
    assert time.monotonic() - begun < 3
    assert node.guest("pilfer", "x").returncode == 2
