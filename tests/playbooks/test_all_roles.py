"""All playbooks on two real nodes: what check mode foretells is done, and a second run changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.playbooks.conftest import AFTER_BASE, NODES, REDIRECTING, Machines, Story, run
from toolkit.rack.model import Mode
from toolkit.runners.play import HostOutcome

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("playbook", ["base", *AFTER_BASE])
def test_a_playbook_changes_what_it_foretold_and_then_nothing(brought_up: Story, playbook: str) -> None:
    """check, run, run, check: changes, changes, none, none; the runs on each node."""
    assert brought_up.foretold.books[playbook]["node1"]
    for node in NODES:
        assert brought_up.done.books[playbook][node]
        assert brought_up.again.books[playbook][node] == []
    assert brought_up.after.books[playbook]["node1"] == []


def test_check_mode_touches_no_bridge(brought_up: Story) -> None:
    """It says that it would, and the run does."""
    assert "Clear the bits" in brought_up.foretold.books["infiniband"]["node1"]
    assert brought_up.foretold.controls == {REDIRECTING}
    assert brought_up.done.controls == {0x0011}


def test_the_node_is_what_the_roles_promise(nodes: Machines) -> None:
    """Held versions, running services, the taint, and a host key that users of the CA trust."""
    held = nodes.sh("apt-mark showhold").split()
    assert {"nvidia-driver-580-open", "nvidia-fabricmanager", "kubelet", "kubeadm", "containerd.io"} <= set(held)
    active = nodes.sh("systemctl is-active nvidia-persistenced nvidia-fabricmanager containerd").split()
    assert active == ["active"] * 3
    # Of no cluster yet: systemd starts it again and again, as the package has it.
    assert nodes.sh("systemctl is-enabled kubelet").strip() == "enabled"
    assert nodes.sh("systemctl is-enabled nvidia-imex || true").strip() == "masked"
    assert "rackproof.dev/uncertified" in nodes.sh("cat /etc/kubernetes/kubelet.conf.d/*.conf")
    assert "SystemdCgroup = true" in nodes.sh("cat /etc/containerd/config.toml")
    trusted = nodes.settings.keys / "trusted"
    trusted.write_text(f"@cert-authority node1 {(nodes.settings.keys / 'ssh_ca.pub').read_text()}")
    host = nodes.rack.nodes[0].host
    assert host is not None
    options = (f"-oUserKnownHostsFile={trusted}", "-oStrictHostKeyChecking=yes", "-oHostKeyAlias=node1")
    login = ("-i", nodes.settings.keys / "login", f"root@{host.address}")
    assert run("ssh", "-F", "none", *options, *login, "echo hi") == "hi\n"


def test_a_mode_that_forbids_a_fabric_manager_is_refused(nodes: Machines) -> None:
    """Before anything is touched."""
    rack = replace(nodes.rack, profile=replace(nodes.rack.profile, mode=Mode.MNNVL_DRA))
    host = replace(nodes, rack=rack).try_play("nvlink.yml", nodes=("node1",))["node1"]
    assert host.outcome is HostOutcome.FAILED
    assert host.changed == 0
    assert "must not run in mode mnnvl_dra" in host.message
