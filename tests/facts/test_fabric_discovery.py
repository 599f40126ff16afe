"""`ibnetdiscover`: an output that is not whole is never taken for a smaller fabric."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.facts import ibnetdiscover
from toolkit.facts.fabric_text import MAX_CHARACTERS
from toolkit.judge.fabric.seen import Discovery, SeenKind, SeenLink, SeenPort

CASES = Path(__file__).parent / "cases" / "ibnetdiscover"
WHOLE = ("two_leaves_two_spines", "grouped_with_full_information", "list_of_ports", "router_and_words_of_every_age")
LEAF, HCA = "fc6a1c0300b00000", "9c63c003001a0000"


def _text(case: str) -> str:
    return (CASES / case / "input.txt").read_bytes().decode()


def _cabling(seen: Discovery) -> tuple[set[str], set[tuple[SeenPort, SeenPort]]]:
    return {n.guid for n in seen.nodes}, {(link.a, link.b) for link in seen.links}


def _is_told(text: str, whole: Discovery) -> bool:
    """Whether the text gives the whole cabling, or a doubt."""
    found = ibnetdiscover.parse(text)
    return bool(found.doubts) or _cabling(found) == _cabling(whole)


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_output_has_no_doubts(case: str) -> None:
    """Healthy output, old or new, with any option that shows the topology, gives no alarm."""
    seen = ibnetdiscover.parse(_text(case))
    assert seen.doubts == ()
    assert seen.nodes
    assert seen.links


@pytest.mark.parametrize("case", WHOLE)
def test_an_output_cut_anywhere_is_whole_or_in_doubt(case: str) -> None:
    """Every cut at the end of a line, and many between: a pipe that broke is not a fabric with fewer nodes."""
    text, whole = _text(case), ibnetdiscover.parse(_text(case))
    cuts = {at + 1 for at, c in enumerate(text) if c == "\n"} | set(range(0, len(text), 29))
    assert [at for at in sorted(cuts) if not _is_told(text[:at], whole)] == []


@pytest.mark.parametrize("case", WHOLE)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_lines_that_are_missing_are_noticed(case: str, data: st.DataObject) -> None:
    """Any lines taken out: doubt, but for a link whose two ends are both gone, which reads as a cable pulled, and a
    node of which no line is left, which reads as one that is not there.
    """
    lines, whole = _text(case).splitlines(keepends=True), ibnetdiscover.parse(_text(case))
    some = st.sets(st.integers(0, len(lines) - 1), min_size=1, max_size=8)
    run = st.tuples(st.integers(0, len(lines) - 1), st.integers(1, 40)).map(lambda r: set(range(r[0], r[0] + r[1])))
    gone = data.draw(st.one_of(some, run))
    left = "".join(line for number, line in enumerate(lines) if number not in gone)
    found = ibnetdiscover.parse(left)
    if not found.doubts:
        removed = "".join(lines[number] for number in gone if number < len(lines))
        missing = _cabling(whole)[1] - _cabling(found)[1]
        assert all(_names(removed, a) and _names(removed, b) for a, b in missing)
        assert _cabling(found)[0] <= _cabling(whole)[0]
        unsaid = _cabling(whole)[0] - _cabling(found)[0]
        assert not [line for line in left.splitlines() if any(guid in line for guid in unsaid) and line[0] != "#"]


def test_what_goes_before_a_node_without_the_node_is_a_doubt() -> None:
    """The node's own line, its port and the cable's other end are cut out: but for these lines it was never there."""
    text = _text("grouped_with_full_information")
    guid = "9c63c003001a0100"
    cut = [
        line for line in text.splitlines(keepends=True) if f'"H-{guid}"' not in line and f"({guid[:-1]}1)" not in line
    ]
    found = ibnetdiscover.parse("".join(cut))
    assert found.doubts == (f"lines that go before a node, without the node: {guid}",)


def _names(text: str, port: SeenPort) -> bool:
    return f'-{port.guid}"[{port.number}]' in text or f" {port.number} 0x{port.guid} " in text


@pytest.mark.parametrize("case", WHOLE)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_one_character_that_changed_moves_no_cable(case: str, data: st.DataObject) -> None:
    """A digit of a GUID or of a port that one end has otherwise than the other is a doubt, not another cabling."""
    text, whole = _text(case), ibnetdiscover.parse(_text(case))
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from('0123456789abcdef[]"-\n HS'))
    assert _is_told(text[:at] + other + text[at + 1 :], whole)


def test_bytes_that_are_no_utf8_are_a_doubt_with_their_line() -> None:
    """The rest is read; where the first such byte stands is told."""
    text = _text("two_leaves_two_spines").encode().replace(b"gpu02 mlx5_0", b"gpu02\xff mlx5_0", 1)
    seen = ibnetdiscover.parse(text)
    line = text[: text.index(b"\xff")].count(b"\n") + 1
    assert f"bytes that are no UTF-8: the first in line {line}" in seen.doubts
    assert len(seen.links) == 18


def test_ten_megabytes_on_one_line_are_passed_over() -> None:
    """A line that no tool writes costs nothing, and is a doubt; its neighbours are read."""
    seen = ibnetdiscover.parse(_text("two_leaves_two_spines") + "[" * 10_000_000 + "\n")
    assert len(seen.links) == 18
    assert [d[:36] for d in seen.doubts] == ["lines longer than any this tool writ"]


def test_a_text_beyond_the_bound_is_not_read_to_its_end() -> None:
    """64 MiB and 2 Mi lines are several times the largest subnet; what comes after is a doubt."""
    seen = ibnetdiscover.parse("#" + "\n" * MAX_CHARACTERS + _text("two_leaves_two_spines"))
    assert {d.split(":")[0] for d in seen.doubts} >= {"longer than 64 MiB", "more than 2,097,152 lines"}
    assert seen.nodes == ()


def test_a_route_that_got_no_answer_names_the_port() -> None:
    """`DR path 0,1,3`: out of the first HCA, then out of port 3 of the leaf behind it."""
    seen = ibnetdiscover.parse(_text("a_node_that_does_not_answer"))
    assert seen.unanswered == (SeenPort(LEAF, 3),)
    assert len(seen.doubts) == 1


def test_a_port_of_two_ends_is_no_link() -> None:
    """Two HCAs that both say to be on one leaf port: none of the two is believed."""
    text = _text("two_leaves_two_spines").replace(
        '"S-fc6a1c0300b00000"[2]\t\t# lid 6', '"S-fc6a1c0300b00000"[1]\t\t# lid 6'
    )
    seen = ibnetdiscover.parse(text)
    assert any("names another" in d for d in seen.doubts)
    assert SeenPort("9c63c003001a0100", 1) not in {p for link in seen.links for p in (link.a, link.b)}


def test_ends_that_train_differently_have_no_width_and_no_speed() -> None:
    """1X at one end and 4X at the other cannot both be: unknown, with a doubt, and the cable is there."""
    text = _text("two_leaves_two_spines").replace("lid 1 4xNDR", "lid 1 1xHDR")
    seen = ibnetdiscover.parse(text)
    link = next(link for link in seen.links if link.a.guid == HCA)
    assert link == SeenLink(SeenPort(HCA, 1), SeenPort(LEAF, 1), None, "")
    assert any("different widths or speeds" in d for d in seen.doubts)


def test_port_guids_lead_to_ports() -> None:
    """ibstat and iblinkinfo name an HCA's port by its own GUID; the second port of an HCA has another."""
    names = dict(ibnetdiscover.parse(_text("two_leaves_two_spines")).port_guids)
    assert names["9c63c003001a4002"] == SeenPort("9c63c003001a4000", 2)
    assert names["9c63c003001a0001"] == SeenPort(HCA, 1)
    assert len(names) == 10


def test_both_forms_show_the_same_cabling() -> None:
    """-p names HCAs by port: under their nodes' names it is the topology."""
    topology, ports = (ibnetdiscover.parse(_text(case)) for case in ("two_leaves_two_spines", "list_of_ports"))
    names = dict(topology.port_guids)

    def at_node(port: SeenPort) -> SeenPort:
        return names.get(port.guid, port)

    assert {tuple(sorted((at_node(link.a), at_node(link.b)))) for link in ports.links} == _cabling(topology)[1]


def test_two_outputs_in_one_text_are_a_doubt() -> None:
    """Two walks one after the other describe every node twice: which of them holds cannot be told."""
    text = _text("two_leaves_two_spines")
    assert any("described twice" in d for d in ibnetdiscover.parse(text + text).doubts)


def test_doubts_carry_no_control_characters() -> None:
    """What a node writes cannot move the cursor of whoever reads the doubt, nor fill the screen."""
    seen = ibnetdiscover.parse(
        "\x1b[2J\x1b]0;pwned\x07 bad status 110 " + "x" * 3000 + "\n" + "no\x08such line\n" * 9000
    )
    assert all(d.isprintable() and len(d) < 300 for d in seen.doubts)
    assert any("8,999 more" in d for d in seen.doubts)


def test_an_empty_text_is_no_empty_fabric() -> None:
    """Nothing at all is a doubt."""
    assert ibnetdiscover.parse(b"").doubts
    assert ibnetdiscover.parse("\n# Topology file: generated on Mon Nov 23 07:57:12 2026\n").doubts


def test_kinds_of_nodes_are_told_apart() -> None:
    """Switches, HCAs and routers, whatever their descriptions say."""
    seen = ibnetdiscover.parse(_text("router_and_words_of_every_age"))
    kinds = [n.kind for n in seen.nodes]
    assert [kinds.count(k) for k in (SeenKind.SWITCH, SeenKind.HCA, SeenKind.ROUTER)] == [2, 6, 1]
