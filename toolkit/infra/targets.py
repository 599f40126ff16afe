"""Which hosts are asked: the nodes of a rack, or those of `--hosts`, matched with the rack by name and by address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.errors import UsageError
from toolkit.rack.model import Rack, Unit, UnitKind

OWN = "rackproof"  # the connection of ours: pinned host keys and this installation's login key


@dataclass(frozen=True, slots=True)
class Named:
    """A host of `--hosts`, as its connection knows it.

    names    its name in the inventory and the address it is reached at
    address  that address; `port` where one was given
    """

    spec: str
    names: tuple[str, ...]
    address: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A host that is asked. `unit` is its place in the rack, None where no plan is at hand; `why` then says so."""

    name: str
    spec: str
    unit: Unit | None
    why: str = ""

    @property
    def planned(self) -> bool:
        """Whether a plan says what it should be."""
        return self.unit is not None

    @property
    def asked_as(self) -> Unit:
        """What a shell is given: its unit, or one that has its name and nothing else."""
        return self.unit or Unit(self.name, UnitKind.NODE, "", 0)


def of_rack(rack: Rack) -> tuple[Target, ...]:
    """Every node of the rack."""
    return tuple(Target(node.name, f"{OWN}://{node.name}", node) for node in rack.nodes)


def matched(rack: Rack | None, hosts: Sequence[Named]) -> tuple[Target, ...]:
    """The hosts with their places in the rack.

    UsageError where two hosts are one node, where one host has the name of a node and the address of another, and where
    nobody would be asked: a green session that asked no node of its rack would be a pass of nothing.
    """
    found = tuple(_matched(rack, host) for host in hosts)
    if not found:
        raise UsageError("--hosts names no host", "look at the inventory and its pattern: ansible-inventory --graph")
    taken: dict[str, Target] = {}
    for target in found:
        other = taken.setdefault(target.unit.name if target.unit else f"host {target.name}", target)
        if other is not target:
            raise UsageError(f"{other.spec} and {target.spec} are one host, {target.name}", "name it once in --hosts")
    if rack is not None and not any(target.planned for target in found):
        named = ", ".join(target.name for target in found[:8])
        raise UsageError(
            f"none of {named} is a node of {rack.name}",
            f"its names and addresses: rackproof inventory {rack.name} --list",
        )
    return found


def _matched(rack: Rack | None, host: Named) -> Target:
    name = host.names[0]
    if rack is None:
        return Target(name, host.spec, None, "no rack was given: --rack RACK has the plan that this needs")
    units = list(dict.fromkeys((*_by_name(rack.nodes, host), *_by_address(rack.nodes, host))))
    if len(units) > 1:
        who = " and ".join(unit.name for unit in units)
        raise UsageError(
            f"{host.spec} is {who} of {rack.name} at once, by name and by address",
            "correct the inventory of --hosts, or the rack file",
        )
    if not units:
        return Target(name, host.spec, None, f"{name} is no node of {rack.name}, neither by name nor by address")
    return Target(units[0].name, host.spec, units[0])


def _by_name(nodes: Iterable[Unit], host: Named) -> list[Unit]:
    return [node for node in nodes if node.name in host.names]


def _by_address(nodes: Iterable[Unit], host: Named) -> list[Unit]:
    """Several nodes may share an address behind different ports: then the port tells."""
    here = [n for n in nodes if n.host is not None and n.host.address in (host.address, *host.names)]
    by_port = [n for n in here if n.host is not None and n.host.ssh_port == (host.port or 22)]
    return by_port if host.port is not None or len(here) > 1 else here
