"""Meets rented nodes: whom a site's own lists name, under which host keys they answer, and what they are.

Nothing on them is changed. Host keys are those that the operator knows already: a first look must not be a leap of
faith.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from toolkit.errors import UndecidedError, UsageError
from toolkit.facts import probe
from toolkit.kubernetes.client import ApiServer
from toolkit.rack.intake import Rented, differences
from toolkit.rack.model import Host, Profile, Unit, UnitKind
from toolkit.runners.shell import Shell
from toolkit.stages.image import pin

LIST_SECONDS = 120
MOST_BYTES = 32 << 20
AT_ONCE = 16
SHOWN = 20
_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@dataclass(frozen=True, slots=True)
class Listed:
    """A node as a list has it."""

    name: str
    address: str
    ssh_port: int = 22


def from_ansible(inventory: Path, group: str) -> tuple[Listed, ...]:
    """Hosts of a group of an Ansible inventory, as Ansible itself reads it (scripts and plugins too).

    Raises UsageError with Ansible's own words where it cannot, or where the group is empty.
    """
    beside = Path(sys.executable).parent / "ansible-inventory"
    program = str(beside) if beside.exists() else "ansible-inventory"
    try:
        ran = subprocess.run(
            [program, "-i", str(inventory), "--list"],
            capture_output=True, check=False, timeout=LIST_SECONDS, stdin=subprocess.DEVNULL,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as endless:
        raise UsageError(
            f"ansible-inventory did not read {inventory} within {LIST_SECONDS} s", "does a script of it hang?"
        ) from endless
    if ran.returncode != 0 or len(ran.stdout) > MOST_BYTES:
        said = ran.stderr[-2000:].decode("utf-8", "replace").strip().splitlines() or ["it wrote too much"]
        raise UsageError(f"ansible-inventory could not read {inventory}: {said[-1][:300]}", "correct the inventory")
    found: dict[str, Any] = json.loads(ran.stdout)
    variables: dict[str, dict[str, Any]] = found.get("_meta", {}).get("hostvars", {})
    names = dict.fromkeys(_members(found, group))
    if not names:
        groups = ", ".join(sorted(g for g in found if g not in ("_meta", "all"))[:SHOWN]) or "none"
        raise UsageError(f"{inventory} has no host in group {group!a}", f"groups: {groups}")
    return tuple(_listed(name, variables.get(name, {})) for name in names)


def _members(found: Mapping[str, Any], group: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    body = found.get(group, {})
    yield from body.get("hosts", [])
    for child in body.get("children", []):
        if child not in above:
            yield from _members(found, child, above | {group})


def _listed(name: str, variables: Mapping[str, Any]) -> Listed:
    port = str(variables.get("ansible_port", variables.get("ansible_ssh_port", 22)))
    if not port.isdigit():
        raise UsageError(f"{name} has the SSH port {port!a} in the inventory", "a number from 1 to 65535")
    return Listed(name, str(variables.get("ansible_host", variables.get("ansible_ssh_host", name))), int(port))


def from_cluster(api: ApiServer, selector: str) -> tuple[Listed, ...]:
    """Nodes of a cluster that the label selector takes, by their internal addresses. UsageError where there is none."""
    nodes = [_node(body) for body in api.list("v1", "Node", labels=selector)]
    if not nodes:
        raise UsageError(f"the cluster has no node with labels {selector!a}", "kubectl get nodes --show-labels")
    return tuple(sorted(nodes, key=lambda node: node.name))


def _node(body: Mapping[str, Any]) -> Listed:
    name = str(body["metadata"]["name"])
    addresses = body.get("status", {}).get("addresses", [])
    internal = [str(a["address"]) for a in addresses if a.get("type") == "InternalIP"]
    if not internal:
        raise UndecidedError(f"the cluster knows no internal address of {name}", "kubectl describe node " + name)
    return Listed(name, internal[0])


def pin_known(listed: Iterable[Listed], known_hosts: Path, pins: Path) -> None:
    """Pins the host keys of these nodes as the operator's own known_hosts has them. UsageError names who is missing."""
    missing = []
    for node in listed:
        key = _key_of(node, known_hosts)
        if key is None:
            missing.append(node.name)
        else:
            pin(pins, _host(node), key)
    if missing:
        raise UsageError(
            f"{known_hosts} has no host key of {', '.join(missing[:SHOWN])}",
            "get the keys from the nodes' owner and add them there; a key that the network told proves nothing",
        )


def _key_of(node: Listed, known_hosts: Path) -> str | None:
    """`ssh-keygen -F` reads hashed names too."""
    name = node.address if node.ssh_port == 22 else f"[{node.address}]:{node.ssh_port}"
    ran = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(known_hosts)], capture_output=True, text=True, check=False, timeout=30
    )
    lines = [line.split() for line in ran.stdout.splitlines() if line and not line.startswith(("#", "@"))]
    keys = {words[1]: f"{words[1]} {words[2]}" for words in lines if len(words) >= 3}
    return next((keys[kind] for kind in _KEY_TYPES if kind in keys), None)


def _host(node: Listed) -> Host:
    return Host(node.address, ssh_port=node.ssh_port)


def survey(shell: Shell, listed: Sequence[Listed], profile: Profile, now: datetime) -> tuple[Rented, ...]:
    """What each node says it is. All or none: UndecidedError names everyone who did not answer or is another kind."""

    def one(node: Listed) -> Rented | str:
        try:
            return _met(shell, node, profile, now)
        except UndecidedError as problem:
            return f"{node.name}: {problem.message}"

    with ThreadPoolExecutor(AT_ONCE) as threads:
        met = tuple(threads.map(one, listed))
    bad = [found for found in met if isinstance(found, str)]
    if bad:
        more = [f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        raise UndecidedError(
            f"{len(bad)} of {len(listed)} nodes were not taken in: " + "; ".join([*bad[:SHOWN], *more]),
            "mend them or take them out of the list, then the same command again; nothing was written",
        )
    return tuple(found for found in met if isinstance(found, Rented))


def _met(shell: Shell, node: Listed, profile: Profile, now: datetime) -> Rented:
    unit = Unit(node.name, UnitKind.NODE, "", 1, host=_host(node))
    wanted = (probe.IDENTITY, probe.PRODUCT, probe.GPUS, probe.IBSTAT)
    facts = {p.name: probe.read(shell, unit, p, lambda: now) for p in wanted}
    problems = [f"{name}: {fact.problem}" for name, fact in facts.items() if fact.problem]
    if problems:
        raise UndecidedError("; ".join(problems), f"look at {node.name}")
    adapters = facts[probe.IBSTAT.name].value["adapters"]
    ports = [(str(a["name"]), port) for a in adapters for port in a["ports"][:1]]
    hcas = tuple((name, str(port["guid"])) for name, port in ports if port["link_layer"] == "InfiniBand")
    serial = str(facts[probe.IDENTITY.name].value)
    rented = Rented(node.name, node.address, node.ssh_port, serial, hcas)
    product = str(facts[probe.PRODUCT.name].value)
    wrong = differences(rented, product, len(facts[probe.GPUS.name].value["gpus"]), profile)
    if wrong:
        raise UndecidedError("; ".join(wrong), f"is {profile.name} the profile?")
    return rented
