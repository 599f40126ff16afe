"""The vendor's installer, told what to do: NoCloud's files for one node, rendered from the plan.

DGX OS is Ubuntu Server with the vendor's packages: its installer is subiquity, which takes an `autoinstall` out of
cloud-config. Disks are known by serial alone; before anything is written the installer's own early commands look
whether this is the planned machine and whether there is exactly one disk of each serial.
https://canonical-subiquity.readthedocs-hosted.com/en/latest/reference/autoinstall-reference.html
https://curtin.readthedocs.io/en/latest/topics/storage.html
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError
from toolkit.rack.model import Disk, Host, Unit

TEMPLATE = Path(__file__).parent / "templates/user-data.yml.j2"
_ESP_BYTES = 512 << 20

Action = dict[str, object]


@dataclass(frozen=True, slots=True)
class Order:
    """What one node is installed with.

    image       name of the release, recorded on the node
    login_keys  SSH public keys that may log in as root; nobody has a password
    files       (mode, content) by path on the node, written at its first boot
    commands    run at the end of its first boot
    data_mount  where the node's data disks are mounted, striped; empty: they stay as they are
    mirrored    the system goes to a mirror of the node's two system disks
    report_url  where the installer says that it started or failed; empty: nobody listens
    """

    node: Unit
    image: str
    login_keys: tuple[str, ...]
    files: Mapping[str, tuple[int, bytes]] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    data_mount: str = ""
    mirrored: bool = False
    report_url: str = ""


def user_data(order: Order, template: Path = TEMPLATE) -> str:
    """The node's `user-data`. Raises UsageError for a node that has no disk, or one that is known by no serial."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701 - YAML, not HTML
    environment.filters["json"] = json.dumps  # JSON is YAML; Jinja's own filter escapes it for HTML
    host = _host(order.node)
    disks = _disks(order, host)
    text = environment.from_string(template.read_text()).render(
        node=order.node,
        early_commands=early_commands(order.node, [*disks.system, *disks.data], order.report_url),
        error_commands=_error_commands(order),
        network=network(host),
        storage=storage(disks, order.data_mount),
        late_commands=_late_commands(order),
        first_boot=first_boot(order),
    )
    _check_guarded(text, order, template)
    return text + "\n"


def meta_data(node: Unit) -> str:
    """The node's `meta-data`: another serial is another instance, and cloud-init begins anew."""
    return f"instance-id: {json.dumps(f'{node.name}-{node.serial}')}\nlocal-hostname: {json.dumps(node.name)}\n"


def command_line(iso_url: str, seed_url: str, consoles: Sequence[str] = ("tty0", "ttyS0,115200n8")) -> str:
    """The installer's kernel arguments. `seed_url`: of the folder with user-data and meta-data.

    For iPXE as it stands; in GRUB the argument with `;` needs quotes.
    """
    words = ["ip=dhcp", f"url={iso_url}", "autoinstall", f"ds=nocloud-net;s={seed_url.rstrip('/')}/"]
    return " ".join([*words, "cloud-config-url=/dev/null", *(f"console={console}" for console in consoles)])


@dataclass(frozen=True, slots=True)
class _Disks:
    system: tuple[Disk, ...]
    data: tuple[Disk, ...]


def _host(node: Unit) -> Host:
    if node.host is None:
        raise UsageError(f"{node.name} has no host: nothing can be installed on it", "add `host` in the rack file")
    return node.host


def _disks(order: Order, host: Host) -> _Disks:
    name = order.node.name
    if host.disk is None or not host.mac:
        raise UsageError(f"{name} cannot be installed: its host has no disk or no MAC", "add both in the rack file")
    system: tuple[Disk, ...] = (host.disk,)
    if order.mirrored:
        if host.mirror_disk is None:
            raise UsageError(f"{name} shall have a mirror and has one system disk", "add `mirror_disk`")
        system = (host.disk, host.mirror_disk)
    data = host.data_disks if order.data_mount else ()
    for disk in (*system, *data):
        if not disk.serial:
            raise UsageError(
                f"disk {disk} of {name} has no serial: the installer matches disks by that, not by WWN",
                "add `serial` to it in the rack file",
            )
    return _Disks(system, data)


def early_commands(node: Unit, disks: Sequence[Disk], report_url: str) -> list[str]:
    """Refuse a machine or a disk that was not planned. A command that fails ends the installation."""
    commands = [f"{_post(report_url, 'started', node)} || true"] if report_url else []
    commands.append(
        _refuse_unless(
            f'test "$(tr -d " \\t" </sys/class/dmi/id/product_serial)" = {shlex.quote(node.serial)}',
            f"this is not {node.name}: its serial is not {node.serial}",
        )
    )
    for disk in disks:
        serial = shlex.quote(disk.serial)
        # Once as a whole and once anywhere: the installer's own match is by a part of the name (see `_glob`).
        for how in ("-Fxc", "-Fc"):
            found = f'test "$(lsblk -dno SERIAL | tr -d " " | grep {how} -- {serial})" = 1'
            commands.append(_refuse_unless(found, f"there is not exactly one disk {disk.serial}"))
        if disk.size_bytes:
            sizes = f"lsblk -bdno SERIAL,SIZE | awk -v s={serial} '$1 == s {{print $2}}'"
            commands.append(
                _refuse_unless(f'test "$({sizes})" = {disk.size_bytes}', f"disk {disk.serial} has another size")
            )
    return commands


def _refuse_unless(test: str, words: str) -> str:
    return f"{test} || {{ echo {shlex.quote('rackproof: ' + words)} >/dev/console; exit 1; }}"


def _post(url: str, event: str, node: Unit) -> str:
    body = json.dumps({"event": event, "serial": node.serial})
    return f"curl -fsS -m 10 --retry 5 -H 'Content-Type: application/json' -d {shlex.quote(body)} {shlex.quote(url)}"


def _error_commands(order: Order) -> list[str]:
    return [f"{_post(order.report_url, 'failed', order.node)} || true"] if order.report_url else []


def _late_commands(order: Order) -> list[str]:
    name = shlex.quote(order.image)
    return [f"mkdir -p /target/etc/rackproof && echo {name} >/target/etc/rackproof/image"]


def network(host: Host) -> Action:
    """Netplan's configuration of the in-band interface, known by its MAC."""
    interface: Action = {"match": {"macaddress": host.mac.lower()}}
    plan = host.network
    if plan is None:
        interface |= {"dhcp4": True, "dhcp-identifier": "mac"}
    else:
        interface |= {"dhcp4": False, "addresses": [f"{host.address}/{plan.prefix_length}"]}
        if plan.gateway:
            interface["routes"] = [{"to": "default", "via": plan.gateway}]
        if plan.dns:
            interface["nameservers"] = {"addresses": list(plan.dns)}
    return {"version": 2, "ethernets": {"inband": interface}}


def storage(disks: _Disks, data_mount: str) -> list[Action]:
    """curtin's actions: GPT, an EFI system partition and a root on each system disk, mirrored where there are two;
    data disks striped whole.
    """
    actions: list[Action] = []
    for number, disk in enumerate(disks.system):
        actions += _system_disk(number, disk)
    roots = [f"root{number}" for number in range(len(disks.system))]
    if len(roots) > 1:
        actions.append(
            {"id": "md0", "type": "raid", "name": "md0", "raidlevel": 1, "devices": roots, "preserve": False}
        )
    root = "md0" if len(roots) > 1 else roots[0]
    actions += [
        {"id": "root-fs", "type": "format", "fstype": "ext4", "label": "root", "volume": root, "preserve": False},
        {"id": "root-mount", "type": "mount", "path": "/", "device": "root-fs"},
        {"id": "esp-mount", "type": "mount", "path": "/boot/efi", "device": "esp0-fs"},
    ]
    return actions + (_data(disks.data, data_mount) if disks.data else [])


def _system_disk(number: int, disk: Disk) -> list[Action]:
    name = f"disk{number}"
    return [
        {"id": name, "type": "disk", "match": {"serial": _glob(disk)}, "ptable": "gpt", "wipe": "superblock",
         "preserve": False},
        {"id": f"esp{number}", "type": "partition", "device": name, "number": 1, "size": _ESP_BYTES, "flag": "boot",
         "grub_device": True, "wipe": "superblock", "preserve": False},
        {"id": f"esp{number}-fs", "type": "format", "fstype": "fat32", "volume": f"esp{number}", "preserve": False},
        {"id": f"root{number}", "type": "partition", "device": name, "number": 2, "size": -1, "wipe": "superblock",
         "preserve": False},
    ]  # fmt: skip


def _data(disks: Sequence[Disk], mount: str) -> list[Action]:
    names = [f"data{number}" for number in range(len(disks))]
    whole: list[Action] = [
        {"id": name, "type": "disk", "match": {"serial": _glob(disk)}, "wipe": "superblock", "preserve": False}
        for name, disk in zip(names, disks, strict=True)
    ]
    volume = names[0]
    if len(names) > 1:
        volume = "md1"
        whole.append({"id": "md1", "type": "raid", "name": "md1", "raidlevel": 0, "devices": names, "preserve": False})
    return [
        *whole,
        {"id": "data-fs", "type": "format", "fstype": "ext4", "label": "data", "volume": volume, "preserve": False},
        {"id": "data-mount", "type": "mount", "path": mount, "device": "data-fs"},
    ]


def _glob(disk: Disk) -> str:
    """udev's serial of an NVMe disk has the model before it, and behind it at times the namespace. That another disk's
    serial contains this one is ruled out by the early commands.
    """
    return f"*{disk.serial}*"


def first_boot(order: Order) -> dict[str, Any]:
    """cloud-config of the installed system: host name, who may log in, files, commands."""
    config: dict[str, Any] = {
        "hostname": order.node.name,
        "preserve_hostname": False,
        "disable_root": False,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "users": [
            {"name": "root", "lock_passwd": True, "ssh_authorized_keys": [key.strip() for key in order.login_keys]}
        ],
    }
    if order.files:
        config["write_files"] = [
            {"path": path, "permissions": f"{mode:04o}", "owner": "root:root", "encoding": "b64",
             "content": base64.b64encode(content).decode()}
            for path, (mode, content) in sorted(order.files.items())
        ]  # fmt: skip
    if order.commands:
        config["runcmd"] = list(order.commands)
    return config


def _check_guarded(text: str, order: Order, template: Path) -> None:
    """A site's own template may say more; it may not lose the guards, nor write to another disk."""
    import yaml

    try:
        found = yaml.safe_load(text)["autoinstall"]
        wanted = [action["match"]["serial"] for action in found["storage"]["config"] if action["type"] == "disk"]
        commands = "\n".join(str(command) for command in found["early-commands"])
    except (yaml.YAMLError, KeyError, TypeError) as exc:
        raise UsageError(f"{template} does not make an autoinstall: {exc}", "start from the template we ship") from exc
    host = _host(order.node)
    disks = _disks(order, host)
    planned = [_glob(disk) for disk in (*disks.system, *disks.data)]
    for needed in (order.node.serial, *(disk.serial for disk in disks.system)):
        if needed not in commands:
            raise UsageError(f"{template} does not look for {needed} before it writes", "keep `early_commands` in it")
    if sorted(wanted) != sorted(planned):
        raise UsageError(f"{template} writes to other disks than planned: {wanted}", "keep `storage` in it")
