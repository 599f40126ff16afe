"""`nvidia-imex-ctl -N -j`: the IMEX domain as one node sees it. JSON in, `ImexReport` out.

    {"status": "UP", "timestamp": "...", "nodes": {"0": {"host": "10.0.0.1", "status": "READY", "version": "580.95.05",
     "connections": {"0": {"host": "10.0.0.1", "status": "CONNECTED"}}}, ...}}

Nodes and connections come as objects by number or as lists, with the release. `-q` is no domain: it says only whether
the node's own daemon is ready, and is never read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.facts.unreadable import UnreadableError
from toolkit.judge.nvlink.seen import ImexPeer, ImexSeen

MAX_CHARACTERS = 1024 * 1024
MAX_NODES, MAX_WORD = 128, 64


@dataclass(frozen=True, slots=True)
class ImexReport:
    """The domain, or (absent) that the tool is not installed."""

    domain: ImexSeen | None

    def as_json(self) -> dict[str, Any]:
        """Status and peers; `installed` is false where there is no tool to ask."""
        if self.domain is None:
            return {"installed": False, "status": None, "peers": []}
        return {"installed": True, "status": self.domain.status, "peers": [asdict(p) for p in self.domain.peers]}

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting it."""
        if self.domain is None:
            return ("nvidia-imex-ctl is not installed",)
        return () if self.domain.peers else ("it names no node",)


ABSENT = "not installed"


def parse(text: str) -> ImexReport:
    """Reads the JSON; text around it is skipped. Raises UnreadableError for anything else."""
    if text.strip() == ABSENT:
        return ImexReport(None)
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin or len(text) > MAX_CHARACTERS:
        raise UnreadableError("no JSON object in it: not the output of `nvidia-imex-ctl -N -j`")
    try:
        found = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"not JSON: {type(error).__name__}") from error
    status, nodes = found.get("status"), _entries(found.get("nodes"))
    if not isinstance(status, str) or not status or nodes is None:
        raise UnreadableError("no `status` and `nodes` in it: not the output of `nvidia-imex-ctl -N -j`")
    hosts = {key: _host(node, key) for key, node in nodes}
    peers = tuple(
        ImexPeer(hosts[key], _word(node.get("status")), _word(node.get("version")), tuple(_connections(node, hosts)))
        for key, node in nodes
    )
    return ImexReport(ImexSeen(_word(status).upper(), peers))


def _entries(raw: object) -> list[tuple[str, dict[str, Any]]] | None:
    """Entries by number, of an object or a list; None for anything else."""
    if isinstance(raw, dict):
        pairs: Iterable[tuple[object, object]] = raw.items()
    elif isinstance(raw, list):
        pairs = enumerate(raw)
    else:
        return None
    found = [(str(key)[:MAX_WORD], entry) for key, entry in pairs]
    if len(found) > MAX_NODES:
        raise UnreadableError(f"{len(found)} nodes, more than {MAX_NODES}")
    if any(not isinstance(entry, dict) for _, entry in found):
        raise UnreadableError("a node that is no JSON object")
    return [(key, entry) for key, entry in found if isinstance(entry, dict)]


def _connections(node: dict[str, Any], hosts: dict[str, str]) -> Iterable[tuple[str, str]]:
    """How the node is connected, by the other's host."""
    for key, entry in _entries(node.get("connections")) or ():
        yield _word(entry.get("host")) or hosts.get(key, key), _word(entry.get("status")).upper()


def _host(node: dict[str, Any], key: str) -> str:
    return _word(node.get("host")) or _word(node.get("hostName")) or f"node {key}"


def _word(value: object) -> str:
    """A word of the tool, bounded and printable; empty for what is no text."""
    text = value if isinstance(value, str) else ""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_WORD]).strip()
