"""The NVLink verdict on IMEX: which nodes its domain has, and whether they reach each other."""

from __future__ import annotations

from dataclasses import replace

from nvlink_racks import DRIVER, STOPPED, found, healthy, nvl72, only, service, trays

from toolkit.judge.nvlink.finding import Blame
from toolkit.judge.nvlink.seen import ImexSeen, TraySeen
from toolkit.judge.nvlink.services import IMEX
from toolkit.judge.nvlink.verdict import judge_nvlink
from toolkit.judge.verdict import Answer


def domain(tray: TraySeen, state: str, **change: object) -> TraySeen:
    """A tray that sees its domain so; `change` replaces fields of the last peer."""
    assert tray.imex is not None
    peers = tray.imex.peers
    return replace(tray, imex=ImexSeen(state, (*peers[:-1], replace(peers[-1], **change))))


def test_degraded_with_a_silent_peer_whose_service_runs_is_a_shut_port() -> None:
    """UNAVAILABLE with an empty version: port 50005. Configuration, and no part of anybody."""
    look = trays(healthy(nvl72()), lambda t: domain(t, "DEGRADED", status="UNAVAILABLE", version="", connections=()))
    report = judge_nvlink(nvl72(), look)
    assert set(found(report)) == {"IMEX_PORT_BLOCKED"}
    assert "50005" in report.findings[0].text
    assert "tray18" in report.findings[0].text
    assert all(f.blame is Blame.SOFTWARE for f in report.findings)


def test_degraded_with_a_peer_whose_service_is_down_points_at_that_peer() -> None:
    """The others miss it; its own finding says why."""
    look = trays(healthy(nvl72()), lambda t: domain(t, "DEGRADED", status="UNAVAILABLE", version="", connections=()))
    look = trays(look, service(IMEX, STOPPED), "tray18")
    codes_found = found(judge_nvlink(nvl72(), look))
    assert codes_found.count("IMEX_DOWN") == 1
    assert codes_found.count("IMEX_PEER_DOWN") == 17


def test_ready_peers_that_are_not_connected_have_the_other_port_shut() -> None:
    """All answer on 50005, and 50000 is shut."""
    hosts = [n.host.address for n in nvl72().nodes if n.host]
    apart = tuple((h, "CONNECTED" if h != hosts[0] else "NEVER_CONNECTED") for h in hosts)
    look = trays(healthy(nvl72()), lambda t: domain(t, "DEGRADED", connections=apart), "tray01")
    finding = only(judge_nvlink(nvl72(), look))
    assert finding.code == "IMEX_PEERS_APART"
    assert "50000" in finding.settled_by
    assert finding.evidence == (f"{hosts[-1]} to {hosts[0]}: NEVER_CONNECTED",)


def test_one_version_and_it_is_the_drivers() -> None:
    """A daemon of another version is named with the pin."""
    look = trays(healthy(nvl72()), lambda t: domain(t, "UP", version="570.133.20"), "tray02")
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, finding.nodes) == ("IMEX_VERSION_WRONG", ("tray02",))
    assert f"pin nvidia-imex to {DRIVER}" in finding.settled_by


def test_fewer_or_other_nodes_than_planned_are_named() -> None:
    """17 READY trays of 18 planned are not the planned domain, whatever its state says."""

    def fewer(tray: TraySeen) -> TraySeen:
        assert tray.imex is not None
        return replace(tray, imex=ImexSeen("UP", tray.imex.peers[:17]))

    finding = only(judge_nvlink(nvl72(), trays(healthy(nvl72()), fewer, "tray01")))
    assert finding.code == "IMEX_NODES_WRONG"
    assert "17 nodes, 18 planned: without tray18" in finding.text
    look = trays(healthy(nvl72()), lambda t: domain(t, "UP", host="10.9.9.9"), "tray01")
    assert "with 10.9.9.9, of no tray in the plan" in only(judge_nvlink(nvl72(), look)).text


def test_a_domain_that_is_not_up_holds_and_then_fails() -> None:
    """Daemons that wait for one another may still come up."""
    look = trays(healthy(nvl72()), lambda t: domain(t, "DEGRADED", status="WAITING_FOR_PEERS"), "tray01")
    assert found(judge_nvlink(nvl72(), look, final=False)) == ["IMEX_DOMAIN_WAITS"]
    assert judge_nvlink(nvl72(), look, final=False).holding
    assert judge_nvlink(nvl72(), look).answer is Answer.FAIL


def test_node_lists_of_other_bytes_are_told_before_anything_else_of_imex() -> None:
    """Same lines in another order are another file."""
    look = trays(healthy(nvl72()), lambda t: replace(t, nodes_sha256="cd" * 32), "tray12")
    finding = only(judge_nvlink(nvl72(), look))
    assert (finding.code, finding.nodes) == ("IMEX_NODES_DIFFER", ())
    assert "tray12" in finding.text


def test_a_domain_that_was_not_read_is_no_pass() -> None:
    """`-q` would have said READY."""
    look = trays(healthy(nvl72()), lambda t: replace(t, imex=None), "tray12")
    assert judge_nvlink(nvl72(), look).answer is Answer.INCONCLUSIVE
