"""InfiniBand: each planned HCA by the gates of its stage, each cable against the rack file, the subnet as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit.infra import words
from toolkit.infra.areas import INFINIBAND, LINKS, gates_of
from toolkit.infra.questions import GOOD, Answered, Asking, Plan, Question, asks, of_rack
from toolkit.infra.readings import Readings
from toolkit.judge.fabric.design import designed
from toolkit.judge.fabric.line import Action, WorkLine
from toolkit.judge.verdict import Answer
from toolkit.rack.model import LinkKind, Rack, UnitKind
from toolkit.stages import fabric

_NO_CABLES = "the rack file plans no InfiniBand cables: there is nothing to compare with"


def cables(plan: Plan) -> Iterator[Question]:
    """The gate of each planned HCA's link; what stands against it in words."""
    asked: Asking = gates_of(LINKS)
    for question in asked(plan):
        if question.skip or plan.rack is None or question.target is None:
            yield question
        elif not designed(plan.rack).links:
            yield Question(question.target, question.name, question.ask, _NO_CABLES)
        else:
            yield _in_words(question, question.name.partition("-")[0])


def _in_words(question: Question, hca: str) -> Question:
    """The same answer with the work order's line in it: the gate's value is a code alone."""
    target = question.target
    assert target is not None  # noqa: S101 - for the type: `cables` leaves the others alone

    def ask(readings: Readings) -> Answered:
        answer = question.ask(readings)
        if answer.answer is Answer.PASS:
            return answer
        report = readings.fabric().report
        own = [k for k in report.lines if any((e.unit, e.port) == (target.name, hca) for e in k.ends)]
        settings = [k for k in own if k.answer is Answer.FAIL and k.action is Action.CONFIGURE]
        if answer.answer is Answer.INCONCLUSIVE and settings:
            # The gate waits for the setting, so no part is blamed; the setting itself was seen to be wrong.
            return _setting(settings[0], report.rack)
        because = own or [k for k in report.lines if not _of_an_hca(k)]
        told = [f"do:     {line.text}" for line in because[: words.SHOWN]]
        told += [f"        {seen}" for line in because[:1] for seen in line.evidence[: words.SHOWN]]
        told += [f"doubt:  {doubt}" for doubt in report.doubts[: words.SHOWN] if not own]
        if answer.answer is Answer.FAIL:
            return Answered(answer.answer, answer.code, (*answer.lines, *words.shown([f"  {t}" for t in told])))
        what = f"{target.name}/{hca}: whether anything stands against its cable is not known before this is settled"
        return words.inconclusive(answer.code, what, f"rackproof fabric {report.rack}", *told)

    return Question(target, question.name, ask)


def _setting(line: WorkLine, rack: str) -> Answered:
    return words.failed(line.code, line.text, f"rackproof explain {line.code}; then rackproof fabric {rack}",
                        *line.evidence[: words.SHOWN])  # fmt: skip


def _of_an_hca(line: WorkLine) -> bool:
    """An HCA's port has a name, a switch's a number."""
    return any(end.port and not end.port.isdigit() for end in line.ends)


def switches(_: Plan, rack: Rack) -> Iterator[Question]:
    """A question for each planned switch that cables lead to."""
    linked = {end for link in rack.links if link.kind is LinkKind.INFINIBAND for end in (link.a.unit, link.b.unit)}
    for unit in rack.units:
        if unit.kind in (UnitKind.LEAF, UnitKind.SPINE) and unit.name in linked:
            yield Question(None, unit.name, _switch(unit.name).ask)


def _switch(name: str) -> Question:
    def ask(readings: Readings) -> Answered:
        report = readings.fabric().report
        own = [k for k in report.lines if k.code.startswith("FABRIC_SWITCH") and any(e.unit == name for e in k.ends)]
        return _of_lines([line for line in own if line.answer is not Answer.PASS], report.rack)

    return Question(None, name, ask)


def _asked_elsewhere(line: WorkLine, rack: Rack) -> bool:
    """Whether it names a planned HCA, or is about a switch."""
    hcas = {(node.name, hca.name) for node in rack.nodes for hca in node.hcas}
    return line.code.startswith("FABRIC_SWITCH") or any((end.unit, end.port) in hcas for end in line.ends)


def _of_lines(lines: Sequence[WorkLine], rack: str) -> Answered:
    if not lines:
        return GOOD
    first = min(lines, key=lambda line: line.answer is not Answer.FAIL)
    told = words.failed if first.answer is Answer.FAIL else words.inconclusive
    others = [f"also:   {line.code}: {line.text}" for line in lines if line is not first]
    return told(
        first.code, first.text, f"rackproof fabric {rack}", *first.evidence[: words.SHOWN], *others[: words.SHOWN]
    )


def subnet(_: Plan, rack: Rack) -> Iterator[Question]:
    """What no other question here is about: subnet managers, cables between switches, whether the look was whole."""

    def ask(readings: Readings) -> Answered:
        report = readings.fabric().report
        lines = [k for k in report.lines if k.answer is not Answer.PASS and not _asked_elsewhere(k, rack)]
        if lines or not report.doubts:
            return _of_lines(lines, rack.name)
        doubts = "; ".join(report.doubts[: fabric.SHOWN])
        return words.inconclusive("FABRIC_UNDECIDED", doubts, f"rackproof fabric {rack.name}")

    yield Question(None, "", ask, "" if designed(rack).links else _NO_CABLES)


@asks(gates_of(INFINIBAND))
def test_gate(answer: Answered) -> None:
    """A gate of the profile, on one planned HCA."""
    answer.holds()


@asks(cables)
def test_cable(answer: Answered) -> None:
    """The cable of a planned HCA is where the rack file has it, at its rate, and counts no errors."""
    answer.holds()


@asks(of_rack(switches))
def test_switch(answer: Answered) -> None:
    """A planned switch is in the fabric, and is the one in the rack file."""
    answer.holds()


@asks(of_rack(subnet))
def test_subnet(answer: Answered) -> None:
    """The subnet has one manager, switches reach each other, and the look at it was whole."""
    answer.holds()
