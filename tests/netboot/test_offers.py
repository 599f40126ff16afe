"""Boot scripts that are served once, whoever asks, whenever a process is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from toolkit.errors import RackproofError
from toolkit.netboot.decisions import Decisions
from toolkit.netboot.hosts import host_lines, write_hosts
from toolkit.netboot.offers import EXIT_SCRIPT, BootOffers, OfferState
from toolkit.netboot.posts import Posts
from toolkit.rack.model import Rack

MAC, ADDRESS = "52:54:00:66:00:01", "10.66.0.11"
TARGET = "/boot/52-54-00-66-00-01.ipxe"
TOKEN, OTHER = "a" * 32, "b" * 32
SCRIPT = f"#!ipxe\nkernel k deploy.token={TOKEN}\nboot\n"


@pytest.fixture
def offers(tmp_path: Path) -> BootOffers:
    """Nothing is offered yet."""
    return BootOffers(tmp_path)


@pytest.fixture
def decided(tmp_path: Path, rack: Rack) -> Iterator[tuple[Decisions, list[str]]]:
    """Decisions over a root in which the rack's two nodes may boot, and what the log has of them."""
    said: list[str] = []
    write_hosts(tmp_path / "hosts", rack)
    yield Decisions(tmp_path / "hosts", BootOffers(tmp_path), Posts(tmp_path), said.append), said


def test_a_script_is_given_once_and_then_the_disk_boots(decided: tuple[Decisions, list[str]]) -> None:
    """armed -> taken; a BMC that ignores "Once" gets `exit`, is counted, and told in the log as BOOT_LOOP."""
    decisions, said = decided
    decisions.offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    assert decisions.script(TARGET, ADDRESS).body.decode() == SCRIPT
    for again in (1, 2):
        answer = decisions.script(TARGET, ADDRESS)
        assert (answer.status, answer.body.decode()) == (200, EXIT_SCRIPT)
        offer = decisions.offers.look(MAC)
        assert offer is not None
        assert (offer.state, offer.again, bool(offer.again_at)) == (OfferState.TAKEN, again, True)
    assert sum("BOOT_LOOP" in line for line in said) == 2


def test_armed_again_it_is_given_again(decided: tuple[Decisions, list[str]]) -> None:
    """A power cut in the ramdisk: the controller arms anew, the same attempt or another."""
    decisions, _ = decided
    for token in (TOKEN, TOKEN, OTHER):
        decisions.offers.arm(MAC, ADDRESS, token, SCRIPT)
        assert decisions.script(TARGET, ADDRESS).body.decode() == SCRIPT
        assert decisions.script(TARGET, ADDRESS).body.decode() == EXIT_SCRIPT


def test_a_look_takes_nothing(decided: tuple[Decisions, list[str]]) -> None:
    """HEAD is answered and the script is still there."""
    decisions, _ = decided
    decisions.offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    assert decisions.script(TARGET, ADDRESS, look_only=True).status == 200
    assert decisions.script(TARGET, ADDRESS).body.decode() == SCRIPT


def test_who_is_not_planned_or_not_the_node_gets_nothing(decided: tuple[Decisions, list[str]]) -> None:
    """An unknown MAC, another node's, a MAC from another address: 404, in the log once, and nothing is used up."""
    decisions, said = decided
    decisions.offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    for _ in range(3):
        assert decisions.script("/boot/52-54-00-66-00-99.ipxe", ADDRESS).status == 404
        assert decisions.script(TARGET, "10.66.0.12").status == 404
        assert decisions.script("/boot/../boot/x.ipxe", ADDRESS).status == 404
    assert len(said) == 2
    assert "no rack file plans it" in said[0]
    assert f"its address is {ADDRESS} by plan" in said[1]
    assert decisions.script(TARGET, ADDRESS).body.decode() == SCRIPT


def test_a_planned_node_with_nothing_armed_boots_its_disk(decided: tuple[Decisions, list[str]]) -> None:
    """Never armed, and disarmed: neither is a loop."""
    decisions, said = decided
    assert decisions.script(TARGET, ADDRESS).body.decode() == EXIT_SCRIPT
    decisions.offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    decisions.offers.disarm(MAC, TOKEN)
    assert decisions.script(TARGET, ADDRESS).body.decode() == EXIT_SCRIPT
    assert not any("BOOT_LOOP" in line for line in said)


def test_an_attempt_takes_back_its_own_script_alone(offers: BootOffers) -> None:
    """Two controllers: the late end of one attempt leaves the next one's script."""
    offers.disarm(MAC, TOKEN)
    offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    offers.arm(MAC, ADDRESS, OTHER, SCRIPT)
    offers.disarm(MAC, TOKEN)
    found = offers.look(MAC)
    assert found is not None
    assert (found.state, found.token) == (OfferState.ARMED, OTHER)
    offers.disarm(MAC, OTHER)
    offers.disarm(MAC, OTHER)
    found = offers.look(MAC)
    assert found is not None
    assert (found.state, found.script) == (OfferState.DISARMED, "")


def _take(root: Path) -> int:
    return sum(BootOffers(root).take(MAC, ADDRESS)[1] for _ in range(20))


def test_of_many_that_ask_at_once_one_gets_the_script(offers: BootOffers) -> None:
    """Four processes, twenty times each: one taker, and every other one is on record."""
    offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    with ProcessPoolExecutor(4) as pool:
        assert sum(pool.map(_take, [offers.provision] * 4)) == 1
    found = offers.look(MAC)
    assert found is not None
    assert found.again == 79


def test_two_racks_in_one_root_do_not_meet(offers: BootOffers) -> None:
    """What one arms, takes and disarms is nothing to the other."""
    other = "52:54:00:77:00:01"
    offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    offers.arm(other, "10.77.0.11", OTHER, "#!ipxe\n")
    assert offers.take(other, "10.77.0.11")[1]
    offers.disarm(other, OTHER)
    assert offers.take(MAC, ADDRESS)[1]


def test_a_taker_that_is_killed_has_taken_it(offers: BootOffers) -> None:
    """The state is on the disk before a byte of the script is out: never twice."""
    offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    body = (
        "import os, pathlib; from toolkit.netboot.offers import BootOffers;"
        f"BootOffers(pathlib.Path({str(offers.provision)!r})).take({MAC!r}, {ADDRESS!r}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", body], check=False).returncode == -9
    assert offers.take(MAC, ADDRESS)[1] is False


def test_an_offer_that_is_none_is_told(decided: tuple[Decisions, list[str]]) -> None:
    """A damaged file is our defect: 500, a line with its name, and never somebody's script."""
    decisions, said = decided
    decisions.offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    file = decisions.offers.provision / "offers/52-54-00-66-00-01/offer.json"
    for broken in ("", "[]", "{}", json.dumps({"token": 1, "state": "other"})):
        file.write_text(broken)
        assert decisions.script(TARGET, ADDRESS).status == 500
    assert str(file) in said[0]
    with pytest.raises(RackproofError, match="no MAC"):
        decisions.offers.look("../../etc")


def test_scripts_are_for_their_owner_alone(offers: BootOffers) -> None:
    """No other user of the machine reads a token from an offer."""
    offers.arm(MAC, ADDRESS, TOKEN, SCRIPT)
    assert (offers.provision / "offers/52-54-00-66-00-01/offer.json").stat().st_mode & 0o777 == 0o600


def test_planned_nodes_are_those_of_the_rack_file(rack: Rack) -> None:
    """As dnsmasq(8) reads `dhcp-hostsdir`."""
    assert host_lines(rack).splitlines() == [
        "52:54:00:66:00:01,10.66.0.11",
        "52:54:00:66:00:02,10.66.0.12",
    ]
