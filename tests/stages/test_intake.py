"""Rented nodes are taken in from an Ansible inventory: real Ansible and ssh-keygen, nodes in process."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rehearsal import in_process

from toolkit.errors import UndecidedError, UsageError
from toolkit.rack.intake import rack_file
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Unit
from toolkit.runners.shell import MAX_OUTPUT_BYTES, CommandResult
from toolkit.stages.intake import Listed, from_ansible, pin_known, survey
from toolkit.virtual.in_process import InProcessRack

NOW = datetime(2026, 11, 23, tzinfo=UTC)
INVENTORY = """
[gpu]
node1 ansible_host=10.66.0.11
node2 ansible_host=10.66.0.12 ansible_port=2222

[other]
login1

[all_gpu:children]
gpu
"""


@dataclass(frozen=True)
class ByName:
    """A shell to machines that are known by name alone, as a stranger is met."""

    lab: InProcessRack

    def run(
        self, node: Unit, argv: Sequence[str], timeout_s: float, max_bytes: int = MAX_OUTPUT_BYTES
    ) -> CommandResult:
        """On the machine of that name."""
        return self.lab.shell.run(self.lab.rack.unit(node.name), argv, timeout_s, max_bytes)

    def put(self, node: Unit, local: Path, remote: str, mode: int = 0o644) -> None:
        raise NotImplementedError

    def read(self, node: Unit, remote: str, offset: int, max_bytes: int) -> bytes:
        raise NotImplementedError


@pytest.fixture
def lab(tmp_path: Path) -> InProcessRack:
    """Two machines that somebody else has imaged."""
    lab = in_process(tmp_path, "demo-small")
    for node in lab.rack.nodes:
        with lab.changing(node.name) as machine:
            machine.power, machine.image = "On", "its owner's"
    return lab


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A file as a neocloud hands it over."""
    file = tmp_path / "hosts.ini"
    file.write_text(INVENTORY)
    return file


def keys(folder: Path, *names: str) -> Path:
    """A known_hosts with a real key for each name, hashed."""
    known = folder / "known_hosts"
    for number, name in enumerate(names):
        key = folder / f"host{number}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
        with known.open("a") as file:
            file.write(f"{name} {Path(f'{key}.pub').read_text()}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    return known


def test_the_hosts_of_a_group_and_of_its_children_are_listed(inventory: Path) -> None:
    """With the addresses and ports that Ansible itself would use."""
    assert from_ansible(inventory, "all_gpu") == (Listed("node1", "10.66.0.11"), Listed("node2", "10.66.0.12", 2222))
    assert [n.name for n in from_ansible(inventory, "all")] == ["login1", "node1", "node2"]


def test_a_group_that_is_not_there_is_refused_with_those_that_are(inventory: Path) -> None:
    """Nobody is taken for everybody."""
    with pytest.raises(UsageError) as refused:
        from_ansible(inventory, "gpus")
    assert "gpus" in refused.value.message and "gpu, other" in refused.value.hint


def test_an_inventory_that_ansible_cannot_read_is_told_in_its_words(tmp_path: Path) -> None:
    """Its own complaint, not a traceback of ours."""
    broken = tmp_path / "hosts.yml"
    broken.write_text("all: {hosts: [")
    with pytest.raises(UsageError, match="ansible-inventory could not read"):
        from_ansible(broken, "all")


def test_host_keys_are_the_operators_own_and_one_that_is_missing_stops_the_intake(tmp_path: Path) -> None:
    """Hashed names and other ports are found; a stranger is named and nothing is believed of it."""
    listed = (Listed("node1", "10.66.0.11"), Listed("node2", "10.66.0.12", 2222), Listed("node3", "10.66.0.13"))
    pins = tmp_path / "pins/demo"
    pins.parent.mkdir()
    with pytest.raises(UsageError, match="no host key of node3"):
        pin_known(listed, keys(tmp_path, "10.66.0.11", "[10.66.0.12]:2222"), pins)
    pinned = {line.split()[0] for line in pins.read_text().splitlines()}
    assert pinned == {"10.66.0.11", "[10.66.0.12]:2222"}


def test_what_the_nodes_tell_becomes_a_rack_file_that_loads(
    lab: InProcessRack, inventory: Path, tmp_path: Path
) -> None:
    """Serials and GUIDs as read, no BMC, no cable; the same rack again from the file."""
    nodes = survey(ByName(lab), from_ansible(inventory, "gpu"), lab.rack.profile, NOW)
    file = tmp_path / "rented.yml"
    file.write_text(rack_file("rented", "neocloud", lab.rack.profile, nodes, "a test"))
    rack = load_rack(str(file), lab.settings.inventory)
    assert [(n.name, n.serial, n.bmc, n.slot) for n in rack.nodes] == [
        ("node1", "VR00000001", None, 1),
        ("node2", "VR00000002", None, 2),
    ]
    assert [n.hcas for n in rack.nodes] == [n.hcas for n in lab.rack.nodes]
    assert (rack.partial, rack.links, rack.site) == (True, (), "neocloud")
    host = rack.unit("node2").host
    assert host is not None and (host.address, host.ssh_port, host.mac, host.disk) == ("10.66.0.12", 2222, "", None)


def test_a_node_of_another_kind_is_not_taken_in_and_neither_are_the_others(lab: InProcessRack, inventory: Path) -> None:
    """Every difference is named; half a list would be taken for the whole."""
    other = replace(lab.rack.profile, gpus_per_node=4, expected=(("product_name", "DGXB200"),))
    with pytest.raises(UndecidedError) as refused:
        survey(ByName(lab), from_ansible(inventory, "gpu"), other, NOW)
    assert "2 of 2 nodes" in refused.value.message
    assert "not a DGXB200; it has 8 GPUs of 4" in refused.value.message


def test_a_node_that_does_not_answer_is_named(lab: InProcessRack, inventory: Path) -> None:
    """It may be rented, off or forgotten; the list is for its owner to correct."""
    with lab.changing("node2") as machine:
        machine.power = "Off"
    with pytest.raises(UndecidedError, match="1 of 2 nodes were not taken in: node2"):
        survey(ByName(lab), from_ansible(inventory, "gpu"), lab.rack.profile, NOW)


def test_a_text_that_would_change_the_file_is_a_text_in_it(lab: InProcessRack) -> None:
    """A node that calls itself a list stays a node; the loader then refuses its name."""
    (node,) = survey(ByName(lab), (Listed("node1", "10.66.0.11"),), lab.rack.profile, NOW)
    hostile = replace(node, serial='x", bmc: {address: 10.0.0.1}, "y')
    text = rack_file("rented", "neocloud", lab.rack.profile, (hostile,), "a test")
    assert '    serial: "x\\", bmc: {address: 10.0.0.1}, \\"y"\n' in text
