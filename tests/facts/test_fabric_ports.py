"""Port states and counters: what a tool hides, leaves out or names otherwise is never read as health."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.facts import fabric_join, iblinkinfo, ibnetdiscover, ibqueryerrors
from toolkit.judge.fabric.seen import PortState, SeenPort

CASES = Path(__file__).parent / "cases"
LEAF_A, LEAF_B = "fc6a1c0300b00000", "fc6a1c0300b00100"
WHOLE = ("lines", "blocks_with_a_pulled_cable")


def _text(kind: str, case: str) -> str:
    return (CASES / kind / case / "input.txt").read_bytes().decode()


DISCOVERY = ibnetdiscover.parse(_text("ibnetdiscover", "two_leaves_two_spines"))


def test_blocks_and_lines_say_the_same() -> None:
    """In blocks the other end has a LID only; it is found all the same."""
    text = _text("iblinkinfo", "blocks_with_a_pulled_cable")
    blocks = {p.port: p for p in iblinkinfo.parse(text).ports}
    pulled = {SeenPort(LEAF_A, 4), SeenPort("9c63c003001a0301", 1)}
    for state in iblinkinfo.parse(_text("iblinkinfo", "lines")).ports:
        assert state.port in pulled or blocks[state.port] == state


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_output_has_no_doubts(case: str) -> None:
    """Ports that are down and links that are slow are facts, not doubts."""
    assert iblinkinfo.parse(_text("iblinkinfo", case)).doubts == ()


@pytest.mark.parametrize("case", WHOLE)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_port_that_is_missing_is_noticed_by_the_two_tools_together(case: str, data: st.DataObject) -> None:
    """Any line taken out and any cut: a doubt, from the text itself or from the discovery beside it."""
    text = _text("iblinkinfo", case)
    lines = text.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    shorter = "".join(lines[:at]) if data.draw(st.booleans()) else "".join(lines[:at] + lines[at + 1 :])
    found = fabric_join.states(DISCOVERY, iblinkinfo.parse(shorter))
    missing = len(iblinkinfo.parse(text).ports) - len(found.ports)
    assert found.doubts or not missing


def test_a_text_that_ends_within_a_line_is_in_doubt() -> None:
    """The last port may have lost its end."""
    text = _text("iblinkinfo", "lines")
    assert any("middle of a line" in d for d in iblinkinfo.parse(text[:-60]).doubts)


@pytest.mark.parametrize(
    ("link", "lanes", "rate", "state", "physical"),
    [
        (" 4X        106.25 Gbps Active/  LinkUp", 4, 106.25, "Active", "LinkUp"),
        (" 2X        106.25 Gbps Initialize/ LinkUp", 2, 106.25, "Initialize", "LinkUp"),
        (" 4X         212.5 Gbps Active/  LinkUp", 4, 212.5, "Active", "LinkUp"),
        (" 4X  10.0 Gbps (FDR10) Active/  LinkUp", 4, 10.3125, "Active", "LinkUp"),
        ("12X           5.0 Gbps  Armed/LinkErrorRecovery", 12, 5.0, "Armed", "LinkErrorRecovery"),
        (" 4X          10.0 Gbps Active/  LinkUp) (HOQ:18 VL_Stall:7", 4, 10.0, "Active", "LinkUp"),
        ("                Down/ Polling", None, None, "Down", "Polling"),
        ("                Down/Disabled", None, None, "Down", "Disabled"),
        ("                Down/PortConfigurationTraining", None, None, "Down", "PortConfigurationTraining"),
        ("undefined (3)   undefined (5) Active/  LinkUp", None, None, "Active", "LinkUp"),
    ],
)
def test_every_word_of_a_link_is_read(
    link: str, lanes: int | None, rate: float | None, state: str, physical: str
) -> None:
    """Widths, rates and states as libibmad prints them; one that is undefined is unknown, with a doubt."""
    line = f'0x{LEAF_A} "leaf "a"" 2    1[  ] ==({link})==>             [  ] "" ( )\n'
    found = iblinkinfo.parse(line)
    assert found.ports == (PortState(SeenPort(LEAF_A, 1), state, physical, lanes, rate, 2, None),)
    assert bool(found.doubts) == ("undefined" in link)


def test_a_description_cannot_pass_for_a_link() -> None:
    """A node that calls itself by a piece of this tool's output does not change what its line says."""
    says = '"x" 2 1[  ] ==( 4X 106.25 Gbps Active/ LinkUp)==> 0x9c63c003001a0001 1 1[  ] "y" ( )'
    line = f'0x{LEAF_A} "{says}" 2    7[  ] ==(                Down/ Polling)==>             [  ] "" ( )\n'
    found = iblinkinfo.parse(line)
    assert found.ports == ()
    assert any("not understood" in d for d in found.doubts)


def test_an_end_whose_lid_two_have_is_unknown() -> None:
    """Blocks name the other end by LID: with a duplicated LID, whose it is cannot be told."""
    text = _text("iblinkinfo", "blocks_with_a_pulled_cable").replace(
        "0x9c63c003001a0111     12", "0x9c63c003001a0111     11"
    )
    found = iblinkinfo.parse(text)
    leaf = next(p for p in found.ports if p.port == SeenPort(LEAF_B, 1))
    assert leaf.peer is None
    assert any("two have" in d for d in found.doubts)


def test_ports_get_the_names_of_the_discovery() -> None:
    """An HCA's second port has a GUID of its own; under the discovery's name it is port 2 of its node."""
    found = fabric_join.states(DISCOVERY, iblinkinfo.parse(_text("iblinkinfo", "lines")))
    assert found.doubts == ()
    ends = {p.port: p.peer for p in found.ports}
    assert ends[SeenPort("9c63c003001a4000", 2)] == SeenPort(LEAF_B, 9)
    assert ends[SeenPort(LEAF_B, 9)] == SeenPort("9c63c003001a4000", 2)
    links = {(link.a, link.b) for link in DISCOVERY.links}
    assert {tuple(sorted((a, b))) for a, b in ends.items() if b is not None} == links


def test_tools_that_saw_different_cabling_are_a_doubt() -> None:
    """A cable that was pulled between the two tools belongs to neither picture."""
    pulled = fabric_join.states(DISCOVERY, iblinkinfo.parse(_text("iblinkinfo", "blocks_with_a_pulled_cable")))
    assert any("ibnetdiscover shows and iblinkinfo does not" in d for d in pulled.doubts)
    before = ibnetdiscover.parse(_text("ibnetdiscover", "a_node_that_does_not_answer"))
    plugged = fabric_join.states(before, iblinkinfo.parse(_text("iblinkinfo", "lines")))
    assert any("iblinkinfo shows and ibnetdiscover does not" in d for d in plugged.doubts)


def test_a_port_with_nobody_that_answers_behind_it_is_told() -> None:
    """Up, and its neighbour's management agent is dead: ibnetdiscover says nothing of it on standard output."""
    found = iblinkinfo.parse(_text("iblinkinfo", "a_node_that_does_not_answer"))
    assert found.silent == (SeenPort(LEAF_A, 3),)
    state = next(p for p in found.ports if p.port == SeenPort(LEAF_A, 3))
    assert (state.state, state.peer) == ("Active", None)


def test_a_port_that_a_whole_output_leaves_out_has_counted_nothing() -> None:
    """`ibqueryerrors` shows errors only; whole and without thresholds, its silence is a zero that was read."""
    errors = ibqueryerrors.parse(_text("ibqueryerrors", "errors_with_data"))
    taken = fabric_join.snapshot(DISCOVERY, errors)
    assert taken.doubts == ()
    counts = {p.port: dict(p.counts) for p in taken.ports}
    assert len(counts) == 36
    assert counts[SeenPort("9c63c003001a0200", 1)]["PortRcvErrors"] == 31
    assert counts[SeenPort("9c63c003001a4000", 2)]["PortXmitDiscards"] == 5
    assert counts[SeenPort(LEAF_A, 3)]["SymbolErrorCounter"] == 9
    assert counts[SeenPort(LEAF_B, 1)]["SymbolErrorCounter"] == 0


@pytest.mark.parametrize("case", ["thresholds_that_hide", "a_node_that_does_not_answer"])
def test_silence_of_an_output_that_hides_or_failed_is_no_zero(case: str) -> None:
    """Counters under a threshold, or of a port that was not reached, are unknown."""
    taken = fabric_join.snapshot(DISCOVERY, ibqueryerrors.parse(_text("ibqueryerrors", case)))
    assert taken.doubts
    assert {p.port: p.counts for p in taken.ports}[SeenPort(LEAF_B, 1)] == ()


def test_nodes_that_answered_have_their_zeros_beside_one_that_did_not() -> None:
    """One dead management agent does not make the counters of all others unknown; that it is dead is still a doubt."""
    discovery = ibnetdiscover.parse(_text("ibnetdiscover", "a_node_that_does_not_answer"))
    taken = fabric_join.snapshot(discovery, ibqueryerrors.parse(_text("ibqueryerrors", "a_node_that_does_not_answer")))
    counts = {p.port: dict(p.counts) for p in taken.ports}
    assert counts[SeenPort(LEAF_B, 1)]["SymbolErrorCounter"] == 0
    assert SeenPort(LEAF_A, 3) not in counts
    assert taken.doubts


def test_a_suppressed_counter_is_no_zero() -> None:
    """Left out with -s, PortXmitWait was not read; the others were."""
    errors = replace(ibqueryerrors.parse(_text("ibqueryerrors", "thresholds_that_hide")), above=())
    counts = dict(fabric_join.snapshot(DISCOVERY, errors).ports[0].counts)
    assert "PortXmitWait" not in counts
    assert counts["SymbolErrorCounter"] == 0


def test_data_go_by_node_and_errors_by_port() -> None:
    """The two outputs of one tool name an HCA's port differently; they come together under one name."""
    node, port = "9c63c003001a0310", "9c63c003001a0311"
    data = ibqueryerrors.parse(_text("ibqueryerrors", "data_cut_out"))
    assert data.of_nodes
    errors = ibqueryerrors.parse(
        f'Errors for "gpu04"\n   GUID 0x{port} port 1: [SymbolErrorCounter == 7]\n\n'
        "## Summary: 13 nodes checked, 1 bad nodes found\n"
        "##          90 ports checked, 1 ports have errors beyond threshold\n## Thresholds: \n## Suppressed:\n"
    )
    assert errors.doubts == ()
    counts = {p.port: dict(p.counts) for p in fabric_join.snapshot(DISCOVERY, errors, data).ports}
    assert counts[SeenPort(node, 1)]["SymbolErrorCounter"] == 7
    assert counts[SeenPort(node, 1)]["PortXmitPkts"] == 72


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_counters_cut_anywhere_are_in_doubt(data: st.DataObject) -> None:
    """The summary is last, and counts what must be above it."""
    text = _text("ibqueryerrors", "errors_with_data")
    assert ibqueryerrors.parse(text[: data.draw(st.integers(0, len(text) - 2))]).doubts


def test_a_line_of_errors_taken_out_is_noticed() -> None:
    """The summary says how many ports have errors."""
    lines = _text("ibqueryerrors", "errors_with_data").splitlines(keepends=True)
    without = [line for line in lines if "port 3:" not in line]
    assert ibqueryerrors.parse("".join(without)).doubts == ("3 ports have errors, 2 are shown",)


def test_ports_that_did_not_give_their_counters_are_a_doubt() -> None:
    """The tool ends its summary with how many did not answer."""
    text = _text("ibqueryerrors", "no_error").replace(
        "## Suppressed", "##          2 PMA query failures\n## Suppressed"
    )
    assert ibqueryerrors.parse(text).doubts == ("ports that did not give their counters: 2",)
