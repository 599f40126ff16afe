"""A burn-in's trace in a report: what the node's own sampler writes is drawn, and anything else is told, not drawn."""

from datetime import UTC, datetime, timedelta

import pytest

from burnin.samples import Samples
from toolkit.report.html.traces import HEIGHT, MAX_BYTES, POINTS, WIDTH, trace_name, trace_of

BEGAN = datetime(2026, 11, 23, 12, tzinfo=UTC)


def written(samples, gpus=2, **more):
    """The trace that the sampler of a node with these powers in watts leaves, one sample a second."""
    taken = Samples()
    for second, watts in enumerate(samples):
        at = (BEGAN + timedelta(seconds=second)).isoformat()
        reading = {"power_mw": watts * 1000, "gpu_celsius": 40 + watts // 10, "hbm_celsius": 50, "gpu_percent": 99}
        taken.add(at, {gpu: reading | more for gpu in range(gpus)})
    return taken.csv().encode()


def test_power_is_summed_over_the_gpus_and_the_hottest_is_taken():
    """In watts and degrees, from the first sample on; the artifact is named."""
    found = trace_of("node1", "ab" * 32, written([100, 700, 650]), 2)
    assert (found.problem, found.began, found.seconds, found.evidence) == ("", BEGAN, 2.0, "ab" * 32)
    power, gpu, hbm = found.curves
    assert power.points == ((0.0, 200.0), (1.0, 1400.0), (2.0, 1300.0))
    assert (gpu.span, hbm.span) == ((50.0, 110.0), (50.0, 50.0))
    assert power.path == f"M 0.0 {HEIGHT:.1f} L {WIDTH / 2:.1f} 0.0 L {WIDTH:.1f} {HEIGHT * 100 / 1200:.1f}"


def test_a_spike_of_one_second_in_an_hour_is_drawn():
    """Thinned to what a screen can show, by the highest of each stretch."""
    watts = [300] * 3000
    watts[1234] = 900
    (power, *_) = trace_of("node1", "", written(watts), 2).curves
    assert len(power.points) <= POINTS
    assert power.span == (600.0, 1800.0)


def test_a_gpu_that_said_nothing_leaves_a_gap_and_no_smaller_sum():
    """Power of seven GPUs is not the node's; a reading that nobody had is no curve."""
    found = trace_of("node1", "", written([100, 200, 300], gpus=2), 3)
    assert [c.title for c in found.curves] == ["hottest GPU", "hottest HBM"]
    cold = trace_of("node1", "", written([100, 200], hbm_celsius=None), 2)
    assert [c.title for c in cold.curves] == ["power of all GPUs", "hottest GPU"]


HEAD = b"at,gpu,power_mw,gpu_celsius,hbm_celsius\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "fewer than two samples"),
        (HEAD, "fewer than two samples"),
        (HEAD + b"2026-11-23T12:00:00+00:00,0,1,1,1\n", "fewer than two samples"),
        (HEAD + b"yesterday,0,1,1,1\n", "does not read"),
        (HEAD + b"2026-11-23T12:00:00,0,1,1,1\n", "a time without a zone"),
        (HEAD + b"2026-11-23T12:00:00+00:00,0,nan,1,1\n", "power_mw is nan"),
        (HEAD + b"2026-11-23T12:00:00+00:00,0,<script>,1,1\n", "does not read"),
        (HEAD + b"2026-11-23T12:00:00+00:00,0\n", "a line is cut short"),
        (b"\xff\xfe" * 8, "does not read"),
        (b"x" * (MAX_BYTES + 1), "more than"),
        (HEAD + b"2026-11-23T12:00:00+00:00,0,,,\n2026-11-23T12:00:01+00:00,0,,,\n", "no power and no temperature"),
    ],
)
def test_what_is_no_trace_is_told_and_draws_nothing(content, says):
    """Never an exception, never a line at nought."""
    found = trace_of("node1", "", content, 1)
    assert found.curves == ()
    assert says in found.problem


def test_the_trace_is_found_by_its_name_whatever_is_before_it():
    """A second attempt puts its number there."""
    assert trace_name(["a.txt", "2-nvml_samples.csv"]) == "2-nvml_samples.csv"
    assert trace_name(["a.txt"]) == ""
