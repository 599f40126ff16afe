"""The vendor's installer is told exactly the plan: its files fit their schemas, and it writes to no other disk."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from toolkit.errors import UsageError
from toolkit.image.autoinstall import Order, command_line, meta_data, user_data
from toolkit.rack.model import Disk, Host, HostNetwork, Unit, UnitKind

SCHEMA = Path(__file__).parent / "data/cloud-init-22.4.2.json"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrcr0MDzMnM2sKU3TS7IP operator's key"
NODE = Unit(
    "dgx01",
    UnitKind.NODE,
    "EX166042400001",
    1,
    host=Host(
        "10.1.0.11",
        "02:4e:56:01:00:01",
        Disk("/dev/nvme0n1", "S6ZN0001", size_bytes=1920383410176),
        mirror_disk=Disk(serial="S6ZN0002"),
        data_disks=(Disk(serial="S7A1"), Disk(serial="S7A2")),
        network=HostNetwork(24, "10.1.0.1", ("10.1.0.2",)),
    ),
)
WHOLE = Order(
    NODE,
    "dgx-os-7",
    (KEY,),
    {"/etc/rackproof/node.json": (0o600, b'{"name": "dgx01"}\n')},
    ("python3 -I /usr/lib/rackproof/first_boot.py",),
    data_mount="/raid",
    mirrored=True,
    report_url="http://10.1.0.2/report/" + "ab" * 16,
)
SMALL = Order(replace(NODE, host=Host("10.1.0.11", "02:4e:56:01:00:01", Disk(serial="S6ZN0001"))), "dgx-os-7", (KEY,))
# subiquity's own schema (autoinstall-schema.json, 24.04) allows any key; these are all that it describes, with the
# type of each, so that a misspelt one is found here. It passed that schema itself when this was written.
SUBIQUITY: dict[str, Any] = {
    "version": int, "refresh-installer": dict, "locale": str, "keyboard": dict, "timezone": str, "early-commands": list,
    "error-commands": list, "network": dict, "storage": dict, "ssh": dict, "updates": str, "late-commands": list,
    "shutdown": str, "user-data": dict,
}  # fmt: skip


def autoinstall(order: Order) -> dict[str, Any]:
    """What subiquity reads."""
    found: dict[str, Any] = yaml.safe_load(user_data(order))["autoinstall"]
    return found


def of_type(order: Order, kind: str) -> list[dict[str, Any]]:
    """curtin's actions of a type."""
    return [action for action in autoinstall(order)["storage"]["config"] if action["type"] == kind]


@pytest.mark.parametrize("order", [WHOLE, SMALL], ids=["whole", "small"])
def test_the_files_fit_cloud_inits_schema(order):
    """The installer's file and, inside it, that of the first boot; a key that nobody knows is refused."""
    schema = Draft7Validator(json.loads(SCHEMA.read_text()))
    text = user_data(order)
    assert text.startswith("#cloud-config\n")
    schema.validate(yaml.safe_load(text))
    inner = yaml.safe_load(text)["autoinstall"]["user-data"]
    schema.validate(inner)
    assert not schema.is_valid(inner | {"ssh_authorised_keys": []})
    assert not schema.is_valid(inner | {"runcmd": "one line"})


@pytest.mark.parametrize("order", [WHOLE, SMALL], ids=["whole", "small"])
def test_every_key_is_one_that_the_installer_describes(order):
    """With its type; nothing interactive, nobody has a password."""
    found = autoinstall(order)
    assert all(isinstance(value, SUBIQUITY[key]) for key, value in found.items())
    assert "identity" not in found and found["user-data"]["users"][0]["lock_passwd"] is True
    assert found["ssh"]["allow-pw"] is False and found["version"] == 1


def test_disks_are_the_planned_ones_and_no_others():
    """Two system disks mirrored, data disks striped, each matched by its serial."""
    assert [action["match"]["serial"] for action in of_type(WHOLE, "disk")] == [
        "*S6ZN0001*", "*S6ZN0002*", "*S7A1*", "*S7A2*",
    ]  # fmt: skip
    mirror, stripe = of_type(WHOLE, "raid")
    assert (mirror["raidlevel"], mirror["devices"]) == (1, ["root0", "root1"])
    assert (stripe["raidlevel"], stripe["devices"]) == (0, ["data0", "data1"])
    assert {a["path"]: a["device"] for a in of_type(WHOLE, "mount")} == {
        "/": "root-fs", "/boot/efi": "esp0-fs", "/raid": "data-fs",
    }  # fmt: skip
    assert [action["match"]["serial"] for action in of_type(SMALL, "disk")] == ["*S6ZN0001*"]
    assert of_type(SMALL, "raid") == []


@pytest.mark.parametrize("order", [WHOLE, SMALL], ids=["whole", "small"])
def test_every_action_refers_to_one_before_it(order):
    """curtin carries them out in their order."""
    seen: set[str] = set()
    for action in autoinstall(order)["storage"]["config"]:
        named = [action[key] for key in ("device", "volume") if key in action] + action.get("devices", [])
        assert set(named) <= seen, action
        assert action["id"] not in seen
        seen.add(action["id"])


MACHINE = {"serial": "EX166042400001", "disks": "S6ZN0001 1920383410176\nS6ZN0002 1\nS7A1 1\nS7A2 1\n"}
REFUSED = {
    "the planned machine": ({}, ""),
    "another machine": ({"serial": "EX9"}, "its serial is not EX166042400001"),
    "a disk that is missing": ({"disks": MACHINE["disks"].replace("S7A2", "S7A3")}, "exactly one disk S7A2"),
    "two disks of one serial": ({"disks": MACHINE["disks"] + "S7A1 1\n"}, "exactly one disk S7A1"),
    "a disk whose serial holds another's": ({"disks": MACHINE["disks"] + "XS7A1 1\n"}, "exactly one disk S7A1"),
    "a disk of another size": ({"disks": MACHINE["disks"].replace("1920383410176", "960")}, "has another size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_installer_stops_before_it_writes(tmp_path, case):
    """Its early commands, run by a real shell: they pass on the planned machine alone, and say what they found."""
    changed, told = REFUSED[case]
    machine = MACHINE | changed
    (tmp_path / "product_serial").write_text(machine["serial"] + " \n")
    (tmp_path / "console").touch()
    (tmp_path / "disks").write_text(machine["disks"])
    lsblk = tmp_path / "lsblk"
    lsblk.write_text(
        f'#!/bin/sh\ncase "$*" in\n"-dno SERIAL") cut -d " " -f 1 {tmp_path}/disks ;;\n'
        f'"-bdno SERIAL,SIZE") cat {tmp_path}/disks ;;\n*) exit 9 ;;\nesac\n'
    )
    lsblk.chmod(0o755)
    statuses = []
    for command in autoinstall(replace(WHOLE, report_url=""))["early-commands"]:
        here = command.replace("/sys/class/dmi/id", str(tmp_path)).replace(">/dev/console", f">>{tmp_path}/console")
        ran = subprocess.run(["sh", "-c", here], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout=20, check=False)
        statuses.append(ran.returncode)
    assert (1 in statuses) == bool(told) and set(statuses) <= {0, 1}
    assert told in (tmp_path / "console").read_text()


def test_the_network_is_the_plans():
    """By MAC; an address where the plan has a network, DHCP where it has none."""
    planned = autoinstall(WHOLE)["network"]["ethernets"]["inband"]
    assert planned["match"] == {"macaddress": "02:4e:56:01:00:01"}
    assert planned["addresses"] == ["10.1.0.11/24"] and planned["routes"] == [{"to": "default", "via": "10.1.0.1"}]
    assert autoinstall(SMALL)["network"]["ethernets"]["inband"]["dhcp4"] is True


def test_what_the_plan_says_cannot_change_what_the_file_means():
    """Quotes, colons, braces and line breaks of a key or a file stay inside their value."""
    key = "ssh-ed25519 AAAA \"}, {{ 7 * 7 }} {% raw %} '\n: - x"
    order = replace(SMALL, login_keys=(key,), files={"/etc/x": (0o644, b"#cloud-config\n---\n")})
    inner = autoinstall(order)["user-data"]
    assert inner["users"][0]["ssh_authorized_keys"] == [key]
    assert inner["write_files"][0]["permissions"] == "0644"


def test_a_sites_template_may_not_lose_the_guards(tmp_path):
    """Nor write to a disk that was not planned."""
    shipped = user_data.__defaults__[0].read_text()
    own = tmp_path / "own.j2"
    own.write_text(shipped.replace("  locale: en_US.UTF-8", "  locale: de_DE.UTF-8"))
    assert "de_DE" in user_data(WHOLE, own)
    own.write_text(shipped.replace("{% for command in early_commands %}", "{% for command in ['true'] %}"))
    with pytest.raises(UsageError, match="does not look for EX166042400001"):
        user_data(WHOLE, own)
    own.write_text(shipped.replace("{{ action | json }}", "{{ action | json | replace('S7A2', 'S7A9') }}"))
    with pytest.raises(UsageError, match="other disks than planned"):
        user_data(WHOLE, own)
    own.write_text("#cloud-config\nruncmd: []\n")
    with pytest.raises(UsageError, match="does not make an autoinstall"):
        user_data(WHOLE, own)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (None, "has no host"),
        (Host("10.1.0.11"), "no disk or no MAC"),
        (Host("10.1.0.11", "02:4e:56:01:00:01", Disk(wwn="0x5000c500a0000001")), "matches disks by that"),
    ],
)
def test_a_node_that_cannot_be_known_is_not_installed(host, told):
    """The message says what the rack file lacks."""
    with pytest.raises(UsageError, match=told):
        user_data(replace(SMALL, node=replace(NODE, host=host)))
    with pytest.raises(UsageError, match="one system disk"):
        user_data(replace(WHOLE, node=replace(NODE, host=replace(SMALL.node.host, mirror_disk=None))))


def test_meta_data_and_kernel_arguments_name_the_node_and_the_files():
    """Another serial in the slot is another instance to cloud-init."""
    told = yaml.safe_load(meta_data(NODE))
    assert told == {"instance-id": "dgx01-EX166042400001", "local-hostname": "dgx01"}
    words = command_line("http://10.1.0.2/images/dgx-os-7/ab/installer.iso", "http://10.1.0.2/autoinstall/ab").split()
    assert "ds=nocloud-net;s=http://10.1.0.2/autoinstall/ab/" in words and "autoinstall" in words
    assert words[-1] == "console=ttyS0,115200n8"
