"""Which part explains the links that are down or slow: the largest that explains all of its links, else both ends.

Both ends say down: the cable cartridge between them. One end alone: that end's part, and what would settle it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from toolkit.judge.nvlink.codes import LinkTrouble
from toolkit.judge.nvlink.finding import Blame, NvlinkFinding, Standing, shortened
from toolkit.judge.nvlink.join import End, NvlinkView
from toolkit.rack.model import Port, Rack

K = TypeVar("K", bound=Hashable)
_MOST_ENDS = 32
_RESEAT = "reseat the cable cartridge at both ends; where the link stays down, exchange the cartridge"


def judge_links(rack: Rack, planned: Sequence[NvlinkView]) -> Iterator[NvlinkFinding]:
    """Findings about the links of the trays that were looked at, each link in one finding at most."""
    yield from _unread(planned)
    bad = frozenset(view.near for view in planned if view.bad)
    if bad and len(bad) == len(planned) and len({view.node for view in planned}) > 1:
        yield _everything(planned)
        return
    left = {view.near: view for view in planned if view.bad}
    for blame in (_switches, _chips, _trays, _gpus):
        for finding, group in blame(rack, planned, bad):
            explained = [view.near for view in group if view.near in left]
            if explained:  # a part inside one that is blamed already is not blamed once more
                yield finding
            for near in explained:
                del left[near]
    yield from _single(rack, tuple(left.values()))


def _unread(planned: Sequence[NvlinkView]) -> Iterator[NvlinkFinding]:
    """Links whose GPU did not say how they are. That nobody asked the switch is told once, in the report's notes."""
    unknown = [view for view in planned if view.near_end is End.UNKNOWN]
    for node, group in _by(unknown, lambda v: v.node).items():
        yield NvlinkFinding(
            "NVLINK_UNREAD", Standing.UNKNOWN, Blame.EVIDENCE,
            f"{node}: {len(group)} NVLinks were not shown by their GPUs", (node,),
            evidence=tuple(str(view.near) for view in group[:8]), settled_by="nvidia-smi nvlink -s on the node",
        )  # fmt: skip


def _everything(planned: Sequence[NvlinkView]) -> NvlinkFinding:
    return NvlinkFinding(
        "NVLINK_ALL_DOWN", Standing.FAIL, Blame.SYMPTOM, f"all {len(planned):,} planned NVLinks are down or slow",
        evidence=planned[0].words,
        settled_by="no single part does this: are the switch trays on, and is the cluster enabled on one of them?",
    )  # fmt: skip


# A finding and every planned link that it speaks of.
_Explained = Iterator[tuple[NvlinkFinding, Sequence[NvlinkView]]]


def _whole(
    planned: Iterable[NvlinkView], bad: frozenset[Port], key: Callable[[NvlinkView], K]
) -> Iterator[tuple[K, list[NvlinkView]]]:
    """Groups all of whose planned links are bad."""
    for name, group in _by(planned, key).items():
        if all(view.near in bad for view in group):
            yield name, group


def _switches(rack: Rack, planned: Sequence[NvlinkView], bad: frozenset[Port]) -> _Explained:
    """All links of a switch tray, from more than one compute tray."""
    cabled = [view for view in planned if view.switch is not None]
    for name, group in _whole(cabled, bad, lambda v: v.switch.unit if v.switch else ""):
        if len({view.node for view in group}) > 1:
            text = f"all {len(group)} links of switch tray {name} are {_state(group)}"
            settled = (
                "is it on, and does its NVOS answer? power, `nv show system health`; then exchange the switch tray"
            )
            yield _of_group("NVLINK_SWITCH_DOWN", Blame.SWITCH_TRAY, text, _unit(rack, name), group, settled, ()), group


def _chips(rack: Rack, planned: Sequence[NvlinkView], bad: frozenset[Port]) -> _Explained:
    """All links of one switch chip, from more than one compute tray."""
    cabled = [view for view in planned if view.switch is not None]
    for (name, link), group in _whole(cabled, bad, lambda v: v.chip):
        if len({view.node for view in group}) > 1:
            text = f"NVLink {link} of all {len(group)} GPUs is {_state(group)}: they share one chip of {name}"
            settled = f"`nv show system health` on {name}; then exchange the switch tray"
            yield _of_group("NVLINK_CHIP_DOWN", Blame.SWITCH_TRAY, text, _unit(rack, name), group, settled, ()), group


def _trays(rack: Rack, planned: Sequence[NvlinkView], bad: frozenset[Port]) -> _Explained:
    """All links of all GPUs of a tray."""
    for node, group in _whole(planned, bad, lambda v: v.node):
        if len({view.gpu for view in group}) > 1:
            text = f"all {len(group)} NVLinks of {node} are {_state(group)}"
            settled = "reseat the tray; where they stay down, exchange the tray"
            yield _of_group("NVLINK_TRAY_DOWN", Blame.TRAY, text, _unit(rack, node), group, settled), group


def _gpus(rack: Rack, planned: Sequence[NvlinkView], bad: frozenset[Port]) -> _Explained:
    """All links of a GPU, others of the tray up."""
    for (node, gpu), group in _whole(planned, bad, lambda v: (v.node, v.gpu)):
        text = f"all {len(group)} NVLinks of GPU {gpu} of {node} are {_state(group)}"
        part = f"GPU {gpu} of {_unit(rack, node)}"
        settled = "reset the GPU once, when nothing uses it; where they stay down, exchange it"
        yield _of_group("NVLINK_GPU_DOWN", Blame.GPU, text, part, group, settled), group


def _single(rack: Rack, left: Sequence[NvlinkView]) -> Iterator[NvlinkFinding]:
    """What is left, by where the two ends point, and by the pair of trays that the cartridge joins."""
    for (pointing, node, unit), group in _by(left, lambda v: (_points(v), v.node, _far_unit(v))).items():
        yield _pointing(rack, pointing, node, unit, group)


def _far_unit(view: NvlinkView) -> str:
    return view.switch.unit if view.switch else ""


def _points(view: NvlinkView) -> str:
    """Where a link's two ends point. The words are codes of findings."""
    troubles = set(view.troubles)
    if LinkTrouble.CLOSED in troubles:
        return "NVLINK_PORT_CLOSED"
    if troubles == {LinkTrouble.PENDING}:
        return "NVLINK_PORT_PENDING"
    if LinkTrouble.INTERNAL in troubles:
        return "NVLINK_SWITCH_PORT"
    if view.switch is None:
        return "NVLINK_LINK_DOWN" if view.near_end is End.DOWN else "NVLINK_SLOW"
    near, far = view.near_end, view.far_end
    if End.SLOW in (near, far) and End.DOWN not in (near, far):
        return "NVLINK_SLOW"
    if near is End.UNKNOWN or far is End.UNKNOWN:
        return "NVLINK_LINK_DOWN"
    if near is End.UP:
        return "NVLINK_SWITCH_PORT"
    return "NVLINK_GPU_PORT" if far is End.UP else "NVLINK_CABLE"


def _pointing(rack: Rack, code: str, node: str, unit: str, group: Sequence[NvlinkView]) -> NvlinkFinding:
    links = shortened([f"GPU {v.gpu} link {v.link}" for v in group])
    between = f"{node} and {unit}" if unit else node
    cartridge = f"cable cartridge between {_unit(rack, node)} and {_unit(rack, unit)}" if unit else ""
    match code:
        case "NVLINK_PORT_CLOSED":
            return _of_group(
                code, Blame.SOFTWARE, f"{links} of {node}: the port of {unit} was closed by a command", "", group,
                f"open it on {unit}: `nv set interface {_ports(group)} link state up`, `nv config apply`",
            )  # fmt: skip
        case "NVLINK_PORT_PENDING":
            found = _of_group(
                code, Blame.SYMPTOM, f"{links} of {node}: {unit} still looks for the cause", "", group,
                f"`nv show interface --view link-diagnostics` on {unit} in a minute",
            )  # fmt: skip
            return NvlinkFinding(found.code, Standing.HOLD, found.blame, found.text, found.nodes, found.part,
                                 found.ends, found.evidence, found.settled_by)  # fmt: skip
        case "NVLINK_SWITCH_PORT":
            return _of_group(
                code, Blame.SWITCH_TRAY, f"{links} of {node}: only the end at {unit} says so", _unit(rack, unit), group,
                f"exchange cartridges: where the fault stays with {_ports(group)}, it is the switch tray",
            )  # fmt: skip
        case "NVLINK_GPU_PORT":
            return _of_group(
                code, Blame.TRAY, f"{links} of {node}: only the GPU's end says so, {unit} sees its own up",
                _unit(rack, node), group,
                "reset the GPU once, when nothing uses it; where the link stays down, it is the tray",
            )  # fmt: skip
        case "NVLINK_CABLE":
            text = f"{links}: both ends, {between}, say that the link is down"
            return _of_group(code, Blame.CARTRIDGE, text, cartridge, group, _RESEAT)
        case "NVLINK_SLOW" if unit:
            return _of_group(
                code, Blame.CARTRIDGE, f"{links}: trained too slow between {between}", cartridge, group, _RESEAT
            )
    return _one_end(rack, code, node, unit, group, links)


def _one_end(rack: Rack, code: str, node: str, unit: str, group: Sequence[NvlinkView], links: str) -> NvlinkFinding:
    """Only one end is known, or there is no other: the NVSwitches are inside the node."""
    if not unit:
        gpus = sorted({view.gpu for view in group})
        part = f"GPU {', '.join(map(str, gpus))} of {_unit(rack, node)}"
        text = f"{links} of {node}: {_state(group)}"
        return _of_group(
            code, Blame.GPU, text, part, group, "nvidia-smi nvlink -s and -e; then the GPU, then the board"
        )
    part = f"cable cartridge, {_unit(rack, node)} or {_unit(rack, unit)}: only one end was seen"
    seen = "the GPU's" if group[0].far_end is End.UNKNOWN else "the switch's"
    text = f"{links} of {node}, to {unit}: {_state(group)}; only {seen} end was seen"
    other = f"`nv show interface --view link-diagnostics` on {unit}" if seen == "the GPU's" else "nvidia-smi nvlink -s"
    return _of_group(code, Blame.CARTRIDGE, text, part, group, f"read the other end before anything is pulled: {other}")


def _of_group(
    code: str,
    blame: Blame,
    text: str,
    part: str,
    group: Sequence[NvlinkView],
    settled_by: str,
    nodes: tuple[str, ...] | None = None,
) -> NvlinkFinding:
    ends = tuple(end for view in group for end in (view.near, view.switch) if end is not None)
    own = tuple(dict.fromkeys(view.node for view in group)) if nodes is None else nodes
    words = tuple(word for view in group for word in view.words)
    shown = (*words[:8], *((f"and {len(words) - 8} more",) if len(words) > 8 else ()))
    return NvlinkFinding(code, Standing.FAIL, blame, text, own, part, ends[:_MOST_ENDS], shown, settled_by)


def _state(group: Sequence[NvlinkView]) -> str:
    return "down" if any(End.DOWN in (v.near_end, v.far_end) for v in group) else "slow"


def _ports(group: Sequence[NvlinkView]) -> str:
    return shortened([view.switch.port for view in group if view.switch is not None])


def _unit(rack: Rack, name: str) -> str:
    """A unit as a technician finds it."""
    unit = rack.unit(name)
    return f"{unit.kind.value.replace('_', ' ')} {unit.name} (slot {unit.slot}, serial {unit.serial})"


def _by(items: Iterable[NvlinkView], key: Callable[[NvlinkView], K]) -> dict[K, list[NvlinkView]]:
    groups: dict[K, list[NvlinkView]] = defaultdict(list)
    for view in items:
        groups[key(view)].append(view)
    return groups
