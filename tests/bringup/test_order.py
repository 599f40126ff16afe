"""What a burn-in is started with, and what its records are taken for."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from burnin.__main__ import _parser
from burnin.record import Artifact, End, GpuIdentity, Outcome, Start, WorkloadEnded, dump
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.part import GpuSeat
from toolkit.rack.gate import Scope
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Suite
from toolkit.settings import load
from toolkit.stages.burnin import SHIPPING, ordered
from toolkit.stages.burnin_records import Followed, overheated
from toolkit.stages.burnin_run import SUITE_SECONDS
from toolkit.stages.context import Context

RACK = load_rack("dgx-h100-su", load({}).inventory)
NOW = datetime.now(UTC)
CONTEXT = Context(RACK, load({}), None, None, lambda: NOW, lambda s: None, lambda p: None)


def options(arguments):
    """The same arguments as the node's own program reads them."""
    return _parser().parse_args(["run", "--run", "x", "--suite", "quick", "--out", "/x", *arguments])


def test_a_rack_takes_up_its_load_in_steps_that_the_profile_allows():
    """Node after node from one beginning, GPU after GPU within each; the node's program understands it."""
    order = ordered(CONTEXT, RACK.nodes, Suite.QUICK)
    first, last = (options(order.arguments(RACK.nodes[n].name)) for n in (0, -1))
    assert first.begin_at == pytest.approx((NOW + SHIPPING).timestamp(), abs=0.01)
    assert last.begin_at - first.begin_at == pytest.approx(30 * 8 * 0.07, abs=0.01), "0.7 kW at 10 kW/s is 70 ms"
    assert first.gpu_stagger == last.gpu_stagger == 0.07


def test_the_power_step_begins_everywhere_at_once():
    """0 to 100 %: the same moment for all, no stagger."""
    order = ordered(CONTEXT, RACK.nodes, Suite.QUICK, step=True)
    found = [options(order.arguments(node.name)) for node in RACK.nodes]
    (begin,) = {o.begin_at for o in found}
    assert begin == pytest.approx((NOW + SHIPPING).timestamp(), abs=0.01)
    assert {o.gpu_stagger for o in found} == {0.0}


def test_one_node_waits_for_nobody():
    """Its own GPUs still begin one after the other."""
    order = ordered(CONTEXT, RACK.nodes[:1], Suite.QUICK)
    assert order.arguments(RACK.nodes[0].name) == ["--gpu-stagger", "0.070"]


def test_a_virtual_rack_has_no_ramp():
    """Nothing is waited for."""
    rack = load_rack("demo-small", load({}).inventory)
    order = ordered(replace(CONTEXT, rack=rack), rack.nodes, Suite.REHEARSAL)
    assert order.arguments("node1") == []


@pytest.mark.parametrize("suite", list(Suite))
def test_every_suite_is_known_to_the_node_and_waited_for_longer_than_it_takes(suite):
    """The names are one vocabulary."""
    from burnin.suites import BY_NAME

    assert SUITE_SECONDS[suite] > BY_NAME[suite].deadline_s + 180
    assert ordered(CONTEXT, RACK.nodes, suite).longest_s(RACK.nodes[-1].name, NOW) > SUITE_SECONDS[suite] + 40


def stop(word):
    """The suite's word on why it took the load off."""
    return [Measurement("safety_stop", "word", word, Subject(Scope.NODE, "node1"), NOW, "r", "a")]


@pytest.mark.parametrize(
    ("word", "hot"),
    [
        ("none", set()),
        ("gpu 3: GPU at 93 celsius, its limit is 92 in 3 samples", {3}),
        (
            "gpu 1: Xid 79: GPU has fallen off the bus; gpu 12: memory at 105 celsius, its limit is 95 in 3 samples",
            {12},
        ),
        ("gpu 0: GPU has a thermal margin of 0 celsius in 3 samples; gpu 1: Xid 48: double-bit ECC error", {0}),
    ],
)
def test_a_stop_for_heat_is_told_from_one_for_an_xid(word, hot):
    """Each GPU by its own reason."""
    assert overheated(stop(word), range(13)) == {gpu: int(gpu in hot) for gpu in range(13)}


def test_where_nobody_watched_nobody_was_cool():
    """No word, no flag."""
    assert overheated([], range(8)) == {}


def test_only_the_last_attempt_counts_and_a_log_must_be_whole():
    """A run that was cut and begun again says who its GPUs are anew."""
    at = "2026-11-23T00:00:00+00:00"
    records = [
        Start("r", at, "quick", "1", (GpuIdentity(0, "", "old", "0000:01:00.0"),)),
        Start("r", at, "quick", "1", (GpuIdentity(0, "", "new", "0000:01:00.0"),)),
        Artifact(at, "kernel_log", "a.txt", "0" * 64, 1),
        Artifact(at, "kernel_log", "a.txt", "1" * 64, 2),
        WorkloadEnded(at, "kernel_log", Outcome.UNAVAILABLE, 0.0),
        WorkloadEnded(at, "hbm", Outcome.STOPPED, 1.0, "", 3),
    ]
    followed = Followed()
    followed.take("".join(map(dump, records)).encode())
    assert followed.seats == {0: GpuSeat("new", "0000:01:00.0")}
    assert [a.sha256 for a in followed.artifacts] == ["1" * 64]
    assert not followed.log_is_whole
    assert followed.missing == ("nothing planned",)
    assert "hbm gpu3 stopped" in followed.poor
    followed.take(dump(End(at, ("hbm", "gemm"), ("hbm",))).encode())
    assert followed.missing == ("gemm",)
