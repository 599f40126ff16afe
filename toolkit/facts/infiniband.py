"""`ibstat`: host channel adapters and their ports. Text in, `Adapters` out.

    CA 'mlx5_0'
            CA type: MT4129
            Port 1:
                    State: Active
                    Physical state: LinkUp
                    Rate: 400

The rate is in Gb/s as the tool prints it, and the port's own, whatever its partner can do.

SuperBench's cache of `ibstat` on many hosts is read too: `VM_hostname NAME`, then the node GUIDs of that host's HCAs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_ADAPTERS = 256
MAX_PORTS = 64
MAX_HOSTS = 65_536
_ADAPTER = re.compile(r"\s{0,8}CA '([^']{1,64})'")
_HOST = re.compile(r"VM_hostname (\S{1,255})\s{0,8}")
_BARE_GUID = re.compile(r"(?:0x)?([0-9a-fA-F]{16})\s{0,8}")
_PORT = re.compile(r"\s{0,16}Port (\d{1,3}):\s{0,4}$")
_STATE = re.compile(r"\s{0,32}(Physical )?[Ss]tate: {0,4}(\w{1,32})")
_FIELD = re.compile(r"\s{0,32}([A-Za-z][A-Za-z ]{1,40}):\s{0,8}(.{0,128}?)\s{0,8}$")


@dataclass(frozen=True, slots=True)
class Port:
    """One port. Words as printed; `rate_gbit_per_s` in Gb/s; None where the line is missing or no number."""

    number: int
    state: str | None
    physical_state: str | None
    rate_gbit_per_s: float | None
    base_lid: int | None
    sm_lid: int | None
    guid: str | None
    link_layer: str | None

    def as_json(self) -> dict[str, Any]:
        """Every field."""
        return {
            "port": self.number,
            "state": self.state,
            "physical_state": self.physical_state,
            "rate_gbit_per_s": self.rate_gbit_per_s,
            "base_lid": self.base_lid,
            "sm_lid": self.sm_lid,
            "guid": self.guid,
            "link_layer": self.link_layer,
        }


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter; its name is the device's (`mlx5_0`)."""

    name: str
    type: str | None
    firmware: str | None
    node_guid: str | None
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Adapters:
    """What one call of ibstat says. The states are of all ports, also of an excerpt that names no adapter.

    `hosts`: node GUIDs by host, where the text is a cache of many hosts.
    """

    adapters: tuple[Adapter, ...]
    states: tuple[str, ...]
    physical_states: tuple[str, ...]
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Adapters in the order printed; `ok`: every port is Active and LinkUp; `guids` of hosts that have some."""
        many = {"hosts": len(self.hosts), "guids": {h: g[0] if len(g) == 1 else list(g) for h, g in self.hosts}}
        return (many if self.hosts else {}) | {
            "adapters": [
                {
                    "name": a.name,
                    "type": a.type,
                    "firmware": a.firmware,
                    "node_guid": a.node_guid,
                    "ports": [p.as_json() for p in a.ports],
                }
                for a in self.adapters
            ],
            "state": list(self.states),
            "physical": list(self.physical_states),
            "ok": set(self.states) == {"Active"} and set(self.physical_states) == {"LinkUp"},
        }

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting the numbers."""
        bare = tuple(f"{a.name}: no port was printed" for a in self.adapters if not a.ports)
        return bare + tuple(f"{host!a}: no GUID was printed" for host, guids in self.hosts if not guids)


@dataclass(slots=True)
class _Open:
    name: str
    fields: dict[str, str] = field(default_factory=dict)
    ports: list[tuple[int, dict[str, str]]] = field(default_factory=list)


def parse(text: str) -> Adapters:
    """Reads ibstat's report. Never raises: text that names no adapter gives none."""
    adapters: list[_Open] = []
    states: list[str] = []
    physical_states: list[str] = []
    hosts: dict[str, list[str]] = {}
    for line in text[:MAX_CHARACTERS].split("\n"):
        if state := _STATE.match(line):
            (physical_states if state[1] else states).append(state[2])
        if header := _ADAPTER.match(line):
            if len(adapters) < MAX_ADAPTERS:
                adapters.append(_Open(header[1]))
        elif adapters:
            _read(line, adapters[-1])
        else:
            _read_host(line, hosts)
    cached = tuple((host, tuple(guids)) for host, guids in hosts.items())
    return Adapters(tuple(_close(a) for a in adapters), tuple(states), tuple(physical_states), cached)


def _read_host(line: str, hosts: dict[str, list[str]]) -> None:
    if (host := _HOST.fullmatch(line)) and len(hosts) < MAX_HOSTS:
        hosts.setdefault(host[1], [])
    elif hosts and (guid := _BARE_GUID.fullmatch(line)):
        guids = hosts[next(reversed(hosts))]
        guids += [guid[1].lower()] if len(guids) < MAX_ADAPTERS else []


def _read(line: str, adapter: _Open) -> None:
    if port := _PORT.match(line):
        if len(adapter.ports) < MAX_PORTS:
            adapter.ports.append((int(port[1]), {}))
    elif said := _FIELD.match(line):
        fields = adapter.ports[-1][1] if adapter.ports else adapter.fields
        fields[said[1].lower()] = said[2]


def _close(adapter: _Open) -> Adapter:
    return Adapter(
        name=adapter.name,
        type=adapter.fields.get("ca type"),
        firmware=adapter.fields.get("firmware version"),
        node_guid=adapter.fields.get("node guid"),
        ports=tuple(_port(number, fields) for number, fields in adapter.ports),
    )


def _port(number: int, said: dict[str, str]) -> Port:
    return Port(
        number=number,
        state=said.get("state"),
        physical_state=said.get("physical state"),
        rate_gbit_per_s=_rate(said.get("rate")),
        base_lid=_lid(said.get("base lid")),
        sm_lid=_lid(said.get("sm lid")),
        guid=said.get("port guid"),
        link_layer=said.get("link layer"),
    )


def _rate(text: str | None) -> float | None:
    match = re.match(r"\d{1,6}(?:\.\d{1,3})?(?=\s|$)", text or "")
    return float(match[0]) if match else None


def _lid(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 6 else None
