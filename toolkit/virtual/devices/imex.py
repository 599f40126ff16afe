"""IMEX on a virtual node: the daemon that answers its peers, and `nvidia-imex-ctl`.

The daemon listens on SERVER_PORT (peers) and IMEX_CMD_PORT (questions). Whether two nodes are connected is found by
really connecting: a blocked port shows as it does on metal, the peer UNAVAILABLE with an empty version.

    nvidia-imex [-c FILE]          nvidia-imex-ctl -q | -N [-j] | -H    [-c FILE]
"""

from __future__ import annotations

import argparse
import json
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .services import notify, settings
from .state import NoDriverError, packed_version, read

_CONFIG = "/etc/nvidia-imex/config.cfg"
_PATIENCE_SECONDS = 1.0
_LEGEND = """Connectivity Table Legend:
I - Invalid - Node wasn't reachable, no connection status available
N - Never Connected
R - Recovering - Connection was lost, but clean up has not yet been triggered.
D - Disconnected - Connection was lost, and clean up has been triggreed.
A - Authenticating - If GSSAPI enabled, client has initiated mutual authentication.
!V! - Version mismatch, communication disabled.
!M! - Node map mismatch, communication disabled.
C - Connected - Ready for operation
"""


@dataclass(frozen=True)
class Domain:
    """Who belongs to the IMEX domain and where they listen, from NVIDIA's two files."""

    peers: tuple[str, ...]
    server_port: int
    command_port: int


@dataclass(frozen=True)
class Node:
    """One node's answer: READY and its version, with how it is connected to each peer; or UNAVAILABLE."""

    host: str
    status: str
    version: str
    connections: tuple[str, ...]


def load(config: Path) -> Domain:
    """The domain of a configuration file; the node list may be empty."""
    values = settings(config.read_text()) if config.exists() else {}
    nodes = Path(values.get("IMEX_NODE_CONFIG_FILE", "/etc/nvidia-imex/nodes_config.cfg"))
    lines = nodes.read_text().splitlines() if nodes.exists() else []
    peers = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    return Domain(peers, int(values.get("SERVER_PORT", "50000")), int(values.get("IMEX_CMD_PORT", "50005")))


def daemon(arguments: Sequence[str] | None = None) -> int:
    """`nvidia-imex`: answers until it is stopped. Ends by itself where the driver is of another version."""
    options = _options("nvidia-imex", arguments)
    try:
        driver = read().values["driver"]
    except NoDriverError:
        return _fail("nvidia-imex: NVIDIA driver is not loaded")
    own = packed_version("nvidia-imex")
    if own not in (driver, "unpacked"):
        return _fail(f"nvidia-imex: version {own} does not match the driver version {driver}")
    domain = load(Path(options.config))

    def answer() -> str:
        connections = ["C" if _reachable(peer, domain.server_port) else "N" for peer in domain.peers]
        return json.dumps({"status": "READY", "version": driver, "connections": connections})

    for port, reply in ((domain.server_port, lambda: ""), (domain.command_port, answer)):
        server = _Server(("0.0.0.0", port), _handler(reply))  # noqa: S104 - peers ask from other machines
        threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"nvidia-imex {driver} ready: {len(domain.peers)} nodes\n")
    sys.stdout.flush()
    notify("READY=1")
    threading.Event().wait()
    return 0


def control(arguments: Sequence[str] | None = None) -> int:
    """`nvidia-imex-ctl`; returns its exit code. `-q` asks this node alone, `-N` every node of the domain."""
    options = _options("nvidia-imex-ctl", arguments)
    domain = load(Path(options.config))
    if options.query:
        mine = _ask("127.0.0.1", domain)
        if mine.status != "READY":
            return _fail("Connection failed.")
        sys.stdout.write("READY\n")
        return 0
    if not options.nodes:
        return _fail("nvidia-imex-ctl: one of -q, -N is needed")
    nodes = [_ask(peer, domain) for peer in domain.peers]
    sys.stdout.write(_as_json(nodes) if options.json else _as_table(nodes))
    return 0


def _state(nodes: Sequence[Node]) -> str:
    whole = all(node.status == "READY" and set(node.connections) == {"C"} for node in nodes)
    if nodes and whole:
        return "UP"
    return "DEGRADED" if any(node.status == "READY" for node in nodes) else "DOWN"


def _as_table(nodes: Sequence[Node]) -> str:
    mine = _own_addresses()
    lines = [_LEGEND, time.strftime("%m/%d/%Y %H:%M:%S.000"), "Nodes:"]
    for number, node in enumerate(nodes):
        left, right = ("*", "*") if node.host in mine else ("-", "-")
        lines.append(f"Node #{number:<3} {left} {node.host:<15} {right} - {node.status:<20} - Version: {node.version}")
    lines += ["", " Nodes From\\To  " + "  ".join(f"{n:<3}" for n in range(len(nodes)))]
    lines += [f"       {n:<8} " + "  ".join(f"{c:<3}" for c in node.connections) for n, node in enumerate(nodes)]
    return "\n".join([*lines, f"Domain State: {_state(nodes)}", ""])


def _as_json(nodes: Sequence[Node]) -> str:
    words = {"C": "CONNECTED", "N": "NEVER_CONNECTED", "I": "INVALID"}
    shown = {
        str(number): {
            "host": node.host,
            "status": node.status,
            "version": node.version,
            "connections": {
                str(to): {"host": nodes[to].host, "status": words[c]} for to, c in enumerate(node.connections)
            },
        }
        for number, node in enumerate(nodes)
    }
    at = time.strftime("%m/%d/%Y %H:%M:%S.000")
    return json.dumps({"nodes": shown, "timestamp": at, "status": _state(nodes)}) + "\n"


def _ask(host: str, domain: Domain) -> Node:
    try:
        with socket.create_connection((host, domain.command_port), _PATIENCE_SECONDS) as link:
            said = json.loads(link.makefile("r").read() or "{}")
        return Node(host, said["status"], said["version"], tuple(said["connections"]))
    except (OSError, ValueError, KeyError):
        return Node(host, "UNAVAILABLE", "", ("I",) * len(domain.peers))


def _reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


def _own_addresses() -> set[str]:
    """Every address at which a packet to a peer would leave this machine for itself."""
    name = socket.gethostname()
    try:
        return {name, *(str(found[4][0]) for found in socket.getaddrinfo(name, None))}
    except OSError:
        return {name}


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def _handler(reply: object) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            text = reply() if callable(reply) else ""
            self.request.sendall(text.encode())

    return Handler


def _options(program: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("-c", "--config", default=_CONFIG)
    parser.add_argument("-q", dest="query", action="store_true")
    parser.add_argument("-N", dest="nodes", action="store_true")
    parser.add_argument("-j", dest="json", action="store_true")
    return parser.parse_args(arguments)


def _fail(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1
