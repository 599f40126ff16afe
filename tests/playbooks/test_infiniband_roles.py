"""infiniband.yml on two real nodes over the virtual fabric: adapters, bridges, subnet managers, and its undo."""

from __future__ import annotations

import re

import pytest

from tests.playbooks.conftest import NO_CHANGE, WANTED, Machines, a_bridge, controls
from toolkit.virtual.devices import mlxconfig

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(1200)]
UNDONE = ["doca_ofed", "hca_firmware_settings", "acs", "gpu_direct", "opensm", "containerd", "kubeadm_node"]
UNDO = {"undo_roles": UNDONE, **WANTED}


def test_redirection_is_off_and_nothing_else_was_touched(nodes: Machines) -> None:
    """0x1d is source validation, both redirects and upstream forwarding: 0x11 is left. At boot it is done again."""
    assert controls(nodes) == {0x0011}
    assert nodes.sh("systemctl is-enabled rackproof-acs").strip() == "enabled"
    a_bridge(nodes.hardware["node1"] / "pci/0000:18:01.0", 0x000C)
    assert "0000:18:01.0: ACSCtl 000c -> 0000" in nodes.sh(
        "systemctl start rackproof-acs; journalctl -u rackproof-acs --output=cat"
    )


def test_adapter_settings_wait_for_a_boot_and_say_so(nodes: Machines) -> None:
    """The next boot's value changed, the current one has not; after a boot nothing is pending."""
    assert "PCI_WR_ORDERING is per_mkey(0) until a boot, then force_relax" in nodes.sh("cat /run/reboot-required")
    row = re.compile(r"\* +PCI_WR_ORDERING +per_mkey\(0\) +per_mkey\(0\) +force_relax\(1\)")
    assert row.search(nodes.sh("mlxconfig -d mlx5_7 -e q PCI_WR_ORDERING"))
    mlxconfig.boot(nodes.hardware["node1"])
    booted = nodes.sh("mlxconfig -d mlx5_7 -e q PCI_WR_ORDERING")
    assert re.search(r"force_relax\(1\) +force_relax\(1\)", booted)


def test_two_subnet_managers_are_master_and_standby(nodes: Machines) -> None:
    """By priority; ports are active and full members."""
    assert "priority 15 state 3 SMINFO_MASTER" in nodes.sh("sminfo")
    assert "Active" in nodes.sh("ibstat mlx5_0")
    assert "0xffff" in nodes.sh("lid=$(ibstat mlx5_0 | sed -n 's/.*Base lid: //p'); smpquery pkeys $lid")


def test_a_partition_that_is_added_is_read_without_a_restart(nodes: Machines) -> None:
    """Reloaded, not restarted: the master stays."""
    before = nodes.sh("systemctl show -P ExecMainPID rackproof-opensm")
    more = WANTED | {"opensm_partitions": [{"name": "training", "pkey": "0x0012"}]}
    nodes.play("opensm.yml", **more)
    assert "Read partitions again" in nodes.tasks["node1"]
    assert nodes.sh("systemctl show -P ExecMainPID rackproof-opensm") == before
    lid = nodes.sh("ibstat mlx5_0 | sed -n 's/.*Base lid: //p'").strip()
    asked = f"for i in 1 2 3 4 5; do smpquery pkeys {lid} | grep 0x8012 && exit; sleep 1; done"
    assert "0x8012" in nodes.sh(asked)


def test_options_that_need_a_restart_are_refused_until_it_is_allowed(nodes: Machines) -> None:
    """A restart stops the fabric's sweeps: somebody chooses the time."""
    more = WANTED | {"opensm_options": {"max_wire_smps": 8}}
    hosts = nodes.try_play("opensm.yml", nodes=("node2",), **more)
    assert "a restart was not allowed" in hosts["node2"].message
    assert nodes.try_play("opensm.yml", nodes=("node2",), opensm_allow_restart=True, **more)["node2"].message == ""


def test_the_undo_leaves_what_was_there_before(nodes: Machines) -> None:
    """check, run, run: changes, changes, none; no unit, package or file of ours."""
    assert nodes.foretell("undo.yml", **UNDO) > 0
    assert nodes.sh("systemctl is-active rackproof-opensm").strip() == "active"
    assert min(nodes.play("undo.yml", **UNDO).values()) > 0
    assert nodes.play("undo.yml", **UNDO) == NO_CHANGE
    assert nodes.sh("find /etc /usr/local/sbin -name '*rackproof-acs*' -o -name '*rackproof-opensm*'").split() == []
    assert nodes.sh("find /etc/kubernetes /etc/containerd -type f").split() == []
    for package in ("opensm", "kubeadm", "containerd.io"):
        status = nodes.sh(f"dpkg-query -W -f '${{Status}}' {package} 2>/dev/null || true")
        assert status.strip() != "install ok installed"
