"""The tests that the search for a slow rail orders: of which rails, when, and what is left of them after a kill."""

from __future__ import annotations

from dataclasses import replace

import pytest
from burnt_in import INVENTORY, KilledError
from rail_bench import CABLE, SLOW_PORT, Bench, Mpirun, bench, demo

from toolkit.errors import UndecidedError
from toolkit.judge.locate import Plane, Test
from toolkit.rack.loading import list_profiles, load_profile, load_rack
from toolkit.stages import rail_search, rails
from toolkit.stages.mpi_command import environment

__all__ = ["bench"]


def test_a_search_ends_in_time_even_within_a_round(bench: Bench) -> None:
    """Tests for which no time is left are not begun; nobody is judged by what was not measured."""
    measure = Mpirun(seconds=600)
    ended = bench.run(measure)
    assert {r.code for r in ended.values()} == {"RAIL_UNDECIDED"} and len(ended) == 6
    assert "time was up" in ended["node1"].message
    assert len(measure.orders) < 24, "no more than were under way when the time was up"


def test_a_test_that_is_cut_short_by_the_searchs_end_is_no_hang(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deadline is what is left of the search, and a run that it ended says nothing of the rail."""
    monkeypatch.setattr(rails, "MOST_AT_ONCE", 1)  # side by side, chance would say which of them begin last
    measure = Mpirun(seconds=29.5 * 60, ends={("node1", "mlx5_0"): "deadline"})
    ended = bench.run(measure)
    assert {r.code for r in ended.values()} == {"RAIL_UNDECIDED"}
    assert any(o.deadline_s < rails.TEST_SECONDS for o in measure.orders)


def test_every_profile_with_hcas_measures_its_rails() -> None:
    """And asks for what they carry, of each HCA, as part of the burn-in."""
    for name in list_profiles(INVENTORY):
        profile = load_profile(name, INVENTORY)
        asked = [g for g in profile.gates if g.metric == "rail_busbw_gb_per_s"]
        assert profile.rail_test is (profile.hcas_per_node > 0), name
        assert [(g.code, g.limit, g.required, g.part) for g in asked] == [("RAIL_BUSBW_LOW", 45.0, True, "cable")], name


def test_a_rack_whose_leaves_are_in_another_file_has_rails_all_the_same() -> None:
    """Of a GB200 NVL72: a leaf stands for what joins a rail outside; the cable's far end is as exact as the file is."""
    rack = load_rack("gb200-nvl72", INVENTORY)
    fabric = rail_search.rails_of(rack, rack.nodes[:3])
    assert [b.name for b in fabric.blocks] == [f"rail {k}" for k in range(4)]
    first = rack.nodes[0].name
    cable = next(p for p in fabric.segments[fabric.attachment[0]].parts if str(p).startswith("cable"))
    assert str(cable) == f"cable {first}:{rack.nodes[0].hcas[0].name} - leaf of rail 0:port of {first}"
    assert rail_search.bounds_of(rack)[Plane.RAIL].ceiling_gb_per_s == 50


def test_more_hcas_than_gpus_take_turns_on_their_gpu() -> None:
    """GB300: two ports of a ConnectX-8 are next to one GPU, and a GPU is in one test at a time."""
    plain = demo()
    rack = replace(plain, profile=replace(plain.profile, gpus_per_node=4))
    fabric = rail_search.rails_of(rack, rack.nodes[:2])
    tests = [Test(Plane.RAIL, (k, k + 8)) for k in range(8)]
    orders = [rails.order_of(rack, fabric, t, "t").environment for t in tests]
    assert [o["CUDA_VISIBLE_DEVICES"] for o in orders] == list("00112233")
    assert [len(wave) for wave in rails.waves(rack, fabric, tests)] == [4, 4]


def test_a_killed_controller_is_followed_by_one_that_ends_what_is_left(bench: Bench) -> None:
    """Tests without an end on record are stopped on their nodes; new ones have new names."""
    killed = Mpirun(killed_after=5)
    with pytest.raises(KilledError):
        bench.run(killed)
    measure = Mpirun(share={SLOW_PORT: 0.5})
    assert bench.run(measure)["node4"].part == CABLE
    assert {identity for _, identity in bench.nodes.stopped} == set(killed.cut)
    assert len(bench.nodes.stopped) == 2 * len(killed.cut), "on both nodes of each"
    assert {o.identity for o in measure.orders}.isdisjoint({o.identity for o in killed.orders})
    bench.nodes.stopped.clear()
    bench.run(Mpirun())
    assert bench.nodes.stopped == [], "what was ended is on record as ended"


def test_what_does_not_die_stops_the_next_search(bench: Bench) -> None:
    """Two tests on one node would measure each other."""
    with pytest.raises(KilledError):
        bench.run(Mpirun(killed_after=5))
    bench.nodes.alive = ("571 all_reduce_perf",)
    measure = Mpirun()
    with pytest.raises(UndecidedError, match="571 all_reduce_perf"):
        bench.run(measure)
    assert measure.orders == []


def test_a_test_is_of_one_rail_and_no_other_way() -> None:
    """One GPU and one HCA a node; the environment is one that may be set."""
    rack = demo()
    order = rails.order_of(rack, rail_search.rails_of(rack, rack.nodes), Test(Plane.RAIL, (3, 27)), "t1")
    assert ([n.name for n in order.nodes], order.ranks) == (["node1", "node4"], 2)
    told = environment(order, "/x")
    assert (told["NCCL_IB_HCA"], told["CUDA_VISIBLE_DEVICES"], told["NCCL_SHM_DISABLE"]) == ("=mlx5_3", "3", "1")


def test_an_hca_is_in_one_test_of_a_round(bench: Bench) -> None:
    """All tests of a round may run side by side: their names tell them from any other's run, which may not."""
    measure = Mpirun()
    bench.run(measure)
    rounds: dict[str, list[tuple[str, str]]] = {}
    for order in measure.orders:
        hca = order.environment["NCCL_IB_HCA"]
        rounds.setdefault(order.identity.rpartition(".")[0], []).extend((n.name, hca) for n in order.nodes)
        assert order.identity.startswith(order.beside) and order.beside.startswith("demo-rails")
    assert len(rounds) > 1
    for ports in rounds.values():
        assert len(ports) == len(set(ports))
