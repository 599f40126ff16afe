"""What the search for a slow rail behind the nodes' own burn-in finds, and whom it leaves undecided."""

from __future__ import annotations

import pytest
from rail_bench import CABLE, SLOW_PORT, Bench, Mpirun, bench

from toolkit.facts.nccl_counters import ERRORS
from toolkit.rack.lifecycle import Outcome

__all__ = ["bench"]


def test_a_slow_rail_ends_with_its_cable_and_both_its_ends(bench: Bench) -> None:
    """The node leaves with it; the five others go on with the result of their own suite."""
    measure = Mpirun(share={SLOW_PORT: 0.5})
    ended = bench.run(measure)
    bad = ended.pop("node4")
    assert (bad.outcome, bad.code, bad.part) == (Outcome.FAILED, "RAIL_SLOW", CABLE)
    assert "about 50% of its bandwidth" in bad.message and "HCA node4:mlx5_3" in bad.message
    assert "rackproof release node4" in bad.next and "swap the cable" in bad.next
    assert {r.message for r in ended.values()} == {"burnt in"} and len(ended) == 5
    first = [o for o in measure.orders if "-1." in o.identity]
    assert len(first) == 24 and all(len(o.nodes) == 2 for o in first), "all rails in pairs at first"
    assert len({o.identity for o in measure.orders}) == len(measure.orders)
    assert 23 < bench.carried(*SLOW_PORT) < 24.5 and bench.carried("node3", "mlx5_3") > 45
    (told,) = bench.searches()
    assert told["suspects"][0]["convicted"] and told["unsure"] == ""  # type: ignore[index]


def test_rails_that_are_well_blame_nobody(bench: Bench) -> None:
    """All six go on."""
    ended = bench.run(Mpirun())
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED} and len(ended) == 6


def test_two_slow_rails_are_both_named(bench: Bench) -> None:
    """Of two nodes; nobody else is."""
    ended = bench.run(Mpirun(share={SLOW_PORT: 0.5, ("node1", "mlx5_6"): 0.75}))
    assert {n: r.part for n, r in ended.items() if r.part} == {
        "node4": CABLE,
        "node1": "cable node1:mlx5_6 - leaf7:1",
    }


@pytest.mark.parametrize(("how", "code"), [("deadline", "RAIL_HANGS"), ("data", "RAIL_CORRUPTS_DATA")])
def test_a_rail_that_hangs_or_corrupts_is_found_as_well(bench: Bench, how: str, code: str) -> None:
    """No number is needed for it. That it is not the GPU, the node's own collectives have shown."""
    ended = bench.run(Mpirun(ends={SLOW_PORT: how}))
    assert {n: (r.outcome, r.code, r.part) for n, r in ended.items() if r.code} == {
        "node4": (Outcome.FAILED, code, CABLE)
    }


def test_another_way_is_a_configuration_of_the_node_it_follows(bench: Bench) -> None:
    """Sockets of one node: an ERROR that names it and what was measured instead; the others' rails are well."""
    ended = bench.run(Mpirun(ends={("node2", f"mlx5_{k}"): "wrong" for k in range(8)}))
    assert {n: r.code for n, r in ended.items() if r.code} == {"node2": "WRONG_FABRIC"}
    assert ended["node2"].outcome is Outcome.ERROR and "NET/Socket" in ended["node2"].message
    assert "mlx5_0" in ended["node2"].message and "NCCL environment" in ended["node2"].next
    (told,) = bench.searches()
    assert [u["node"] for u in told["unmeasured"]] == ["node2"]  # type: ignore[attr-defined]
    assert any("NET/Socket" in line for line in bench.findings("node2"))


def test_another_way_of_all_nodes_is_nobodys_alone(bench: Bench) -> None:
    """Of every node an ERROR, and that tests do not tell whose doing it is."""
    everywhere = {(f"node{n}", f"mlx5_{k}"): "wrong" for n in range(1, 7) for k in range(8)}
    ended = bench.run(Mpirun(ends=everywhere))
    assert {(r.outcome, r.code) for r in ended.values()} == {(Outcome.ERROR, "WRONG_FABRIC")} and len(ended) == 6
    assert all("tests do not tell" in r.message for r in ended.values())


def test_what_could_not_be_launched_is_run_once_more_and_condemns_nobody(bench: Bench) -> None:
    """A node that refuses every launch: an ERROR with the launcher's words."""
    measure = Mpirun(refuses=lambda order: any(n.name == "node2" for n in order.nodes))
    ended = bench.run(measure)
    assert Outcome.FAILED not in {r.outcome for r in ended.values()}
    assert (ended["node2"].outcome, ended["node2"].code) == (Outcome.ERROR, "RAIL_UNDECIDED")
    assert "was refused" in ended["node2"].message
    again = [o.identity for o in measure.orders if o.identity.endswith(".again")]
    assert len(again) == 2 * 8, "each of the two rounds' eight tests, once more"
    assert {i.removesuffix(".again") for i in again} <= {o.identity for o in measure.orders}


def test_ranks_that_never_come_are_no_hang_of_any_rail(bench: Bench) -> None:
    """An ERROR that names the node, none of its parts; the others' rails are measured among themselves and well."""
    ended = bench.run(Mpirun(absent=("node2",)))
    bad = ended.pop("node2")
    assert (bad.outcome, bad.code, bad.part) == (Outcome.ERROR, "RAIL_UNDECIDED", ""), bad
    assert "ranks of node2 never came to NCCL's bootstrap" in bad.message and "nothing starts on node2" in bad.next
    assert {r.message for r in ended.values()} == {"burnt in"} and len(ended) == 5
    (told,) = bench.searches()
    assert told["suspects"] == [] and told["unsure"] == ""


def test_of_two_nodes_the_one_whose_ranks_never_come_leaves_both_undecided(bench: Bench) -> None:
    """The sound one has nobody else to be measured against; both are told who never came."""
    ended = bench.run(Mpirun(absent=("node2",)), ["node1", "node2"])
    assert {(r.outcome, r.code) for r in ended.values()} == {(Outcome.ERROR, "RAIL_UNDECIDED")}
    assert all("ranks of node2 never came" in r.message for r in ended.values())


def test_a_hang_without_any_log_of_nccl_condemns_nothing(bench: Bench) -> None:
    """That ranks came is told by their logs: without them a hang is the launcher's as well as the rail's."""
    everybody = tuple(f"node{n}" for n in range(1, 7))
    ended = bench.run(Mpirun(absent=everybody))
    assert {(r.outcome, r.code) for r in ended.values()} == {(Outcome.ERROR, "RAIL_UNDECIDED")} and len(ended) == 6
    assert "no log of NCCL says that ranks came" in ended["node1"].message


def test_a_node_whose_host_key_nobody_pinned_is_named_and_holds_up_nobody(bench: Bench) -> None:
    """A rented node's key is its operator's to pin: an ERROR of that node, which says so."""
    ended = bench.run(Mpirun(unpinned=("node5",)))
    bad = ended.pop("node5")
    assert (bad.outcome, bad.code, bad.part) == (Outcome.ERROR, "RAIL_UNDECIDED", "")
    assert "no host key is pinned for node5" in bad.message and "rented" in bad.message
    assert {r.message for r in ended.values()} == {"burnt in"} and len(ended) == 5


def test_two_cables_in_each_others_port_come_out_as_that(bench: Bench) -> None:
    """Both rails reach nobody: the work order names both cables with all four ends, and says to compare first."""
    ended = bench.run(Mpirun(ends={("node4", "mlx5_3"): "deadline", ("node4", "mlx5_5"): "deadline"}))
    bad = ended.pop("node4")
    assert (bad.outcome, bad.code) == (Outcome.FAILED, "RAIL_CABLES_EXCHANGED"), bad
    assert bad.part == "cable node4:mlx5_3 - leaf4:4, cable node4:mlx5_5 - leaf6:4"
    assert "ibnetdiscover" in bad.next and "rackproof release node4" in bad.next
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}
    (told,) = bench.searches()
    assert told["exchanges"][0]["rails"] == ["node4:mlx5_3 - leaf4:4", "node4:mlx5_5 - leaf6:4"]  # type: ignore[index]


def test_a_rail_whose_hca_spends_its_retries_hangs_and_a_rank_that_died_does_not(bench: Bench) -> None:
    """NCCL gives a dead link up before our deadline; a peer that died looks the same to it."""
    dead = bench.run(Mpirun(ends={SLOW_PORT: "retries"}))
    assert dead["node4"].code == "RAIL_HANGS" and dead["node4"].part == CABLE
    died = bench.run(Mpirun(ends={SLOW_PORT: "died"}))
    assert died["node4"].code == "RAIL_UNDECIDED"


def test_errors_that_a_port_counts_are_a_finding_without_a_slow_reading(bench: Bench) -> None:
    """Deltas of each test: the link whose HCA counts in all of them; what was passed on convicts nobody."""
    ended = bench.run(Mpirun(errors={SLOW_PORT: {"symbol_error": 9}}))
    bad = ended.pop("node4")
    assert (bad.outcome, bad.code, bad.part) == (Outcome.FAILED, "RAIL_COUNTS_ERRORS", CABLE), bad
    assert "counted 9" in bad.message and "leaf port leaf4:4" in bad.message
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}
    passed_on = bench.run(Mpirun(errors={SLOW_PORT: {"port_rcv_remote_physical_errors": 9}}))
    assert {r.outcome for r in passed_on.values()} == {Outcome.PASSED}


def test_a_counter_that_was_not_read_counts_neither_way(bench: Bench) -> None:
    """A slow rail is as suspect with counters that stood still as with counters nobody could read."""
    still = {(f"node{n}", SLOW_PORT[1]): dict.fromkeys(ERRORS, 0) for n in range(1, 7)}
    for errors in (still, {}):
        bench.run(Mpirun(share={SLOW_PORT: 0.5}, errors=errors))
    first, second = (search["suspects"] for search in bench.searches())
    assert first == second != []


def test_a_launch_that_fails_once_costs_nothing(bench: Bench) -> None:
    """Under another name it is measured."""
    measure = Mpirun(refuses=lambda order: not order.identity.endswith(".again") and "-1.1" in order.identity)
    ended = bench.run(measure)
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}
    assert any(o.identity.endswith(".again") for o in measure.orders)


def test_two_nodes_cannot_settle_whose_end_it_is(bench: Bench) -> None:
    """An ERROR of both, with what would tell."""
    ended = bench.run(Mpirun(share={SLOW_PORT: 0.5}), ["node3", "node4"])
    assert {r.code for r in ended.values()} == {"RAIL_UNDECIDED"} and len(ended) == 2
    assert "to settle it: a test of" in ended["node4"].message


def test_a_node_that_is_not_well_by_itself_takes_no_part(bench: Bench) -> None:
    """Certify has the word on it; the others are measured without it."""
    measure = Mpirun()
    ended = bench.run(measure, bad=["node6"])
    assert all(n.name != "node6" for o in measure.orders for n in o.nodes)
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}


def test_a_node_alone_has_no_partner(bench: Bench) -> None:
    """Nothing is measured and nothing is green."""
    measure = Mpirun()
    ended = bench.run(measure, ["node3"])
    assert ended["node3"].code == "RAIL_UNDECIDED" and measure.orders == []


def test_without_the_profiles_word_nothing_is_measured(bench: Bench) -> None:
    """The burn-in is what it was."""
    measure = Mpirun(share={SLOW_PORT: 0.5})
    ended = bench.run(measure, on=False)
    assert {r.message for r in ended.values()} == {"burnt in"} and measure.orders == []
