"""Over a real sshd: host keys are verified by whatever way a host is named, and nobody who is silent has failed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from rehearsal import in_process

from tests.infra.sessions import run
from tests.runners.conftest import sshd
from toolkit.errors import UnreachableError
from toolkit.infra.backends import run_bounded

__all__ = ["sshd"]  # a fixture of others

pytestmark = pytest.mark.root  # rackproof logs in as root, here on this machine
CLOCKS = ("toolkit.infra.test_clocks",)
RACK = """rack: bench
site: virtual
profile: dgx-h100
partial: true
units:
"""
NODE = """  - {{name: {name}, kind: node, slot: {slot}, serial: S{slot}, host: {{address: {address}, ssh_port: {port}}},
     hcas: [{hcas}]}}
"""
ADDRESSES = ("127.0.0.1", "127.0.0.3")  # at the second nobody listens


def rack_file(ports):
    """Two nodes as a rack file has them."""
    text = RACK
    for slot, (address, port) in enumerate(zip(ADDRESSES, ports, strict=True), start=1):
        hcas = ", ".join(f'{{name: mlx5_{n}, guid: "0x0200de000000{slot:02x}{n:02x}", rail: {n}}}' for n in range(8))
        text += NODE.format(name=f"node{slot}", slot=slot, address=address, port=port, hcas=hcas)
    return text


FAILED, USAGE = 1, 4


@pytest.fixture
def bench(tmp_path, sshd, monkeypatch):
    """An installation that pinned node1 and node2; node2 is dead. It is no virtual rack to these checks."""
    lab = in_process(tmp_path, "demo-small")
    settings = lab.settings
    inventory = tmp_path / "inventory"
    (inventory / "racks").mkdir(parents=True)
    for name in ("profiles", "group_vars", "skus.yml"):
        (inventory / name).symlink_to(settings.inventory / name)
    ports = (sshd.ports[0], sshd.dead_port)
    (inventory / "racks/bench.yml").write_text(rack_file(ports))
    for end in ("", ".pub"):
        shutil.copy(f"{sshd.login_key}{end}", settings.keys / f"login{end}")
    settings.known_hosts("bench").parent.mkdir(parents=True, exist_ok=True)
    pins = [f"[{a}]:{port} {sshd.host_keys[0]}\n" for a, port in zip(ADDRESSES, ports, strict=True)]
    settings.known_hosts("bench").write_text("".join(pins))
    monkeypatch.setenv("HOME", str(tmp_path))  # no known_hosts and no configuration of whoever runs this
    return Bench(settings, inventory)


class Bench:
    """Sessions over SSH."""

    def __init__(self, settings, inventory):
        self.home, self.inventory = settings.home, inventory
        self.pinned = settings.known_hosts("bench")

    def run(self, *arguments, rack="bench"):
        """One session of the check of clocks."""
        return run(None, *arguments, rack=rack, what=CLOCKS, home=self.home, inventory=self.inventory)

    def spoil(self, old, new):
        """Another key is pinned, or none."""
        self.pinned.write_text(self.pinned.read_text().replace(old, new))


def clocks(seen):
    """Letters by node."""
    return {name.partition("[")[2].rstrip("]"): letter for name, letter in seen.letters.items()}


def test_nodes_are_reached_with_pinned_keys_and_a_dead_one_is_an_error(bench):
    """node2 has not failed: nobody answered. Its words say what to do."""
    seen = bench.run()
    assert clocks(seen) == {"node1": ".", "node2": "E"}
    assert seen.status == FAILED
    words = seen.words["clocks::test_wall_clock[node2]"]
    assert words.startswith("UNREACHABLE: ")
    assert "next:   see whether node2 is up and its SSH server answers" in words


@pytest.mark.parametrize("named", [(), ("--hosts=ssh://root@127.0.0.1:{port}",), ("--hosts=root@127.0.0.1:{port}",)])
def test_a_key_that_is_not_the_pinned_one_is_an_error_however_the_host_is_named(bench, sshd, named):
    """By --rack, by ssh:// and by testinfra's default connection, which would only have warned."""
    told = [word.format(port=sshd.ports[0]) for word in named]
    assert clocks(bench.run(*told))["node1"] == "."
    bench.spoil(sshd.host_keys[0].split()[1], sshd.host_keys[1].split()[1])
    seen = bench.run(*told)
    assert clocks(seen)["node1"] == "E"
    assert "host key is not the" in seen.words["clocks::test_wall_clock[node1]"]


def test_a_host_that_nobody_pinned_is_not_trusted(bench, sshd):
    """Without --rack and without a known_hosts of the user's own there is nothing to verify it by."""
    seen = bench.run(f"--hosts=ssh://root@127.0.0.1:{sshd.ports[0]}", rack=None)
    assert clocks(seen) == {"127.0.0.1": "E"}
    assert "host key is not the pinned one, or none is pinned" in seen.words["clocks::test_wall_clock[127.0.0.1]"]


def test_hosts_of_an_ansible_inventory_are_matched_and_verified_whatever_it_says(bench, sshd, tmp_path, monkeypatch):
    """By address and port, not by the inventory's own name; an option of its own cannot switch verification off.

    A host that is not in the rack is verified by the user's known_hosts, and is asked what needs no plan.
    """
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # ansible-inventory
    hosts = tmp_path / "hosts.ini"
    off = "ansible_ssh_common_args='-o StrictHostKeyChecking=no'"
    hosts.write_text(
        "".join(
            f"{name} ansible_host=127.0.0.1 ansible_port={port} ansible_user=root {off}"
            f" ansible_ssh_private_key_file={sshd.login_key}\n"
            for name, port in zip(("web1", "web9"), sshd.ports, strict=True)
        )
    )
    named = f"--hosts=ansible://all?ansible_inventory={hosts}"
    seen = bench.run(named)
    assert clocks(seen) == {"node1": ".", "web9": "E"}, seen.output
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{sshd.ports[1]} {sshd.host_keys[1]}\n")
    again = tmp_path / "again.ini"  # testinfra reads an inventory once a process
    again.write_text(hosts.read_text().replace("=no'", f"=no -o UserKnownHostsFile={known}'"))
    bench.spoil(sshd.host_keys[0].split()[1], sshd.host_keys[1].split()[1])
    assert clocks(bench.run(f"--hosts=ansible://all?ansible_inventory={again}")) == {"node1": "E", "web9": "."}


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("--hosts=ssh://root:secret@127.0.0.1", "would stand on a command line"),
        ("--hosts=ansible://all?ansible_inventory=/nowhere", "--hosts: "),
        ("--hosts=docker://node1", "neither bounded nor verified"),
        ("--hosts=rackproof://node1,rackproof://node1?sudo=true", "are one host, node1"),
    ],
)
def test_what_cannot_be_verified_is_refused_before_anything_is_asked(bench, named, words):
    """A usage error of pytest's own, with what to do instead, and no secret in it."""
    seen = bench.run(named)
    assert seen.status == USAGE
    assert words in seen.output
    assert "secret" not in seen.output
    assert seen.letters == {}


def test_what_a_host_sends_is_bounded_in_bytes_and_in_time():
    """A program that never ends is ended; what it sent before is kept up to the bound."""
    ran = run_bounded(("cat", "/dev/zero"), 10, 1000, "node1")
    assert (len(ran.stdout), ran.truncated) == (1000, True)
    with pytest.raises(UnreachableError, match=r"node1: no end within 0\.2 s"):
        run_bounded(("sleep", "30"), 0.2, 1000, "node1")
    told = run_bounded(("sh", "-c", "echo out; echo err >&2; exit 3"), 10, 1000, "node1")
    assert (told.status, told.stdout, told.stderr, told.truncated) == (3, b"out\n", b"err\n", False)
