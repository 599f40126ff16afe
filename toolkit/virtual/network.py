"""The rack's two networks, in network namespaces of our own: nothing of them is visible on the host.

switch      bridges `inband` and `oob`
controller  inband0 10.66.255.1, oob0 10.67.255.1: provisioning server and operator's processes
bmcs        oob0 with one /32 per BMC
unit-NAME   eth0 with the node's MAC; its address comes by DHCP
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from toolkit.errors import RackproofError, UsageError
from toolkit.rack.model import Rack, Unit
from toolkit.virtual.layout import Layout
from toolkit.virtual.programs import run

IN_BAND = IPv4Network("10.66.0.0/16")
OUT_OF_BAND = IPv4Network("10.67.0.0/16")
CONTROLLER_IN_BAND = IPv4Address("10.66.255.1")
CONTROLLER_OUT_OF_BAND = IPv4Address("10.67.255.1")
NODE_INTERFACE = "eth0"
NAMESPACES = Path("/run/netns")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands for one call of `ip -batch`, in a namespace or (None) on the host."""

    namespace: str | None
    commands: tuple[str, ...]


def bmc_units(rack: Rack) -> tuple[Unit, ...]:
    """Nodes that have a BMC: a rented node has none."""
    return tuple(unit for unit in rack.nodes if unit.bmc is not None)


def check_addresses(rack: Rack) -> None:
    """Raises UsageError for an address that the virtual networks do not carry."""
    for unit in rack.nodes:
        if unit.host is None:
            raise UsageError(f"rack {rack.name}: {unit.name} has no host", "a virtual node needs `host:`")
        _check(rack, unit.name, unit.host.address, IN_BAND, CONTROLLER_IN_BAND)
        if unit.bmc is not None:
            _check(rack, unit.name, unit.bmc.address, OUT_OF_BAND, CONTROLLER_OUT_OF_BAND)
    for unit in rack.units:
        if unit.nvos is not None:
            _check(rack, unit.name, unit.nvos.address, OUT_OF_BAND, CONTROLLER_OUT_OF_BAND)


def _check(rack: Rack, unit: str, address: str, network: IPv4Network, controller: IPv4Address) -> None:
    try:
        parsed = IPv4Address(address)
    except ValueError:
        parsed = None
    if parsed is None or parsed not in network or parsed == controller:
        raise UsageError(
            f"rack {rack.name}: {unit} has address {address}, which the virtual rack cannot give it",
            f"a virtual rack's addresses lie in {network}, without {controller}",
        )


def plan(layout: Layout, rack: Rack) -> tuple[Batch, ...]:
    """Everything `build` will tell ip(8), in order."""
    switch, controller, bmcs = layout.switch, layout.controller, layout.bmcs
    nodes = rack.nodes
    ports = [f"node{index}" for index in range(len(nodes))]  # interface names are at most 15 characters
    return (
        Batch(None, tuple(f"netns add {name}" for name in _namespaces(layout, rack))),
        Batch(switch, tuple(_switch_commands(layout))),
        Batch(
            controller,
            (
                "link set lo up",
                f"address add {CONTROLLER_IN_BAND}/{IN_BAND.prefixlen} dev inband0",
                f"address add {CONTROLLER_OUT_OF_BAND}/{OUT_OF_BAND.prefixlen} dev oob0",
                "link set inband0 up",
                "link set oob0 up",
            ),
        ),
        Batch(
            bmcs,
            (
                "link set lo up",
                "link set oob0 up",
                # /32s beside a route: deleting the first address of a shared subnet deletes the others with it
                f"route add {OUT_OF_BAND} dev oob0",
                *(f"address add {unit.bmc.address}/32 dev oob0" for unit in bmc_units(rack) if unit.bmc),
                *(f"address add {unit.nvos.address}/32 dev oob0" for unit in rack.units if unit.nvos),
            ),
        ),
        Batch(switch, tuple(_port_commands(layout, nodes, ports))),
        *(Batch(layout.namespace(unit.name), ("link set lo up",)) for unit in nodes),
    )


def _namespaces(layout: Layout, rack: Rack) -> tuple[str, ...]:
    nodes = tuple(layout.namespace(unit.name) for unit in rack.nodes)
    return (layout.switch, layout.controller, layout.bmcs, *nodes)


def _switch_commands(layout: Layout) -> Iterator[str]:
    yield "link set lo up"
    for bridge in ("inband", "oob"):
        yield f"link add {bridge} type bridge mcast_snooping 0"
        yield f"link set {bridge} up"
    ends = (("inband", layout.controller, "inband0"), ("oob", layout.controller, "oob0"), ("oob", layout.bmcs, "oob0"))
    for index, (bridge, namespace, name) in enumerate(ends):
        yield f"link add uplink{index} type veth peer name {name} netns {namespace}"
        yield f"link set uplink{index} master {bridge} up"


def _port_commands(layout: Layout, nodes: tuple[Unit, ...], ports: list[str]) -> Iterator[str]:
    for unit, port in zip(nodes, ports, strict=True):
        if unit.host is None:
            continue  # check_addresses has refused such a rack
        peer = f"name {NODE_INTERFACE} address {unit.host.mac} netns {layout.namespace(unit.name)}"
        yield f"link add {port} type veth peer {peer}"
        yield f"link set {port} master inband up"


def build(layout: Layout, rack: Rack) -> None:
    """Makes the namespaces, bridges and wires. The caller has made sure that none of them exists."""
    check_addresses(rack)
    for batch in plan(layout, rack):
        _ip_batch(batch)
    # A BMC that lost its address must be silent: with forwarding its namespace would answer "unreachable".
    inside(layout.bmcs, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("0"))


def remove(name: str) -> None:
    """Deletes a network namespace by name."""
    run(["ip", "netns", "delete", name])


def existing() -> tuple[str, ...]:
    """Names of all network namespaces of the host that have one."""
    return tuple(sorted(path.name for path in NAMESPACES.iterdir())) if NAMESPACES.is_dir() else ()


def enter(namespace: str) -> None:
    """Moves the calling thread into the namespace; threads it starts later are born there."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns comes with Python 3.12
    try:
        handle = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError(f"there is no network namespace {namespace}", "`rackproof virtual up` makes it") from error
    try:
        if libc.setns(handle, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            hint = "run it as root" if code == errno.EPERM else ""
            raise UsageError(f"cannot enter network namespace {namespace}: {os.strerror(code)}", hint)
    finally:
        os.close(handle)


def inside(namespace: str, action: Callable[[], _Result]) -> _Result:
    """Calls `action` in a thread of its own inside the namespace. Sockets made there stay there."""
    results: list[_Result] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            enter(namespace)
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread and raised there
            errors.append(error)

    thread = threading.Thread(target=body, name=f"inside {namespace}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def unplug_bmc(layout: Layout, address: str) -> None:
    """The BMC's address goes away: nothing answers on the wire any more."""
    if address in _addresses(layout.bmcs):
        _ip_batch(Batch(layout.bmcs, (f"address delete {address}/32 dev oob0",)))


def plug_bmc(layout: Layout, address: str) -> None:
    """The BMC's address is back."""
    if address not in _addresses(layout.bmcs):
        # The route too: it went with the interface's last address, where this is the only BMC.
        again = (f"address add {address}/32 dev oob0", f"route replace {OUT_OF_BAND} dev oob0")
        _ip_batch(Batch(layout.bmcs, again))


def power_cycle(layout: Layout, node: str) -> None:
    """What a reset does to a node's network: link down, no address, and no interface that software had made."""
    namespace = layout.namespace(node)
    links = json.loads(run(["ip", "-n", namespace, "-json", "link", "show"]))
    made = [link["ifname"] for link in links if link["ifname"] not in ("lo", NODE_INTERFACE)]
    fallbacks = {"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}
    deletions = (f"link delete {name}" for name in made if name not in fallbacks)  # the kernel's own cannot go
    flushed = (f"address flush dev {NODE_INTERFACE}", f"link set {NODE_INTERFACE} down")
    _ip_batch(Batch(namespace, (*deletions, *flushed)))


def configure(layout: Layout, node: str, address: str, prefix: int) -> None:
    """Gives the node's boot interface an address, as its firmware does."""
    _ip_batch(
        Batch(
            layout.namespace(node),
            (
                f"address flush dev {NODE_INTERFACE}",
                f"address add {address}/{prefix} dev {NODE_INTERFACE}",
                f"link set {NODE_INTERFACE} up",
            ),
        )
    )


def link_up(layout: Layout, node: str) -> None:
    """Brings the boot interface up without an address. The bridge forwards its packets up to a second later."""
    _ip_batch(Batch(layout.namespace(node), (f"link set {NODE_INTERFACE} up",)))


def release(layout: Layout, node: str) -> None:
    """Takes the boot interface's address away; the link stays up."""
    _ip_batch(Batch(layout.namespace(node), (f"address flush dev {NODE_INTERFACE}",)))


def _addresses(namespace: str) -> frozenset[str]:
    links = json.loads(run(["ip", "-n", namespace, "-json", "address", "show"]))
    return frozenset(entry["local"] for link in links for entry in link["addr_info"])


def _ip_batch(batch: Batch) -> None:
    where = ["-n", batch.namespace] if batch.namespace else []
    text = "\n".join(batch.commands) + "\n"
    try:
        run(["ip", *where, "-batch", "-"], text)
    except RackproofError as error:
        raise RackproofError(f"wiring the virtual rack ({batch.namespace or 'host'}): {error.message}") from error
