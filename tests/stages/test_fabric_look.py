"""One look at a rack's fabric, over a rack of files: what is collected, kept and made of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rehearsal import context_over, in_process, open_ledger

from toolkit.errors import UnreachableError
from toolkit.judge.fabric.line import Action, WorkEnd, WorkLine
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind
from toolkit.rack.lifecycle import Outcome
from toolkit.runners.shell import CommandResult
from toolkit.stages import fabric, fabric_look
from toolkit.stages.fabric_look import DATA, DISCOVER, ERRORS, earlier, look
from toolkit.virtual.faults import Fault, FaultKind


@pytest.fixture
def stage(tmp_path):
    """A running rack of files `demo`, its ledger and a context; faults are given later."""
    lab = in_process(tmp_path, "demo")
    for node in lab.rack.nodes:
        with lab.changing(node.name) as machine:
            machine.power, machine.image = "On", "image"
    with open_ledger(lab.settings) as ledger:
        yield lab, ledger, context_over(lab, ledger)


def report(stage, *faults, seconds=1.0):
    """What a look comes to with these faults."""
    lab, _, context = stage
    lab.faults[:] = faults
    return fabric.judged(lab.rack, look(context, lab.rack.nodes, seconds=seconds))


def fault(kind, node="node3", **more):
    """A fault on node3."""
    return Fault(node=node, kind=kind, **more)


def test_a_clean_fabric_passes_and_one_walk_saw_all_of_it(stage):
    """Eight leaves under a spine are one subnet."""
    lab, _, context = stage
    seen = look(context, lab.rack.nodes, seconds=1.0)
    assert [walk.start for walk in seen.walks] == ["node1:mlx5_0"]
    found = fabric.judged(lab.rack, seen)
    assert (found.answer, found.lines, found.doubts) == (Answer.PASS, (), ())
    assert found.links_as_designed == found.links_sound == 48


def test_swapped_cables_of_a_node_are_one_swap_and_fail_that_node_alone(stage):
    """The line names both HCAs and both leaf ports."""
    lab, _, context = stage
    found = report(stage, fault(FaultKind.SWAPPED_CABLES, hca="mlx5_0", other="mlx5_1"))
    (line,) = found.lines
    assert line.action is Action.SWAP
    assert {(e.unit, e.port) for e in line.ends} == {
        ("node3", "mlx5_0"), ("node3", "mlx5_1"), ("leaf1", "3"), ("leaf2", "3"),
    }  # fmt: skip
    results = {n.name: fabric.result_of(context, found, n) for n in lab.rack.nodes}
    assert {name for name, result in results.items() if result} == {"node3"}
    assert results["node3"].outcome is Outcome.FAILED and "leaf1:3" in results["node3"].part


@pytest.mark.parametrize(
    ("wrong", "code", "outcome"),
    [
        (fault(FaultKind.CABLE_PULLED, hca="mlx5_4"), "FABRIC_LINK_DOWN", Outcome.FAILED),
        (fault(FaultKind.NARROW_LINK, hca="mlx5_4"), "FABRIC_LINK_NARROW", Outcome.FAILED),
        (fault(FaultKind.SYMBOL_ERRORS, hca="mlx5_4"), "FABRIC_SYMBOL_ERRORS", Outcome.FAILED),
        (fault(FaultKind.WRONG_GUID, hca="mlx5_4"), "FABRIC_HCA_REPLACED", Outcome.ERROR),
        (fault(FaultKind.PKEY_LIMITED, hca="mlx5_4"), "FABRIC_PKEY_LIMITED", Outcome.ERROR),
    ],
)
def test_a_fault_of_one_port_is_that_nodes_and_nobody_elses(stage, wrong, code, outcome):
    """A part fails its node; a setting is an ERROR of ours."""
    lab, _, context = stage
    found = report(stage, wrong)
    results = {n.name: fabric.result_of(context, found, n) for n in lab.rack.nodes}
    assert (results["node3"].code, results["node3"].outcome) == (code, outcome)
    if code != "FABRIC_HCA_REPLACED":
        assert {name for name, result in results.items() if result} == {"node3"}


def codes(stage, node="node3"):
    """What goes on record of the node's HCAs, by name, as certify reads it; a link that is open is not there."""
    lab, _, context = stage
    told = fabric.look_and_judge(context, lab.rack.nodes)
    return {m.subject.hca: m.value for m in told.measured(lab.rack.unit(node), "")}


@pytest.mark.parametrize(
    "wrong", [fault(FaultKind.WRONG_GUID, hca="mlx5_4"), fault(FaultKind.PKEY_LIMITED, hca="mlx5_4")]
)
def test_a_setting_leaves_its_link_unmeasured_and_blames_no_cable(stage, wrong):
    """The gate of links names a cable as its part: what is ours to set never comes to it. The other links are told."""
    lab, _, _ = stage
    lab.faults[:] = [wrong]
    told = codes(stage)
    assert "mlx5_4" not in told
    assert {hca: code for hca, code in told.items() if code != fabric.SOUND} == {}
    assert len(told) == 7


def test_a_part_of_a_link_is_the_links_code(stage):
    """Both ends of the cable are the node's: the code is of the one HCA."""
    lab, _, _ = stage
    lab.faults[:] = [fault(FaultKind.SYMBOL_ERRORS, hca="mlx5_4")]
    told = codes(stage)
    assert {hca: code for hca, code in told.items() if code != fabric.SOUND} == {"mlx5_4": "FABRIC_SYMBOL_ERRORS"}


def test_no_link_is_judged_while_the_rack_has_no_subnet_manager(stage):
    """Not even one that counts errors: configuration before hardware."""
    lab, _, _ = stage
    lab.faults[:] = [fault(FaultKind.NO_SUBNET_MANAGER), fault(FaultKind.SYMBOL_ERRORS, hca="mlx5_4")]
    assert codes(stage) == {}


def line(code, action, answer, *ends):
    """A line about these ends, each `unit:port`."""
    at = tuple(WorkEnd(*end.split(":"), "demo", 1) for end in ends)
    return WorkLine(code, action, answer, f"do {code}", at, None, ("seen",), "look again", "cable")


OPEN, WRONG = Answer.INCONCLUSIVE, Answer.FAIL
SETTING = line("SETTING", Action.CONFIGURE, WRONG, "node3:mlx5_1")
RACK_WIDE = line("RACK_WIDE", Action.CONFIGURE, WRONG)
OWN = line("OWN", Action.RESEAT, WRONG, "node3:mlx5_4", "leaf5:3")
SHARED = line("SHARED", Action.REPLACE, WRONG, "leaf1:40", "spine1:2")
ASKED = line("ASKED", Action.INSPECT, OPEN, "node3:mlx5_2")


@pytest.mark.parametrize(
    ("lines", "doubts", "code", "outcome"),
    [
        ((SHARED, OWN, ASKED, SETTING), ("d",), "SETTING", Outcome.ERROR),
        ((SHARED, OWN, ASKED, RACK_WIDE), ("d",), "RACK_WIDE", Outcome.ERROR),
        ((SHARED, ASKED, OWN), ("d",), "OWN", Outcome.FAILED),
        ((ASKED, SHARED), ("d",), "SHARED", Outcome.ERROR),
        ((ASKED,), ("d",), "ASKED", Outcome.ERROR),
        ((), ("d",), "FABRIC_UNDECIDED", Outcome.ERROR),
    ],
)
def test_what_is_to_be_done_first_is_said_first_in_whatever_order_the_lines_come(stage, lines, doubts, code, outcome):
    """A setting, the node's own part, a part between switches, what is open, what was not looked at."""
    lab, _, context = stage
    found = replace(report(stage), answer=Answer.FAIL, lines=lines, doubts=doubts)
    result = fabric.result_of(context, found, lab.rack.unit("node3"))
    assert (result.code, result.outcome) == (code, outcome)
    assert result.next, "an operator is told what to do"


def test_a_certificate_names_dark_nodes_and_never_a_switch_as_one(stage):
    """A switch's end may have no port number."""
    lines = (line("SPINE", Action.CONFIGURE, WRONG, "spine1:"), line("DARK", Action.INSPECT, OPEN, "node5:mlx5_0"))
    found = replace(report(stage), lines=lines, notes=())
    nodes = [f"node{n}" for n in (1, 2, 3, 4, 6)]
    assert list(fabric.unproven(found, nodes)) == ["cables of nodes that are not in this certificate: node5"]


def test_without_a_subnet_manager_nobody_is_blamed_and_nobody_passes(stage):
    """Configuration before hardware: one line, no cable in it."""
    lab, _, context = stage
    found = report(stage, fault(FaultKind.NO_SUBNET_MANAGER))
    assert [line.action for line in found.lines] == [Action.CONFIGURE]
    results = [fabric.result_of(context, found, n) for n in lab.rack.nodes]
    assert all(r is not None and r.outcome is Outcome.ERROR for r in results)


def test_a_node_that_is_off_leaves_its_own_cables_open_and_the_others_sound(stage):
    """Its neighbours' cables are proven; of its own nothing is said to be broken."""
    lab, _, context = stage
    with lab.changing("node5") as machine:
        machine.power = "Off"
    found = report(stage)
    assert found.answer is Answer.INCONCLUSIVE
    results = {n.name: fabric.result_of(context, found, n) for n in lab.rack.nodes}
    assert {name for name, result in results.items() if result} == {"node5"}
    assert results["node5"].outcome is Outcome.ERROR


def test_errors_that_stood_before_the_run_are_nobodys_and_those_that_grew_are(stage):
    """The second look counts from the first, which a killed controller finds in the ledger."""
    lab, ledger, context = stage
    lab.faults[:] = []
    look(context, lab.rack.nodes, seconds=0)
    lab.faults[:] = [fault(FaultKind.SYMBOL_ERRORS, hca="mlx5_4")]
    since = earlier(ledger, lab.rack)
    assert since is not None
    found = fabric.judged(lab.rack, look(context, lab.rack.nodes, since=since))
    assert [line.code for line in found.lines] == ["FABRIC_SYMBOL_ERRORS"]
    kept = [e for e in ledger.events(lab.rack.name, kind=EventKind.OBSERVED) if e.what == fabric_look.FIRST]
    assert len(kept) == 1, "a look that counts from another is no first one"


class Deaf:
    """A shell over another: some tools fail, some nodes do not answer, some output is cut."""

    def __init__(self, shell, **how):
        self.shell, self.how, self.asked = shell, how, []

    def run(self, node, argv, timeout_s, max_bytes=1 << 22):
        """As the shell, but for what `how` says."""
        if node.name in self.how.get("gone", ()):
            raise UnreachableError(f"{node.name}: no route to host", "")
        told = self.shell.run(node, argv, timeout_s, max_bytes)
        self.asked.append(argv)
        again = self.how.get("broken_again") == argv[:1] + argv[3:] and self.asked.count(argv) > 1
        if argv[0] in self.how.get("broken", ()) or again:
            return CommandResult(255 if again else 1, b"", b"ibwarn: [7] can't open UMAD port ((null):0)\n")
        if argv[0] == self.how.get("cut"):
            return CommandResult(0, told.stdout[: len(told.stdout) // 2], b"")
        if argv[0] == self.how.get("garbled"):
            return CommandResult(0, b"\xff\xfe\x00" * 1000, b"")
        return told


@pytest.mark.parametrize(
    "how",
    [
        {"cut": "ibnetdiscover"}, {"garbled": "ibnetdiscover"}, {"broken": ("ibnetdiscover",)},
        {"cut": "iblinkinfo"}, {"broken": ("iblinkinfo",)}, {"garbled": "ibqueryerrors"},
        {"broken": ("ibqueryerrors",)}, {"broken": ("sh",)}, {"gone": tuple(f"node{n}" for n in range(1, 7))},
    ],
)  # fmt: skip
def test_what_was_not_read_whole_is_never_a_pass_and_blames_no_part(stage, how, monkeypatch):
    """Output cut in the middle, no text, a tool that fails, nobody there."""
    lab, _, context = stage
    hands = type("Hands", (), {"shell": Deaf(lab.shell, **how)})()
    found = fabric.judged(lab.rack, look(replace(context, hands=hands), lab.rack.nodes, seconds=1.0))
    assert found.answer is Answer.INCONCLUSIVE
    for node in lab.rack.nodes:
        result = fabric.result_of(context, found, node)
        assert result is not None and result.outcome is Outcome.ERROR


@pytest.mark.parametrize("tool", [("ibqueryerrors", "--threshold-file", "/dev/null"), ("ibqueryerrors", "--counters")])
def test_a_second_reading_that_fails_is_no_standstill(stage, tool):
    """Nothing has been seen not to grow: the report is open, says why, and no link is called sound."""
    lab, ledger, context = stage
    hands = type("Hands", (), {"shell": Deaf(lab.shell, broken_again=tool)})()
    told = fabric.look_and_judge(replace(context, hands=hands), lab.rack.nodes)
    assert told.report.answer is Answer.INCONCLUSIVE
    (why,) = [doubt for doubt in told.report.doubts if "exit status" in doubt]
    assert why == 'ibqueryerrors on node1: exit status 255: "ibwarn: [7] can\'t open UMAD port ((null):0)"'
    assert [told.measured(node, "") for node in lab.rack.nodes] == [()] * 6
    event = ledger.find(lab.rack.name, "", EventKind.OBSERVED, fabric_look.FIRST)
    assert event.body["again"][0]["problems"] == [why]


def test_both_readings_of_the_counters_are_on_record(stage):
    """Growth can be checked by whoever reads the record."""
    lab, ledger, context = stage
    lab.faults[:] = [fault(FaultKind.SYMBOL_ERRORS, hca="mlx5_4")]
    told = look(context, lab.rack.nodes, seconds=1.0)
    event = ledger.find(lab.rack.name, "", EventKind.OBSERVED, fabric_look.FIRST)
    (first,), (again,) = event.body["walks"], event.body["again"]
    assert first["start"] == again["start"]
    assert sorted(again["artifacts"]) == sorted((ERRORS, DATA))
    assert ledger.artifacts.get(first["artifacts"][ERRORS]) == told.walks[0].said[ERRORS]
    assert ledger.artifacts.get(again["artifacts"][ERRORS]) == told.again[0].said[ERRORS]
    assert told.again[0].said[ERRORS] != told.walks[0].said[ERRORS]


def test_what_the_tools_said_is_on_record(stage):
    """Raw bytes by their digest, as they were read."""
    lab, ledger, context = stage
    told = look(context, lab.rack.nodes, seconds=0)
    event = ledger.find(lab.rack.name, "", EventKind.OBSERVED, fabric_look.FIRST)
    (walk,) = event.body["walks"]
    for tool in (DISCOVER, ERRORS):
        assert ledger.artifacts.get(walk["artifacts"][tool]) == told.walks[0].said[tool]
