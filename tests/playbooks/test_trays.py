"""nvlink.yml on two real trays: one list of trays on both, services by mode, and its undo."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from tests.playbooks.conftest import NO_CHANGE, NODES, Machines, Story
from toolkit.rack.model import Mode, Rack
from toolkit.runners.play import HostOutcome
from toolkit.virtual import hardware_files

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(1200)]
LIST = "/etc/nvidia-imex/nodes_config.cfg"


def in_mode(rack: Rack, mode: Mode) -> Rack:
    """The rack as one of GB200 trays in that mode; the lock has no fabric manager."""
    profile = rack.profile
    expected = dict(profile.expected) | {"gpu_name": "NVIDIA GB200"}
    versions = tuple((k, v) for k, v in profile.versions if k != "nvidia-fabricmanager")
    return replace(rack, profile=replace(profile, mode=mode, expected=tuple(expected.items()), versions=versions))


@pytest.fixture(scope="module")
def trays(brought_up: Story) -> Machines:
    """The nodes as two trays of another rack: their driver is there, and the fabric manager that they had runs."""
    nodes = brought_up.nodes
    rack = in_mode(nodes.rack, Mode.MNNVL_HOST_IMEX)
    for unit in rack.nodes:
        # Of the GPUs only the name matters here: of their stand-ins these are still an H100's.
        hardware_files.write_state(nodes.hardware[unit.name], unit, replace(rack.profile, mode=Mode.NVSWITCH_GEN3), ())
        nodes.sh("systemctl start nvidia-fabricmanager", unit.name)
    return replace(nodes, rack=rack)


def test_imex_comes_up_as_check_mode_foretold(trays: Machines) -> None:
    """check, run, run: changes, changes, none; and one domain of two trays."""
    assert trays.foretell("nvlink.yml") > 0
    assert min(trays.play("nvlink.yml").values()) > 0
    assert trays.play("nvlink.yml") == NO_CHANGE
    domain = json.loads(trays.sh("nvidia-imex-ctl -N -j"))
    assert domain["status"] == "UP"
    assert [n["host"] for n in domain["nodes"].values()] == ["10.253.99.2", "10.253.99.3"]


def test_the_list_of_trays_is_the_same_on_all(trays: Machines) -> None:
    """Byte for byte, in slot order."""
    sums = {trays.sh(f"sha256sum {LIST}", node) for node in NODES}
    wanted = hashlib.sha256(b"10.253.99.2\n10.253.99.3\n").hexdigest()
    assert sums == {f"{wanted}  {LIST}\n"}


def test_no_fabric_manager_is_left_and_none_can_be_started(trays: Machines) -> None:
    """Absent and masked: what is installed later starts nothing."""
    assert trays.sh("dpkg-query -W -f '${Status}' nvidia-fabricmanager || true").strip() != "install ok installed"
    assert trays.sh("systemctl is-enabled nvidia-fabricmanager || true").strip() == "masked"


def test_a_change_restarts_imex_once_on_every_tray(trays: Machines) -> None:
    """Check mode says so, and the run does it."""
    wanted = {"imex_quorum": "FULL"}
    trays.play("imex.yml", check=True, **wanted)
    assert trays.tasks["node1"] == trays.tasks["node2"]
    assert "Restart it" in "".join(trays.tasks["node1"])
    before = trays.sh("systemctl show -P ActiveEnterTimestampMonotonic nvidia-imex")
    trays.play("imex.yml", **wanted)
    assert trays.sh("systemctl show -P ActiveEnterTimestampMonotonic nvidia-imex") != before
    assert trays.sh("grep QUORUM /etc/nvidia-imex/config.cfg") == "IMEX_WAIT_FOR_QUORUM=FULL\n"


def test_a_restart_that_a_broken_run_lost_is_made_up_for(trays: Machines) -> None:
    """What the daemon started with is compared, not what this run changed; the other tray has nothing to do."""
    trays.sh("echo '# by hand' >> /etc/nvidia-imex/config.cfg", "node2")
    trays.play("imex.yml", imex_quorum="FULL")
    assert list(trays.tasks) == ["node2"]
    assert trays.foretell("imex.yml", imex_quorum="FULL") == 0


def test_imex_is_not_restarted_while_a_tray_has_the_former_list(trays: Machines) -> None:
    """The tray that took the new files says who did not, and keeps its domain up."""
    before = trays.sh("systemctl show -P ActiveEnterTimestampMonotonic nvidia-imex")
    folder = LIST.rpartition("/")[0]
    trays.sh(f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}", "node2")
    hosts = trays.try_play("imex.yml", imex_quorum="NONE")
    trays.sh(f"umount {folder}", "node2")
    assert hosts["node2"].outcome is HostOutcome.FAILED
    assert hosts["node1"].outcome is HostOutcome.FAILED
    assert "node2 did not get the new ones" in hosts["node1"].message
    assert trays.sh("systemctl show -P ActiveEnterTimestampMonotonic nvidia-imex") == before


def test_under_dra_imex_is_disabled_and_masked(trays: Machines) -> None:
    """A daemon on the host would take the channels from the pods."""
    pods = replace(trays, rack=in_mode(trays.rack, Mode.MNNVL_DRA))
    assert pods.foretell("nvlink.yml") > 0
    assert trays.sh("systemctl is-active nvidia-imex").strip() == "active"
    assert min(pods.play("nvlink.yml").values()) > 0
    assert pods.play("nvlink.yml") == NO_CHANGE
    assert trays.sh("systemctl is-enabled nvidia-imex || true").strip() == "masked"
    assert trays.sh("systemctl is-active nvidia-imex || true").strip() == "inactive"


def test_a_mode_that_the_gpus_contradict_is_refused(trays: Machines) -> None:
    """GB200 contains B200, and is none. Nothing was changed."""
    hosts = replace(trays, rack=in_mode(trays.rack, Mode.NVLINK5_SINGLE)).try_play("nvlink.yml")
    for host in hosts.values():
        assert host.outcome is HostOutcome.FAILED
        assert host.changed == 0
        assert "NVIDIA GB200 is no GPU of mode nvlink5_single" in host.message


def test_the_undo_leaves_what_was_there_before(trays: Machines) -> None:
    """check, run, run: changes, changes, none; neither package nor file nor mask of ours."""
    undo = {"undo_roles": ["fabric_manager", "imex"]}
    trays.play("imex.yml")
    assert trays.foretell("undo.yml", **undo) > 0
    assert trays.sh("systemctl is-active nvidia-imex").strip() == "active"
    assert min(trays.play("undo.yml", **undo).values()) > 0
    assert trays.play("undo.yml", **undo) == NO_CHANGE
    left = "find /etc/systemd/system /etc/nvidia-imex /run -name '*imex*' -o -name '*fabricmanager*' 2>/dev/null; true"
    assert trays.sh(left).split() == []
