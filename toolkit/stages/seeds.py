"""The seed of a node: files that make the image, which is the same for all, this one machine. Pure."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from toolkit.errors import RackproofError
from toolkit.rack.model import Host, Profile, Unit

_NAME = re.compile(r"[A-Za-z0-9._:/+-]+")
DATA_LABEL = "data"  # of the file system that the deploy ramdisk makes over the data disks


@dataclass(frozen=True, slots=True)
class SeedFile:
    """A file planted into the written image, owned by root."""

    mode: int
    content: bytes


def seed_files(
    node: Unit, profile: Profile | None, image_sha256: str, report_url: str, login_keys: Sequence[str]
) -> dict[str, SeedFile]:
    """What makes the image this node: host name, who may log in, its network, and where to report the first boot."""
    told = {"name": node.name, "serial": node.serial, "image": image_sha256, "report": report_url}
    files = {
        "/etc/hostname": SeedFile(0o644, f"{node.name}\n".encode()),
        "/etc/rackproof/node.json": SeedFile(0o600, json.dumps(told).encode() + b"\n"),
        "/root/.ssh/authorized_keys": SeedFile(0o600, "".join(f"{k.strip()}\n" for k in login_keys).encode()),
    }
    if node.host is not None and node.host.network is not None:
        files |= network_files(node.host)
    mount = profile.imaging.storage.data_mount if profile is not None else ""
    if mount and node.host is not None and node.host.data_disks:
        unit = mount.strip("/").replace("-", r"\x2d").replace("/", "-")
        files[f"/etc/systemd/system/{unit}.mount"] = SeedFile(0o644, _mount_unit(mount))
        files[f"/etc/systemd/system/local-fs.target.d/{unit}.conf"] = SeedFile(
            0o644, f"[Unit]\nWants={unit}.mount\n".encode()
        )
    return files


def network_files(host: Host) -> dict[str, SeedFile]:
    """The in-band interface, known by its MAC, with the planned address: for systemd-networkd and for netplan.

    An image has one of the two; the other's file is read by nobody. Ours sorts before the image's own.
    """
    network = host.network
    if network is None:
        return {}
    address = f"{host.address}/{network.prefix_length}"
    lines = ["[Match]", f"MACAddress={host.mac.lower()}", "", "[Network]", f"Address={address}", "DHCP=no"]
    lines += [f"Gateway={network.gateway}"] if network.gateway else []
    lines += [f"DNS={server}" for server in network.dns]
    interface: dict[str, object] = {
        "match": {"macaddress": host.mac.lower()}, "addresses": [address], "dhcp4": False, "optional": False,
    }  # fmt: skip
    if network.gateway:
        interface["routes"] = [{"to": "default", "via": network.gateway}]
    if network.dns:
        interface["nameservers"] = {"addresses": list(network.dns)}
    netplan = {"network": {"version": 2, "ethernets": {"inband": interface}}}
    return {
        "/etc/systemd/network/05-rackproof-inband.network": SeedFile(0o644, "\n".join([*lines, ""]).encode()),
        # JSON is YAML. netplan wants files that only root reads.
        "/etc/netplan/05-rackproof-inband.yaml": SeedFile(0o600, json.dumps(netplan, indent=2).encode() + b"\n"),
    }


def _mount_unit(mount: str) -> bytes:
    return (
        "[Unit]\nDescription=Data disks, striped\n\n"
        f"[Mount]\nWhat=/dev/disk/by-label/{DATA_LABEL}\nWhere={mount}\nType=ext4\nOptions=noatime\n"
    ).encode()


def pack_seed(files: Mapping[str, SeedFile]) -> bytes:
    """A tar archive of the files, the same for the same files. Folders of private files are private too."""
    folders: dict[str, int] = {}
    for name, file in files.items():
        for parent in PurePosixPath(name).parents:
            if parent.name:
                folders[str(parent)] = 0o700 if parent.name == ".ssh" else 0o755
        if not name.startswith("/") or ".." in name.split("/") or not _NAME.fullmatch(name) or file.mode > 0o777:
            raise RackproofError(f"seed file {name!r} with mode {file.mode:o} cannot be planted")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder, mode in sorted(folders.items()):
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name, file in sorted(files.items()):
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(file.content), file.mode
            tar.addfile(entry, io.BytesIO(file.content))
    return packed.getvalue()
