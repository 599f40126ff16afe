"""boot_service.yml on a real machine: nginx, dnsmasq and the deciding service, up, changed, and gone again."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.playbooks.conftest import Machines, Story, run, serving
from toolkit.runners.play import HostOutcome
from toolkit.settings import load

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(1200)]
HOME, ROOT = "/var/lib/rackproof-boot-home", "/var/lib/rackproof-netboot"
PROGRAM = "/opt/rackproof/bin/rackproof-boot"
ADDRESS, MAC, NODE_ADDRESS = "10.66.255.1", "52:54:00:66:00:01", "10.66.0.11"
TOKEN = "0123456789abcdef" * 2
MIB = 1024 * 1024
WANTED: Mapping[str, object] = {
    "boot_service_hosts": "nodes",
    "boot_service_address": f"{ADDRESS}/16",
    "boot_service_interface": "inband0",
    "boot_service_racks": ["demo-small"],
    "boot_service_bytes_per_s": 50 * MIB,
    "controller_service_home": HOME,
    "controller_service_program": PROGRAM,
}
UNITS = ("nginx", "rackproof-netboot@boot", "rackproof-boot-dhcp", "rackproof-boot-bandwidth")
REAL = """#!/bin/sh
export PYTHONPATH=/opt/rackproof/packages:/opt/rackproof/checkout
exec /usr/bin/python3 -c 'from toolkit.cli import main; main()' "$@"
"""


def debs(root: Path) -> Path:
    """A repository of Debian's packages that the role wants and the machine lacks, from this machine's own mirror."""
    folder = load().cache / "boot-service-debs"
    folder.mkdir(parents=True, exist_ok=True)
    told = run(
        "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
        "--no-replaces", "--no-enhances", "--no-pre-depends", "nginx", "dnsmasq-base", "ipxe",
    )  # fmt: skip
    wanted = set(re.findall(r"^([a-z0-9][a-z0-9.+-]+)$", told, re.MULTILINE))
    there = set(run("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f=${Package}\n").split())
    missing = sorted(name for name in wanted - there if not list(folder.glob(f"{name}_*.deb")))
    if missing:
        subprocess.run(["apt-get", "download", "-q", *missing], cwd=folder, check=True, capture_output=True)
    (folder / "Packages").write_text(
        subprocess.run(
            ["apt-ftparchive", "packages", "."], cwd=folder, check=True, capture_output=True, text=True
        ).stdout
    )
    return folder


def play(nodes: Machines, check: bool = False, **variables: object) -> list[str]:
    """Tasks of the playbook that changed something on node1, which is the controller."""
    host = nodes.try_play("boot_service.yml", check, ("node1",), **{**WANTED, **variables})["node1"]
    assert host.outcome is HostOutcome.OK, (host, nodes.sh("journalctl --no-pager -o cat -n 30 -u 'rackproof-*boot*'"))
    return list(nodes.tasks.get("node1", []))


@pytest.fixture(scope="module")
def controller(brought_up: Story) -> Iterator[Machines]:
    """A node as the machine that rackproof is installed on, with an in-band network that a "node" of its own is on."""
    nodes = brought_up.nodes
    program = nodes.roots["node1"] / PROGRAM.lstrip("/")
    program.parent.mkdir(exist_ok=True, parents=True)
    program.write_text(REAL)
    program.chmod(0o755)
    nodes.sh(
        # Its home is that of the scheduled jobs, whose tests find it on the same machine: Ansible asks passwd for it.
        "id rackproof 2>/dev/null || useradd --system --home-dir /var/lib/rackproof rackproof;"
        f"install -d -m 700 -o rackproof -g rackproof {HOME};"
        "ip link add inband0 type veth peer name inband1;"
        f"ip address add {ADDRESS}/16 dev inband0; ip address add {NODE_ADDRESS}/32 dev lo;"
        "ip link set inband0 up; ip link set inband1 up;"
        # Both ends of the wire are in one machine: what comes from its own address must not seem forged.
        "cd /proc/sys/net/ipv4/conf;"
        "for i in all inband0 inband1; do echo 0 >$i/rp_filter; echo 1 >$i/accept_local; done"
    )
    with serving(debs(nodes.roots["node1"])) as url:
        nodes.sh(f"echo 'deb [trusted=yes] {url} ./' >/etc/apt/sources.list.d/debs.list; apt-get update -qq")
        foretold = play(nodes, check=True)
        assert {"Install the programs", "Let the planned nodes boot", "Write the unit"} <= set(foretold)
        assert nodes.sh(f"ls {HOME} {ROOT} 2>/dev/null | grep -v : || true").strip() == ""
        assert set(foretold) <= set(play(nodes))
        yield nodes
    nodes.sh("rm /etc/apt/sources.list.d/debs.list; ip link delete inband0; ip address delete 10.66.0.11/32 dev lo")


def arm(nodes: Machines, script: str) -> None:
    """As the image stage does, over the home's link, as rackproof's user."""
    body = (
        "from pathlib import Path; from toolkit.netboot.offers import BootOffers;"
        f"BootOffers(Path({HOME + '/provision'!r})).arm({MAC!r}, {NODE_ADDRESS!r}, {TOKEN!r}, {script!r})"
    )
    nodes.sh(
        "PYTHONPATH=/opt/rackproof/packages:/opt/rackproof/checkout runuser -u rackproof -- "
        f"/usr/bin/python3 -c {shlex.quote(body)}"
    )


def get(nodes: Machines, path: str, source: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of a GET from that address of the machine."""
    body = (
        "from http.client import HTTPConnection as C;"
        f"c = C({ADDRESS!r}, 80, timeout=20, source_address=({source!r}, 0));"
        f"c.request('GET', {path!r}, headers={headers!r}); a = c.getresponse(); print(a.status); print(a.read().hex())"
    )
    status, told = nodes.sh(f"/usr/bin/python3 -c {shlex.quote(body)}").split("\n")[:2]
    return int(status), bytes.fromhex(told)


def test_a_second_run_changes_nothing_and_all_of_it_runs(controller: Machines) -> None:
    """Units that systemd takes and keeps, a site that nginx takes, a cap on the interface; also told in check mode."""
    assert play(controller) == []
    assert play(controller, check=True) == []
    assert controller.sh(f"systemctl is-active {' '.join(UNITS)}").split() == ["active"] * 4
    assert controller.sh(f"systemctl is-enabled {' '.join(UNITS)}").split() == ["enabled"] * 4
    said = controller.sh(f"systemd-analyze verify --man=no {' '.join(f'{u}.service' for u in UNITS[1:])} 2>&1")
    assert said.strip() == ""
    assert "rate 419430Kbit" in controller.sh("tc class show dev inband0")


def test_the_service_is_confined(controller: Machines) -> None:
    """By systemd's own count of exposure (0 to 10); dnsmasq, which begins as root, is what it must be."""
    for unit, most in (("rackproof-netboot@boot", 2.0), ("rackproof-boot-dhcp", 4.5)):
        said = controller.sh(f"systemd-analyze security --no-pager {unit}.service | tail -n 1")
        found = re.search(r"exposure level for \S+: ([\d.]+)", said)
        assert found, said
        assert float(found[1]) <= most, said
    assert controller.sh("stat -c '%a %U %G' /run/rackproof-netboot/socket").split() == ["660", "rackproof", "www-data"]
    users = controller.sh("ps -o user= -C dnsmasq; ps -o user= -p $(systemctl show -P MainPID rackproof-netboot@boot)")
    assert "root" not in users.split()


def test_what_the_stage_arms_is_served_once_through_all_of_it(controller: Machines) -> None:
    """To the node's address; then `exit`; to another address nothing, and the journal says so."""
    arm(controller, "#!ipxe\nboot\n")
    path = "/boot/52-54-00-66-00-01.ipxe"
    assert get(controller, path, ADDRESS)[0] == 404
    assert get(controller, path, NODE_ADDRESS) == (200, b"#!ipxe\nboot\n")
    assert b"exit" in get(controller, path, NODE_ADDRESS)[1]
    said = controller.sh("journalctl --no-pager -o cat -u rackproof-netboot@boot")
    assert "BOOT_LOOP" in said
    assert f"its address is {NODE_ADDRESS} by plan" in said


def test_nginx_serves_ranges_of_what_the_installation_publishes(controller: Machines) -> None:
    """206 and the bytes; the firmware's programs; nothing of what is ours."""
    controller.sh(f"head -c 3000000 /dev/urandom >{ROOT}/images/os.img; chmod 644 {ROOT}/images/os.img")
    status, part = get(controller, "/images/os.img", NODE_ADDRESS, Range="bytes=1000000-1000999")
    assert (status, len(part)) == (206, 1000)
    whole = controller.sh(f"tail -c +1000001 {ROOT}/images/os.img | head -c 1000 | od -An -tx1 -v").split()
    assert part.hex() == "".join(whole)
    assert get(controller, "/boot/ipxe/undionly.kpxe", NODE_ADDRESS)[0] == 200
    for path in ("/hosts/demo-small", "/offers/52-54-00-66-00-01/offer.json", f"/reports/{TOKEN}.jsonl", "/images/"):
        assert get(controller, path, NODE_ADDRESS)[0] in (403, 404)


def test_dhcp_answers_the_planned_node_alone(controller: Machines) -> None:
    """DISCOVER to ACK by the virtual rack's own firmware, on the other end of the wire."""
    body = (
        "from toolkit.virtual.dhcp import ask\n"
        f"for mac in ({MAC!r}, '52:54:00:99:00:99'): print(ask('inband1', mac, lambda: None))\n"
    )
    told = controller.sh(
        f"PYTHONPATH=/opt/rackproof/packages:/opt/rackproof/checkout /usr/bin/python3 -c {shlex.quote(body)}"
    ).splitlines()
    assert NODE_ADDRESS in told[0]
    assert "/boot/${netX/mac:hexhyp}.ipxe" in told[0]
    assert told[1] == "None"


def test_a_rack_comes_and_goes_while_the_rest_is_served(controller: Machines) -> None:
    """No restart of anything; two racks that claim one MAC are refused, and nothing is changed by it."""
    before = controller.sh(f"systemctl show -P MainPID {' '.join(UNITS[:3])}").split()
    refused = controller.try_play(
        "boot_service.yml", False, ("node1",), **{**WANTED, "boot_service_racks": ["demo", "demo-small"]}
    )
    assert "is a node of rack" in refused["node1"].message
    both = ["demo-small", "dgx-h100-su"]
    assert "Let the planned nodes boot" in play(controller, boot_service_racks=both)
    assert play(controller, boot_service_racks=both) == []
    assert controller.sh(f"ls {ROOT}/hosts").split() == both
    assert "Let the planned nodes boot" in play(controller)
    assert controller.sh(f"ls {ROOT}/hosts").split() == ["demo-small"]
    assert controller.sh(f"systemctl show -P MainPID {' '.join(UNITS[:3])}").split() == before


def test_dhcp_can_be_left_to_the_site(controller: Machines) -> None:
    """`none`: no dnsmasq of ours, and no cap; the rest goes on; and back again."""
    assert play(controller, boot_service_dhcp="none", boot_service_bytes_per_s=0)
    assert play(controller, boot_service_dhcp="none", boot_service_bytes_per_s=0) == []
    assert controller.sh("pgrep -c dnsmasq || true").strip() == "0"
    assert "htb" not in controller.sh("tc qdisc show dev inband0")
    assert get(controller, "/boot/ipxe/undionly.kpxe", NODE_ADDRESS)[0] == 200
    assert play(controller)
    assert controller.sh(f"systemctl is-active {' '.join(UNITS)}").split() == ["active"] * 4


def test_the_undo_leaves_nothing_but_what_was_served(controller: Machines) -> None:
    """Foretold, done, and then nothing to do; nobody listens at the address any more."""
    foretold = play(controller, check=True, boot_service_state="absent")
    assert controller.sh("systemctl is-active rackproof-boot-dhcp").strip() == "active"
    assert set(foretold) == set(play(controller, boot_service_state="absent"))
    assert play(controller, boot_service_state="absent") == []
    assert controller.sh("find /etc /run -path '*rackproof-[bn]*oot*' 2>/dev/null").split() == []
    assert controller.sh("systemctl --all --no-legend list-units 'rackproof-[bn]*oot*'").split() == []
    assert controller.sh("pgrep -c dnsmasq || true").strip() == "0"
    assert "htb" not in controller.sh("tc qdisc show dev inband0")
    assert controller.sh(f"ss -Hltn 'src {ADDRESS}' | wc -l").strip() == "0"
    assert controller.sh(f"stat -c %U {ROOT}/images/os.img").strip() == "root"
    controller.sh(f"systemctl disable --now nginx; rm -r {HOME} {ROOT}")
