"""Cables in the wrong port, too many, too few: from the moves that mend them to lines of work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from toolkit.judge.fabric.line import Action
from toolkit.judge.fabric.missing import missing_cables
from toolkit.judge.fabric.moves import Job, Site, Step, StepKind, plan_moves
from toolkit.judge.fabric.picture import Picture, duplicate_ends
from toolkit.judge.fabric.seen import SeenKind
from toolkit.judge.fabric.sheet import Sheet
from toolkit.rack.model import Port

HERE = "INSPECT only: the discovery is incomplete, so whether {} is free is not known; look, then discover again"


def judge_cables(picture: Picture, sheet: Sheet) -> int:
    """Lines for every cable that is not where the plan has it. Returns how many planned cables are."""
    planned = {(link.a, link.b) for link in picture.design.links}
    told = _untold(picture)
    jobs = plan_moves(
        ((a, b) for a, b in planned if not {a, b} & told),
        ((a, b) for a, b in picture.cables if not {a, b} & told),
        Site(
            where=lambda port: picture.design.place(port.unit),
            order=lambda port: (picture.design.slots.get(port.unit, 0), port.unit, len(port.port), port.port),
            effort=lambda port: 0 if port.port.isdigit() else 1,  # a leaf's ports are easier to reach than a node's
            dark=lambda port: port in picture.hcas_dark or port.unit in picture.switches_dark,
            foreign=lambda port: not picture.ours(port),
        ),
    )
    missing = []
    for job in jobs:
        missing += [(step.a, step.b) for step in job.steps if step.kind is StepKind.PLUG]
        _job(job, picture, sheet)
    missing_cables(missing, picture, sheet)
    _whole_nodes(jobs, picture, sheet)
    return len(planned & picture.cables)


def _whole_nodes(jobs: Sequence[Job[Port]], picture: Picture, sheet: Sheet) -> None:
    """Two nodes all of whose cables are crossed may well stand in each other's slot: the plan before the cables."""
    hcas = Counter(hca.port.unit for hca in picture.design.hcas if hca.port in picture.design.partner)
    crossed: Counter[tuple[str, str]] = Counter()
    for step in (job.steps[0] for job in jobs if job.ring == 2):
        units = {
            port.unit for port in (step.a, step.b, step.far_a, step.far_b) if port is not None and port.unit in hcas
        }
        if len(units) == 2:
            crossed[min(units), max(units)] += 1
    for (a, b), number in sorted(crossed.items()):
        if number == hcas[a] == hcas[b] > 1:
            sheet.notes.append(
                f"all {number} cables of {a} and {b} are crossed: if the two nodes stand in each other's slot, or "
                "their GUIDs are crossed in the rack file, correct that and move no cable"
            )


def _untold(picture: Picture) -> set[Port]:
    """Ports of HCAs whose GUID was met twice, and every port they were met on: their own rule names them."""
    ports = {port for guid, port in picture.names.hcas.items() if guid in picture.doubled}
    ports |= {port for guid in picture.doubled for port in duplicate_ends(picture, guid)}
    switches = {name for guid, name in picture.names.switches.items() if guid in picture.doubled}
    ports |= {port for port in picture.design.partner if port.unit in switches}
    ports |= {far for port in ports if (far := picture.partner(port)) is not None}
    return ports | _on_strange_switches(picture)


def _on_strange_switches(picture: Picture) -> set[Port]:
    """Cables to a switch that nobody recognised, in the place of one that nobody saw: it may well be that one."""
    ports: set[Port] = set()
    for cable in picture.cables if picture.switches_dark else ():
        for own, far in (cable, cable[::-1]):
            planned = picture.partner(own)
            strange = picture.kinds.get(picture.guids[far]) is SeenKind.SWITCH and not picture.ours(far)
            if strange and planned is not None and planned.unit in picture.switches_dark:
                ports |= {own, far, planned}
    return ports


def _job(job: Job[Port], picture: Picture, sheet: Sheet) -> None:
    steps = [step for step in job.steps if step.kind is not StepKind.PLUG]
    number = sheet.new_job() if len(steps) > 1 else 0
    unsure = [port for port in job.frees if not picture.whole and picture.up(port) is not False]
    for index, step in enumerate(steps):
        of = f"step {index + 1} of {len(steps)}: {_ring(job, picture)}" if number else ""
        if step.kind is StepKind.SWAP:
            _swap(step, job, index, of, picture, sheet, number)
        elif step.kind is StepKind.UNPLUG:
            _unplug(step, of, picture, sheet, number, index)
        else:
            _move(step, of, unsure, picture, sheet, number, index)


def _ring(job: Job[Port], picture: Picture) -> str:
    if not job.ring:
        return "each end moves to the port that the step before left free"
    return f"{job.ring} cables stand in one another's ports; {job.ring - 1} swaps in this order set them right"


def _swap(step: Step[Port], job: Job[Port], index: int, of: str, picture: Picture, sheet: Sheet, number: int) -> None:
    far = [port for port in (step.far_a, step.far_b) if port is not None]
    pair = job.ring == 2
    evidence = [
        f"seen: {picture.word(near)} - {picture.word(end)}" for near, end in zip((step.a, step.b), far, strict=True)
    ]
    evidence += [of] if of else []
    evidence += _rails((step.a, step.b, *far), picture)
    if _same_pair(step, picture):
        evidence.append("both cables run between the same two switches: no traffic suffers, only the plan is off")
    other = job.instead[index]
    other_far = [port for port in (other.far_a, other.far_b) if port is not None]
    sheet.add(
        "FABRIC_CABLES_SWAPPED" if pair else "FABRIC_CABLES_ROTATED",
        Action.SWAP, f"swap {_pair(step.a, step.b, picture)} ({_slash(sorted(far) if pair else far)})",
        map(picture.end, (step.a, step.b, *far)), evidence, _proof(sheet), "cable",
        instead=f"swap {_pair(other.a, other.b, picture)} ({_slash(sorted(other_far))})" if pair else "",
        job=number, step=index + 1 if number else 0,
    )  # fmt: skip


def _same_pair(step: Step[Port], picture: Picture) -> bool:
    if step.far_a is None or step.far_b is None:
        return False
    ends = (step.a, step.far_a, step.b, step.far_b)
    return step.a.unit == step.b.unit and step.far_a.unit == step.far_b.unit and all(p.port.isdigit() for p in ends)


def _move(
    step: Step[Port], of: str, unsure: Sequence[Port], picture: Picture, sheet: Sheet, number: int, index: int
) -> None:
    far = step.far_a
    if far is None:
        raise AssertionError("a move has a cable, and a cable has two ends")
    if _is_hca(step.a, picture) and not picture.ours(step.a):
        _strange_device(step, far, picture, sheet)
        return
    evidence = [f"seen: {picture.word(far)} - {picture.word(step.a)}"] + ([of] if of else [])
    evidence += _free(step.b, picture)
    evidence += [HERE.format(picture.word(unsure[0]))] if unsure else []
    verb = "look at" if unsure else "move"
    sheet.add(
        "FABRIC_CABLE_MISPLACED", Action.INSPECT if unsure else Action.MOVE,
        f"{verb} the cable of {picture.word(far)}: from {picture.word(step.a)} to {picture.word(step.b)}"
        if not unsure else
        f"the cable of {picture.word(far)} is in {picture.word(step.a)}, planned: {picture.word(step.b)}",
        map(picture.end, (step.a, step.b, far)), evidence, _proof(sheet), "cable",
        job=number, step=index + 1 if number else 0,
    )  # fmt: skip


def _strange_device(step: Step[Port], far: Port, picture: Picture, sheet: Sheet) -> None:
    evidence = [f"seen: {picture.word(far)} - {picture.word(step.a)}"]
    evidence += [f"{picture.word(step.b)} is not seen"] if step.b in picture.hcas_dark else []
    sheet.add(
        "FABRIC_CABLE_UNPLANNED", Action.INSPECT,
        f"{picture.word(far)} leads to {step.a.unit}, which the plan does not have; planned: {picture.word(step.b)}",
        map(picture.end, (far, step.b, step.a)), evidence, _proof(sheet), "cable",
    )  # fmt: skip


def _unplug(step: Step[Port], of: str, picture: Picture, sheet: Sheet, number: int, index: int) -> None:
    evidence = [f"seen: {picture.word(step.a)} - {picture.word(step.b)}"] + ([of] if of else [])
    evidence += [
        f"{picture.word(port)} is planned for {picture.word(planned)}"
        for port in (step.a, step.b)
        if (planned := picture.partner(port)) is not None
    ]
    sheet.add(
        "FABRIC_CABLE_UNPLANNED", Action.INSPECT,
        f"no cable is planned between {picture.word(step.a)} and {picture.word(step.b)}: take it out, or plan it",
        map(picture.end, (step.a, step.b)), evidence, _proof(sheet), "cable",
        job=number, step=index + 1 if number else 0,
    )  # fmt: skip


def _free(port: Port, picture: Picture) -> list[str]:
    state = picture.states.get(port)
    return [f"{picture.word(port)} is {state.state}/{state.physical}"] if state and state.state != "Active" else []


def _rails(ports: Sequence[Port], picture: Picture) -> list[str]:
    """Which HCAs are off the leaf of their rail: what collectives suffer from, though both links are healthy."""
    rails = {hca.port: hca.rail for hca in picture.design.hcas} if any(not p.port.isdigit() for p in ports) else {}
    crossed = []
    for port in ports:
        link, planned = picture.links.get(port), picture.partner(port)
        if port in rails and link is not None and planned is not None:
            there = {picture.names.port(link.a).unit, picture.names.port(link.b).unit} - {port.unit}
            if planned.unit not in there:
                crossed.append(f"{picture.word(port)} of rail {rails[port]} is on {', '.join(sorted(there))}")
    return [f"rail rule: {'; '.join(crossed)}"] if crossed else []


def _is_hca(port: Port, picture: Picture) -> bool:
    return picture.kinds.get(picture.guids.get(port, "")) is SeenKind.HCA


def _pair(a: Port, b: Port, picture: Picture) -> str:
    return f"{picture.word(a)} and {picture.word(b)}"


def _slash(ports: Sequence[Port]) -> str:
    """`dgx-005 mlx5_0/mlx5_1`, `dgx-005 mlx5_0/dgx-006 mlx5_0`, `leaf-1 port 5/leaf-2 port 5`."""
    words = [f"{p.unit} port {p.port}" if p.port.isdigit() else f"{p.unit} {p.port}" for p in ports]
    alike = len({p.unit for p in ports}) == 1 and len(ports) > 1
    return "/".join([words[0], *(p.port for p in ports[1:])] if alike else words)


def _proof(sheet: Sheet) -> str:
    return f"{sheet.again}: none of these ports is named again"
