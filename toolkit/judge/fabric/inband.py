"""Ethernet cables of the plan against what LLDP hears. The same moves as in the fabric, where both ends are known."""

from __future__ import annotations

import re
from collections.abc import Mapping

from toolkit.judge.fabric.design import Design
from toolkit.judge.fabric.line import Action
from toolkit.judge.fabric.moves import Job, Site, StepKind, plan_moves
from toolkit.judge.fabric.seen import Neighbor
from toolkit.judge.fabric.sheet import Sheet
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Link, Port


def judge_inband(design: Design, neighbors: tuple[Neighbor, ...] | None, sheet: Sheet) -> None:
    """Lines for Ethernet cables that lead elsewhere than planned, or whose other end is not heard."""
    links = [link for link in design.ethernet if link.a.unit in design.slots and link.b.unit in design.slots]
    if not links:
        return
    if neighbors is None:
        sheet.doubts.append("Ethernet cables are planned, and LLDP was not looked at")
        return
    planned = {port for link in links for port in (link.a, link.b)}
    heard: dict[Port, Port] = {}
    for neighbor in neighbors:
        own = Port(neighbor.node, neighbor.interface)
        if own in planned:
            heard[own] = _named(neighbor, planned)
    seen = _agreed(heard, planned)
    for link in links:
        _unheard(link, heard, design, sheet)
    wanted = [(link.a, link.b) for link in links if {link.a, link.b} & {p for pair in seen for p in pair}]
    jobs = plan_moves(wanted, seen, _site(design))
    for job in jobs:
        _job(job, design, sheet)


def _named(neighbor: Neighbor, planned: set[Port]) -> Port:
    """The far port in the plan's words: `tor1` for `tor1.site.example`, `5` for `swp5` where the plan says 5."""
    system = neighbor.system.partition(".")[0].lower()
    for port in (neighbor.port, *re.findall(r"^[A-Za-z]+([0-9].*)$", neighbor.port)):
        if Port(system, port) in planned:
            return Port(system, port)
    return Port(system or "a system without a name", neighbor.port)


def _agreed(heard: Mapping[Port, Port], planned: set[Port]) -> list[tuple[Port, Port]]:
    """Cables, each once. A port that two claim is left to the first by name: LLDP is untrusted and may be stale."""
    cables: list[tuple[Port, Port]] = []
    used: set[Port] = set()
    for own, far in sorted(heard.items()):
        if not {own, far} & used and own != far:
            cables.append((own, far))
            used |= {own, far}
    return cables


def _unheard(link: Link, heard: Mapping[Port, Port], design: Design, sheet: Sheet) -> None:
    if {link.a, link.b} & ({*heard} | set(heard.values())):
        return
    sheet.add(
        "FABRIC_INBAND_UNHEARD", Action.INSPECT,
        f"no LLDP neighbour on {link.a} (planned: {link.b}): is the link up, does the switch send LLDP?",
        (design.end(link.a), design.end(link.b)), ["nothing was heard: that is not a wrong cable, and not a right one"],
        f"`lldpcli show neighbors` names {link.b}; {sheet.again}", "cable", answer=Answer.INCONCLUSIVE,
    )  # fmt: skip


def _site(design: Design) -> Site[Port]:
    return Site(
        where=lambda port: design.place(port.unit),
        order=lambda port: (design.slots.get(port.unit, 0), port.unit, len(port.port), port.port),
        effort=lambda port: 0,
        dark=lambda port: False,
        foreign=lambda port: port.unit not in design.slots,
    )


def _job(job: Job[Port], design: Design, sheet: Sheet) -> None:
    number = sheet.new_job() if len(job.steps) > 1 else 0
    for index, step in enumerate(job.steps):
        if step.kind is StepKind.PLUG:
            continue
        far = [port for port in (step.far_a, step.far_b) if port is not None]
        words = {
            StepKind.SWAP: f"swap {step.a} and {step.b} ({' / '.join(map(str, far))})",
            StepKind.MOVE: f"move the cable of {far[0] if far else '?'}: from {step.a} to {step.b}",
            StepKind.UNPLUG: f"no cable is planned between {step.a} and {step.b}: take it out, or plan it",
        }[step.kind]
        sheet.add(
            "FABRIC_INBAND_MISCABLED", Action.SWAP if step.kind is StepKind.SWAP else Action.MOVE, words,
            map(design.end, (step.a, step.b, *far)), ["by LLDP, Ethernet"],
            f"`lldpcli show neighbors` names the planned port; {sheet.again}", "cable",
            job=number, step=index + 1 if number else 0,
        )  # fmt: skip
