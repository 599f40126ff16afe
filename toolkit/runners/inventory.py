"""A rack as an Ansible inventory: the same hosts, groups and variables for our runs and for plain ansible-playbook."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from toolkit.rack import topology
from toolkit.rack.model import MNNVL, Rack, Unit
from toolkit.settings import Settings

PYTHON = "/usr/bin/python3"  # stated, because discovery runs the first python in PATH and believes it

LOGIN_KEY = "login"
SSH_CA_KEY = "ssh_ca"


def groups(rack: Rack, nodes: Iterable[str]) -> dict[str, list[str]]:
    """Hosts by group: `nodes`, the rack, its mode and, where it is one, `virtual`. Group names are identifiers.

    `cluster` is every host of a Kubernetes cluster: a site's own inventory of its control plane adds to it.
    """
    hosts = sorted(nodes)
    names = ["nodes", "cluster", f"rack_{_identifier(rack.name)}", f"mode_{rack.profile.mode}"]
    return {name: hosts for name in [*names, *(["virtual"] if rack.profile.virtual else [])]}


def host_variables(settings: Settings, rack: Rack, node: Unit, user: str = "root") -> dict[str, object]:
    """Connection and identity of one node. No secret: keys are named by file. KeyError: a unit without a host."""
    if node.host is None:
        raise KeyError(node.name)
    return {
        "ansible_host": node.host.address,
        "ansible_port": node.host.ssh_port,
        "ansible_user": user,
        "ansible_ssh_private_key_file": str(settings.keys / LOGIN_KEY),
        "ansible_ssh_common_args": " ".join(ssh_options(settings.known_hosts(rack.name))),
        "ansible_python_interpreter": PYTHON,
        "rackproof_serial": node.serial,
        "rackproof_ssh_ca_file": str(settings.keys / SSH_CA_KEY),
        "rackproof_hcas": [hca.name for hca in node.hcas],
        "rackproof_hca_guids": [hca.guid for hca in node.hcas],
        "rackproof_imex_nodes": imex_nodes(rack, node),
        "rackproof_labels": topology.labels(rack, node),
    }


def imex_nodes(rack: Rack, node: Unit) -> list[str]:
    """Addresses of the trays of the node's NVLink partition, in slot order: the same for all of them.

    Of all planned trays, played or not: a list that leaves one out is another list. Empty where the rack has no domain.
    """
    if rack.profile.mode not in MNNVL:
        return []
    shared = next((p.nodes for p in rack.partitions if node.name in p.nodes), tuple(n.name for n in rack.nodes))
    return [n.host.address for n in rack.nodes if n.host is not None and n.name in shared]


def ssh_options(known_hosts: Path) -> list[str]:
    """Options of ssh: host keys pinned at imaging, our key only, no operator's configuration, no waiting for ever.

    A site adds its own (a jump host) with `ansible_ssh_extra_args` in group_vars.
    """
    options = {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ServerAliveInterval": "10",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    return ["-F", "none", *(f"-o{key}={value}" for key, value in options.items())]


def group_variables(rack: Rack) -> dict[str, object]:
    """What the roles are told about the whole rack; the same for all its nodes."""
    return {
        "rackproof_rack": rack.name,
        "rackproof_mode": str(rack.profile.mode),
        "rackproof_versions": dict(rack.profile.versions),
        "rackproof_port_guids": [hca.guid for node in rack.nodes for hca in node.hcas],
    }


def static(settings: Settings, rack: Rack, nodes: Iterable[Unit], user: str = "root") -> dict[str, object]:
    """The inventory as a file: what Ansible's `yaml` plugin reads."""
    hosts = {n.name: host_variables(settings, rack, n, user) for n in nodes}
    children: dict[str, dict[str, object]] = {
        name: {"hosts": dict.fromkeys(members)} for name, members in groups(rack, hosts).items()
    }
    children["nodes"]["vars"] = group_variables(rack)
    return {"all": {"hosts": hosts, "children": children}}


def dynamic(settings: Settings, rack: Rack) -> dict[str, object]:
    """The inventory as a script answers `--list`: every node that has a host, with all variables in `_meta`."""
    hosts = {n.name: host_variables(settings, rack, n) for n in rack.nodes if n.host is not None}
    members: dict[str, dict[str, object]] = {name: {"hosts": names} for name, names in groups(rack, hosts).items()}
    members["nodes"]["vars"] = group_variables(rack)
    return {"all": {"children": sorted(members)}, **members, "_meta": {"hostvars": hosts}}


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
