"""Fault by red tests: a healthy rack is all green, and each named fault turns exactly the right tests red."""

import pytest

from tests.infra.matrix import NOT_HERE, SESSIONS, expected, of_node, row
from tests.infra.sessions import run
from toolkit.virtual.faults import FaultKind


def test_a_healthy_rack_is_all_green(lab):
    """Nothing is red, and what is skipped says why: no kernel argument is asked for."""
    seen = run(lab)
    assert seen.status == 0, seen.output
    assert seen.red() == {}
    assert sorted(seen.of("s")) == [f"kernel_arguments::test_argument[node{n}-none]" for n in (1, 2)]
    assert len(seen.of(".")) > 240


@pytest.mark.parametrize("faults", SESSIONS, ids=lambda faults: " and ".join(map(str, faults)))
def test_a_fault_turns_exactly_these_tests_red(lab, faults):
    """The rows of matrix.txt, letter by letter: of two faults at once, each on its own node and nothing else."""
    seen = run(lab, faults=faults)
    assert seen.status == 1, seen.output
    rows = {f.node: of_node(f.node, seen.red()) for f in faults} if len(faults) > 1 else {faults[0].node: seen.red()}
    for fault in faults:
        what = f"{fault} on {fault.node}"
        assert row(what, rows[fault.node]) == expected(what)
    assert seen.red() == {name: letter for of in rows.values() for name, letter in of.items()}


def test_every_named_fault_is_in_the_table_or_says_why_it_is_not(lab):
    """A new kind of fault has to be decided on."""
    shown = {fault.kind for faults in SESSIONS for fault in faults}
    assert shown | NOT_HERE.keys() == set(FaultKind)
    assert not shown & NOT_HERE.keys()
