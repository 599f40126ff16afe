"""Levels behind the nodes' own burn-in: who is well, who is found by halves, who stays in doubt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from burnt_in import STOPPED, KilledError
from level_bench import Bench, How, Mpirun, bench, floor, having, outcomes

from toolkit.errors import UndecidedError
from toolkit.facts.nccl_path import Fabric
from toolkit.judge.evidence import Subject
from toolkit.rack.gate import Scope
from toolkit.rack.model import WideLevel
from toolkit.stages.collective_result import Collected
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context
from toolkit.stages.mpi_command import Order, environment

__all__ = ["bench"]


def test_a_rack_that_is_well_goes_on_with_its_own_results(bench: Bench) -> None:
    """Leaf by leaf side by side, then the unit; each on record under a name of its own, and measured of its subject."""
    measure = Mpirun()
    ended = bench.run(measure)
    assert outcomes(ended) == {} and {r.message for r in ended.values()} == {"burnt in"} and len(ended) == 6
    kinds = [(o.collective, o.gpus_per_node) for o in measure.orders]
    assert kinds == [("all_reduce", 1)] * 8 + [("alltoall", 1)] * 8 + [("all_reduce", 8)]
    assert len({o.identity for o in measure.orders}) == 17
    assert bench.measured(Subject(Scope.RACK), "rack_nccl_all_reduce_busbw_gb_per_s") == [445.0] * 6
    assert bench.measured(Subject(Scope.LEAF, "leaf3"), "leaf_nccl_all_reduce_ranks") == [6] * 6
    assert bench.campaign()["left_behind"] == []


def test_the_orders_are_of_the_intended_hcas_and_nothing_else(bench: Bench) -> None:
    """A leaf has one GPU and one HCA of each node and no other way; the unit has every rail, by name."""
    measure = Mpirun()
    bench.run(measure)
    leaf, unit = measure.orders[0], measure.orders[-1]
    assert environment(leaf, "/f")["NCCL_IB_HCA"] == "=mlx5_0" and leaf.environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert {leaf.environment[k] for k in ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE")} == {"1"}
    assert {o.environment["NCCL_IB_HCA"] for o in measure.orders[:8]} == {f"=mlx5_{k}" for k in range(8)}
    assert unit.environment == {"NCCL_IB_HCA": "=" + ",".join(f"mlx5_{k}" for k in range(8))}
    assert all(o.beside and o.identity.startswith(o.beside) for o in measure.orders)


def test_a_node_that_makes_the_unit_slow_is_found_by_halves_and_blamed_for_nothing(bench: Bench) -> None:
    """Its own suite and its leaf were well: it alone stays, an ERROR with what was measured and what would tell."""
    measure = Mpirun(having("node4", how=0.5, hca=""))
    ended = bench.run(measure)
    assert outcomes(ended) == {"node4": "UNIT_BUSBW_LOW"}
    bad = ended["node4"]
    assert "222.5 GB/s" in bad.message and "at least 300" in bad.message
    assert "with it and not without it" in bad.message and "1 of 6 nodes" in bad.message
    assert "compare the error counters and cables of node4" in bad.next
    halves = [{n.name for n in o.nodes} for o in measure.orders[18:]]
    assert halves[:2] == [{"node1", "node2", "node3"}, {"node4", "node5", "node6"}]
    kept = bench.measured(Subject(Scope.RACK), "rack_nccl_all_reduce_busbw_gb_per_s")
    assert sorted(kept) == [222.5, 445.0, 445.0, 445.0, 445.0, 445.0], "each node's last test with it"


def test_what_shows_only_in_a_crowd_leaves_those_that_cannot_be_told_apart(bench: Bench) -> None:
    """Two are well, three are not: the third half is too small to tell, one by one beside the others tells."""
    ended = bench.run(Mpirun(having("node2", how=0.6, fewest=3)))
    assert outcomes(ended) == {"node2": "LEAF_BUSBW_LOW"}
    assert "leaf1, rail 0" in ended["node2"].message or "leaf" in ended["node2"].message


def test_what_is_everybodys_leaves_everybody_in_doubt(bench: Bench) -> None:
    """A slow spine, or a configuration: no node is named, all stay, with the number."""
    ended = bench.run(Mpirun(lambda nodes, hca: None if hca else 0.4))
    assert set(outcomes(ended).values()) == {"UNIT_BUSBW_LOW"} and len(ended) == 6
    assert "both halves are bad, among all of them" in ended["node1"].message
    assert "rackproof explain UNIT_BUSBW_LOW" in ended["node1"].next


@pytest.mark.parametrize(("how", "code"), [("hang", "UNIT_HANGS"), ("data", "UNIT_DATA_WRONG")])
def test_a_hang_and_wrong_data_are_narrowed_like_a_slow_one(bench: Bench, how: str, code: str) -> None:
    """They need no gate."""
    ended = bench.run(Mpirun(having("node6", how=how, hca="")), gates=(STOPPED,))
    assert outcomes(ended) == {"node6": code}


def test_a_node_whose_host_key_nobody_pinned_is_named_and_the_others_go_on(bench: Bench) -> None:
    """A rented node's key is its operator's to pin: it is this node's ERROR, and says so."""
    ended = bench.run(Mpirun(having("node5", how="unpinned", hca="")))
    assert outcomes(ended) == {"node5": "UNIT_UNDECIDED"}
    assert "no host key is pinned for node5" in ended["node5"].message and "rented" in ended["node5"].message


def test_ranks_that_never_came_are_named_and_the_others_go_on(bench: Bench) -> None:
    """The last node's ranks wrote no line of NCCL's log."""
    ended = bench.run(Mpirun(having("node6", how="late", hca="")))
    assert outcomes(ended) == {"node6": "UNIT_UNDECIDED"}
    assert "Ranks that never came: node6: 8 ranks from 40 on" in ended["node6"].message


def test_a_node_that_dies_in_the_middle_is_named_and_the_others_go_on(bench: Bench) -> None:
    """Nobody can tell what still runs on it."""
    ended = bench.run(Mpirun(having("node5", how="gone", hca="")))
    assert outcomes(ended) == {"node5": "UNIT_UNDECIDED"}
    assert "node5: no route to host" in ended["node5"].message


def test_the_wrong_fabric_twice_is_no_number_for_anybody(bench: Bench) -> None:
    """All that took part stay, and none of them is slow."""
    ended = bench.run(Mpirun(lambda nodes, hca: None if hca else "wrong"))
    assert set(outcomes(ended).values()) == {"WRONG_FABRIC"} and len(ended) == 6
    assert "NET/Socket" in ended["node1"].message


def test_an_hca_that_carried_nothing_was_not_measured(bench: Bench) -> None:
    """The bandwidth is well, and it is not of all rails."""
    ended = bench.run(Mpirun(lambda nodes, hca: None if hca else "idle"))
    assert set(outcomes(ended).values()) == {"WRONG_FABRIC"}
    assert "node1: mlx5_7 did not carry their share" in ended["node1"].message


def test_what_comes_and_goes_is_not_taken_for_well(bench: Bench) -> None:
    """Once slow, once not: everybody stays."""
    seen: list[int] = []

    def once(nodes: frozenset[str], hca: str) -> How | None:
        seen.extend([1] if not hca else [])
        return 0.5 if len(seen) == 1 and not hca else None

    ended = bench.run(Mpirun(once))
    assert set(outcomes(ended).values()) == {"UNIT_UNDECIDED"} and len(ended) == 6
    assert "it comes and goes" in ended["node1"].message


def test_a_launch_that_fails_once_costs_nothing(bench: Bench) -> None:
    """Under another name it is measured."""
    seen: list[int] = []

    def once(nodes: frozenset[str], hca: str) -> How | None:
        seen.extend([1] if not hca else [])
        return "refused" if len(seen) == 1 and not hca else None

    assert outcomes(bench.run(Mpirun(once))) == {}


def test_a_required_gate_without_a_limit_passes_nobody(bench: Bench) -> None:
    """Nobody has sourced one: that is no pass. Where it is not required, the number stands and nobody is kept."""
    metric = "rack_nccl_all_reduce_busbw_gb_per_s"
    unsourced = floor("UNIT_BUSBW_LOW", metric, Scope.RACK, None)
    ended = bench.run(Mpirun(), gates=(STOPPED, unsourced))
    assert set(outcomes(ended).values()) == {"UNIT_UNDECIDED"}
    assert "has no sourced limit" in ended["node1"].message
    assert outcomes(bench.run(Mpirun(), gates=(STOPPED, replace(unsourced, required=False)))) == {}


def test_nodes_that_are_not_well_by_themselves_take_no_part(bench: Bench) -> None:
    """One has its own ERROR, of another certify has the word; the leaf is measured among the four others."""
    measure = Mpirun()
    ended = bench.run(measure, bad=["node6"], broken=["node1"])
    assert {n.name for o in measure.orders for n in o.nodes} == {"node2", "node3", "node4", "node5"}
    assert outcomes(ended) == {"node1": "BURNIN_CUT"}


def test_a_level_that_these_nodes_cannot_have_is_left_out_and_said_so(bench: Bench) -> None:
    """Two nodes have no leaf of their own, one node has nothing; that is on record and keeps nobody."""
    measure = Mpirun()
    ended = bench.run(measure, ["node1", "node2"])
    assert outcomes(ended) == {} and [o.gpus_per_node for o in measure.orders] == [8]
    assert "their pairs are all there is" in str(bench.campaign()["absent"])
    alone = Mpirun()
    assert outcomes(bench.run(alone, ["node3"])) == {} and alone.orders == []
    assert "node3 is alone" in str(bench.campaign()["absent"])


def test_without_the_profiles_word_nothing_is_measured(bench: Bench) -> None:
    """The burn-in is what it was."""
    measure = Mpirun()
    ended = bench.run(measure, wanted=())
    assert {r.message for r in ended.values()} == {"burnt in"} and measure.orders == []


def test_an_nvlink_domain_is_measured_over_nvlink(bench: Bench) -> None:
    """All GPUs of all trays of the rack, and no HCA named: NVLink is what must have carried it."""
    fabrics: list[Fabric] = []
    measure = Mpirun()

    def over(context: Context, order: Order, fabric: Fabric, site: Site) -> Collected:
        fabrics.append(fabric)
        return measure(context, order, fabric, site)

    over.orders = measure.orders  # type: ignore[attr-defined]
    ended = bench.run(over, wanted=list(WideLevel), name="gb200-nvl72")  # type: ignore[arg-type]
    assert outcomes(ended) == {} and len(ended) == 18
    assert [(o.collective, o.ranks, o.environment) for o in measure.orders] == [
        ("all_reduce", 72, {}), ("alltoall", 72, {}),
    ]  # fmt: skip
    assert set(fabrics) == {Fabric.NVLINK}
    assert bench.measured(Subject(Scope.DOMAIN), "domain_nccl_all_reduce_ranks", "gb200-nvl72") == [72] * 18


def test_a_killed_controller_is_followed_by_one_that_ends_what_is_left(bench: Bench) -> None:
    """Tests without an end on record are stopped on all their nodes; new ones have new names."""
    killed = Mpirun(killed_after=5)
    with pytest.raises(KilledError):
        bench.run(killed)
    measure = Mpirun()
    assert outcomes(bench.run(measure)) == {}
    assert {identity for _, identity in bench.nodes.stopped} == set(killed.cut)
    assert len(bench.nodes.stopped) == 6 * len(killed.cut)
    assert {o.identity for o in measure.orders}.isdisjoint({o.identity for o in killed.orders})
    bench.nodes.stopped.clear()
    bench.run(Mpirun())
    assert bench.nodes.stopped == [], "what was ended is on record as ended"


def test_what_does_not_die_stops_the_next_campaign(bench: Bench) -> None:
    """Two tests on one node would measure each other."""
    with pytest.raises(KilledError):
        bench.run(Mpirun(killed_after=5))
    bench.nodes.alive = ("571 all_reduce_perf",)
    measure = Mpirun()
    with pytest.raises(UndecidedError, match="571 all_reduce_perf"):
        bench.run(measure)
    assert measure.orders == []
