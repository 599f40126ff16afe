"""Every planned NVLink seen from both ends: the GPU's link state and rate, the switch port's diagnostics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from toolkit.judge.nvlink.codes import LinkTrouble, trouble_of
from toolkit.judge.nvlink.seen import GpuSeen, PortSeen, SwitchSeen, TraySeen
from toolkit.rack.gate import Operator
from toolkit.rack.model import LinkKind, Port, Profile, Rack

_GPU_PORT = re.compile(r"gpu(\d{1,2})\.nvlink(\d{1,2})")
_GPU_GONE = "the GPU does not answer"


class End(StrEnum):
    """One end of a link as it was seen."""

    UP = "up"
    SLOW = "slow"
    DOWN = "down"
    GONE = "gone"  # the tray was read, and the GPU is not there
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class NvlinkView:
    """A planned link. `switch` is None where the plan has no far end (the NVSwitches are inside the node).

    troubles   what the switch port's codes speak of
    words      what was seen at either end, in the tools' words
    """

    node: str
    gpu: int
    link: int
    near: Port
    switch: Port | None
    near_end: End
    far_end: End
    troubles: tuple[LinkTrouble, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether either end says that the link is not as it should be. A GPU that is gone is not its link's fault."""
        return End.GONE is not self.near_end and bool({self.near_end, self.far_end} & {End.DOWN, End.SLOW})

    @property
    def chip(self) -> tuple[str, int]:
        """The switch chip: link k of every GPU goes to one chip of the rack, two chips a tray (GB200 NVL72)."""
        return (self.switch.unit if self.switch else "", self.link)


def views(rack: Rack, trays: Sequence[TraySeen], switches: Sequence[SwitchSeen]) -> tuple[NvlinkView, ...]:
    """All planned links: those of the rack file, else those that the profile gives each GPU."""
    gpus = {(tray.node, gpu.index): gpu for tray in trays for gpu in tray.gpus or ()}
    read = {tray.node for tray in trays if tray.gpus}
    ports = {(s.unit, port.name): port for s in switches if s.ports is not None for port in s.ports}
    least = least_rate(rack.profile)
    looked = {tray.node for tray in trays}
    found = []
    for node, gpu, link, near, far in _planned(rack):
        if node not in looked:
            continue
        near_end, near_words = _near(gpus.get((node, gpu)), link, least, gone=node in read)
        far_end, troubles, far_words = _far(ports.get((far.unit, far.port)) if far else None)
        words = tuple(f"{end}: {word}" for end, word in ((near, near_words), (far, far_words)) if word)
        found.append(NvlinkView(node, gpu, link, near, far, near_end, far_end, troubles, words))
    return tuple(found)


def _planned(rack: Rack) -> Iterator[tuple[str, int, int, Port, Port | None]]:
    cabled = [link for link in rack.links if link.kind is LinkKind.NVLINK]
    nodes = {node.name for node in rack.nodes}
    for cable in cabled:
        near, far = (cable.a, cable.b) if cable.a.unit in nodes else (cable.b, cable.a)
        port = _GPU_PORT.fullmatch(near.port)
        if port is not None:
            yield near.unit, int(port[1]), int(port[2]), near, far
    if cabled:
        return
    for node in rack.nodes:
        for gpu in node.gpus:
            for link in range(rack.profile.nvlinks_per_gpu):
                yield node.name, gpu.index, link, Port(node.name, f"gpu{gpu.index}.nvlink{link}"), None


def least_rate(profile: Profile) -> float | None:
    """GB/s one way below which a link trained too slow: the limit of the profile's gate, which has its source there."""
    limits = [
        gate.limit
        for gate in profile.gates
        if gate.metric == "nvlink_gb_per_s" and gate.operator is Operator.AT_LEAST
        and isinstance(gate.limit, int | float)
    ]  # fmt: skip
    return float(max(limits)) if limits else None


def _near(gpu: GpuSeen | None, link: int, least: float | None, *, gone: bool) -> tuple[End, str]:
    if gpu is None:
        return (End.GONE, _GPU_GONE) if gone else (End.UNKNOWN, "")
    if gpu.all_inactive:
        return End.DOWN, "all links of the GPU are inactive"
    rates: Mapping[int, float | None] = dict(gpu.rates or ())
    if link not in rates:
        return End.UNKNOWN, ""
    rate = rates[link]
    if rate is None:
        return End.DOWN, "inactive"
    if least is not None and rate < least:
        return End.SLOW, f"{rate:g} GB/s, at least {least:g} expected"
    return End.UP, ""


def _far(port: PortSeen | None) -> tuple[End, tuple[LinkTrouble, ...], str]:
    if port is None or not port.codes:
        return End.UNKNOWN, (), ""
    troubles = tuple(dict.fromkeys(trouble_of(code) for code, _ in port.trouble))
    words = ", ".join(f"code {code} {text}".strip() for code, text in port.trouble)
    if not troubles:
        return End.UP, (), ""
    if set(troubles) <= {LinkTrouble.UNKNOWN} and all(code == 1023 for code, _ in port.trouble):
        return End.UNKNOWN, troubles, words  # "information not available"
    return (End.SLOW if set(troubles) == {LinkTrouble.SPEED} else End.DOWN), troubles, words
