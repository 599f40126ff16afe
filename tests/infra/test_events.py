"""What is no named fault turns exactly the right tests red too: a clock, a service, a package, another board."""

from datetime import timedelta

import pytest

from tests.infra.matrix import expected, of_node, row
from tests.infra.sessions import now, run
from toolkit.redfish import Power

SERVICES = (
    "nvidia-fabricmanager", "nvidia-persistenced", "nvidia-imex", "containerd", "kubelet",
)  # fmt: skip


def services(**states):
    """`systemctl show` of a DGX, with other states of some."""
    told = []
    for name in SERVICES:
        active = states.get(name.replace("-", "_"), "inactive" if name == "nvidia-imex" else "active")
        load = "not-found" if name == "nvidia-imex" else "loaded"
        told.append(f"Id={name}.service\nLoadState={load}\nActiveState={active}\nUnitFileState=enabled\n")
    return "\n".join(told)


def another_board(lab, node):
    """Its GPU 0 was exchanged."""
    lab.serials[node] = "16599999999"


def another_machine(lab, node):
    """Another tray answers for it."""
    lab.of_node[node] = {"product_serial": "VR00009999\n"}


def a_kubelet_that_failed(lab, node):
    """It ended, and systemd did not get it up again."""
    lab.of_node[node] = {"systemctl show": services(kubelet="failed")}


def a_fabric_manager_that_failed(lab, node):
    """It ended after the GPUs had joined."""
    lab.of_node[node] = {"systemctl show": services(nvidia_fabricmanager="failed")}


def an_imex_that_runs(lab, node):
    """Somebody started it on a node that has no NVLink domain."""
    text = services().replace("LoadState=not-found\nActiveState=inactive", "LoadState=loaded\nActiveState=active")
    lab.of_node[node] = {"systemctl show": text}


def a_kubelet_without_our_taint(lab, node):
    """Its configuration was replaced."""
    lab.of_node[node] = {"kubelet.conf.d": "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"}


def a_package_of_another_version(lab, node):
    """Upgraded by hand, and its driver was loaded before."""
    kept = "".join(f"{n} {v} installed\n" for n, v in lab.rack.profile.versions if n != "containerd.io")
    lab.of_node[node] = {"dpkg-query": f"{kept}containerd.io 9.9.9 installed\n"}


def packages_that_cannot_be_read(lab, node):
    """dpkg's database is broken."""
    lab.of_node[node] = {"dpkg-query": "dpkg-query: error: parsing file '/var/lib/dpkg/status'\n"}


def a_clock_ahead(lab, node):
    """An hour."""
    lab.of_node[node] = {"date ": f"{(now() + timedelta(hours=1)).timestamp():.9f}\n"}


def a_reboot_that_is_due(lab, node):
    """The role kernel_settings set an argument and may not reboot."""
    text = "# BEGIN rackproof kernel_settings\nrackproof: not in force before a reboot: iommu=pt\n# END\n"
    lab.of_node[node] = {"reboot-required": text}


def a_node_without_power(lab, node):
    """Nobody answers."""
    with lab.changing(node) as machine:
        machine.power = Power.OFF.value


# Two at a time, the first on node2 and the second on node1; a node that is silent is a session of its own.
SESSIONS = (
    (another_board, a_kubelet_that_failed),
    (another_machine, a_clock_ahead),
    (a_fabric_manager_that_failed, a_reboot_that_is_due),
    (an_imex_that_runs, a_kubelet_without_our_taint),
    (a_package_of_another_version, packages_that_cannot_be_read),
    (a_node_without_power,),
)  # fmt: skip


@pytest.fixture
def whole(lab):
    """The rack, its power put back after the test."""
    yield lab
    with lab.changing("node2") as machine:
        machine.power = Power.ON.value


@pytest.mark.parametrize("events", SESSIONS, ids=lambda events: "-".join(event.__name__ for event in events))
def test_an_event_turns_exactly_these_tests_red(whole, events):
    """The rows of matrix.txt, letter by letter: each on its own node and nothing else."""
    placed = dict(zip(("node2", "node1"), events, strict=False))
    for node, event in placed.items():
        event(whole, node)
    seen = run(whole)
    for node, event in placed.items():
        what = f"{event.__name__.replace('_', ' ')} on {node}"
        assert row(what, of_node(node, seen.red())) == expected(what)
    assert set(seen.red()) == {name for node in placed for name in of_node(node, seen.red())}
