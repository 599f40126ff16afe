"""Ends of links, as each port tells them, put together to links. Both ends of a link must tell the same."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from toolkit.facts.fabric_text import Doubts
from toolkit.judge.fabric.seen import SeenLink, SeenPort

Key = tuple[str, int]  # GUID, port number


class End(NamedTuple):
    """What a port says of the other end, and of the link: None and empty where it does not know."""

    peer: Key
    lanes: int | None
    speed: str


class Ends:
    """The ports of one walk that have something behind them."""

    def __init__(self) -> None:
        self.ends: dict[Key, End] = {}

    def add(self, port: Key, end: End, doubts: Doubts) -> None:
        """What a port says. A port that speaks twice must say the same."""
        if self.ends.setdefault(port, end) != end:
            doubts.add("ports shown twice, with different ends", named(port))

    def links(self, nodes: Container[str], doubts: Doubts) -> tuple[SeenLink, ...]:
        """The links between the nodes. One that only one end tells of is kept, with a doubt."""
        found: list[SeenLink] = []
        for port, end in self.ends.items():
            back = self.ends.get(end.peer)
            if end.peer[0] not in nodes:
                doubts.add(
                    "nodes that are named at the end of a link and not described", f"{end.peer[0]} on {named(port)}"
                )
            elif port[0] not in nodes or port == end.peer:
                doubts.add("ports with an end that cannot be", f"{named(port)} - {named(end.peer)}")
            elif back is None:
                doubts.add("links that one end tells of and the other does not", f"{named(port)} - {named(end.peer)}")
                found.append(_link(port, end.peer, end.lanes, end.speed))
            elif back.peer != port:
                doubts.add("ports that name an end which names another", f"{named(port)} - {named(end.peer)}")
            elif port < end.peer:
                found.append(_agreed(port, end, back, doubts))
        return tuple(found)

    def along(self, start: str, hops: list[int]) -> Key | None:
        """The port that a directed route leaves its last node by: `hops` are the ports out of each node."""
        guid = start
        for hop in hops[:-1]:
            end = self.ends.get((guid, hop))
            if end is None:
                return None
            guid = end.peer[0]
        return (guid, hops[-1]) if hops else None


def named(port: Key) -> str:
    """A port in a doubt."""
    return f"{port[0]}[{port[1]}]"


def _agreed(port: Key, end: End, back: End, doubts: Doubts) -> SeenLink:
    lanes, speed = end.lanes, end.speed
    if (lanes, speed) != (back.lanes, back.speed):
        doubts.add("links whose ends say different widths or speeds", f"{named(port)} - {named(end.peer)}")
        lanes, speed = (lanes if lanes == back.lanes else None), (speed if speed == back.speed else "")
    return _link(port, end.peer, lanes, speed)


def _link(port: Key, peer: Key, lanes: int | None, speed: str) -> SeenLink:
    (a, b) = sorted((port, peer))
    return SeenLink(SeenPort(*a), SeenPort(*b), lanes, speed)
